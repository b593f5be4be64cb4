package ports

import (
	"context"
	"iter"
	"time"
)

// The protocol IDs on the wire. The first is the seed's.
const (
	SubscribeProtocol = "/opencloud/native/subscribe/1.0"
	LeaveProtocol     = "/opencloud/native/leave/1.0"
	LookupProtocol    = "/opencloud/native/lookup/1.0"
	WatchProtocol     = "/opencloud/native/watch/1.0"
	// FollowProtocol is the binary watch between natives. HeartbeatProtocol carries the heartbeats
	// of an indexer on a stream that stays open.
	FollowProtocol    = "/opencloud/native/follow/1.0"
	HeartbeatProtocol = "/opencloud/native/heartbeat/1.0"
)

// Native is the interface of a native. The registry implements it in process. A Transport serves
// it to others and hands out the same interface for a remote native: tests, indexers, readers
// and other natives use the same noun.
//
// sender is the caller's authenticated identity. In process the caller vouches for it, and "" is
// this process. A remote Native takes only the local node's identity, since a connection proves
// no other. Any other sender is an error, and not a *Refusal.
//
// All methods may be called concurrently. A native refuses with a *Refusal.
type Native interface {
	// Register grants sender a lease for r, or returns a *Refusal. It waits for no store and no
	// other native.
	Register(ctx context.Context, sender PeerID, r Registration) (Lease, error)

	// Leave ends sender's lease: here at once, at other natives when the news reaches them.
	// Without a lease it is no error: it ends sender's entries at others too. An older entry is
	// not listed again; a later Register is. record is sender's signed leave, the proof for
	// natives that hold a signed entry; nil without a proof.
	Leave(ctx context.Context, sender PeerID, record []byte) error

	// LookUp returns the live entry of id. Without an entry here, the native searches the store.
	// A search may take seconds and is bounded per sender. Without an entry there either, the
	// error is ErrNotFound and the Answer has the Condition.
	LookUp(ctx context.Context, sender, id PeerID) (Answer, error)

	// List returns a page of the live table. It does not wait.
	List(ctx context.Context, sender PeerID, q Query) (Page, error)

	// Natives returns this native's view of its connected natives, sorted by PeerID. It waits
	// for the slowest of them to answer, 2 s at most.
	Natives(ctx context.Context, sender PeerID) ([]NativeStatus, error)

	// Watch yields changes until ctx ends, the caller stops, or the watch fails: the last pair
	// then has the error. The first batch comes at once; from a remote native within
	// ExchangeTimeout, or the error is ErrSilent. After an error that is no *Refusal, the
	// caller may resume from the last Cursor. CodeTooSlow means that the native dropped a slow
	// reader. Readers may share Changes: a reader may keep them, and must not modify them.
	Watch(ctx context.Context, sender PeerID, w WatchRequest) iter.Seq2[Batch, error]
}

// RemoteNative is a Native behind a Transport.
//
// Each method blocks to dial (bounded by the transport), to write, and to wait for the answer
// (ExchangeTimeout each). It returns early when ctx ends. It works after an outage of any
// length: each call dials again if need be.
//
// A native can answer if it has answered this node before, or offers more than Register. Its
// silence is an error. The silence of any other native, after a Register that wrote its whole
// frame, is a Lease with Unconfirmed set and no error: a native of the seed never answers. Anything
// else that is not a lease or a *Refusal is an error; a retry may help. A request that the native
// does not support is ErrNotOffered: a native of the seed supports Register alone.
//
// A path may die without a word, and leave a connection that is open on paper. So Register and
// Leave close a connection over which a native that can answer is silent. If the connection was
// there before them, they wait for the Patience of ctx alone. After that, and if it breaks, they
// dial anew and send the same once more.
type RemoteNative interface {
	Native
	// Disconnected returns a channel that closes with the connection of the last successful
	// Register, and nil before the first. A transport without connections may always return nil.
	Disconnected() <-chan struct{}
	// Reached returns the address by which the last successful Register reached the native, in the
	// transport's own form. It is "" before the first, and if the native had dialled this node.
	Reached() string
}

type patience struct{}

// WithPatience returns a context in which Register and Leave wait for an answer over an older
// connection for d, if that is less than ExchangeTimeout. It leaves time for another connection.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patience{}, d)
}

// Patience returns the patience of ctx, at most usual.
func Patience(ctx context.Context, usual time.Duration) time.Duration {
	if d, ok := ctx.Value(patience{}).(time.Duration); ok {
		return min(d, usual)
	}
	return usual
}

type openStream struct{}

// WithOpenStream returns a context in which Register may send over a stream that stays open until life
// ends, so that the next Register costs a frame and no stream. A native that does not offer this, and
// a transport without streams, is sent each registration by itself. All else holds as for any
// Register.
func WithOpenStream(ctx, life context.Context) context.Context {
	return context.WithValue(ctx, openStream{}, life)
}

// OpenStream returns the context with which the open stream ends, nil if ctx asks for no such stream.
func OpenStream(ctx context.Context) context.Context {
	life, _ := ctx.Value(openStream{}).(context.Context)
	return life
}

// Suspecter is a RemoteNative of a transport with connections.
type Suspecter interface {
	// Suspect closes the connection that the last Watch used: it may be open on paper alone, and
	// a dial would use it again. Other connections to the native stay. It returns soon.
	Suspect()
}

// NativeStatus is a native's view of another native.
type NativeStatus struct {
	PeerID PeerID
	Addrs  []string
	// Following means that this native has copied the other's table and receives its changes as
	// they happen.
	Following bool
	// RoundTrip is the duration of a look-up just now; 0 without an answer.
	RoundTrip time.Duration
	// Live is the number of leases it granted itself, by its last report; 0 without a report.
	Live int
	// Lag is the age of its last change when it was listed here; 0 before the first change.
	Lag time.Duration
}
