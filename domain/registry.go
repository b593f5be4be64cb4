package domain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// Settings are what a Registry needs to know beside the Rules.
type Settings struct {
	Bounds Bounds
	// TickOnly is the seed's way: a PeerID that is heard waits for the next refresh
	// tick before it is looked up, and other natives miss a live indexer for up to
	// 38 % of the time (measured). The simulated network uses it to show that.
	TickOnly bool
}

// Registry is a native's side of the seed: it grants leases, keeps the live table
// and the known set, puts and announces what it granted, and looks up what others
// announce. It implements ports.Native; all methods may be called concurrently.
type Registry struct {
	cfg      Rules
	settings Settings
	self     unique.Handle[ports.PeerID]
	skipped  time.Duration // of the clock, by tests
	store    ports.Store
	hears    ports.Announcer
	observer ports.Observer

	table   *table
	known   *knownSet
	outbox  *outbox
	lookups *lookups
	asked   *asked
	// clockOff is how wrong this node's clock was when that was told last.
	clockOff int
	// follower is what hears from the natives that this one is connected to; nil until
	// there is one.
	follower atomic.Pointer[Follower]
}

var _ ports.Native = (*Registry)(nil)

// NewRegistry returns a registry that answers at once; what it grants goes to
// store and announcer as soon as Run runs.
func NewRegistry(cfg Rules, settings Settings, store ports.Store, announcer ports.Announcer, observer ports.Observer) (*Registry, error) {
	if err := cfg.Policy.Validate(); err != nil {
		return nil, err
	}
	if cfg.Self == "" || cfg.CheckAddr == nil {
		return nil, errors.New("a registry needs its own PeerID and a rule for addresses")
	}
	if cfg.Clock == nil {
		cfg.Clock = NewClock(nil)
	}
	r := &Registry{
		cfg: cfg, settings: settings, self: unique.Make(cfg.Self),
		store: store, hears: announcer, observer: observer,
		table: newTable(cfg.Policy), known: newKnownSet(),
	}
	r.outbox = newOutbox(r, store, announcer)
	r.lookups = newLookups(r.search)
	r.asked = newAsked(r)
	return r, nil
}

func (r *Registry) clock() clock {
	elapsed := r.cfg.Clock.Elapsed()
	return clock{r.cfg.Clock.At(elapsed), elapsed + r.skipped}
}

// wall returns the time of day at which the table's clock shows at.
func (r *Registry) wall(at time.Duration) time.Time { return r.cfg.Clock.At(at - r.skipped) }

// Register grants sender a lease, or refuses with a *ports.Refusal. It takes a
// microsecond and waits for nobody. reg is kept and must not be changed afterwards.
func (r *Registry) Register(_ context.Context, sender ports.PeerID, reg ports.Registration) (ports.Lease, error) {
	lease, left, err := r.register(sender, reg)
	if err != nil {
		r.observer.Observe(ports.Event{Kind: ports.EventRefused, PeerID: sender, Code: err.Code, Err: err})
		return ports.Lease{}, err
	}
	if lease.TTL > 0 {
		r.observer.Observe(ports.Event{Kind: ports.EventRegistered, PeerID: sender, Joined: left == 0, Remaining: left})
	}
	return lease, nil
}

