package ports

// Neighbour is a native that this node is connected to.
type Neighbour struct {
	PeerID PeerID
	// Addrs is where it can be reached, best first, in the transport's own form.
	Addrs []string
	// Watchable means that it offers Watch: a native that knows only the seed does not.
	Watchable bool
}

// Transport carries what a native offers between nodes.
//
// All methods may be called concurrently.
type Transport interface {
	// Serve hands all that arrives to n, concurrently, with the sender that the
	// connection proves and a context that ends with the exchange, until stop is called.
	// stop blocks until running exchanges have ended, which it hastens; watches it ends,
	// with a *Refusal (CodeBusy) to the watcher. It may be called twice. A second Serve
	// before stop is an error.
	Serve(n Native) (stop func(), err error)

	// Native returns the native id, reached at addrs (in the transport's own form), or
	// with none over a connection that there is already. It does no I/O; the error says
	// which address is wrong.
	Native(id PeerID, addrs []string) (RemoteNative, error)

	// Neighbours returns the natives that this node is connected to, sorted by PeerID,
	// and a channel that is closed once that may have changed. It does not block.
	Neighbours() (natives []Neighbour, changed <-chan struct{})
}
