package modules_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

var schedules = flag.Int("schedules", 0, "how many random schedules of faults TestSimSchedules runs; 0 for the one that -seed names, or else for many")

const (
	scheduled = 10 * time.Minute // how long a schedule is
	// wholeAfter is how long after the last fault all must be well: a backed-off dial, and a
	// heartbeat.
	wholeAfter = 75 * time.Second
)

var unwell atomic.Int64

// step is something that happens in a schedule.
type step struct {
	at   time.Duration
	what string
	do   func()
}

// kinds are the faults of nodes. Each begins and ends.
var kinds = []struct {
	what, ends string
	natives    bool // of natives alone
	begin, end func(m *member)
}{
	{"is cut off", "is connected again", false, (*member).cutOff, (*member).reconnect},
	{"is stopped with SIGSTOP", "goes on", false, (*member).pause, (*member).resume},
	{"falls asleep", "wakes", false, (*member).sleep, (*member).wake},
	{"stops", "starts", false, (*member).stop, (*member).start}, // an indexer leaves
	{"is killed", "starts", false, (*member).kill, (*member).start},
	{"loses its power", "starts", false, (*member).crash, (*member).start},
	{"stops to move", "starts elsewhere", true, (*member).stop, func(m *member) { m.move(); m.start() }},
}

// schedule draws what happens. It draws all before anything happens, so the seed alone determines
// it.
func (c *cast) schedule() (steps []step) {
	r := c.random
	all := slices.Concat(c.natives, c.indexers)
	busy := make(map[*member]time.Duration) // until when a member has a fault
	free := func(at time.Duration, of []*member) (m *member, ok bool) {
		m = of[r.IntN(len(of))]
		return m, busy[m] <= at
	}
	lasts := func() time.Duration {
		longest := []time.Duration{10 * time.Second, 45 * time.Second, 2 * time.Minute}[r.IntN(3)]
		return time.Second + time.Duration(r.Int64N(int64(longest)))
	}
	add := func(at, lasts time.Duration, begins string, begin func(), ends string, end func(), of ...*member) {
		for _, m := range of {
			busy[m] = at + lasts + 5*time.Second
		}
		steps = append(steps,
			step{at, begins, func() {
				calm := c.calm()
				c.faulty++
				c.happens(begin)
				for _, m := range of {
					m.leftCalmly = calm
				}
			}},
			step{at + lasts, ends, func() { c.faulty--; c.happens(end) }})
	}
	var wrongUntil time.Duration // one clock is wrong at a time: of three natives, two are right
	for at := 5 * time.Second; ; at += time.Second + time.Duration(r.Int64N(int64(40*time.Second))) {
		d := lasts()
		if at+d > scheduled-10*time.Second {
			break
		}
		m, ok := free(at, all)
		other, otherOK := free(at, c.natives)
		back, wrong := time.Duration(r.IntN(5))*time.Second, time.Duration(r.IntN(2)*2-1)*time.Hour
		kind := r.IntN(len(kinds) + 3)
		if !ok {
			continue
		}
		native := slices.Contains(c.natives, m)
		switch {
		case kind < len(kinds):
			if k := kinds[kind]; native || !k.natives {
				add(at, d, m.name+" "+k.what, func() { k.begin(m) }, m.name+" "+k.ends, func() { k.end(m) }, m)
			}
		case kind == len(kinds):
			if otherOK && other != m {
				add(at, d, m.name+" is cut from "+other.name, func() { cut(m, other) }, m.name+" hears "+other.name+" again", func() { mend(m, other) }, m, other)
			}
		case kind == len(kinds)+1:
			if otherOK && other != m {
				add(at, d, m.name+" is not heard by "+other.name, func() { deafen(m, other) }, m.name+" is heard by "+other.name+" again", func() { hear(m, other) }, m, other)
			}
		case native && wrongUntil <= at:
			wrongUntil = at + back + d + ttl
			add(at, back+d, m.name+" is killed", m.kill, m.name+"'s clock is set right", func() { m.clock.set(0) }, m)
			steps = append(steps, step{at + back, fmt.Sprintf("%s boots with its clock %v ahead", m.name, wrong), func() { m.clock.set(wrong); m.start() }})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	return steps
}

// runSchedule runs the schedule of a seed in a bubble, and returns what was seen.
func runSchedule(t *testing.T, seed uint64) (seen sums, whole time.Duration) {
	t.Helper()
	invented := strangers(t, 50)
	simulateSeed(t, seed, func(t *testing.T, s *simulation) {
		c := s.cast(time.Second)
		for range 3 {
			c.native()
		}
		c.indexer(false, c.natives[0])
		c.indexer(false, c.natives[1], c.natives[2])
		c.indexer(true, c.natives...)
		var says []string
		if s.random.IntN(2) == 0 {
			c.liars = append(c.liars, s.liar("liar", lies[s.random.IntN(len(lies))], invented, c.natives...))
		}
		steps := c.schedule()
		c.start()
		c.began = time.Now()
		for _, step := range steps {
			c.watch(step.at - time.Since(c.began))
			says = append(says, fmt.Sprintf("%v: %s", step.at, step.what))
			step.do()
		}
		c.watch(scheduled - time.Since(c.began))
		took, ok := c.untilWhole(wholeAfter)
		seen, whole = c.seen, took
		if !ok {
			unwell.Add(1)
			c.fault(allWell, "%v after the last fault not all is well: %s", took, c.state())
		}
		if len(c.wrong) > 0 {
			t.Errorf("seed %d, again with -run TestSimSchedules -args -seed %d: %v\n%s", seed, seed, &c.seen, strings.Join(c.wrong, "\n"))
			t.Logf("seed %d, what happened:\n%s", seed, strings.Join(says, "\n"))
		}
		c.stop()
	})
	return seen, whole
}

// TestSimSchedules lets natives and indexers, and now and then a native that lies, live through
// ten minutes of random faults. At each second, whoever lives is listed or its absence is
// marked, and nothing dead is shown as live. Afterwards all is well again.
func TestSimSchedules(t *testing.T) {
	n, first := *schedules, *seed
	switch {
	case n > 0:
	case first != 0:
		n = 1
	default:
		n = porttest.Scale(50, 4)
	}
	if first == 0 {
		first = rand.Uint64N(1 << 62)
	}
	var sum sums
	var slowest time.Duration
	failed := 0
	for i := range uint64(n) {
		ok := t.Run("", func(t *testing.T) {
			seen, whole := runSchedule(t, first+i)
			sum.samples += seen.samples
			sum.absent += seen.absent
			sum.unmarked += seen.unmarked
			sum.deadLive += seen.deadLive
			slowest = max(slowest, whole)
		})
		if !ok {
			failed++
		}
	}
	t.Logf("%d schedules from seed %d on, %d failed: %v; whole %v after the last fault at the latest, and %d not by then", n, first, failed, &sum, slowest, unwell.Load())
}
