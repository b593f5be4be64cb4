package domain

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/opencloud/ocnode/ports"
)

// shardCount splits the live table so that two cores rarely meet at one lock, and
// so that a sweep or a walk holds up one sixty-fourth of the heartbeats at a time.
const shardCount = 64

// sweepBatch bounds the entries that one hold of a shard's lock handles: 0.1 ms if all of
// them expire (1.6 µs each, among a million). No heartbeat waits longer for a sweep.
const sweepBatch = 64

// table is the live table: the record of each indexer, by PeerID. It applies the decisions of
// merge.go, and tells watchers the changes.
type table struct {
	policy        TTLPolicy
	names         *names
	proofs        ports.Verifier // nil for a native that checks none
	maxRemembered int64
	seed          maphash.Seed
	shards        [shardCount]shard
	order         order // the listed indexers
	leaves        order // indexers that have left and are not listed
	changes       *changelog
	news          *news
	hearing       hearing
	tellers       *tellers
	size          atomic.Int64 // records in all shards
	listed        atomic.Int64 // the listed records
	stale         atomic.Int64 // listed records without a live lease
	owned         atomic.Int64 // listed records with a lease of this native
}

type shard struct {
	table  *table
	number int
	mu     sync.Mutex
	slots  slab
	index  index
	arena  arena
	// odd are the holdings that do not pack. They are few.
	odd   map[uint32]*holding
	ended map[uint32]*ended // the stale leases
	// unpacked is the holding that was unpacked last, nil if it has changed since. So merge and apply
	// see the same words.
	unpacked struct {
		ref
		*holding
	}
	room []byte // for keep
	born uint16 // of the last record
	// wheel holds every record of this shard, at the check that was next when file added it. A
	// renewal moves the check alone; the sweep finds that out when the wheel comes around. A
	// record with an earlier check is added again, and the sweep passes over its old place.
	wheel  wheel[ref]
	shares shares
	// renewed are the renewals of own leases for the next piece of News, and gathered is where the
	// other changes were in news as they were read last.
	renewed  []newsRenewal
	gathered uint64
}

// ended is a lease that has ended, and is shown as stale until then.
type ended struct {
	word
	until Instant
}

// became is how a word or the time changed a record.
type became struct {
	joined  bool  // it was not listed, and is
	expired bool  // its leases have ended, or count no more
	overdue *word // the lease of this native that is late now, if nothing tells why
	silent  *word // the lease of this native that was the last to end, if nothing tells why
	left    bool  // it was listed until its indexer left
}

func newTable(policy TTLPolicy, bounds Bounds) *table {
	t := &table{policy: policy, names: newNames(), maxRemembered: bounds.maxRemembered(), seed: maphash.MakeSeed(), hearing: hearing{policy: policy}, tellers: newTellers(bounds)}
	t.changes = newChangelog(t)
	t.news = newNews(t.changes, policy.newsTick())
	for i := range t.shards {
		s := &t.shards[i]
		s.table, s.number, s.wheel, s.shares = t, i, newWheel[ref](policy.tick()), newShares()
		s.odd, s.ended, s.arena.slots = make(map[uint32]*holding), make(map[uint32]*ended), &s.slots
		s.slots.chunks.Store(&[]*chunk{})
		s.index = newIndex(&s.slots, t.seed, t.names)
	}
	t.order, t.leaves = order{keys: t}, order{keys: t}
	return t
}

func (t *table) shard(id ports.PeerID) *shard {
	s, _ := t.locate(id)
	return s
}

// locate returns the shard of id, and the hash of id.
func (t *table) locate(id ports.PeerID) (s *shard, hash uint64) {
	hash = maphash.String(t.seed, string(id))
	return &t.shards[hash%shardCount], hash
}

func (t *table) len() int { return int(t.size.Load()) }

// view is a record as watchers see it at an instant.
type view struct {
	shown *word // nil if it is not listed
	late  bool
	stale bool // shown has ended
}

// live reports whether the view has a lease that has not ended.
func (v view) live() bool { return v.shown != nil && !v.stale }

