package modules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// deadAfter is how long after its last heartbeat an indexer may be shown as live at most: a TTL,
	// and a sweep.
	deadAfter = ttl + 2*time.Second
	// leftAfter is the same after a leave, where no fault holds up the news.
	leftAfter = 2 * time.Second
	// newsAfter is how long news take from native to native where no fault is.
	newsAfter = 2 * time.Second
	// noticedAfter is how long a native may take to notice that it does not hear another: three
	// beats of at most 3 s, and a dial. For so long a new lease at the other is absent unmarked.
	noticedAfter = 12 * time.Second
)

// check is what has to hold at each sample, or after the last fault.
type check string

const (
	nothingDead     check = "nothing dead is shown as live"
	nothingUnmarked check = "a live indexer is listed, or its absence is marked"
	allWell         check = "after the faults all is well"
)

// cast are the honest nodes of a network, and what was seen of them.
type cast struct {
	*simulation
	natives, indexers []*member
	liars             []*member
	fakes             []*fake
	// strict has whoever lives be missing if it is not listed, also without a lease anywhere.
	strict  bool
	terms   map[[2]*member]term   // the present lease of an indexer, [1], at a native, [0]
	proven  map[[2]*member]proven // the last lease with a proof, also after its end
	healed  time.Duration         // how long after a fault all was well again, if that was measured
	changed time.Time             // when a fault last began or ended
	faulty  int                   // faults at present

	seen  sums
	wrong []string // what was seen and must not be, the first few
	noted map[string]bool
}

// sums is for how long something was seen, at any native and of any indexer.
type sums struct {
	step                       time.Duration // between samples
	samples                    int
	absent, unmarked, deadLive time.Duration
}

func (t *sums) String() string {
	return fmt.Sprintf("%d samples; absent %v, unmarked %v, dead shown live %v", t.samples, t.absent, t.unmarked, t.deadLive)
}

// addrsOf are the addresses of members, which need not have started.
func addrsOf(members ...*member) string {
	addrs := make([]string, len(members))
	for i, m := range members {
		addrs[i] = fmt.Sprintf("/ip4/%s/udp/4101/quic-v1/p2p/%s", m.ip, m.id())
	}
	return strings.Join(addrs, ",")
}

// marked reports whether a native says that it cannot be relied on.
func (m *member) marked() bool {
	return m.node.Registry().Condition() != "" || len(m.node.Unready()) > 0
}

// stays notes a registration at a native, or its end.
func (m *member) stays(id ports.PeerID, ends bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[id] = time.Now(); ends {
		delete(m.leases, id)
	}
}

// runsAt reports whether n, which is up, has granted x a lease that runs: for a TTL, or for as long
// as its heartbeat proves. A heartbeat between two steps proves no more than the one before. A proof
// that ended long before it was seen is of a wrong clock, and says nothing.
func (c *cast) runsAt(n, x *member) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	last, ok := n.leases[x.peerID]
	ends := last.Add(ttl)
	if p := c.proven[[2]*member{n, x}]; p.seen.After(last) && p.seen.Sub(p.until) < ttl && p.until.Before(ends) {
		ends = p.until
	}
	return ok && time.Until(ends) > time.Second
}

// proven is when a lease with a proof was seen, and until when its heartbeat proved it.
type proven struct{ seen, until time.Time }

// term is a lease that others can know of: since when, and until when its last heartbeat proves it.
type term struct{ since, until time.Time }

// note takes in which leases natives have granted. A heartbeat that comes after the last one has
// proven nothing any more begins a new term, of which others have to hear first.
func (c *cast) note() {
	if c.terms == nil {
		c.terms, c.proven = make(map[[2]*member]term), make(map[[2]*member]proven)
	}
	for _, at := range c.natives {
		for _, x := range c.indexers {
			key := [2]*member{at, x}
			if !at.up {
				delete(c.terms, key)
				continue
			}
			l, listed := at.node.Registry().Get(x.peerID)
			if !listed || l.State == ports.StateStale || l.Source != ports.SourceOwn {
				delete(c.terms, key)
				continue
			}
			until := l.ExpiresAt
			if l.Proof != nil && l.Proof.Claim != nil {
				until = l.Proof.Entry().ExpiresAt // a heartbeat that came late proves less than a TTL
				c.proven[key] = proven{time.Now(), until}
			}
			t, is := c.terms[key]
			if now := time.Now(); !is || now.After(t.until) {
				t.since = now
			}
			t.until = until
			c.terms[key] = t
		}
	}
}

// must reports whether n has to list x, or to say that it cannot be relied on: x lives, can be
// heard, and a native has granted it a lease, and lists it, for so long that all must know.
func (c *cast) must(n, x *member) bool {
	if _, away := c.away.Load(x.ip); !x.up || x.still || away {
		return false
	}
	if c.strict {
		return time.Since(x.started) > newsAfter
	}
	if time.Since(x.back) < newsAfter {
		return false // its next heartbeat is on its way, and the news of that
	}
	news := newsAfter
	if !c.calm() {
		news = noticedAfter
	}
	if n.up && c.runsAt(n, x) {
		return true
	}
	for _, at := range c.natives {
		t, is := c.terms[[2]*member{at, x}]
		if now := time.Now(); is && at != n && now.Sub(t.since) > news && now.Before(t.until) {
			return true
		}
	}
	return false
}

