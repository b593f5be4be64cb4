package domain

import (
	"errors"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// Trust tells whom this node trusts. It is asked at every heartbeat, under locks, and each
// time anew, since the answer may change: it must not block. A nil one trusts everybody.
type Trust func(ports.PeerID) bool

func (t Trust) in(id ports.PeerID) bool { return t == nil || t(id) }

var errUntrusted = errors.New("it is none of the indexers that this node trusts")

// closedTo is what a stranger is told.
func (r *Registry) closedTo(id ports.PeerID) *ports.Refusal {
	return ports.Refuse(ports.CodeRefused, "this network is closed, and %s is none of its indexers: ask whoever runs the native %s to add it to trust.indexers there", id, r.cfg.Self)
}

// Revise has a change of whom the rules trust, or what they believe of who does not sign,
// take effect at once: entries that do not count any more are gone when it returns, watches
// that somebody may not have any more end, and other natives are followed or let go of.
func (r *Registry) Revise() {
	for i := range r.table.shards {
		r.evict(&r.table.shards[i])
	}
	for _, id := range r.known.all() {
		if !r.cfg.Indexers.in(id) {
			r.known.remove(id)
		}
	}
	r.table.changes.add(conditionChanged, "", &lease{})
	if f := r.follower.Load(); f != nil {
		select {
		case f.revised <- struct{}{}:
		default:
		}
	}
}

// trusts tells whether rec may be in the table.
func (r *Registry) trusts(rec *record) bool {
	return r.cfg.Indexers.in(rec.id) && (rec.state != listed || r.cfg.stands(&rec.lease))
}

// stands tells whether l counts as it is held: what a native that this one follows told, and
// what this one granted, as long as plain registrations are taken at all.
func (r Rules) stands(l *lease) bool {
	return r.plain() != PlainRefuse || l.signed() != nil || l.unproven
}

// evict removes from s what counts no more. Whoever adds something asks under the lock of
// the shard, so that none of it comes after the look.
func (r *Registry) evict(s *shard) {
	var strangers []ports.PeerID
	s.mu.Lock()
	for id, rec := range s.records {
		if rec.heir != nil && !r.cfg.stands(rec.heir) {
			rec.heir = nil
		}
		if !r.trusts(rec) {
			strangers = append(strangers, id)
		}
	}
	s.mu.Unlock()
	for batch := range slices.Chunk(strangers, sweepBatch) {
		var gone []ports.PeerID
		s.mu.Lock()
		now := r.clock().now
		for _, id := range batch {
			rec := s.records[id]
			if rec == nil || r.trusts(rec) {
				continue
			}
			if h := rec.heir; h != nil && rec.state == listed && r.cfg.Indexers.in(id) && now < h.deadline {
				s.hold(rec, *h, now) // which stands, or it would be gone
				continue
			}
			if rec.state == listed {
				gone = append(gone, id)
			}
			s.remove(rec)
		}
		s.mu.Unlock()
		for _, id := range gone {
			r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedEntry, PeerID: id})
			r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
		}
	}
}
