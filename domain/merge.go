package domain

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
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
	// errShare refuses one from a peer that fills its share of the table.
	errShare = fmt.Errorf("%w for what this peer tells; name it in trust.natives or host.bootstrap if it is yours", errFull)
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
	leases []word // the leases beside the first, in no order
	store  bool   // one of them is the store's
	leaves leaves
	// proof is the newest record and tick, if no word above has them, and until is the
	// end of that record.
	proof *ports.Proof
	until Instant
}

// leaves are the leaves that count of one indexer. A bare leave of the store goes by another clock
// than those that natives tell, so neither replaces the other.
type leaves struct {
	said   *word // a signed leave, or one that a native told or took; nil without one
	stored *word // a bare leave of the store; nil without one
}

// at returns the leaves that have not ended by that instant.
func (v leaves) at(at Instant) leaves {
	if v.said != nil && !v.said.live(at) {
		v.said = nil
	}
	if v.stored != nil && !v.stored.live(at) {
		v.stored = nil
	}
	return v
}

// end reports whether one of the leaves ends the lease l, which came after them.
func (v leaves) end(l *word) bool {
	return v.said != nil && !l.survives(v.said) || v.stored != nil && !l.survives(v.stored)
}

// slot returns the place of the leave w.
func (v *leaves) slot(w *word) **word {
	if w.source == stored && w.proof == nil {
		return &v.stored
	}
	return &v.said
}

// leases calls f with each lease, the first one first, until f returns false.
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

// nth returns the n-th lease, counted from 1; nil for 0. place returns the place of the lease w.
func (h *holding) nth(n int) *word {
	switch {
	case n == 0:
		return nil
	case n == 1:
		return &h.first
	}
	return &h.rest.leases[n-2]
}

func (h *holding) place(w *word) int {
	switch w {
	case nil:
		return 0
	case &h.first:
		return 1
	}
	for i := range h.rest.leases {
		if w == &h.rest.leases[i] {
			return i + 2
		}
	}
	panic("domain: the lease is of another holding")
}

// leaves returns the leaves that count at that instant.
func (h *holding) leaves(at Instant) leaves {
	if h.rest == nil {
		return leaves{}
	}
	return h.rest.leaves.at(at)
}

// leave returns the leave that others are told of at that instant, nil without a leave.
func (h *holding) leave(at Instant) *word {
	v := h.leaves(at)
	if v.said != nil {
		return v.said
	}
	return v.stored
}