// register also returns what was left of sender's lease, 0 if it was not live.
func (r *Registry) register(sender ports.PeerID, reg ports.Registration) (grant ports.Lease, left time.Duration, refusal *ports.Refusal) {
	if reg.PeerID != sender {
		return grant, 0, ports.Refuse(ports.CodePeerMismatch, "the registration is for %s and the connection is %s: an indexer registers itself alone", reg.PeerID, sender)
	}
	sent, needRecord := reg, false
	switch {
	case reg.Proof != nil:
		need, granted, refusal := r.prove(sender, &reg)
		if refusal != nil || !granted {
			return ports.Lease{NeedRecord: true, Now: r.cfg.now(), Seq: r.seq(sender)}, 0, refusal
		}
		needRecord = need
	case r.cfg.plain() == PlainRefuse:
		return grant, 0, refusePlain()
	}
	more := detailsOf(reg.Addrs, reg.Meta)
	s := r.table.shard(sender)

	s.mu.Lock()
	c := r.clock()
	rec := s.live(sender, c.now)
	same := rec.says(reg, more)
	if !same {
		// Something is new. Addresses are parsed, which is not done under the lock.
		s.mu.Unlock()
		if refusal := r.cfg.check(reg); refusal != nil {
			return grant, 0, refusal
		}
		s.mu.Lock()
		c = r.clock()
		rec = s.live(sender, c.now)
	}
	known := rec
	if known == nil {
		known = s.records[sender] // remembered, or who left
	}
	if reg.Proof != nil && known != nil {
		if held := known.signed(); held != nil && held.Seq > reg.Proof.Claim.Seq {
			s.mu.Unlock()
			return r.register(sender, sent) // it came, or left, while this one was checked
		}
	}
	joined := rec == nil
	switch {
	case !r.cfg.Indexers.in(sender):
		s.mu.Unlock()
		return grant, 0, r.closedTo(sender)
	case reg.Proof == nil && !needRecord && r.cfg.plain() == PlainRefuse: // since the first look
		s.mu.Unlock()
		return grant, 0, refusePlain()
	case known == nil && r.full():
		s.mu.Unlock()
		return grant, 0, ports.Busy(ports.LimitEntries, "this native holds %d entries, as many as it takes; register with another", r.settings.Bounds.entries())
	}
	grant = r.cfg.Policy.Grant(c.time)
	l := lease{
		addr: reg.Addr, more: more, native: r.self, rank: granted,
		deadline: c.now + grant.TTL, expiresAt: grant.ExpiresAt.UnixNano(), seenAt: c.time.UnixNano(),
		proof: reg.Proof, unproven: needRecord,
	}
	if l.proof != nil {
		l.expiresAt = l.proof.Claim.ExpiresAt(l.proof.Tick.Step).UnixNano()
	}
	var expired bool // and the sweep has not come around
	if joined {
		if leave := s.left(sender, c.now); leave != nil && leave.rank == granted && l.proof == nil {
			l.expiresAt = max(l.expiresAt, leave.expiresAt+int64(time.Millisecond)) // in the store too it is to win over the leave
		}
		rec = s.insert(sender, r.cfg.Policy.due(l.deadline))
		expired = rec.state == listed
	} else {
		left = rec.deadline - c.now
		if p := l.proof; p != nil && rec.proof != nil && rec.rank == granted && p.Tick == rec.proof.Tick {
			l.deadline = min(l.deadline, rec.deadline) // nothing new is proven, and elsewhere it ends then too
		}
		if same {
			l.addr, l.more = rec.addr, rec.more // one copy of what does not change
		}
	}
	changed := joined || rec.rank != granted || !same
	grant.NeedRecord, grant.Rival = needRecord, rec.rival
	if rec.rival = false; l.proof != nil {
		grant.Seq = l.proof.Claim.Seq
	} else if held := rec.signed(); held != nil {
		grant.Seq = held.Seq
	}
	s.hold(rec, l, c.now)
	r.outbox.offer(rec, c.now, changed)
	s.mu.Unlock()

	if joined {
		r.known.remove(sender)
	}
	if expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: sender})
	}
	return grant, left, nil
}

func refusePlain() *ports.Refusal {
	return ports.Refuse(ports.CodeRefused, "this native takes only registrations that their indexer has signed; register with a program that sends records (trust.plain is %s here)", PlainRefuse)
}

// Get returns the live entry of id. It waits for nobody.
func (r *Registry) Get(id ports.PeerID) (ports.Listed, bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.clock()
	rec := s.live(id, c.now)
	if rec == nil {
		return ports.Listed{}, false
	}
	return r.listed(id, rec.shown(r.cfg.Policy, c.now), c.now), true
}

// listed returns what l says of id at now. Its end by other natives' clocks means nothing
// to anybody here, so what they granted ends by this one's.
func (r *Registry) listed(id ports.PeerID, l *lease, now time.Duration) ports.Listed {
	left := max(l.deadline-now, 0)
	e := l.entry(id)
	if l.rank != granted && l.signed() == nil {
		e.ExpiresAt = r.wall(l.deadline)
	}
	return ports.Listed{Entry: e, State: r.cfg.Policy.State(left), Source: l.rank.source(), Remaining: left}
}

