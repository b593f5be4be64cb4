package domain

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file has what a native tells the natives that follow it: its own leases, by number.

const (
	// maxNews bounds the renewals that a native remembers as News, and so how far a follower may fall
	// behind: sixteen seconds of a native with a million indexers, 16 MB. Any other change
	// takes the room of changeWeight renewals.
	maxNews      = 256 << 10
	changeWeight = 4
	// newsAge is how far a follower may fall behind that is connected. Of older News a quarter of that
	// room is kept, for followers that come back: the collector looks at each change in them.
	newsAge = time.Minute
	maxAged = maxNews / 4
	// maxIdle bounds what a native without followers remembers for those that may come back: so many
	// changes, and as many renewals in a shard as a minute brings to a native with 16,000 indexers.
	maxIdle         = 1024
	maxIdleRenewals = 256
	// gathersOfTick is how often followers may have renewals told within a tick: those that ask, and those that
	// come.
	gathersOfTick = 4
)

// newsTick is how often renewals are told.
func (p TTLPolicy) newsTick() time.Duration { return min(p.renewalInterval(), p.beat()) }

// news is what a native tells all natives that follow it. Each piece is made once. A follower reads
// them at its own pace, as a watcher reads the changelog.
type news struct {
	registry *Registry // set by NewRegistry
	instance string
	// on says that own leases have numbers, and that their changes are remembered.
	on atomic.Bool

	making     sync.Mutex    // held while pieces are made; taken before the lock of a shard
	gathered   []newsRenewal // of the last gather: its memory is used again
	gatheredAt time.Time     // when that began
	gathers    atomic.Uint64 // how many began
	comers     *allowance    // of followers that come

	pended atomic.Uint64 // how many changes were ever pending; changed under mu
	ticks  atomic.Uint64 // how often renewals were gathered at their time

	mu       sync.Mutex // taken behind the lock of a shard
	next     uint32     // the lowest number that was never used
	freed    []uint32
	pending  []newsChange  // not told yet, in order
	told     tally         // by the pieces
	pieces   []*piece      // the last pieces
	first    uint64        // the number of the first of them
	weight   int           // of the pieces
	place    uint64        // all changes of the changelog before this number are told
	wake     chan struct{} // closed once there is something to tell, or to look at
	watching int

	done, stopped chan struct{} // closed when no native follows any more, and once run has ended
	kicked        chan struct{} // receives a value after a change
	doubted       atomic.Bool   // the standing is another
}

// piece is News as it was made. It does not change.
type piece struct {
	*ports.News
	made  Instant
	place uint64      // the place of its reader in the changelog
	sum   ports.Range // of all that was told up to it
}

func newNews(changes *changelog, tick time.Duration) *news {
	n := &news{comers: &allowance{every: tick / gathersOfTick, most: tick}, next: 1, wake: make(chan struct{}), kicked: make(chan struct{}, 1)}
	n.instance = changes.instance + "n" // a cursor of the changelog is none of the news
	changes.doubt = n.doubt
	return n
}

// unused returns a number that stands for no indexer. The caller holds the lock.
func (n *news) unused() uint32 {
	if last := len(n.freed) - 1; last >= 0 {
		number := n.freed[last]
		n.freed = n.freed[:last]
		return number
	}
	n.next++
	return n.next - 1
}

// idle ends the notes of a native without followers: they would grow for ever.
func (n *news) idle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watching == 0 {
		n.on.Store(false)
	}
}

// kick has changes be told soon.
func (n *news) kick() {
	select {
	case n.kicked <- struct{}{}:
	default:
	}
}

// watch counts a follower until stop. With the first, the own leases get their numbers.
func (n *news) watch() (stop func()) {
	n.making.Lock()
	defer n.making.Unlock()
	n.mu.Lock()
	n.watching++ // from here on no note ends
	first := n.watching == 1
	n.mu.Unlock()
	if first {
		if !n.on.Load() {
			n.begin()
		}
		done, stopped := make(chan struct{}), make(chan struct{})
		n.mu.Lock()
		n.done, n.stopped = done, stopped
		n.mu.Unlock()
		go func() {
			defer close(stopped)
			n.run(done)
		}()
	}
	return func() {
		n.mu.Lock()
		n.watching--
		last, stopped := n.watching == 0, n.stopped
		if last {
			close(n.done)
		}
		n.mu.Unlock()
		if last {
			<-stopped
		}
	}
}

// begin numbers the own leases anew. All News from before are forgotten. The caller holds making.
func (n *news) begin() {
	table := n.registry.table
	for i := range table.shards {
		table.shards[i].unnumber()
	}
	n.mu.Lock()
	n.first += uint64(len(n.pieces)) + 1 // older cursors are too old
	n.pieces, n.weight, n.told, n.pending, n.freed, n.next = nil, 0, tally{}, nil, nil, 1
	n.mu.Unlock()
	n.on.Store(true)
	for i := range table.shards {
		s := &table.shards[i]
		for chunk := range slices.Chunk(s.ids(), sweepBatch) {
			n.number(s, chunk)
		}
	}
}

