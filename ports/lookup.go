package ports

import (
	"errors"
	"time"
)

// ErrNotOffered is matched by the error of asking a native for what it does not know of.
var ErrNotOffered = errors.New("the native does not offer this")

// State says how fresh a listed entry is.
type State string

const (
	// StateLive is an entry whose next heartbeat is not due yet.
	StateLive State = "live"
	// StateLate is an entry whose heartbeat is overdue and whose deadline has not come.
	StateLate State = "late"
)

// Source says where a native has an entry from.
type Source string

const (
	// SourceOwn is a lease that the native granted itself.
	SourceOwn Source = "own"
	// SourceNative is a lease that the native which granted it told of.
	SourceNative Source = "native"
	// SourceStore is what the store says: the DHT, mostly.
	SourceStore Source = "dht"
)

// Listed is an entry as a native shows it. An entry that has expired is never listed.
type Listed struct {
	Entry
	State  State
	Source Source
	// Remaining is what was left of the lease when it was listed, more than 0. Unlike ExpiresAt,
	// it means the same on every clock.
	Remaining time.Duration
}

// Condition says how far a native's word can be relied on; "" is all the way.
type Condition string

const (
	// ConditionWarming is a native that has just started and has not yet taken over what
	// the others hold: who is missing may be alive.
	ConditionWarming Condition = "warming"
	// ConditionIsolated is a native that has lost all the others: who registers with them
	// is missing.
	ConditionIsolated Condition = "isolated"
)

// Answer is what a native says of one PeerID.
type Answer struct {
	Listed
	Condition Condition
}

// Query asks for a page of the live table, sorted by PeerID.
type Query struct {
	// After lists what sorts behind it; "" begins at the start.
	After PeerID
	// Limit is how many entries are wanted at most, up to MaxPage; 0 is DefaultPage.
	Limit int
	// Meta lists only entries whose metadata has each of these names with just this value.
	Meta map[string]string
	// Proofs asks for what the entries can be checked by.
	Proofs bool
}

// Page is the answer to a Query.
type Page struct {
	// Entries may be fewer than Limit, and even none, although more follow: how far a
	// native looks for Meta at a time is bounded.
	Entries []Listed
	// Next is the After of the following page, "" if this is the last.
	Next      PeerID
	Condition Condition
}