// dead reports whether nobody may show x as live: since when it is dead for sure, and why.
func (c *cast) dead(x *member) (why string, dead bool) {
	if last := time.Since(c.lastHeartbeat(x)); last > deadAfter {
		return fmt.Sprintf("more than %v after its last heartbeat", deadAfter), true
	}
	if left := time.Since(x.left); !x.up && x.leftCalmly && !x.left.IsZero() && left > leftAfter {
		return fmt.Sprintf("more than %v after it left", leftAfter), true
	}
	return "", false
}

// look takes a sample of what each native that runs says of each indexer.
func (c *cast) look() {
	synctest.Wait() // or a heartbeat is listed and not noted yet
	c.note()
	absent, unmarked, dead := false, false, false
	for _, n := range c.natives {
		if !n.up || n.still {
			continue
		}
		for _, x := range c.indexers {
			c.seen.samples++
			l, listed := n.node.Registry().Get(x.peerID)
			if listed {
				if why, is := c.dead(x); is && l.State != ports.StateStale {
					dead = true
					c.fault(nothingDead, "%s shows %s as %s %s", n.name, x.name, l.State, why)
				}
				continue
			}
			if !c.must(n, x) {
				continue
			}
			absent = true
			if !n.marked() {
				unmarked = true
				c.fault(nothingUnmarked, "%s misses %s and does not say that it may miss it", n.name, x.name)
			}
		}
	}
	for figure, is := range map[*time.Duration]bool{&c.seen.absent: absent, &c.seen.unmarked: unmarked, &c.seen.deadLive: dead} {
		if is {
			*figure += c.seen.step
		}
	}
}

// fault notes something that must not be seen, once until the next fault begins or ends.
func (c *cast) fault(check check, format string, args ...any) {
	const most = 10
	what := fmt.Sprintf(format, args...)
	if c.noted[what] || len(c.wrong) == most {
		return
	}
	if c.noted == nil {
		c.noted = make(map[string]bool)
	}
	c.noted[what] = true
	c.wrong = append(c.wrong, fmt.Sprintf("%v: not so: %s: %s", time.Since(c.began).Round(time.Millisecond), check, what))
}

// watch takes samples for d.
func (c *cast) watch(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(c.seen.step, time.Until(end)))
		c.look()
	}
}

// whole reports whether every native lists every indexer as live, and none says that it cannot be
// relied on.
func (c *cast) whole() bool {
	for _, n := range c.natives {
		if n.marked() {
			return false
		}
	}
	return everyone(c.natives, c.indexers)()
}

// untilWhole waits until all is well, and takes samples meanwhile.
func (c *cast) untilWhole(limit time.Duration) (took time.Duration, ok bool) {
	began := time.Now()
	for !c.whole() {
		if time.Since(began) >= limit {
			return time.Since(began), false
		}
		time.Sleep(c.seen.step / 10)
		if time.Since(began)%c.seen.step == 0 {
			c.look()
		}
	}
	return time.Since(began), true
}

// calm reports whether no fault is there, nor has been for a while.
func (c *cast) calm() bool { return c.faulty == 0 && time.Since(c.changed) > noticedAfter }

// cast returns a cast without anybody. A sample is taken each step.
func (s *simulation) cast(step time.Duration) *cast {
	return &cast{simulation: s, seen: sums{step: step}}
}

// native adds a native, before any starts: each of them has all others in host.bootstrap.
func (c *cast) native() *member {
	n := c.member(fmt.Sprintf("native-%d", len(c.natives)), map[string]string{"modules": "native,dht,gossip"})
	n.identity()
	c.natives = append(c.natives, n)
	for _, n := range c.natives {
		others := slices.DeleteFunc(slices.Clone(c.natives), func(m *member) bool { return m == n })
		n.settings["host.bootstrap"] = addrsOf(others...)
	}
	return n
}

// indexer adds an indexer that keeps leases at these natives, or at those that it finds through
// them.
func (c *cast) indexer(finds bool, natives ...*member) *member {
	x := c.member(fmt.Sprintf("indexer-%d", len(c.indexers)), map[string]string{"modules": "indexer"})
	x.identity()
	if x.settings["indexer.natives"] = addrsOf(natives...); finds {
		x.settings = map[string]string{"modules": "indexer,dht", "host.bootstrap": addrsOf(natives...)}
	}
	c.indexers = append(c.indexers, x)
	return x
}

// start starts all that do not run, and waits a while for them to know each other.
func (c *cast) start() {
	c.t.Helper()
	begin := func(members []*member) {
		for _, m := range members {
			if !m.up {
				m.start()
			}
		}
		time.Sleep(3 * time.Second)
	}
	begin(c.natives)
	begin(c.liars)
	begin(c.indexers)
}

// stop ends all that run.
func (c *cast) stop() {
	for _, m := range slices.Concat(c.indexers, c.liars, c.natives) {
		if m.up {
			m.stop()
		}
	}
	for _, f := range c.fakes {
		f.stop()
	}
}

// happens is a fault that begins, or ends.
func (c *cast) happens(f func()) {
	f()
	c.changed, c.noted = time.Now(), nil
}

// state is what each native says, for people.
func (c *cast) state() string {
	var b strings.Builder
	for _, n := range c.natives {
		if !n.up {
			fmt.Fprintf(&b, "%s does not run; ", n.name)
			continue
		}
		fmt.Fprintf(&b, "%s lists", n.name)
		for _, x := range c.indexers {
			if l, ok := n.node.Registry().Get(x.peerID); ok {
				fmt.Fprintf(&b, " %s (%s)", x.name, l.State)
			}
		}
		fmt.Fprintf(&b, ", says %q and %v; ", n.node.Registry().Condition(), n.node.Unready())
	}
	return b.String()
}
