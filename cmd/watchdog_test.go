package cmd

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTheWatchdogIsToldWhileTheNodeAnswers(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told atomic.Int32
		var hangs sync.Mutex // as a lock that somebody never lets go
		var telling sync.WaitGroup
		telling.Go(func() {
			keepTelling(ctx, time.Second, func() { hangs.Lock(); defer hangs.Unlock() }, func() { told.Add(1) })
		})
		synctest.Wait()
		if got := told.Load(); got != 1 {
			t.Errorf("it was told %d times at once, want 1", got)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		if got := told.Load(); got != 11 {
			t.Errorf("it was told %d times in 10 s, want 11", got)
		}
		cancel()
		telling.Wait()
	})
}

func TestTheWatchdogIsNotToldOfANodeThatHangs(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var told atomic.Int32
		asked, release := 0, make(chan struct{})
		var telling sync.WaitGroup
		telling.Go(func() {
			keepTelling(ctx, time.Second, func() {
				if asked++; asked > 3 {
					<-release
				}
			}, func() { told.Add(1) })
		})
		time.Sleep(time.Minute)
		if got := told.Load(); got != 3 {
			t.Errorf("it was told %d times, want 3, before the node hung", got)
		}
		cancel()
		telling.Wait() // a node that hangs keeps nobody from stopping
		close(release)
		synctest.Wait()
	})
}