// unnumber takes the numbers of all records. No change is noted meanwhile.
func (s *shard) unnumber() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed = nil
	for n := range s.index.all {
		s.slots.at(n).number = 0
	}
}

// number gives the own leases of ids their numbers. They count as told: each follower begins with a
// snapshot.
func (n *news) number(s *shard, ids []ports.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := n.registry.now().at
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		r := s.record(id)
		if !r.known() || r.number != 0 {
			continue
		}
		if is, ok := n.ownSummed(r, id, at); ok {
			r.number = n.unused()
			n.told.define(r.number, r.pointer(), is)
		}
	}
}

// run makes News until done is closed: of changes at once, of renewals at each tick.
func (n *news) run(done <-chan struct{}) {
	tick := time.NewTicker(n.registry.rules.Policy.newsTick())
	defer tick.Stop()
	pace := pace{watching: n.followers}
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			n.ticks.Add(1)
			n.gather()
		case <-n.kicked:
			pause := time.NewTimer(time.Until(pace.free))
			select {
			case <-done:
				pause.Stop()
				return
			case <-pause.C:
			}
			if n.doubted.Swap(false) {
				n.gather()
			} else {
				pace.spend(time.Now(), n.tell())
			}
		}
	}
}

func (n *news) followers() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int64(n.watching)
}

// doubt has all followers look at the standing of this native, once all changes until now are told.
func (n *news) doubt() {
	n.doubted.Store(true)
	n.kick()
}

// tell makes News of the changes that are no renewals, and returns how many there were.
func (n *news) tell() int {
	n.making.Lock()
	defer n.making.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := n.take()
	n.publish(changes, nil)
	return len(changes)
}

// gather makes News of all changes until now. After it a follower that reads all News knows what the
// table had before.
func (n *news) gather() {
	n.making.Lock()
	defer n.making.Unlock()
	n.gatherNow()
}

// gatherAgain is gather, unless that was a moment ago: each gather is a batch for every follower.
func (n *news) gatherAgain() {
	n.making.Lock()
	defer n.making.Unlock()
	if time.Since(n.gatheredAt) >= n.registry.rules.Policy.newsTick()/gathersOfTick {
		n.gatherNow()
	}
}

// gatheredSince reports whether all renewals until then are told.
func (n *news) gatheredSince(then time.Time) bool {
	n.making.Lock()
	defer n.making.Unlock()
	return n.gatheredAt.After(then)
}

// gatherSoon is gather, for a follower that comes: at once after a quiet while, or else when the turn of all that wait
// comes. The error is that of ctx.
func (n *news) gatherSoon(ctx context.Context) error {
	for before := n.gathers.Load(); !n.gatherAfter(before); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(n.comers.every):
		}
	}
	return ctx.Err()
}

// gatherAfter is gather, unless the comers have used up their turns. It reports whether any has begun after so many.
func (n *news) gatherAfter(before uint64) bool {
	n.making.Lock()
	defer n.making.Unlock()
	if n.gathers.Load() == before && n.comers.take(n.registry.now().at) {
		n.gatherNow()
	}
	return n.gathers.Load() > before
}

// gatherNow is gather for a caller that holds making.
func (n *news) gatherNow() {
	n.gatheredAt = time.Now()
	n.gathers.Add(1)
	table := n.registry.table
	place := table.changes.head()
	renewals := n.gathered[:0]
	for i := range table.shards {
		renewals = table.shards[i].gather(renewals)
	}
	n.gathered = renewals
	n.mu.Lock()
	defer n.mu.Unlock()
	changes := n.take()
	first := n.pended.Load() - uint64(len(changes))
	since := make(map[uint32]bool) // numbers with a change since their shard was read: it says more
	for i := range changes {
		if c := &changes[i]; first+uint64(i) >= table.shardOf(c.to.ref).gathered && c.kind != ports.ChangeLate {
			since[c.number] = true
		}
	}
	slices.SortStableFunc(renewals, func(x, y newsRenewal) int { return cmp.Compare(x.number, y.number) })
	last := renewals[:0]
	for i, x := range renewals {
		if (i+1 == len(renewals) || renewals[i+1].number != x.number) && !since[x.number] {
			last = append(last, x)
		}
	}
	n.publish(changes, last)
	n.place = place
}

// gather moves the renewals of the shard to renewals.
func (s *shard) gather(renewals []newsRenewal) []newsRenewal {
	s.mu.Lock()
	defer s.mu.Unlock()
	renewals = append(renewals, s.renewed...)
	s.renewed = s.renewed[:0]
	s.gathered = s.table.news.pended.Load()
	return renewals
}

// take returns the pending changes. The caller holds the locks, as for publish.
func (n *news) take() (changes []newsChange) {
	changes, n.pending = n.pending, nil
	return changes
}