// view returns the live lease of h, if there is one.
func (s *shard) view(h *holding, at Instant) view {
	w := rule{policy: s.table.policy}.shown(h, at)
	return view{shown: w, late: w != nil && s.table.policy.isLate(w, at)}
}

// present returns r as callers see it at that instant: its live lease, or a stale lease. The sweep
// may not have come yet. r may be unknown.
func (s *shard) present(r record, at Instant) view { return s.presentOf(r, r.holding(), at) }

// presentOf is present of r, whose holding is held.
func (s *shard) presentOf(r record, held *holding, at Instant) view {
	is := s.view(held, at)
	if !r.known() || is.shown != nil || held.leave(at) != nil {
		return is
	}
	e := r.ended()
	if was := r.was(held).shown; was != nil {
		e = s.end(r, was, at)
	}
	return e.view(at)
}

// saysWhy reports whether the indexer ended its connection before its lease was of this native ended.
func (r record) saysWhy(was *word) bool { return r.is(hasHungUp) && was.source == granted }

// end returns the lease was of r, which has ended by that instant, if it is shown as stale; else nil.
func (s *shard) end(r record, was *word, at Instant) *ended {
	until := s.table.hearing.at(at).until(was, s.table.policy.TTL)
	if !at.Before(until) || r.saysWhy(was) {
		return nil
	}
	return &ended{word: *was, until: until}
}

// view returns the stale lease e if it is shown at that instant. e may be nil.
func (e *ended) view(at Instant) view {
	if e == nil || !at.Before(e.until) {
		return view{}
	}
	return view{shown: &e.word, stale: true}
}

// apply makes next the holding of r, and tells watchers the difference between the old view and
// the new. Every change of the table comes through here. The caller has locked the shard.
func (s *shard) apply(r record, next *holding, now moment) (b became) {
	held, old := r.holding(), r.ended()
	was := r.was(held)
	switch {
	case r.is(staled):
		was = view{shown: &old.word, stale: true}
	case was.shown != nil && !was.shown.live(now.at): // the lease ended before the sweep came
		since := s.view(held, now.at)
		if since.shown == nil && held.leave(now.at) == nil {
			old = s.end(r, was.shown, now.at)
			since = old.view(now.at)
			if was.shown.source == granted && !r.saysWhy(was.shown) {
				silent := *was.shown
				b.silent = &silent
			}
		}
		b.expired = since.shown == nil
		s.tell(r, was, since, nil, now.at)
		was = since
	}
	is, leave := s.view(next, now.at), next.leave(now.at)
	if is.shown == nil && leave == nil {
		is = old.view(now.at)
	}
	said := leave
	if before := held.leave(now.at); before != nil && leave != nil && *before == *leave {
		said = nil
	}
	switch {
	case !was.live() && is.live():
		b.joined = true
	case was.shown != nil && is.shown == nil && leave != nil:
		b.left, said = true, leave
	case was.shown != nil && is.shown == nil:
		b.expired = true
	}
	s.tell(r, was, is, said, now.at)
	s.note(r, held, next, was, is, said, now.at)
	if is.late && !was.late && is.shown.source == granted && !r.is(hasHungUp) {
		overdue := *is.shown
		b.overdue = &overdue
	}

	if first := next.lease(now.at); first == nil || first.deadline != held.first.deadline {
		r.set(lookedAhead|echoed, false)
	}
	s.list(r, next, is, leave != nil)
	renewed := alike(held, next)
	if !is.stale {
		old = nil
	}
	r.hold(next, is, old)
	_, only := next.remembered()
	if !is.stale && (next.empty() || only && s.table.size.Load()-s.table.listed.Load() > s.table.maxRemembered) {
		s.drop(r)
	} else {
		if !renewed {
			s.share(r, next)
		}
		s.file(r, s.nextCheck(r, next, now.at))
	}
	return b
}

