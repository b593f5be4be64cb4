package domain

import (
	"cmp"
	"errors"
	"slices"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file is the rule of "Which of two counts" and "Leaves" in docs/protocol.md. Somebody's
// word about an indexer is held against what is held of it, and the rule says what is held then.
// The rule is pure: it takes no lock, reads no clock, and tells nobody.

// maxLeases bounds the leases that are held of one indexer: an indexer keeps three, and a fourth
// while it moves from one native to another.
const maxLeases = 4

// Why a word changes nothing. What is wrong with a proof is a *ports.ProofError instead.
var (
	// errFull is a word about an indexer of which nothing is held, in a table without room.
	errFull = errors.New("the live table is full")
	// errKnown is a word that says no more than what is held.
	errKnown = errors.New("it is known already")
	// errEnded is a lease that was granted before the indexer left.
	errEnded = errors.New("the indexer has left since")
)

// holding is what a native holds of one indexer: a small set of words. The zero holding is that
// of an indexer that nobody has spoken of.
type holding struct {
	first word  // the lease that goes before all others; without a deadline, there is none
	rest  *rest // nil for most indexers, and never changed
}

// rest is what is held of an indexer beside its first lease.
type rest struct {
	leases []word // those that follow on the first, in their order
	leave  *word  // the leave that counts; nil if there is none
	// proof is the newest record and tick, if no word above has them, and until is when the
	// record counts no more.
	proof *ports.Proof
	until Instant
}

// leases calls f with each lease, those first that go before the others, until f returns false.
func (h *holding) leases(f func(*word) bool) {
	if h.first.deadline == (Instant{}) || !f(&h.first) || h.rest == nil {
		return
	}
	for i := range h.rest.leases {
		if !f(&h.rest.leases[i]) {
			return
		}
	}
}

// leave returns the leave that counts at now, nil if there is none.
func (h *holding) leave(at Instant) *word {
	if h.rest == nil || h.rest.leave == nil || !h.rest.leave.live(at) {
		return nil
	}
	return h.rest.leave
}

// lease returns the live lease that goes before the others, nil if there is none.
func (h *holding) lease(at Instant) (lease *word) {
	if h.first.live(at) {
		return &h.first
	}
	h.leases(func(w *word) bool {
		if w.live(at) {
			lease = w
		}
		return lease == nil
	})
	return lease
}

// own returns what this native has to put and announce of the indexer at now, nil if nothing:
// the lease that it granted, or the leave that it took.
func (h *holding) own(at Instant) *word {
	w := h.lease(at)
	if w == nil {
		w = h.leave(at)
	}
	if w == nil || w.source != granted {
		return nil
	}
	return w
}

// newest returns the newest record and tick that are known, nil if the indexer has not signed.
func (h *holding) newest() *ports.Proof {
	best := h.first.proof
	if h.rest == nil {
		return best
	}
	for i := range h.rest.leases {
		best = newer(best, h.rest.leases[i].proof)
	}
	if h.rest.leave != nil {
		best = newer(best, h.rest.leave.proof)
	}
	return newer(best, h.rest.proof)
}

// proof returns the proof of the record with that Seq and the newest tick, nil if it is not held.
func (h *holding) proof(seq int64) (found *ports.Proof) {
	is := func(p *ports.Proof) {
		if p != nil && p.Claim.Seq == seq {
			found = newer(found, p)
		}
	}
	is(h.first.proof)
	if h.rest != nil {
		for i := range h.rest.leases {
			is(h.rest.leases[i].proof)
		}
		if h.rest.leave != nil {
			is(h.rest.leave.proof)
		}
		is(h.rest.proof)
	}
	return found
}

// newer returns the newer of two proofs, p if they are as new; either may be nil.
func newer(p, q *ports.Proof) *ports.Proof {
	switch {
	case p == nil:
		return q
	case q == nil || compareProofs(q, p) <= 0:
		return p
	}
	return q
}

func compareProofs(p, q *ports.Proof) int {
	return cmp.Or(cmp.Compare(p.Claim.Seq, q.Claim.Seq), cmp.Compare(p.Tick.Step, q.Tick.Step))
}

// compareVersion returns -1 if p is older than v, 1 if it is newer, else 0.
func compareVersion(p *ports.Proof, v ports.Version) int {
	return cmp.Or(cmp.Compare(p.Claim.Seq, v.Seq), cmp.Compare(p.Tick.Step, v.Step))
}

// empty reports whether nothing is held.
func (h *holding) empty() bool { return h.first.deadline == (Instant{}) && h.rest == nil }

// remembered reports whether the newest record is all that is held, and until when.
func (h *holding) remembered() (until Instant, only bool) {
	if h.first.deadline != (Instant{}) || h.rest == nil || h.rest.leave != nil {
		return Instant{}, false
	}
	return h.rest.until, true
}

// hold returns what is held with just these leases and this leave. The newest record is
// remembered until it counts no more.
func hold(leases []word, leave *word, newest *ports.Proof, now moment) (h holding) {
	if len(leases) > 0 {
		h.first = leases[0]
	}
	var r rest
	if len(leases) > 1 {
		r.leases = slices.Clone(leases[1:])
	}
	if r.leave = leave; r.leases != nil || leave != nil {
		h.rest = &r
	}
	if best := h.newest(); newest != nil && (best == nil || compareProofs(best, newest) < 0) {
		if remains := newest.Claim.Ends().Add(ports.ClockAllowance).Sub(now.wall); remains > 0 {
			r.proof, r.until = newest, now.at.Add(remains)
			h.rest = &r
		}
	}
	return h
}

// at returns what is held at now: without the words that have ended.
func (h *holding) at(now moment) holding {
	if h.rest == nil && h.first.live(now.at) {
		return *h
	}
	var buf [maxLeases]word
	leases, ended := buf[:0], false
	h.leases(func(w *word) bool {
		if w.live(now.at) {
			leases = append(leases, *w)
		} else {
			ended = true
		}
		return true
	})
	leave := h.leave(now.at)
	if h.rest != nil {
		ended = ended || leave != h.rest.leave || h.rest.proof != nil && !now.at.Before(h.rest.until)
	}
	if !ended {
		return *h
	}
	return hold(leases, leave, h.newest(), now)
}

// rule is what merge goes by besides what is held and what is said.
type rule struct {
	policy TTLPolicy
	plain  Plain // what is believed of indexers that do not sign
}

// shown returns the lease that is shown of the indexer at now, nil if none is live. It is the
// first one. Once a heartbeat of that is overdue, it is the one of the same address that lasts
// longest of those that another native told.
func (r rule) shown(h *holding, at Instant) *word {
	shown := h.lease(at)
	if shown == nil || h.rest == nil || !r.policy.late(shown.deadline.Sub(at)) {
		return shown
	}
	first := shown
	h.leases(func(w *word) bool {
		if w.source == told && w.same(first) && shown.deadline.Before(w.deadline) {
			shown = w
		}
		return true
	})
	return shown
}

// merge returns what is held once w is said of an indexer of which h is held, or why w changes
// nothing: ErrExpired, errUntrusted, errKnown, errEnded, errFull without room for one more
// indexer, or a *ports.ProofError.
func (r rule) merge(h holding, w word, room bool, now moment) (holding, error) {
	switch {
	case !w.live(now.at):
		return h, ErrExpired
	case !r.stands(&w):
		return h, errUntrusted
	}
	h = h.at(now)
	if w.leave {
		if leave := h.leave(now.at); leave != nil && leave.proof != nil && w.proof != nil && leave.proof.Claim.Seq == w.proof.Claim.Seq && (w.source != granted || leave.source == granted) {
			return h, errKnown // every native hands it on
		}
	}
	if err := w.against(&h, now.at); err != nil {
		return h, err
	}
	next, err := h.with(w, now)
	if err == nil && !room && h.empty() {
		err = errFull
	}
	if err != nil {
		return h, err
	}
	return next, nil
}

// with returns what is held once w is said, which nothing that is held refuses.
func (h *holding) with(w word, now moment) (holding, error) {
	if w.leave {
		return h.withLeave(w, now)
	}
	return h.withLease(w, now)
}

// revise returns what still stands of h, after a change of what is believed.
func (r rule) revise(h holding, now moment) holding {
	h = h.at(now)
	var buf [maxLeases]word
	leases, fallen := buf[:0], false
	h.leases(func(w *word) bool {
		if r.stands(w) {
			leases = append(leases, *w)
		} else {
			fallen = true
		}
		return true
	})
	if !fallen {
		return h
	}
	return hold(leases, h.leave(now.at), h.newest(), now)
}

// stands reports whether w counts by what is believed of indexers that do not sign. A leave
// does in any case: it lists nobody.
func (r rule) stands(w *word) bool {
	return r.plain != PlainRefuse || w.proof != nil || w.unproven || w.leave
}

// against returns why w does not count beside what the indexer is known to have signed.
func (w *word) against(h *holding, at Instant) error {
	newest := h.newest()
	switch {
	case newest == nil:
		return nil
	case w.proof == nil && w.source == granted:
		return nil // the indexer itself said so here
	case w.proof == nil:
		return ports.Faulty(ports.FaultRank, "the indexer signs for itself, and this is not its word")
	}
	switch c := compareProofs(w.proof, newest); {
	case c < 0 && w.leave && w.endsAny(h):
		return nil // of a record before the newest
	case c < 0, c == 0 && w.source != granted && h.lease(at) == nil:
		return ports.Faulty(ports.FaultOlder, "a newer record or tick of the indexer is known")
	}
	return nil
}

// endsAny reports whether the leave w ends a lease of h.
func (w *word) endsAny(h *holding) (does bool) {
	h.leases(func(l *word) bool {
		does = w.ends(l)
		return !does
	})
	return does
}

// withLease returns what is held once the lease w is granted.
func (h *holding) withLease(w word, now moment) (holding, error) {
	leave := h.leave(now.at)
	if leave != nil && !w.survives(leave) {
		return *h, errEnded
	}
	if leave != nil && leave.proof == nil && w.proof != nil {
		leave = nil // from now on only what the indexer signs counts
	}
	if h.rest == nil && h.first.source == granted && w.source == granted && (w.proof != nil || h.first.proof == nil) {
		w.share(&h.first)
		return holding{first: w}, nil // what most heartbeats are
	}
	var buf [maxLeases + 1]word
	leases, known := buf[:0], false
	newest := newer(w.proof, h.newest())
	h.leases(func(l *word) bool {
		w.share(l)
		switch {
		case w.displaces(l), l.echoes(&w):
			return true
		case w.echoes(l), w.slot() == l.slot() && l.outlasts(&w):
			known = true
			return false
		case w.slot() == l.slot():
			if w.source == told && w.proof != nil && l.proof != nil {
				w.deadline = latest(w.deadline, l.deadline) // what is proven, no native takes back by telling less
			}
			return true
		}
		leases = append(leases, *l)
		return true
	})
	if known {
		return *h, errKnown
	}
	i := slices.IndexFunc(leases, func(l word) bool { return w.before(&l) })
	if i < 0 {
		i = len(leases)
	}
	leases = slices.Insert(leases, i, w)
	return hold(leases[:min(len(leases), maxLeases)], leave, newest, now), nil
}

// share has w take its text from l if it is the same: so there is one copy of what stays.
func (w *word) share(l *word) {
	if w.same(l) {
		w.addr, w.details = l.addr, l.details
	}
}

// slot is what there is one lease of: this native's own, one of each native that tells, and one
// that the store has.
func (w *word) slot() (s struct {
	source source
	native unique.Handle[ports.PeerID]
}) {
	if s.source = w.source; w.source == told {
		s.native = w.native
	}
	return s
}

// outlasts reports whether l stays in its slot when w comes. A native's later word takes the
// place of its earlier one, however long it lasts. The store has no order, so what ends later
// stays, and the indexer's own word in any case.
func (l *word) outlasts(w *word) bool {
	return l.source == stored && w.version().Compare(l.version()) <= 0
}

// echoes reports whether w is what the store has of the lease l, or of an earlier one: both are
// the word of one native, and end by its clock.
func (w *word) echoes(l *word) bool {
	return w.source == stored && l.source != stored && w.native == l.native && w.proof == nil && l.proof == nil && w.expiresAt <= l.expiresAt
}

// displaces reports whether l has no place beside w: w is signed, and l either is not and was
// not granted here, or says something else and was signed before.
func (w *word) displaces(l *word) bool {
	switch {
	case w.proof == nil:
		return false
	case l.proof == nil:
		return l.source != granted
	}
	is, was := w.proof.Claim, l.proof.Claim
	return is.Seq > was.Seq && (is.Start != was.Start || !w.same(l))
}

// before reports whether the lease w goes before the lease l: what was granted here, then what
// the indexer has signed, then what its native tells, then what lasts longer.
func (w *word) before(l *word) bool {
	switch {
	case (w.source == granted) != (l.source == granted):
		return w.source == granted
	case (w.proof == nil) != (l.proof == nil):
		return w.proof != nil
	case w.source != l.source:
		return w.source > l.source
	}
	return l.deadline.Before(w.deadline)
}

// withLeave returns what is held once the leave w is said.
func (h *holding) withLeave(w word, now moment) (holding, error) {
	var buf [maxLeases]word
	leases, ended := buf[:0], false
	h.leases(func(l *word) bool {
		if w.ends(l) {
			ended = true
		} else {
			leases = append(leases, *l)
		}
		return true
	})
	leave := h.leave(now.at)
	if leave != nil && !w.replaces(leave) && !ended {
		return *h, errKnown
	}
	newest := newer(w.proof, h.newest())
	if leave == nil || w.replaces(leave) {
		leave = &w
	}
	return hold(leases, leave, newest, now), nil
}

// ends reports whether the leave w ends the lease l. A leave that is taken here ends what was
// granted here, and what is held that it did not sign.
func (w *word) ends(l *word) bool {
	if w.source == granted && (l.source == granted || w.proof == nil && l.proof != nil) {
		return true
	}
	return !l.survives(w)
}

// replaces reports whether the leave w counts in the place of the leave o: a signed one before a
// bare one, the one with the higher Seq, what an indexer or its native said before what the
// store has, and what was said later.
func (w *word) replaces(o *word) bool {
	switch {
	case (w.proof == nil) != (o.proof == nil):
		return w.proof != nil
	case w.proof != nil && w.proof.Claim.Seq != o.proof.Claim.Seq:
		return w.proof.Claim.Seq > o.proof.Claim.Seq
	case w.proof != nil:
		return w.source == granted && o.source != granted
	case (w.source == stored) != (o.source == stored):
		return w.source != stored
	case w.native == o.native || w.source == stored:
		return w.expiresAt > o.expiresAt
	}
	return o.deadline.Before(w.deadline)
}

// survives reports whether the lease l stands against the leave: it is held more firmly, or was
// granted after it. Of one clock, a native's own or the store's, the times are compared as it
// said them; of two natives, by this native's clock.
func (l *word) survives(leave *word) bool {
	switch of, by := l.proof, leave.proof; {
	case of != nil && by != nil:
		return of.Claim.Seq > by.Claim.Seq
	case of != nil: // nobody else ends what the indexer signed
		return true
	case by != nil:
		return l.source == granted
	}
	switch {
	case l.source == granted, l.source == told && leave.source == stored:
		return true
	case l.source == stored, l.native == leave.native:
		return l.expiresAt > leave.expiresAt
	}
	return leave.deadline.Before(l.deadline)
}
