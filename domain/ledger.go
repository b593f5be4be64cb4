package domain

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// These errors say why a native's News are refused.
var (
	errNumber = errors.New("its number stands for no indexer")
	errUnheld = errors.New("the lease that it renews is not held here")
	errBound  = errors.New("its number is higher than a native has indexers")
)

// rarely is after how many renewals a number is asked for again whose lease is refused here. So a
// table that has room again has its indexer after as many heartbeats.
const rarely = 4

// ledger is what a followed native has told by number, whether or not this native believes it.
type ledger struct {
	tally
	reconciliation
	fullness
	bound   uint32     // the highest number that it may tell
	missing []uint32   // numbers that were renewed, and have no lease here to renew
	changed int        // how often a number was told to stand for something else than before
	revised uint32     // how often the rules had changed when the last News were taken in
	wasted  *allowance // of hashes for links that are false
	loose   int        // the bytes that the ledgers of all natives count for it
}

// newLedger returns the ledger of a native that had no more than the usual room for indexers, or than
// this one. A native with less room lists a part of them, whatever their numbers are.
func newLedger(b Bounds) *ledger {
	return &ledger{bound: uint32(max(b.entries(), DefaultEntries)), wasted: newWasted()}
}

// clear forgets all numbers: the native tells its table anew.
func (l *ledger) clear() {
	l.tally, l.missing = tally{}, nil
	clear(l.since)
}

// takeBatch takes in what the native from has told, in a batch that was held up so long.
func (r *Registry) takeBatch(from ports.PeerID, l *ledger, b *ports.Batch, heldUp time.Duration) taken {
	if b.News == nil && len(b.Sums) == 0 {
		return r.takeOldChanges(from, l, b.Changes, heldUp)
	}
	var t taken
	if l.changed = 0; b.News != nil {
		t = r.takeNews(from, l, b.News, heldUp+b.Age)
	}
	if ended := l.compare(b, r.rules.Policy.sumsInterval()); ended != nil {
		ended.Via = from
		r.observer.Observe(*ended)
	}
	return t
}

// takeNews takes in the News that the native from told so long ago.
func (r *Registry) takeNews(from ports.PeerID, l *ledger, news *ports.News, ago time.Duration) (t taken) {
	if revised := r.revised.Load(); l.revised != revised {
		l.revised = revised
		l.forgive()
	}
	for i, c := range r.prepareAll(from, news.Changes) {
		switch c.Kind {
		case ports.ChangeLate: // its lease ends as it was told
		case ports.ChangeExpired: // told leases end by this native's own clock
			l.free(c.Number)
		case ports.ChangeLeft:
			l.free(c.Number)
			_ = r.takeOldChange(&t, from, l, c, ago)
		case ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated:
			err := r.takeOldChange(&t, from, l, c, ago)
			r.enter(&t, l, from, &news.Changes[i], err == nil)
		default:
			_ = r.takeOldChange(&t, from, l, c, ago)
		}
	}
	r.takeRenewals(&t, l, from, news.Renewals, ago)
	r.tellTaken(from, t)
	return t
}

// enter notes in l what the number of the change c stands for. accepted says that c counts here.
func (r *Registry) enter(t *taken, l *ledger, from ports.PeerID, c *ports.Change, accepted bool) {
	switch {
	case c.Number == 0 || c.Native != from:
		return
	case c.Number > l.bound:
		t.refused++
		t.why = fmt.Errorf("%s: %w", c.PeerID, errBound)
		return
	case !r.hasRoom(l, from, c.Number, accepted):
		t.refused++
		t.full = true
		t.why = fmt.Errorf("%s: %w", c.PeerID, errLedger)
		return
	}
	p := c.Proof
	told := summedOf(&c.Entry, r.rules.Proofs)
	if was := l.at(c.Number); was == nil || !was.stands || was.item != told.item {
		l.changed++
	}
	if l.since != nil {
		l.since[c.Number] = true
	}
	is := l.define(c.Number, r.pointerTo(c.PeerID), told)
	if p != nil {
		is.record = uint16(p.Tick.Seq)
	}
	if accepted {
		is.tries = 0
	}
}

// pointerTo returns a pointer to the record of id, if there is one.
func (r *Registry) pointerTo(id ports.PeerID) pointer {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(id).pointer()
}

// miss notes that number n has no lease here to renew. The native may have told it while this
// native refused it. It is asked for less and less often if that comes to nothing.
func (l *ledger) miss(n uint32, is *numbered) {
	if is.tries++; is.tries&(is.tries-1) == 0 || is.tries%rarely == 0 {
		l.missing = append(l.missing, n)
	}
	if len(l.missing) > 2*int(l.count)+maxWhole { // a native that does not answer repeats its renewals
		l.tidy()
	}
}

// tidy puts the missing numbers in order, each once, without those that stand for nothing any more.
func (l *ledger) tidy() {
	slices.Sort(l.missing)
	l.missing = slices.Compact(l.missing)
	l.missing = slices.DeleteFunc(l.missing, func(n uint32) bool { return !l.stands(n) })
}

// forgive has each number asked for at its next renewal if it has no lease here.
func (l *ledger) forgive() { l.each(0, 0, func(_ uint32, is *numbered) { is.tries = 0 }) }
