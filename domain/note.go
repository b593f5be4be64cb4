package domain

import (
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// This file notes the changes of a native's own leases, as they happen: News are made of them.

// newsChange is a change of an own lease that is not told yet.
type newsChange struct {
	change
	number uint32
	to     pointer
}

// newsRenewal is a renewal of an own lease that is not told yet.
type newsRenewal struct {
	number    uint32
	step      uint32 // step and link are the tick's, zero in a plain lease
	link      ports.Link
	deadline  Instant
	expiresAt int64 // of a plain lease
}

// granted returns the lease that this native granted, nil without one. It may have ended since.
func (h *holding) granted() *word {
	if h.first.source != granted || h.first.deadline == (Instant{}) {
		return nil
	}
	return &h.first
}

// note remembers for the followers what next, the new holding of r beside held, changes of this native's own
// lease. was and is are the views before and after, and said is a leave that nobody knows yet. The
// caller has locked the shard.
func (s *shard) note(r record, held, next *holding, was, is view, said *word, now Instant) {
	n := s.table.news
	if !n.on.Load() {
		return
	}
	old, own := held.granted(), next.granted()
	switch {
	case said != nil && said.source == granted && own == nil:
		s.noteChange(r, ports.ChangeLeft, said)
	case own == nil && r.number != 0:
		s.noteChange(r, ports.ChangeExpired, old)
	case own == nil:
	case r.number == 0:
		s.noteChange(r, ports.ChangeJoined, own)
	case old == nil || !old.live(now) || !renews(own, old):
		s.noteChange(r, ports.ChangeUpdated, own)
	case own.overdue != old.overdue:
		// Its indexer has hung up, and renewals from before must not come after that. Or it is back, maybe
		// with the tick that it sent before: that is no renewal.
		s.noteChange(r, ports.ChangeUpdated, own)
	case own.deadline != old.deadline || own.tick() != old.tick():
		x := newsRenewal{number: r.number, deadline: own.deadline}
		if own.proof != nil {
			x.step, x.link = own.proof.Tick.Step, own.proof.Tick.Link
		} else {
			x.expiresAt = own.expiresAt
		}
		s.noteRenewal(x)
	}
	if own != nil && is.late && !was.late && is.shown.source == granted && !own.overdue {
		s.noteChange(r, ports.ChangeLate, own)
	}
}

// renews reports whether the lease own differs from the lease old in its tick and its end alone.
func renews(own, old *word) bool {
	if own.early != nil || old.early != nil || own.unproven != old.unproven || !own.same(old) {
		return false
	}
	p, q := own.proof, old.proof
	if p == nil || q == nil {
		return p == q
	}
	return p.Claim.Seq == q.Claim.Seq && p.Claim.Interval != 0
}

// tick returns the tick of w, zero in a plain word.
func (w *word) tick() ports.Tick {
	if w.proof == nil {
		return ports.Tick{}
	}
	return w.proof.Tick
}

// noteChange remembers a change of r's own lease, and keeps its number. The number is given at
// the first lease, and taken at its end. The caller has locked the shard.
func (s *shard) noteChange(r record, kind ports.ChangeKind, w *word) {
	n := s.table.news
	if kind != ports.ChangeLate && r.number != 0 && len(s.renewed) > 0 { // a renewal from before must not follow this change
		s.renewed = slices.DeleteFunc(s.renewed, func(x newsRenewal) bool { return x.number == r.number })
	}
	n.mu.Lock()
	if !kind.Gone() && r.number == 0 {
		r.number = n.unused()
	}
	n.pending = append(n.pending, newsChange{change{kind, r.id(), *w, true}, r.number, r.pointer()})
	n.pended.Add(1)
	if kind.Gone() && r.number != 0 {
		n.freed = append(n.freed, r.number)
		r.number = 0
	}
	if n.watching == 0 && len(n.pending) > maxIdle {
		n.on.Store(false)
	}
	n.mu.Unlock()
	n.kick()
}

// noteRenewal remembers a renewal of an own lease for the next tick. The caller has locked the shard.
func (s *shard) noteRenewal(x newsRenewal) {
	if s.renewed = append(s.renewed, x); len(s.renewed)%maxIdleRenewals == 0 {
		s.table.news.idle()
	}
}
