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

// This file takes in the words of others: announcements of natives, entries of the store, and
// changes of the natives that this native follows.

// maxSkew is how wrong another native's clock may be before its deadlines mean nothing
// here: an hour, for a native with the wrong idea of summer time.
const maxSkew = time.Hour

// These errors say why a native's change is refused.
var (
	errNotIts   = errors.New("a lease of another native is not its to tell")
	errNoTime   = errors.New("it ends later than a lease can")
	errNoChange = errors.New("no change that one native tells another")
)

// hear takes note of an announcement, and looks up its entry at once, unless the table
// or a followed native has it.
func (r *Registry) hear(a ports.Announcement) {
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
	// A followed native tells its leases by itself. The refresh looks up the PeerIDs that it
	// announces and does not tell.
	if !r.follower.Follows(a.From) {
		asker := neighbour(a)
		if r.table.tellers.trusts(a.From) {
			asker = a.From // a trusted author is not made up
		}
		r.find(a.PeerID, asker)
	}
}

// echo takes note that id was announced. A granted or told lease needs no look-up: keep is true.
// But the indexer may be moving, so this native looks id up shortly before the lease ends. known
// is true if id is listed or has left.
func (r *Registry) echo(id ports.PeerID) (keep, known bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	rec := s.record(id)
	held := rec.glance()
	lease := held.lease(at)
	keep = r.rules.Policy.lasts(lease, at)
	if keep {
		rec.set(echoed, true)
	}
	return keep, lease != nil || held.leave(at) != nil
}

// neighbour returns the asker of an announcement's look-up: its author if that is a
// neighbour of this native, else the neighbour that handed it on. So a neighbour
// that hands on a thousand made-up authors is one asker.
func neighbour(a ports.Announcement) ports.PeerID {
	if a.Via == "" || a.Via == a.From {
		return a.From
	}
	return "via " + a.Via
}

// find looks id up in this node's part of the store at once: most announced entries
// are there by then. Without news there, find looks id up in the network, at
// asker's turn.
func (r *Registry) find(id, asker ports.PeerID) {
	if !r.rules.Indexers.in(id) {
		r.known.remove(id)
		return
	}
	_, err := r.lookUp(id, asker, func(have ports.Version) (Entry, error) { return r.store.Local(id, have) })
	if err != nil {
		r.lookups.Ask(id, asker)
	}
}

// know adds id to the known set. lost says that id was alive here until now.
func (r *Registry) know(id ports.PeerID, lost bool) {
	for _, evicted := range r.known.add(id, lost, r.table.len()+r.settings.Bounds.unfound()) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: evicted})
	}
}

// refresh looks up every known PeerID that is not alive here.
func (r *Registry) refresh() {
	for _, id := range r.known.all() {
		r.find(id, onTick)
		if !r.table.hearing.goesOn(r.now().at) {
			return
		}
	}
}

