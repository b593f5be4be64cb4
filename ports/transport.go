package ports

// Neighbour is a native that this node is connected to.
type Neighbour struct {
	PeerID PeerID
	// Addrs are its addresses, best first, in the transport's own form.
	Addrs []string
	// Watchable means that it offers Watch; a native of the seed does not.
	Watchable bool
	// At is the public address at which it is connected, with whatever port; "" without one. The native
	// chooses Addrs, and not this.
	At string
	// Site is the same for all natives at a public address or in its block; "" for an address
	// that is not public.
	Site string
}

// Bootstrap tells of the peers that a node is configured to join through (host.bootstrap).
type Bootstrap interface {
	// Peers returns them, but for this node itself and for those that are known to be no natives,
	// and a channel that closes once they may have changed. It does not block.
	Peers() (peers []BootstrapPeer, changed <-chan struct{})
}

// BootstrapPeer is a peer that a node is configured to join through.
type BootstrapPeer struct {
	// PeerID is "" for a name that has not been resolved yet.
	PeerID PeerID
	// Reachable means that it is connected, or that the first attempt to connect has not ended yet.
	Reachable bool
}

// Transport carries the methods of natives between nodes.
//
// All methods may be called concurrently.
type Transport interface {
	// Serve hands each request to n, concurrently, until stop is called. The connection proves
	// the sender, and the context ends with the exchange; on an open stream of heartbeats it may end
	// with the stream. stop hastens running exchanges and blocks until they end. It ends each watch with
	// a *Refusal (CodeBusy) to the watcher. It may be called twice. A second Serve before stop is an error.
	Serve(n Native) (stop func(), err error)

	// Native returns the native id, reached at addrs (in the transport's own form), or without
	// addrs over an open connection. It does no I/O; the error names the wrong address.
	Native(id PeerID, addrs []string) (RemoteNative, error)

	// Neighbours returns the connected natives, sorted by PeerID, and a channel that closes once
	// they may have changed. It does not block.
	Neighbours() (natives []Neighbour, changed <-chan struct{})
}
