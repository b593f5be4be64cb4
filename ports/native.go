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
)

// Native is what a native offers. The registry implements it in process; a
// Transport serves it to others and hands out the same for a remote native, so
// that a test, an indexer, a reader and another native all use one noun.
//
// sender is the caller's authenticated identity. In process, the caller vouches for it,
// and "" is this very process. A remote Native takes the local node's own identity alone,
// since a connection proves no other. Any other sender is an error, and not a *Refusal.
//
// All methods may be called concurrently. A native's "no" is a *Refusal.
type Native interface {
	// Register grants sender a lease for r, or returns a *Refusal. It does not wait for a
	// store or for other natives.
	Register(ctx context.Context, sender PeerID, r Registration) (Lease, error)

	// Leave ends sender's lease, here at once, and at other natives by whatever way they
	// hear of it. Having none is no error: what others still hold of sender ends too. An
	// entry that was granted before is not listed again; a later Register is. record is
	// sender's signed word for it, which is what natives believe that hold a signed entry
	// of it; nil if it has none.
	Leave(ctx context.Context, sender PeerID, record []byte) error

	// LookUp returns the live entry of id. What this native does not hold is looked up
	// in the store, which may take seconds and is bounded for each sender; not found
	// there either is ErrNotFound, with an Answer that has the Condition.
	LookUp(ctx context.Context, sender, id PeerID) (Answer, error)

	// List returns a page of the live table. It waits for nobody.
	List(ctx context.Context, sender PeerID, q Query) (Page, error)

	// Natives returns what this native knows of the other natives that it is connected
	// to, sorted by PeerID. It may take as long as the slowest of them to answer, 2 s at
	// most.
	Natives(ctx context.Context, sender PeerID) ([]NativeStatus, error)

	// Watch tells of changes until ctx ends, the caller stops, or it fails: the last pair
	// then has the error. The first batch comes at once. An error that is no *Refusal
	// means that going on from the last Cursor may help; CodeTooSlow means that this
	// reader was dropped, since it did not keep up. Others may be given the same Changes:
	// they may be kept, and must not be modified.
	Watch(ctx context.Context, sender PeerID, w WatchRequest) iter.Seq2[Batch, error]
}

// RemoteNative is a Native that is reached over a Transport.
//
// Each method blocks for as long as it takes to dial (bounded by the transport), to
// write and to hear the answer (ExchangeTimeout each), and returns early when ctx
// ends. It works after an outage of any length: each call dials again if need be.
//
// A Register that was written whole and not answered is a Lease with Unconfirmed set and
// no error; anything else that is not a lease or a *Refusal is an error, and trying again
// later may help. A native that does not offer what is asked for, such as one that knows
// only the seed, is ErrNotOffered.
type RemoteNative interface {
	Native
	// Disconnected returns a channel that is closed when the connection that the
	// last successful Register used has ended, and is nil before the first. A
	// transport without connections may always return nil.
	Disconnected() <-chan struct{}
}

// NativeStatus is what a native knows of another one.
type NativeStatus struct {
	PeerID PeerID
	Addrs  []string
	// Following means that its table has been taken over and that its changes are heard as
	// they happen.
	Following bool
	// RoundTrip is how long it took to answer a look-up just now; 0 if it did not.
	RoundTrip time.Duration
	// Live is how many entries it last said it holds at first hand; 0 if it has not said.
	Live int
	// Lag is how long what it told last was under way, from when it happened until it was
	// listed here; 0 if nothing has come yet.
	Lag time.Duration
}
