package domain

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file takes in the renewals that a followed native tells by number.

// hashesLocked is how many steps of a chain are hashed under the lock of a shard, a microsecond
// of them. An indexer that missed more heartbeats is rare.
const hashesLocked = 8

// renewalsAtOnce is how many renewals are taken in together: four a shard if there are as many.
const renewalsAtOnce = 256

// renewals are renewals that a native told, in a list for each shard.
type renewals struct {
	native unique.Handle[ports.PeerID]
	all    [renewalsAtOnce]renewal
	first  [shardCount]uint16 // 1 + the place of the first of a list, 0 for an empty list
	last   [shardCount]uint16
}

type renewal struct {
	*ports.Renewal
	is        *numbered
	remaining time.Duration
	next      uint16 // 1 + the place of the next of its list, 0 for none
}

// takeRenewals takes in the renewals that the native from told so long ago. Those of one shard keep their order.
func (r *Registry) takeRenewals(t *taken, l *ledger, from ports.PeerID, all []ports.Renewal, ago time.Duration) {
	t.renewals += len(all)
	for some := range slices.Chunk(all, renewalsAtOnce) {
		told := renewals{native: unique.Make(from)}
		for i := range some {
			x := &some[i]
			is := l.at(x.Number)
			if is == nil || !is.stands {
				t.changes++
				t.refused++
				t.why = fmt.Errorf("number %d: %w", x.Number, errNumber)
				continue
			}
			l.set(is, renewedItem(is.content, x.Link, x.ExpiresAt))
			told.add(uint16(i+1), renewal{Renewal: x, is: is, remaining: x.Remaining - ago})
		}
		now := r.now() // no deadline is later by it than by a clock that is read for each
		for i, first := range told.first {
			if first != 0 {
				r.takeRenewalsOf(&r.table.shards[i], t, l, &told, first, now)
			}
		}
	}
}

// add appends x, at place-1, to the list of its shard.
func (told *renewals) add(place uint16, x renewal) {
	shard := x.is.ref % shardCount
	told.all[place-1] = x
	if last := told.last[shard]; last != 0 {
		told.all[last-1].next = place
	} else {
		told.first[shard] = place
	}
	told.last[shard] = place
}

// takeRenewalsOf takes in the renewals of the list of s, which begins at place first-1.
func (r *Registry) takeRenewalsOf(s *shard, t *taken, l *ledger, told *renewals, first uint16, now moment) {
	s.mu.Lock()
	s.fetch(told, first)
	for at := first; at != 0; {
		x := &told.all[at-1]
		at = x.next
		if r.renewSteady(s, x, told.native, now) {
			t.renewed(x, r.rules.Policy.TTL)
			t.changes++
			t.accepted++
			continue
		}
		s.mu.Unlock()
		r.takeRenewal(t, l, x, told.native)
		s.mu.Lock()
	}
	s.mu.Unlock()
}

// fetch reads what the renewals of a list need, before it is needed. No read waits for another indexer's, as
// it would later: a processor waits as long for the memory of one as for that of a few at once. The caller has locked
// the shard.
func (s *shard) fetch(told *renewals, first uint16) {
	var sum byte
	for at := first; at != 0; {
		x := &told.all[at-1]
		at = x.next
		if rec := s.of(x.is.pointer); rec.known() && rec.block != 0 {
			b := s.arena.at(rec.block)
			sum += b[0] + b[len(b)/2]
		}
	}
	runtime.KeepAlive(sum)
}

// renewed takes note that x counts.
func (t *taken) renewed(x *renewal, ttl time.Duration) {
	if x.is.tries = 0; x.Link != (ports.Link{}) {
		t.signed++
	}
	t.lag = max(ttl-x.remaining, 1)
}

// takeRenewal takes in the renewal x of native. It counts for as much as a change with the same
// proof: see takeChange.
func (r *Registry) takeRenewal(t *taken, l *ledger, x *renewal, native unique.Handle[ports.PeerID]) {
	id, b, err := r.renewTold(l, x, native)
	if errors.Is(err, errUnheld) { // no fault of native: it ended here a moment ago, or was refused
		l.miss(x.Number, x.is)
		t.changes++
		return
	}
	if r.outcome(t, native.Value(), id, b, err); err == nil {
		t.renewed(x, r.rules.Policy.TTL)
	}
}

// renewTold renews the lease that native told of the indexer of x, and returns that indexer. It is ""
// if the lease is not held here.
func (r *Registry) renewTold(l *ledger, x *renewal, native unique.Handle[ports.PeerID]) (id ports.PeerID, b became, _ error) {
	switch {
	case x.remaining <= 0:
		return id, b, ErrExpired
	case x.Link == ports.Link{} && x.remaining > r.rules.Policy.TTL:
		return id, b, errNoTime
	}
	s := r.table.shardOf(x.is.ref)
	for advanced := (*ports.Proof)(nil); ; {
		s.mu.Lock()
		rec, now := s.of(x.is.pointer), r.now()
		if rec.known() {
			id = rec.id()
		}
		held := rec.holding()
		w, from, err := r.renewedWord(id, held, x, native, advanced, now)
		if from != nil { // many steps
			s.mu.Unlock()
			if advanced, err = r.advanceTold(l, from, ports.Tick{Seq: from.Tick.Seq, Step: x.Step, Link: x.Link}); err != nil {
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
			b, err = r.takeChange(native.Value(), l, &ports.Change{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: w.entry(id), Remaining: x.remaining}})
		}
		return id, b, err
	}
}

// renewedWord returns the lease of id that native told, as x renews it. advanced is the proof
// of x if it is known. far is not nil if that is to be made without the lock: far is to be
// advanced by many steps. The error is that of x; with errors of time w is whole. The caller has locked the shard.
func (r *Registry) renewedWord(id ports.PeerID, held *holding, x *renewal, native unique.Handle[ports.PeerID], advanced *ports.Proof, now moment) (w word, far *ports.Proof, _ error) {
	signed := x.Link != ports.Link{} && r.rules.Proofs != nil
	lease := held.toldBy(native)
	if lease == nil || !lease.live(now.at) || signed != (lease.proof != nil) {
		return w, nil, errUnheld
	}
	w = *lease
	w.unproven, w.overdue = false, false
	w.deadline = now.at.Add(min(x.remaining, r.rules.Policy.TTL))
	if !signed {
		if r.rules.plain() == PlainRefuse {
			return w, nil, ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", id)
		}
		w.expiresAt = r.plainEnd(x.ExpiresAt, x.remaining, now)
		w.seenAt = w.expiresAt - int64(r.rules.Policy.TTL)
		return w, nil, nil
	}
	newest := held.proof(lease.proof.Claim.Seq)
	switch {
	case x.is.record != uint16(newest.Claim.Seq):
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
