package ocnodetest

import (
	"slices"
	"sync"
	"time"
)

// lateness is by how much this process came late, of the last minute.
var lateness struct {
	mu    sync.Mutex
	seen  []late
	awake time.Time // when the next look is due; zero before the first
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
	const tick = 20 * time.Millisecond
	for {
		lateness.mu.Lock()
		now := time.Now()
		lateness.seen = slices.DeleteFunc(lateness.seen, func(l late) bool { return now.Sub(l.at) > remembered })
		if by := overdue(now); by > 0 {
			lateness.seen = append(lateness.seen, late{now, by})
		}
		lateness.awake = now.Add(tick)
		lateness.mu.Unlock()
		time.Sleep(tick)
	}
}

// overdue returns by how much the look that is due is late, 0 if by no more than is usual.
func overdue(now time.Time) time.Duration {
	const usual = 10 * time.Millisecond
	if by := now.Sub(lateness.awake); by > usual && !lateness.awake.IsZero() {
		return by
	}
	return 0
}

// StoodStill reports whether the machine gave this process no time a moment ago. It may then have
// given none to the nodes of the test either, so that they missed a deadline of seconds.
func StoodStill() bool { return lateBy(0, time.Now().Add(-10*time.Second)) > 500*time.Millisecond }

// Lateness returns for how long since then, a minute ago at most, the machine gave this process no time, for 0.1 s
// or more at once. It may have given none to the nodes of the test either: a test that bounds what they
// take adds this.
func Lateness(since time.Time) time.Duration { return lateBy(100*time.Millisecond, since) }

// lateBy sums what is of that length at least.
func lateBy(least time.Duration, since time.Time) (sum time.Duration) {
	lateness.mu.Lock()
	defer lateness.mu.Unlock()
	now := time.Now()
	for _, l := range append(slices.Clone(lateness.seen), late{now, overdue(now)}) { // whoever asks may have woken before noteLateness
		if l.at.After(since) && l.by >= least {
			sum += l.by
		}
	}
	return sum
}

// Undisturbed returns the faults that f finds. If the machine stood still meanwhile, they may come of that,
// and it calls f again, three times in all.
func Undisturbed(f func() (faults []string)) (faults []string) {
	for range 3 {
		began := time.Now()
		faults = f()
		if len(faults) == 0 || Lateness(began) < 500*time.Millisecond {
			break
		}
	}
	return faults
}
