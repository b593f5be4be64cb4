package domain

import (
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// shardCount splits the live table so that two cores rarely meet at one lock, and
// so that a sweep or a walk holds up one sixty-fourth of the heartbeats at a time.
const shardCount = 64

// sweepBatch is how many entries are taken under a shard's lock at once: 0.1 ms if all
// of them expire (1.6 µs each, among a million), so that no heartbeat waits longer for a
// sweep.
const sweepBatch = 64

// table is the live table: every entry that has not been swept, by PeerID, and everyone
// whose leave is not to be undone.
type table struct {
	policy  TTLPolicy
	seed    maphash.Seed
	shards  [shardCount]shard
	order   order // who is listed
	leaves  order // who left
	changes *changelog
	held    atomic.Int64 // records in all shards
	listed  atomic.Int64 // those that are entries
	owned   atomic.Int64 // those that this native granted
}

type shard struct {
	*table
	mu      sync.Mutex
	records map[ports.PeerID]*record
	// wheel holds every record of this shard, at its next check or its deadline as they
	// were when it was put there. A renewal moves the deadline only; the wheel finds that
	// out when it comes around. A record that ends earlier than it did is put there again,
	// and where it was before it is passed over.
	wheel wheel[*record]
}

// record is an entry in the live table with what the registry knows about it.
// All but id is guarded by the shard's lock.
type record struct {
	id ports.PeerID
	lease
	heir  *lease        // a lease held less firmly that outlives this one: what it becomes
	filed time.Duration // where the wheel comes around to it

	state   recordState
	late    bool // its heartbeat is overdue, as was told
	lent    bool // its heir is shown in its place, as was told
	echoed  bool // own, and another native announced it too since its last check
	checked bool // looked up ahead of this deadline already
	gone    bool // swept; whoever still holds the pointer must let go
	rival   bool // another process with its key was refused since its last registration

	outbox outboxState
}

type recordState uint8

const (
	unlisted recordState = iota // just made
	listed
	// leaving is who left: until the deadline of its lease nothing is listed of it that was
	// granted before.
	leaving
	// ended is who signed for itself and has expired: until the deadline, which is the end of
	// its record, nothing else is believed of it but what it signs after that.
	ended
)

// lease is the part of a record that somebody granted, or the leave that ended it. If the
// indexer signed it, addr, more and expiresAt are what its proof says.
//
// deadline decides; expiresAt and seenAt are what is told of it, in Unix
// nanoseconds and the same whenever they are asked for: the same lease put twice
// is the same record.
type lease struct {
	addr      string
	more      *details // nil for one address and no metadata
	native    unique.Handle[ports.PeerID]
	deadline  time.Duration
	expiresAt int64
	seenAt    int64 // 0 if the entry does not say
	rank      rank
	fresh     bool         // whoever is told of it needs its record
	unproven  bool         // granted to who signs, whose record does not count by this clock
	proof     *ports.Proof // with its Claim; nil if there is none
}

// rank says how firmly a lease is held: a lower one never takes the place of a higher.
type rank uint8

const (
	heard   rank = iota // what the store says, with the clock of whoever put it there
	told                // by the native that granted it, as what is left of it
	granted             // by this native
)

func (r rank) source() ports.Source {
	return [...]ports.Source{ports.SourceStore, ports.SourceNative, ports.SourceOwn}[r]
}

// shown is the lease that is shown at now: r's own, or once a heartbeat of that is overdue
// a later one of the same address that another native told.
func (r *record) shown(p TTLPolicy, now time.Duration) *lease {
	if h := r.heir; h != nil && p.late(r.deadline-now) && h.rank == told && h.deadline > r.deadline && h.addr == r.addr && h.more.equal(r.more) {
		return h
	}
	return &r.lease
}

// says reports whether a live record holds just what reg brings; more is reg's.
func (r *record) says(reg ports.Registration, more *details) bool {
	return r != nil && r.addr == reg.Addr && r.more.equal(more) && (len(reg.Addrs) == 0 || reg.Addrs[0] == reg.Addr)
}

// details is what most entries do without.
type details struct {
	addrs []string
	meta  map[string]string
}

func detailsOf(addrs []string, meta map[string]string) *details {
	if len(addrs) <= 1 && len(meta) == 0 {
		return nil // Addrs[0] is Addr
	}
	return &details{addrs, meta}
}

func (d *details) equal(e *details) bool {
	if d == nil || e == nil {
		return d == e
	}
	return slices.Equal(d.addrs, e.addrs) && maps.Equal(d.meta, e.meta)
}

// entry returns what l says of id.
func (l *lease) entry(id ports.PeerID) Entry {
	e := Entry{PeerID: id, Addr: l.addr, Native: l.native.Value(), ExpiresAt: time.Unix(0, l.expiresAt).UTC()}
	if l.seenAt != 0 {
		e.SeenAt = time.Unix(0, l.seenAt).UTC()
	}
	if l.more != nil {
		e.Addrs, e.Meta = l.more.addrs, l.more.meta
	}
	if len(e.Addrs) == 0 && l.addr != "" {
		e.Addrs = []string{l.addr}
	}
	e.Proof = l.proof
	return e
}

// clock is one reading of the time, as people and as the table know it.
type clock struct {
	time time.Time
	now  time.Duration
}

func newTable(policy TTLPolicy) *table {
	t := &table{policy: policy, seed: maphash.MakeSeed(), changes: newChangelog()}
	for i := range t.shards {
		s := &t.shards[i]
		s.table, s.records, s.wheel = t, make(map[ports.PeerID]*record), newWheel[*record](policy.tick())
	}
	return t
}

func (t *table) shard(id ports.PeerID) *shard {
	return &t.shards[maphash.String(t.seed, string(id))%shardCount]
}

// live returns the record of id, nil if there is none or its deadline has come. A
// lease that has ended gives way to its heir here.
func (s *shard) live(id ports.PeerID, now time.Duration) *record {
	r := s.records[id]
	if r == nil || r.state != listed {
		return nil
	}
	if now >= r.deadline && r.heir != nil && now < r.heir.deadline {
		s.hold(r, *r.heir, now)
	}
	if now >= r.deadline {
		return nil
	}
	return r
}

// left returns the leave of id that is not to be undone yet, or nil.
func (s *shard) left(id ports.PeerID, now time.Duration) *record {
	if r := s.records[id]; r != nil && r.state == leaving && now < r.deadline {
		return r
	}
	return nil
}

// insert returns the record of id, a new one if there is none, for the caller to
// fill, who has locked the shard. A new one is looked at again at due.
func (s *shard) insert(id ports.PeerID, due time.Duration) *record {
	if r := s.records[id]; r != nil {
		return r // dead and not swept: the wheel still holds it
	}
	r := &record{id: id}
	s.records[id] = r
	s.file(r, due)
	s.held.Add(1)
	return r
}

// file has the wheel come around to r at the instant at, and no more where it would have.
func (s *shard) file(r *record, at time.Duration) {
	r.filed = at
	s.wheel.add(at, r)
}

// refile has the wheel come around to r by the instant at: not once more if it does already,
// or who renews or leaves over and over would fill it.
func (s *shard) refile(r *record, at time.Duration) {
	if at+s.policy.tick() < r.filed {
		s.file(r, at)
	}
}

// hold lists r, which the caller has found or inserted, with the lease l and without an
// heir, and tells what that changes.
func (s *shard) hold(r *record, l lease, now time.Duration) {
	s.own(r, l.rank == granted) // before it is listed, or who left would be counted already
	kind := ports.ChangeRenewed
	switch {
	case r.state == listed && now >= r.deadline && (r.heir == nil || now >= r.heir.deadline): // and the sweep has not come around
		s.changes.add(ports.ChangeExpired, r.id, &r.lease)
		kind = ports.ChangeJoined
	case r.state != listed:
		s.list(r)
		kind = ports.ChangeJoined
	case r.late, r.addr != l.addr, !r.more.equal(l.more):
		kind = ports.ChangeUpdated
	}
	// Who follows this native is told of what it granted alone, and may not have heard the
	// record from whoever granted it before.
	own := l.rank == granted && r.rank != granted
	l.fresh = l.proof != nil && (own || r.proof == nil || r.proof.Claim != l.proof.Claim)
	r.lease, r.heir, r.checked, r.echoed, r.lent = l, nil, false, false, false
	r.late = s.policy.late(l.deadline - now)
	s.refile(r, s.policy.due(l.deadline))
	s.changes.add(kind, r.id, &r.lease)
}

// bequeath has l follow on r's own lease, which is held more firmly, and tells if it is
// shown from now on.
func (s *shard) bequeath(r *record, l lease, now time.Duration) {
	l.fresh = l.proof != nil
	r.heir, r.lent = &l, false
	s.lend(r, now)
}

// lend tells if r's heir is shown from now on.
func (s *shard) lend(r *record, now time.Duration) {
	if r.lent || r.shown(s.policy, now) != r.heir {
		return
	}
	r.lent = true
	kind := ports.ChangeRenewed
	if r.late && !s.policy.late(r.heir.deadline-now) {
		kind, r.late = ports.ChangeUpdated, false
	}
	s.changes.add(kind, r.id, r.heir)
}

// leave makes r who left, by the leave l, and tells if it was listed until then.
func (s *shard) leave(r *record, l lease, now time.Duration) {
	was := r.state
	if was == listed {
		s.order.remove(r.id)
		s.listed.Add(-1)
	}
	if was != leaving {
		s.leaves.insert(r.id)
	}
	s.own(r, false)
	alive := was == listed && now < r.deadline
	if was == listed && !alive && l.rank != granted { // and the sweep has not come around
		s.changes.add(ports.ChangeExpired, r.id, &r.lease)
	}
	l.fresh = l.proof != nil
	r.state, r.lease, r.heir, r.late = leaving, l, nil, false
	if alive || l.rank == granted {
		s.changes.add(ports.ChangeLeft, r.id, &r.lease)
	}
}

func (s *shard) list(r *record) {
	if r.state == leaving {
		s.leaves.remove(r.id)
	}
	r.state = listed
	s.order.insert(r.id)
	s.listed.Add(1)
}

// own counts r among what this native granted, or not any more.
func (s *shard) own(r *record, is bool) {
	switch was := r.state <= listed && r.rank == granted; {
	case is && !was:
		s.owned.Add(1)
	case was && !is:
		s.owned.Add(-1)
	}
}

// remove takes r out of its shard, which the caller has locked, and tells if it was
// listed until then.
func (s *shard) remove(r *record) {
	r.gone = true
	delete(s.records, r.id)
	s.held.Add(-1)
	s.own(r, false)
	switch r.state {
	case leaving:
		s.leaves.remove(r.id)
	case listed:
		s.order.remove(r.id)
		s.listed.Add(-1)
		s.changes.add(ports.ChangeExpired, r.id, &r.lease)
	}
}

// end makes r, which was listed until then, who is remembered by its last lease until the
// record of that ends.
func (s *shard) end(r *record, last lease, until time.Duration) {
	s.own(r, false)
	s.order.remove(r.id)
	s.listed.Add(-1)
	s.changes.add(ports.ChangeExpired, r.id, &r.lease)
	r.state, r.lease, r.heir, r.late = ended, last, nil, false
	r.deadline = until
	s.file(r, until)
}

// everyone yields, in batches, the PeerIDs of all who are listed and all who left.
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

// due returns when a record that is held until deadline is to be looked at next.
func (p TTLPolicy) due(deadline time.Duration) time.Duration {
	return deadline - max(p.TTL-p.Heartbeat, p.lookAhead())
}

func (t *table) len() int { return int(t.held.Load()) }
