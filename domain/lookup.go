package domain

import (
	"context"
	"errors"
	"time"

	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxLookups bounds the look-ups of what was heard, at once; each may hold a DHT query
	// open for storeTimeout.
	maxLookups = 32
	// maxLookupsEach bounds those that one asker has under way, a neighbour or a reason
	// of this native's own: nobody alone can keep the others waiting.
	maxLookupsEach = 8
	// maxWaitingEach bounds what waits for one neighbour: as many as its announcements
	// are buffered. What is over that waits for the next refresh.
	maxWaitingEach = 4096
	// maxWaiting bounds what waits for all neighbours together, of whom there may be
	// thousands.
	maxWaiting = 4 * maxWaitingEach

	// maxFlights bounds the look-ups that callers wait for, at once: half of maxLookups,
	// which this native's own news needs.
	maxFlights = 16
	// maxFlightsEach bounds those of one caller: nobody alone takes the others' places.
	maxFlightsEach = 4
	// maxFlightsHere bounds those that come in process, from the caller "": all of HTTP.
	maxFlightsHere = maxFlights / 2
)

// Who asks for a look-up, if no announcement does.
const (
	onTick          ports.PeerID = "refresh tick"
	aheadOfDeadline ports.PeerID = "deadline"
)

// lookedUp is what became of a look-up.
type lookedUp struct {
	listed *ports.Listed // nil if there is nothing to list
	err    error         // why the table has nothing new
	began  time.Duration
}

// newLookups returns what looks up in r's store: for r itself what was heard, and for others
// what they ask for and r does not hold.
func newLookups(r *Registry) *lookup.Machine[lookedUp] {
	return lookup.New(lookup.Config[lookedUp]{
		Look: r.search, Asked: r.searched, Timeout: storeTimeout,
		MaxFound: maxFlights,
		MaxFoundEach: func(asker ports.PeerID) int {
			if asker == "" {
				return maxFlightsHere
			}
			return maxFlightsEach
		},
		MaxAsked: maxLookups, MaxAskedEach: maxLookupsEach,
		MaxQueued: maxWaiting, MaxQueuedEach: maxWaitingEach,
		// What this native asks for by itself is bounded by the known set and the table.
		Own: func(asker ports.PeerID) bool { return asker == onTick || asker == aheadOfDeadline },
	})
}

// searchFor looks id, which the table does not have, up on behalf of asker. Not there is
// ports.ErrNotFound, and too many look-ups at once are a *ports.Refusal.
func (r *Registry) searchFor(ctx context.Context, asker, id ports.PeerID) (listed ports.Listed, err error) {
	began := r.clock().now
	defer func() {
		e := ports.Event{Kind: ports.EventAsked, PeerID: id, Took: r.clock().now - began, Err: err}
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
			e.Code = refusal.Code
		}
		r.observer.Observe(e)
	}()
	s := r.table.shard(id)
	s.mu.Lock()
	leave := s.left(id, began)
	// One that is signed lasts for an hour: it may be back. Of another native's word, who signs
	// may know better.
	left := leave != nil && leave.rank == granted && leave.signed() == nil
	s.mu.Unlock()
	if left || !r.cfg.Indexers.in(id) {
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

// search asks the whole store for what is newer than the table has of id. Without an error
// there is something to list.
func (r *Registry) search(ctx context.Context, id ports.PeerID) (lookedUp, error) {
	got := lookedUp{began: r.clock().now}
	if !r.cfg.Indexers.in(id) {
		return got, ports.ErrNotFound // not any more, since it was asked for
	}
	e, err := r.lookUp(id, func(have ports.Version) (Entry, error) { return r.store.Get(ctx, id, have) })
	l, listed := r.Get(id)
	if !listed && errors.Is(err, errFull) && !e.Leave && r.cfg.Acceptable(&e) == nil { // which fills in what its proof says
		// What counts and finds no room in the table is an answer like any other.
		c := r.clock()
		held := r.hearsay(e, c)
		l = r.listed(id, &held, c.now)
		listed = l.Remaining > 0
	}
	got.err = err
	switch {
	case listed:
		got.listed = &l
		return got, nil
	case err == nil, ctx.Err() == nil: // whatever the store has, it is none that may be listed
		return got, ports.ErrNotFound
	}
	return got, err
}

// searched takes note of a search for id, which asker announced or this native knows.
func (r *Registry) searched(ctx context.Context, id, asker ports.PeerID, got lookedUp) {
	if got.err == nil || r.askAgain(ctx, asker, id) {
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
	r.observer.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Took: r.clock().now - got.began, Err: got.err})
}
