package ocnodetest

import (
	"slices"
	"sync"
	"time"
)

// lateness is by how much this process came late, of the last minute.
var lateness struct {
	mu   sync.Mutex
	seen []late
}

type late struct {
	at time.Time
	by time.Duration
}

// remembered is for how long lateness is.
const remembered = time.Minute

// watchLateness begins to watch, and goes on for as long as this process runs.
var watchLateness = sync.OnceFunc(func() { go noteLateness() })

func noteLateness() {
	const tick, usual = 20 * time.Millisecond, 10 * time.Millisecond
	for {
		began := time.Now()
		time.Sleep(tick)
		now := time.Now()
		lateness.mu.Lock()
		lateness.seen = slices.DeleteFunc(lateness.seen, func(l late) bool { return now.Sub(l.at) > remembered })
		if by := now.Sub(began) - tick; by > usual {
			lateness.seen = append(lateness.seen, late{now, by})
		}
		lateness.mu.Unlock()
	}
}

// StoodStill reports whether the machine gave this process no time a moment ago. It may then have
// given none to the nodes of the test either, so that they missed a deadline of seconds.
func StoodStill() bool {
	return Lateness(time.Now().Add(-10*time.Second)) > 500*time.Millisecond
}

// Lateness returns for how long since then, a minute ago at most, the machine gave this process no time.
// It may have given none to the nodes of the test either: a test that bounds what they take adds this.
func Lateness(since time.Time) (sum time.Duration) {
	lateness.mu.Lock()
	defer lateness.mu.Unlock()
	for _, l := range lateness.seen {
		if l.at.After(since) {
			sum += l.by
		}
	}
	return sum
}
