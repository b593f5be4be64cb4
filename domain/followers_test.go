package domain

import (
	"context"
	"testing"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestFollowersAreTheNativesWhoseWatchRuns(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		followers, changes := &Followers{}, 0
		followers.OnChange(func() { changes++ })
		r, _ := bareRegistry(t, "self", func(_ *Rules, s *Settings) { s.Followers = followers })
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for _, w := range []struct {
			sender ports.PeerID
			own    bool
			is     bool
		}{{"native", true, true}, {"reader", false, false}, {"", true, false}} {
			for range r.Watch(ctx, w.sender, ports.WatchRequest{Own: w.own}) {
				if followers.Has(w.sender) != w.is {
					t.Errorf("a watch of %q with Own %v: follows is %v", w.sender, w.own, !w.is)
				}
				if !w.is {
					break
				}
				for range r.Watch(ctx, w.sender, ports.WatchRequest{Own: true}) {
					break // a second watch of the same native ends first
				}
				if !followers.Has(w.sender) {
					t.Errorf("%q follows no more while one of its watches runs", w.sender)
				}
				break
			}
			if followers.Has(w.sender) {
				t.Errorf("%q follows after its watch", w.sender)
			}
		}
		if changes != 2 {
			t.Errorf("told %d changes, want that a native follows, and that it follows no more", changes)
		}
	})
}
