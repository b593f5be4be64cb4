package domain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// maxSkew is how wrong another native's clock may be for its deadlines to mean anything
// here: an hour, for one that has the wrong idea of summer time.
const maxSkew = time.Hour

// Why a change that a native told is not taken in.
var (
	errNotIts   = errors.New("a lease of another native is not its to tell")
	errNoTime   = errors.New("it ends later than a lease can")
	errNoChange = errors.New("no change that one native tells another")
)

// take takes in what the native from told, and returns how long the newest of it was under
// way, 0 if nothing was new.
func (r *Registry) take(from ports.PeerID, changes []ports.Change) (lag time.Duration) {
	if len(changes) == 0 {
		return 0
	}
	refused := 0
	var why error
	for i := range changes {
		c := changes[i] // which others may be given too
		b, err := r.takeTold(from, &c)
		r.tell(c.PeerID, from, b)
		if b.joined {
			r.observer.Observe(ports.Event{Kind: ports.EventJoined, PeerID: c.PeerID, Via: from, Joined: true})
		}
		switch {
		case err == nil:
			if c.Kind != ports.ChangeSnapshot {
				lag = max(r.cfg.Policy.TTL-c.Remaining, 1)
			}
		case errors.Is(err, errUntrusted):
			r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedChange, PeerID: c.PeerID, Via: from})
		case isOlder(err): // it was said twice, or had been under way
			r.faulty(c.PeerID, from, err)
		case !errors.Is(err, ErrExpired): // which is nobody's fault
			r.faulty(c.PeerID, from, err)
			refused++
			why = fmt.Errorf("%s: %w", c.PeerID, err)
		}
	}
	r.observer.Observe(ports.Event{Kind: ports.EventTold, Via: from, Changes: len(changes), Refused: refused, Err: why})
	return lag
}

// isOlder reports whether err is a proof that is older than what is known.
func isOlder(err error) bool {
	fault, ok := errors.AsType[*ports.ProofError](err)
	return ok && fault.Fault == ports.FaultOlder
}