// tell tells watchers the change of r by that instant. said is a leave that watchers do not know
// yet, or nil.
func (s *shard) tell(r record, was, is view, said *word, at Instant) {
	changes, id := s.table.changes, r.id()
	switch {
	case is.shown == nil && said != nil && (was.shown != nil || said.source == granted):
		changes.add(ports.ChangeLeft, id, said, said.proof != nil)
	case is.shown == nil && was.shown != nil:
		changes.add(ports.ChangeExpired, id, was.shown, false)
	case is.shown == nil, was.stale && is.stale:
	case is.stale:
		changes.add(ports.ChangeStale, id, is.shown, is.shown.proof != nil)
	case was.stale:
		changes.add(ports.ChangeUpdated, id, is.shown, fresh(was.shown, is.shown))
	case was.shown == nil:
		changes.add(ports.ChangeJoined, id, is.shown, is.shown.proof != nil)
	case *was.shown == *is.shown, is.shown.overdue && was.shown.becomes(is.shown):
		if is.late && !was.late {
			changes.add(ports.ChangeLate, id, is.shown, false)
		}
	case !was.shown.same(is.shown) || was.late && !is.late:
		changes.add(ports.ChangeUpdated, id, is.shown, fresh(was.shown, is.shown))
	default:
		changes.add(ports.ChangeRenewed, id, is.shown, fresh(was.shown, is.shown))
		// Another native's lease may take the place of an overdue one, and be late by then itself. A
		// lease that its native made shorter is not overdue: it is renewed.
		if is.late && !was.late && (is.shown.overdue || s.table.policy.late(was.shown.deadline.Sub(at))) {
			changes.add(ports.ChangeLate, id, is.shown, false)
		}
	}
}

// fresh reports whether a watcher that knows the lease was needs the record of the lease is. A
// watcher with Own knows no record of another native's lease.
func fresh(was, is *word) bool {
	p, q := was.proof, is.proof
	return q != nil && (p == nil || !sameRecord(p, q) || is.source == granted && was.source != granted)
}

// list counts r, of which next is the new holding and is the new view, and moves it to its place.
func (s *shard) list(r record, next *holding, is view, left bool) {
	t, to := s.table, nowhere
	switch {
	case is.shown != nil:
		to = inEntries
	case left:
		to = inLeaves
	}
	if is.stale != r.is(staled) {
		r.set(staled, is.stale)
		if is.stale {
			t.stale.Add(1)
		} else {
			t.stale.Add(-1)
		}
	}
	if mine := is.live() && next.first.source == granted; mine != r.is(owned) {
		r.set(owned, mine)
		if mine {
			t.owned.Add(1)
		} else {
			t.owned.Add(-1)
		}
	}
	if to == r.place {
		return
	}
	switch r.place {
	case inEntries:
		t.order.remove(r.id())
		t.listed.Add(-1)
	case inLeaves:
		t.leaves.remove(r.id())
	}
	switch r.place = to; to {
	case inEntries:
		t.order.insert(r.id(), r.ref)
		t.listed.Add(1)
	case inLeaves:
		t.leaves.insert(r.id(), r.ref)
	}
}

// ids returns the PeerIDs of all records.
func (s *shard) ids() []ports.PeerID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]ports.PeerID, 0, s.index.size)
	for n := range s.index.all {
		ids = append(ids, s.slots.at(n).key.id(s.table.names))
	}
	return ids
}

// nextCheck returns when the sweep checks r, which has the holding held, next: when its view becomes late or ends, when the
// look-up ahead of that is due, or when its leave, its stale lease or its record ends.
func (s *shard) nextCheck(r record, held *holding, at Instant) Instant {
	p := s.table.policy
	is := s.view(held, at)
	if is.shown == nil {
		until, _ := held.remembered()
		switch leave := held.leave(at); {
		case leave != nil:
			return leave.deadline
		case r.is(staled):
			return r.ended().until
		default:
			return until
		}
	}
	first := held.lease(at)
	next := earliest(first.deadline, is.shown.deadline)
	if overdue := p.overdue(is.shown.deadline); at.Before(overdue) {
		next = earliest(next, overdue)
	}
	if ahead := first.deadline.Add(-p.lookAhead()); at.Before(ahead) {
		next = earliest(next, ahead)
	}
	return next
}

