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
	// maxLookupsEach bounds those that one asker has under way, a gossip author or a
	// reason of this native's own: nobody alone can keep the others waiting.
	maxLookupsEach = 8
	// maxWaitingEach bounds what waits for one gossip author: as many as its own
	// announcements are buffered. What is over that waits for the next refresh.
	maxWaitingEach = 4096
	// maxWaiting bounds what waits for all gossip authors together, since anybody can
	// make up authors.
	maxWaiting = 4 * maxWaitingEach
)

// lookups runs look-ups: one at a time for a PeerID, a bounded number in all, and
// in turn for everyone who asks.
type lookups struct {
	look func(ctx context.Context, id, asker ports.PeerID)

	mu      sync.Mutex
	ctx     context.Context // ends with Run; nil before it
	running *sync.WaitGroup
	workers int
	waiting int
	wanted  map[ports.PeerID]*wanted
	askers  map[ports.PeerID]*asker
	turn    []*asker // those with something waiting, whose turn it is first
}

// wanted is a PeerID that waits to be looked up or is being looked up.
type wanted struct {
	running bool
	again   bool // asked for while it ran: what it finds may be older than the news
}

type asker struct {
	id      ports.PeerID
	queue   []ports.PeerID
	running int
}

func newLookups(look func(ctx context.Context, id, asker ports.PeerID)) *lookups {
	return &lookups{look: look, wanted: make(map[ports.PeerID]*wanted), askers: make(map[ports.PeerID]*asker)}
}

// start runs what waits and what comes until ctx ends, in goroutines counted by running.
func (l *lookups) start(ctx context.Context, running *sync.WaitGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ctx, l.running = ctx, running
	for range min(l.waiting, maxLookups) {
		l.hire()
	}
}

// ask has id looked up soon, on behalf of by. It does not block.
func (l *lookups) ask(id, by ports.PeerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.wanted[id]; w != nil {
		w.again = w.running
		return
	}
	l.enqueue(id, by)
}

func (l *lookups) enqueue(id, by ports.PeerID) {
	a := l.askers[by]
	if a == nil {
		a = &asker{id: by}
	}
	ours := by == onTick || by == aheadOfDeadline // bounded by the known set and the table
	if !ours && (len(a.queue) >= maxWaitingEach || l.waiting >= maxWaiting) {
		return
	}
	l.askers[by] = a
	l.wanted[id] = &wanted{}
	if len(a.queue) == 0 {
		l.turn = append(l.turn, a)
	}
	a.queue = append(a.queue, id)
	l.waiting++
	l.hire()
}

// hire starts a worker if one more may run; the caller holds the lock.
func (l *lookups) hire() {
	if l.ctx != nil && l.ctx.Err() == nil && l.workers < maxLookups {
		l.workers++
		l.running.Go(l.work)
	}
}

// work looks up one PeerID after another until none may be.
func (l *lookups) work() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		id, a := l.next()
		if a == nil || l.ctx.Err() != nil {
			l.workers--
			return
		}
		w := l.wanted[id]
		w.running = true
		l.mu.Unlock()

		ctx, cancel := context.WithTimeout(l.ctx, storeTimeout)
		l.look(ctx, id, a.id)
		cancel()

		l.mu.Lock()
		delete(l.wanted, id)
		a.running--
		if w.again {
			l.enqueue(id, a.id)
		}
		if a.running == 0 && len(a.queue) == 0 {
			delete(l.askers, a.id)
		}
	}
}

// next takes the next PeerID, of the asker whose turn it is among those below
// their share; nil if there is none.
func (l *lookups) next() (ports.PeerID, *asker) {
	for range len(l.turn) {
		a := l.turn[0]
		l.turn = l.turn[1:]
		if a.running >= maxLookupsEach {
			l.turn = append(l.turn, a)
			continue
		}
		id := a.queue[0]
		if a.queue = a.queue[1:]; len(a.queue) > 0 {
			l.turn = append(l.turn, a)
		}
		a.running++
		l.waiting--
		return id, a
	}
	return "", nil
}
