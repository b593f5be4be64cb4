package domain

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

// sweptFor has h sweep once a second for some seconds, as Run does. Each second may end and renew
// leases. It returns the second at which many have ended, 0 for none.
func sweptFor(h *hearing, seconds, left int, each func(second int) (ends, renewals int)) (lostAt int) {
	for second := 1; second <= seconds; second++ {
		at := Instant{time.Duration(second) * time.Second}
		h.sweeps(at)
		ends, renewals := each(second)
		h.renewed.Add(int64(renewals))
		left -= ends
		if h.judge(at, nil, make([]silence, ends), left); h.many && lostAt == 0 {
			lostAt = second
		}
	}
	return lostAt
}

func TestALeaseThatIsLateOrEndsInSilenceMakesANativeAsk(t *testing.T) {
	const slack = 6 * sec
	heard := Instant{time.Minute}
	for _, tc := range []struct {
		name           string
		since          time.Duration // the last heartbeat
		overdue, ended int
		want           bool
	}{
		{"late, an instant before a heartbeat may be late", slack - 1, 1, 0, false},
		{"late, at it", slack, 1, 0, true},
		{"late, an instant after", slack + 1, 1, 0, true},
		{"ended", slack, 0, 1, true},
		{"nothing is late or has ended", time.Hour, 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := &hearing{policy: DefaultTTLPolicy()}
			h.renewed.Add(1)
			h.judge(heard, nil, nil, 9)
			if got := h.judge(heard.Add(tc.since), make([]silence, tc.overdue), make([]silence, tc.ended), 9); got != tc.want {
				t.Errorf("it asks: %v, want %v", got, tc.want)
			}
		})
	}
}

func TestADeafNativeIsUnheardUntilAHeartbeatOrForATTL(t *testing.T) {
	table := newTable(DefaultTTLPolicy(), Bounds{})
	at := Instant{time.Minute}
	table.hearing.lose(at)
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {66*sec - 1, true}, {66 * sec, false}, {66*sec + 1, false}} {
		if got := table.unheard(at.Add(tc.after)); got != tc.want {
			t.Errorf("after %v unheard: %v, want %v", tc.after, got, tc.want)
		}
	}
	table.hearing.renewed.Add(1)
	if table.unheard(at) {
		t.Error("unheard after a heartbeat")
	}
}

