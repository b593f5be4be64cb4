package domain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// Config is what a Registry needs to know.
type Config struct {
	// Self is this native's own PeerID, written into every entry it grants.
	Self   ports.PeerID
	Policy TTLPolicy
	// CheckAddr is the rule for one address of id; its error says what is wrong with
	// it. Addresses are the transport's affair, so the rule is handed in.
	CheckAddr func(id ports.PeerID, addr string) error
	// TickOnly is the seed's way: a PeerID that is heard waits for the next refresh
	// tick before it is looked up, and other natives miss a live indexer for up to
	// 38 % of the time (measured). The simulated network uses it to show that.
	TickOnly bool
}

// Acceptable tells whether e may be stored and, until its deadline, listed: its
// times pass the policy and its addresses the rule. A Store is given it as its rule.
func (c Config) Acceptable(e Entry) error {
	if err := c.Policy.Acceptable(e.ExpiresAt, time.Now()); err != nil {
		return err
	}
	return c.checkAddrs(e.PeerID, e.Addr, e.Addrs)
}

// Registry is a native's side of the seed: it grants leases, keeps the live table
// and the known set, puts and announces what it granted, and looks up what others
// announce. It implements ports.Native; all methods may be called concurrently.
type Registry struct {
	cfg      Config
	self     unique.Handle[ports.PeerID]
	epoch    time.Time
	store    ports.Store
	hears    ports.Announcer
	observer ports.Observer

	table   *table
	known   *knownSet
	outbox  *outbox
	lookups *lookups
}

var _ ports.Native = (*Registry)(nil)

// NewRegistry returns a registry that answers at once; what it grants goes to
// store and announcer as soon as Run runs.
func NewRegistry(cfg Config, store ports.Store, announcer ports.Announcer, observer ports.Observer) (*Registry, error) {
	if err := cfg.Policy.Validate(); err != nil {
		return nil, err
	}
	if cfg.Self == "" || cfg.CheckAddr == nil {
		return nil, errors.New("a registry needs its own PeerID and a rule for addresses")
	}
	r := &Registry{
		cfg: cfg, self: unique.Make(cfg.Self), epoch: time.Now(),
		store: store, hears: announcer, observer: observer,
		table: newTable(cfg.Policy.tick()), known: newKnownSet(),
	}
	r.outbox = newOutbox(r, store, announcer)
	r.lookups = newLookups(r.search)
	return r, nil
}

func (r *Registry) clock() clock {
	now := time.Now()
	return clock{now, now.Sub(r.epoch)}
}

// Register grants sender a lease, or refuses with a *ports.Refusal. It takes a
// microsecond and waits for nobody. reg is kept and must not be changed afterwards.
func (r *Registry) Register(_ context.Context, sender ports.PeerID, reg ports.Registration) (ports.Lease, error) {
	lease, joined, err := r.register(sender, reg)
	if err != nil {
		r.observer.Observe(ports.Event{Kind: ports.EventRefused, PeerID: sender, Code: err.Code, Err: err})
		return ports.Lease{}, err
	}
	r.observer.Observe(ports.Event{Kind: ports.EventRegistered, PeerID: sender, Joined: joined})
	return lease, nil
}

func (r *Registry) register(sender ports.PeerID, reg ports.Registration) (lease ports.Lease, joined bool, refusal *ports.Refusal) {
	if reg.PeerID != sender {
		return lease, false, ports.Refuse(ports.CodePeerMismatch, "the registration is for %s and the connection is %s: an indexer registers itself alone", reg.PeerID, sender)
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
			return lease, false, refusal
		}
		s.mu.Lock()
		c = r.clock()
		rec = s.live(sender, c.now)
	}
	joined = rec == nil
	if joined && r.full() {
		s.mu.Unlock()
		return lease, false, ports.Refuse(ports.CodeBusy, "this native holds %d entries, as many as it takes; register with another", maxEntries)
	}
	expired := joined && s.records[sender] != nil // and the sweep has not come around
	changed := joined || !rec.own || !same
	if rec == nil {
		rec = r.table.insert(s, sender, c.now+r.cfg.Policy.TTL-r.cfg.Policy.lookAhead())
	}
	if changed {
		rec.addr, rec.more = reg.Addr, more
	}
	granted := r.cfg.Policy.Grant(c.time)
	rec.native, rec.own, rec.heir, rec.checked = r.self, true, nil, false
	rec.deadline, rec.expiresAt, rec.seenAt = c.now+granted.TTL, granted.ExpiresAt.UnixNano(), c.time.UnixNano()
	r.outbox.offer(rec, c.now, changed)
	s.mu.Unlock()

	if joined {
		r.known.remove(sender)
	}
	if expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: sender})
	}
	return granted, joined, nil
}

