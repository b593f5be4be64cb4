package domain

import (
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// heard takes note of an announcement, and sees to it that what is behind it is
// looked up now.
func (r *Registry) heard(a ports.Announcement) {
	if !r.cfg.Indexers.in(a.PeerID) {
		r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedAnnouncement, PeerID: a.PeerID, Via: a.From})
		return
	}
	r.observer.Observe(ports.Event{Kind: ports.EventHeard, PeerID: a.PeerID, Via: a.From})
	s := r.table.shard(a.PeerID)
	s.mu.Lock()
	now := r.clock().now
	rec := s.live(a.PeerID, now)
	live, left := rec != nil, s.left(a.PeerID, now) != nil
	// A lease that is held firmly needs no look-up, but the indexer may be moving: what is
	// heard of it counts shortly before the lease ends here.
	keep := live && rec.rank != heard && now < rec.deadline-r.cfg.Policy.lookAhead()
	if keep {
		rec.echoed = true
	}
	s.mu.Unlock()
	if keep {
		return
	}
	if !live && !left {
		r.know(a.PeerID, false)
	}
	// Who is followed tells by itself what it announces, and what it does not is looked up
	// at the tick.
	if !r.cfg.TickOnly && !r.follows(a.From) {
		r.find(a.PeerID, neighbour(a))
	}
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
	if !r.cfg.Indexers.in(id) {
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
	for _, evicted := range r.known.add(id, lost, r.table.len()+r.cfg.Bounds.unfound()) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: evicted})
	}
}

// refresh looks up whatever is known and not alive here.
func (r *Registry) refresh() {
	for _, id := range r.known.all() {
		r.find(id, onTick)
	}
}

// lookUp gets what is newer than the table has of id, takes it in, and returns it. errFull is
// one that counts here, and that the table has no room for.
func (r *Registry) lookUp(id ports.PeerID, get func(have ports.Version) (Entry, error)) (Entry, error) {
	var have ports.Version
	s := r.table.shard(id)
	s.mu.Lock()
	c := r.clock()
	if rec := s.live(id, c.now); rec != nil {
		have = rec.version(false)
	} else if rec := s.records[id]; rec != nil && rec.state != listed && c.now < rec.deadline {
		have = rec.version(rec.state == leaving)
	}
	s.mu.Unlock()

	entry, err := get(have)
	if err != nil {
		return Entry{}, err
	}
	became, err := r.merge(id, entry)
	if err != nil {
		r.faulty(id, "", err)
		return entry, err
	}
	r.tell(id, entry.Native, became)
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Via: entry.Native, Joined: became.joined, Took: r.clock().now - c.now})
	return entry, nil
}

// became is what others' word made of a record.
type became struct{ joined, expired, left bool }

// tell tells the observer of it.
func (r *Registry) tell(id, via ports.PeerID, b became) {
	if b.expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	if b.left {
		r.observer.Observe(ports.Event{Kind: ports.EventLeft, PeerID: id, Via: via, Joined: true})
	}
}

// merge takes what the store says of id into the table, unless the table knows better.
// What outlives a lease that is held more firmly waits until that ends.
func (r *Registry) merge(id ports.PeerID, e Entry) (became, error) {
	if e.PeerID != id {
		return became{}, ErrNotItself
	}
	if err := r.cfg.Acceptable(&e); err != nil {
		return became{}, err
	}
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.cfg.believes(&e); err != nil { // under the lock, as Revise wants it
		return became{}, err
	}
	c := r.clock()
	l := r.hearsay(e, c)
	if c.now >= l.deadline {
		return became{}, ErrExpired
	}
	if e.Leave {
		return r.takeLeave(s, id, l, c.now)
	}
	return r.takeLease(s, id, l, c.now)
}

// hearsay returns what e means here: what is left of the lease by the time of day,
// and never more than a lease can have.
func (r *Registry) hearsay(e Entry, c clock) lease {
	now := c.time
	l := lease{
		proof: e.Proof,
		addr:  e.Addr, more: detailsOf(e.Addrs, e.Meta), native: unique.Make(e.Native), expiresAt: e.ExpiresAt.UnixNano(),
		deadline: c.now + min(e.ExpiresAt.Sub(now), r.cfg.Policy.TTL),
	}
	if ago := now.Sub(e.SeenAt); ago < maxTTL { // else it does not say, or nothing sensible
		l.seenAt = now.Add(-max(ago, 0)).UnixNano()
	}
	if e.Leave && e.Proof != nil {
		r.signLeave(&l, e.Proof, 0, c)
	}
	return l
}

