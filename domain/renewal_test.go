package domain_test

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestARenewalTellsWhatWasLeft(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork(t)
		ids := peerIDs(3)
		n := net.native(ids[0], nil)
		defer n.stop()
		ttl := net.rules.Policy.TTL
		for _, step := range []struct {
			after  time.Duration // the one before
			joined bool
			left   time.Duration
		}{
			{0, true, 0},
			{0, false, ttl},
			{time.Minute, false, ttl - time.Minute},
			{ttl - 1, false, 1},
			{ttl, true, 0}, // dead at its deadline
			{ttl + time.Hour, true, 0},
		} {
			time.Sleep(step.after)
			n.register(t, ids[1], addr)
			registered := n.Of(ports.EventRegistered)
			if e := registered[len(registered)-1]; e.Joined != step.joined || e.Remaining != step.left {
				t.Errorf("%v after the last: joined %v with %v left, want %v with %v", step.after, e.Joined, e.Remaining, step.joined, step.left)
			}
		}
	})
}
