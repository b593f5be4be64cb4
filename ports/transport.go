package ports

import "context"

// SubscribeProtocol is the protocol ID of a registration on the wire: the seed's.
const SubscribeProtocol = "/opencloud/native/subscribe/1.0"

// Native is what a native offers. The registry implements it in process; a
// Transport serves it to others and hands out the same for a remote native, so
// that a test, an indexer and another native all use one noun.
type Native interface {
	// Register grants sender a lease for r, or returns a *Refusal. sender is the
	// authenticated identity: in process the caller vouches for it; a remote Native
	// takes only the local node's own identity, since nothing else could be proven.
	// It does not wait for a store or for other natives.
	Register(ctx context.Context, sender PeerID, r Registration) (Lease, error)
}

// RemoteNative is a Native that is reached over a Transport.
//
// Register blocks for as long as it takes to dial (bounded by the transport), to
// write and to hear the answer (ExchangeTimeout each), and returns early when ctx
// ends. It works after an outage of any length: each call dials again if need be.
// Written whole and not answered is a Lease with Unconfirmed set and no error;
// anything else that is not a lease or a *Refusal is an error, and trying again
// later may help.
type RemoteNative interface {
	Native
	// Disconnected returns a channel that is closed when the connection that the
	// last successful Register used has ended, and is nil before the first. A
	// transport without connections may always return nil.
	Disconnected() <-chan struct{}
}

// Transport carries registrations between nodes.
//
// All methods may be called concurrently.
type Transport interface {
	// Serve hands every registration that arrives to n, concurrently, with the sender
	// that the connection proves and a context that ends with the exchange, until stop
	// is called. stop blocks until running exchanges have ended, which it hastens, and
	// may be called twice. A second Serve before stop is an error.
	Serve(n Native) (stop func(), err error)

	// Native returns the native id, reached at addrs (in the transport's own form;
	// at least one). It does no I/O; the error says which address is wrong.
	Native(id PeerID, addrs []string) (RemoteNative, error)
}
