package ports

import "context"

// Found is a native that a Discovery found, or another way to reach it.
type Found struct {
	PeerID PeerID
	// Addrs are its addresses in the transport's own form; not empty.
	Addrs []string
}

// Discovery finds natives in a DHT or on the local network. Its results are hints: a native may
// be gone, or a peer may have lied.
//
// All methods may be called concurrently.
type Discovery interface {
	// Advertise lets others find this node as a native. It repeats the advertisement before it
	// lapses, and blocks until ctx ends. Without a peer to tell it keeps trying; that is no
	// error.
	Advertise(ctx context.Context) error

	// Find calls found, in sequence, for each native that it finds, except this node. It returns
	// when it has found all or ctx ends; neither is an error. found must not block.
	Find(ctx context.Context, found func(Found)) error
}

// Joiner connects this node to natives that others tell of.
type Joiner interface {
	// Meet has this node connect to a native soon, unless it is connected, or there are better natives
	// enough. found is a hint: no such native may be there. So it costs a few dials at most, and each
	// teller has a share of them. by is the native that told of it, "" for a Discovery. An address that
	// no registration may have is not dialled. It does not block.
	Meet(found Found, by PeerID)
}
