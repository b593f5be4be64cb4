package porttest

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// With synctest.Test instead of FakeTime, and with the race detector, this dies of a SIGSEGV on
// a machine with two processors.
func TestTimersThatAreLookedAtByManyGoroutinesInFakeTime(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	for range 100 {
		FakeTime(t, func(t *testing.T) {
			var polling sync.WaitGroup
			for range 64 {
				polling.Go(func() {
					for range 20 {
						timer := time.NewTimer(time.Millisecond)
						time.Sleep(2 * time.Millisecond)
						select {
						case <-timer.C:
						default:
							t.Error("a timer that has run out has not fired")
						}
					}
				})
			}
			polling.Wait()
		})
	}
	if after := runtime.GOMAXPROCS(0); after != before {
		t.Errorf("%d processors afterwards, %d before", after, before)
	}
}
