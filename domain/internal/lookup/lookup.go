// Package lookup looks PeerIDs up for many askers: each PeerID once at a time, a bounded
// number at once, and fairly between the askers.
//
// A Machine has two ways in. Ask leaves a PeerID in the asker's queue and returns: that is
// for what was heard. Find waits for the result, or is refused: that is for a caller who
// needs an answer. Each way has a share of its own of the look-ups at once. A flood of news
// does not keep a caller waiting, and many callers do not hold up the news. A caller shares
// the look-up of its PeerID that is under way, whichever way that came in.
package lookup

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

var (
	// ErrBusy is returned by Find if the limits leave no place for one more look-up.
	ErrBusy = errors.New("too many look-ups at once")
	// ErrStopped is returned by Find before Start, and from the end of its ctx on.
	ErrStopped = errors.New("no look-up begins before the start or after the stop")
)

// Config says how a Machine looks up, and its limits.
type Config[R any] struct {
	// Look looks id up. ports.ErrNotFound is an answer: it is remembered for the callers of
	// Find, with the result that comes with it. ctx ends after Timeout, or with that of Start.
	Look func(ctx context.Context, id ports.PeerID) (R, error)
	// Asked is called after a look-up for Ask, which keeps its place until it returns. The
	// callers of Find that share the look-up have their answer by then. nil does nothing.
	Asked func(ctx context.Context, id, asker ports.PeerID, result R)
	// Timeout bounds each look-up.
	Timeout time.Duration

	// MaxFound bounds the look-ups at once for Find, and MaxFoundEach those that one asker
	// began.
	MaxFound     int
	MaxFoundEach func(asker ports.PeerID) int

	// MaxAsked bounds the look-ups at once for Ask, and MaxAskedEach those of one asker.
	MaxAsked, MaxAskedEach int
	// MaxQueued bounds what waits in all queues, and MaxQueuedEach what waits in one.
	MaxQueued, MaxQueuedEach int
	// Own tells an asker whose queue needs no bound; nil is nobody.
	Own func(asker ports.PeerID) bool
}

// Machine looks PeerIDs up. All methods may be called concurrently.
//
// Each asker waits in a queue of its own, also for a PeerID that another one waits for
// already, or a flood that names it would keep it from being looked up. Once it is looked
// up, all who asked before are served.
type Machine[R any] struct {
	cfg   Config[R]
	epoch time.Time // what notFound counts from

	mu       sync.Mutex
	ctx      context.Context // ends the look-ups
	running  *sync.WaitGroup // counts them; nil unless they may begin
	wanted   map[ports.PeerID]*wanted[R]
	notFound *NotFound[R]

	found   int                  // look-ups under way for Find
	finders map[ports.PeerID]int // of them, by who began them

	asked  int // look-ups under way for Ask
	queued int // requests in all queues but the own
	askers map[ports.PeerID]*asker[R]
	turn   []*asker[R] // those with something queued; the first is next
}

// wanted is a PeerID that waits to be looked up or is being looked up.
type wanted[R any] struct {
	id      ports.PeerID
	waiting int // queues that it is in
	begun   int // look-ups for Ask so far
	flight  *flight[R]
}

// flight is a look-up that is under way.
type flight[R any] struct {
	done   chan struct{} // closed when result and err are there
	result R
	err    error
	joined bool         // a caller of Find has waited for it
	again  bool         // it was next's turn meanwhile: what it finds may be older than the news
	next   ports.PeerID // the asker
}

type asker[R any] struct {
	id      ports.PeerID
	queue   []*wanted[R]
	queued  map[*wanted[R]]int // what is in queue, and begun when it was asked for last
	running int
}

// New returns a Machine that queues what it is asked for, and looks up from Start on.
func New[R any](c Config[R]) *Machine[R] {
	return &Machine[R]{
		cfg: c, epoch: time.Now(), notFound: NewNotFound[R](),
		wanted: make(map[ports.PeerID]*wanted[R]), finders: make(map[ports.PeerID]int), askers: make(map[ports.PeerID]*asker[R]),
	}
}

// Start runs what waits and what comes until ctx ends, in goroutines counted by running.
func (m *Machine[R]) Start(ctx context.Context, running *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx, m.running = ctx, running
	m.dispatch()
}

// Stop lets nothing begin any more, so that the goroutines can be waited for. What is under
// way goes on until its ctx ends.
func (m *Machine[R]) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = nil
}

// Len returns how many PeerIDs wait or are being looked up.
func (m *Machine[R]) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.wanted)
}

