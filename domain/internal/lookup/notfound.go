package lookup

import (
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// NotFoundFor is how long a not-found is remembered: shorter than anybody waits for an
	// indexer to come up, long enough that asking in a loop costs nobody else.
	NotFoundFor = 5 * time.Second
	// maxNotFound bounds what strangers can have remembered by asking for names that they
	// make up: half a megabyte, beside the results. Then the oldest goes, and is searched for
	// again.
	maxNotFound = 4096
)

// NotFound remembers which PeerIDs were looked for lately and not found, with the result of
// each. now is an instant on whatever clock its owner has. It is the owner's to lock.
type NotFound[R any] struct {
	known map[ports.PeerID]absence[R]
	queue []absentee // oldest first; those that known has another instant of are void
}

type absence[R any] struct {
	until  time.Duration
	result R
}

type absentee struct {
	id    ports.PeerID
	until time.Duration
}

// NewNotFound returns a NotFound that remembers nothing yet.
func NewNotFound[R any]() *NotFound[R] {
	return &NotFound[R]{known: make(map[ports.PeerID]absence[R])}
}

// Add remembers that id was not found at now, and the result that came with that.
func (n *NotFound[R]) Add(id ports.PeerID, result R, now time.Duration) {
	over := 0
	for over < len(n.queue) && (n.queue[over].until <= now || len(n.queue)-over >= maxNotFound) {
		if oldest := n.queue[over]; n.known[oldest.id].until == oldest.until {
			delete(n.known, oldest.id)
		}
		over++
	}
	n.queue = append(n.queue[over:], absentee{id, now + NotFoundFor})
	n.known[id] = absence[R]{now + NotFoundFor, result}
}

// Has reports whether id was not found less than NotFoundFor before now, and returns the
// result of then.
func (n *NotFound[R]) Has(id ports.PeerID, now time.Duration) (result R, is bool) {
	a, ok := n.known[id]
	if !ok || now >= a.until {
		return result, false
	}
	return a.result, true
}

// Remove forgets that id was not found.
func (n *NotFound[R]) Remove(id ports.PeerID) { delete(n.known, id) }
