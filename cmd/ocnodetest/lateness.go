package ocnodetest

import (
	"slices"
	"sync"
	"time"
)

// lateness is by how much this process came late, of which that of the last 10 s counts.
var lateness struct {
	mu   sync.Mutex
	seen []late
}

type late struct {
	at time.Time
	by time.Duration
}

// watchLateness begins to watch, and goes on for as long as this process runs.
var watchLateness = sync.OnceFunc(func() { go noteLateness() })

func noteLateness() {
	const tick, usual = 20 * time.Millisecond, 10 * time.Millisecond
	for {
		began := time.Now()
		time.Sleep(tick)
		now := time.Now()
		lateness.mu.Lock()
		lateness.seen = slices.DeleteFunc(lateness.seen, func(l late) bool { return now.Sub(l.at) > 10*time.Second })
		if by := now.Sub(began) - tick; by > usual {
			lateness.seen = append(lateness.seen, late{now, by})
		}
		lateness.mu.Unlock()
	}
}

// StoodStill reports whether the machine gave this process no time a moment ago. It may then have
// given none to the nodes of the test either, so that they missed a deadline of seconds.
func StoodStill() bool {
	lateness.mu.Lock()
	defer lateness.mu.Unlock()
	var sum time.Duration
	for _, l := range lateness.seen {
		sum += l.by
	}
	return sum > 500*time.Millisecond
}
