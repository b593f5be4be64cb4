package ports

import "time"

// WatchRequest selects the changes that a watcher wants.
type WatchRequest struct {
	// Cursor is the last Batch's, to resume there; "" asks for a snapshot.
	Cursor string
	// Renewed asks for ChangeRenewed too.
	Renewed bool
	// Own is for natives that watch each other: only this native's own leases, with ExpiresAt
	// verbatim, to prevent echoes. The snapshot also has a ChangeLeft for each leave that must
	// not be undone, whichever native took it.
	Own bool
	// Proofs asks for the proofs of the entries. Own implies it.
	Proofs bool
	// Mine, with Own, asks in the snapshot for the signed leases too that the watcher granted
	// itself, as far as it told them to this native before: it may have lost its table since.
	Mine bool
	// Beat asks for a batch at least so often, an empty one if need be; 0 asks for none. The
	// first Batch says what the native promises.
	Beat time.Duration
	// Numbers, with Own, asks for News in the place of Changes. A native of an earlier version, and a
	// transport to one, passes over it.
	Numbers bool
	// Ask, with Numbers, has the ranges that the watcher asks for while it watches; nil for none. The
	// native answers each with Sums, or with the entries of the range if it is Whole. The ranges of an
	// ask are in order, none overlaps another, and there are at most MaxRanges.
	Ask <-chan []Range
	// Full, with Numbers, has true once the watcher has no room for an entry that it was told, and false once it
	// had room for all for long; nil for none. Until it says so a watcher has room. The native looks after
	// such an entry as if nobody watched. A native of an earlier version, and a transport to one, passes over it.
	Full <-chan bool
}

// ChangeKind is the kind of a Change.
type ChangeKind string

const (
	// ChangeSnapshot is an entry from before the watch began.
	ChangeSnapshot ChangeKind = "snapshot"
	// ChangeJoined is an entry that was not live before.
	ChangeJoined ChangeKind = "joined"
	// ChangeUpdated is a live entry with another address, metadata, source or native, or a late
	// or stale entry that became live again.
	ChangeUpdated ChangeKind = "updated"
	// ChangeRenewed is a live entry with a new deadline and no other change.
	ChangeRenewed ChangeKind = "renewed"
	// ChangeLate is an entry whose heartbeat is overdue.
	ChangeLate ChangeKind = "late"
	// ChangeStale is an entry past its deadline that the native goes on showing as StateStale, or
	// shows again.
	ChangeStale ChangeKind = "stale"
	// ChangeExpired is an entry that reached its deadline.
	ChangeExpired ChangeKind = "expired"
	// ChangeLeft is an entry whose indexer left.
	ChangeLeft ChangeKind = "left"
)

// Gone reports whether the entry is no longer listed.
func (k ChangeKind) Gone() bool { return k == ChangeExpired || k == ChangeLeft }

// Change is a change of an entry.
type Change struct {
	Kind ChangeKind
	// Number stands for the indexer in later News of the same watch. It is 0 outside of News, and if no
	// number stands for the indexer.
	Number uint32
	// Listed is the whole entry after the change. A change that is Gone has PeerID and Native
	// only. A ChangeLeft also has ExpiresAt and Leave: until then no entry granted earlier may
	// be listed. The Proof of a ChangeRenewed has no Record if the previous change had the same
	// Record.
	Listed
}

// Reset is the reason that a watch begins with a snapshot.
type Reset string

const (
	// ResetNew is a watch without a cursor.
	ResetNew Reset = "new"
	// ResetTooOld is a cursor from before the changes that the native remembers.
	ResetTooOld Reset = "cursor_too_old"
	// ResetUnknown is another native's cursor, a cursor from before a restart, or an invalid
	// cursor.
	ResetUnknown Reset = "cursor_unknown"
)

// Batch holds the changes since the last batch, in order. A watcher with a table clears it at a
// Reset, and applies every Change.
type Batch struct {
	// Reset is not "" in the first batch of a snapshot.
	Reset   Reset
	Changes []Change
	// Cursor resumes after this batch. It is "" in an incomplete snapshot, and while a watcher that
	// resumes has not been told yet of all that it missed; with the first Cursor, the watcher's
	// table equals the native's.
	Cursor string
	// Live is the number of entries that the native lists and that are not stale; with Own, of its
	// own leases.
	Live int
	// Condition, and Missing with it, counts from the next Cursor on if it is better than before. A
	// worse one counts at once.
	Condition Condition
	// Missing are the natives that the native hears no more, at most MaxMissing, sorted.
	Missing []PeerID
	// Beat is the longest silence between two batches that the native promises: in the first
	// batch, if the request asked for it; 0 is no promise.
	Beat time.Duration
	// Start tells this run of the native from its other runs: at most MaxCursorBytes of text in
	// the first batch, with Own. "" is unknown.
	Start string
	// Now is the native's time of day, zero if unknown.
	Now time.Time

	// News is what the native tells if the request asked for Numbers and it knows them; nil if it tells
	// Changes, or nothing. It is made once for all watchers, who must not modify it.
	News *News
	// Age is how long ago News was made: a watcher that resumes gets old News.
	Age time.Duration
	// Sums are this native's own sums of what it has told up to this Batch: of all numbers now and then,
	// and of the ranges that the watcher asked for.
	Sums []Range
	// Told are the Whole ranges that the watcher asked for, in order. News then has all entries in
	// them, by rising Number, and nothing else: any other number in them stands for no indexer. A
	// transport may cut a range in parts, in order, with a part of the News each.
	Told []Range
	// Audience, with Own, is the sum of the nodes that hear this native's announcements: see Audience.
	// 0 is no word of it, and what was told before holds.
	Audience uint64
}
