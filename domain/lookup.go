package domain

import (
	"cmp"
	"context"
	"errors"

	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxLookups bounds the concurrent look-ups of announced PeerIDs. Each may hold a DHT
	// query open for StoreTimeout.
	maxLookups = 32
	// maxLookupsEach bounds the concurrent look-ups for one asker, a neighbour or a reason of
	// this native's own, so that no asker keeps the others waiting.
	maxLookupsEach = 8
	// maxWaitingEach bounds the PeerIDs that wait for one neighbour: as many as the buffer of
	// announcements holds. PeerIDs over that wait for the next refresh.
	maxWaitingEach = 4096
	// maxWaiting bounds the PeerIDs that wait for all neighbours together: a native may have
	// thousands of neighbours.
	maxWaiting = 4 * maxWaitingEach

	// maxFlights bounds the concurrent look-ups that callers wait for: half of maxLookups,
	// since this native's own news needs more.
	maxFlights = 16
	// maxFlightsEach bounds the look-ups of one caller, so that no caller takes the others'
	// places.
	maxFlightsEach = 4
	// maxFlightsHere bounds the look-ups of this process, from "" or this native itself: all
	// of HTTP.
	maxFlightsHere = maxFlights / 2
)

// These askers stand for look-ups without an announcement.
const (
	onTick          ports.PeerID = "refresh tick"
	aheadOfDeadline ports.PeerID = "deadline"
)

// lookedUp is the outcome of a look-up.
type lookedUp struct {
	listed *ports.Listed // nil if there is nothing to list
	err    error         // why the table has nothing new
	began  Instant
}

// newLookups returns the machine of r's look-ups: of announced PeerIDs, and of PeerIDs that
// callers ask for and the table does not have.
func newLookups(r *Registry) *lookup.Machine[lookedUp] {
	return lookup.New(lookup.Config[lookedUp]{
		Look: r.search, AfterAsk: r.searched, Timeout: StoreTimeout,
		MaxFinds: maxFlights,
		MaxFindsEach: func(asker ports.PeerID) int {
			if asker == "" || asker == r.rules.Self {
				return maxFlightsHere
			}
			return maxFlightsEach
		},
		MaxAsks: maxLookups, MaxAsksEach: maxLookupsEach,
		MaxQueued: maxWaiting, MaxQueuedEach: maxWaitingEach,
		// The known set and the table bound this native's own look-ups.
		Own: func(asker ports.PeerID) bool { return asker == onTick || asker == aheadOfDeadline },
	})
}

// searchFor looks up id for asker; the table does not have id. The error is
// ports.ErrNotFound if the store does not have it either, a *ports.Refusal if too many
// look-ups are under way, or that of ctx.
func (r *Registry) searchFor(ctx context.Context, asker, id ports.PeerID) (listed ports.Listed, err error) {
	began := r.now().at
	defer func() {
		e := ports.Event{Kind: ports.EventAsked, PeerID: id, Took: r.now().at.Sub(began), Err: err}
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
			e.Code = refusal.Code
		}
		r.observer.Observe(e)
	}()
	if r.leftHere(id) || !r.rules.Indexers.in(id) {
		return listed, ports.ErrNotFound
	}
	found, err := r.lookups.Find(ctx, id, asker)
	switch {
	case err == nil:
		return *found.listed, nil
	case errors.Is(err, lookup.ErrStopped), errors.Is(err, context.Canceled) && ctx.Err() == nil:
		return listed, ports.Refuse(ports.CodeBusy, "this native does not hold it, and looks nobody up before it has started or once it stops; ask another")
	case errors.Is(err, lookup.ErrBusy):
		return listed, ports.Refuse(ports.CodeBusy, "too many look-ups of PeerIDs that this native does not hold; try again in a second")
	case ctx.Err() != nil && !errors.Is(err, ports.ErrNotFound):
		return listed, ctx.Err()
	}
	return listed, ports.ErrNotFound
}

// search asks the whole store for a newer entry of id, and returns the listed entry. asker is ""
// for a caller. The error is
// ports.ErrNotFound without a live entry. Any other error leaves that open.
func (r *Registry) search(ctx context.Context, id, asker ports.PeerID) (lookedUp, error) {
	got := lookedUp{began: r.now().at}
	if !r.rules.Indexers.in(id) {
		return got, ports.ErrNotFound // this native trusts id no more
	}
	if r.heldHere(id) { // it was told while the look-up waited
		l, listed := r.Get(id)
		if listed {
			got.listed = &l
			return got, nil
		}
	}
	w, err := r.lookUp(id, cmp.Or(asker, callers), func(have ports.Version) (Entry, error) { return r.store.Get(ctx, id, have) })
	l, listed := r.Get(id)
	// A good lease is an answer even if the table has no room for it.
	if at := r.now().at; !listed && errors.Is(err, errFull) && !w.leave && w.live(at) {
		l, listed = r.listed(id, &w, at), true
	}
	got.err = err
	switch {
	case listed:
		got.listed = &l
		return got, nil
	case errors.Is(ctx.Err(), context.Canceled): // this native stops, which says nothing of id
		return got, ctx.Err()
	case err == nil, ctx.Err() == nil: // an entry of the store may not be listed here
		return got, ports.ErrNotFound
	}
	return got, err
}

// heldHere reports whether this native has a lease of id that needs no look-up: it is granted or told,
// and does not end soon.
func (r *Registry) heldHere(id ports.PeerID) bool {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	return r.rules.Policy.lasts(s.record(id).glance().lease(at), at)
}

// lasts reports whether the lease, nil for none, is granted or told, and does not end soon.
func (p TTLPolicy) lasts(lease *word, at Instant) bool {
	return lease != nil && lease.source != stored && at.Before(lease.deadline.Add(-p.lookAhead()))
}

// searched takes note of the search for id that asker caused.
func (r *Registry) searched(ctx context.Context, id, asker ports.PeerID, got lookedUp) {
	if got.err == nil || r.askAgain(ctx, asker, id) {
		return
	}
	if !r.unknow(id) && asker == onTick && r.known.missed(id) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: id})
	}
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Took: r.now().at.Sub(got.began), Err: got.err})
}

// leftHere reports whether id has left this native by a bare leave. A signed leave lasts for an
// hour: the indexer may be back. A leave that another native told does not count either.
func (r *Registry) leftHere(id ports.PeerID) bool {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	held := s.record(id).glance()
	leave := held.leave(at)
	return leave != nil && held.lease(at) == nil && leave.source == granted && leave.proof == nil
}

// unknow removes id from the known set if id is live, and reports whether it is.
func (r *Registry) unknow(id ports.PeerID) (live bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if live = s.record(id).glance().lease(r.now().at) != nil; live {
		r.known.remove(id) // under the lock: the sweep makes id known once it expires
	}
	return live
}
