package domain

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// These errors say why a native's News are refused.
var (
	errNumber = errors.New("its number stands for no indexer")
	errUnheld = errors.New("the lease that it renews is not held here")
	errBound  = errors.New("its number is higher than a native has indexers")
)

// hashesLocked is how many steps of a chain are hashed under the lock of a shard, a microsecond
// of them. An indexer that missed more heartbeats is rare.
const hashesLocked = 8

// rarely is after how many renewals a number is asked for again whose lease is refused here. So a
// table that has room again has its indexer after as many heartbeats.
const rarely = 4

// ledger is what a followed native has told by number, whether or not this native believes it.
type ledger struct {
	tally
	reconciliation
	bound   uint32   // the highest number that it may tell
	missing []uint32 // numbers that were renewed, and have no lease here to renew
	changed int      // how often a number was told to stand for something else than before
	revised uint32   // how often the rules had changed when the last News were taken in
}

// newLedger returns the ledger of a native that had no more than the usual room for indexers, or than
// this one. A native with less room lists a part of them, whatever their numbers are.
func newLedger(b Bounds) *ledger { return &ledger{bound: uint32(max(b.entries(), DefaultEntries))} }

// clear forgets all numbers: the native tells its table anew.
func (l *ledger) clear() { l.tally, l.missing = tally{}, nil }

// takeBatch takes in what the native from has told, in a batch that was held up so long.
func (r *Registry) takeBatch(from ports.PeerID, l *ledger, b *ports.Batch, heldUp time.Duration) taken {
	if b.News == nil && len(b.Sums) == 0 {
		return r.takeOldChanges(from, b.Changes, heldUp)
	}
	var t taken
	if l.changed = 0; b.News != nil {
		t = r.takeNews(from, l, b.News, heldUp+b.Age)
	}
	if ended := l.compare(b, r.rules.Policy.sumsInterval()); ended != nil {
		ended.Via = from
		r.observer.Observe(*ended)
	}
	return t
}

// takeNews takes in the News that the native from told so long ago.
func (r *Registry) takeNews(from ports.PeerID, l *ledger, news *ports.News, ago time.Duration) (t taken) {
	if revised := r.revised.Load(); l.revised != revised {
		l.revised = revised
		l.forgive()
	}
	for i, c := range r.prepare(from, news.Changes) {
		switch c.Kind {
		case ports.ChangeLate: // its lease ends as it was told
		case ports.ChangeExpired: // told leases end by this native's own clock
			l.free(c.Number)
		case ports.ChangeLeft:
			l.free(c.Number)
			_ = r.takeOldChange(&t, from, c, ago)
		case ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated:
			err := r.takeOldChange(&t, from, c, ago)
			r.enter(&t, l, from, &news.Changes[i], err == nil)
		default:
			_ = r.takeOldChange(&t, from, c, ago)
		}
	}
	native := unique.Make(from)
	for i := range news.Renewals {
		r.takeRenewal(&t, l, native, &news.Renewals[i], ago)
	}
	r.tellTaken(from, t)
	return t
}

// enter notes in l what the number of the change c stands for. accepted says that c counts here.
func (r *Registry) enter(t *taken, l *ledger, from ports.PeerID, c *ports.Change, accepted bool) {
	switch {
	case c.Number == 0 || c.Native != from:
		return
	case c.Number > l.bound:
		t.refused++
		t.why = fmt.Errorf("%s: %w", c.PeerID, errBound)
		return
	}
	p := c.Proof
	item := itemOf(c.PeerID, p, c.ExpiresAt.UnixNano(), r.rules.Proofs)
	if was := l.at(c.Number); was == nil || !was.stands || was.item != item {
		l.changed++
	}
	if l.since != nil {
		l.since[c.Number] = true
	}
	is := l.define(c.Number, c.PeerID, r.pointerTo(c.PeerID), item)
	if p != nil {
		is.record = uint16(p.Tick.Seq)
	}
	if accepted {
		is.tries = 0
	}
}

// pointerTo returns a pointer to the record of id, if there is one.
func (r *Registry) pointerTo(id ports.PeerID) pointer {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(id).pointer()
}

// takeRenewal takes in the renewal x that native told so long ago. It counts for as much as a change
// with the same proof: see takeChange.
func (r *Registry) takeRenewal(t *taken, l *ledger, native unique.Handle[ports.PeerID], x *ports.Renewal, ago time.Duration) {
	t.renewals++
	is := l.at(x.Number)
	if is == nil || !is.stands {
		t.changes++
		t.refused++
		t.why = fmt.Errorf("number %d: %w", x.Number, errNumber)
		return
	}
	remaining := x.Remaining - ago
	l.set(is, is.renewed(x.Link, x.ExpiresAt))
	id, b, err := r.renewTold(is, native, x, remaining)
	if errors.Is(err, errUnheld) { // no fault of native: it ended here a moment ago, or was refused
		l.miss(x.Number, is)
		t.changes++
		return
	}
	r.outcome(t, native.Value(), id, b, err)
	if err == nil {
		if is.tries = 0; x.Link != (ports.Link{}) {
			t.signed++
		}
		t.lag = max(r.rules.Policy.TTL-remaining, 1)
	}
}

