package domain

import (
	"context"
	"errors"
	"sync"

	"github.com/opencloud/ocnode/domain/internal/notfound"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxFlights bounds the look-ups in the store that others ask for, at once: half of
	// maxLookups, which this native's own news needs.
	maxFlights = 16
	// maxFlightsEach bounds those of one who asks: nobody alone takes the others' places.
	maxFlightsEach = 4
	// maxFlightsHere bounds those that come in process, "" being who asks: all of HTTP.
	maxFlightsHere = maxFlights / 2
)

// asked looks up in the store whom others ask for and this native does not hold: one at a
// time for a PeerID, a bounded number in all and for each who asks, and not again for a
// while what was not found.
type asked struct {
	registry *Registry
	notFound *notfound.Cache

	mu      sync.Mutex
	ctx     context.Context // ends with Run
	running *sync.WaitGroup // counts the flights; nil unless Run runs
	flights map[ports.PeerID]*flight
	each    map[ports.PeerID]int // flights that each asker began
}

// flight is a look-up that is under way.
type flight struct {
	done chan struct{}
	err  error
}

func newAsked(r *Registry) *asked {
	return &asked{registry: r, notFound: notfound.New(), flights: make(map[ports.PeerID]*flight), each: make(map[ports.PeerID]int)}
}

// start lets look-ups begin until ctx ends, in goroutines counted by running.
func (a *asked) start(ctx context.Context, running *sync.WaitGroup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx, a.running = ctx, running
}

// stop lets none begin any more.
func (a *asked) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = nil
}

// find looks id up on behalf of asker, and takes what it finds into the table. Not there
// is ports.ErrNotFound, and too many at once a *ports.Refusal.
func (a *asked) find(ctx context.Context, asker, id ports.PeerID) (err error) {
	r := a.registry
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
	if left || a.notFound.Has(id, began) || !r.cfg.Indexers.in(id) {
		return ports.ErrNotFound
	}
	f, err := a.join(asker, id)
	if err != nil {
		return err
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join returns the flight for id, which it begins if there is none.
func (a *asked) join(asker, id ports.PeerID) (*flight, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[id]; f != nil {
		return f, nil
	}
	if a.running == nil {
		return nil, ports.Refuse(ports.CodeBusy, "this native does not hold it, and looks nobody up before it has started or once it stops; ask another")
	}
	most := maxFlightsEach
	if asker == "" {
		most = maxFlightsHere
	}
	if len(a.flights) >= maxFlights || a.each[asker] >= most {
		return nil, ports.Refuse(ports.CodeBusy, "too many look-ups of PeerIDs that this native does not hold; try again in a second")
	}
	f := &flight{done: make(chan struct{})}
	a.flights[id] = f
	a.each[asker]++
	// It goes on if who asked first does not wait for it: others may, and it ends by itself.
	ctx := a.ctx
	a.running.Go(func() {
		f.err = a.search(ctx, id)
		a.mu.Lock()
		delete(a.flights, id)
		if a.each[asker]--; a.each[asker] == 0 {
			delete(a.each, asker)
		}
		a.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

func (a *asked) search(ctx context.Context, id ports.PeerID) error {
	ctx, cancel := context.WithTimeout(ctx, StoreTimeout)
	defer cancel()
	err := a.registry.lookUp(id, func(have ports.Version) (Entry, error) { return a.registry.store.Get(ctx, id, have) })
	if err != nil {
		// Whatever the store has, it is none that may be listed.
		if ctx.Err() == nil || errors.Is(err, ports.ErrNotFound) {
			a.notFound.Add(id, a.registry.clock().now)
		}
		return ports.ErrNotFound
	}
	return nil
}
