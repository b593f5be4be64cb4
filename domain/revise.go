package domain

import (
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// refuseStranger refuses an indexer that this native does not trust.
func (r *Registry) refuseStranger(id ports.PeerID) *ports.Refusal {
	return ports.Refuse(ports.CodeRefused, "this network is closed, and %s is none of its indexers: ask whoever runs the native %s to add it to trust.indexers there", id, r.rules.Self)
}

// Revise applies a change of Rules.Indexers, Rules.Natives or Rules.Plain. The table has no
// untrusted entry when it returns. Watches of untrusted natives end, and the follower follows or
// drops natives, soon after.
func (r *Registry) Revise() {
	for i := range r.table.shards {
		r.evict(&r.table.shards[i])
	}
	for _, id := range r.known.all() {
		if !r.rules.Indexers.in(id) {
			r.known.remove(id)
		}
	}
	r.revised.Add(1)
	r.table.changes.mark(r.standing())
	r.follower.Revise()
}

// evict removes the untrusted entries of s. take and grant ask the rules under the shard's lock,
// so no untrusted entry comes in behind evict.
func (r *Registry) evict(s *shard) {
	for chunk := range slices.Chunk(s.ids(), sweepBatch) {
		for _, id := range r.evictBatch(s, chunk) {
			r.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedEntry, PeerID: id})
			r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
		}
	}
}

// evictBatch revises the records of ids, and returns the indexers that left the list.
func (r *Registry) evictBatch(s *shard, ids []ports.PeerID) (gone []ports.PeerID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, rule := r.now(), r.rule()
	for _, id := range ids {
		rec := s.record(id)
		if !rec.known() {
			continue
		}
		if !rec.is(staled) && s.present(rec, now.at).stale { // it has ended since the last sweep
			ended := rec.holding().at(now)
			s.apply(rec, &ended, now)
		}
		var next holding // an untrusted indexer keeps nothing
		trusted := r.rules.Indexers.in(id)
		if rec.is(staled) && !(trusted && rule.stands(&rec.ended().word)) {
			rec.ended().until = now.at
		}
		if trusted {
			if rec.holding().lease(now.at) == nil && !rec.is(staled) {
				continue // the sweep tells of what has ended by itself
			}
			next = rule.revise(*rec.holding(), now)
		}
		if b := s.apply(rec, &next, now); b.expired || b.left {
			gone = append(gone, id)
		}
	}
	return gone
}
