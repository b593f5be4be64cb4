package domain

import (
	"context"
	"errors"

	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxLookups bounds the look-ups at once of what was heard; each may hold a DHT query
	// open for StoreTimeout.
	maxLookups = 32
	// maxLookupsEach bounds how many of them one asker has under way, a neighbour or a reason
	// of this native's own: none alone can keep the others waiting.
	maxLookupsEach = 8
	// maxWaitingEach bounds what waits for one neighbour: as many as its announcements
	// are buffered. What is over that waits for the next refresh.
	maxWaitingEach = 4096
	// maxWaiting bounds what waits for all neighbours together, of whom there may be
	// thousands.
	maxWaiting = 4 * maxWaitingEach

	// maxFlights bounds the look-ups at once that callers wait for: half of maxLookups, which
	// this native's own news needs.
	maxFlights = 16
	// maxFlightsEach bounds how many of them one caller has: none alone takes the others'
	// places.
	maxFlightsEach = 4
	// maxFlightsHere bounds those that come in process, from "" or this native itself: all
	// of HTTP.
	maxFlightsHere = maxFlights / 2
)

// The askers of look-ups that no announcement is the reason of.
const (
	onTick          ports.PeerID = "refresh tick"
	aheadOfDeadline ports.PeerID = "deadline"
)

// lookedUp is what became of a look-up.
type lookedUp struct {
	listed *ports.Listed // nil if there is nothing to list
	err    error         // why the table has nothing new
	began  Instant
}

// newLookups returns the machine that looks up in r's store: what r has heard of, and what
// others ask for and r does not hold.
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
		// What this native asks for by itself is bounded by the known set and the table.
		Own: func(asker ports.PeerID) bool { return asker == onTick || asker == aheadOfDeadline },
	})
}

// searchFor looks up id, which the table does not have, on behalf of asker. The error is
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
	case errors.Is(err, lookup.ErrStopped):
		return listed, ports.Refuse(ports.CodeBusy, "this native does not hold it, and looks nobody up before it has started or once it stops; ask another")
	case errors.Is(err, lookup.ErrBusy):
		return listed, ports.Refuse(ports.CodeBusy, "too many look-ups of PeerIDs that this native does not hold; try again in a second")
	case ctx.Err() != nil && !errors.Is(err, ports.ErrNotFound):
		return listed, ctx.Err()
	}
	return listed, ports.ErrNotFound
}

// search asks the whole store for what is newer than the table has of id, and returns what is
// listed of it then. ports.ErrNotFound is nothing; another error leaves it open.
func (r *Registry) search(ctx context.Context, id ports.PeerID) (lookedUp, error) {
	got := lookedUp{began: r.now().at}
	if !r.rules.Indexers.in(id) {
		return got, ports.ErrNotFound // not any more, since it was asked for
	}
	w, err := r.lookUp(id, func(have ports.Version) (Entry, error) { return r.store.Get(ctx, id, have) })
	l, listed := r.Get(id)
	// A lease that counts is an answer also if the table has no room for it.
	if at := r.now().at; !listed && errors.Is(err, errFull) && !w.leave && w.live(at) {
		l, listed = r.listed(id, &w, at), true
	}
	got.err = err
	switch {
	case listed:
		got.listed = &l
		return got, nil
	case err == nil, ctx.Err() == nil: // whatever the store has, it may not be listed
		return got, ports.ErrNotFound
	}
	return got, err
}

// searched takes note of a search for id that asker is the reason of.
func (r *Registry) searched(ctx context.Context, id, asker ports.PeerID, got lookedUp) {
	if got.err == nil || r.askAgain(ctx, asker, id) {
		return
	}
	if !r.unknow(id) && asker == onTick && r.known.missed(id) {
		r.observer.Observe(ports.Event{Kind: ports.EventForgotten, PeerID: id})
	}
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Took: r.now().at.Sub(got.began), Err: got.err})
}

// leftHere reports whether id has left this native, and did not sign that. A signed leave lasts
// for an hour: the indexer may be back. What another native said of an indexer that signs, the
// indexer may know better.
func (r *Registry) leftHere(id ports.PeerID) bool {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	held := s.holding(id)
	leave := held.leave(at)
	return leave != nil && held.lease(at) == nil && leave.source == granted && leave.proof == nil
}

// unknow takes id out of the known set if it is live, and reports whether it is.
func (r *Registry) unknow(id ports.PeerID) (live bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if live = s.holding(id).lease(r.now().at) != nil; live {
		r.known.remove(id) // under the lock: the sweep makes it known once it is not
	}
	return live
}
