package domain

import (
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestARangeMayBeToldAgainInParts(t *testing.T) {
	l := newLedger(Bounds{})
	l.asked = []ports.Range{{From: 1, Until: 100, Whole: true}, {From: 100, Until: 200}, {From: 200, Whole: true}}
	for i, c := range []struct {
		told ports.Range
		is   bool
		left int
	}{
		{ports.Range{From: 2, Until: 100}, false, 3},   // not its start
		{ports.Range{From: 1, Until: 101}, false, 3},   // beyond its end
		{ports.Range{From: 1}, false, 3},               // all that there is
		{ports.Range{From: 1, Until: 1}, false, 3},     // nothing
		{ports.Range{From: 100, Until: 200}, false, 3}, // its sum is asked for
		{ports.Range{From: 1, Until: 40}, true, 3},
		{ports.Range{From: 1, Until: 40}, false, 3}, // once more
		{ports.Range{From: 200, Until: 900}, true, 3},
		{ports.Range{From: 40, Until: 100, Count: 7, Whole: true}, true, 2},
		{ports.Range{From: 900}, true, 1},
		{ports.Range{From: 900}, false, 1},
	} {
		if is := l.toldWhole(c.told); is != c.is || len(l.asked) != c.left {
			t.Errorf("%d: %+v is an answer: %v, and %d ranges are left", i, c.told, is, len(l.asked))
		}
	}
	if !slices.Equal(l.asked, []ports.Range{{From: 100, Until: 200}}) {
		t.Errorf("asked for %+v", l.asked)
	}
}

// A native may tell more indexers than this native has room for. Some of their numbers are always asked for then.
// A difference among the others is found all the same.
func TestADifferenceIsFoundWhileNumbersAreMissingAllTheTime(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		l := newLedger(Bounds{})
		const told = 4 * maxWhole
		for n := range uint32(told) {
			l.define(n+1, pointer{}, summed{item: 1})
		}
		ask := make(chan []ports.Range, 1)
		l.watch(ask)
		theirs := l.total()
		theirs.Count, theirs.Sum = theirs.Count+1, theirs.Sum+1 // it told of another one
		for range 3 {
			for n := range uint32(told) {
				l.missing = append(l.missing, n+1)
			}
			l.compare(&ports.Batch{}, time.Second) // it asks at once
			l.compare(&ports.Batch{Sums: []ports.Range{theirs}}, time.Second)
			asked := <-ask
			if slices.ContainsFunc(asked, func(r ports.Range) bool { return !r.Whole }) {
				return
			}
			time.Sleep(time.Second)
			l.compare(&ports.Batch{Told: asked}, time.Second)
		}
		t.Error("it asks for no sums")
	})
}
