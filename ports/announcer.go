package ports

import "context"

// Announcement is a PeerID that another native reports alive.
type Announcement struct {
	PeerID PeerID
	// From is the announcing native, as its signature proves. Signatures are cheap: a peer with
	// a thousand keys has a thousand names.
	From PeerID
	// Via is the neighbour that forwarded the announcement; it equals From without a hop
	// between. A neighbour costs a connection, more than a signature. "" if the adapter has no
	// neighbours.
	Via PeerID
}

// Announcer announces live PeerIDs to other natives and receives their announcements.
// Announcements are hints: the network may lose, repeat and reorder them. Only the entry looked
// up behind an announcement counts.
//
// All methods may be called concurrently.
type Announcer interface {
	// Announce announces to the others that id is alive. It does not wait for a receiver. Having
	// no listener is no error. An id that is not a PeerID is an error.
	Announce(ctx context.Context, id PeerID) error

	// Listen calls hear for each announcement of another native, never for this node's own, in
	// sequence, until the caller calls stop or closes the Announcer. hear must not block: later
	// announcements wait meanwhile and may be lost. stop blocks until a running hear returns,
	// and may be called twice. A second Listen before stop is an error.
	Listen(hear func(Announcement)) (stop func(), err error)
}
