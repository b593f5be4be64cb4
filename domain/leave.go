package domain

import (
	"context"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Leave implements ports.Native. It takes a microsecond, or as long as a signature takes to
// check, and waits for nobody.
func (r *Registry) Leave(_ context.Context, sender ports.PeerID, record []byte) error {
	proof, refusal := r.proveLeave(sender, record)
	if refusal != nil {
		return refusal
	}
	s := r.table.shard(sender)
	s.mu.Lock()
	c := r.clock()
	if known := s.records[sender]; known != nil && proof != nil {
		if held := known.signed(); held != nil && held.Seq > proof.Claim.Seq {
			s.mu.Unlock()
			return ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since; what it holds here stays")
		}
	}
	rec := s.live(sender, c.now)
	was := s.left(sender, c.now)
	switch {
	case !r.cfg.Indexers.in(sender):
		s.mu.Unlock()
		r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedLeave, PeerID: sender})
		return r.closedTo(sender)
	case was != nil && was.rank == granted && r.saidAlready(&was.lease, proof, c):
		s.mu.Unlock()
		return nil // said already
	case s.records[sender] == nil && r.full():
		s.mu.Unlock()
		return ports.Busy(ports.LimitEntries, "this native holds %d entries, as many as it takes; leave at another, or let the lease end", r.settings.Bounds.entries())
	}
	grant := r.cfg.Policy.Grant(c.time)
	l := lease{native: r.self, rank: granted, deadline: c.now + grant.TTL, expiresAt: grant.ExpiresAt.UnixNano(), seenAt: c.time.UnixNano()}
	if rec != nil {
		l.addr, l.more = rec.addr, rec.more
		if rec.rank == granted {
			// The time of day may have been set back.
			l.expiresAt = max(l.expiresAt, rec.expiresAt+int64(time.Millisecond))
		}
	}
	if proof != nil {
		r.signLeave(&l, proof, ports.RecordLife, c)
	}
	held := s.insert(sender, l.deadline)
	s.leave(held, l, c.now)
	s.refile(held, l.deadline)
	r.outbox.offer(held, c.now, true)
	s.mu.Unlock()

	r.known.remove(sender)
	r.observer.Observe(ports.Event{Kind: ports.EventLeft, PeerID: sender, Joined: rec != nil})
	return nil
}

// saidAlready tells whether a leave that is proven by proof, or bare, says no more than was: it
// ends nothing that was granted since.
func (r *Registry) saidAlready(was *lease, proof *ports.Proof, c clock) bool {
	switch {
	case proof != nil:
		return was.proof != nil && was.proof.Claim.Seq >= proof.Claim.Seq
	case was.proof != nil:
		return true
	}
	return c.time.UnixNano()-was.seenAt < int64(r.cfg.Policy.putInterval()) // it asks again
}

// proveLeave checks the record of a leave, nil if there is none.
func (r *Registry) proveLeave(sender ports.PeerID, record []byte) (*ports.Proof, *ports.Refusal) {
	if record == nil || r.cfg.Proofs == nil {
		return nil, nil
	}
	p := &ports.Proof{Record: record}
	err := r.cfg.verify(p)
	switch {
	case err != nil:
	case p.Claim.PeerID != sender:
		err = ports.Faulty(ports.FaultSigner, "the record is not that of %s itself", sender)
	case !p.Claim.Leave():
		err = ports.Faulty(ports.FaultFields, "the record has addresses, so it is no leave")
	default:
		err = r.cfg.timely(p.Claim, r.cfg.now())
	}
	if err != nil {
		return nil, r.unproven(sender, err)
	}
	return p, nil
}

// signLeave has l be the leave that proof proves. It holds for as long as any record that was
// issued before it counts, at least until its own ends.
func (r *Registry) signLeave(l *lease, proof *ports.Proof, left time.Duration, c clock) {
	l.addr, l.more, l.proof = "", nil, proof
	l.expiresAt = proof.Claim.ExpiresAt(0).UnixNano()
	l.deadline = c.now + max(min(left, ports.RecordLife), proof.Claim.Ends().Sub(c.time))
}

// seq returns the highest that is known of a record of id, 0 for none.
func (r *Registry) seq(id ports.PeerID) int64 {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec := s.records[id]; rec != nil {
		if held := rec.signed(); held != nil {
			return held.Seq
		}
	}
	return 0
}