// lookUp gets a newer entry of id than the table's, and takes it in. It returns the entry's word
// with the error of take. With errFull the word is a good lease, and the table has no room for
// it. asker is the peer that causes the look-up.
func (r *Registry) lookUp(id, asker ports.PeerID, get func(have ports.Version) (Entry, error)) (word, error) {
	have, began := r.have(id)
	entry, err := get(have)
	if err != nil {
		return word{}, err
	}
	w, b, err := r.takeEntry(id, asker, entry)
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

// have returns the version of the table's word about id: a look-up asks for newer ones.
func (r *Registry) have(id ports.PeerID) (have ports.Version, at Instant) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	held := s.record(id).glance()
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

// observe tells the observer how a word of via changed id.
func (r *Registry) observe(id, via ports.PeerID, b became) {
	if b.expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	if b.left {
		r.observer.Observe(ports.Event{Kind: ports.EventLeft, PeerID: id, Via: via, Joined: true})
	}
}

// take merges another peer's word w about id into the table. by is the peer that the word came by:
// if it is trusted, a new indexer takes the place of an untrusted peer's. The error is that of w,
// errUntrusted, or one of merge's.
func (r *Registry) take(id, by ports.PeerID, w func(now moment) (word, error)) (word, became, error) {
	for {
		said, b, err := r.takeOnce(id, by, w)
		if !errors.Is(err, errFull) || !r.table.tellers.trusts(by) || !r.makeRoom() {
			return said, b, err
		}
	}
}

func (r *Registry) takeOnce(id, by ports.PeerID, w func(now moment) (word, error)) (word, became, error) {
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
	rec := s.record(id)
	next, err := r.rule().merge(rec.holding(), &said, rec.known() || r.roomFor(by), now)
	switch {
	case errors.Is(err, errFull) && !r.full():
		return said, became{}, errShare
	case err != nil:
		return said, became{}, err
	}
	if !rec.known() {
		rec = s.insert(id)
		if !r.table.tellers.trusts(by) {
			s.fill(rec, by)
		}
	}
	b := s.apply(rec, &next, now)
	if b.joined || said.leave {
		r.known.remove(id)
	}
	return said, b, nil
}

// takeEntry takes the store's entry e of id into the table, unless the table knows better. asker is
// the peer that caused its look-up.
func (r *Registry) takeEntry(id, asker ports.PeerID, e Entry) (word, became, error) {
	if e.PeerID != id {
		return word{}, became{}, ErrNotItself
	}
	if err := r.rules.Acceptable(&e); err != nil {
		return word{}, became{}, err
	}
	return r.take(id, asker, func(now moment) (word, error) {
		return r.storedWord(e, now), r.rules.Believes(&e)
	})
}

// storedWord returns the store's entry e as a word. It ends by the time of day, and after a TTL at
// most.
func (r *Registry) storedWord(e Entry, now moment) word {
	w := word{
		proof: e.Proof, source: stored, leave: e.Leave,
		addr: e.Addr, details: detailsOf(e.Addrs, e.Meta), native: unique.Make(e.Native), expiresAt: e.ExpiresAt.UnixNano(),
		deadline: now.at.Add(min(e.ExpiresAt.Sub(now.wall), r.rules.Policy.TTL)),
	}
	if ago := now.wall.Sub(e.SeenAt); ago < MaxTTL { // else SeenAt is absent or absurd
		w.seenAt = now.wall.Add(-max(ago, 0)).UnixNano()
	}
	if e.Leave && e.Proof != nil {
		w.setLeave(e.Proof, 0, now)
	}
	return w
}

// taken is the outcome of changes that a native told.
type taken struct {
	changes  int           // how many there were
	renewals int           // how many of them came as renewals of a number
	accepted int           // how many are leases or leaves that count, or counted already
	signed   int           // how many of them have a proof
	lag      time.Duration // how long the last of them was under way, 0 without one
	refused  int           // how many are the fault of the native
	why      error         // of the last of them
	full     bool          // an entry found no room
}

// outcome takes note of what became of a change of id that the native from told.
func (r *Registry) outcome(t *taken, from, id ports.PeerID, b became, err error) {
	r.observe(id, from, b)
	if b.joined {
		r.observer.Observe(ports.Event{Kind: ports.EventJoined, PeerID: id, Via: from, Joined: true})
	}
	switch t.changes++; {
	case err == nil:
		t.accepted++
	case errors.Is(err, errUntrusted):
		r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedChange, PeerID: id, Via: from})
	case isFault(err, ports.FaultOlder): // a repeated or delayed change is no fault of from
		r.faulty(id, from, err)
	case !errors.Is(err, ErrExpired): // an expired change is no fault of from
		r.faulty(id, from, err)
		t.refused++
		t.why = fmt.Errorf("%s: %w", id, err)
		t.full = t.full || errors.Is(err, errFull)
	}
}

// tellTaken tells the observer of t, the outcome of what the native from told.
func (r *Registry) tellTaken(from ports.PeerID, t taken) {
	if t.changes > 0 {
		r.observer.Observe(ports.Event{Kind: ports.EventTold, Via: from, Changes: t.changes, Renewals: t.renewals, Refused: t.refused, Err: t.why})
	}
}

// takeChanges takes in the changes that the native from has just told.
func (r *Registry) takeChanges(from ports.PeerID, changes []ports.Change) taken {
	return r.takeOldChanges(from, nil, changes, 0)
}

