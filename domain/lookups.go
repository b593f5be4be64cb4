package domain

import (
	"context"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxLookups bounds the look-ups at once; each may hold a DHT query open for
	// storeTimeout.
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
)

// lookups runs look-ups: one at a time for a PeerID, a bounded number in all, and
// in turn for everyone who asks.
//
// Each asker waits in a queue of its own, also for a PeerID that another one waits
// for already, or a flood that names it would keep it from being looked up. Once it
// is looked up, all who asked before are served.
type lookups struct {
	look func(ctx context.Context, id, asker ports.PeerID)

	mu      sync.Mutex
	ctx     context.Context // ends with Run
	running *sync.WaitGroup // counts the workers; nil unless Run runs
	workers int
	waiting int // for neighbours, in all queues
	wanted  map[ports.PeerID]*wanted
	askers  map[ports.PeerID]*asker
	turn    []*asker // those with something waiting, whose turn it is first
}

// wanted is a PeerID that waits to be looked up or is being looked up.
type wanted struct {
	id      ports.PeerID
	waiting int // queues that it is in
	begun   int // look-ups so far
	running bool
	again   *asker // whose turn it was while it ran: what it finds may be older than the news
}

type asker struct {
	id      ports.PeerID
	queue   []request
	queued  map[*wanted]bool
	running int
}

// request is a place in a queue.
type request struct {
	*wanted
	asked int // begun when it was asked for
}

func newLookups(look func(ctx context.Context, id, asker ports.PeerID)) *lookups {
	return &lookups{look: look, wanted: make(map[ports.PeerID]*wanted), askers: make(map[ports.PeerID]*asker)}
}

// start runs what waits and what comes until ctx ends, in goroutines counted by running.
func (l *lookups) start(ctx context.Context, running *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx, l.running = ctx, running
	for range maxLookups {
		l.hire()
	}
}

// stop lets no worker start any more.
func (l *lookups) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = nil
}

// ask has id looked up soon, on behalf of by. It does not block.
func (l *lookups) ask(id, by ports.PeerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w, a := l.wanted[id], l.askers[by]
	if w == nil {
		w = &wanted{id: id}
	}
	if a == nil {
		a = &asker{id: by, queued: make(map[*wanted]bool)}
	}
	if a.queued[w] || !ours(by) && (len(a.queue) >= maxWaitingEach || l.waiting >= maxWaiting) {
		return
	}
	l.enqueue(w, a)
	if a.running < maxLookupsEach {
		l.hire()
	}
}

// ours tells this native's own reasons from neighbours: what they ask for is
// bounded by the known set and the table.
func ours(asker ports.PeerID) bool { return asker == onTick || asker == aheadOfDeadline }

func (l *lookups) enqueue(w *wanted, a *asker) {
	l.wanted[w.id], l.askers[a.id] = w, a
	if len(a.queue) == 0 {
		l.turn = append(l.turn, a)
	}
	a.queue = append(a.queue, request{w, w.begun})
	a.queued[w] = true
	w.waiting++
	if !ours(a.id) {
		l.waiting++
	}
}

// hire starts a worker if one more may run; the caller holds the lock.
func (l *lookups) hire() {
	if l.running != nil && l.workers < maxLookups {
		l.workers++
		l.running.Go(l.work)
	}
}

// work looks up one PeerID after another until none may be.
func (l *lookups) work() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		w, a := l.next()
		if w == nil || l.ctx.Err() != nil {
			l.workers--
			return
		}
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(l.ctx, StoreTimeout)
		l.look(ctx, w.id, a.id)
		cancel()
		l.mu.Lock()

		w.running = false
		a.running--
		if w.again != nil {
			if !w.again.queued[w] {
				l.enqueue(w, w.again)
			}
			w.again = nil
		}
		l.let(w, a)
	}
}

// let forgets what nobody needs any more.
func (l *lookups) let(w *wanted, a *asker) {
	if w.waiting == 0 && !w.running {
		delete(l.wanted, w.id)
	}
	if len(a.queue) == 0 && a.running == 0 {
		delete(l.askers, a.id)
	}
}

// next takes the next PeerID, of the asker whose turn it is among those below
// their share; nil if there is none.
func (l *lookups) next() (*wanted, *asker) {
	for full := 0; full < len(l.turn); {
		a := l.turn[0]
		l.turn = l.turn[1:]
		if a.running >= maxLookupsEach {
			l.turn = append(l.turn, a)
			full++
			continue
		}
		full = 0
		w, asked := a.queue[0].wanted, a.queue[0].asked
		if a.queue = a.queue[1:]; len(a.queue) > 0 {
			l.turn = append(l.turn, a)
		}
		delete(a.queued, w)
		w.waiting--
		if !ours(a.id) {
			l.waiting--
		}
		switch {
		case asked < w.begun: // looked up since it was asked for
			l.let(w, a)
		case w.running:
			w.again = a
			l.let(w, a)
		default:
			w.begun++
			w.running = true
			a.running++
			return w, a
		}
	}
	return nil, nil
}
