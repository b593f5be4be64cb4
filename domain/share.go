package domain

import (
	"math/rand/v2"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// This file shares the table out between the peers by whose word it fills. Any peer can make up
// indexers. So an untrusted peer fills a part of the table at most, and what it fills gives way to
// the indexers that register here.

const (
	// tellerShare is the part of the table that one untrusted peer may fill, one in so many: most
	// of it is for registrations, and for the indexers of several natives.
	tellerShare = 8
	// evictTries is how many records an eviction looks at, for an indexer that no other native
	// tells.
	evictTries = 8

	// callers stands for all peers whose look-ups bring indexers of the store into the table. A
	// caller is answered without that, too.
	callers ports.PeerID = "callers"
)

// tellers counts the records that untrusted peers fill. Its lock is taken behind that of a shard.
type tellers struct {
	trusted func(ports.PeerID) bool // nil trusts no peer
	most    int                     // how many records one peer fills

	mu   sync.Mutex
	byID map[ports.PeerID]*teller // those that fill any
}

// teller is an untrusted peer, and the number of records that it fills.
type teller struct {
	id      ports.PeerID
	records int
}

func newTellers(b Bounds) *tellers {
	return &tellers{trusted: b.Trusted, most: max(1, b.entries()/tellerShare), byID: make(map[ports.PeerID]*teller)}
}

// trusts reports whether by fills the table without a share.
func (t *tellers) trusts(by ports.PeerID) bool { return t.trusted != nil && t.trusted(by) }

// room reports whether by may fill one more record.
func (t *tellers) room(by ports.PeerID) bool {
	if t.trusts(by) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	is := t.byID[by]
	return is == nil || is.records < t.most
}

// add counts one more record of by.
func (t *tellers) add(by ports.PeerID) *teller {
	t.mu.Lock()
	defer t.mu.Unlock()
	is := t.byID[by]
	if is == nil {
		is = &teller{id: by}
		t.byID[by] = is
	}
	is.records++
	return is
}

// remove counts one record less of is.
func (t *tellers) remove(is *teller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if is.records--; is.records == 0 {
		delete(t.byID, is.id)
	}
}

// largest returns the teller that fills most records, nil if no untrusted peer fills any.
func (t *tellers) largest() (largest *teller) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, is := range t.byID {
		if largest == nil || is.records > largest.records {
			largest = is
		}
	}
	return largest
}

// shares are the records of a shard that untrusted peers fill. They are apart from the records
// since most records are filled by no such peer.
type shares struct {
	of   map[ref]share
	from map[*teller][]ref // in no order
}

type share struct {
	teller *teller
	at     int // its place in the teller's list
}

func newShares() shares {
	return shares{make(map[ref]share), make(map[*teller][]ref)}
}

// fills reports whether by fills r.
func (s *shard) fills(by ports.PeerID, r record) bool {
	is, filled := s.shares.of[r.ref]
	return filled && is.teller.id == by
}

// fill has by fill r, and no other peer. The caller has locked the shard.
func (s *shard) fill(r record, by ports.PeerID) {
	if s.fills(by, r) {
		return
	}
	s.unfill(r)
	of := s.table.tellers.add(by)
	s.shares.of[r.ref] = share{of, len(s.shares.from[of])}
	s.shares.from[of] = append(s.shares.from[of], r.ref)
}

// unfill has no untrusted peer fill r. The caller has locked the shard.
func (s *shard) unfill(r record) {
	was, filled := s.shares.of[r.ref]
	if !filled {
		return
	}
	all := s.shares.from[was.teller]
	last := len(all) - 1
	all[was.at] = all[last]
	s.shares.of[all[was.at]] = was
	if all = all[:last]; last == 0 {
		delete(s.shares.from, was.teller)
	} else {
		s.shares.from[was.teller] = all
	}
	delete(s.shares.of, r.ref)
	s.table.tellers.remove(was.teller)
}

// alike reports whether two holdings have the lease of one and the same peer, and no other. Most
// changes are a renewal of such.
func alike(h, o *holding) bool {
	return h.rest == nil && o.rest == nil && h.first.source == o.first.source && h.first.native == o.first.native
}

// share decides by whose word r is in the table, after a change of its holding. No untrusted
// peer fills the record of an indexer that registered here, or that a trusted native tells. The
// peer that brought a record in fills it for as long as its own word is held, and until another
// peer whose word is held has room for it. held is the holding. The caller has locked the shard.
func (s *shard) share(r record, held *holding) {
	if held.first.source == granted && held.first.deadline != (Instant{}) {
		s.unfill(r)
		return
	}
	var next ports.PeerID // a peer whose word is held
	keep := false
	held.leases(func(l *word) bool {
		switch by := l.native.Value(); {
		case l.source == stored: // a word does not say for which peer it was looked up
			keep = true
		case s.table.tellers.trusts(by):
			next, keep = "", false
			s.unfill(r)
			return false
		case s.fills(by, r):
			keep = true
		case next == "":
			next = by
		}
		return true
	})
	// Of two peers that tell the same, one could otherwise bring in more and more for the other.
	if _, filled := s.shares.of[r.ref]; next != "" && !keep && (!filled || s.table.tellers.room(next)) {
		s.fill(r, next)
	}
}

// makeRoom evicts a record of the peer that fills most of the table, and reports whether there was
// one.
func (r *Registry) makeRoom() bool {
	largest := r.table.tellers.largest()
	if largest == nil {
		return false
	}
	from := rand.IntN(shardCount)
	for i := range shardCount {
		if r.evictFilled(&r.table.shards[(from+i)%shardCount], largest) {
			return true
		}
	}
	return false
}

// evictFilled evicts a record of s that t fills, and reports whether there was one. It takes an
// indexer with a single lease if it finds one: other natives may tell the others truly.
func (r *Registry) evictFilled(s *shard, t *teller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.shares.from[t]
	if len(all) == 0 {
		return false
	}
	rec := s.at(all[rand.IntN(len(all))])
	for range evictTries {
		if rec.holding().rest == nil {
			break
		}
		rec = s.at(all[rand.IntN(len(all))])
	}
	id := rec.id()
	for now := r.now(); rec.known(); rec = s.record(id) {
		if rec.is(staled) {
			rec.ended().until = now.at
		}
		if b := s.apply(rec, &holding{}, now); b.expired || b.left { // else it has become stale just now
			r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: id})
		}
	}
	return true
}
