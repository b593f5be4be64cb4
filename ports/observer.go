package ports

import "time"

// EventKind says what happened.
type EventKind string

const (
	// EventRegistered is a lease granted. Joined: the PeerID was not live before; else
	// Left is what was left of its lease.
	EventRegistered EventKind = "registered"
	// EventRefused is a registration refused, with Code. PeerID is the sender. Err is the
	// *Refusal, whose Limit says which limit it was, if it was one.
	EventRefused EventKind = "refused"
	// EventLimited is a watch or a leave refused by a limit; Err is the *Refusal.
	EventLimited EventKind = "limited"
	// EventDialledBack is an address of PeerID that was dialled, after Took, to see whether
	// it is PeerID's. Err is why it could not be shown.
	EventDialledBack EventKind = "dialled back"
	// EventHeard is an announcement by another native, which is Via.
	EventHeard EventKind = "heard"
	// EventLookedUp is a look-up in the store that ended after Took. Err is nil and Via
	// the granting native if it found a newer entry, which is then live here; Joined as
	// for EventRegistered. Err is ErrNotFound if there was none.
	EventLookedUp EventKind = "looked up"
	// EventPut is a put that ended after Took with that many Replicas, or Err.
	EventPut EventKind = "put"
	// EventAnnounced is an announcement of this native's own, or Err.
	EventAnnounced EventKind = "announced"
	// EventExpired is an entry that reached its deadline and was removed, or one of an
	// indexer that is trusted no more.
	EventExpired EventKind = "expired"
	// EventLeft is an indexer that left: by a leave of its own here, or as the native Via
	// says, be it by way of the store. Joined: it was live here until now.
	EventLeft EventKind = "left"
	// EventFollowing is the native Via whose table has been taken over, after Took, and
	// whose changes are now heard; EventUnfollowed is one whose changes are not any more,
	// with the Err that ended it, nil if it is no neighbour any more.
	EventFollowing  EventKind = "following"
	EventUnfollowed EventKind = "unfollowed"
	// EventJoined is an entry that became live because the native Via told that it granted
	// it a lease.
	EventJoined EventKind = "joined"
	// EventTold are Changes that the native Via told, of which so many were Refused: its own
	// leases alone are its to tell, and no longer ones than a lease can be.
	EventTold EventKind = "told"
	// EventWatching is a watcher that has come, EventWatched one that has gone: Err is why
	// if it was dropped.
	EventWatching EventKind = "watching"
	EventWatched  EventKind = "watched"
	// EventAsked is a PeerID that was looked up for somebody who asked. Err is ErrNotFound
	// or a *Refusal.
	EventAsked EventKind = "asked"
	// EventFaulty is a proof that proves nothing, of the PeerID, with its Fault and the Err
	// that says why. Via is the native that told it, "" for a registration and the store.
	EventFaulty EventKind = "faulty"
	// EventRival is a process refused since another one with its key, the PeerID, started
	// after it. On the indexer's side, where Via is the native that says so, it is that there
	// is another one.
	EventRival EventKind = "rival"
	// EventClock is a clock of this node's own, the PeerID, that is Took ahead of that of the natives it
	// knows, or behind if that is negative; 0 once it is no more.
	EventClock EventKind = "clock"
	// EventUntrusted is What was turned away since it is of PeerID, whom this node does not
	// trust, and came from Via, if that is another.
	EventUntrusted EventKind = "untrusted"
	// EventForgotten is a known PeerID that is no longer looked up: two refreshes in a
	// row found nothing, or the known set was full.
	EventForgotten EventKind = "forgotten"

	// EventLeaseGranted, EventLeaseUnconfirmed and EventLeaseFailed are the indexer's
	// side: what became of a registration with Via, after Took. Err and Code say why
	// it failed.
	EventLeaseGranted     EventKind = "lease granted"
	EventLeaseUnconfirmed EventKind = "lease unconfirmed"
	EventLeaseFailed      EventKind = "lease failed"
	// EventLeaseLost is a connection to Via that ended while a lease was held.
	EventLeaseLost EventKind = "lease lost"
	// EventLeaseLeft is a leave that Via took, after Took, or Err and Code say why not. A
	// native that does not know of leaves is not told of.
	EventLeaseLeft EventKind = "lease left"
)

// Untrusted says what came of somebody who is not trusted.
type Untrusted string

const (
	// UntrustedAnnouncement is a PeerID that another native announced.
	UntrustedAnnouncement Untrusted = "announcement"
	// UntrustedChange is a change that another native told.
	UntrustedChange Untrusted = "change"
	// UntrustedLeave is a leave. A registration is EventRefused.
	UntrustedLeave Untrusted = "leave"
	// UntrustedWatch is a watch with WatchRequest.Own.
	UntrustedWatch Untrusted = "watch"
	// UntrustedEntry is a live entry that was removed, since whom or what this node
	// believes has changed.
	UntrustedEntry Untrusted = "entry"
)

// Event is one thing that happened, with the fields that its kind names.
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
	Refused   int
	Took      time.Duration
	Remaining time.Duration
	Err       error
}

// Observer is told what happens. Logs and metrics are made from it, outside the
// domain. Observe is called concurrently and on the path of every heartbeat, so
// it must neither block nor keep a lock long.
type Observer interface {
	Observe(Event)
}
