package domain

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Run listens to announcements, puts and announces, looks up and sweeps, until ctx
// ends. It returns when all its goroutines have stopped; its error is that of
// Announcer.Listen. It may run once.
func (r *Registry) Run(ctx context.Context) error {
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		r.outbox.stop() // from here on registrations are answered, and their entries put no more
		r.lookups.Stop()
		running.Wait()
		r.table.hearing.stop()
	}()
	r.outbox.start(ctx, &running)
	r.lookups.Start(ctx, &running)

	deaf, err := r.announcer.Listen(r.hear)
	if err != nil {
		return fmt.Errorf("listen to announcements: %w", err)
	}
	defer deaf()

	r.table.hearing.sweeps(r.now().at)
	sweep := time.NewTicker(r.rules.Policy.tick())
	defer sweep.Stop()
	refresh := time.NewTicker(r.rules.Policy.Refresh)
	defer refresh.Stop()
	var newcomer, overdue <-chan time.Time
	var meeting meeting
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			r.watchClock()
			r.listen(ctx, &running)
			r.outbox.wakeDue(r.now().at)
		case <-r.lost:
			r.lose()
		case <-r.hangups.added:
			overdue = r.hangups.next(r.now().at)
		case <-overdue:
			r.overdue()
			overdue = r.hangups.next(r.now().at)
		case <-refresh.C:
			r.refresh()
		case <-r.store.Joined():
			if newcomer == nil {
				meeting = r.meet()
				newcomer = time.After(r.rules.Policy.settle())
			}
		case <-newcomer:
			if newcomer = nil; meeting.goesOn() {
				newcomer = time.After(r.rules.Policy.settle())
			} else {
				r.welcome()
			}
		}
	}
}

// watchClock sets the clock, and tells the observer when this node's own clock goes wrong or
// right.
func (r *Registry) watchClock() {
	off := r.rules.Clock.set()
	how := 0
	switch {
	case off.Abs() > clockWrong:
		how = 2
	case off.Abs() > clockWarning && r.rules.Clock.Sources() != 1:
		how = 1 // a mean of two clocks is far from both
	}
	other := r.rules.Clock.only()
	if how == r.clockOff && (how == 0 || r.clockSure == (other == "")) {
		return
	}
	if r.clockOff, r.clockSure = how, other == ""; how == 0 {
		off = 0
	}
	r.observer.Observe(ports.Event{Kind: ports.EventClock, PeerID: r.rules.Self, Via: other, Took: off})
}

const (
	// maxMeeting is after how many looks a newcomer is welcomed, whatever happens meanwhile: half a minute.
	// A hundred natives with 100,000 indexers meet in some ten seconds (simulated).
	maxMeeting = 30
	// quietLooks is how many looks in a row find no change before it is welcomed. Natives that meet dial,
	// are refused and dial again: 2 of 40 meetings paused for a look, and none of 150 for three (simulated).
	quietLooks = 3
)

// meeting is a while in which nodes join the store. Natives that meet after a cut follow each other within
// seconds, and need no announcement then: a hundred of them, with a thousand indexers each, would check ten
// million. So a newcomer is welcomed once the followers, and whom they reach, have stayed the same for a while.
type meeting struct {
	followers *Followers
	revision  uint64
	left      int // how often it may go on
	quiet     int // looks that found no change
}

func (r *Registry) meet() meeting {
	m := meeting{followers: r.settings.Followers, left: maxMeeting - 1}
	if m.followers != nil {
		m.revision = m.followers.Revision()
	}
	return m
}

// goesOn reports whether natives still meet.
func (m *meeting) goesOn() bool {
	if m.followers == nil || m.left == 0 {
		return false
	}
	m.left--
	if m.quiet++; m.followers.Revision() != m.revision {
		m.revision, m.quiet = m.followers.Revision(), 0
	}
	return m.quiet < quietLooks
}

// welcome offers a newly joined node the entries that it missed: at once if only
// this native has them, and at the usual pace if they were put while the node was
// joining. Heartbeats bring all other entries. A node that follows this native by now needs none.
func (r *Registry) welcome() {
	if !r.outbox.reaches() {
		return
	}
	for ids := range r.table.everyone() {
		at := r.now().at
		for _, id := range ids {
			s := r.table.shard(id)
			s.mu.Lock()
			if rec := s.record(id); rec.known() && rec.holding().own(at) != nil && (rec.outbox.alone || at.Before(rec.outbox.due.at())) {
				r.outbox.offer(rec, at, rec.outbox.alone)
			}
			s.mu.Unlock()
		}
	}
}

// sweep tells watchers of expired and overdue entries, and looks up entries that soon expire. It
// takes a batch of each shard in turn. If it took the next batch at once, it would win the lock
// again from a waiting heartbeat, for up to a millisecond.
// It returns the own leases that are late or have ended since the last sweep, if nothing tells why.
func (r *Registry) sweep() (overdue, silent []silence) {
	for more := true; more; {
		more = false
		for i := range r.table.shards {
			found := r.sweepShard(&r.table.shards[i])
			overdue, silent = append(overdue, found.overdue...), append(silent, found.silent...)
			more = more || found.more
		}
	}
	r.table.changes.rest()
	return overdue, silent
}

// sweepShard sweeps one batch.
func (r *Registry) sweepShard(s *shard) swept {
	found := s.sweep(r.now)
	for _, id := range found.ahead {
		r.find(id, aheadOfDeadline)
		r.table.hearing.goesOn(r.now().at)
	}
	for _, id := range found.lost {
		r.know(id, true)
	}
	for _, id := range found.expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
	}
	return found
}
