package ports

import "time"

// WatchRequest says what a watcher wants to be told.
type WatchRequest struct {
	// Cursor is that of the last Batch, to go on from there; "" asks for a snapshot.
	Cursor string
	// Renewed asks for ChangeRenewed too.
	Renewed bool
	// Own is how natives watch each other: only what this native heard at first hand, with
	// ExpiresAt verbatim, so that nothing echoes. The snapshot also has a ChangeLeft of
	// everyone whose leave is not to be undone, whoever took it.
	Own bool
	// Proofs asks for what the entries can be checked by. With Own it is always given.
	Proofs bool
}

// ChangeKind says what became of an entry.
type ChangeKind string

const (
	// ChangeSnapshot is an entry that was there when the watch began.
	ChangeSnapshot ChangeKind = "snapshot"
	// ChangeJoined is an entry that was not live before.
	ChangeJoined ChangeKind = "joined"
	// ChangeUpdated is a live entry with another address, metadata, source or native, or
	// one that was late and is not any more.
	ChangeUpdated ChangeKind = "updated"
	// ChangeRenewed is a live entry that has a new deadline and is otherwise the same.
	ChangeRenewed ChangeKind = "renewed"
	// ChangeLate is an entry whose heartbeat is overdue.
	ChangeLate ChangeKind = "late"
	// ChangeExpired is an entry that reached its deadline.
	ChangeExpired ChangeKind = "expired"
	// ChangeLeft is an entry whose indexer said that it leaves.
	ChangeLeft ChangeKind = "left"
)

// Gone reports whether the entry is no longer listed.
func (k ChangeKind) Gone() bool { return k == ChangeExpired || k == ChangeLeft }

// Change is one thing that became of an entry.
type Change struct {
	Kind ChangeKind
	// Listed is the entry as it now is, whole; of one that is Gone, its PeerID and Native.
	// Of a ChangeLeft also ExpiresAt and Left: until then no entry may be listed that was
	// granted before it. The Proof of a ChangeRenewed has no Record if that is the one of
	// the change before.
	Listed
}

// Reset says why a watch begins with a snapshot.
type Reset string

const (
	// ResetNew is a watch that brought no cursor.
	ResetNew Reset = "new"
	// ResetTooOld is a cursor with more changes behind it than the native remembers.
	ResetTooOld Reset = "cursor_too_old"
	// ResetUnknown is a cursor that is not this native's, or of before it was restarted, or
	// nonsense.
	ResetUnknown Reset = "cursor_unknown"
)

// Batch is what happened since the last one, in order. A watcher that keeps a table
// forgets it at a Reset, and applies every Change.
type Batch struct {
	// Reset is not "" in the first batch of a snapshot.
	Reset   Reset
	Changes []Change
	// Cursor is where to go on after this batch. It is "" while a snapshot is not whole;
	// with the first one that is not, the table is the native's.
	Cursor string
	// Live is how many entries the native lists, or of a watch with Own, granted itself.
	Live      int
	Condition Condition
	// Now is the native's time of day, zero if it does not say.
	Now time.Time
}
