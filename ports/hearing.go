package ports

import "context"

// Hangups is an optional interface of a Native that a Transport serves. A Transport without
// connections never calls it.
type Hangups interface {
	// HungUp says that sender, which has asked over a connection, has ended its last connection
	// to this node itself: by a close, or because its process has ended. A lost line, a time-out
	// and a close by this node are no such ends. beating says that the connection carried an open
	// stream of heartbeats until then. It does not block.
	HungUp(sender PeerID, beating bool)
}

// Line tells a native whether it reaches others at all.
type Line interface {
	// Works reports whether another machine answers this node: a connected peer, or the machine
	// at one of addrs, be it by a refusal. Addrs are in the transport's own form. It blocks until
	// one of them has answered, all have failed, or ctx ends.
	Works(ctx context.Context, addrs []string) bool
}
