package domain

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file judges whether a native hears its indexers. A native that slept, stood still or lost its
// line hears no heartbeat. Then the end of a lease says nothing of its indexer.

const (
	// standstillShare is the part of a TTL by which a sweep may be late. A busy machine delays a
	// sweep by milliseconds. After a longer delay the native slept or stood still.
	standstillShare = 10
	// manyPercent is the share of the leases of a native that end within a heartbeat once its line
	// is lost: after 15 s of it with the usual times. It is the share of Eureka too. fewestEnds
	// keeps a native with a few indexers from taking each death for that.
	manyPercent = 15
	fewestEnds  = 3
	// fewRenewals says when renewals are few: fewer than a quarter of the ends. With a lost line
	// there are none.
	fewRenewals = 4
	// wakes is how long a native that stood still refuses registrations. It reads in milliseconds
	// all that waited for it. An indexer registers again after a second.
	wakes = 500 * time.Millisecond
)

// standstill is how long the sweeps of a native may stay out. After a longer pause it slept or stood
// still.
func (p TTLPolicy) standstill() time.Duration { return p.tick() + p.TTL/standstillShare }

// doubt is a while in which a native may not have heard its indexers. A lease from before that ends
// within it proves nothing.
type doubt struct {
	from    Instant // the native heard its indexers until then
	noticed Instant
	stood   bool // the native slept or stood still; else its line to indexers is lost
}

// until returns the instant until which the lease w is shown although it has ended: for one TTL more,
// and after a standstill for one TTL from its notice. The lease is not shown if that is zero.
func (d *doubt) until(w *word, ttl time.Duration) (until Instant) {
	switch {
	case d == nil, !d.from.Before(w.deadline), !w.deadline.Before(d.noticed.Add(ttl)):
		return until // it ended before, or was granted since
	case !d.stood && w.source != granted:
		return until // the natives that told it are heard
	}
	return latest(w.deadline, d.noticed).Add(ttl)
}

// hearing is what a native knows of its own hearing. Run alone calls sweeps, goesOn, judge and lose. Any
// goroutine may call at.
type hearing struct {
	policy  TTLPolicy
	renewed atomic.Int64 // heartbeats of indexers with a lease
	swept   atomic.Int64 // the Instant of the last sweep; 0 unless Run runs
	noticed atomic.Pointer[doubt]
	deaf    atomic.Pointer[deafness]

	many   bool    // as judge said last
	heard  Instant // when the last judge saw a new heartbeat
	ends   []ends  // within a heartbeat, in order
	before int64   // renewed at the last judge
}

// deafness is a native without an answer from anywhere. It ends with the next heartbeat, and a TTL
// later.
type deafness struct {
	renewed int64 // the heartbeats until then
	until   Instant
}

// ends are the own leases that a sweep found ended.
type ends struct {
	at      Instant
	leases  []silence
	renewed int64 // the heartbeats before the sweep
}

// silence is the own lease of an indexer that has ended, and nothing tells why. Many together tell
// that the line is lost.
type silence struct {
	id ports.PeerID
	word
}

// at returns the doubt at that instant, nil without one. After a standstill there is doubt before
// the next sweep notices.
func (h *hearing) at(at Instant) *doubt {
	if last := h.swept.Load(); last != 0 && at.since-time.Duration(last) > h.policy.standstill() {
		return &doubt{from: Instant{time.Duration(last)}, noticed: at, stood: true}
	}
	return h.noticed.Load()
}

// doubts reports whether a lease that ends at that instant may be in doubt.
func (h *hearing) doubts(at Instant) bool {
	d := h.at(at)
	return d != nil && at.Before(d.noticed.Add(h.policy.TTL))
}

// fresh reports whether the native stood still until just now. A registration that it reads may
// have waited at the socket meanwhile, and its indexer may be dead.
func (h *hearing) fresh(at Instant) bool {
	d := h.at(at)
	return d != nil && d.stood && at.Before(d.noticed.Add(min(wakes, h.policy.tick())))
}

