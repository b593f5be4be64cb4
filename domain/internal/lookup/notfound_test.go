package lookup

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
)

func has(n *NotFound[string], id ports.PeerID, now time.Duration) bool {
	_, is := n.Has(id, now)
	return is
}

func TestANotFoundIsRememberedForAWhile(t *testing.T) {
	n := NewNotFound[string]()
	n.Add("x", "why", time.Second)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {NotFoundFor - 1, true}, {NotFoundFor, false}, {NotFoundFor + 1, false}} {
		got, is := n.Has("x", time.Second+c.after)
		if is != c.want || is != (got == "why") {
			t.Errorf("%v after it was not found it is remembered: %v, with %q", c.after, is, got)
		}
	}
	if has(n, "y", time.Second) {
		t.Error("what was not looked for is remembered")
	}
}

func TestNotFoundsAreBounded(t *testing.T) {
	n := NewNotFound[string]()
	for i := range 3 * maxNotFound {
		n.Add(ports.PeerID(fmt.Sprint(i)), "", 0)
		if len(n.known) > maxNotFound || len(n.queue) > maxNotFound {
			t.Fatalf("%d are remembered, %d wait", len(n.known), len(n.queue))
		}
	}
	if has(n, "0", 0) || !has(n, ports.PeerID(fmt.Sprint(3*maxNotFound-1)), 0) {
		t.Error("of too many, it is not the oldest that went")
	}
	for range 3 * maxNotFound { // one and the same again and again
		n.Add("x", "", 0)
	}
	if !has(n, "x", 0) || len(n.queue) > maxNotFound {
		t.Errorf("remembered: %v; %d wait", has(n, "x", 0), len(n.queue))
	}
	for range 3 * maxNotFound { // and found in between
		n.Remove("x")
		n.Add("x", "", 0)
	}
	if !has(n, "x", 0) || len(n.queue) > maxNotFound {
		t.Errorf("remembered: %v; %d wait", has(n, "x", 0), len(n.queue))
	}
	n.Add("y", "", NotFoundFor)
	if len(n.known) != 1 || len(n.queue) != 1 {
		t.Errorf("%d are remembered and %d wait though all but one are over", len(n.known), len(n.queue))
	}
}

// TestANotFoundIsWhatWasAddedLast holds NotFound against a map of instants, below its bound.
func TestANotFoundIsWhatWasAddedLast(t *testing.T) {
	type absence struct {
		at  time.Duration
		why string
	}
	rapid.Check(t, func(t *rapid.T) {
		n, added, now := NewNotFound[string](), map[ports.PeerID]absence{}, time.Duration(0)
		ids := rapid.SampledFrom([]ports.PeerID{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id, why := ids.Draw(t, "id"), rapid.SampledFrom([]string{"this", "that"}).Draw(t, "why")
				n.Add(id, why, now)
				added[id] = absence{now, why}
			},
			"remove": func(t *rapid.T) { id := ids.Draw(t, "id"); n.Remove(id); delete(added, id) },
			"wait":   func(t *rapid.T) { now += time.Duration(rapid.IntRange(0, int(NotFoundFor)).Draw(t, "for")) },
			"": func(t *rapid.T) {
				for _, id := range []ports.PeerID{"a", "b", "c"} {
					want, ok := added[id]
					ok = ok && now < want.at+NotFoundFor
					if why, is := n.Has(id, now); is != ok || is && why != want.why {
						t.Fatalf("%s is remembered: %v, with %q", id, is, why)
					}
				}
			},
		})
	})
}
