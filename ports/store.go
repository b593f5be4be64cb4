package ports

import (
	"context"
	"errors"
)

// ErrNotFound is returned by Store.Get when there is no acceptable entry that is
// newer than what the caller has.
var ErrNotFound = errors.New("not found")

// Store keeps entries where they outlive this process.
//
// All methods may be called concurrently. A Store decides by itself, with the
// rule it was given when it was made, whether an entry is acceptable (another's
// PeerID, ended, too far in the future, a proof that is none): it stores none that is not and
// returns none that is not, wherever it came from.
//
// Kademlia cannot list, so the port does not pretend to.
type Store interface {
	// Put stores e under its PeerID, first on this node, then on others. It blocks
	// until the others have answered or ctx ends, and keeps no reference to e.
	//
	// It returns how many other nodes took e. Zero with a nil error means: stored
	// here, no replica; a lone node is no error. A put that loses to a newer record
	// (of a higher Version) is a success. An error means that e may
	// not even be stored here: it is not acceptable, or the store is closed.
	Put(ctx context.Context, e Entry) (replicas int, err error)

	// Get returns the newest acceptable entry of id that is NewerThan newerThan (the zero
	// Version for any). A leave is an entry too, and returned as it is, with Left: to the
	// caller, who has the bare entry that it ends, it is newer also at the same ExpiresAt. An
	// entry with a proof may be acceptable beyond its ExpiresAt, so that an older one does not
	// take its place, and is returned then; whether it may be listed is for the caller to see.
	// It answers from what this node itself holds
	// if that is newer, and asks the network only then; it blocks until it has one or
	// ctx ends. What it found before ctx ended is returned with a nil error.
	//
	// No such entry is ErrNotFound, also when ctx ended and what was asked until
	// then had none. The caller owns the result.
	Get(ctx context.Context, id PeerID, newerThan Version) (Entry, error)

	// Local is Get for those who cannot wait: it answers from what this node itself
	// holds, and asks nobody. No such entry is ErrNotFound.
	Local(id PeerID, newerThan Version) (Entry, error)

	// Joined returns a channel that receives a value after another node has joined
	// this store: what was put without a replica can be put again. Several joins may
	// be one value. It is always the same channel, never closed, and has one
	// receiver. A store without a network returns nil.
	Joined() <-chan struct{}
}
