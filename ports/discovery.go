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
