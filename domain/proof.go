package domain

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// signed returns what the indexer itself signed of l, nil if nothing.
func (l *lease) signed() *ports.Claim {
	if l.proof == nil {
		return nil
	}
	return l.proof.Claim
}

// version is how new l is.
func (l *lease) version(left bool) ports.Version {
	v := ports.Version{ExpiresAt: time.Unix(0, l.expiresAt), Leave: left}
	if l.proof != nil {
		v.Seq, v.Step = l.proof.Claim.Seq, l.proof.Tick.Step
	}
	return v
}

// against tells whether what others say of rec's PeerID can count beside what the indexer
// itself was heard to sign. The caller has locked the shard.
func (l *lease) against(rec *record) error {
	if rec == nil {
		return nil
	}
	held := rec.signed()
	if held == nil {
		return nil
	}
	claim := l.signed()
	if claim == nil {
		return ports.Faulty(ports.FaultRank, "%s signs for itself, and this is not its word", rec.id)
	}
	was, is := rec.version(false), l.version(false)
	if c := is.Compare(was); c < 0 || c == 0 && rec.state != listed {
		return ports.Faulty(ports.FaultOlder, "a newer record or tick of %s is known", rec.id)
	}
	return nil
}

// prove checks what a registration of sender is proven by, and fills in what the proof says
// of it. Without an error, need says that the record is wanted, or one by this native's clock;
// the registration stands then, unproven, unless granted is false.
func (r *Registry) prove(sender ports.PeerID, reg *ports.Registration) (need, granted bool, refusal *ports.Refusal) {
	s := r.table.shard(sender)
	s.mu.Lock()
	var held *ports.Proof
	live := s.live(sender, r.clock().now) != nil
	if rec := s.records[sender]; rec != nil && rec.signed() != nil {
		held = rec.proof
	}
	s.mu.Unlock()

	p := *reg.Proof
	switch {
	case r.cfg.Proofs == nil:
		reg.Proof = nil
		return false, true, nil
	case p.Record == nil && (held == nil || held.Tick.Seq != p.Tick.Seq):
		return true, false, nil
	case p.Record == nil || held != nil && bytes.Equal(p.Record, held.Record):
		advanced, err := r.advance(held, p.Tick)
		if err != nil {
			return false, false, r.unproven(sender, err)
		}
		reg.Proof = advanced
	default:
		p.Claim = nil
		if err := r.cfg.verify(&p); err != nil {
			return false, false, r.unproven(sender, err)
		}
		reg.Proof = &p
		if held != nil && held.Claim.Seq >= p.Claim.Seq {
			if !live || held.Claim.Start == p.Claim.Start || held.Claim.Seq == p.Claim.Seq {
				return true, false, nil
			}
			s.mu.Lock()
			if rec := s.records[sender]; rec != nil {
				rec.rival = true
			}
			s.mu.Unlock()
			r.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: sender})
			return false, false, ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since this one started; stop one of them, or give it an identity of its own (data.dir)")
		}
	}
	claim := reg.Proof.Claim
	switch {
	case claim.PeerID != sender:
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultSigner, "the record is not that of %s itself", sender))
	case claim.Leave():
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultFields, "the record has no address, which is a leave"))
	case reg.Addr != claim.Addrs[0], len(reg.Addrs) > 0 && !slices.Equal(reg.Addrs, claim.Addrs), len(reg.Meta) > 0 && !maps.Equal(reg.Meta, claim.Meta):
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultFields, "the registration says something else than its record"))
	}
	reg.Addrs, reg.Meta = claim.Addrs, claim.Meta
	if err := r.cfg.timely(claim, r.cfg.now()); err != nil {
		reg.Proof = nil
		return true, true, nil
	}
	return false, true, nil
}

// advance returns held with tick, or held itself if it is newer.
func (r *Registry) advance(held *ports.Proof, tick ports.Tick) (*ports.Proof, error) {
	was := held.Tick
	switch {
	case tick == (ports.Tick{}), tick == was:
		return held, nil
	case tick.Seq != was.Seq || tick.Step == was.Step || tick.Step > ports.MaxSteps || held.Claim.Interval == 0:
	case tick.Step > was.Step && r.cfg.Proofs.Follows(was.Link, tick.Link, tick.Step-was.Step):
		return &ports.Proof{Record: held.Record, Tick: tick, Claim: held.Claim}, nil
	case tick.Step < was.Step && tick.Step == 0 && tick.Link == held.Claim.Anchor,
		tick.Step < was.Step && r.cfg.Proofs.Follows(tick.Link, was.Link, was.Step-tick.Step):
		return held, nil
	}
	return nil, ports.Faulty(ports.FaultTick, "tick's link is not that of step %d of the record's chain", tick.Step)
}

// unproven refuses what err says is no proof, and tells of it.
func (r *Registry) unproven(sender ports.PeerID, err error) *ports.Refusal {
	r.faulty(sender, "", err)
	if fault, ok := errors.AsType[*ports.ProofError](err); ok && fault.Fault == ports.FaultAddress {
		return ports.Refuse(ports.CodeAddrInvalid, "%v", err)
	}
	return ports.Refuse(ports.CodeProofInvalid, "%v", err)
}

// faulty tells the observer of a proof that is none.
func (r *Registry) faulty(id, via ports.PeerID, err error) { tellFault(r.observer, id, via, err) }
