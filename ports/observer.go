package ports

import "time"

// EventKind says what happened.
type EventKind string

const (
	// EventRegistered is a lease granted. Joined: the PeerID was not live before.
	EventRegistered EventKind = "registered"
	// EventRefused is a registration refused, with Code. PeerID is the sender.
	EventRefused EventKind = "refused"
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
	// EventExpired is an entry that reached its deadline and was removed.
	EventExpired EventKind = "expired"
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
)

// Event is one thing that happened, with the fields that its kind names.
type Event struct {
	Kind     EventKind
	PeerID   PeerID
	Via      PeerID
	Joined   bool
	Code     Code
	Replicas int
	Took     time.Duration
	Err      error
}

// Observer is told what happens. Logs and metrics are made from it, outside the
// domain. Observe is called concurrently and on the path of every heartbeat, so
// it must neither block nor keep a lock long.
type Observer interface {
	Observe(Event)
}
