package domain

import (
	"context"
	"time"
)

const (
	// sleepTick is how often a Clock looks whether the machine slept: often enough that a machine
	// is back a second after it wakes, and two readings of a clock cost nothing.
	sleepTick = time.Second / 2
	// minSleep is the shortest sleep that counts. The two clocks are read one after the other, and
	// the process may be put off between.
	minSleep = 100 * time.Millisecond
)

// Sleeps calls woke within half a second after each sleep of the machine, until ctx ends. Go's timers
// stand still during a sleep, so whatever was due meanwhile comes late by as much. It does nothing
// if the Clock does not count sleep.
func (k *Clock) Sleeps(ctx context.Context, woke func(slept time.Duration)) {
	if !k.countsSleep {
		return
	}
	began := time.Now()
	asleep := func() time.Duration { return k.elapsed() - time.Since(began) }
	tick := time.NewTicker(sleepTick)
	defer tick.Stop()
	for last := asleep(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := asleep()
		if slept := now - last; slept >= minSleep {
			woke(slept)
		}
		last = now
	}
}
