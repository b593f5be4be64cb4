package domain

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxSegments is how many segments are kept for watchers that come a little later: some
	// seconds of changes.
	maxSegments = 64
	// segmentAge is how old a segment may be for another watcher. Then its changes are let go. Its Remaining is too long
	// by that age: no watcher can tell that from the time that a batch travels.
	segmentAge = 250 * time.Millisecond
)

// segments are the last changes as watchers get them, each made once for all watchers.
// Otherwise a thousand watchers would make a million changes of a thousand.
type segments struct {
	mu   sync.Mutex
	last []*segment // end to end, but where a watcher began in between
	pace pace
}

// segment is a run of changes. It does not change.
type segment struct {
	from, until uint64
	made        time.Time
	all         []ports.Change
	lasting     []ports.Change // without renewals
}

// free returns when a watcher at change number next may take a change that is no renewal.
func (s *segments) free(next uint64) (at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.last); n > 0 && (s.last[n-1].until > next || s.last[n-1].full()) {
		return at
	}
	return s.pace.free
}

// at returns the segment that begins at change number next. Without such a segment it
// returns the number up to which the watcher reads by itself. That is next if the watcher
// has to wait: a new segment is made when the pace allows it. With renewals alone, it is made an
// interval after the last.
func (s *segments) at(r *Registry, next uint64) (_ *segment, until uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := time.Now()
	for i := len(s.last) - 1; i >= 0 && s.last[i].until > next; i-- {
		switch seg := s.last[i]; {
		case seg.from > next:
			until = seg.from
		case seg.from == next && asked.Sub(seg.made) < segmentAge:
			return seg, seg.until
		default:
			return nil, seg.until
		}
	}
	head, urgent := r.table.changes.head(), r.table.changes.urgent.Load() > next
	if until > 0 || head == next {
		return nil, max(until, next)
	}
	if n := len(s.last); n > 0 && asked.Sub(s.last[n-1].made) < s.pace.interval() && !s.last[n-1].full() && (!urgent || asked.Before(s.pace.free)) {
		return nil, next
	}
	seg := &segment{from: next, until: min(head, next+maxBatch), made: asked}
	w := watcher{registry: r, changes: r.table.changes, request: ports.WatchRequest{Renewed: true}, next: next}
	batch, err := w.read(seg.until)
	if err != nil {
		return nil, seg.until // the watcher's own read returns the error
	}
	seg.all = batch.Changes
	for _, c := range seg.all {
		if c.Kind != ports.ChangeRenewed {
			seg.lasting = append(seg.lasting, c)
		}
	}
	s.pace.spend(asked, len(seg.lasting))
	if len(s.last) == maxSegments {
		copy(s.last, s.last[1:])
		s.last = s.last[:maxSegments-1]
	}
	for i, old := range s.last {
		if old.all != nil && asked.Sub(old.made) >= segmentAge {
			s.last[i] = &segment{from: old.from, until: old.until, made: old.made}
		}
	}
	s.last = append(s.last, seg)
	return seg, seg.until
}

// full reports whether there may be more behind the segment. No watcher waits for that.
func (s *segment) full() bool { return s.until-s.from == maxBatch }

// lasting returns how many changes are no renewals.
func lasting(changes []ports.Change) (n int) {
	for i := range changes {
		if changes[i].Kind != ports.ChangeRenewed {
			n++
		}
	}
	return n
}
