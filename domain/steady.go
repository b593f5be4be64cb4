package domain

import (
	"slices"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file renews leases in their packed form. Most heartbeats renew a lease and change nothing else:
// then nothing is unpacked, and no memory taken. All else goes by merge and apply, which decide the
// same.

// steady is a packed holding of live leases of one text, or of one record: a renewal of one of them
// changes what nobody is told.
type steady struct {
	rec    record
	leases [maxLeases][]byte
	count  int
	signed bool
	said   []byte // the record if the leases are signed, else the text
}

// steady returns the holding of r in parts. It is not ok unless watchers know its first lease, which is not
// late, and want no renewals. The caller has locked the shard.
func (s *shard) steady(r record, at Instant) (is steady, ok bool) {
	const oneRecord, oneText = 1, 1 << 4
	if !r.known() || r.block == 0 || r.shown != 1 || r.place != inEntries || !r.is(waits) || r.is(staled|shownLate) || s.table.changes.renewals.Load() {
		return is, false
	}
	b := s.arena.at(r.block)
	head, kept := b[0], b[1]
	if head == 0 || head > maxLeases || kept != oneRecord && kept != oneText {
		return is, false // no lease, or a leave or a remembered record beside it
	}
	is = steady{rec: r, count: int(head), signed: kept == oneRecord, said: b[packedHead:]}
	for i := range is.count {
		w := is.said
		flags := w[0] &^ wordUnseen
		if is.signed != (flags&wordSigned != 0) || flags&^(wordSource|wordSigned) != 0 || source(flags&wordSource) == stored || !at.Before(deadlineOf(w)) {
			return is, false
		}
		is.leases[i], is.said = w, w[wordBytes(w):]
	}
	return is, true
}

func deadlineOf(w []byte) Instant { return Instant{time.Duration(order8.Uint64(w[wordDeadline:]))} }

func sourceOf(w []byte) source { return source(w[0] & wordSource) }

// claim returns the times of the record.
func (is *steady) claim() ports.Claim {
	return ports.Claim{
		Seq:      int64(order8.Uint64(is.said[recordSeq:])),
		Interval: time.Duration(order8.Uint32(is.said[recordInterval:])) * time.Millisecond,
		TTL:      time.Duration(order8.Uint32(is.said[recordTTL:])) * time.Millisecond,
	}
}

// newest returns the newest step and link of the record. It has a chain.
func (is *steady) newest() (step uint32, link ports.Link) {
	return uint32(order8.Uint16(is.said[recordStep:])), ports.Link(is.said[recordMore:])
}

// follows reports whether a tick is the newest or a few steps behind it, and counts at that time of
// day. All other ticks are left to advance and timely.
func (is *steady) follows(step uint32, link ports.Link, c *ports.Claim, proofs ports.Verifier, wall time.Time) bool {
	if is.said[0]&recordChained == 0 || proofs == nil {
		return false
	}
	if c.Due(step).After(wall.Add(ports.ClockAllowance)) || !wall.Before(c.Ends().Add(ports.ClockAllowance)) {
		return false
	}
	was, from := is.newest()
	switch {
	case step == was:
		return link == from
	case step < was || step-was > hashesLocked || step > ports.MaxSteps:
		return false
	}
	return proofs.Follows(from, link, step-was)
}

// renew writes that the i-th lease ends at deadline, and its other time: expiresAt in a plain lease,
// seenAt in a signed lease.
func (is *steady) renew(i int, deadline Instant, other int64) {
	w, first := is.leases[i], deadlineOf(is.leases[0])
	w[0] &^= wordUnseen
	order8.PutUint64(w[wordDeadline:], uint64(deadline.since))
	order8.PutUint64(w[wordTime:], uint64(other))
	if sourceOf(is.leases[0]) == told && first.Before(deadline) && i > 0 { // it is the longest now
		for k := range wordBytes(w) {
			is.leases[0][k], w[k] = w[k], is.leases[0][k]
		}
	}
	if deadlineOf(is.leases[0]) != first {
		is.rec.set(lookedAhead|echoed, false)
	}
	if s := is.rec.shard; s.unpacked.ref == is.rec.ref {
		s.unpacked.holding = nil
	}
}

// advance writes the tick of the i-th lease.
func (is *steady) advance(i int, step uint32, link ports.Link) {
	order8.PutUint16(is.leases[i][wordMore:], uint16(step))
	order8.PutUint16(is.said[recordStep:], uint16(step))
	copy(is.said[recordMore:], link[:])
}

// keepsFirst reports whether the first lease is clear once the i-th lease ends at deadline, and ends no
// earlier than now: of leases that natives tell, the longest, and no other ends with it. See word.before.
func (is *steady) keepsFirst(i int, deadline Instant) bool {
	first := deadlineOf(is.leases[0])
	switch {
	case sourceOf(is.leases[0]) == granted:
		return true
	case i > 0:
		return deadline != first
	case deadline.Before(first):
		return false
	}
	for _, w := range is.leases[1:is.count] {
		if deadlineOf(w) == deadline {
			return false
		}
	}
	return true
}

// says reports whether reg says what the leases say.
func (is *steady) says(reg *ports.Registration) bool {
	b := is.said
	if is.signed {
		b = b[recordMore+len(ports.Link{})+ports.SignatureBytes:]
		if is.said[0]&recordAnchored != 0 {
			b = b[len(ports.Link{}):]
		}
	}
	n, bare := int(b[0]&^textBare), b[0]&textBare != 0
	b = b[1:]
	addrs := len(reg.Addrs)
	for i := range n {
		var a []byte
		a, b = nextString(b)
		if i == 0 && string(a) != reg.Addr || i < addrs && string(a) != reg.Addrs[i] {
			return false
		}
	}
	labels := int(b[0])
	switch {
	case b[0] > ports.MaxMetaNames:
		return false
	case is.signed && addrs == 0, addrs == n && (!bare || labels == 0), addrs == 0 && bare:
	default:
		return false
	}
	if is.signed && len(reg.Meta) == 0 {
		return true
	}
	if labels != len(reg.Meta) {
		return false
	}
	b = b[1:]
	for range labels {
		var name, value []byte
		name, b = nextString(b)
		value, b = nextString(b)
		if got, ok := reg.Meta[string(name)]; !ok || got != string(value) {
			return false
		}
	}
	return true
}

// renewOwn renews sender's lease of this native, if reg does no more than that, and reports whether it
// did.
func (r *Registry) renewOwn(sender ports.PeerID, reg *ports.Registration, g *grant) bool {
	p := reg.Proof
	if p != nil && p.Record != nil || p == nil && r.rules.plain() == PlainRefuse {
		return false
	}
	s, hash := r.table.locate(sender)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	is, ok := s.steady(s.recordOf(sender, hash), now.at)
	if !ok || !is.rec.is(owned) || sourceOf(is.leases[0]) != granted || is.signed != (p != nil) {
		return false
	}
	if !is.says(reg) || r.table.hearing.fresh(now.at) || !r.rules.Indexers.in(sender) {
		return false
	}
	news := s.table.news.on.Load()
	if news && is.rec.number == 0 {
		return false // it gets one
	}
	*g = grant{Lease: r.rules.Policy.Grant(now.wall), remaining: deadlineOf(is.leases[0]).Sub(now.at)}
	x := newsRenewal{number: is.rec.number, deadline: now.at.Add(g.TTL)}
	if p != nil {
		claim := is.claim()
		was := uint32(order8.Uint16(is.leases[0][wordMore:]))
		if p.Tick.Seq != claim.Seq || p.Tick.Step == was || !is.follows(p.Tick.Step, p.Tick.Link, &claim, r.rules.Proofs, now.wall) {
			return false
		}
		is.renew(0, x.deadline, now.wall.UnixNano())
		is.advance(0, p.Tick.Step, p.Tick.Link)
		x.step, x.link = p.Tick.Step, p.Tick.Link
		g.Seq, g.Proven = claim.Seq, r.goesOn(&claim, p.Tick.Step, now)
	} else {
		x.expiresAt = g.ExpiresAt.UnixNano()
		is.renew(0, x.deadline, x.expiresAt)
	}
	g.Clocks, g.Rival = r.clocks(), is.rec.is(rival)
	is.rec.set(rival|hasHungUp, false)
	r.table.hearing.renewed.Add(1)
	if news {
		s.noteRenewal(x)
	}
	r.outbox.renew(is.rec, now.at, g.remaining)
	return true
}

// renewSteady renews the lease that native told, if x does no more than that, and reports whether it did. The
// caller has locked the shard.
func (r *Registry) renewSteady(s *shard, x *renewal, native unique.Handle[ports.PeerID], now moment) bool {
	rec := s.of(x.is.pointer)
	is, ok := s.steady(rec, now.at)
	if !ok || x.remaining <= 0 || is.signed != (x.Link != ports.Link{}) || r.rules.Indexers != nil && !r.rules.Indexers.in(rec.id()) {
		return false
	}
	i := slices.IndexFunc(is.leases[:is.count], func(w []byte) bool {
		return sourceOf(w) == told && r.table.names.handle(number(w[wordNative:])) == native
	})
	if i < 0 {
		return false
	}
	was, deadline := deadlineOf(is.leases[i]), now.at.Add(min(x.remaining, r.rules.Policy.TTL))
	var other int64
	var claim ports.Claim
	if is.signed {
		claim = is.claim()
		if x.is.record != uint16(claim.Seq) || !is.follows(x.Step, x.Link, &claim, r.rules.Proofs, now.wall) {
			return false
		}
		deadline = latest(was, earliest(deadline, now.at.Add(claim.ExpiresAt(x.Step).Sub(now.wall))))
		other = claim.Due(x.Step).UnixNano()
	} else {
		if r.rules.plain() == PlainRefuse || x.remaining > r.rules.Policy.TTL {
			return false
		}
		other = r.plainEnd(x.ExpiresAt, x.remaining, now)
	}
	first := deadlineOf(is.leases[0])
	if sourceOf(is.leases[0]) == told {
		first = latest(first, deadline)
	}
	if !now.at.Before(deadline) || !is.keepsFirst(i, deadline) || r.rules.Policy.late(first.Sub(now.at)) {
		return false
	}
	if is.signed {
		is.advance(i, x.Step, x.Link)
	}
	is.renew(i, deadline, other)
	return true
}
