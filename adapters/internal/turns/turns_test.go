package turns

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

func TestAWaitForATurnEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		freed time.Duration
		runs  bool
	}{
		"the instant before": {Patience - 1, true},
		"the instant after":  {Patience + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				turns := New()
				for range cap(turns.places) {
					go turns.Do(t.Context(), func() { time.Sleep(tt.freed) })
				}
				synctest.Wait()
				began, ran := time.Now(), false
				if told := turns.Try(t.Context(), func() { ran = true }); told != tt.runs || ran != tt.runs || time.Since(began) != min(tt.freed, Patience) {
					t.Errorf("it ran: %v, said %v, after %v", ran, told, time.Since(began))
				}
				if !turns.Do(t.Context(), func() {}) || time.Since(began) != tt.freed {
					t.Errorf("work that has begun has its turn after %v", time.Since(began))
				}
			})
		})
	}
}

func TestAWaitForATurnEndsWithItsCaller(t *testing.T) {
	turns := New()
	held := make(chan struct{})
	for range cap(turns.places) {
		turns.places <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(held); turns.Do(ctx, func() { t.Error("it runs without a turn") }) }()
	cancel()
	<-held
}

func TestATurnThatPanicsIsGivenBack(t *testing.T) {
	turns := New()
	for range 2 * cap(turns.places) {
		func() {
			defer func() { _ = recover() }()
			if !turns.Try(t.Context(), func() { panic("lost") }) {
				t.Error("there is no turn")
			}
		}()
	}
}
