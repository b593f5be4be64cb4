// Package notfound remembers which PeerIDs were looked for lately and not found, so that asking
// for them in a loop costs nobody but the node that is asked. A native and a finder share it.
package notfound

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// Kept is how long a not-found is remembered: shorter than anybody waits for an
	// indexer to come up, long enough that asking in a loop costs no other node.
	Kept = 5 * time.Second
	// maxKept bounds what strangers can have remembered by asking for names that they
	// make up: half a megabyte. Then the oldest goes, and is searched for again.
	maxKept = 4096
)

// Cache are the not-founds. Instants are on whatever clock its owner has, and never go back.
// All methods may be called concurrently.
type Cache struct {
	mu    sync.Mutex
	until map[ports.PeerID]time.Duration
	queue []kept // oldest first; an element is void if until has another instant of its PeerID
}

type kept struct {
	id    ports.PeerID
	until time.Duration
}

// New returns a cache of nothing.
func New() *Cache { return &Cache{until: make(map[ports.PeerID]time.Duration)} }

// Add remembers that id was not found at the instant at.
func (c *Cache) Add(id ports.PeerID, at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := 0
	for over < len(c.queue) && (c.queue[over].until <= at || len(c.queue)-over >= maxKept) {
		if oldest := c.queue[over]; c.until[oldest.id] == oldest.until {
			delete(c.until, oldest.id)
		}
		over++
	}
	c.queue = append(c.queue[over:], kept{id, at + Kept})
	c.until[id] = at + Kept
}

// Has reports whether id was not found less than Kept before the instant at.
func (c *Cache) Has(id ports.PeerID, at time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.until[id]
	return ok && at < until
}
