package domain

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/opencloud/ocnode/ports"
)

// Followers are the natives that follow this native: they hear its news as these happen, so it
// need not put and announce renewals for them. The zero Followers are none. All methods may be called concurrently.
type Followers struct {
	mu  sync.Mutex // held by add
	now atomic.Pointer[map[ports.PeerID]int]
}

// Has reports whether native follows this native. It does not block.
func (f *Followers) Has(native ports.PeerID) bool {
	now := f.now.Load()
	return now != nil && (*now)[native] > 0
}

// add counts a watch of native until stop is called. The set is copied, as it is read far more often
// than it changes.
func (f *Followers) add(native ports.PeerID) (stop func()) {
	f.count(native, 1)
	return func() { f.count(native, -1) }
}

func (f *Followers) count(native ports.PeerID, by int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := make(map[ports.PeerID]int)
	if now := f.now.Load(); now != nil {
		next = maps.Clone(*now)
	}
	if next[native] += by; next[native] == 0 {
		delete(next, native)
	}
	f.now.Store(&next)
}