// Find looks id up on behalf of asker, and waits for the result until ctx ends. The look-up
// goes on without its callers, since others may wait for it. What was not found a moment ago
// is ports.ErrNotFound, with the result of then. ErrBusy and ErrStopped say that no look-up
// has begun.
func (m *Machine[R]) Find(ctx context.Context, id, asker ports.PeerID) (result R, err error) {
	m.mu.Lock()
	if result, is := m.notFound.Has(id, time.Since(m.epoch)); is {
		m.mu.Unlock()
		return result, ports.ErrNotFound
	}
	f, err := m.join(id, asker)
	m.mu.Unlock()
	if err != nil {
		return result, err
	}
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

// join returns the look-up of id, which it begins if there is none. The caller holds the lock.
func (m *Machine[R]) join(id, by ports.PeerID) (*flight[R], error) {
	w := m.wanted[id]
	switch {
	case w != nil && w.flight != nil:
		w.flight.joined = true
		return w.flight, nil
	case !m.runs():
		return nil, ErrStopped
	case m.found >= m.cfg.MaxFound || m.finders[by] >= m.cfg.MaxFoundEach(by):
		return nil, ErrBusy
	case w == nil:
		w = &wanted[R]{id: id}
		m.wanted[id] = w
	}
	m.found++
	m.finders[by]++
	f := m.begin(w)
	// It does not count as begun: what waits in the queues for id is still looked up in its
	// turn, and Asked called.
	f.joined = true
	m.running.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.Timeout)
		defer cancel()
		m.look(ctx, w, f)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.found--
		if m.finders[by]--; m.finders[by] == 0 {
			delete(m.finders, by)
		}
	})
	return f, nil
}

// Ask has id looked up soon, on behalf of by. It does not block. What is over the limits is
// dropped.
func (m *Machine[R]) Ask(id, by ports.PeerID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.askers[by]
	full := !m.own(by) && (m.queued >= m.cfg.MaxQueued || a != nil && len(a.queue) >= m.cfg.MaxQueuedEach)
	if full && !a.waitsFor(m.wanted[id]) {
		return
	}
	m.enqueue(id, by)
	m.dispatch()
}

func (m *Machine[R]) own(asker ports.PeerID) bool { return m.cfg.Own != nil && m.cfg.Own(asker) }

// runs reports whether a look-up may begin.
func (m *Machine[R]) runs() bool { return m.running != nil && m.ctx.Err() == nil }

func (m *Machine[R]) enqueue(id, by ports.PeerID) {
	w, a := m.wanted[id], m.askers[by]
	if w == nil {
		w = &wanted[R]{id: id}
		m.wanted[id] = w
	}
	if a == nil {
		a = &asker[R]{id: by, queued: make(map[*wanted[R]]int)}
		m.askers[by] = a
	}
	waits := a.waitsFor(w)
	if a.queued[w] = w.begun; waits {
		return
	}
	if len(a.queue) == 0 {
		m.turn = append(m.turn, a)
	}
	a.queue = append(a.queue, w)
	w.waiting++
	if !m.own(by) {
		m.queued++
	}
}

func (a *asker[R]) waitsFor(w *wanted[R]) bool {
	if a == nil {
		return false
	}
	_, is := a.queued[w]
	return is
}

// dispatch begins as many look-ups for Ask as may be under way. The caller holds the lock.
func (m *Machine[R]) dispatch() {
	for m.runs() && m.asked < m.cfg.MaxAsked {
		w, a := m.next()
		if w == nil {
			return
		}
		m.asked++
		a.running++
		w.begun++
		f := m.begin(w)
		m.running.Go(func() {
			ctx, cancel := context.WithTimeout(m.ctx, m.cfg.Timeout)
			defer cancel()
			m.look(ctx, w, f)
			if m.cfg.Asked != nil {
				m.cfg.Asked(ctx, w.id, a.id, f.result)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.asked--
			a.running--
			m.letAsker(a)
			m.dispatch()
		})
	}
}

// next takes the next PeerID, of the asker whose turn it is among those below their share;
// nil if there is none.
func (m *Machine[R]) next() (*wanted[R], *asker[R]) {
	for full := 0; full < len(m.turn); {
		a := m.turn[0]
		m.turn = m.turn[1:]
		if a.running >= m.cfg.MaxAskedEach {
			m.turn = append(m.turn, a)
			full++
			continue
		}
		full = 0
		w := a.queue[0]
		asked := a.queued[w]
		if a.queue = a.queue[1:]; len(a.queue) > 0 {
			m.turn = append(m.turn, a)
		}
		delete(a.queued, w)
		w.waiting--
		if !m.own(a.id) {
			m.queued--
		}
		switch {
		case asked < w.begun: // looked up since it was asked for
		case w.flight != nil:
			w.flight.again, w.flight.next = true, a.id
		default:
			return w, a
		}
		m.let(w)
		m.letAsker(a)
	}
	return nil, nil
}

func (m *Machine[R]) begin(w *wanted[R]) *flight[R] {
	w.flight = &flight[R]{done: make(chan struct{})}
	return w.flight
}

// look looks w up, and answers f's callers.
func (m *Machine[R]) look(ctx context.Context, w *wanted[R], f *flight[R]) {
	f.result, f.err = m.cfg.Look(ctx, w.id)

	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case f.err == nil:
		m.notFound.Remove(w.id)
	case f.joined && errors.Is(f.err, ports.ErrNotFound): // news alone may be ahead of the entry
		m.notFound.Add(w.id, f.result, time.Since(m.epoch))
	}
	close(f.done)
	w.flight = nil
	if f.again {
		m.enqueue(w.id, f.next)
		m.dispatch()
	}
	m.let(w)
}

// let forgets w if nobody needs it any more.
func (m *Machine[R]) let(w *wanted[R]) {
	if w.waiting == 0 && w.flight == nil {
		delete(m.wanted, w.id)
	}
}

func (m *Machine[R]) letAsker(a *asker[R]) {
	if len(a.queue) == 0 && a.running == 0 {
		delete(m.askers, a.id)
	}
}
