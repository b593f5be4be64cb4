package domain

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file finds out whether a native is cut off. Many of its leases end at once when its line is
// lost, and when their indexers die. So the native asks others first.

const (
	// maxAsked bounds the followed natives that are asked. One answer is enough.
	maxAsked = 3
	// maxAskedFor bounds the indexers that each is asked for: a line that is lost for all is lost
	// for these.
	maxAskedFor = 8
	// maxAskTimeout bounds the questions, and half of what a heartbeat may be late: the answer is
	// there before the first lease ends.
	maxAskTimeout = 2 * time.Second
)

func (p TTLPolicy) askTimeout() time.Duration { return min(maxAskTimeout, (p.TTL-p.Heartbeat)/2) }

// listen sweeps, and judges by what it finds whether this native hears its indexers.
func (r *Registry) listen(ctx context.Context, running *sync.WaitGroup) {
	at := r.now().at
	hearing := &r.table.hearing
	if stood := hearing.sweeps(at); stood > 0 {
		r.observer.Observe(ports.Event{Kind: ports.EventUnheard, PeerID: r.rules.Self, Took: stood})
		r.follower.StoodStill(stood)
	}
	overdue, silent := r.sweep()
	switch ask := hearing.judge(at, overdue, silent, int(r.table.owned.Load())); {
	case hearing.many && hearing.isDeaf(at):
		r.lose() // it has asked already
	case ask && !at.Before(r.askAgainAt):
		r.askAgainAt = at.Add(r.rules.Policy.standstill())
		about := append(hearing.last(maxAskedFor), overdue[:min(len(overdue), maxAskedFor)]...)
		running.Go(func() {
			if r.cutOff(ctx, about) {
				r.lost <- struct{}{}
			}
		})
	}
	r.sayUnheard(at)
}

// lose takes in that this native is cut off.
func (r *Registry) lose() {
	at := r.now().at
	if r.table.hearing.doubts(at) {
		return // it stood still meanwhile
	}
	if !r.unheard {
		r.observer.Observe(ports.Event{Kind: ports.EventUnheard, PeerID: r.rules.Self})
	}
	for _, e := range r.table.hearing.lose(at) {
		r.doubt(e)
	}
	r.sayUnheard(at)
}

// doubt shows the ended lease e as stale, unless its indexer has been heard since.
func (r *Registry) doubt(e silence) {
	s := r.table.shard(e.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	rec := s.record(e.id)
	switch {
	case !r.rules.Indexers.in(e.id), !r.rule().stands(&e.word), s.present(rec, now.at).shown != nil:
		return
	case !rec.known() && r.full():
		return
	case !rec.known():
		rec = s.insert(e.id)
	}
	next := rec.holding().at(now)
	rec.setEnded(s.end(rec, &e.word, now.at))
	s.apply(rec, &next, now)
}

// sayUnheard tells watchers of the condition if it has changed.
func (r *Registry) sayUnheard(at Instant) {
	if is := r.table.unheard(at); is != r.unheard {
		r.unheard = is
		r.table.changes.mark(r.standing())
	}
}

// cutOff asks whether anything is heard at all: natives, whether they hear the indexers of these
// leases, and the machines of peers and of these indexers. It reports whether none has answered.
func (r *Registry) cutOff(ctx context.Context, about []silence) bool {
	within, cancel := context.WithTimeout(ctx, r.rules.Policy.askTimeout())
	defer cancel()
	var heard atomic.Bool
	var asking sync.WaitGroup
	for _, native := range r.follower.Followed(maxAsked) {
		asking.Go(func() {
			if r.askNative(within, native, about) {
				heard.Store(true)
			}
		})
	}
	if r.settings.Line != nil {
		asking.Go(func() {
			if r.settings.Line.Works(within, addrsOf(about)) {
				heard.Store(true)
			}
		})
	}
	asking.Wait()
	return !heard.Load() && ctx.Err() == nil
}

// askNative asks native for the indexers of these leases, takes in its answers, and reports whether
// it has answered.
func (r *Registry) askNative(ctx context.Context, native ports.PeerID, about []silence) (heard bool) {
	for _, e := range about {
		a, err := r.follower.LookUp(ctx, native, e.id)
		_, refused := errors.AsType[*ports.Refusal](err)
		switch {
		case err != nil && !refused && !errors.Is(err, ports.ErrNotFound):
			return heard
		case err != nil, a.PeerID != e.id, a.State == ports.StateStale:
		case a.Native == native:
			r.takeChanges(native, []ports.Change{{Kind: ports.ChangeUpdated, Listed: a.Listed}})
		default:
			_, b, err := r.takeEntry(e.id, native, a.Entry)
			r.observe(e.id, native, b)
			tellFault(r.observer, e.id, native, err)
		}
		heard = true
	}
	return heard
}

// addrsOf returns the address where each indexer of these leases was best reached.
func addrsOf(about []silence) (addrs []string) {
	for _, e := range about {
		addrs = append(addrs, e.addr)
	}
	return addrs
}