func TestManyEndsWithFewRenewalsTellThatTheLineIsLost(t *testing.T) {
	// steady has all of n renew once a minute until the line is lost, and end 66 s after that.
	steady := func(n, lostAt int) func(int) (int, int) {
		return func(second int) (ends, renewals int) {
			switch every := 60 / n; {
			case second < lostAt && second%every == 0:
				return 0, 1
			case second >= lostAt+6 && second < lostAt+66 && second%every == 0:
				return 1, 0
			}
			return 0, 0
		}
	}
	at := func(ends, second, renewals int) func(int) (int, int) {
		return func(s int) (int, int) {
			if s == second {
				return ends, renewals
			}
			return 0, 0
		}
	}
	for name, tc := range map[string]struct {
		leases int
		each   func(second int) (ends, renewals int)
		want   int
	}{
		"all renew":                          {60, steady(60, 1000), 0},
		"60, and the line is lost at 20":     {60, steady(60, 20), 35},
		"6, and the line is lost at 20":      {6, steady(6, 20), 50},
		"3, and the line is lost at 20":      {3, steady(3, 20), 80},
		"2, and the line is lost at 20":      {2, steady(2, 20), 0},
		"two of two":                         {2, at(2, 5, 0), 0},
		"three of three":                     {3, at(3, 5, 0), 5},
		"three of 20, just 15 %":             {20, at(3, 5, 0), 0},
		"three of 19, more than 15 %":        {19, at(3, 5, 0), 5},
		"a quarter as many renewals":         {8, at(8, 5, 2), 0},
		"fewer renewals than that":           {9, at(9, 5, 2), 5},
		"three of three, a heartbeat apart":  {3, func(s int) (int, int) { return b2i(s == 5 || s == 35 || s == 65), 0 }, 65},
		"three of three, a second more":      {3, func(s int) (int, int) { return b2i(s == 5 || s == 35 || s == 66), 0 }, 0},
		"a fifth dies, and the others renew": {60, func(s int) (int, int) { return b2i(s%5 == 0), b2i(s%5 != 0) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := &hearing{policy: DefaultTTLPolicy()}
			if got := sweptFor(h, 90, tc.leases, tc.each); got != tc.want {
				t.Errorf("lost at %d s, want %d", got, tc.want)
			}
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestASweepThatComesLateByMoreThanATenthOfATTLIsAStandstill(t *testing.T) {
	policy := DefaultTTLPolicy()
	limit := time.Second + policy.TTL/10
	for _, tc := range []struct {
		name  string
		pause time.Duration
		want  bool
	}{{"the instant before", limit - 1, false}, {"at it", limit, false}, {"the instant after", limit + 1, true}} {
		t.Run(tc.name, func(t *testing.T) {
			h := &hearing{policy: policy}
			began := Instant{time.Minute}
			if h.sweeps(began); h.at(began) != nil {
				t.Fatal("doubt at the first sweep")
			}
			at := began.Add(tc.pause)
			if got := h.at(at) != nil; got != tc.want {
				t.Errorf("doubt before the sweep: %v, want %v", got, tc.want)
			}
			long := &hearing{policy: policy} // within a sweep that goes on
			if long.sweeps(began); long.goesOn(at) == tc.want {
				t.Errorf("it runs: %v, want %v", !tc.want, tc.want)
			}
			if got := long.at(at.Add(time.Nanosecond)) != nil; got != tc.want {
				t.Errorf("doubt after that: %v, want %v", got, tc.want)
			}
			if got := h.sweeps(at); got != tc.pause && tc.want || got != 0 && !tc.want {
				t.Errorf("it stood still for %v, want %v: %v", got, tc.pause, tc.want)
			}
			if h.stop(); tc.want != (h.at(at.Add(time.Hour)) != nil) {
				t.Errorf("doubt after the last sweep: %+v", h.at(at.Add(time.Hour)))
			}
		})
	}
}

func TestWhichLeasesAreInDoubtAndForHowLong(t *testing.T) {
	second := func(s int) Instant { return Instant{time.Duration(s) * time.Second} }
	stood := &doubt{from: second(100), noticed: second(150), stood: true}
	lost := &doubt{from: second(90), noticed: second(150)}
	for _, tc := range []struct {
		name     string
		doubt    *doubt
		source   source
		deadline Instant
		want     Instant
	}{
		{"no doubt", nil, granted, second(120), Instant{}},
		{"it ended as the standstill began", stood, granted, second(100), Instant{}},
		{"it ended after that", stood, granted, second(100).Add(1), second(216)},
		{"it ended as the standstill was noticed", stood, granted, second(150), second(216)},
		{"it ended after that, unheard", stood, granted, second(180), second(246)},
		{"it was granted before the notice", stood, granted, second(216).Add(-1), second(282).Add(-1)},
		{"it was granted at the notice", stood, granted, second(216), Instant{}},
		{"another native's", stood, told, second(120), second(216)},
		{"the store's", stood, stored, second(120), second(216)},
		{"a lost line: it ended a heartbeat before", lost, granted, second(90), Instant{}},
		{"a lost line: it ended since", lost, granted, second(91), second(216)},
		{"a lost line: another native's", lost, told, second(120), Instant{}},
		{"a lost line: the store's", lost, stored, second(120), Instant{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.doubt.until(&word{source: tc.source, deadline: tc.deadline}, 66*time.Second); got != tc.want {
				t.Errorf("until %v, want %v", got, tc.want)
			}
		})
	}
}

func TestANativeIsUnheardWhileMoreThanThatAreStale(t *testing.T) {
	for _, tc := range []struct {
		stale, listed int64
		want          bool
	}{{0, 0, false}, {0, 9, false}, {1, 1, true}, {15, 100, false}, {16, 100, true}} {
		t.Run(fmt.Sprintf("%d of %d", tc.stale, tc.listed), func(t *testing.T) {
			table := newTable(DefaultTTLPolicy(), Bounds{})
			table.stale.Store(tc.stale)
			table.listed.Store(tc.listed)
			if got := table.unheard(Instant{}); got != tc.want {
				t.Errorf("unheard: %v, want %v", got, tc.want)
			}
		})
	}
}

// What watchers are told of a lease that goes stale during a standstill, and comes back or ends.
func TestAStaleLeaseAsWatchersHearOfIt(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(b *shelf)
		want []string
		left [3]int64 // listed, stale, records
	}{
		"it stays for a TTL":    {func(b *shelf) { b.sweep(later(166*sec - 1)) }, nil, [3]int64{1, 1, 1}},
		"and no longer":         {func(b *shelf) { b.sweep(later(167 * sec)) }, []string{"expired me"}, [3]int64{}},
		"its indexer is back":   {func(b *shelf) { b.hears(lease(granted, "me", 180*sec), later(120*sec)) }, []string{"updated me"}, [3]int64{1, 0, 1}},
		"another native has it": {func(b *shelf) { b.hears(lease(told, "n", 180*sec), later(120*sec)) }, []string{"updated n"}, [3]int64{1, 0, 1}},
		"it leaves":             {func(b *shelf) { b.hears(leave(granted, "me", 180*sec), later(120*sec)) }, []string{"left me"}, [3]int64{0, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newShelf(t)
			b.hears(lease(granted, "me", 66*sec), noon)
			b.s.table.hearing.sweeps(later(60 * sec).at)
			b.told()
			if is := b.s.present(b.record(), later(99*sec).at); !is.stale {
				t.Errorf("before the sweep it is shown as %+v", is)
			}
			b.s.table.hearing.sweeps(later(100 * sec).at)
			b.sweep(later(100 * sec))
			if got := b.told(); !slices.Equal(got, []string{"stale me"}) {
				t.Fatalf("told %q", got)
			}
			tc.then(b)
			if got := b.told(); !slices.Equal(got, tc.want) {
				t.Errorf("told %q, want %q", got, tc.want)
			}
			table := b.s.table
			if got := [3]int64{table.listed.Load(), table.stale.Load(), table.size.Load()}; got != tc.left {
				t.Errorf("listed, stale and records are %v, want %v", got, tc.left)
			}
		})
	}
}

// Messages that waited at the socket are read at once after a standstill. A later message that seems
// late comes from a clock that was set back, and its leases are not old.
func TestMessagesWereHeldUpInTheFirstMomentAfterAStandstillAlone(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration
		want  time.Duration
	}{
		{"at the notice", 0, 40 * time.Second},
		{"the instant before the end", confirmAfter - 1, 40 * time.Second},
		{"at it", confirmAfter, 0},
		{"the instant after", confirmAfter + 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r, _ := bareRegistry(t, "self", nil)
				at := r.now().at
				r.table.hearing.noticed.Store(&doubt{from: at.Add(-40 * time.Second), noticed: at, stood: true})
				time.Sleep(tc.after)
				if got := r.heldUp(time.Hour); got != tc.want {
					t.Errorf("a message that seems an hour late is %v old, want %v", got, tc.want)
				}
			})
		})
	}
}
