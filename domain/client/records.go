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

// clockDrift is how far a record's Seq may be from the time at which it was issued by the natives'
// clocks, before another record takes its place: a third of a lease's slack, 2 s at most. Clocks of
// natives are known no better than leastDrift.
func clockDrift(p domain.TTLPolicy) time.Duration {
	return min(2*time.Second, max((p.TTL-p.Heartbeat)/3, leastDrift))
}

const leastDrift = 250 * time.Millisecond

// maxLead is how far ahead of its own clock a single native can have this node issue records: a
// clock that is more than a day behind was never set.
const maxLead = 24 * time.Hour

// records are the proofs of an indexer: a record at its start, once an hour and when its addresses
// or metadata change, and a tick for each heartbeat. All methods may be called concurrently.
type records struct {
	self     ports.PeerID
	policy   domain.TTLPolicy
	signer   ports.Signer
	clock    *domain.Clock
	observer ports.Observer

	mu      sync.Mutex
	start   uint64
	wanted  time.Duration // the shortest heartbeat that a native asks for
	last    int64         // the highest Seq that is known of this indexer
	current *issued
	asked   bool // whether a native has been asked for the time
}

// asks is the Seq of a tick of no record: a native answers such a tick with the time and the
// highest Seq that it knows. An indexer asks before it signs: a record that is issued an hour
// ahead of time lets no other follow before that hour has passed.
const asks = 1

// issued is a record and the chain behind it. It does not change.
type issued struct {
	ports.Claim
	record []byte
	chain  []ports.Link
	at     domain.Instant
}

func newRecords(self ports.PeerID, policy domain.TTLPolicy, signer ports.Signer, clock *domain.Clock, observer ports.Observer) *records {
	return &records{self: self, policy: policy, signer: signer, clock: clock, observer: observer, start: rand.Uint64(), wanted: paced(policy.Heartbeat, policy.TTL)}
}

// restart has this process be another start of the indexer from now on. It asks natives again
// before it signs: they know records of its rival.
func (r *records) restart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.current, r.asked = rand.Uint64(), nil, false
}

// started returns the Start of this process's records.
func (r *records) started() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.start
}

// question returns the tick to ask a native with before the first record is issued, nil once a
// native has answered.
func (r *records) question() *ports.Proof {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		return nil
	}
	return &ports.Proof{Tick: ports.Tick{Seq: asks}}
}

// answered takes in the answer to a question.
func (r *records) answered(lease ports.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	r.take(lease.Seq)
}

// take takes in a Seq that a native knows of, unless no honest native can know it: it would keep
// this indexer from proving itself until its time has come. The caller holds the lock.
func (r *records) take(seq int64) {
	if seq <= r.clock.Now().Add(ports.ClockAllowance).UnixMilli() {
		r.last = max(r.last, seq)
	}
}

// issue returns a record of reg: the current record if it still serves, else a new record.
func (r *records) issue(reg ports.Registration) (*issued, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	addrs := reg.Addrs
	if len(addrs) == 0 {
		addrs = []string{reg.Addr}
	}
	if i := r.current; i != nil && slices.Equal(i.Addrs, addrs) && maps.Equal(i.Meta, reg.Meta) && !i.over(r.clock.Instant()) {
		return i, nil
	}
	// Indexers that were started together are not to stay together.
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

// sign gives i a Seq of at least atLeast, and has it signed. The caller holds the lock.
func (r *records) sign(i *issued, atLeast int64) error {
	i.at = r.clock.Instant()
	var err error
	if i.Seq, err = r.signer.Seq(max(atLeast, r.last+1)); err != nil {
		r.observer.Observe(ports.Event{Kind: ports.EventLeaseFailed, PeerID: r.self, Err: err})
	}
	r.last = i.Seq
	i.record, err = r.signer.Sign(i.Claim)
	return err
}

// now is the time of day for a record. A single native, which may lie, moves it by maxLead at
// most: a Seq is used up for good.
func (r *records) now() time.Time {
	now := r.clock.Now()
	if latest := r.clock.System().Add(maxLead); now.After(latest) && r.clock.Sources() < 2 {
		return latest
	}
	return now
}

// leave returns the record of a leave. Its Seq is the next, however long ago the last record was
// issued. So it ends the records of this process, and none of another process that has taken its
// place since.
func (r *records) leave() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := &issued{Claim: ports.Claim{PeerID: r.self, Start: r.start, TTL: r.policy.TTL.Truncate(time.Millisecond)}}
	err := r.sign(i, r.last+1)
	r.current = nil
	return i.record, err
}

// outdated takes in the answer of a native to a tick of i, or to the whole record, and reports
// whether a new record is needed now. A newer Seq counts only from a native that has seen the
// whole record and wants a newer record. Else another process may have issued it, and the native
// refuses this process by itself.
func (r *records) outdated(i *issued, lease ports.Lease, whole bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != i {
		return false // there is a new record already
	}
	at := r.clock.Instant()
	if whole && lease.NeedRecord {
		r.take(lease.Seq)
	}
	// How far a correct clock was ahead of the record's Seq when it was issued.
	behind := r.clock.At(i.at).Sub(i.Issued())
	drift := clockDrift(r.policy)
	if r.last > i.Seq || behind > drift || behind < -drift && r.clock.At(at).UnixMilli() > r.last {
		r.current = nil
	}
	return r.current == nil
}

// want has the next record be issued at once, with ticks as often as heartbeat, if those of the
// current record come less often.
func (r *records) want(heartbeat time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if heartbeat < r.wanted {
		r.wanted, r.current = heartbeat, nil
	}
}

// over reports whether the record or its chain ends too soon for another heartbeat.
func (i *issued) over(at domain.Instant) bool {
	next := i.step(at) + 1
	return int(next) >= len(i.chain) || time.Duration(next)*i.Interval+i.TTL > ports.RecordLife
}

// step is how many intervals have passed since the record was issued.
func (i *issued) step(at domain.Instant) uint32 {
	return uint32(min(int(at.Sub(i.at)/i.Interval), len(i.chain)-1))
}

// proof returns the proof of a heartbeat, without the record for a native that has it (known).
func (i *issued) proof(at domain.Instant, known bool) *ports.Proof {
	step := i.step(at)
	p := &ports.Proof{Tick: ports.Tick{Seq: i.Seq, Step: step, Link: i.chain[step]}}
	if !known {
		p.Record = i.record
	}
	return p
}

// until is how long after an instant a step comes.
func (i *issued) until(step uint32, at domain.Instant) time.Duration {
	return i.at.Add(time.Duration(step) * i.Interval).Sub(at)
}
