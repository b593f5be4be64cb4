package domain

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// These errors say why an entry is not acceptable.
var (
	ErrExpired   = errors.New("entry has expired")
	ErrTooFar    = errors.New("entry expires later than a lease can")
	ErrNotItself = errors.New("entry is another's")
)

// TTLPolicy is the times that all nodes of a network agree on, with the rules made of them.
type TTLPolicy struct {
	// TTL is how long an entry lives after a registration. All nodes of a network have the same.
	TTL time.Duration
	// Heartbeat is how often an indexer renews; shorter than TTL.
	Heartbeat time.Duration
	// Refresh is how often a native looks up the known PeerIDs that are not live;
	// shorter than TTL.
	Refresh time.Duration
}

// DefaultTTLPolicy returns the times of the seed: 66 s, 60 s, 30 s.
func DefaultTTLPolicy() TTLPolicy {
	return TTLPolicy{TTL: 66 * time.Second, Heartbeat: 60 * time.Second, Refresh: 30 * time.Second}
}

const (
	// MinInterval is the shortest time that a policy may name: timers and a network's round
	// trips are small against it.
	MinInterval = 10 * time.Millisecond
	// MaxTTL is the longest TTL. A record must outlast a heartbeat and the TTL after it. No
	// indexer counts as live after so long a silence.
	MaxTTL = ports.RecordLife / 2
)

// Validate returns a PolicyError for each wrong setting of p, joined. Each error names the
// setting, its value and the allowed range.
func (p TTLPolicy) Validate() error {
	var errs []error
	impossible := map[string]bool{} // an impossible setting is compared with no other
	for _, s := range []struct {
		name  string
		value time.Duration
	}{{"ttl", p.TTL}, {"heartbeat", p.Heartbeat}, {"refresh", p.Refresh}} {
		if s.value < MinInterval || s.value > MaxTTL {
			impossible[s.name] = true
			errs = append(errs, &PolicyError{Setting: s.name, Reason: fmt.Sprintf("%v is not between %v and %v", s.value, MinInterval, MaxTTL)})
		}
	}
	if !impossible["ttl"] && !impossible["heartbeat"] && p.TTL <= p.Heartbeat {
		errs = append(errs, &PolicyError{"ttl", "heartbeat", fmt.Sprintf("%v is not longer than registry.heartbeat %v, so every entry would die between two heartbeats; make it at least %v", p.TTL, p.Heartbeat, p.Heartbeat*11/10)})
	}
	if !impossible["ttl"] && !impossible["refresh"] && p.Refresh >= p.TTL {
		errs = append(errs, &PolicyError{"refresh", "ttl", fmt.Sprintf("%v is not shorter than registry.ttl %v; make it at most %v", p.Refresh, p.TTL, p.TTL/2)})
	}
	return errors.Join(errs...)
}

// PolicyError says what is wrong with one setting of a TTLPolicy.
type PolicyError struct {
	Setting string // "ttl", "heartbeat" or "refresh"
	Beside  string // the setting that contradicts it, "" if it is wrong by itself
	Reason  string
}

func (e *PolicyError) Error() string { return e.Setting + ": " + e.Reason }

// Grant returns the lease of a registration at the time of day wall.
func (p TTLPolicy) Grant(wall time.Time) ports.Lease {
	return ports.Lease{ExpiresAt: wall.Add(p.TTL), TTL: p.TTL, Heartbeat: p.Heartbeat, Now: wall}
}

// Acceptable tells whether an entry that expires at expiresAt may be stored at the
// time of day wall: ErrExpired from expiresAt on, ErrTooFar if it expires later
// than wall + TTL + ports.ClockAllowance.
func (p TTLPolicy) Acceptable(expiresAt, wall time.Time) error {
	switch {
	case !wall.Before(expiresAt):
		return ErrExpired
	case expiresAt.After(wall.Add(p.TTL + ports.ClockAllowance)):
		return ErrTooFar
	}
	return nil
}

// State says how fresh a live entry is from the time that remains to it. The entry is late once
// its heartbeat is overdue.
func (p TTLPolicy) State(remaining time.Duration) ports.State {
	if p.late(remaining) {
		return ports.StateLate
	}
	return ports.StateLive
}

func (p TTLPolicy) late(remaining time.Duration) bool { return remaining < p.TTL-p.Heartbeat }

// isLate reports whether the lease w is late at that instant: its heartbeat is overdue, or its indexer
// has hung up.
func (p TTLPolicy) isLate(w *word, at Instant) bool { return w.overdue || p.late(w.deadline.Sub(at)) }

// overdue returns the first instant at which a lease with that deadline is late.
func (p TTLPolicy) overdue(deadline Instant) Instant { return deadline.Add(p.Heartbeat - p.TTL + 1) }

// putInterval is how often an unchanged entry is put and announced at most: a
// sixth of a heartbeat. So an indexer that renews too often costs its native's
// peers at most six times as much as an honest indexer.
func (p TTLPolicy) putInterval() time.Duration { return p.Heartbeat / 6 }

// urgentLead is how much sooner a changed entry may follow: nine tenths, so a second after
// the last put. Without that pause an indexer that changes its address over and over makes
// its native ask twenty others each time.
func (p TTLPolicy) urgentLead() time.Duration { return p.putInterval() * 9 / 10 }

// hangUpGrace is how long an indexer that has ended its connection has to register over another, before
// its lease is late: half of a lease's slack, and half a second at most. A living indexer dials again
// within a quarter of a second (its reconnectSpread), and needs a few round trips.
func (p TTLPolicy) hangUpGrace() time.Duration {
	return min(500*time.Millisecond, (p.TTL-p.Heartbeat)/2)
}

// settle is how long a native waits for a node that has joined the store to join the
// topic too, before it announces what the node missed: GossipSub's own heartbeat is 1 s.
func (p TTLPolicy) settle() time.Duration { return min(time.Second, p.putInterval()) }

// lookAhead is how long before its deadline a native looks up a heard entry once more:
// 3 s, which is the deadline of a look-up, and less if the TTL is scaled down.
func (p TTLPolicy) lookAhead() time.Duration { return min(StoreTimeout, p.TTL/20) }

// beat is how often a native says at least that it lives, to natives that follow it: a thirtieth of
// a TTL, 3 s at most. An indexer may be listed by its told renewals alone, and the last of them may
// have been lost. Then its lease ends after the slack, less the time that renewals wait to travel. By
// then maxMissed beats must have been missed: a lost native is named before an indexer of it ends.
func (p TTLPolicy) beat() time.Duration {
	slack := p.TTL - p.Heartbeat - p.renewalInterval()
	return max(MinInterval, min(p.TTL/30, slack/maxMissed, maxBeat))
}

// tick is how often a native sweeps for deadlines. It bounds how late watchers learn
// of an expiry. No entry is listed past its deadline, however long the tick is.
func (p TTLPolicy) tick() time.Duration { return max(MinInterval, min(time.Second, p.TTL/64)) }
