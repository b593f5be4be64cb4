package ports

import (
	"context"
	"errors"
	"time"
)

// ErrNotFound is returned by Store.Get when there is no acceptable entry that is
// newer than what the caller has.
var ErrNotFound = errors.New("not found")

// Store keeps entries where they outlive this process.
//
// All methods may be called concurrently. A Store decides by itself, with the
// rule it was given when it was made, whether an entry is acceptable (another's
// PeerID, expired, too far in the future): it stores none that is not and
// returns none that is not, wherever it came from.
//
// Kademlia cannot list, so the port does not pretend to.
type Store interface {
	// Put stores e under its PeerID, first on this node, then on others. It blocks
	// until the others have answered or ctx ends, and keeps no reference to e.
	//
	// It returns how many other nodes took e. Zero with a nil error means: stored
	// here, no replica; a lone node is no error. A put that loses to a newer record
	// (later ExpiresAt) is a success. An error means that e may not even be stored
	// here: it is not acceptable, or the store is closed.
	Put(ctx context.Context, e Entry) (replicas int, err error)

	// Get returns the newest acceptable entry of id whose ExpiresAt is later than
	// newerThan (the zero time for any). It answers from what this node itself holds
	// if that is newer, and asks the network only then; it blocks until it has one or
	// ctx ends. What it found before ctx ended is returned with a nil error.
	//
	// No such entry is ErrNotFound, also when ctx ended and what was asked until
	// then had none. The caller owns the result.
	Get(ctx context.Context, id PeerID, newerThan time.Time) (Entry, error)

	// Local is Get for those who cannot wait: it answers from what this node itself
	// holds, and asks nobody. No such entry is ErrNotFound.
	Local(id PeerID, newerThan time.Time) (Entry, error)

	// Joined returns a channel that receives a value after another node has joined
	// this store: what was put without a replica can be put again. Several joins may
	// be one value. It is always the same channel, never closed, and has one
	// receiver. A store without a network returns nil.
	Joined() <-chan struct{}
}
