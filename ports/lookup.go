package ports

import (
	"errors"
	"time"
)

// ErrNotOffered matches the error of a request that the native does not support.
var ErrNotOffered = errors.New("the native does not offer this")

// ErrSilent matches the error of a watch that ended since the native was silent for too long.
var ErrSilent = errors.New("the native is silent")

// State is the freshness of a listed entry.
type State string

const (
	// StateLive is an entry whose next heartbeat is not due yet.
	StateLive State = "live"
	// StateLate is an entry whose heartbeat is overdue and whose deadline has not come.
	StateLate State = "late"
	// StateStale is an entry past its deadline whose end proves nothing: this native could not
	// hear indexers by then. It is shown for one TTL more at most, and its Remaining is 0.
	StateStale State = "stale"
)

// Source is the origin of a native's entry.
type Source string

const (
	// SourceOwn is a lease that the native granted itself.
	SourceOwn Source = "own"
	// SourceNative is a lease that another native granted and reported itself.
	SourceNative Source = "native"
	// SourceStore is an entry from the store: the DHT, mostly.
	SourceStore Source = "dht"
)

// Listed is an entry as a native lists it. A native lists no expired entry but one that is
// StateStale.
type Listed struct {
	Entry
	State  State
	Source Source
	// Remaining is the rest of the lease when the native listed the entry: more than 0, and 0 of an
	// entry that is StateStale. Unlike ExpiresAt, it means the same on every clock.
	Remaining time.Duration
	// Natives are the natives whose leases of the indexer the native holds, at most MaxHolders. Only
	// the indexer's own look-up brings them, and none from a native of an earlier version.
	Natives []PeerID
}

// MaxHolders bounds Listed.Natives: more than a native holds leases of an indexer.
const MaxHolders = 8

// Condition limits the trust in a native's answer; "" is full trust.
type Condition string

const (
	// ConditionWarming is a native that has just started and not yet copied the tables of the
	// others: a missing indexer may be alive.
	ConditionWarming Condition = "warming"
	// ConditionUnheard is a native that did not hear its indexers for a while: it slept, stood
	// still or lost its line. It shows entries that are StateStale.
	ConditionUnheard Condition = "unheard"
	// ConditionIsolated is a native that has lost all others: their indexers are missing.
	ConditionIsolated Condition = "isolated"
	// ConditionPartial is a native that hears some other natives no more. An answer names them
	// in Missing. Indexers that are registered with those alone may be missing.
	ConditionPartial Condition = "partial"
)

// Conditions are all conditions, the worst first. A native to which several apply says the first.
var Conditions = []Condition{ConditionWarming, ConditionUnheard, ConditionIsolated, ConditionPartial}

// Worse returns the worse of two conditions. A condition that is not known is the least of them.
func Worse(a, b Condition) Condition {
	for _, c := range Conditions {
		if a == c || b == c {
			return c
		}
	}
	if a == "" {
		return b
	}
	return a
}

// MaxMissing bounds the natives that an answer names as missing: enough for people to see what
// is cut off, within a frame.
const MaxMissing = 16

// Answer is a native's answer about a PeerID.
type Answer struct {
	Listed
	Condition Condition
	// Missing are the natives that the native hears no more, at most MaxMissing, sorted.
	Missing []PeerID
}

// Query asks for a page of the live table, sorted by PeerID.
type Query struct {
	// After lists the PeerIDs that sort behind it; "" begins at the start.
	After PeerID
	// Limit is the maximum number of entries, up to MaxPage; 0 is DefaultPage.
	Limit int
	// Meta lists only entries whose metadata has each of these names with exactly this value.
	Meta map[string]string
	// Proofs asks for the proofs of the entries.
	Proofs bool
}

// Page is the answer to a Query.
type Page struct {
	// Entries may be fewer than Limit, even empty, although more follow: a native bounds its
	// search for Meta per page.
	Entries []Listed
	// Next is the After of the following page, "" on the last page.
	Next      PeerID
	Condition Condition
	// Missing are the natives that the native hears no more, at most MaxMissing, sorted.
	Missing []PeerID
}