// check holds what a registration brings against the bounds of the contract.
func (c Config) check(reg ports.Registration) *ports.Refusal {
	size := 0
	for k, v := range reg.Meta {
		size += len(k) + len(v)
	}
	if size > ports.MaxMetaBytes {
		return ports.Refuse(ports.CodeTooLarge, "Meta has %d bytes, at most %d are allowed", size, ports.MaxMetaBytes)
	}
	if err := c.checkAddrs(reg.PeerID, reg.Addr, reg.Addrs); err != nil {
		return ports.Refuse(ports.CodeAddrInvalid, "%v", err)
	}
	return nil
}

func (c Config) checkAddrs(id ports.PeerID, addr string, addrs []string) error {
	switch {
	case addr == "":
		return errors.New("the address is missing: send the one that others reach you at as Addr")
	case len(addrs) > 0 && addrs[0] != addr:
		return errors.New("the first of Addrs is not Addr")
	case len(addrs) > ports.MaxAddrs:
		return fmt.Errorf("%d addresses, at most %d are allowed", len(addrs), ports.MaxAddrs)
	case len(addrs) == 0:
		addrs = []string{addr}
	}
	for _, a := range addrs {
		if len(a) > ports.MaxAddrBytes {
			return fmt.Errorf("address has %d bytes, at most %d are allowed", len(a), ports.MaxAddrBytes)
		}
		if err := c.CheckAddr(id, a); err != nil {
			return err
		}
	}
	return nil
}

// Get returns the live entry of id.
func (r *Registry) Get(id ports.PeerID) (ports.Listed, bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.clock()
	rec := s.live(id, c.now)
	if rec == nil {
		return ports.Listed{}, false
	}
	return ports.Listed{Entry: rec.entry(), State: r.cfg.Policy.state(rec.deadline - c.now)}, true
}

// Page returns up to limit live entries that sort behind after, by PeerID, and the
// PeerID to go on after: "" if there are no more.
func (r *Registry) Page(after ports.PeerID, limit int) (page []ports.Listed, next ports.PeerID) {
	for {
		ids := r.table.order.after(after, limit+1-len(page))
		if len(ids) == 0 {
			return page, ""
		}
		for _, id := range ids {
			after = id
			listed, ok := r.Get(id)
			if !ok {
				continue // expired, and not swept yet
			}
			if len(page) == limit {
				return page, page[limit-1].PeerID
			}
			page = append(page, listed)
		}
	}
}

// maxEntries bounds the live table, whoever fills it: some 600 MB at 300 bytes an
// entry, and twice the million that a native is measured with.
const maxEntries = 2 << 20

var errFull = errors.New("the live table is full")

func (r *Registry) full() bool { return r.table.len() >= maxEntries }

// Counts returns how many entries are in the live table, those included that
// expired since the last sweep, and how many PeerIDs are known, live ones included.
func (r *Registry) Counts() (live, known int) {
	live = r.table.len()
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
		running.Wait()
	}()
	r.outbox.start(ctx, &running)
	r.lookups.start(ctx, &running)

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

// welcome sees to it that a node that has joined gets what it missed: what only
// this native holds, at once, and what flew while it was still finding its way
// here, at the usual pace. All else it hears with the next heartbeats.
func (r *Registry) welcome() {
	for ids := r.table.order.after("", sweepBatch); len(ids) > 0; ids = r.table.order.after(ids[len(ids)-1], sweepBatch) {
		now := r.clock().now
		for _, id := range ids {
			s := r.table.shard(id)
			s.mu.Lock()
			if rec := s.live(id, now); rec != nil && rec.own && (rec.outbox.alone || now < rec.outbox.due) {
				r.outbox.offer(rec, now, rec.outbox.alone)
			}
			s.mu.Unlock()
		}
	}
}

// sweep removes what has expired, and has looked up once more what soon will.
func (r *Registry) sweep() {
	for i := range r.table.shards {
		for more := true; more; {
			more = r.sweepShard(&r.table.shards[i])
		}
	}
}

// sweepShard sweeps one batch and reports whether there may be more.
func (r *Registry) sweepShard(s *shard) bool {
	var expired, check []ports.PeerID
	s.mu.Lock()
	now := r.clock().now
	due, more := s.wheel.take(now, sweepBatch)
	for _, rec := range due {
		live := s.live(rec.id, now) != nil
		ahead := rec.deadline - r.cfg.Policy.lookAhead()
		switch {
		case !live:
			r.table.remove(s, rec)
			expired = append(expired, rec.id)
		case now < ahead:
			s.wheel.add(ahead, rec)
		default:
			if !rec.checked && (!rec.own || rec.echoed) {
				rec.checked, rec.echoed = true, false
				check = append(check, rec.id)
			}
			s.wheel.add(rec.deadline, rec)
		}
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