func (r *Registry) takeTold(from ports.PeerID, c *ports.Change) (became, error) {
	own := c.Native == from
	switch {
	case c.PeerID == "", c.Kind == ports.ChangeExpired, c.Kind == ports.ChangeLate:
		return became{}, errNoChange
	case !own && c.Kind != ports.ChangeLeft:
		return became{}, errNotIts
	case c.Remaining > r.cfg.Policy.TTL && c.Proof == nil:
		return became{}, errNoTime
	case c.Remaining <= 0:
		return became{}, ErrExpired
	}
	if err := r.proveTold(from, c); err != nil {
		return became{}, err
	}
	var more *details
	s := r.table.shard(c.PeerID)
	if c.Kind != ports.ChangeLeft {
		more = detailsOf(c.Addrs, c.Meta)
		s.mu.Lock()
		rec := s.records[c.PeerID]
		same := rec != nil && rec.state == listed && rec.addr == c.Addr && rec.more.equal(more)
		if same {
			more = rec.more
		}
		s.mu.Unlock()
		// Addresses are parsed, which is not done under the lock.
		if !same {
			if err := r.cfg.checkAddrs(c.PeerID, c.Addr, c.Addrs); err != nil {
				return became{}, err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.clock()
	l := lease{
		addr: c.Addr, more: more, native: unique.Make(c.Native), rank: told,
		deadline: now.now + c.Remaining, expiresAt: c.ExpiresAt.UnixNano(), proof: c.Proof,
	}
	if c.Kind != ports.ChangeLeft { // what is proven may be told by one that grants longer leases
		l.deadline = min(l.deadline, now.now+r.cfg.Policy.TTL)
	}
	if l.proof != nil {
		r.limit(&l, now)
		if now.now >= l.deadline {
			return became{}, ErrExpired
		}
	}
	if !c.SeenAt.IsZero() {
		l.seenAt = c.SeenAt.UnixNano()
	}
	// By any clock that is near enough to this one, it ends when it says. Else what it says
	// could keep the store's word out for ever.
	if ends := now.time.Add(c.Remaining); l.proof == nil && c.ExpiresAt.Sub(ends).Abs() > maxSkew {
		l.expiresAt = ends.UnixNano()
	}
	if c.Kind == ports.ChangeLeft {
		if !own {
			l.rank = heard // handed on
		}
		return r.takeLeave(s, c.PeerID, l, now.now)
	}
	return r.takeLease(s, c.PeerID, l, now.now)
}

// proveTold checks what a change that the native from told is proven by, and fills in what
// the proof says.
func (r *Registry) proveTold(from ports.PeerID, c *ports.Change) error {
	p := c.Proof
	switch {
	case p == nil && r.cfg.plain() == PlainRefuse:
		return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", c.PeerID)
	case p == nil || r.cfg.Proofs == nil:
		c.Proof = nil
		return nil
	}
	held := r.proofOf(c.PeerID, p.Tick.Seq)
	switch {
	case held != nil && (p.Record == nil || bytes.Equal(held.Record, p.Record)):
		if p.Tick.Step < held.Tick.Step {
			return ports.Faulty(ports.FaultOlder, "a newer tick is known")
		}
		advanced, err := r.advance(held, p.Tick)
		if err != nil {
			return err
		}
		c.Proof = advanced
	case p.Record == nil && p.Tick.Seq < r.seq(c.PeerID):
		return ports.Faulty(ports.FaultOlder, "a newer record is known")
	case p.Record == nil:
		r.lookups.Ask(c.PeerID, from) // the store has its record
		return ports.Faulty(ports.FaultIncomplete, "the record of the tick with Seq %d is not known", p.Tick.Seq)
	default:
		c.Proof = &ports.Proof{Record: p.Record, Tick: p.Tick}
		if err := r.cfg.verify(c.Proof); err != nil {
			return err
		}
	}
	c.Entry.Leave = c.Kind == ports.ChangeLeft
	if err := proves(&c.Entry); err != nil {
		return err
	}
	return r.cfg.timely(c.Proof.Claim, r.cfg.now())
}

// proofOf returns the proof of id's signed record with that Seq, nil if it is not held.
func (r *Registry) proofOf(id ports.PeerID, seq int64) *ports.Proof {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.records[id]
	if rec == nil {
		return nil
	}
	if h := rec.heir; h != nil && h.signed() != nil && h.proof.Claim.Seq == seq {
		return h.proof
	}
	if rec.signed() != nil && rec.proof.Claim.Seq == seq {
		return rec.proof
	}
	return nil
}

// limit has l, which a native told, end no later than its proof says, and a leave when its
// record does.
func (r *Registry) limit(l *lease, c clock) {
	claim := l.proof.Claim
	if claim.Leave() {
		r.signLeave(l, l.proof, l.deadline-c.now, c)
		return
	}
	ends := claim.ExpiresAt(l.proof.Tick.Step)
	l.expiresAt = ends.UnixNano()
	l.deadline = min(l.deadline, c.now+ends.Sub(c.time))
}

// askAgain asks a native that is followed, and told a tick whose record the store does not
// have either, for all of it, and reports whether there was an answer to take in.
func (r *Registry) askAgain(ctx context.Context, native, id ports.PeerID) bool {
	f := r.follower.Load()
	if f == nil {
		return false
	}
	f.mu.Lock()
	n := f.followed[native]
	f.mu.Unlock()
	if n == nil {
		return false
	}
	a, err := n.native.LookUp(ctx, r.cfg.Self, id)
	if err != nil || a.PeerID != id || a.Proof == nil || a.Proof.Record == nil {
		return false
	}
	r.take(native, []ports.Change{{Kind: ports.ChangeUpdated, Listed: a.Listed}})
	return true
}
