package domain

import (
	"context"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// heard takes note of an announcement, and sees to it that what is behind it is
// looked up now.
func (r *Registry) heard(a ports.Announcement) {
	r.observer.Observe(ports.Event{Kind: ports.EventHeard, PeerID: a.PeerID, Via: a.From})
	s := r.table.shard(a.PeerID)
	s.mu.Lock()
	now := r.clock().now
	rec := s.live(a.PeerID, now)
	live := rec != nil
	// A lease of one's own needs no look-up, but the indexer may be moving: what is
	// heard of it counts shortly before the lease ends here.
	keep := live && rec.own && now < rec.deadline-r.cfg.Policy.lookAhead()
	if keep {
		rec.echoed = true
	}
	s.mu.Unlock()
	if keep {
		return
	}
	if !live {
		r.know(a.PeerID, false)
	}
	if !r.cfg.TickOnly {
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
	err := r.lookUp(id, func(have time.Time) (Entry, error) { return r.store.Local(id, have) })
	if err != nil {
		r.lookups.ask(id, asker)
	}
}

// know adds id to what is known and not alive here; lost means that it was until now.
func (r *Registry) know(id ports.PeerID, lost bool) {
	for _, evicted := range r.known.add(id, lost, r.table.len()+knownSlack) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: evicted})
	}
}

// refresh looks up whatever is known and not alive here.
func (r *Registry) refresh() {
	for _, id := range r.known.all() {
		r.find(id, onTick)
	}
}

// Who asks for a look-up, if no announcement does.
const (
	onTick          ports.PeerID = "refresh tick"
	aheadOfDeadline ports.PeerID = "deadline"
)

// search asks the whole store for what is newer than the table has of id.
func (r *Registry) search(ctx context.Context, id, asker ports.PeerID) {
	began := time.Now()
	err := r.lookUp(id, func(have time.Time) (Entry, error) { return r.store.Get(ctx, id, have) })
	if err == nil {
		return
	}
	s := r.table.shard(id)
	s.mu.Lock()
	live := s.live(id, r.clock().now) != nil // now, since that took its time
	if live {
		r.known.remove(id) // under the lock: the sweep makes it known once it is not
	}
	s.mu.Unlock()
	if !live && asker == onTick && r.known.missed(id) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: id})
	}
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Took: time.Since(began), Err: err})
}

// lookUp gets what is newer than the table has of id, and takes it in.
func (r *Registry) lookUp(id ports.PeerID, get func(have time.Time) (Entry, error)) error {
	var have time.Time
	s := r.table.shard(id)
	s.mu.Lock()
	c := r.clock()
	if rec := s.live(id, c.now); rec != nil {
		have = time.Unix(0, rec.expiresAt)
	}
	s.mu.Unlock()

	entry, err := get(have)
	if err != nil {
		return err
	}
	joined, expired, err := r.merge(id, entry)
	if err != nil {
		return err
	}
	if expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Via: entry.Native, Joined: joined, Took: time.Since(c.time)})
	return nil
}

// merge takes what the store says of id into the live table, unless the table
// knows better. What outlives a lease of this native's own waits until that ends.
func (r *Registry) merge(id ports.PeerID, e Entry) (joined, expired bool, err error) {
	if e.PeerID != id {
		return false, false, ErrNotItself
	}
	if err := r.cfg.Acceptable(e); err != nil {
		return false, false, err
	}
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := r.clock()
	h := hearsay(e, c, r.cfg.Policy)
	if c.now >= h.deadline {
		return false, false, ErrExpired
	}
	rec := s.live(id, c.now)
	switch {
	case rec == nil && r.full():
		return false, false, errFull
	case rec == nil:
		expired = s.records[id] != nil // and the sweep has not come around
		r.table.insert(s, id, h.deadline-r.cfg.Policy.lookAhead()).become(h)
		r.known.remove(id)
		return true, expired, nil
	case rec.own && h.deadline > rec.deadline:
		rec.heir = h
	case !rec.own && h.expiresAt > rec.expiresAt:
		rec.become(h)
	}
	return false, false, nil
}

// hearsay returns what e means here: what is left of the lease by the time of day,
// and never more than a lease can have.
func hearsay(e Entry, c clock, p TTLPolicy) *lease {
	now := c.time.Round(0) // without its monotonic part, since e has none
	l := &lease{
		addr: e.Addr, more: detailsOf(e.Addrs, e.Meta), native: unique.Make(e.Native), expiresAt: e.ExpiresAt.UnixNano(),
		deadline: c.now + min(e.ExpiresAt.Sub(now), p.TTL),
	}
	if ago := now.Sub(e.SeenAt); ago < maxTTL { // else it does not say, or nothing sensible
		l.seenAt = now.Add(-max(ago, 0)).UnixNano()
	}
	return l
}
