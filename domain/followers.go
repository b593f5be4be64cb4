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
	now atomic.Pointer[map[ports.PeerID]following]
	// audiences has the Audience of each native that this native follows, as it told it last.
	audiences map[ports.PeerID]uint64
	revision  atomic.Uint64
	onChange  []func()
}

// following is how many watches a native has here, and on how many of them it is full.
type following struct{ watches, full int }

// OnChange has changed called whenever Has reports another answer of a native. It must not block.
func (f *Followers) OnChange(changed func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onChange = append(f.onChange, changed)
}

// Has reports whether native follows this native, and has what it is told: a follower without room for some of it
// has refused that, and cannot answer with it. It does not block.
func (f *Followers) Has(native ports.PeerID) bool { return f.of(native).has() }

func (f *Followers) of(native ports.PeerID) following {
	if now := f.now.Load(); now != nil {
		return (*now)[native]
	}
	return following{}
}

func (is following) has() bool { return is.watches > 0 && is.full == 0 }

// Share reports whether all of natives follow this native, and each has told that its announcements
// have the same audience. Then the natives of that audience are connected to each other, and to no node
// beside them.
func (f *Followers) Share(audience uint64, natives []ports.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, native := range natives {
		if told, known := f.audiences[native]; f.of(native).watches == 0 || !known || told != audience {
			return false
		}
	}
	return true
}

// Revision is another number after each change of what Has and Share report. It does not block.
func (f *Followers) Revision() uint64 { return f.revision.Load() }

// add counts a watch of native until stop is called, and by full whether it is full. The set is copied, as it
// is read far more often than it changes. Neither may be called concurrently.
func (f *Followers) add(native ports.PeerID) (full func(bool), stop func()) {
	was := following{watches: 1}
	f.count(native, following{}, was)
	to := func(next following) {
		if next != was {
			f.count(native, was, next)
			was = next
		}
	}
	full = func(is bool) {
		next := following{watches: 1}
		if is {
			next.full = 1
		}
		to(next)
	}
	return full, func() { to(following{}) }
}

// count has a watch of native count as next, in the place of was.
func (f *Followers) count(native ports.PeerID, was, next following) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := make(map[ports.PeerID]following)
	if is := f.now.Load(); is != nil {
		now = maps.Clone(*is)
	}
	is := now[native]
	had := is.has()
	is.watches, is.full = is.watches+next.watches-was.watches, is.full+next.full-was.full
	if now[native] = is; is.watches == 0 {
		delete(now, native)
	}
	f.now.Store(&now)
	f.revision.Add(1)
	if is.has() != had {
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
