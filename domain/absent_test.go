package domain

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
)

func TestANotFoundIsRememberedForAWhile(t *testing.T) {
	a := newAbsent()
	a.add("x", time.Second)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {absentFor - 1, true}, {absentFor, false}, {absentFor + 1, false}} {
		if got := a.has("x", time.Second+c.after); got != c.want {
			t.Errorf("%v after it was not found it is remembered: %v", c.after, got)
		}
	}
	if a.has("y", time.Second) {
		t.Error("what was not looked for is remembered")
	}
}

func TestNotFoundsAreBounded(t *testing.T) {
	a := newAbsent()
	for i := range 3 * maxAbsent {
		a.add(ports.PeerID(fmt.Sprint(i)), 0)
		if len(a.until) > maxAbsent || len(a.queue) > maxAbsent {
			t.Fatalf("%d are remembered, %d wait", len(a.until), len(a.queue))
		}
	}
	if a.has("0", 0) || !a.has(ports.PeerID(fmt.Sprint(3*maxAbsent-1)), 0) {
		t.Error("of too many, it is not the oldest that went")
	}
	for range 3 * maxAbsent { // one and the same again and again
		a.add("x", 0)
	}
	if !a.has("x", 0) || len(a.queue) > maxAbsent {
		t.Errorf("remembered: %v; %d wait", a.has("x", 0), len(a.queue))
	}
	a.add("y", absentFor)
	if len(a.until) != 1 || len(a.queue) != 1 {
		t.Errorf("%d are remembered and %d wait though all but one are over", len(a.until), len(a.queue))
	}
}

// TestAbsentIsWhatWasAddedLast holds absent against a map of instants, below its bound.
func TestAbsentIsWhatWasAddedLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, added, now := newAbsent(), map[ports.PeerID]time.Duration{}, time.Duration(0)
		ids := rapid.SampledFrom([]ports.PeerID{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"add":  func(t *rapid.T) { id := ids.Draw(t, "id"); a.add(id, now); added[id] = now },
			"wait": func(t *rapid.T) { now += time.Duration(rapid.IntRange(0, int(absentFor)).Draw(t, "for")) },
			"": func(t *rapid.T) {
				for _, id := range []ports.PeerID{"a", "b", "c"} {
					at, ok := added[id]
					if want := ok && now < at+absentFor; a.has(id, now) != want {
						t.Fatalf("%s is remembered: %v", id, !want)
					}
				}
			},
		})
	})
}
