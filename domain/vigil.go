package domain

import (
	"sync"
	"time"
)

const (
	// maxMissed beats that do not come make a followed native a suspect. TCP sends a lost packet
	// again four times meanwhile.
	maxMissed = 3
	// maxBeat bounds the silence of a native under a long TTL: a lost native is named soon.
	maxBeat = 3 * time.Second
	// takeoverSilence is the silence that is allowed before the table of a native is taken over. A
	// frame of a table takes 10 s on the slowest line that a watch works on.
	takeoverSilence = 15 * time.Second
)

// vigil waits for the beats of a native.
type vigil struct {
	mu       sync.Mutex
	beat     time.Duration // 0 is a native that promised no beats
	timer    *time.Timer
	since    time.Time
	patience time.Duration
}

// newVigil returns a vigil that calls missed after too long a silence, once keep was called.
func newVigil(missed func()) *vigil {
	v := &vigil{}
	v.timer = time.AfterFunc(time.Hour, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if pause := max(v.beat, v.patience/maxMissed); time.Since(v.since) > v.patience+pause {
			// This process stood still. Batches that came meanwhile are still to be read.
			v.since, v.patience = time.Now(), pause
			v.timer.Reset(pause)
			return
		}
		missed()
	})
	v.timer.Stop()
	return v
}

func (v *vigil) promise(beat time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.beat = beat
}

// keep waits from now on. whole says that the table of the native is taken over.
func (v *vigil) keep(whole bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.beat == 0 {
		return
	}
	if v.since, v.patience = time.Now(), takeoverSilence; whole {
		v.patience = maxMissed * v.beat
	}
	v.timer.Reset(v.patience)
}

func (v *vigil) stop() { v.timer.Stop() }