// heldUp returns how old changes are whose message was held up so long. Messages wait while this
// native stands still, and their indexers may die meanwhile. It reads them all at once then. At any
// other time a message that seems late comes from a clock that was set back.
func (r *Registry) heldUp(message time.Duration) time.Duration {
	at := r.now().at
	d := r.table.hearing.at(at)
	if d == nil || !d.stood || !at.Before(d.noticed.Add(confirmAfter)) {
		return 0
	}
	return min(message, d.noticed.Sub(d.from))
}

// takeOldChanges takes in the changes that the native from told so long ago. l is its ledger, nil if it was asked.
func (r *Registry) takeOldChanges(from ports.PeerID, l *ledger, changes []ports.Change, heldUp time.Duration) (t taken) {
	for _, c := range r.prepareAll(from, changes) {
		_ = r.takeOldChange(&t, from, l, c, heldUp)
	}
	r.tellTaken(from, t)
	return t
}

// takeOldChange takes in the change c that the native from told so long ago.
func (r *Registry) takeOldChange(t *taken, from ports.PeerID, l *ledger, c prepared, heldUp time.Duration) error {
	c.Remaining -= heldUp
	b, err := became{}, c.err
	if err == nil {
		b, err = r.takeChange(from, l, &c.Change)
	}
	r.outcome(t, from, c.PeerID, b, err)
	if err == nil && c.Proof != nil {
		t.signed++
	}
	if err == nil && c.Kind != ports.ChangeSnapshot {
		t.lag = max(r.rules.Policy.TTL-c.Remaining, 1)
	}
	return err
}

// isFault reports whether err is that fault of a proof.
func isFault(err error, fault ports.Fault) bool {
	is, ok := errors.AsType[*ports.ProofError](err)
	return ok && is.Fault == fault
}

// takeChange takes in one change that the native from told, after prepare. A change that the table
// knows already, or knows better, is no error.
func (r *Registry) takeChange(from ports.PeerID, l *ledger, c *ports.Change) (became, error) {
	if err := r.tellable(from, c); err != nil {
		return became{}, err
	}
	plain := c.Proof == nil || r.rules.Proofs == nil
	early, err := r.checkTold(from, l, c)
	if err != nil {
		return became{}, err
	}
	if c.Native != from && c.Kind != ports.ChangeLeft && c.Proof == nil {
		return became{}, errNotIts // this native checks no proofs
	}
	if plain && c.Kind != ports.ChangeLeft && !r.says(c) { // a record's addresses are checked
		// Parsing addresses under the lock would hold up heartbeats.
		if err := r.rules.checkAddrs(c.PeerID, c.Addr, c.Addrs); err != nil {
			return became{}, err
		}
	}
	_, b, err := r.take(c.PeerID, from, func(now moment) (word, error) {
		w := r.toldWord(from, c, now)
		w.unproven = early
		return w, nil
	})
	if errors.Is(err, errKnown) || errors.Is(err, errEnded) {
		err = nil
	}
	return b, err
}

// says reports whether a lease of c's indexer has c's addresses and metadata.
func (r *Registry) says(c *ports.Change) (is bool) {
	s := r.table.shard(c.PeerID)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := word{addr: c.Addr, details: detailsOf(c.Addrs, c.Meta)}
	s.record(c.PeerID).holding().leases(func(l *word) bool {
		is = l.same(&w)
		return !is
	})
	return is
}