// sweeps notes that a sweep begins. It returns how long the native slept or stood still since the
// last, 0 if it did not.
func (h *hearing) sweeps(at Instant) (stood time.Duration) {
	if d := h.at(at); d != nil && d.noticed == at {
		h.noticed.Store(d)
		h.ends = nil
		stood = at.Sub(d.from)
	}
	h.swept.Store(max(int64(at.since), 1))
	return stood
}

// goesOn notes within a long sweep or refresh that this native runs. It reports whether that is so:
// if the native stood still since, the next sweep is to notice.
func (h *hearing) goesOn(at Instant) bool {
	switch d := h.at(at); {
	case h.swept.Load() == 0:
	case d != nil && d.noticed == at:
		return false
	default:
		h.swept.Store(int64(at.since))
	}
	return true
}

// stop ends the notice of standstills: nothing sweeps any more.
func (h *hearing) stop() { h.swept.Store(0) }

// judge takes in the own leases that a sweep found late and ended, without a hint of their indexers'
// death, and how many are left. It reports whether to ask if the line is lost: leases are late or
// have ended, and no heartbeat came for as long as one may be late; or many have ended.
func (h *hearing) judge(at Instant, overdue, ended []silence, left int) (ask bool) {
	renewed := h.renewed.Load()
	if len(ended) > 0 {
		h.ends = append(h.ends, ends{at, ended, h.before})
	}
	if renewed != h.before {
		h.before, h.heard = renewed, at
	}
	for len(h.ends) > 0 && h.ends[0].at.Add(h.policy.Heartbeat).Before(at) {
		h.ends = h.ends[1:]
	}
	h.many = !h.doubts(at) && h.manyEnd(renewed, left) // all that end in doubt are stale already
	quiet := at.Sub(h.heard) >= h.policy.TTL-h.policy.Heartbeat
	return h.many || quiet && len(overdue)+len(ended) > 0
}

// isDeaf reports whether nothing has answered, and no heartbeat came since.
func (h *hearing) isDeaf(at Instant) bool {
	d := h.deaf.Load()
	return d != nil && at.Before(d.until) && d.renewed == h.renewed.Load()
}

// manyEnd reports whether many leases have ended within a heartbeat, and few were renewed meanwhile.
func (h *hearing) manyEnd(renewed int64, left int) bool {
	all := left
	for _, e := range h.ends {
		all += len(e.leases)
	}
	sum := 0
	for _, e := range slices.Backward(h.ends) {
		sum += len(e.leases)
		many := sum >= fewestEnds && sum*100 > manyPercent*all
		if many && (renewed-e.renewed)*fewRenewals < int64(sum) {
			return true
		}
	}
	return false
}

// lose notes that nothing answers. If many leases have ended within a heartbeat, they are in doubt,
// and lose returns them.
func (h *hearing) lose(at Instant) (ended []silence) {
	h.deaf.Store(&deafness{h.renewed.Load(), at.Add(h.policy.TTL)})
	if !h.many {
		return nil
	}
	for _, e := range h.ends {
		ended = append(ended, e.leases...)
	}
	h.noticed.Store(&doubt{from: at.Add(-h.policy.Heartbeat), noticed: at})
	h.ends = nil
	return ended
}

// last returns the newest of the ended leases, n at most.
func (h *hearing) last(n int) (ended []silence) {
	for _, e := range slices.Backward(h.ends) {
		ended = append(ended, e.leases[:min(len(e.leases), n-len(ended))]...)
	}
	return ended
}

// unheard reports whether this native has not heard its indexers, so that what it lists says little:
// it has just stood still, nothing answers it, or many of the listed indexers are stale.
func (t *table) unheard(at Instant) bool {
	if d := t.hearing.at(at); d != nil && d.noticed == at {
		return true
	}
	if t.hearing.isDeaf(at) {
		return true
	}
	stale := t.stale.Load()
	return stale*100 > manyPercent*t.listed.Load()
}