// file puts r into the wheel by the instant at, unless the wheel comes around to r before.
// Otherwise an indexer that renews or leaves over and over would fill the wheel.
func (s *shard) file(r record, at Instant) {
	if !r.is(waits) || s.wheel.of(at.Add(s.table.policy.tick())).before(r.filed) {
		r.filed = s.wheel.add(at, r.ref)
		r.set(waits, true)
	}
}

// markAhead reports whether the look-up of r ahead of its first lease's end is due, and marks it
// as done.
func (s *shard) markAhead(r record, held *holding, at Instant) bool {
	first := held.lease(at)
	if first == nil || at.Before(first.deadline.Add(-s.table.policy.lookAhead())) || r.is(lookedAhead) || first.source == granted && !r.is(echoed) {
		return false
	}
	r.set(lookedAhead, true)
	r.set(echoed, false)
	return true
}

// swept is what a sweep found.
type swept struct {
	expired []ports.PeerID // indexers whose leases have ended
	lost    []ports.PeerID // those of them that did not leave: another native may list them
	ahead   []ports.PeerID // indexers to look up before their lease ends
	overdue []silence      // own leases that are late now, and nothing tells why
	silent  []silence      // own leases that have ended, and nothing tells why
	more    bool           // there may be more of them
}

// sweep checks one batch of records that are due.
func (s *shard) sweep(read func() moment) (found swept) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := read()
	due, more := s.wheel.take(now.at, sweepBatch)
	found.more = more
	for _, ref := range due {
		r := s.at(ref)
		if !r.known() || r.is(waits) && s.wheel.reached(now.at).before(r.filed) {
			continue // its check has moved since, or it was dropped
		}
		r.set(waits, false)
		id, next := r.id(), r.holding().at(now)
		b := s.apply(r, &next, now)
		if b.overdue != nil {
			found.overdue = append(found.overdue, silence{id, *b.overdue})
		}
		if b.silent != nil {
			found.silent = append(found.silent, silence{id, *b.silent})
		}
		if b.expired {
			found.expired = append(found.expired, id)
			if next.leave(now.at) == nil {
				found.lost = append(found.lost, id)
			}
		}
		if r.is(used) && s.markAhead(r, &next, now.at) {
			found.ahead = append(found.ahead, id)
		}
	}
	return found
}

// concerning yields the indexers that follower is told of as it begins to follow, in no order, some at a time.
// Most records of a network are of other natives, and each native that meets this one asks for its own: so
// their PeerIDs are not made.
func (t *table) concerning(follower ports.PeerID) iter.Seq[[]ports.PeerID] {
	return func(yield func([]ports.PeerID) bool) {
		for i := range t.shards {
			s := &t.shards[i]
			for from, more := uint32(0), true; more; from += sweepBatch {
				var ids []ports.PeerID
				if ids, more = s.concerning(t.names.number(follower), from, from+sweepBatch); len(ids) > 0 && !yield(ids) {
					return
				}
			}
		}
	}
}

// concerning is that for the slots from from to until. more says that there are others behind them.
func (s *shard) concerning(follower, from, until uint32) (ids []ports.PeerID, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := from; n < until; n++ {
		if r := s.at(s.ref(n)); r.concerns(follower) {
			ids = append(ids, r.id())
		}
	}
	return ids, int(until) < len(*s.slots.chunks.Load())*chunkSlots
}

// everyone yields, in batches, the PeerIDs of all listed indexers, then of those that left.
func (t *table) everyone() iter.Seq[[]ports.PeerID] {
	return func(yield func([]ports.PeerID) bool) {
		for _, o := range []*order{&t.order, &t.leaves} {
			for ids := o.after("", sweepBatch); len(ids) > 0; ids = o.after(ids[len(ids)-1], sweepBatch) {
				if !yield(ids) {
					return
				}
			}
		}
	}
}
