package domain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file takes in what others say of indexers: what natives announce, what the store has,
// and what natives tell that this one follows.

// maxSkew is how wrong another native's clock may be for its deadlines to mean anything
// here: an hour, for one that has the wrong idea of summer time.
const maxSkew = time.Hour

// Why a change that a native told is not taken in.
var (
	errNotIts   = errors.New("a lease of another native is not its to tell")
	errNoTime   = errors.New("it ends later than a lease can")
	errNoChange = errors.New("no change that one native tells another")
)

// heard takes note of an announcement, and sees to it that what is behind it is
// looked up now.
func (r *Registry) heard(a ports.Announcement) {
	if !r.rules.Indexers.in(a.PeerID) {
		r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedAnnouncement, PeerID: a.PeerID, Via: a.From})
		return
	}
	r.observer.Observe(ports.Event{Kind: ports.EventHeard, PeerID: a.PeerID, Via: a.From})
	keep, known := r.echo(a.PeerID)
	if keep {
		return
	}
	if !known {
		r.know(a.PeerID, false)
	}
	// A native that is followed tells by itself what it announces. What it does not tell is
	// looked up at the tick.
	if !r.follower.Follows(a.From) {
		r.find(a.PeerID, neighbour(a))
	}
}

// echo takes note that id was announced. A lease that is held firmly needs no look-up and is
// kept, but the indexer may be moving: shortly before the lease ends here, id is looked up. An
// indexer is known that is listed, or has left.
func (r *Registry) echo(id ports.PeerID) (keep, known bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	held := s.holding(id)
	lease := held.lease(at)
	keep = lease != nil && lease.source != stored && at.Before(lease.deadline.Add(-r.rules.Policy.lookAhead()))
	if keep {
		s.records[id].echoed = true
	}
	return keep, lease != nil || held.leave(at) != nil
}

// neighbour is in whose name an announcement is looked up: its author's if that is
// a neighbour of this native, else the neighbour's who handed it on. A neighbour
// that hands on what a thousand made-up authors say is one asker.
func neighbour(a ports.Announcement) ports.PeerID {
	if a.Via == "" || a.Via == a.From {
		return a.From
	}
	return "via " + a.Via
}

// find looks id up: at once in what this node holds, which is where most of what is
// announced is by then, and if that has no news in the network, when it is asker's
// turn.
func (r *Registry) find(id, asker ports.PeerID) {
	if !r.rules.Indexers.in(id) {
		r.known.remove(id)
		return
	}
	_, err := r.lookUp(id, func(have ports.Version) (Entry, error) { return r.store.Local(id, have) })
	if err != nil {
		r.lookups.Ask(id, asker)
	}
}

// know adds id to what is known and not alive here; lost means that it was until now.
func (r *Registry) know(id ports.PeerID, lost bool) {
	for _, evicted := range r.known.add(id, lost, r.table.len()+r.settings.Bounds.unfound()) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: evicted})
	}
}

// refresh looks up whatever is known and not alive here.
func (r *Registry) refresh() {
	for _, id := range r.known.all() {
		r.find(id, onTick)
	}
}

// lookUp gets what is newer than the table has of id, takes it in, and returns it as a lease
// that may be listed, with the error of take. errFull is a lease that counts here, and that the
// table has no room for.
func (r *Registry) lookUp(id ports.PeerID, get func(have ports.Version) (Entry, error)) (word, error) {
	have, began := r.have(id)
	entry, err := get(have)
	if err != nil {
		return word{}, err
	}
	w, b, err := r.takeEntry(id, entry)
	if errors.Is(err, errKnown) || errors.Is(err, errEnded) {
		err = nil // the table knows better
	}
	if err != nil {
		r.faulty(id, "", err)
		return w, err
	}
	r.observe(id, entry.Native, b)
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Via: entry.Native, Joined: b.joined, Took: r.now().at.Sub(began)})
	return w, nil
}

// have returns how new the word is that the table goes by, to be asked for what is newer.
func (r *Registry) have(id ports.PeerID) (have ports.Version, at Instant) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	held := s.holding(id).at(now)
	if lease := held.lease(now.at); lease != nil {
		have = lease.version()
	} else if leave := held.leave(now.at); leave != nil {
		have = leave.version()
	}
	if newest := held.newest(); newest != nil && compareVersion(newest, have) > 0 {
		have.Seq, have.Step = newest.Claim.Seq, newest.Tick.Step
	}
	return have, now.at
}

// observe tells the observer what the word of via made of id.
func (r *Registry) observe(id, via ports.PeerID, b became) {
	if b.expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	if b.left {
		r.observer.Observe(ports.Event{Kind: ports.EventLeft, PeerID: id, Via: via, Joined: true})
	}
}

