// Package turns bounds work that would keep all processors busy.
package turns

import (
	"context"
	"runtime"
	"time"
)

// Patience bounds a wait for a turn: a page of 1,000 entries takes some milliseconds, so a hundred
// callers have theirs within it.
const Patience = time.Second

// Turns hands out turns. Use New.
type Turns struct{ places chan struct{} }

// New returns Turns with a turn at once for each two processors, and at least one. The other
// processors are for registrations.
func New() Turns { return Turns{make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))} }

// Try runs f in a turn, unless none comes within Patience or before ctx ends. Turns come in order.
// It reports whether f has run.
func (t Turns) Try(ctx context.Context, f func()) bool {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	return t.Do(ctx, f)
}

// Do is Try for the rest of work that has begun: it waits until ctx ends.
func (t Turns) Do(ctx context.Context, f func()) bool {
	select {
	case t.places <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-t.places }()
	f()
	return true
}
