package domain

import (
	"math/rand/v2"
	"time"
)

const (
	// changeTime is the share of a change in a watcher's time. 400 changes a second go at once, each in a
	// batch of its own.
	changeTime = 2500 * time.Microsecond
	// watcherTime is the same for each watcher. So a native makes some 13,000 batches a second at
	// most, a quarter of a core (measured with a thousand watchers).
	watcherTime = 75 * time.Microsecond
	// savedTime is how much time quiet saves up for changes that come close together.
	savedTime = 8 * changeTime
	// batchInterval is the longest time between two batches of a burst. Each watcher adds watcherTime, up
	// to maxBatchInterval.
	batchInterval    = 25 * time.Millisecond
	maxBatchInterval = 100 * time.Millisecond
)

// pace lets a change go at once while changes are few. It gathers them into batches when they are
// many.
type pace struct {
	watching func() int64 // how many watchers share the processor
	free     time.Time    // when the next batch may follow
}

// spend takes note of a batch with so many changes. A batch waits for its time alone, never for
// longer than an interval.
func (p *pace) spend(now time.Time, changes int) {
	each := max(changeTime, time.Duration(p.watching())*watcherTime)
	if saved := now.Add(-savedTime); p.free.Before(saved) {
		p.free = saved
	}
	p.free = p.free.Add(time.Duration(changes) * each)
	if last := now.Add(p.interval()); p.free.After(last) {
		p.free = last
	}
}

// interval returns the time between two batches of a burst.
func (p *pace) interval() time.Duration {
	return min(batchInterval+time.Duration(p.watching())*watcherTime, maxBatchInterval)
}

// spread returns a part of the interval. It spreads the watchers, or all would want the processors at
// once.
func (p *pace) spread(part time.Duration) time.Duration { return rand.N(p.interval() / part) }