// toldWord returns the change c of the native from as a word. It ends by this native's clock, and
// no later than its proof says.
func (r *Registry) toldWord(from ports.PeerID, c *ports.Change, now moment) word {
	w := word{
		source: told, leave: c.Kind == ports.ChangeLeft, native: unique.Make(c.Native),
		deadline: now.at.Add(c.Remaining), expiresAt: c.ExpiresAt.UnixNano(), proof: c.Proof,
		overdue: c.State == ports.StateLate,
	}
	if !c.SeenAt.IsZero() {
		w.seenAt = c.SeenAt.UnixNano()
	}
	if !w.leave { // a proven change may come from a native with a longer TTL
		w.addr, w.details = c.Addr, detailsOf(c.Addrs, c.Meta)
		w.deadline = earliest(w.deadline, now.at.Add(r.rules.Policy.TTL))
	}
	if c.Native != from {
		w.source = stored // from handed it on
	}
	switch {
	case w.proof == nil:
		w.expiresAt = r.plainEnd(w.expiresAt, c.Remaining, now)
	case w.leave:
		w.setLeave(w.proof, c.Remaining, now)
	default:
		ends := w.proof.Claim.ExpiresAt(w.proof.Tick.Step)
		w.expiresAt = ends.UnixNano()
		w.deadline = earliest(w.deadline, now.at.Add(ends.Sub(now.wall)))
	}
	return w
}

// plainEnd returns the end of a plain lease that another native told, and of which so much remains.
// A clock that is near enough to this one may set it. A distant one could keep the store's words
// out for ever.
func (r *Registry) plainEnd(said int64, remaining time.Duration, now moment) int64 {
	if ends := now.wall.Add(remaining); time.Unix(0, said).Sub(ends).Abs() > maxSkew {
		return ends.UnixNano()
	}
	return said
}

// checkTold checks the proof of the change c that the native from told, after prepare, and copies the
// proof's fields into c. early says that the proof does not count yet by this native's clock: c is
// the word of from alone then.
func (r *Registry) checkTold(from ports.PeerID, l *ledger, c *ports.Change) (early bool, _ error) {
	p := c.Proof
	switch {
	case p == nil && r.rules.plain() == PlainRefuse:
		return false, ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", c.PeerID)
	case p == nil || r.rules.Proofs == nil:
		c.Proof = nil
		return false, nil
	}
	proof := r.proofOf(c.PeerID, p.Tick.Seq)
	switch {
	case proof != nil && (p.Record == nil || bytes.Equal(proof.Record, p.Record)):
		if p.Tick.Step < proof.Tick.Step {
			return false, ports.Faulty(ports.FaultOlder, "a newer tick is known")
		}
		advanced, err := r.advanceTold(l, proof, p.Tick)
		if err != nil {
			return false, err
		}
		c.Proof = advanced
	case p.Record == nil && p.Tick.Seq < r.seq(c.PeerID):
		return false, ports.Faulty(ports.FaultOlder, "a newer record is known")
	case p.Record == nil:
		r.lookups.Ask(c.PeerID, from) // the store has its record
		return false, ports.Faulty(ports.FaultIncomplete, "the record of the tick with Seq %d is not known", p.Tick.Seq)
	case p.Claim == nil: // the table had the record a moment ago
		if err := r.rules.verify(p); err != nil {
			return false, err
		}
	}
	c.Entry.Leave = c.Kind == ports.ChangeLeft
	if err := proves(&c.Entry); err != nil {
		return false, err
	}
	err := r.rules.timely(c.Proof, r.rules.wall())
	if c.Native != from || c.Entry.Leave || !isFault(err, ports.FaultFuture) {
		return false, err
	}
	if newest, _ := r.recall(c.PeerID); newest != nil && compareProofs(c.Proof, newest) < 0 {
		return false, ports.Faulty(ports.FaultOlder, "a newer record or tick of the indexer is known")
	}
	// One of the two clocks is wrong. The indexer has renewed its lease at from all the same.
	r.faulty(c.PeerID, from, err)
	c.Proof = nil
	return true, nil
}

// proofOf returns the proof of id's record with that Seq, nil if the table does not have it.
func (r *Registry) proofOf(id ports.PeerID, seq int64) *ports.Proof {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(id).holding().proof(seq)
}

// askAgain asks a followed native for the record of a tick that it told: the store does not have
// the record either. It reports whether the native's answer has a record.
func (r *Registry) askAgain(ctx context.Context, native, id ports.PeerID) bool {
	a, err := r.follower.LookUp(ctx, native, id)
	if err != nil || a.PeerID != id || a.Proof == nil || a.Proof.Record == nil {
		return false
	}
	r.takeChanges(native, []ports.Change{{Kind: ports.ChangeUpdated, Listed: a.Listed}})
	return true
}
