package domain

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

func TestAClockTellsOfEachSleepAtOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		sleep time.Duration
		tells bool
	}{
		{"too short to tell", minSleep - 1, false},
		{"just long enough", minSleep, true},
		{"a night", 8 * time.Hour, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				began := time.Now()
				var slept, told atomic.Int64
				k := NewClock(nil, func() time.Duration { return time.Since(began) + time.Duration(slept.Load()) })
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					k.Sleeps(ctx, func(d time.Duration) { told.Add(int64(d)) })
				}()
				time.Sleep(10*time.Second + time.Millisecond)
				slept.Add(int64(c.sleep))
				time.Sleep(sleepTick)
				synctest.Wait()
				if got := told.Load() == int64(c.sleep); got != c.tells || !c.tells && told.Load() != 0 {
					t.Errorf("told of %v, want it told: %v", time.Duration(told.Load()), c.tells)
				}
				before := told.Load()
				time.Sleep(time.Minute)
				if told.Load() != before {
					t.Error("told of more without a sleep")
				}
				cancel()
				<-done
			})
		})
	}
}

func TestAClockThatDoesNotCountSleepEndsAtOnce(t *testing.T) {
	NewClock(nil, nil).Sleeps(t.Context(), func(time.Duration) { t.Error("told of a sleep") })
}