// publish makes News of changes and then of renewals, and wakes the followers.
func (n *news) publish(changes []newsChange, renewals []newsRenewal) {
	at := n.registry.now().at
	for part := range slices.Chunk(changes, maxBatch) {
		told := make([]ports.Change, 0, len(part))
		for i := range part {
			if c, ok := n.toldChange(&part[i], at); ok {
				told = append(told, c)
			}
		}
		n.add(&ports.News{Changes: told}, at)
	}
	for part := range slices.Chunk(renewals, maxBatch) {
		told := make([]ports.Renewal, 0, len(part))
		for i := range part {
			if x, ok := n.toldRenewal(&part[i], at); ok {
				told = append(told, x)
			}
		}
		n.add(&ports.News{Renewals: told}, at)
	}
	close(n.wake)
	n.wake = make(chan struct{})
}

// add appends a piece, and forgets the oldest.
func (n *news) add(made *ports.News, at Instant) {
	if len(made.Changes)+len(made.Renewals) == 0 {
		return
	}
	n.pieces = append(n.pieces, &piece{made, at, n.place, n.told.total()})
	for n.weight += weight(made); len(n.pieces) > 1 && (n.weight > maxNews || n.weight > maxAged && at.Sub(n.pieces[0].made) > newsAge); n.first++ {
		n.weight -= weight(n.pieces[0].News)
		n.pieces[0] = nil
		n.pieces = n.pieces[1:]
	}
}

// toldChange returns c as followers are told, and adds it up.
func (n *news) toldChange(c *newsChange, at Instant) (ports.Change, bool) {
	told := n.public(&c.change, at)
	told.Number = c.number
	switch {
	case c.kind.Gone():
		n.told.free(c.number)
	case c.kind == ports.ChangeLate:
		return told, n.told.stands(c.number)
	default:
		n.told.define(c.number, c.to, n.summed(&told))
	}
	return told, true
}

// toldRenewal returns x as followers are told, and adds it up.
func (n *news) toldRenewal(x *newsRenewal, at Instant) (ports.Renewal, bool) {
	is := n.told.at(x.number)
	remaining := x.deadline.Sub(at)
	if is == nil || !is.stands || remaining <= 0 {
		return ports.Renewal{}, false
	}
	n.told.set(is, renewedItem(is.content, x.link, x.expiresAt))
	return ports.Renewal{Number: x.number, Step: x.step, Link: x.link, Remaining: remaining, ExpiresAt: x.expiresAt}, true
}

// public returns c as a follower is told.
func (n *news) public(c *change, at Instant) ports.Change {
	w := watcher{registry: n.registry, request: ports.WatchRequest{Own: true}, partial: true}
	return w.public(c, at)
}

func (n *news) summed(c *ports.Change) summed { return summedOf(&c.Entry, n.registry.rules.Proofs) }

// stands returns a pointer to the record of the indexer that number stands for, if it does.
func (n *news) stands(number uint32) pointer {
	n.mu.Lock()
	defer n.mu.Unlock()
	if is := n.told.at(number); is != nil {
		return is.pointer
	}
	return pointer{}
}

// cursor returns the text of the place before piece number at.
func (n *news) cursor(at uint64) string { return n.instance + "." + strconv.FormatUint(at, 10) }

// resume returns the place of a cursor, or why the cursor is of no use. Then at is the place of a
// snapshot that begins now. place is that of a reader there in the changelog.
func (n *news) resume(cursor string) (at, place uint64, reset ports.Reset) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cursor == "" {
		return n.endNow(), n.place, ports.ResetNew
	}
	instance, number, _ := strings.Cut(cursor, ".")
	at, err := strconv.ParseUint(number, 10, 64)
	switch {
	case instance != n.instance || err != nil || at > n.endNow():
		return n.endNow(), n.place, ports.ResetUnknown
	case at < n.first:
		return n.endNow(), n.place, ports.ResetTooOld
	}
	return at, n.placeAt(at), ""
}

// placeAt returns the place of a reader before piece number at in the changelog. The caller holds the
// lock.
func (n *news) placeAt(at uint64) uint64 {
	if at < n.endNow() {
		return n.pieces[at-n.first].place
	}
	return n.place
}

// end returns the number of the next piece.
func (n *news) end() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.endNow()
}

func (n *news) endNow() uint64 { return n.first + uint64(len(n.pieces)) }

// read returns piece number at, nil if there is none yet, with the place of its reader in the
// changelog after it. wake is closed when there is more to read, or to look at. It is not ok if the
// piece is forgotten.
func (n *news) read(at uint64) (p *piece, place uint64, wake <-chan struct{}, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at < n.first {
		return nil, 0, nil, false
	}
	if at == n.endNow() {
		return nil, n.place, n.wake, true
	}
	return n.pieces[at-n.first], n.placeAt(at + 1), n.wake, true
}

// weight is how much room n takes.
func weight(n *ports.News) int { return len(n.Renewals) + changeWeight*len(n.Changes) }
