package domain

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// clockDrift is how far a record's Seq may be from what the natives' clocks say of when it
// was issued, before another one takes its place: a third of what a lease has to spare.
const clockDrift = 2 * time.Second

// maxLead is how far ahead of this node's own clock one native alone can have it issue
// records: a clock that is more than a day behind is one that was never set.
const maxLead = 24 * time.Hour

// prover issues what an indexer proves itself by: a record at its start and once an hour,
// or when what it says changes, and a tick for each heartbeat. All methods may be called
// concurrently.
type prover struct {
	self     ports.PeerID
	policy   TTLPolicy
	signer   ports.Signer
	clock    *Clock
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

func newProver(self ports.PeerID, policy TTLPolicy, signer ports.Signer, clock *Clock, observer ports.Observer) *prover {
	return &prover{self: self, policy: policy, signer: signer, clock: clock, observer: observer, start: rand.Uint64(), wanted: policy.Heartbeat}
}

// question returns what to ask a native before the first record is issued, nil once one has
// been asked.
func (p *prover) question() *ports.Proof {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked {
		return nil
	}
	return &ports.Proof{Tick: ports.Tick{Seq: asks}}
}

// answered takes in the answer to that.
func (p *prover) answered(lease ports.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
	p.take(lease.Seq)
}

// take takes in a number that a native knows of. One that no honest native can know would
// keep this indexer from proving itself until then. The caller holds the lock.
func (p *prover) take(seq int64) {
	if seq <= p.clock.Now().Add(ports.ClockAllowance).UnixMilli() {
		p.last = max(p.last, seq)
	}
}

// issue returns the record that says what reg does, a new one if that is needed.
func (p *prover) issue(reg ports.Registration) (*issued, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addrs := reg.Addrs
	if len(addrs) == 0 {
		addrs = []string{reg.Addr}
	}
	if i := p.current; i != nil && slices.Equal(i.Addrs, addrs) && maps.Equal(i.Meta, reg.Meta) && !i.over(p.clock.Elapsed()) {
		return i, nil
	}
	// Apart from each other, or indexers that were started together would stay together.
	interval := Early(p.wanted, rand.Float64()).Truncate(time.Millisecond)
	i := &issued{
		Claim: ports.Claim{
			PeerID: p.self, Addrs: slices.Clone(addrs), Meta: maps.Clone(reg.Meta), Start: p.start,
			Interval: interval, TTL: p.policy.TTL.Truncate(time.Millisecond),
		},
		chain: p.signer.Chain(int(min(ports.MaxSteps, ports.RecordLife/interval))),
	}
	i.Anchor = i.chain[0]
	if err := p.sign(i, p.now().UnixMilli()); err != nil {
		return nil, err
	}
	p.current = i
	return i, nil
}

// sign gives i its number, of at least atLeast, and has it signed; the caller holds the lock.
func (p *prover) sign(i *issued, atLeast int64) error {
	i.at = p.clock.Elapsed()
	var err error
	if i.Seq, err = p.signer.Seq(max(atLeast, p.last+1)); err != nil {
		p.observer.Observe(ports.Event{Kind: ports.EventLeaseFailed, PeerID: p.self, Err: err})
	}
	p.last = i.Seq
	i.record, err = p.signer.Sign(i.Claim)
	return err
}

// now is the time of day for a record. One native alone, which may lie, has its word for at
// most maxLead: numbers are used up for good.
func (p *prover) now() time.Time {
	now := p.clock.Now()
	if latest := p.clock.System().Add(maxLead); now.After(latest) && p.clock.Sources() < 2 {
		return latest
	}
	return now
}

// leave returns the record that says that the indexer leaves. Its number is the next one,
// however long ago the last was: so it ends all that this process has said, and nothing that
// another one has since, which has taken its place.
func (p *prover) leave() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := &issued{Claim: ports.Claim{PeerID: p.self, Start: p.start, TTL: p.policy.TTL.Truncate(time.Millisecond)}}
	err := p.sign(i, p.last+1)
	p.current = nil
	return i.record, err
}

// heard takes in what a native answered to a tick, or to the whole record, and reports
// whether a new record is needed now. What a native knows that is newer counts only if it
// has seen the record and wants a newer one: else another process may have issued it, which
// is for the native to say.
func (p *prover) heard(i *issued, lease ports.Lease, whole bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != i {
		return false // there is one
	}
	elapsed := p.clock.Elapsed()
	if whole && lease.NeedRecord {
		p.take(lease.Seq)
	}
	// What a correct clock would have said when the record was issued.
	behind := p.clock.At(i.at).Sub(i.Issued())
	if p.last > i.Seq || behind > clockDrift || behind < -clockDrift && p.clock.At(elapsed).UnixMilli() > p.last {
		p.current = nil
	}
	return p.current == nil
}

// want has records be renewed as often as a native asks for, if that is oftener than now.
func (p *prover) want(heartbeat time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if heartbeat < p.wanted {
		p.wanted, p.current = heartbeat, nil
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
