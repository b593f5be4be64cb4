package domain

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxChanges is how many changes a native remembers, and so how far a watcher may fall
	// behind: 13 s at 10,000 changes a second.
	maxChanges = 128 << 10
	// stretchChanges and stretchBytes bound the changes that are remembered and forgotten together.
	stretchChanges = 512
	stretchBytes   = 63<<10 - 64 // with its head, a stretch takes eight pages of memory
	// maxStretches bounds the memory of all: 64 MB. Plain changes take 16 MB, and signed changes 32 MB. Only changes
	// with much metadata are forgotten sooner.
	maxStretches = 1024
	// maxUnwatched is how many changes a native remembers before the first watch, and renewalsKept after
	// the last.
	maxUnwatched = 2 * stretchChanges
	// maxMarks bounds the remembered changes of the standing: a minute's, at one a second.
	maxMarks = 64
	// renewalsKept is how long renewals are remembered for a watcher that may come back. It lasts
	// longer than a restart, and than maxChanges at a native with 15,000 indexers.
	renewalsKept = 10 * time.Minute
)

// conditionChanged is no change of a record: it wakes watchers to look at the condition.
const conditionChanged ports.ChangeKind = "condition"

// change is a change of an indexer's view, with the word shown after it, or before its end.
type change struct {
	kind  ports.ChangeKind
	id    ports.PeerID
	word  word
	fresh bool // a watcher needs its record
}

// changelog remembers the last changes of the live table, in the order in which they
// happened. All watchers share this buffer: each reads at its own pace, and a watcher
// that falls too far behind is dropped. So a slow watcher costs the table nothing. Readers
// do not take the lock of add, and add does not wake them.
type changelog struct {
	// instance tells this native's cursors from others', and from those before a restart.
	instance string
	// renewals is set at the first watch that wants renewals, and cleared renewalsKept after the last.
	// Else a heartbeat without other changes is not remembered, and costs less.
	renewals atomic.Bool

	table *table

	rooms sync.Pool // of *changeRoom

	mu sync.Mutex // held by add and remember
	// left is when a watcher ended last, zero before the first.
	left time.Time
	// kept has all remembered changes. The changes before next are final.
	kept atomic.Pointer[kept]
	next atomic.Uint64 // the number of the next change
	// urgent is the number after the last change that is no renewal.
	urgent       atomic.Uint64
	renewalsFrom atomic.Uint64 // from here on renewals are remembered too
	renewing     int           // the watches that want renewals; used under mu, as renewedAt is
	renewedAt    time.Time     // when the last of them ended

	// marks are the last changes of the standing, in order. The slice is immutable.
	marks atomic.Pointer[[]mark]

	news     chan struct{} // receives a value after each change; several may be one
	doubt    func()        // is called at each change of the standing
	waker    waker
	segments segments
}

// kept is an immutable list of changes.
type kept struct {
	all   []*stretch
	first uint64 // the number of the first change
}

// stretch is some changes one after the other, as bytes. add writes behind those that readers read.
type stretch struct {
	first uint64
	odd   *[stretchChanges]*change // those that do not pack; nil without any
	count int                      // of changes; for add alone
	ends  [stretchChanges]uint16   // where the bytes of each end
	bytes [stretchBytes]byte
}

// end returns where the bytes of the first n changes end.
func (c *stretch) end(n int) int {
	if n == 0 {
		return 0
	}
	return int(c.ends[n-1])
}

// fits reports whether c has room for another change of so many bytes.
func (c *stretch) fits(size int) bool {
	return c.count < stretchChanges && c.end(c.count)+size <= stretchBytes
}

// add appends a change: its bytes, and itself if it does not pack.
func (c *stretch) add(bytes []byte, odd *change) {
	if odd != nil {
		if c.odd == nil {
			c.odd = new([stretchChanges]*change)
		}
		c.odd[c.count] = odd
	}
	from := c.end(c.count)
	c.ends[c.count] = uint16(from + copy(c.bytes[from:], bytes))
	c.count++
}

func (c *stretch) at(i int) (m remembered) {
	m.bytes = c.bytes[c.end(i):c.end(i+1)]
	if len(m.bytes) == changeMore {
		m.odd = c.odd[i]
	}
	return m
}

func newChangelog(t *table) *changelog {
	l := &changelog{table: t, instance: rand.Text()[:10], news: make(chan struct{}, 1), doubt: func() {}}
	l.kept.Store(&kept{})
	l.rooms.New = func() any { return &changeRoom{} }
	l.segments.pace.watching = l.waker.watching.Load
	l.begin(standing{})
	return l
}

