package domain

import (
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Published returns the entry of id that this native puts into the store, and shows there as a view of
// its table: a listed lease, or a leave that counts. It never returns a word that only the store said, or
// a lie in the store would come back as this native's own. It does no I/O.
func (r *Registry) Published(id ports.PeerID) (Entry, bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.rules.Policy.publish(id, s.record(id).holding(), r.now())
}

// publish returns the entry that h publishes. It depends on the words alone, so natives that have heard
// the same words publish the same bytes: a reader of the DHT puts its result to each server that
// answered with other bytes. Where several words would do, it is the word that the DHT selects. So the
// put of a native that has heard more is never refused.
func (p TTLPolicy) publish(id ports.PeerID, h *holding, now moment) (e Entry, ok bool) {
	if h.lease(now.at) == nil {
		return p.publishLeave(id, h.leaves(now.at).said)
	}
	var best *word
	h.leases(func(w *word) bool {
		if w.source != stored && w.live(now.at) && p.publishable(w, now) && (best == nil || w.selected(best)) {
			best = w
		}
		return true
	})
	if best == nil {
		return e, false
	}
	return p.canonical(id, best), true
}

// publishable reports whether a store may take the lease w: a native with a wrong clock says times of its
// own for plain leases.
func (p TTLPolicy) publishable(w *word, now moment) bool {
	return w.proof != nil || p.Acceptable(time.Unix(0, w.expiresAt), now.wall) == nil
}

// selected reports whether the DHT keeps the lease w beside l: the newer version, and of two that are as
// new the larger bytes, so the native whose PeerID sorts last.
func (w *word) selected(l *word) bool {
	if c := w.version().Compare(l.version()); c != 0 {
		return c > 0
	}
	return w.native.Value() > l.native.Value()
}

// publishLeave returns the leave w as an entry; w may be nil. A signed leave stands for itself, whoever
// took it. A native that is told a bare leave is not told where the indexer was.
func (p TTLPolicy) publishLeave(id ports.PeerID, w *word) (e Entry, ok bool) {
	switch {
	case w == nil:
		return e, false
	case w.proof != nil:
		e = w.proof.Entry()
		return e, true
	case w.source == stored:
		return e, false
	}
	e = p.canonical(id, w)
	e.Addr, e.Addrs, e.Meta = "", nil, nil
	return e, true
}

// canonical returns w as an entry whose SeenAt comes from what its native said: natives that are told w
// do not know when its indexer was heard.
func (p TTLPolicy) canonical(id ports.PeerID, w *word) Entry {
	e := w.entry(id)
	e.SeenAt = e.ExpiresAt.Add(-p.TTL)
	if w.proof != nil {
		e.SeenAt = w.proof.Claim.Due(w.proof.Tick.Step)
	}
	return e
}