// takeLease takes in a lease that others granted. The caller has locked the shard.
func (r *Registry) takeLease(s *shard, id ports.PeerID, l lease, now time.Duration) (became, error) {
	if !r.cfg.Indexers.in(id) || !r.cfg.stands(&l) {
		return became{}, errUntrusted
	}
	if err := l.against(s.records[id]); err != nil {
		return became{}, err
	}
	if leave := s.left(id, now); leave != nil && !l.since(&leave.lease) {
		return became{}, nil // it was granted before
	}
	rec := s.live(id, now)
	if rec != nil && rec.rank == told && rec.signed() != nil && l.rank == told {
		l.deadline = max(l.deadline, rec.deadline) // what is proven, nobody who tells it takes back
	}
	switch {
	case s.records[id] == nil && r.full():
		return became{}, errFull
	case rec == nil:
		rec = s.insert(id, r.cfg.Policy.due(l.deadline))
		b := became{joined: true, expired: rec.state == listed} // and the sweep has not come around
		s.hold(rec, l, now)
		r.known.remove(id)
		return b, nil
	case l.signed() != nil && (rec.signed() == nil && rec.rank != granted || l.supersedes(rec)):
		s.hold(rec, l, now) // the indexer's own word, over that of a native and over its own before
	case rec.rank > l.rank:
		if l.deadline > rec.deadline && (rec.heir == nil || l.inherits(rec.heir)) {
			s.bequeath(rec, l, now)
		}
	case rec.rank < l.rank, l.rank == told && (rec.native == l.native || l.deadline > rec.deadline), l.rank == heard && l.expiresAt > rec.expiresAt:
		heir := rec.heir
		if rec.rank < l.rank && rec.native != l.native && rec.deadline > l.deadline {
			old := rec.lease
			heir = &old
		}
		s.hold(rec, l, now)
		if heir != nil && heir.deadline > l.deadline {
			rec.heir = heir
		}
	}
	return became{}, nil
}

// inherits reports whether l is to follow on a lease in the place of h.
func (l *lease) inherits(h *lease) bool {
	if signed := l.signed() != nil; signed != (h.signed() != nil) {
		return signed
	}
	return l.rank > h.rank || l.rank == h.rank && l.deadline >= h.deadline
}

// supersedes reports whether l, which its indexer signed, is a later word than rec, and says
// something else or is another process's.
func (l *lease) supersedes(rec *record) bool {
	is, was := l.signed(), rec.signed()
	return was != nil && is.Seq > was.Seq && (is.Start != was.Start || rec.addr != l.addr || !rec.more.equal(l.more))
}

// takeLeave takes in that id left, as others say. It ends what was granted before and is
// not held more firmly. The caller has locked the shard.
func (r *Registry) takeLeave(s *shard, id ports.PeerID, l lease, now time.Duration) (became, error) {
	if !r.cfg.Indexers.in(id) {
		return became{}, errUntrusted
	}
	leave := s.left(id, now)
	if leave != nil && leave.signed() != nil && l.version(true).Compare(leave.version(true)) == 0 {
		return became{}, nil // it is known: every native hands it on
	}
	if err := l.against(s.records[id]); err != nil {
		return became{}, err
	}
	if leave != nil && !l.since(&leave.lease) {
		return became{}, nil // it is known
	}
	rec := s.live(id, now)
	if rec != nil && rec.heir != nil && !rec.heir.since(&l) {
		rec.heir = nil
	}
	switch {
	case s.records[id] == nil && r.full():
		return became{}, errFull
	case rec != nil && rec.since(&l):
		return became{}, nil
	case rec != nil && rec.heir != nil && now < rec.heir.deadline:
		s.hold(rec, *rec.heir, now) // which was granted after it
		return became{}, nil
	}
	held := s.insert(id, l.deadline)
	s.refile(held, l.deadline)
	b := became{left: rec != nil, expired: rec == nil && held.state == listed}
	s.leave(held, l, now)
	r.known.remove(id)
	return b, nil
}

// since reports whether l stands against the leave: it is held more firmly, or was granted
// after it. What one clock says, a native's own or the store's, is compared as it was said;
// what two natives tell, by this native's clock.
func (l *lease) since(leave *lease) bool {
	switch of, by := l.signed(), leave.signed(); {
	case of != nil && by != nil:
		return of.Seq > by.Seq
	case of != nil: // nobody else ends what it signed
		return true
	case by != nil:
		return l.rank == granted
	}
	switch {
	case l.rank == granted, l.rank == told && leave.rank == heard:
		return true
	case l.rank == heard, l.native == leave.native:
		return l.expiresAt > leave.expiresAt
	}
	return l.deadline > leave.deadline
}
