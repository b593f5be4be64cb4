package domain

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// absentFor is how long a not-found is remembered: shorter than anybody waits for an
	// indexer to come up, long enough that asking in a loop costs nobody else.
	absentFor = 5 * time.Second
	// maxAbsent bounds what strangers can have remembered by asking for names that they
	// make up: half a megabyte. Then the oldest goes, and is searched for again.
	maxAbsent = 4096
)

// absent remembers which PeerIDs were looked for lately and not found. now is an instant on
// whatever clock its owner has. All methods may be called concurrently.
type absent struct {
	mu    sync.Mutex
	until map[ports.PeerID]time.Duration
	queue []absentee // oldest first; those that until has another instant of are void
}

type absentee struct {
	id    ports.PeerID
	until time.Duration
}

func newAbsent() *absent { return &absent{until: make(map[ports.PeerID]time.Duration)} }

// add remembers that id was not found at now.
func (a *absent) add(id ports.PeerID, now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	over := 0
	for over < len(a.queue) && (a.queue[over].until <= now || len(a.queue)-over >= maxAbsent) {
		if oldest := a.queue[over]; a.until[oldest.id] == oldest.until {
			delete(a.until, oldest.id)
		}
		over++
	}
	a.queue = append(a.queue[over:], absentee{id, now + absentFor})
	a.until[id] = now + absentFor
}

// has reports whether id was not found less than absentFor before now.
func (a *absent) has(id ports.PeerID, now time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.until[id]
	return ok && now < until
}