// take holds w, which others say of id, against what is held, and carries out what that
// decides. The error is one of merge's.
func (r *Registry) take(id ports.PeerID, w func(now moment) (word, error)) (word, became, error) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	said, err := w(now)
	if err != nil {
		return said, became{}, err
	}
	if !r.rules.Indexers.in(id) { // under the lock, as Revise wants it
		return said, became{}, errUntrusted
	}
	next, err := r.rule().merge(*s.holding(id), said, s.records[id] != nil || !r.full(), now)
	if err != nil {
		return said, became{}, err
	}
	b := s.apply(s.insert(id), next, now)
	if b.joined || said.leave {
		r.known.remove(id)
	}
	return said, b, nil
}

// takeEntry takes what the store says of id into the table, unless the table knows better.
func (r *Registry) takeEntry(id ports.PeerID, e Entry) (word, became, error) {
	if e.PeerID != id {
		return word{}, became{}, ErrNotItself
	}
	if err := r.rules.Acceptable(&e); err != nil {
		return word{}, became{}, err
	}
	return r.take(id, func(now moment) (word, error) {
		return r.storedWord(e, now), r.rules.Believes(&e)
	})
}

// storedWord returns what e means here: what is left of the lease by the time of day, and never
// more than a lease can have.
func (r *Registry) storedWord(e Entry, now moment) word {
	w := word{
		proof: e.Proof, source: stored, leave: e.Leave,
		addr: e.Addr, details: detailsOf(e.Addrs, e.Meta), native: unique.Make(e.Native), expiresAt: e.ExpiresAt.UnixNano(),
		deadline: now.at.Add(min(e.ExpiresAt.Sub(now.wall), r.rules.Policy.TTL)),
	}
	if ago := now.wall.Sub(e.SeenAt); ago < MaxTTL { // else it does not say, or nothing sensible
		w.seenAt = now.wall.Add(-max(ago, 0)).UnixNano()
	}
	if e.Leave && e.Proof != nil {
		w.setLeave(e.Proof, 0, now)
	}
	return w
}

// hear takes in what the native from told, and returns how long the newest of it was under
// way, 0 if nothing was new.
func (r *Registry) hear(from ports.PeerID, changes []ports.Change) (lag time.Duration) {
	if len(changes) == 0 {
		return 0
	}
	refused := 0
	var why error
	for i := range changes {
		c := changes[i] // which others may be given too
		b, err := r.takeChange(from, &c)
		r.observe(c.PeerID, from, b)
		if b.joined {
			r.observer.Observe(ports.Event{Kind: ports.EventJoined, PeerID: c.PeerID, Via: from, Joined: true})
		}
		switch {
		case err == nil:
			if c.Kind != ports.ChangeSnapshot {
				lag = max(r.rules.Policy.TTL-c.Remaining, 1)
			}
		case errors.Is(err, errUntrusted):
			r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedChange, PeerID: c.PeerID, Via: from})
		case isOlder(err): // it was said twice, or had been under way
			r.faulty(c.PeerID, from, err)
		case !errors.Is(err, ErrExpired): // which is nobody's fault
			r.faulty(c.PeerID, from, err)
			refused++
			why = fmt.Errorf("%s: %w", c.PeerID, err)
		}
	}
	r.observer.Observe(ports.Event{Kind: ports.EventTold, Via: from, Changes: len(changes), Refused: refused, Err: why})
	return lag
}

// isOlder reports whether err is a proof that is older than what is known.
func isOlder(err error) bool {
	fault, ok := errors.AsType[*ports.ProofError](err)
	return ok && fault.Fault == ports.FaultOlder
}

// takeChange takes in one change that the native from told. What the table knows already, or
// better, is no error.
func (r *Registry) takeChange(from ports.PeerID, c *ports.Change) (became, error) {
	switch {
	case c.PeerID == "", c.Kind == ports.ChangeExpired, c.Kind == ports.ChangeLate:
		return became{}, errNoChange
	case c.Native != from && c.Kind != ports.ChangeLeft:
		return became{}, errNotIts
	case c.Remaining > r.rules.Policy.TTL && c.Proof == nil:
		return became{}, errNoTime
	case c.Remaining <= 0:
		return became{}, ErrExpired
	}
	if err := r.checkTold(from, c); err != nil {
		return became{}, err
	}
	if c.Kind != ports.ChangeLeft && !r.says(c) {
		// Addresses are parsed, which is not done under the lock.
		if err := r.rules.checkAddrs(c.PeerID, c.Addr, c.Addrs); err != nil {
			return became{}, err
		}
	}
	_, b, err := r.take(c.PeerID, func(now moment) (word, error) { return r.toldWord(from, c, now), nil })
	if errors.Is(err, errKnown) || errors.Is(err, errEnded) {
		err = nil
	}
	return b, err
}

