package domain

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file takes in the hang-ups of indexers with an open stream of heartbeats. Such an indexer has
// probably died: its lease is late at once, and lives on to its end.

// maxHangups bounds the hang-ups that wait. The leases of more are late at their time.
const maxHangups = 1 << 16

// hangups are the indexers that have hung up just now. They may be dialling anew.
type hangups struct {
	added chan struct{} // has a value after the first

	mu      sync.Mutex
	waiting []hangup             // in order
	of      map[ports.PeerID]int // how many of them are an indexer's: its last one counts
}

// hangup is an indexer whose lease is late at that instant, unless it registers before.
type hangup struct {
	id ports.PeerID
	at Instant
}

func (h *hangups) add(id ports.PeerID, at Instant) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == maxHangups {
		return
	}
	if h.of == nil {
		h.of = make(map[ports.PeerID]int)
	}
	h.of[id]++
	if h.waiting = append(h.waiting, hangup{id, at}); len(h.waiting) == 1 {
		select {
		case h.added <- struct{}{}:
		default:
		}
	}
}

// next returns a timer for the first, nil without one.
func (h *hangups) next(at Instant) <-chan time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.waiting) == 0 {
		return nil
	}
	return time.After(h.waiting[0].at.Sub(at))
}

// take returns the indexers whose time has come.
func (h *hangups) take(at Instant) (due []ports.PeerID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for ; n < len(h.waiting) && !at.Before(h.waiting[n].at); n++ {
		id := h.waiting[n].id
		if h.of[id]--; h.of[id] == 0 {
			delete(h.of, id)
			due = append(due, id)
		}
	}
	if h.waiting = h.waiting[n:]; len(h.waiting) == 0 {
		h.waiting, h.of = nil, nil
	}
	return due
}

// overdue has the leases be late of indexers that have hung up and not registered since. A native that
// stood still may not have read that they did.
func (r *Registry) overdue() {
	for _, id := range r.hangups.take(r.now().at) {
		s := r.table.shard(id)
		s.mu.Lock()
		now := r.now()
		if rec := s.record(id); rec.known() && rec.is(hasHungUp) && !r.table.hearing.doubts(now.at) {
			if next := *rec.holding(); next.granted() != nil && next.first.live(now.at) {
				next.first.overdue = true
				s.apply(rec, &next, now)
			}
		}
		s.mu.Unlock()
		r.table.hearing.goesOn(now.at)
	}
}

// becomes reports whether the lease is is w, but for being overdue.
func (w *word) becomes(is *word) bool {
	late := *w
	late.overdue = is.overdue
	return late == *is
}
