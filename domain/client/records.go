package client

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// clockDrift is how far a record's Seq may be from what the natives' clocks say of when it
// was issued, before another one takes its place: a third of what a lease has to spare.
const clockDrift = 2 * time.Second

// maxLead is how far ahead of this node's own clock one native alone can have it issue
// records: a clock that is more than a day behind is one that was never set.
const maxLead = 24 * time.Hour

// records issues what an indexer proves itself by: a record at its start and once an hour,
// or when what it says changes, and a tick for each heartbeat. All methods may be called
// concurrently.
type records struct {
	self     ports.PeerID
	policy   domain.TTLPolicy
	signer   ports.Signer
	clock    *domain.Clock
	observer ports.Observer
	start    uint64

	mu      sync.Mutex
	wanted  time.Duration // the shortest heartbeat that a native asks for
	last    int64         // the highest Seq that is known of this indexer
	current *issued
	asked   bool // what time it is
}

// asks is the Seq of a tick of no record, which has a native say what time it is and which
// numbers it knows. A record of an hour from now would have no other follow it before that.
const asks = 1

// issued is a record and the chain behind it. It does not change.
type issued struct {
	ports.Claim
	record []byte
	chain  []ports.Link
	at     time.Duration // on the clock
}

func newRecords(self ports.PeerID, policy domain.TTLPolicy, signer ports.Signer, clock *domain.Clock, observer ports.Observer) *records {
	return &records{self: self, policy: policy, signer: signer, clock: clock, observer: observer, start: rand.Uint64(), wanted: policy.Heartbeat}
}

// question returns what to ask a native before the first record is issued, nil once one has
// been asked.
func (r *records) question() *ports.Proof {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		return nil
	}
	return &ports.Proof{Tick: ports.Tick{Seq: asks}}
}

// answered takes in the answer to that.
func (r *records) answered(lease ports.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	r.take(lease.Seq)
}

// take takes in a number that a native knows of. One that no honest native can know would
// keep this indexer from proving itself until then. The caller holds the lock.
func (r *records) take(seq int64) {
	if seq <= r.clock.Now().Add(ports.ClockAllowance).UnixMilli() {
		r.last = max(r.last, seq)
	}
}

// issue returns the record that says what reg does, a new one if that is needed.
func (r *records) issue(reg ports.Registration) (*issued, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addrs := reg.Addrs
	if len(addrs) == 0 {
		addrs = []string{reg.Addr}
	}
	if i := r.current; i != nil && slices.Equal(i.Addrs, addrs) && maps.Equal(i.Meta, reg.Meta) && !i.over(r.clock.Elapsed()) {
		return i, nil
	}
	// Apart from each other, or indexers that were started together would stay together.
	interval := domain.Early(r.wanted, rand.Float64()).Truncate(time.Millisecond)
	i := &issued{
		Claim: ports.Claim{
			PeerID: r.self, Addrs: slices.Clone(addrs), Meta: maps.Clone(reg.Meta), Start: r.start,
			Interval: interval, TTL: r.policy.TTL.Truncate(time.Millisecond),
		},
		chain: r.signer.Chain(int(min(ports.MaxSteps, ports.RecordLife/interval))),
	}
	i.Anchor = i.chain[0]
	if err := r.sign(i, r.now().UnixMilli()); err != nil {
		return nil, err
	}
	r.current = i
	return i, nil
}

// sign gives i its number, of at least atLeast, and has it signed; the caller holds the lock.
func (r *records) sign(i *issued, atLeast int64) error {
	i.at = r.clock.Elapsed()
	var err error
	if i.Seq, err = r.signer.Seq(max(atLeast, r.last+1)); err != nil {
		r.observer.Observe(ports.Event{Kind: ports.EventLeaseFailed, PeerID: r.self, Err: err})
	}
	r.last = i.Seq
	i.record, err = r.signer.Sign(i.Claim)
	return err
}

// now is the time of day for a record. One native alone, which may lie, has its word for at
// most maxLead: numbers are used up for good.
func (r *records) now() time.Time {
	now := r.clock.Now()
	if latest := r.clock.System().Add(maxLead); now.After(latest) && r.clock.Sources() < 2 {
		return latest
	}
	return now
}

// leave returns the record that says that the indexer leaves. Its number is the next one,
// however long ago the last was: so it ends all that this process has said, and nothing that
// another one has since, which has taken its place.
func (r *records) leave() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := &issued{Claim: ports.Claim{PeerID: r.self, Start: r.start, TTL: r.policy.TTL.Truncate(time.Millisecond)}}
	err := r.sign(i, r.last+1)
	r.current = nil
	return i.record, err
}

// heard takes in what a native answered to a tick, or to the whole record, and reports
// whether a new record is needed now. What a native knows that is newer counts only if it
// has seen the record and wants a newer one: else another process may have issued it, which
// is for the native to say.
func (r *records) heard(i *issued, lease ports.Lease, whole bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != i {
		return false // there is one
	}
	elapsed := r.clock.Elapsed()
	if whole && lease.NeedRecord {
		r.take(lease.Seq)
	}
	// What a correct clock would have said when the record was issued.
	behind := r.clock.At(i.at).Sub(i.Issued())
	if r.last > i.Seq || behind > clockDrift || behind < -clockDrift && r.clock.At(elapsed).UnixMilli() > r.last {
		r.current = nil
	}
	return r.current == nil
}

// want has records be renewed as often as a native asks for, if that is oftener than now.
func (r *records) want(heartbeat time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if heartbeat < r.wanted {
		r.wanted, r.current = heartbeat, nil
	}
}

// over reports whether the record and its chain end too soon for one more heartbeat.
func (i *issued) over(elapsed time.Duration) bool {
	next := i.step(elapsed) + 1
	return int(next) >= len(i.chain) || time.Duration(next)*i.Interval+i.TTL > ports.RecordLife
}

// step is how many intervals have passed since the record was issued.
func (i *issued) step(elapsed time.Duration) uint32 {
	return uint32(min(int((elapsed-i.at)/i.Interval), len(i.chain)-1))
}

// proof returns what to prove a heartbeat with, to who has the record or not.
func (i *issued) proof(elapsed time.Duration, known bool) *ports.Proof {
	step := i.step(elapsed)
	p := &ports.Proof{Tick: ports.Tick{Seq: i.Seq, Step: step, Link: i.chain[step]}}
	if !known {
		p.Record = i.record
	}
	return p
}

// until is how long it is to a step.
func (i *issued) until(step uint32, elapsed time.Duration) time.Duration {
	return i.at + time.Duration(step)*i.Interval - elapsed
}
