package modules_test

// The faults that a live indexer was lost by, or an answer pretended by, each by itself.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

// point is a case in which an indexer was lost once, or a dead one was shown, or an answer did not
// say what it may miss.
type point struct {
	name string
	// absent bounds for how long an indexer that lives may be missing somewhere. No absence may be
	// unmarked but as long as unmarked says, and nothing dead may be shown live.
	absent, unmarked time.Duration
	run              func(c *cast)
}

// blink is what a figure may be off: a sample, and a round trip.
const blink = 500 * time.Millisecond

// mostToHeal is how long after a cut natives may take to be whole.
const mostToHeal = 2 * time.Second

var points = []point{
	{"1 a native moves, and then the other dies", 10 * time.Second, blink, func(c *cast) {
		a, b := c.native(), c.native()
		c.indexer(true, a, b)
		c.start()
		c.happens(a.stop)
		c.watch(10 * time.Second)
		c.happens(func() { a.move(); a.start() })
		c.watch(90 * time.Second) // in which it is found again
		c.happens(b.crash)
		c.watch(3 * time.Minute)
	}},
	{"2 three natives take leases and tell nobody; the honest are restarted", 10 * time.Second, blink, func(c *cast) {
		a, b := c.native(), c.native()
		for i := range 3 {
			c.liars = append(c.liars, c.liar(fmt.Sprintf("liar-%d", i), lieTaking, nil, a, b))
		}
		for range porttest.Scale(10, 4) {
			c.indexer(true, a, b)
		}
		c.start()
		c.watch(time.Minute)
		for _, n := range []*member{a, b} {
			c.happens(n.stop)
			c.watch(40 * time.Second) // until others are tried in its place
			c.happens(n.start)
			c.watch(3 * time.Minute)
		}
	}},
	{"5 a connection dies without a word, and a new one would not", blink, blink, func(c *cast) {
		a, _ := c.native(), c.native()
		x := c.indexer(false, a)
		c.start()
		for range 4 {
			c.watch(50 * time.Second)
			c.happens(func() { c.faults.sever(x.ip, a.ip) })
			c.watch(70 * time.Second)
		}
	}},
	{"6 a machine sleeps for 18 s", 5 * time.Second, 5 * time.Second, func(c *cast) {
		a, b := c.native(), c.native()
		x := c.indexer(false, a, b)
		c.start()
		for range 5 {
			c.watch(50 * time.Second)
			c.happens(x.sleep)
			c.watch(18 * time.Second)
			c.happens(x.wake)
			c.watch(30 * time.Second)
		}
	}},
	{"7 a new process with the same key dies", 10 * time.Second, 10 * time.Second, func(c *cast) {
		a, b := c.native(), c.native()
		x := c.indexer(false, a, b)
		c.start()
		c.watch(30 * time.Second)
		rival := c.twin(x)
		rival.start()
		c.watch(30 * time.Second)
		c.happens(rival.crash)
		c.watch(5 * time.Minute)
		rival.start()
		c.watch(30 * time.Second)
		c.happens(rival.stop)
		c.watch(3 * time.Minute)
	}},
	{"9 a native is back after 20 s", 5 * time.Second, blink, func(c *cast) {
		a, _, _ := c.native(), c.native(), c.native()
		for range 8 {
			c.indexer(false, a)
		}
		c.start()
		c.watch(30 * time.Second)
		c.happens(a.crash)
		c.watch(20 * time.Second)
		c.happens(a.start)
		c.watch(2 * time.Minute)
	}},
	{"9 a native is back, and a native with an empty table comes first", 25 * time.Second, blink, func(c *cast) {
		a, b := c.native(), c.native()
		c.liars = append(c.liars, c.liar("liar", lieEmpty, nil, a, b))
		c.indexer(false, b)
		c.start()
		c.watch(30 * time.Second)
		c.happens(a.crash)
		c.watch(20 * time.Second)
		c.happens(func() { cut(a, b); a.start() })
		c.watch(20 * time.Second)
		c.happens(func() { mend(a, b) })
		c.watch(time.Minute)
	}},
	{"10 two natives are cut from each other for 90 s", 90 * time.Second, blink, func(c *cast) {
		a, b := c.native(), c.native()
		c.indexer(false, a)
		c.indexer(false, b)
		c.start()
		c.watch(30 * time.Second)
		c.happens(func() { cut(a, b) })
		c.watch(90 * time.Second)
		c.happens(func() { mend(a, b) })
		c.healed, _ = c.untilWhole(time.Minute)
		c.watch(time.Minute)
	}},
	{"10 a native hears, and is not heard", 90 * time.Second, blink, func(c *cast) {
		a, b := c.native(), c.native()
		c.indexer(false, a)
		c.indexer(false, b)
		c.start()
		c.watch(30 * time.Second)
		c.happens(func() { deafen(a, b) })
		c.watch(90 * time.Second)
		c.happens(func() { hear(a, b) })
		c.healed, _ = c.untilWhole(time.Minute)
		c.watch(time.Minute)
	}},
	{"11 a native is stopped for a TTL", 10 * time.Second, blink, func(c *cast) {
		a := c.native()
		for range 4 {
			c.indexer(false, a)
		}
		c.start()
		c.watch(time.Minute)
		c.happens(a.pause)
		c.watch(ttl)
		c.happens(a.resume)
		c.watch(2 * time.Minute)
	}},
	{"11 a native loses its own line for a TTL", 2 * ttl, blink, func(c *cast) {
		a := c.native()
		for range 4 {
			c.indexer(false, a)
		}
		c.start()
		c.watch(time.Minute)
		c.happens(a.cutOff) // noticed when the third lease has ended
		c.watch(ttl + 30*time.Second)
		c.happens(a.reconnect)
		c.watch(2 * time.Minute)
	}},
	{"11 three indexers are killed at once at a lone native", 0, 0, func(c *cast) {
		a := c.native()
		x := []*member{c.indexer(false, a), c.indexer(false, a), c.indexer(false, a)}
		c.start()
		c.watch(time.Minute)
		c.happens(func() {
			for _, m := range x {
				m.kill()
			}
		})
		c.watch(3 * time.Minute)
		for _, m := range x {
			if _, listed := a.node.Registry().Get(m.peerID); listed {
				c.t.Errorf("%s is listed for ever", m.name)
			}
		}
	}},
	{"12 sixty-four natives come before the one that is configured", blink, blink, func(c *cast) {
		a, b := c.native(), c.native()
		for _, n := range c.natives {
			n.settings["modules"] = "native" // or they would hear of each other's indexers in the topic
		}
		for i := range 64 {
			c.fakes = append(c.fakes, c.fake(i))
		}
		c.indexer(false, b)
		a.start()
		for _, f := range c.fakes {
			f.joins(a)
		}
		c.watch(10 * time.Second)
		b.start()
		c.start()
		c.watch(3 * time.Minute)
	}},
	{"13 a native tells of more inventions than a table holds", blink, blink, func(c *cast) {
		a, b := c.native(), c.native()
		for _, n := range c.natives {
			n.settings["limits.entries"] = "1000"
		}
		c.liars = append(c.liars, c.liar("liar", lieInventing, strangers(c.t, 2000), a, b))
		c.start()
		c.watch(30 * time.Second)
		for range 3 {
			c.happens(c.indexer(false, a).start)
			c.watch(30 * time.Second)
		}
		c.watch(time.Minute)
	}},
	{"15 a native boots an hour ahead, alone, and is set right", blink, blink, func(c *cast) {
		a, b := c.native(), c.native()
		for _, n := range c.natives {
			n.settings["trust.plain"] = "refuse"
		}
		x := c.indexer(false, a)
		a.clock.set(time.Hour)
		a.start()
		x.start()
		c.watch(time.Minute)
		a.clock.set(0)
		c.watch(5 * time.Second)
		c.happens(b.start)
		c.watch(5 * time.Minute)
	}},
}

// TestSimPoints prints, for each point: for how long an indexer that lives was missing somewhere,
// for how long without a mark, and for how long a dead one was shown live.
func TestSimPoints(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, "%-75s %10s %10s %10s %10s\n", "point", "absent", "unmarked", "dead live", "whole")
	for _, p := range points {
		t.Run(strings.ReplaceAll(p.name, " ", "-"), func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				c := s.cast(250 * time.Millisecond)
				c.strict = true
				p.run(c)
				fmt.Fprintf(&table, "%-75s %10v %10v %10v %10v\n", p.name, c.seen.absent, c.seen.unmarked, c.seen.deadLive, c.healed)
				if c.seen.absent > p.absent || c.seen.unmarked > p.unmarked {
					t.Errorf("want at most %v absent and %v unmarked: %v\n%s", p.absent, p.unmarked, &c.seen, strings.Join(c.wrong, "\n"))
				}
				if c.seen.deadLive > 0 || c.healed > mostToHeal {
					t.Errorf("whole %v after the fault; %v\n%s", c.healed, &c.seen, strings.Join(c.wrong, "\n"))
				}
				c.stop()
			})
		})
	}
	t.Logf("\n%s", &table)
}
