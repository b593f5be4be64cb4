package domain

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTheClockIsTheMedianOfWhoIsHeard(t *testing.T) {
	const second, hour = time.Second, time.Hour
	for name, c := range map[string]struct {
		own     time.Duration // how far this node's clock is ahead when it is looked at
		others  []time.Duration
		abstain bool
		want    time.Duration // of the time of day
	}{
		"alone it is its own":                      {},
		"alone it follows its own forward":         {own: hour, want: hour},
		"alone it does not follow it back":         {own: -hour},
		"alone it follows it back a little":        {own: -second / 2, want: -second / 2},
		"one other, near: between them":            {others: []time.Duration{10 * second}, want: 5 * second},
		"one other, far: it goes on":               {others: []time.Duration{hour}},
		"one other, and its own jumps: it goes on": {own: hour, others: []time.Duration{0}},
		"one other, and its own jumps back":        {own: -hour, others: []time.Duration{0}},
		"a newcomer goes by the other":             {others: []time.Duration{-hour}, abstain: true, want: -hour},
		"two others: the one in the middle":        {others: []time.Duration{4 * second, 9 * second}, want: 4 * second},
		"two others agree: it is wrong":            {own: hour, others: []time.Duration{second, 2 * second}, want: 2 * second},
		"two others, one of them wrong":            {others: []time.Duration{hour, second}, want: second},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				ahead := time.Duration(0)
				k := NewClock(func() time.Time { return time.Now().Add(ahead) })
				if c.abstain {
					k.Abstain()
				}
				ahead = c.own
				for i, o := range c.others {
					k.hear(ports.PeerID(rune('a'+i)), time.Now().Add(o))
				}
				off := k.look()
				if got := time.Until(k.Now()); got != c.want {
					t.Errorf("the time of day is %v ahead, want %v", got, c.want)
				}
				if want := c.own - c.want; off != want || k.Offset() != want || k.Wrong() != (want.Abs() > clockWrong) {
					t.Errorf("its own is %v ahead, as it says %v and %t; want %v", off, k.Offset(), k.Wrong(), want)
				}
				if len(c.others) > 1 {
					return // each of them that goes moves the median
				}
				k.forget("a")
				if got := time.Until(k.Now()); got != c.want {
					t.Errorf("without the other it is %v ahead, want %v still", got, c.want)
				}
			})
		})
	}
}
