package ports

import "time"

// EventKind is the kind of an Event.
type EventKind string

const (
	// EventRegistered is a granted lease. Joined: the PeerID was not live before; else Remaining
	// is the rest of its old lease.
	EventRegistered EventKind = "registered"
	// EventRefused is a refused registration, with Code. PeerID is the sender. Err is the
	// *Refusal, with the Limit if a limit refused it.
	EventRefused EventKind = "refused"
	// EventLimited is a watch or a leave that a limit refused; Err is the *Refusal.
	EventLimited EventKind = "limited"
	// EventDialledBack is a dial, after Took, to check that an address is PeerID's. Err is the
	// reason that the check failed.
	EventDialledBack EventKind = "dialled back"
	// EventHeard is an announcement of another native, Via.
	EventHeard EventKind = "heard"
	// EventLookedUp is a look-up in the store that ended after Took. With a newer entry, which
	// is then live here, Err is nil, Via the granting native, and Joined as for EventRegistered.
	// Err is ErrNotFound without a newer entry.
	EventLookedUp EventKind = "looked up"
	// EventPut is a put that ended after Took, with its Replicas or Err.
	EventPut EventKind = "put"
	// EventAnnounced is an announcement of this native's own, or Err.
	EventAnnounced EventKind = "announced"
	// EventExpired is an entry removed at its deadline, or because its indexer lost its trust.
	EventExpired EventKind = "expired"
	// EventLeft is an indexer that left: by a leave here, or by the report of the native Via,
	// also through the store. Joined: it was live here until now.
	EventLeft EventKind = "left"
	// EventFollowing is the native Via after this native copied its table, in Took, and receives
	// its changes. EventUnfollowed is the end of its changes, with the Err that caused it; nil
	// if Via is no neighbour any more.
	EventFollowing  EventKind = "following"
	EventUnfollowed EventKind = "unfollowed"
	// EventJoined is an entry that became live because the native Via reported its lease.
	EventJoined EventKind = "joined"
	// EventTold are Changes from the native Via. Renewals of them came as renewals of a number. Refused
	// counts those of other natives' leases, of leases longer than a lease can be, and of numbers
	// that stand for no indexer.
	EventTold EventKind = "told"
	// EventReconciled is the end of a search for what this native and the native Via have not in common
	// of what Via told, after their sums differed. Changes counts the numbers that were mended. Err says
	// that the sums differ though nothing else does.
	EventReconciled EventKind = "reconciled"
	// EventWatching is the start of a watch, EventWatched its end: Err is the reason if the
	// native dropped the watcher.
	EventWatching EventKind = "watching"
	EventWatched  EventKind = "watched"
	// EventNewsTold are Frames of the binary watch that this native wrote to the native PeerID, with
	// Renewals. EventNewsRead are those that it read from the native Via.
	EventNewsTold EventKind = "news told"
	EventNewsRead EventKind = "news read"
	// EventNewsRefused is a frame of the binary watch that ended its stream: Code says what is wrong
	// with it, CodeMalformed or CodeTooLarge. PeerID is the follower that sent it, or Via the native.
	EventNewsRefused EventKind = "news refused"
	// EventBeating is the start of an open stream of heartbeats of PeerID, EventBeaten its end: Code and
	// Err are the reason if the native ended it. EventBeats are Changes frames that it brought.
	EventBeating EventKind = "beating"
	EventBeats   EventKind = "beats"
	EventBeaten  EventKind = "beaten"
	// EventAsked is a look-up of PeerID for a caller. Err is ErrNotFound or a *Refusal.
	EventAsked EventKind = "asked"
	// EventFaulty is an invalid proof of PeerID, with its Fault and the Err that explains it.
	// Via is the native that sent it, "" for a registration and the store.
	EventFaulty EventKind = "faulty"
	// EventRival is a refused process: another process with its key, PeerID, started later. On
	// the indexer's side, the native Via reports the rival.
	EventRival EventKind = "rival"
	// EventRivalGone is the indexer's side: no other process with its key, PeerID, is live any
	// more, and this one registers again.
	EventRivalGone EventKind = "rival gone"
	// EventTwin is another process with the key of the native PeerID, which may be this node. Err
	// says how it was noticed.
	EventTwin EventKind = "twin"
	// EventClock is this node's clock, PeerID, that is Took ahead of its natives' clocks, or
	// behind if negative; 0 once it agrees. Via is the only such native: one of the two is wrong. It
	// is "" with several.
	EventClock EventKind = "clock"
	// EventUnheard is this native, PeerID, that may not have heard its indexers: it slept or stood
	// still for Took, or its line is lost if Took is 0.
	EventUnheard EventKind = "unheard"
	// EventUntrusted is What was refused because this node does not trust PeerID. Via is the
	// peer that sent it, if another.
	EventUntrusted EventKind = "untrusted"
	// EventForgotten is a known PeerID that this native stops looking up: two refreshes in a row
	// found nothing, or the known set was full.
	EventForgotten EventKind = "forgotten"

	// EventLeaseGranted, EventLeaseUnconfirmed and EventLeaseFailed are the indexer's side: the
	// outcome of a registration with Via, after Took. Err and Code explain a failure.
	EventLeaseGranted     EventKind = "lease granted"
	EventLeaseUnconfirmed EventKind = "lease unconfirmed"
	EventLeaseFailed      EventKind = "lease failed"
	// EventLeaseLost is a connection to Via that ended during a lease.
	EventLeaseLost EventKind = "lease lost"
	// EventLeaseDoubted is a lease of Via that no other native shows; without Via it is all leases.
	// EventLeaseConfirmed is the end of that.
	EventLeaseDoubted   EventKind = "lease doubted"
	EventLeaseConfirmed EventKind = "lease confirmed"
	// EventLeaseLeft is a leave that Via took, after Took; Err and Code explain a failure. A
	// native without leaves causes no event.
	EventLeaseLeft EventKind = "lease left"
)

// Untrusted is the kind of news that an untrusted peer caused.
type Untrusted string

const (
	// UntrustedAnnouncement is a PeerID that another native announced.
	UntrustedAnnouncement Untrusted = "announcement"
	// UntrustedChange is a change from another native.
	UntrustedChange Untrusted = "change"
	// UntrustedLeave is a leave. A registration is EventRefused.
	UntrustedLeave Untrusted = "leave"
	// UntrustedWatch is a watch with WatchRequest.Own.
	UntrustedWatch Untrusted = "watch"
	// UntrustedEntry is a live entry that was removed after a change of this node's trust.
	UntrustedEntry Untrusted = "entry"
)

// Event is an event of a node, with the fields of its kind.
type Event struct {
	Kind      EventKind
	What      Untrusted
	PeerID    PeerID
	Via       PeerID
	Joined    bool
	Code      Code
	Fault     Fault
	Replicas  int
	Changes   int
	Frames    int
	Renewals  int
	Refused   int
	Took      time.Duration
	Remaining time.Duration
	Err       error
}

// Observer receives the events, for logs and metrics outside the domain. Observe is called
// concurrently, on the path of every heartbeat: it must not block or hold a lock long.
type Observer interface {
	Observe(Event)
}
