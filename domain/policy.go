package domain

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Why an entry is not acceptable.
var (
	ErrExpired   = errors.New("entry has expired")
	ErrTooFar    = errors.New("entry expires later than a lease can")
	ErrNotItself = errors.New("entry is another's")
)

// TTLPolicy holds the times that a network agrees on, and the rules made of them.
type TTLPolicy struct {
	// TTL is how long an entry lives after a registration. One TTL a network.
	TTL time.Duration
	// Heartbeat is how often an indexer renews; shorter than TTL.
	Heartbeat time.Duration
	// Refresh is how often a native looks up what it knows and cannot show alive;
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
	// MaxTTL is the longest TTL. A record lasts for a heartbeat and the TTL after it at least,
	// and no node is called alive that was silent for so long.
	MaxTTL = ports.RecordLife / 2
)

// Validate returns all that is wrong with p, joined, each naming the setting, its
// value and what is allowed.
func (p TTLPolicy) Validate() error {
	var errs []error
	impossible := map[string]bool{} // such a setting is held against no other
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
	Beside  string // the setting that it does not go with, "" if it is wrong by itself
	Reason  string
}

func (e *PolicyError) Error() string { return e.Setting + ": " + e.Reason }

// Grant returns the lease that a registration at now gets.
func (p TTLPolicy) Grant(wall time.Time) ports.Lease {
	return ports.Lease{ExpiresAt: wall.Add(p.TTL), TTL: p.TTL, Heartbeat: p.Heartbeat, Now: wall}
}

// Acceptable tells whether an entry that says it ends at expiresAt may be stored
// at now: ErrExpired from its deadline on, ErrTooFar if it ends later than
// now + TTL + ports.ClockAllowance.
func (p TTLPolicy) Acceptable(expiresAt, wall time.Time) error {
	switch {
	case !wall.Before(expiresAt):
		return ErrExpired
	case expiresAt.After(wall.Add(p.TTL + ports.ClockAllowance)):
		return ErrTooFar
	}
	return nil
}

// State says how fresh a live entry is that is left so long to live: late from the moment on at
// which its heartbeat is overdue.
func (p TTLPolicy) State(remaining time.Duration) ports.State {
	if p.late(remaining) {
		return ports.StateLate
	}
	return ports.StateLive
}

func (p TTLPolicy) late(remaining time.Duration) bool { return remaining < p.TTL-p.Heartbeat }

// overdue is when the heartbeat is due of a lease that ends at deadline.
func (p TTLPolicy) overdue(deadline Instant) Instant { return deadline.Add(p.Heartbeat - p.TTL) }

// putInterval is how often an unchanged entry is put and announced at most: a
// sixth of a heartbeat, so that an indexer that renews too often costs its
// native's peers at most six times what an honest one does.
func (p TTLPolicy) putInterval() time.Duration { return p.Heartbeat / 6 }

// urgentLead is how much sooner what has changed may follow: nine tenths, so a second
// after the last one, or an indexer that changes its address as fast as it can makes
// its native ask twenty others each time.
func (p TTLPolicy) urgentLead() time.Duration { return p.putInterval() * 9 / 10 }

// settle is how long a node that has joined the store gets to join the topic too,
// before what it missed is announced to it: GossipSub's own heartbeat is 1 s.
func (p TTLPolicy) settle() time.Duration { return min(time.Second, p.putInterval()) }

// lookAhead is how long before its deadline a heard entry is looked up once more:
// 3 s, which is one look-up's deadline, and less if the TTL is scaled down.
func (p TTLPolicy) lookAhead() time.Duration { return min(StoreTimeout, p.TTL/20) }

// tick is how finely deadlines are swept. Nothing is listed past its deadline
// however long this is; it bounds how late an expiry is told of.
func (p TTLPolicy) tick() time.Duration { return max(MinInterval, min(time.Second, p.TTL/64)) }
