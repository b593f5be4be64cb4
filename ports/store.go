package ports

import (
	"context"
	"errors"
)

// ErrNotFound is the error of Store.Get without an acceptable entry newer than the caller's.
var ErrNotFound = errors.New("not found")

// Store keeps entries beyond the life of this process.
//
// All methods may be called concurrently. A Store judges each entry by the rule that its
// constructor received (another's PeerID, ended, too far in the future, an invalid proof). It
// stores and returns acceptable entries only, wherever they come from.
//
// Kademlia cannot list, so the port does not pretend to.
type Store interface {
	// Put stores e under its PeerID, first on this node, then on others. It blocks until the
	// others answer or ctx ends, and keeps no reference to e.
	//
	// A Store that shows a view of this node's table keeps no copy here, and puts to strangers alone.
	//
	// It returns the number of other nodes that took e. Zero with a nil error means stored here
	// without a replica: a lone node is no error. A put that loses to a newer record (of a
	// higher Version) is a success. With an error, e may not even be stored here: it is not
	// acceptable, or the store is closed.
	Put(ctx context.Context, e Entry) (replicas int, err error)

	// Get returns the newest acceptable entry of id that is NewerThan newerThan (the zero
	// Version for any). Get also returns a leave, with Leave set: it is newer than the bare
	// entry that it ends, also at the same ExpiresAt. An entry with a proof may be acceptable
	// beyond its ExpiresAt, to keep out older entries: the caller checks whether it may be
	// listed. Get answers from this node's entries if they have a newer entry, and otherwise
	// asks the network. It blocks until it has an entry or ctx ends. An entry found before ctx
	// ended comes with a nil error.
	//
	// Without such an entry the error is ErrNotFound, also if ctx ended first. The caller owns
	// the result.
	Get(ctx context.Context, id PeerID, newerThan Version) (Entry, error)

	// Local is Get without waiting: it answers from this node's entries alone. Without such an
	// entry the error is ErrNotFound.
	Local(id PeerID, newerThan Version) (Entry, error)

	// Joined returns a channel that receives a value after another node joins this store: an
	// entry without a replica can be put again. Several joins may be one value. It is always the
	// same channel, never closed, with one receiver. A store without a network returns nil.
	Joined() <-chan struct{}
}