// maxScan bounds the entries that one List looks at: 3 ms, if none has what is asked for.
const maxScan = 10 * ports.MaxPage

// List implements ports.Native. It waits for nobody.
func (r *Registry) List(_ context.Context, q ports.Query) (ports.Page, error) {
	if q.Limit == 0 {
		q.Limit = ports.DefaultPage
	}
	if q.Limit < 0 || q.Limit > ports.MaxPage {
		return ports.Page{}, ports.Refuse(ports.CodeOutOfRange, "a limit of %d: want 1 to %d", q.Limit, ports.MaxPage)
	}
	page := ports.Page{Condition: r.Condition()}
	after, scanned := q.After, 0
	for {
		// One more than is wanted, to see whether there is a next page.
		ids := r.table.order.after(after, min(q.Limit+1-len(page.Entries), maxScan+1-scanned))
		if len(ids) == 0 {
			return page, nil
		}
		for _, id := range ids {
			listed, ok := r.Get(id)
			if ok && has(listed.Meta, q.Meta) { // else expired and not swept yet, or another's
				if len(page.Entries) == q.Limit {
					page.Next = page.Entries[q.Limit-1].PeerID
					return page, nil
				}
				if !q.Proofs {
					listed.Proof = nil
				}
				page.Entries = append(page.Entries, listed)
			}
			after = id
			if scanned++; scanned > maxScan {
				page.Next = after
				return page, nil
			}
		}
	}
}

// has reports whether meta has all that want has.
func has(meta, want map[string]string) bool {
	for name, value := range want {
		if got, ok := meta[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// LookUp implements ports.Native.
func (r *Registry) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	listed, ok := r.Get(id)
	if !ok {
		if err := r.asked.find(ctx, sender, id); err != nil {
			return ports.Answer{Condition: r.Condition()}, err
		}
		if listed, ok = r.Get(id); !ok {
			return ports.Answer{Condition: r.Condition()}, ports.ErrNotFound
		}
	}
	return ports.Answer{Listed: listed, Condition: r.Condition()}, nil
}

var errFull = errors.New("the live table is full")

// maxRemembered bounds those who have expired and are remembered: a quarter of the table, so
// that who is gone never keeps out who is there. Over that they are forgotten at once.
func (b Bounds) maxRemembered() int64 { return int64(b.entries() / 4) }

// remembers has rec, which has expired, be remembered for as long as its record counts, and
// reports whether it is.
func (r *Registry) remembers(s *shard, rec *record, c clock) bool {
	last := rec.lease
	if h := rec.heir; h != nil && h.signed() != nil && h.version(false).Compare(last.version(false)) > 0 {
		last = *h // which has ended too
	}
	claim := last.signed()
	if claim == nil || s.held.Load()-s.listed.Load() >= r.settings.Bounds.maxRemembered() {
		return false
	}
	left := claim.Ends().Add(ports.ClockAllowance).Sub(c.time)
	if left <= 0 {
		return false
	}
	s.end(rec, last, c.now+left)
	return true
}

func (r *Registry) full() bool { return r.table.len() >= r.settings.Bounds.entries() }

// Counts returns how many entries are in the live table, those included that
// expired since the last sweep, and how many PeerIDs are known, live ones included.
func (r *Registry) Counts() (live, known int) {
	live = int(r.table.listed.Load())
	return live, live + r.known.len()
}

// Waiting returns how many entries wait to be put and announced.
func (r *Registry) Waiting() int { return r.outbox.waiting() }

// Run listens to other natives, puts and announces, looks up and sweeps, until ctx
// ends; it returns when all of it has stopped. It may run once.
func (r *Registry) Run(ctx context.Context) error {
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		r.outbox.stop() // what is registered from here on is answered, and goes no further
		r.lookups.stop()
		r.asked.stop()
		running.Wait()
	}()
	r.outbox.start(ctx, &running)
	r.lookups.start(ctx, &running)
	r.asked.start(ctx, &running)

	deaf, err := r.hears.Listen(r.heard)
	if err != nil {
		return fmt.Errorf("listen to announcements: %w", err)
	}
	defer deaf()

	sweep := time.NewTicker(r.cfg.Policy.tick())
	defer sweep.Stop()
	refresh := time.NewTicker(r.cfg.Policy.Refresh)
	defer refresh.Stop()
	var newcomer <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			r.watchClock()
			r.sweep()
			r.outbox.advance(r.clock().now)
		case <-refresh.C:
			r.refresh()
		case <-r.store.Joined():
			if newcomer == nil {
				newcomer = time.After(r.cfg.Policy.settle())
			}
		case <-newcomer:
			newcomer = nil
			r.welcome()
		}
	}
}

