package porttest

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// AtTicks returns an announcer that passes on a's announcements only at its ticks, as a native
// of the seed looks up. Other natives then miss a live indexer for up to 38 % of the time.
func AtTicks(a ports.Announcer, every time.Duration) ports.Announcer { return ticking{a, every} }

type ticking struct {
	ports.Announcer
	every time.Duration
}

// Listen implements ports.Announcer.
func (t ticking) Listen(hear func(ports.Announcement)) (stop func(), err error) {
	var mu sync.Mutex
	var waiting []ports.Announcement
	deaf, err := t.Announcer.Listen(func(a ports.Announcement) {
		mu.Lock()
		defer mu.Unlock()
		waiting = append(waiting, a)
	})
	if err != nil {
		return nil, err
	}
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(t.every)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			mu.Lock()
			due := waiting
			waiting = nil
			mu.Unlock()
			for _, a := range due {
				hear(a)
			}
		}
	}()
	return sync.OnceFunc(func() {
		deaf()
		close(ended)
		<-done
	}), nil
}
