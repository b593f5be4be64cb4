package porttest

import (
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// Recorder is an observer that keeps its events. The zero Recorder is empty.
type Recorder struct {
	mu  sync.Mutex
	all []ports.Event
}

// Observe implements ports.Observer.
func (r *Recorder) Observe(e ports.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

// Of returns the events of a kind, in order.
func (r *Recorder) Of(kind ports.EventKind) (events []ports.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.all {
		if e.Kind == kind {
			events = append(events, e)
		}
	}
	return events
}

// Count returns the number of events of a kind.
func (r *Recorder) Count(kind ports.EventKind) int { return len(r.Of(kind)) }

// Take returns the events since the last Take, and forgets them.
func (r *Recorder) Take() []ports.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}
