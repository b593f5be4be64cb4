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
	mu  sync.Mutex // held by each change, and for audiences and onChange
	now atomic.Pointer[map[ports.PeerID]int]
	// audiences has the Audience of each native that this native follows, as it told it last.
	audiences map[ports.PeerID]uint64
	revision  atomic.Uint64
	onChange  []func()
}

// OnChange has changed called whenever a native begins to follow, or follows no more. It must not block.
func (f *Followers) OnChange(changed func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onChange = append(f.onChange, changed)
}

// Has reports whether native follows this native. It does not block.
func (f *Followers) Has(native ports.PeerID) bool {
	now := f.now.Load()
	return now != nil && (*now)[native] > 0
}

// Share reports whether all of natives follow this native, and each has told that its announcements
// have the same audience. Then the natives of that audience are connected to each other, and to no node
// beside them.
func (f *Followers) Share(audience uint64, natives []ports.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, native := range natives {
		if told, known := f.audiences[native]; !f.Has(native) || !known || told != audience {
			return false
		}
	}
	return true
}

// Revision is another number after each change of what Has and Share report. It does not block.
func (f *Followers) Revision() uint64 { return f.revision.Load() }

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
	had := next[native] > 0
	if next[native] += by; next[native] == 0 {
		delete(next, native)
	}
	f.now.Store(&next)
	f.revision.Add(1)
	if has := next[native] > 0; has != had {
		for _, changed := range f.onChange {
			changed()
		}
	}
}

// hear takes note of the audience of native, which this native follows; 0 is unknown.
func (f *Followers) hear(native ports.PeerID, audience uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.audiences[native] == audience {
		return
	}
	if f.audiences == nil {
		f.audiences = make(map[ports.PeerID]uint64)
	}
	if f.audiences[native] = audience; audience == 0 {
		delete(f.audiences, native)
	}
	f.revision.Add(1)
}
