package ports

import "context"

// Announcement is a PeerID that another native says is alive.
type Announcement struct {
	PeerID PeerID
	// From is the native that says so, as its signature proves. Signatures are cheap:
	// whoever wants a thousand names makes a thousand keys.
	From PeerID
	// Via is the neighbour that handed it on, and equals From if that is who says so. A
	// neighbour is a connection, which is not so cheap. "" if the adapter has no neighbours.
	Via PeerID
}

// Announcer tells other natives which PeerIDs are alive, and hears what they
// tell. Announcements are hints: they may be lost, repeated and reordered, and
// only the entry looked up behind one counts.
//
// All methods may be called concurrently.
type Announcer interface {
	// Announce tells the others that id is alive. It does not wait for anybody to
	// hear it, and nobody listening is no error. An id that is not a PeerID is.
	Announce(ctx context.Context, id PeerID) error

	// Listen calls hear for every announcement of another native, one at a time, until
	// stop is called or the Announcer is closed; an announcement of this node's own is
	// not heard. hear must not block: while it runs, others wait and may be lost. stop
	// blocks until a running hear has returned, and may be called twice. A second
	// Listen before stop is an error.
	Listen(hear func(Announcement)) (stop func(), err error)
}
