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

// Revise has a change of whom the rules trust take effect at once: entries of those that
// are trusted no more are gone when it returns, watches that they may not have any more end,
// and other natives are followed or let go of.
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

// evict removes from s whoever is trusted no more. Whoever adds one asks under the lock of
// the shard, so that none comes after the look.
func (r *Registry) evict(s *shard) {
	var strangers []ports.PeerID
	s.mu.Lock()
	for id := range s.records {
		if !r.cfg.Indexers.in(id) {
			strangers = append(strangers, id)
		}
	}
	s.mu.Unlock()
	for batch := range slices.Chunk(strangers, sweepBatch) {
		var gone []ports.PeerID
		s.mu.Lock()
		for _, id := range batch {
			rec := s.records[id]
			if rec == nil || r.cfg.Indexers.in(id) {
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