// lease returns the first lease that is live at that instant, nil without a live lease.
func (h *holding) lease(at Instant) (lease *word) {
	if h.first.live(at) {
		return &h.first
	}
	h.leases(func(w *word) bool {
		if w.live(at) && (lease == nil || w.before(lease)) {
			lease = w
		}
		return true
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
	if h.rest.leaves.said != nil {
		best = newer(best, h.rest.leaves.said.proof)
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
		if h.rest.leaves.said != nil {
			is(h.rest.leaves.said.proof)
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

// sameRecord reports whether two proofs are of one record.
func sameRecord(p, q *ports.Proof) bool {
	return p.Claim == q.Claim || p.Claim.Seq == q.Claim.Seq && len(p.Record) > 0 && bytes.Equal(p.Record, q.Record)
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
	if h.first.deadline != (Instant{}) || h.rest == nil || h.rest.leaves != (leaves{}) {
		return Instant{}, false
	}
	return h.rest.until, true
}

// hold returns the holding of these leases and leaves. It keeps the newest signed record until
// the record's hour ends, so that no older record counts again.
func hold(leases []word, v leaves, newest *ports.Proof, now moment) (h holding) {
	for i := range leases { // the first of them goes to the front
		if leases[i].before(&leases[0]) {
			leases[0], leases[i] = leases[i], leases[0]
		}
	}
	if len(leases) > 0 {
		h.first = leases[0]
	}
	if len(leases) > 1 || v != (leaves{}) {
		h.rest = newRest(leases[min(len(leases), 1):], v)
	}
	if best := h.newest(); newest != nil && (best == nil || compareProofs(best, newest) < 0) {
		if remains := newest.Claim.Ends().Add(ports.ClockAllowance).Sub(now.wall); remains > 0 {
			h.rest = newRest(leases[min(len(leases), 1):], v)
			h.rest.proof, h.rest.until = newest, now.at.Add(remains)
		}
	}
	return h
}

// newRest returns a rest with a copy of these leases, in one piece of memory: each change of a lease
// behind the first makes a new one.
func newRest(leases []word, v leaves) (r *rest) {
	switch len(leases) {
	case 0:
		return &rest{leaves: v}
	case 1:
		one := new(struct {
			rest
			words [1]word
		})
		r = &one.rest
		r.leases = append(one.words[:0], leases...)
	case 2:
		two := new(struct {
			rest
			words [2]word
		})
		r = &two.rest
		r.leases = append(two.words[:0], leases...)
	default:
		r = &rest{leases: slices.Clone(leases)}
	}
	r.leaves = v
	for i := range r.leases {
		r.store = r.store || r.leases[i].source == stored
	}
	return r
}

// whole reports whether no word of the holding has ended by now.
func (h *holding) whole(now moment) bool {
	if r := h.rest; r != nil {
		if r.leaves != r.leaves.at(now.at) || r.proof != nil && !now.at.Before(r.until) {
			return false
		}
		for i := range r.leases {
			if !r.leases[i].live(now.at) {
				return false
			}
		}
	}
	return h.first.deadline == (Instant{}) || h.first.live(now.at)
}

// at returns the holding without the words that have ended by now.
func (h *holding) at(now moment) holding {
	if h.whole(now) {
		return *h
	}
	var buf [maxLeases]word
	leases := buf[:0]
	h.leases(func(w *word) bool {
		if w.live(now.at) {
			leases = append(leases, *w)
		}
		return true
	})
	return hold(leases, h.leaves(now.at), h.newest(), now)
}

// rule is the settings of merge.
type rule struct {
	policy TTLPolicy
	plain  Plain // whether plain words count
}

// shown returns the lease that callers see at that instant, nil without a live lease. It is the
// first lease. While that is late, a lease of the same address stands for it that another native told,
// if it is longer, or if the indexer has hung up here and not there.
func (r rule) shown(h *holding, at Instant) *word {
	shown := h.lease(at)
	if shown == nil || h.rest == nil || !r.policy.isLate(shown, at) {
		return shown
	}
	first := shown
	h.leases(func(w *word) bool {
		longer := shown.deadline.Before(w.deadline) || shown != first && shown.deadline == w.deadline && w.before(shown)
		if w.overdue != shown.overdue {
			longer = shown.overdue
		}
		if w.source == told && w.live(at) && w.same(first) && longer {
			shown = w
		}
		return true
	})
	return shown
}

// merge returns the holding after w, or why w changes nothing of h: ErrExpired, errUntrusted,
// errKnown, errEnded, errFull for a new indexer without room, or a *ports.ProofError. h stays as it
// is. w takes the text of a lease that says the same, so that memory has one copy.
func (r rule) merge(h *holding, w *word, room bool, now moment) (holding, error) {
	switch {
	case !w.live(now.at):
		return *h, ErrExpired
	case !r.stands(w):
		return *h, errUntrusted
	}
	held := h
	if !h.whole(now) {
		live := h.at(now)
		held = &live
	}
	if said := held.leaves(now.at).said; w.leave && w.source != granted && w.proof != nil && said != nil && said.proof != nil && said.proof.Claim.Seq == w.proof.Claim.Seq {
		return *held, errKnown // every native hands a signed leave on
	}
	if err := w.against(held, now.at); err != nil {
		return *held, err
	}
	if !room && held.empty() {
		return *held, errFull
	}
	if w.leave {
		return held.withLeave(w, now)
	}
	return held.withLease(w, now)
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
	return hold(leases, h.leaves(now.at), h.newest(), now)
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
	case w.proof == nil && (w.source == granted || w.unproven):
		return nil // the indexer itself registered or left here, or signed for later
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
func (h *holding) withLease(w *word, now moment) (holding, error) {
	v := h.leaves(now.at)
	if v.end(w) {
		return *h, errEnded
	}
	if w.proof != nil {
		v = leaves{} // w survived a signed leave, and a bare leave counts no more
	}
	if next, ok := h.renew(w); ok {
		return next, nil
	}
	var buf [maxLeases + 1]word
	leases, known := buf[:0], false
	newest := newer(w.proof, h.newest())
	h.leases(func(l *word) bool {
		w.share(l)
		switch {
		case w.displaces(l), l.echoes(w):
			return true
		case w.echoes(l), w.slot() == l.slot() && l.outlasts(w):
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
	if leases = append(leases, *w); len(leases) > maxLeases {
		last := 0
		for i := range leases {
			if leases[last].before(&leases[i]) {
				last = i
			}
		}
		leases = slices.Delete(leases, last, last+1)
	}
	return hold(leases, v, newest, now), nil
}

// renew returns the holding after w, if w does no more than to renew a lease: this native's own, or
// one behind it that another native tells, or the only one, which another native tells. Most heartbeats
// are such. They take no memory, or one piece.
func (h *holding) renew(w *word) (next holding, ok bool) {
	sole := h.rest == nil && h.first.source == told && w.source == told && w.native == h.first.native
	if !sole && (h.first.source != granted || h.rest != nil && (h.rest.store || h.rest.proof != nil)) {
		return next, false // the lease of the store, or the newest record, may change too
	}
	old := &h.first
	if w.source != granted && !sole {
		if old = h.rest.of(w); old == nil {
			return next, false
		}
	}
	if p, q := w.proof, old.proof; p != q && (p == nil || q == nil || !sameRecord(p, q)) {
		return next, false // another record, or none
	}
	if w.proof != nil && h.rest.unproven() {
		return next, false // it gives way
	}
	w.share(old)
	if w.source == granted {
		return holding{first: *w, rest: h.rest}, true
	}
	if w.proof != nil {
		w.deadline = latest(w.deadline, old.deadline)
	}
	if sole {
		return holding{first: *w}, true
	}
	next = holding{first: h.first, rest: newRest(h.rest.leases, h.rest.leaves)}
	*next.rest.of(w) = *w
	return next, true
}

// unproven reports whether a lease of r is unproven.
func (r *rest) unproven() bool {
	return r != nil && slices.ContainsFunc(r.leases, func(l word) bool { return l.unproven })
}

// of returns the lease in the slot of w, nil without one.
func (r *rest) of(w *word) *word {
	if r == nil {
		return nil
	}
	for i := range r.leases {
		if r.leases[i].slot() == w.slot() {
			return &r.leases[i]
		}
	}
	return nil
}

// share lets w use the text of l if both are the same.
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
// lease, then a told lease, then the longer lease, then the newer version, then the native whose
// PeerID sorts first.
func (w *word) before(l *word) bool {
	switch {
	case (w.source == granted) != (l.source == granted):
		return w.source == granted
	case (w.proof == nil) != (l.proof == nil):
		return w.proof != nil
	case w.source != l.source:
		return w.source > l.source
	}
	if w.deadline != l.deadline {
		return l.deadline.Before(w.deadline)
	}
	// Two natives tell one tick, and it ends for both at once. The same one is shown whoever tells first.
	if c := w.version().Compare(l.version()); c != 0 {
		return c > 0
	}
	return w.native.Value() < l.native.Value()
}

// withLeave returns the holding after the leave w.
func (h *holding) withLeave(w *word, now moment) (holding, error) {
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
	v, newest := h.leaves(now.at), newer(w.proof, h.newest())
	old := v.slot(w)
	switch counts := *old == nil || w.replaces(*old); {
	case w.proof != nil && compareProofs(w.proof, newest) < 0:
		// It ends leases of before it, and the indexer has come back since.
	case counts && w.proof != nil:
		kept := *w
		v = leaves{said: &kept} // a bare leave counts no more
	case counts:
		kept := *w
		*old = &kept
	case !ended:
		return *h, errKnown
	}
	return hold(leases, v, newest, now), nil
}

// ends reports whether the leave w ends the lease l, which came before it. A bare leave that this
// native took ends every lease, and a signed one the lease that this native granted: the indexer
// itself says so here.
func (w *word) ends(l *word) bool {
	return w.source == granted && (w.proof == nil || l.source == granted) || !l.survives(w)
}

// replaces reports whether the leave w counts in the place of the leave o of its slot. A bare leave
// that this native took goes before what others say, since it is to be put and told. Then a signed
// leave goes before a bare one, a higher Seq before a lower, and a later leave before an earlier.
func (w *word) replaces(o *word) bool {
	switch {
	case w.source == granted && w.proof == nil && o.source != granted:
		return true // the newest record is remembered all the same
	case (w.proof == nil) != (o.proof == nil):
		return w.proof != nil
	case w.proof != nil && w.proof.Claim.Seq != o.proof.Claim.Seq:
		return w.proof.Claim.Seq > o.proof.Claim.Seq
	case w.proof != nil:
		return w.source == granted && o.source != granted
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
