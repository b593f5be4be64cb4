package domain

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTheClockIsTheMedianOfWhoIsHeard(t *testing.T) {
	const second, hour = time.Second, time.Hour
	for name, c := range map[string]struct {
		own     time.Duration // how far this node's clock is ahead when it is looked at
		others  []time.Duration
		abstain int
		clocks  int           // of how many natives' clocks each of the others comes
		want    time.Duration // of the time of day
	}{
		"alone it is its own":                            {},
		"alone it follows its own forward":               {own: hour, want: hour},
		"alone it does not follow it back":               {own: -hour},
		"alone it follows it back a little":              {own: -second / 2, want: -second / 2},
		"one other, near: between them":                  {others: []time.Duration{10 * second}, want: 5 * second},
		"one other, far: it goes on":                     {others: []time.Duration{hour}},
		"one other, and its own jumps: it goes on":       {own: hour, others: []time.Duration{0}},
		"one other, and its own jumps back":              {own: -hour, others: []time.Duration{0}},
		"a newcomer goes by the other":                   {others: []time.Duration{-hour}, abstain: 1, want: -hour},
		"an indexer with a lone native, far: it goes on": {others: []time.Duration{hour}, abstain: 2},
		"an indexer with a lone native, near":            {others: []time.Duration{10 * second}, abstain: 2, want: 5 * second},
		"an indexer with one native that hears another":  {others: []time.Duration{hour}, abstain: 2, clocks: 2, want: hour},
		"an indexer goes by two natives":                 {own: hour, others: []time.Duration{second, 3 * second}, abstain: 2, want: 2 * second},
		"two others: the one in the middle":              {others: []time.Duration{4 * second, 9 * second}, want: 4 * second},
		"two others agree: it is wrong":                  {own: hour, others: []time.Duration{second, 2 * second}, want: 2 * second},
		"two others, one of them wrong":                  {others: []time.Duration{hour, second}, want: second},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				ahead := time.Duration(0)
				k := NewClock(func() time.Time { return time.Now().Add(ahead) }, nil)
				if c.abstain > 0 {
					k.Abstain(c.abstain)
				}
				ahead = c.own
				for i, o := range c.others {
					k.Sample(ports.PeerID(rune('a'+i)), time.Now().Add(o), c.clocks)
				}
				off := k.set()
				if got := time.Until(k.Now()); got != c.want {
					t.Errorf("the time of day is %v ahead, want %v", got, c.want)
				}
				if want := c.own - c.want; off != want || k.Offset() != want {
					t.Errorf("its own is %v ahead, as it says %v; want %v", off, k.Offset(), want)
				}
				if len(c.others) > 1 {
					return // each of them that goes moves the median
				}
				k.Drop("a")
				if got := time.Until(k.Now()); got != c.want {
					t.Errorf("without the other it is %v ahead, want %v still", got, c.want)
				}
			})
		})
	}
}

// TestAMessageThatWasHeldUpSetsNoClock has two natives tell the time, in messages that an
// outage holds up, and then set their clocks.
func TestAMessageThatWasHeldUpSetsNoClock(t *testing.T) {
	const every, usual = 10 * time.Second, 40 * time.Millisecond
	for _, outage := range []time.Duration{5 * time.Second, 80 * time.Second} {
		porttest.FakeTime(t, func(t *testing.T) {
			k := NewClock(nil, nil)
			ahead := time.Duration(0)
			tell := func(late time.Duration) {
				for _, native := range []ports.PeerID{"a", "b"} {
					k.Sample(native, time.Now().Add(ahead-late), 1)
				}
			}
			// tells goes on for d, and returns how far the time of day was off at most and at last.
			tells := func(d time.Duration) (most, last time.Duration) {
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(every) {
					tell(rand.N(usual))
					last = time.Until(k.Now()) - ahead
					most = max(most, last.Abs())
				}
				return most, last
			}
			for range 20 {
				if most, _ := tells(rand.N(3 * sampledFor)); most > usual {
					t.Errorf("with messages on time it is off by %v", most)
				}
				time.Sleep(outage)
				for late := outage; late > 0; late -= time.Second {
					tell(late)
					if off := time.Until(k.Now()).Abs(); off > usual {
						t.Fatalf("by messages that were held up for %v it is off by %v", late, off)
					}
				}
			}
			ahead += 7 * time.Second
			tell(0)
			if off := time.Until(k.Now()) - ahead; off != 0 {
				t.Errorf("after the natives' clocks were set it is off by %v", off)
			}
			ahead -= 12 * time.Second
			if _, off := tells(2*sampledFor + every); off.Abs() > usual {
				t.Errorf("%v after they were set back it is off by %v", 2*sampledFor, off)
			}
			for late := time.Hour; late >= 0; late -= time.Minute { // a process that stood still
				tell(late)
				if off := time.Until(k.Now()) - ahead; off.Abs() > usual {
					t.Fatalf("by messages of an hour ago it is off by %v", off)
				}
			}
			ahead -= time.Hour
			for range 2 {
				tell(0)
				time.Sleep(confirmAfter)
			}
			if off := time.Until(k.Now()) - ahead; off != 0 {
				t.Errorf("after they were set back by an hour it is off by %v", off)
			}
		})
	}
}

func TestAnAbsurdClockSetsNothing(t *testing.T) {
	for _, lie := range []time.Time{
		time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		for _, own := range []time.Duration{0, -5 * time.Millisecond} {
			t.Run(fmt.Sprint(own, lie.Year()), func(t *testing.T) {
				porttest.FakeTime(t, func(t *testing.T) {
					ahead := time.Duration(0)
					k := NewClock(func() time.Time { return time.Now().Add(ahead) }, nil)
					ahead = own
					k.Sample("liar", lie, 1)
					if off := time.Until(k.Now()); off.Abs() > time.Second {
						t.Errorf("own clock %v, one other says %v: the time of day is %v ahead", own, lie, off)
					}
				})
			})
		}
	}
}

func TestWhoIsNotFollowedHasNoVote(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		clock := NewClock(nil, nil)
		r, _ := bareRegistry(t, "me", func(rules *Rules, _ *Settings) { rules.Clock = clock })
		f := NewFollower(r.rules, nil, FollowerSettings{})
		f.registry = r
		for _, id := range []ports.PeerID{"a", "b", "c"} {
			ctx, cancel := context.WithCancel(t.Context())
			n := &followed{id: id, native: porttest.Native{OnWatch: func(context.Context, ports.PeerID, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
				return func(yield func(ports.Batch, error) bool) {
					yield(ports.Batch{Reset: ports.ResetNew, Now: time.Now().Add(20 * time.Hour)}, nil)
				}
			}}}
			done := make(chan struct{})
			go func() { defer close(done); f.follow(ctx, n) }()
			synctest.Wait()
			cancel()
			<-done
		}
		time.Sleep(time.Hour)
		clock.set()
		if clock.Sources() != 0 || time.Until(clock.Now()).Abs() > time.Second {
			t.Errorf("three that were never followed and are gone for an hour: %d votes, and the time of day is %v ahead", clock.Sources(), time.Until(clock.Now()))
		}
	})
}
