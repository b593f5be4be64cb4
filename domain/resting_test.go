package domain

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A native of the version before, or anybody, watches with renewals once. That makes heartbeats dearer
// for a while, and not for good.
func TestRenewalsAreRememberedForAWhileAfterTheLastWatchOfThem(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		cursor := ""
		watch := func() (reset ports.Reset, stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				for b := range r.Watch(ctx, "", ports.WatchRequest{Renewed: true, Cursor: cursor}) {
					if reset += b.Reset; b.Cursor != "" {
						cursor = b.Cursor
					}
				}
			}()
			synctest.Wait()
			return reset, func() { cancel(); <-done }
		}
		remembers := func(want bool) {
			t.Helper()
			before := r.table.changes.head()
			if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil {
				t.Fatal(err)
			}
			if is := r.table.changes.head() > before; is != want {
				t.Errorf("a renewal is remembered: %v, want %v", is, want)
			}
		}
		remembers(true) // it joins
		remembers(false)
		_, first := watch()
		_, second := watch()
		first()
		pass := func(d time.Duration, want bool) {
			t.Helper()
			for ; d > 0; d -= 30 * time.Second {
				time.Sleep(min(d, 30*time.Second))
				r.sweep()
				remembers(want)
			}
		}
		pass(2*renewalsKept, true)
		second()
		pass(renewalsKept-1, true)
		if reset, stop := watch(); reset != "" {
			t.Errorf("a watcher that comes back in time begins anew: %s", reset)
		} else {
			stop()
		}
		pass(renewalsKept-1, true)
		time.Sleep(time.Nanosecond)
		r.sweep()
		remembers(false)
		if reset, stop := watch(); reset != ports.ResetTooOld {
			t.Errorf("a watcher that comes back later begins by %q", reset)
		} else {
			time.Sleep(time.Second)
			remembers(true)
			stop()
		}
	})
}
