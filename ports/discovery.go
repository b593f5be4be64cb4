package ports

import "context"

// Found is a native that a Discovery has found, or another way to reach one.
type Found struct {
	PeerID PeerID
	// Addrs is where it may be reached, in the transport's own form; not empty.
	Addrs []string
}

// Discovery finds natives: in a DHT, on the local network. What it finds are hints: a
// native may be gone, or be somebody else's lie.
//
// All methods may be called concurrently.
type Discovery interface {
	// Advertise has others find this node as a native until ctx ends, and again whenever
	// what it said would lapse. It blocks until then, and finding nobody to tell is no
	// error: it goes on trying.
	Advertise(ctx context.Context) error

	// Find calls found, one at a time, for each native that it finds now, this node itself
	// never, and returns when it has found all or ctx ends, which is no error. found must
	// not block.
	Find(ctx context.Context, found func(Found)) error
}