// renewTold renews the lease that native told of the indexer of is, and returns that indexer. It is ""
// if the lease is not held here.
func (r *Registry) renewTold(is *numbered, native unique.Handle[ports.PeerID], x *ports.Renewal, remaining time.Duration) (id ports.PeerID, b became, _ error) {
	switch {
	case remaining <= 0:
		return id, b, ErrExpired
	case x.Link == ports.Link{} && remaining > r.rules.Policy.TTL:
		return id, b, errNoTime
	}
	s := r.table.shardOf(is.ref)
	for advanced := (*ports.Proof)(nil); ; {
		s.mu.Lock()
		rec, now := s.of(is.pointer), r.now()
		if r.renewSteady(s, rec, is.record, native, x, remaining, now) {
			s.mu.Unlock()
			return id, b, nil
		}
		if rec.known() {
			id = rec.id()
		}
		held := rec.holding()
		w, from, err := r.renewedWord(id, held, is.record, native, x, remaining, advanced, now)
		if from != nil { // many steps
			s.mu.Unlock()
			if advanced, err = r.advance(from, ports.Tick{Seq: from.Tick.Seq, Step: x.Step, Link: x.Link}); err != nil {
				return id, b, err
			}
			continue
		}
		if err == nil && !r.rules.Indexers.in(id) { // under the lock, as Revise wants it
			err = errUntrusted
		}
		var next holding
		if err == nil {
			next, err = r.rule().merge(held, &w, true, now)
		}
		if err == nil {
			b = s.apply(rec, &next, now)
		}
		s.mu.Unlock()
		if errors.Is(err, errKnown) || errors.Is(err, errEnded) {
			err = nil
		}
		if isFault(err, ports.FaultFuture) { // it may count as the word of native alone
			b, err = r.takeChange(native.Value(), &ports.Change{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: w.entry(id), Remaining: remaining}})
		}
		return id, b, err
	}
}

// renewedWord returns the lease of id that native told, as x renews it. record has the last bits of the Seq
// of the record that native told. advanced is the
// proof of x if it is known. far is not nil if that is to be made without the lock: far is to be
// advanced by many steps. The error is that of x; with errors of time w is whole. The caller has locked the shard.
func (r *Registry) renewedWord(id ports.PeerID, held *holding, record uint16, native unique.Handle[ports.PeerID], x *ports.Renewal, remaining time.Duration, advanced *ports.Proof, now moment) (w word, far *ports.Proof, _ error) {
	signed := x.Link != ports.Link{} && r.rules.Proofs != nil
	lease := held.toldBy(native)
	if lease == nil || !lease.live(now.at) || signed != (lease.proof != nil) {
		return w, nil, errUnheld
	}
	w = *lease
	w.unproven, w.overdue = false, false
	w.deadline = now.at.Add(min(remaining, r.rules.Policy.TTL))
	if !signed {
		if r.rules.plain() == PlainRefuse {
			return w, nil, ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", id)
		}
		w.expiresAt = r.plainEnd(x.ExpiresAt, remaining, now)
		w.seenAt = w.expiresAt - int64(r.rules.Policy.TTL)
		return w, nil, nil
	}
	newest := held.proof(lease.proof.Claim.Seq)
	switch {
	case record != uint16(newest.Claim.Seq):
		return w, nil, errUnheld // the record of x was refused, or its lease is of an older one
	case x.Step < newest.Tick.Step:
		return w, nil, ports.Faulty(ports.FaultOlder, "a newer tick is known")
	case advanced != nil:
	case x.Step-newest.Tick.Step > hashesLocked:
		return w, newest, nil
	default:
		var err error
		if advanced, err = r.advance(newest, ports.Tick{Seq: newest.Tick.Seq, Step: x.Step, Link: x.Link}); err != nil {
			return w, nil, err
		}
	}
	w.proof = advanced
	ends := advanced.Claim.ExpiresAt(x.Step)
	w.expiresAt, w.seenAt = ends.UnixNano(), advanced.Claim.Due(x.Step).UnixNano()
	w.deadline = earliest(w.deadline, now.at.Add(ends.Sub(now.wall)))
	return w, nil, r.rules.timely(advanced, now.wall)
}

// toldBy returns the lease that native told, nil without one.
func (h *holding) toldBy(native unique.Handle[ports.PeerID]) *word {
	if h.first.source == told && h.first.native == native && h.first.deadline != (Instant{}) {
		return &h.first
	}
	return h.rest.of(&word{source: told, native: native})
}

// miss notes that number n has no lease here to renew. The native may have told it while this
// native refused it. It is asked for less and less often if that comes to nothing.
func (l *ledger) miss(n uint32, is *numbered) {
	if is.tries++; is.tries&(is.tries-1) == 0 || is.tries%rarely == 0 {
		l.missing = append(l.missing, n)
	}
	if len(l.missing) > 2*int(l.count)+maxWhole { // a native that does not answer repeats its renewals
		l.tidy()
	}
}

// tidy puts the missing numbers in order, each once, without those that stand for nothing any more.
func (l *ledger) tidy() {
	slices.Sort(l.missing)
	l.missing = slices.Compact(l.missing)
	l.missing = slices.DeleteFunc(l.missing, func(n uint32) bool { return !l.stands(n) })
}

// forgive has each number asked for at its next renewal if it has no lease here.
func (l *ledger) forgive() { l.each(0, 0, func(_ uint32, is *numbered) { is.tries = 0 }) }