// watchClock sets the clock, and tells when its own is wrong, or is not any more.
func (r *Registry) watchClock() {
	off := r.cfg.Clock.set()
	how := 0
	switch {
	case off.Abs() > clockWrong:
		how = 2
	case off.Abs() > clockWarning:
		how = 1
	}
	if how == r.clockOff {
		return
	}
	if r.clockOff = how; how == 0 {
		off = 0
	}
	r.observer.Observe(ports.Event{Kind: ports.EventClock, PeerID: r.cfg.Self, Took: off})
}

// welcome sees to it that a node that has joined gets what it missed: what only
// this native holds, at once, and what flew while it was still finding its way
// here, at the usual pace. All else it hears with the next heartbeats.
func (r *Registry) welcome() {
	for ids := range r.table.everyone() {
		now := r.clock().now
		for _, id := range ids {
			s := r.table.shard(id)
			s.mu.Lock()
			rec := s.live(id, now)
			if rec == nil {
				rec = s.left(id, now)
			}
			if rec != nil && rec.rank == granted && (rec.outbox.alone || now < rec.outbox.due) {
				r.outbox.offer(rec, now, rec.outbox.alone)
			}
			s.mu.Unlock()
		}
	}
}

// sweep removes what has expired, and has looked up once more what soon will. It takes a
// batch of each shard in turn: if it came back for the next one at once, a heartbeat that
// waits for the lock would lose it to the sweep again, for up to a millisecond.
func (r *Registry) sweep() {
	for more := true; more; {
		more = false
		for i := range r.table.shards {
			more = r.sweepShard(&r.table.shards[i]) || more
		}
	}
}

// sweepShard sweeps one batch and reports whether there may be more.
func (r *Registry) sweepShard(s *shard) bool {
	var expired, check []ports.PeerID
	p := r.cfg.Policy
	s.mu.Lock()
	c := r.clock()
	now := c.now
	due, more := s.wheel.take(now, sweepBatch)
	for _, rec := range due {
		switch {
		case rec.gone, now < rec.filed:
			continue // it was filed again since
		case s.live(rec.id, now) != nil:
		case now < rec.deadline: // who left, or has ended
			s.file(rec, rec.deadline)
			continue
		case rec.state == listed && r.remembers(s, rec, c):
			expired = append(expired, rec.id)
			continue
		default:
			if rec.state == listed {
				expired = append(expired, rec.id)
			}
			s.remove(rec)
			continue
		}
		next := rec.deadline
		s.lend(rec, now)
		switch overdue := rec.shown(p, now).deadline - (p.TTL - p.Heartbeat); {
		case now < overdue:
			next = min(next, overdue)
		case !rec.late:
			rec.late = true
			s.changes.add(ports.ChangeLate, rec.id, rec.shown(p, now))
		}
		switch ahead := rec.deadline - p.lookAhead(); {
		case now < ahead:
			next = min(next, ahead)
		case !rec.checked && (rec.rank != granted || rec.echoed):
			rec.checked, rec.echoed = true, false
			check = append(check, rec.id)
		}
		s.file(rec, next)
	}
	s.mu.Unlock()

	for _, id := range check {
		r.find(id, aheadOfDeadline)
	}
	for _, id := range expired {
		r.know(id, true)
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	return more
}