// add remembers that w became of id; fresh says that a watcher needs the record of it. The caller
// holds the lock of its shard, so that the changes of one record are in order.
func (l *changelog) add(kind ports.ChangeKind, id ports.PeerID, w *word, fresh bool) {
	if kind == ports.ChangeRenewed && !l.renewals.Load() {
		return
	}
	room := l.rooms.Get().(*changeRoom)
	defer l.rooms.Put(room)
	bytes, ok := l.table.remember(kind, id, w, fresh, room)
	var odd *change
	if !ok {
		odd = &change{kind, id, *w, fresh}
	}
	l.mu.Lock()
	n := l.next.Load()
	l.room(n, len(bytes)).add(bytes, odd)
	l.next.Store(n + 1)
	if kind != ports.ChangeRenewed {
		l.urgent.Store(n + 1)
	}
	l.mu.Unlock()
	if l.waker.asked.Load() || kind != ports.ChangeRenewed && l.waker.askedUrgent.Load() {
		select {
		case l.news <- struct{}{}:
		default: // the waker has not taken the last value yet
		}
	}
}

// room returns the stretch that has room for change number n of so many bytes. It forgets the oldest for
// it. The caller holds the lock.
func (l *changelog) room(n uint64, size int) *stretch {
	k := l.kept.Load()
	if last := len(k.all) - 1; last >= 0 && k.all[last].fits(size) {
		return k.all[last]
	}
	most := uint64(maxChanges)
	if l.waker.watching.Load() == 0 && time.Since(l.left) >= renewalsKept {
		most = maxUnwatched
	}
	old := k.all
	for len(old) > 0 && (len(old) == maxStretches || n+stretchChanges-old[0].first > most) {
		old = old[1:]
	}
	grown := &kept{all: append(slices.Clip(old), &stretch{first: n})}
	grown.first = grown.all[0].first
	l.kept.Store(grown)
	return grown.all[len(old)]
}

// mark is the standing of the table from change number at on.
type mark struct {
	at uint64
	standing
}

// begin takes in the standing of a table without a change.
func (l *changelog) begin(s standing) { l.marks.Store(&[]mark{{standing: s}}) }

// mark remembers that the standing is s from now on, and wakes watchers to look at it.
func (l *changelog) mark(s standing) {
	l.mu.Lock()
	marks := *l.marks.Load()
	marks = append(slices.Clone(marks[max(0, len(marks)+1-maxMarks):]), mark{l.next.Load(), s})
	l.marks.Store(&marks)
	l.mu.Unlock()
	l.add(conditionChanged, "", &word{}, false)
	l.doubt()
}

// standing returns the standing of the table before change number n. It is zero if that is the present
// one, or is forgotten.
func (l *changelog) standing(n uint64) (s standing) {
	marks := *l.marks.Load()
	for i := len(marks) - 1; i > 0 && marks[i].at > n; i-- {
		s = marks[i-1].standing
	}
	return s
}

// remember has renewals be kept, for a watch until stop.
func (l *changelog) remember() (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renewing++
	if !l.renewals.Load() {
		l.renewalsFrom.Store(l.next.Load())
		l.renewals.Store(true)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.renewing--
		l.renewedAt = time.Now()
	}
}

// rest ends the keeping of renewals if no watcher wants them any more.
func (l *changelog) rest() {
	if !l.renewals.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.renewing == 0 && time.Since(l.renewedAt) >= renewalsKept {
		l.renewals.Store(false)
	}
}

// head returns the number of the next change.
func (l *changelog) head() uint64 { return l.next.Load() }

// read yields at most limit changes from number from on. It is not ok if the changelog has
// forgotten them. A yielded change never changes.
func (l *changelog) read(from uint64, limit int) (_ iter.Seq[remembered], ok bool) {
	next, k := l.next.Load(), l.kept.Load()
	if from < k.first {
		return nil, false
	}
	next = min(next, from+uint64(limit))
	return func(yield func(remembered) bool) {
		at, found := slices.BinarySearchFunc(k.all, from, func(c *stretch, n uint64) int { return cmp.Compare(c.first, n) })
		if !found {
			at--
		}
		for n := from; n < next; n++ {
			if at+1 < len(k.all) && k.all[at+1].first == n {
				at++
			}
			if c := k.all[at]; !yield(c.at(int(n - c.first))) {
				return
			}
		}
	}, true
}

// waker wakes the waiting watchers in a goroutine of its own: to wake a thousand takes longer
// than a registration may wait. The goroutine runs while there are watchers.
type waker struct {
	mu sync.Mutex
	// wake is closed at a change, wakeUrgent at a change that is no renewal. Each is nil
	// while no watcher waits for it.
	wake, wakeUrgent   chan struct{}
	asked, askedUrgent atomic.Bool // whether wake and wakeUrgent are set
	watching           atomic.Int64
	done, stopped      chan struct{}
}

// watch counts a watcher until stop. wait works in between.
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
		l.mu.Lock()
		l.left = time.Now()
		l.mu.Unlock()
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

// wakeAll wakes the waiting watchers at each change, until done is closed.
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

// wait returns at a change of number from or later, or with the error of ctx. If urgent is
// set, renewals do not count.
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
		if next.Load() > from { // a change came since the first look
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

// cursor returns the text of the place before change number n.
func (l *changelog) cursor(n uint64) string {
	return l.instance + "." + strconv.FormatUint(n, 10)
}

// resume returns the place of a cursor, or why the cursor is of no use.
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
