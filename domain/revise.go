package domain

import (
	"maps"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// refuseStranger is what a stranger is told.
func (r *Registry) refuseStranger(id ports.PeerID) *ports.Refusal {
	return ports.Refuse(ports.CodeRefused, "this network is closed, and %s is none of its indexers: ask whoever runs the native %s to add it to trust.indexers there", id, r.rules.Self)
}

// Revise has a change of whom the rules trust, or what they believe of who does not sign,
// take effect at once: entries that do not count any more are gone when it returns, watches
// that somebody may not have any more end, and other natives are followed or let go of.
func (r *Registry) Revise() {
	for i := range r.table.shards {
		r.evict(&r.table.shards[i])
	}
	for _, id := range r.known.all() {
		if !r.rules.Indexers.in(id) {
			r.known.remove(id)
		}
	}
	r.table.changes.add(change{kind: conditionChanged})
	r.follower.Revise()
}

// evict removes from s what counts no more. A word that is added is held against the rules under
// the lock of its shard, so none of it comes after the look.
func (r *Registry) evict(s *shard) {
	s.mu.Lock()
	ids := slices.Collect(maps.Keys(s.records))
	s.mu.Unlock()
	for chunk := range slices.Chunk(ids, sweepBatch) {
		for _, id := range r.evictBatch(s, chunk) {
			r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedEntry, PeerID: id})
			r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
		}
	}
}

// evictBatch has what is held of ids revised, and returns those that are listed no more.
func (r *Registry) evictBatch(s *shard, ids []ports.PeerID) (gone []ports.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, rule := r.now(), r.rule()
	for _, id := range ids {
		rec := s.records[id]
		if rec == nil {
			continue
		}
		var next holding // nothing of a stranger
		if r.rules.Indexers.in(id) {
			next = rule.revise(rec.held, now)
		}
		if b := s.apply(rec, next, now); b.expired || b.left {
			gone = append(gone, id)
		}
	}
	return gone
}
