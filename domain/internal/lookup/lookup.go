// Package lookup looks PeerIDs up for many askers: each PeerID once at a time, a bounded
// number at once, and fairly between the askers.
//
// A Machine has two ways in. Ask leaves a PeerID in the asker's queue and returns: that is
// for what was heard. Find waits for the result, or is refused: that is for a caller that
// needs an answer. Each way has a share of its own of the look-ups at once. A flood of news
// does not keep a caller waiting, and many callers do not hold up the news. A caller shares
// the look-up of its PeerID that is under way, whichever way that came in.
//
// A registry needs both ways. A finder, which hears no news, needs Find alone.
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
	// asker is the asker of the Ask that began the look-up, "" if a Find began it.
	Look func(ctx context.Context, id, asker ports.PeerID) (R, error)
	// AfterAsk is called after a look-up for Ask, which keeps its place until AfterAsk returns.
	// The callers of Find that share the look-up have their answer by then: AfterAsk may ask
	// another native, whose own look-up waits for this one's answer. nil does nothing.
	AfterAsk func(ctx context.Context, id, asker ports.PeerID, result R)
	// Timeout bounds each look-up.
	Timeout time.Duration

	// MaxFinds bounds the look-ups at once for Find, and MaxFindsEach those that one asker
	// began.
	MaxFinds     int
	MaxFindsEach func(asker ports.PeerID) int

	// MaxAsks bounds the look-ups at once for Ask, and MaxAsksEach those of one asker.
	MaxAsks, MaxAsksEach int
	// MaxQueued bounds what waits in all queues, and MaxQueuedEach what waits in one.
	MaxQueued, MaxQueuedEach int
	// Own tells an asker whose queue needs no bound; nil is none.
	Own func(asker ports.PeerID) bool
}

// Machine looks PeerIDs up. All methods may be called concurrently.
//
// Each asker has a queue of its own. A PeerID waits in the queue of each asker that asks for
// it: in one queue alone, a flood that names it would hold it up for all. Its look-up serves
// every asker that asked before the look-up began.
type Machine[R any] struct {
	cfg   Config[R]
	epoch time.Time // what notFound counts from

	mu       sync.Mutex
	ctx      context.Context // ends the look-ups
	running  *sync.WaitGroup // counts them; nil unless they may begin
	wanted   map[ports.PeerID]*wanted[R]
	notFound *NotFound[R]

	finds   int                  // look-ups under way for Find
	finders map[ports.PeerID]int // how many of them each asker began

	asks   int // look-ups under way for Ask
	queued int // requests in all queues but the own
	askers map[ports.PeerID]*asker[R]
	turn   []*asker[R] // askers with something queued; the first is next
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
	again  bool         // next's turn came meanwhile: the result may be older than its news
	next   ports.PeerID // an asker
}

type asker[R any] struct {
	id      ports.PeerID
	queue   []*wanted[R]
	queued  map[*wanted[R]]int // the members of queue, and begun at the last Ask for each
	running int
}

// New returns a Machine. It queues what is asked for, and looks up from Start on.
func New[R any](c Config[R]) *Machine[R] {
	return &Machine[R]{
		cfg: c, epoch: time.Now(), notFound: NewNotFound[R](),
		wanted: make(map[ports.PeerID]*wanted[R]), finders: make(map[ports.PeerID]int), askers: make(map[ports.PeerID]*asker[R]),
	}
}

// Start lets look-ups begin until ctx ends, in goroutines counted by running. A Machine starts
// once.
func (m *Machine[R]) Start(ctx context.Context, running *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx, m.running = ctx, running
	m.dispatch()
}

// Stop lets no look-up begin any more, so that the goroutines can be waited for. A look-up
// that is under way ends with the ctx of Start.
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

// Find looks id up on behalf of asker, and waits until ctx ends for what Look returns. The
// look-up goes on without its callers, since more of them may come. A PeerID that Find did
// not find less than NotFoundFor ago is ports.ErrNotFound at once, with the result of then.
// ErrBusy and ErrStopped say that no look-up has begun.
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
	case m.finds >= m.cfg.MaxFinds || m.finders[by] >= m.cfg.MaxFindsEach(by):
		return nil, ErrBusy
	case w == nil:
		w = &wanted[R]{id: id}
		m.wanted[id] = w
	}
	m.finds++
	m.finders[by]++
	f := m.fly(w)
	f.joined = true
	// w.begun does not count it: the askers that wait for id keep their turn, and AfterAsk is
	// called for them.
	m.running.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, m.cfg.Timeout)
		defer cancel()
		m.look(ctx, w, f, "")
		m.mu.Lock()
		defer m.mu.Unlock()
		m.finds--
		if m.finders[by]--; m.finders[by] == 0 {
			delete(m.finders, by)
		}
	})
	return f, nil
}

// Ask queues id, to be looked up on behalf of by. It does not block. Over the limits it does
// nothing.
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

// waitsFor reports whether w is in a's queue; a and w may be nil.
func (a *asker[R]) waitsFor(w *wanted[R]) bool {
	if a == nil {
		return false
	}
	_, is := a.queued[w]
	return is
}

// dispatch begins as many look-ups for Ask as may be under way. The caller holds the lock.
func (m *Machine[R]) dispatch() {
	for m.runs() && m.asks < m.cfg.MaxAsks {
		w, a := m.next()
		if w == nil {
			return
		}
		m.asks++
		a.running++
		w.begun++
		f := m.fly(w)
		m.running.Go(func() {
			ctx, cancel := context.WithTimeout(m.ctx, m.cfg.Timeout)
			defer cancel()
			m.look(ctx, w, f, a.id)
			if m.cfg.AfterAsk != nil {
				m.cfg.AfterAsk(ctx, w.id, a.id, f.result)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.asks--
			a.running--
			m.letAsker(a)
			m.dispatch()
		})
	}
}

// next takes the next PeerID out of the queue of the first asker in turn that is below its
// share; nil if there is none.
func (m *Machine[R]) next() (*wanted[R], *asker[R]) {
	for full := 0; full < len(m.turn); {
		a := m.turn[0]
		m.turn = m.turn[1:]
		if a.running >= m.cfg.MaxAsksEach {
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
		case asked < w.begun: // looked up since
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

func (m *Machine[R]) fly(w *wanted[R]) *flight[R] {
	w.flight = &flight[R]{done: make(chan struct{})}
	return w.flight
}

// look looks w up, and answers the callers that wait for f.
func (m *Machine[R]) look(ctx context.Context, w *wanted[R], f *flight[R], asker ports.PeerID) {
	f.result, f.err = m.cfg.Look(ctx, w.id, asker)

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

// let forgets w if no queue and no look-up has it.
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
