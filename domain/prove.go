package domain

import (
	"bytes"
	"errors"
	"maps"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// proven is the result of checking a registration's proof.
type proven struct {
	needRecord bool // the indexer must send its record, or issue one by this native's clock
	unknown    bool // without that record this native grants no lease
	// early is a sound proof that does not count by this native's clock. It may count by others'.
	early *ports.Proof
}

// checkProof checks the proof of sender's registration, and copies the proof's fields into reg. A
// registration stands without its proof if the record or its tick does not count by this native's
// clock.
func (r *Registry) checkProof(sender ports.PeerID, reg *ports.Registration) (proven, *ports.Refusal) {
	newest, live := r.recall(sender)
	p := *reg.Proof
	switch {
	case r.rules.Proofs == nil:
		reg.Proof = nil
		return proven{}, nil
	case p.Record == nil && (newest == nil || newest.Tick.Seq != p.Tick.Seq):
		return proven{needRecord: true, unknown: true}, nil
	case p.Record == nil || newest != nil && bytes.Equal(p.Record, newest.Record):
		advanced, err := r.advance(newest, p.Tick)
		if err != nil {
			return proven{}, r.refuseProof(sender, err)
		}
		reg.Proof = advanced
	default:
		p.Claim = nil
		if err := r.rules.verify(&p); err != nil {
			return proven{}, r.refuseProof(sender, err)
		}
		reg.Proof = &p
		if newest != nil && newest.Claim.Seq >= p.Claim.Seq {
			if !live || newest.Claim.Start == p.Claim.Start || newest.Claim.Seq == p.Claim.Seq {
				return proven{needRecord: true, unknown: true}, nil
			}
			return proven{}, r.supersede(sender)
		}
	}
	claim := reg.Proof.Claim
	switch {
	case claim.PeerID != sender:
		return proven{}, r.refuseProof(sender, ports.Faulty(ports.FaultSigner, "the record is not that of %s itself", sender))
	case claim.Leave():
		return proven{}, r.refuseProof(sender, ports.Faulty(ports.FaultFields, "the record has no address, which is a leave"))
	case reg.Addr != claim.Addrs[0], len(reg.Addrs) > 0 && !slices.Equal(reg.Addrs, claim.Addrs), len(reg.Meta) > 0 && !maps.Equal(reg.Meta, claim.Meta):
		return proven{}, r.refuseProof(sender, ports.Faulty(ports.FaultFields, "the registration says something else than its record"))
	}
	reg.Addrs, reg.Meta = claim.Addrs, claim.Meta
	if err := r.rules.timely(reg.Proof, r.rules.wall()); err != nil {
		early := reg.Proof
		reg.Proof = nil
		return proven{needRecord: true, early: early}, nil
	}
	return proven{}, nil
}

// recall returns id's newest record and tick, nil if id has not signed, and whether id is live.
func (r *Registry) recall(id ports.PeerID) (newest *ports.Proof, live bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	held := s.record(id).holding()
	return held.newest(), held.lease(r.now().at) != nil
}

// seq returns the highest known Seq of id's records, 0 if id has not signed.
func (r *Registry) seq(id ports.PeerID) int64 {
	if newest, _ := r.recall(id); newest != nil {
		return newest.Claim.Seq
	}
	return 0
}

// supersede refuses an older process with the key of id. The newer process learns of this Rival
// with its next answer.
func (r *Registry) supersede(id ports.PeerID) *ports.Refusal {
	s := r.table.shard(id)
	s.mu.Lock()
	if rec := s.record(id); rec.known() {
		rec.set(rival, true)
	}
	s.mu.Unlock()
	r.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: id})
	return ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since this one started; stop one of them, or give it an identity of its own (data.dir)")
}

// advance returns proof with tick, or proof itself if its own tick is no older.
func (r *Registry) advance(proof *ports.Proof, tick ports.Tick) (*ports.Proof, error) {
	was := proof.Tick
	switch {
	case tick == (ports.Tick{}), tick == was:
		return proof, nil
	case tick.Seq != was.Seq || tick.Step == was.Step || tick.Step > ports.MaxSteps || proof.Claim.Interval == 0:
	case tick.Step > was.Step && r.rules.Proofs.Follows(was.Link, tick.Link, tick.Step-was.Step):
		return &ports.Proof{Record: proof.Record, Tick: tick, Claim: proof.Claim}, nil
	case tick.Step < was.Step && tick.Step == 0 && tick.Link == proof.Claim.Anchor,
		tick.Step < was.Step && r.rules.Proofs.Follows(tick.Link, was.Link, was.Step-tick.Step):
		return proof, nil
	}
	return nil, ports.Faulty(ports.FaultTick, "tick's link is not that of step %d of the record's chain", tick.Step)
}

// refuseProof refuses sender's invalid proof, and tells the observer.
func (r *Registry) refuseProof(sender ports.PeerID, err error) *ports.Refusal {
	r.faulty(sender, "", err)
	if fault, ok := errors.AsType[*ports.ProofError](err); ok && fault.Fault == ports.FaultAddress {
		return ports.Refuse(ports.CodeAddrInvalid, "%v", err)
	}
	return ports.Refuse(ports.CodeProofInvalid, "%v", err)
}

// faulty tells the observer if err is an invalid proof.
func (r *Registry) faulty(id, via ports.PeerID, err error) { tellFault(r.observer, id, via, err) }
