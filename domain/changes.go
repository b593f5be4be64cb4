package domain

import (
	"context"
	"crypto/rand"
	"iter"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxChanges is how many changes a native remembers, and so how far a watcher may fall
	// behind: 13 s at 10,000 changes a second. All together have 12 MB at most.
	maxChanges = chunkChanges * maxChunks
	// chunkChanges are remembered and forgotten together.
	chunkChanges = 512
	maxChunks    = 256
)

// conditionChanged is no change of a record: it has watchers look at the condition.
const conditionChanged ports.ChangeKind = "condition"

// change is what became of an indexer, with the word that is shown of it, or was.
type change struct {
	kind  ports.ChangeKind
	id    ports.PeerID
	word  word
	fresh bool // a watcher needs the record of it
}

// changelog remembers the last changes of the live table, in the order in which they
// happened. It is the one buffer of all watchers: each reads it at its own pace, and who
// falls out of it is dropped. So a slow one costs neither the table nor another anything:
// readers take no lock that whoever adds needs, nor does that wake them.
type changelog struct {
	// instance tells this native's cursors from others', and from those of before a restart.
	instance string
	// renewals is set once somebody wants to hear of them: a heartbeat that changes nothing
	// need not be remembered before that.
	renewals atomic.Bool

	mu sync.Mutex // of those who add
	// kept has all that is remembered. What stands in a chunk before next does not change.
	kept atomic.Pointer[kept]
	next atomic.Uint64 // the number of the next change
	// urgent is the number behind the last change that is no renewal.
	urgent       atomic.Uint64
	renewalsFrom atomic.Uint64 // from here on renewals are remembered too

	news     chan struct{} // receives a value after each change; several may be one
	waker    waker
	segments segments
}

// kept is an immutable list of chunks; but for the last, which is being filled, each is full.
type kept struct {
	chunks []*[chunkChanges]change
	first  uint64 // the number of the first change of chunks[0]
}

func newChangelog() *changelog {
	l := &changelog{instance: rand.Text()[:10], news: make(chan struct{}, 1)}
	l.kept.Store(&kept{})
	return l
}

// add remembers c. The caller holds the lock of its shard, so that the changes of one record
// are in order.
func (l *changelog) add(c change) {
	if c.kind == ports.ChangeRenewed && !l.renewals.Load() {
		return
	}
	l.mu.Lock()
	k, n := l.kept.Load(), l.next.Load()
	i := n - k.first
	if i == uint64(len(k.chunks))*chunkChanges {
		grown := &kept{chunks: make([]*[chunkChanges]change, 0, maxChunks), first: k.first}
		over := max(len(k.chunks)+1-maxChunks, 0)
		grown.chunks = append(append(grown.chunks, k.chunks[over:]...), new([chunkChanges]change))
		grown.first += uint64(over) * chunkChanges
		l.kept.Store(grown)
		k, i = grown, n-grown.first
	}
	k.chunks[i/chunkChanges][i%chunkChanges] = c
	l.next.Store(n + 1)
	if c.kind != ports.ChangeRenewed {
		l.urgent.Store(n + 1)
	}
	l.mu.Unlock()
	if l.waker.asked.Load() || c.kind != ports.ChangeRenewed && l.waker.askedUrgent.Load() {
		select {
		case l.news <- struct{}{}:
		default: // whoever wakes the watchers has not come around since the last
		}
	}
}

// remember has renewals remembered from now on.
func (l *changelog) remember() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.renewals.Load() {
		l.renewalsFrom.Store(l.next.Load())
		l.renewals.Store(true)
	}
}

// head returns the number of the next change.
func (l *changelog) head() uint64 { return l.next.Load() }

// read yields what happened from number from on, at most limit of it, and reports whether
// that is still remembered. What it yields stays as it is.
func (l *changelog) read(from uint64, limit int) (_ iter.Seq[*change], ok bool) {
	next, k := l.next.Load(), l.kept.Load()
	if from < k.first {
		return nil, false
	}
	next = min(next, from+uint64(limit))
	return func(yield func(*change) bool) {
		for n := from - k.first; n < next-k.first; n++ {
			if !yield(&k.chunks[n/chunkChanges][n%chunkChanges]) {
				return
			}
		}
	}, true
}

// waker wakes those who wait for changes: a thousand of them take longer to wake than
// whoever registers is to wait. It runs while anybody watches.
type waker struct {
	mu sync.Mutex
	// wake is closed when there are changes, wakeUrgent when there are such that are no
	// renewals; nil if nobody waits.
	wake, wakeUrgent   chan struct{}
	asked, askedUrgent atomic.Bool // whether they are there
	watching           atomic.Int64
	done, stopped      chan struct{}
}

// watch has wait work until stop is called.
func (l *changelog) watch() (stop func()) {
	c := &l.waker
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watching.Add(1) == 1 {
		done, stopped := make(chan struct{}), make(chan struct{})
		c.done, c.stopped = done, stopped
		go func() {
			defer close(stopped)
			l.wakeAll(done)
		}()
	}
	return func() {
		c.mu.Lock()
		done, stopped := c.done, c.stopped
		last := c.watching.Add(-1) == 0
		if last {
			close(done)
		}
		c.mu.Unlock()
		if last {
			<-stopped
		}
	}
}

// wakeAll wakes who waits, until done is closed.
func (l *changelog) wakeAll(done <-chan struct{}) {
	c := &l.waker
	for woken := uint64(0); ; {
		select {
		case <-done:
			return
		case <-l.news:
		}
		c.mu.Lock()
		if c.wake != nil {
			close(c.wake)
			c.wake = nil
			c.asked.Store(false)
		}
		if urgent := l.urgent.Load(); urgent > woken && c.wakeUrgent != nil {
			close(c.wakeUrgent)
			c.wakeUrgent, woken = nil, urgent
			c.askedUrgent.Store(false)
		}
		c.mu.Unlock()
	}
}

// wait returns when there is a change of number from or later, one that is no renewal if
// urgent, or with the error of ctx.
func (l *changelog) wait(ctx context.Context, from uint64, urgent bool) error {
	c := &l.waker
	next, wake, asked := &l.next, &c.wake, &c.asked
	if urgent {
		next, wake, asked = &l.urgent, &c.wakeUrgent, &c.askedUrgent
	}
	for next.Load() <= from {
		c.mu.Lock()
		if *wake == nil {
			*wake = make(chan struct{})
			asked.Store(true)
		}
		woken := *wake
		c.mu.Unlock()
		if next.Load() > from { // since the first look
			break
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// cursor is the text of a place before the change of number n.
func (l *changelog) cursor(n uint64) string {
	return l.instance + "." + strconv.FormatUint(n, 10)
}

// resume returns the place that a cursor tells, or why it is of no use.
func (l *changelog) resume(cursor string, renewed bool) (n uint64, reset ports.Reset) {
	if cursor == "" {
		return 0, ports.ResetNew
	}
	instance, number, _ := strings.Cut(cursor, ".")
	n, err := strconv.ParseUint(number, 10, 64)
	switch {
	case instance != l.instance || err != nil || n > l.next.Load():
		return 0, ports.ResetUnknown
	case n < l.kept.Load().first, renewed && n < l.renewalsFrom.Load():
		return 0, ports.ResetTooOld
	}
	return n, ""
}
