package domain

import (
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

const absentFor = lookup.NotFoundFor

// absent is what a Finder remembers of not-founds, until it looks up by a lookup.Machine,
// which has its own.
type absent struct {
	mu       sync.Mutex
	notFound *lookup.NotFound[struct{}]
}

func newAbsent() *absent { return &absent{notFound: lookup.NewNotFound[struct{}]()} }

func (a *absent) add(id ports.PeerID, now time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notFound.Add(id, struct{}{}, now)
}

func (a *absent) has(id ports.PeerID, now time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, is := a.notFound.Has(id, now)
	return is
}
