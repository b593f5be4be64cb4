package domain

import (
	"cmp"
	"errors"
	"slices"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file is the rule of "Which of two counts" and "A leave" in docs/protocol.md: merge takes
// the holding of an indexer and a new word about it, and returns the next holding. The rule is
// pure: it takes no lock, reads no clock, and calls no observer.

// maxLeases bounds the leases that a native holds of one indexer: an indexer keeps three, and a
// fourth while it moves from one native to another.
const maxLeases = 4

// These errors say why a word changes nothing. For an invalid proof it is a *ports.ProofError.
var (
	// errFull refuses a word about a new indexer: the table has no room.
	errFull = errors.New("the live table is full")
	// errKnown refuses a word that adds nothing to the holding.
	errKnown = errors.New("it is known already")
	// errEnded refuses a lease from before its indexer left.
	errEnded = errors.New("the indexer has left since")
)

// holding is the words that a native holds of one indexer. The zero holding is that of an unknown
// indexer.
type holding struct {
	first word  // the lease that goes before all others; a zero deadline means no lease
	rest  *rest // nil for most indexers, and never changed
}

// rest is a holding beside its first lease.
type rest struct {
	leases []word // the leases after the first, in their order
	leave  *word  // the leave that counts; nil without a leave
	// proof is the newest record and tick, if no word above has them, and until is the
	// end of that record.
	proof *ports.Proof
	until Instant
}

// leases calls f with each lease, in their order, until f returns false.
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

// leave returns the leave that counts at that instant, nil without a leave.
func (h *holding) leave(at Instant) *word {
	if h.rest == nil || h.rest.leave == nil || !h.rest.leave.live(at) {
		return nil
	}
	return h.rest.leave
}

// lease returns the first lease that is live at that instant, nil without a live lease.
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

// own returns the word that this native puts and announces: the lease that it granted, or the
// leave that it took. It is nil if another word counts.
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

// newest returns the newest known record and tick, nil if the indexer has not signed.
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

// proof returns the record with that Seq and its newest tick, nil if no word has it.
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

// newer returns the newer of two proofs, p if both are as new. Either may be nil.
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

// empty reports whether the holding has nothing.
func (h *holding) empty() bool { return h.first.deadline == (Instant{}) && h.rest == nil }

// remembered reports whether the holding is only its newest record, and until when.
func (h *holding) remembered() (until Instant, only bool) {
	if h.first.deadline != (Instant{}) || h.rest == nil || h.rest.leave != nil {
		return Instant{}, false
	}
	return h.rest.until, true
}

// hold returns the holding of these leases and this leave. It keeps the newest signed record until
// the record's hour ends, so that no older record counts again.
func hold(leases []word, leave *word, newest *ports.Proof, now moment) (h holding) {
	if len(leases) > 0 {
		h.first = leases[0]
	}
	var others []word
	if len(leases) > 1 {
		others = slices.Clone(leases[1:])
	}
	if others != nil || leave != nil {
		h.rest = &rest{leases: others, leave: leave}
	}
	if best := h.newest(); newest != nil && (best == nil || compareProofs(best, newest) < 0) {
		if remains := newest.Claim.Ends().Add(ports.ClockAllowance).Sub(now.wall); remains > 0 {
			h.rest = &rest{leases: others, leave: leave, proof: newest, until: now.at.Add(remains)}
		}
	}
	return h
}

// at returns the holding without the words that have ended by now.
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

// rule is the settings of merge.
type rule struct {
	policy TTLPolicy
	plain  Plain // whether plain words count
}

// shown returns the lease that callers see at that instant, nil without a live lease. It is the
// first lease. While that is late, a longer lease of the same address stands for it, if another
// native told it.
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

// merge returns the holding after w, or why w changes nothing of h: ErrExpired, errUntrusted,
// errKnown, errEnded, errFull for a new indexer without room, or a *ports.ProofError.
func (r rule) merge(h holding, w word, room bool, now moment) (holding, error) {
	switch {
	case !w.live(now.at):
		return h, ErrExpired
	case !r.stands(&w):
		return h, errUntrusted
	}
	h = h.at(now)
	if w.leave && w.source != granted {
		if leave := h.leave(now.at); leave != nil && leave.proof != nil && w.proof != nil && leave.proof.Claim.Seq == w.proof.Claim.Seq {
			return h, errKnown // every native hands a signed leave on
		}
	}
	if err := w.against(&h, now.at); err != nil {
		return h, err
	}
	if !room && h.empty() {
		return h, errFull
	}
	return h.with(w, now)
}

// with returns the holding after w, which passed against.
func (h *holding) with(w word, now moment) (holding, error) {
	if w.leave {
		return h.withLeave(w, now)
	}
	return h.withLease(w, now)
}

// revise returns h without the leases that the rule does not believe any more.
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

// stands reports whether the rule believes w. It believes every leave: a leave lists no
// indexer.
func (r rule) stands(w *word) bool {
	return r.plain != PlainRefuse || w.proof != nil || w.unproven || w.leave
}

// against returns why w does not count beside the newest proof of h.
func (w *word) against(h *holding, at Instant) error {
	newest := h.newest()
	switch {
	case newest == nil:
		return nil
	case w.proof == nil && w.source == granted:
		return nil // the indexer itself registered or left here
	case w.proof == nil:
		return ports.Faulty(ports.FaultRank, "the indexer signs for itself, and this is not its word")
	}
	switch c := compareProofs(w.proof, newest); {
	case c < 0 && w.leave && w.endsAny(h):
		return nil // an older leave counts if it ends a lease
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

// withLease returns the holding after the lease w.
func (h *holding) withLease(w word, now moment) (holding, error) {
	leave := h.leave(now.at)
	if leave != nil && !w.survives(leave) {
		return *h, errEnded
	}
	if leave != nil && leave.proof == nil && w.proof != nil {
		leave = nil // the indexer signs from now on: a bare leave counts no more
	}
	if h.rest == nil && h.first.source == granted && w.source == granted && (w.proof != nil || h.first.proof == nil) {
		w.share(&h.first)
		return holding{first: w}, nil // most heartbeats
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
				w.deadline = latest(w.deadline, l.deadline) // no native shortens a proven lease
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

// share lets w use the text of l if both are the same: so memory has one copy.
func (w *word) share(l *word) {
	if w.same(l) {
		w.addr, w.details = l.addr, l.details
	}
}

// slot returns the key of the leases that replace each other. A holding has one own lease, one of
// each native that tells, and one of the store.
func (w *word) slot() (s struct {
	source source
	native unique.Handle[ports.PeerID]
}) {
	if s.source = w.source; w.source == told {
		s.native = w.native
	}
	return s
}

// outlasts reports whether l stays in its slot when w comes. A native's later word replaces its
// earlier word, however long that lasts. Answers of the store come in no order, so the newer
// version stays.
func (l *word) outlasts(w *word) bool {
	return l.source == stored && w.version().Compare(l.version()) <= 0
}

// echoes reports whether w is the store's copy of the lease l, or of an earlier lease of the same
// native: both end by that native's clock.
func (w *word) echoes(l *word) bool {
	return w.source == stored && l.source != stored && w.native == l.native && w.proof == nil && l.proof == nil && w.expiresAt <= l.expiresAt
}

// displaces reports whether the signed lease w removes l: l is plain and was not granted here, or
// l is of an older record with another start, address or metadata.
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

// before reports whether the lease w goes before the lease l: a lease granted here, then a signed
// lease, then a told lease, then the longer lease.
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

// withLeave returns the holding after the leave w.
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

// ends reports whether the leave w ends the lease l. A leave that this native took ends the lease
// that it granted. A bare leave here ends signed leases too: the indexer itself says so.
func (w *word) ends(l *word) bool {
	if w.source == granted && (l.source == granted || w.proof == nil && l.proof != nil) {
		return true
	}
	return !l.survives(w)
}

// replaces reports whether the leave w counts in the place of the leave o. A signed leave goes
// before a bare one, a higher Seq before a lower, a leave of an indexer or a native before one
// of the store, and a later leave before an earlier.
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

// survives reports whether the lease l stands against the leave: its source is stronger, or it
// was granted later. Times of one native, or of the store, are compared as they were said. Times
// of two natives are compared by this native's clock.
func (l *word) survives(leave *word) bool {
	switch of, by := l.proof, leave.proof; {
	case of != nil && by != nil:
		return of.Claim.Seq > by.Claim.Seq
	case of != nil: // no bare leave ends a signed lease
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
