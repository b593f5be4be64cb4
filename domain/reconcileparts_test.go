package domain

import (
	"slices"
	"testing"

	"github.com/opencloud/ocnode/ports"
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
