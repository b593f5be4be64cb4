package domain

import (
	"hash/maphash"
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

// sweepBatch is how many entries are taken under a shard's lock at once: some tens
// of microseconds, so that no heartbeat waits longer for a sweep.
const sweepBatch = 256

// table is the live table: every entry that has not been swept, by PeerID.
type table struct {
	seed   maphash.Seed
	shards [shardCount]shard
	order  order
	held   atomic.Int64 // records in all shards
}

type shard struct {
	mu      sync.Mutex
	records map[ports.PeerID]*record
	// wheel holds every record of this shard once, at its check or its deadline as
	// they were when it was put there. A renewal moves the deadline only; the wheel
	// finds that out when it comes around.
	wheel wheel[*record]
}

// record is an entry in the live table with what the registry knows about it.
// All but id is guarded by the shard's lock.
type record struct {
	id ports.PeerID
	lease
	heir *lease // own, and another native's lease outlives this one: what it becomes

	own     bool // this native granted the lease
	echoed  bool // own, and another native announced it too since its last check
	checked bool // looked up ahead of this deadline already
	gone    bool // swept; whoever still holds the pointer must let go

	outbox outboxState
}

// lease is the part of a record that somebody granted, at first hand or by hearsay.
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
}

// become makes r what another native granted.
func (r *record) become(l *lease) {
	r.lease, r.heir = *l, nil
	r.own, r.echoed, r.checked = false, false, false
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

// entry returns r as an entry; the caller holds the shard's lock.
func (r *record) entry() Entry {
	e := Entry{PeerID: r.id, Addr: r.addr, Native: r.native.Value(), ExpiresAt: time.Unix(0, r.expiresAt).UTC()}
	if r.seenAt != 0 {
		e.SeenAt = time.Unix(0, r.seenAt).UTC()
	}
	if r.more != nil {
		e.Addrs, e.Meta = r.more.addrs, r.more.meta
	}
	if len(e.Addrs) == 0 {
		e.Addrs = []string{r.addr}
	}
	return e
}

// clock is one reading of the time, as people and as the table know it.
type clock struct {
	time time.Time
	now  time.Duration
}

func newTable(slot time.Duration) *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i] = shard{records: make(map[ports.PeerID]*record), wheel: newWheel[*record](slot)}
	}
	return t
}

func (t *table) shard(id ports.PeerID) *shard {
	return &t.shards[maphash.String(t.seed, string(id))%shardCount]
}

// live returns the record of id, nil if there is none or its deadline has come. A
// lease of this native's own that has ended gives way to its heir here.
func (s *shard) live(id ports.PeerID, now time.Duration) *record {
	r := s.records[id]
	if r == nil {
		return nil
	}
	if now >= r.deadline && r.heir != nil {
		r.become(r.heir)
	}
	if now >= r.deadline {
		return nil
	}
	return r
}

// insert returns the record of id, a new one if there is none, for the caller to
// fill, who has locked its shard s. A new one is looked at again at due.
func (t *table) insert(s *shard, id ports.PeerID, due time.Duration) *record {
	if r := s.records[id]; r != nil {
		return r // dead and not swept: the wheel still holds it
	}
	r := &record{id: id}
	s.records[id] = r
	s.wheel.add(due, r)
	t.order.insert(id)
	t.held.Add(1)
	return r
}

// remove takes r out of its shard s, which the caller has locked.
func (t *table) remove(s *shard, r *record) {
	r.gone = true
	delete(s.records, r.id)
	t.order.remove(r.id)
	t.held.Add(-1)
}

func (t *table) len() int { return int(t.held.Load()) }
