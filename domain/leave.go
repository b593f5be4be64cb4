package domain

import (
	"context"
	"errors"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Leave implements ports.Native. It takes a microsecond, or the check of a signature, and does no
// I/O.
func (r *Registry) Leave(_ context.Context, sender ports.PeerID, record []byte) error {
	proof, refusal := r.checkLeave(sender, record)
	if refusal != nil {
		return refusal
	}
	b, already, refusal := r.takeLeave(sender, proof)
	switch {
	case refusal != nil && refusal.Code == ports.CodeRefused:
		r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedLeave, PeerID: sender})
		return refusal
	case refusal != nil:
		return refusal
	case already:
		return nil
	}
	r.known.remove(sender)
	r.observer.Observe(ports.Event{Kind: ports.EventLeft, PeerID: sender, Joined: b.left})
	return nil
}

// takeLeave takes sender's leave; proof is nil for a bare one. It reports whether this native
// knew the leave already.
func (r *Registry) takeLeave(sender ports.PeerID, proof *ports.Proof) (b became, already bool, _ *ports.Refusal) {
	s := r.table.shard(sender)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	rec := s.record(sender)
	held := rec.holding()
	lease, leave, newest := held.lease(now.at), held.leave(now.at), held.newest()
	switch {
	case proof != nil && newest != nil && newest.Claim.Seq > proof.Claim.Seq:
		return b, false, ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since; what it holds here stays")
	case !r.rules.Indexers.in(sender):
		return b, false, r.refuseStranger(sender)
	case lease == nil && leave != nil && leave.source == granted && r.saidAlready(leave, proof, now):
		return b, true, nil
	}
	lasts := r.rules.Policy.Grant(now.wall)
	w := word{native: r.self, source: granted, leave: true, deadline: now.at.Add(lasts.TTL), expiresAt: lasts.ExpiresAt.UnixNano(), seenAt: now.wall.UnixNano()}
	if lease != nil {
		w.addr, w.details = lease.addr, lease.details
	}
	if proof != nil {
		w.setLeave(proof, ports.RecordLife, now)
	} else {
		// In the store, too, the leave is later than the lease that it ends, also if the time of
		// day was set back.
		held.leases(func(l *word) bool {
			if l.source == granted {
				w.expiresAt = max(w.expiresAt, l.expiresAt+int64(time.Millisecond))
			}
			return true
		})
	}
	next, err := r.rule().merge(held, &w, rec.known() || !r.full(), now)
	switch {
	case errors.Is(err, errFull):
		return b, false, ports.Busy(ports.LimitEntries, "this native holds %d entries, as many as it takes; leave at another, or let the lease end", r.settings.Bounds.entries())
	case err != nil:
		return b, true, nil // a stronger leave is known
	}
	if !rec.known() {
		rec = s.insert(sender)
	}
	b = s.apply(rec, &next, now)
	r.outbox.tell(rec, now.at)
	return b, false, nil
}

// saidAlready reports whether a leave with that proof, nil for a bare one, adds nothing to the
// leave was. The indexer has no live lease.
func (r *Registry) saidAlready(was *word, proof *ports.Proof, now moment) bool {
	switch {
	case proof != nil:
		return was.proof != nil && was.proof.Claim.Seq >= proof.Claim.Seq
	case was.proof != nil:
		return true
	}
	return now.wall.UnixNano()-was.seenAt < int64(r.rules.Policy.putInterval()) // the indexer repeats itself
}

// checkLeave checks the record of a leave. It returns nil for a leave without a record.
func (r *Registry) checkLeave(sender ports.PeerID, record []byte) (*ports.Proof, *ports.Refusal) {
	if record == nil || r.rules.Proofs == nil {
		return nil, nil
	}
	p := &ports.Proof{Record: record}
	err := r.rules.verify(p)
	switch {
	case err != nil:
	case p.Claim.PeerID != sender:
		err = ports.Faulty(ports.FaultSigner, "the record is not that of %s itself", sender)
	case !p.Claim.Leave():
		err = ports.Faulty(ports.FaultFields, "the record has addresses, so it is no leave")
	default:
		err = r.rules.timely(p, r.rules.wall())
	}
	if err != nil {
		return nil, r.refuseProof(sender, err)
	}
	return p, nil
}