// says reports whether a lease of c's indexer has the addresses and metadata that c has.
func (r *Registry) says(c *ports.Change) (is bool) {
	s := r.table.shard(c.PeerID)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := word{addr: c.Addr, details: detailsOf(c.Addrs, c.Meta)}
	s.holding(c.PeerID).leases(func(l *word) bool {
		is = l.same(&w)
		return !is
	})
	return is
}

// toldWord returns what c, which the native from told, means here: it ends by this native's
// clock, and no later than its proof says.
func (r *Registry) toldWord(from ports.PeerID, c *ports.Change, now moment) word {
	w := word{
		source: told, leave: c.Kind == ports.ChangeLeft, native: unique.Make(c.Native),
		deadline: now.at.Add(c.Remaining), expiresAt: c.ExpiresAt.UnixNano(), proof: c.Proof,
	}
	if !c.SeenAt.IsZero() {
		w.seenAt = c.SeenAt.UnixNano()
	}
	switch {
	case !w.leave: // what is proven may be told by a native that grants longer leases
		w.addr, w.details = c.Addr, detailsOf(c.Addrs, c.Meta)
		w.deadline = earliest(w.deadline, now.at.Add(r.rules.Policy.TTL))
	case c.Native != from:
		w.source = stored // handed on
	}
	switch {
	case w.proof == nil:
		// By any clock that is near enough to this one, it ends when it says. Else what it says
		// could keep the store's word out for ever.
		if ends := now.wall.Add(c.Remaining); c.ExpiresAt.Sub(ends).Abs() > maxSkew {
			w.expiresAt = ends.UnixNano()
		}
	case w.leave:
		w.setLeave(w.proof, c.Remaining, now)
	default:
		ends := w.proof.Claim.ExpiresAt(w.proof.Tick.Step)
		w.expiresAt = ends.UnixNano()
		w.deadline = earliest(w.deadline, now.at.Add(ends.Sub(now.wall)))
	}
	return w
}

// checkTold checks what a change that the native from told is proven by, and fills in what
// the proof says.
func (r *Registry) checkTold(from ports.PeerID, c *ports.Change) error {
	p := c.Proof
	switch {
	case p == nil && r.rules.plain() == PlainRefuse:
		return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", c.PeerID)
	case p == nil || r.rules.Proofs == nil:
		c.Proof = nil
		return nil
	}
	proof := r.proofOf(c.PeerID, p.Tick.Seq)
	switch {
	case proof != nil && (p.Record == nil || bytes.Equal(proof.Record, p.Record)):
		if p.Tick.Step < proof.Tick.Step {
			return ports.Faulty(ports.FaultOlder, "a newer tick is known")
		}
		advanced, err := r.advance(proof, p.Tick)
		if err != nil {
			return err
		}
		c.Proof = advanced
	case p.Record == nil && p.Tick.Seq < r.seq(c.PeerID):
		return ports.Faulty(ports.FaultOlder, "a newer record is known")
	case p.Record == nil:
		r.lookups.Ask(c.PeerID, from) // the store has its record
		return ports.Faulty(ports.FaultIncomplete, "the record of the tick with Seq %d is not known", p.Tick.Seq)
	default:
		c.Proof = &ports.Proof{Record: p.Record, Tick: p.Tick}
		if err := r.rules.verify(c.Proof); err != nil {
			return err
		}
	}
	c.Entry.Leave = c.Kind == ports.ChangeLeft
	if err := proves(&c.Entry); err != nil {
		return err
	}
	return r.rules.timely(c.Proof.Claim, r.rules.wall())
}

// proofOf returns the proof of id's signed record with that Seq, nil if it is not held.
func (r *Registry) proofOf(id ports.PeerID, seq int64) *ports.Proof {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holding(id).proof(seq)
}

// askAgain asks a native that is followed, and told a tick whose record the store does not
// have either, for all of it, and reports whether there was an answer to take in.
func (r *Registry) askAgain(ctx context.Context, native, id ports.PeerID) bool {
	a, err := r.follower.LookUp(ctx, native, id)
	if err != nil || a.PeerID != id || a.Proof == nil || a.Proof.Record == nil {
		return false
	}
	r.hear(native, []ports.Change{{Kind: ports.ChangeUpdated, Listed: a.Listed}})
	return true
}
