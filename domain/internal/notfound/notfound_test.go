package notfound

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
)

func TestANotFoundIsRememberedForAWhile(t *testing.T) {
	cache := New()
	cache.Add("x", time.Second)
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {Kept - 1, true}, {Kept, false}, {Kept + 1, false}} {
		if got := cache.Has("x", time.Second+c.after); got != c.want {
			t.Errorf("%v after it was not found it is remembered: %v", c.after, got)
		}
	}
	if cache.Has("y", time.Second) {
		t.Error("what was not looked for is remembered")
	}
}

func TestNotFoundsAreBounded(t *testing.T) {
	cache := New()
	for i := range 3 * maxKept {
		cache.Add(ports.PeerID(fmt.Sprint(i)), 0)
		if len(cache.until) > maxKept || len(cache.queue) > maxKept {
			t.Fatalf("%d are remembered, %d wait", len(cache.until), len(cache.queue))
		}
	}
	if cache.Has("0", 0) || !cache.Has(ports.PeerID(fmt.Sprint(3*maxKept-1)), 0) {
		t.Error("of too many, it is not the oldest that went")
	}
	for range 3 * maxKept { // one and the same again and again
		cache.Add("x", 0)
	}
	if !cache.Has("x", 0) || len(cache.queue) > maxKept {
		t.Errorf("remembered: %v; %d wait", cache.Has("x", 0), len(cache.queue))
	}
	cache.Add("y", Kept)
	if len(cache.until) != 1 || len(cache.queue) != 1 {
		t.Errorf("%d are remembered and %d wait though all but one are over", len(cache.until), len(cache.queue))
	}
}

// TestNotFoundIsWhatWasAddedLast holds a Cache against a map of instants, below its bound.
func TestNotFoundIsWhatWasAddedLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cache, added, now := New(), map[ports.PeerID]time.Duration{}, time.Duration(0)
		ids := rapid.SampledFrom([]ports.PeerID{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"add":  func(t *rapid.T) { id := ids.Draw(t, "id"); cache.Add(id, now); added[id] = now },
			"wait": func(t *rapid.T) { now += time.Duration(rapid.IntRange(0, int(Kept)).Draw(t, "for")) },
			"": func(t *rapid.T) {
				for _, id := range []ports.PeerID{"a", "b", "c"} {
					at, ok := added[id]
					if want := ok && now < at+Kept; cache.Has(id, now) != want {
						t.Fatalf("%s is remembered: %v", id, !want)
					}
				}
			},
		})
	})
}
