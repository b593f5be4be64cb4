package domain

import "github.com/opencloud/ocnode/ports"

// ref is the number of a record in the table. It is stale once the record is dropped, and then stands
// for another record or for none. Lists and wheels that hold refs look at the record's own state.
type ref uint32

// pointer is a ref to one record alone: born tells the records of a slot apart, one after the other. The
// zero pointer points to none.
type pointer struct {
	ref  ref
	born uint16
}

// record is an indexer's place in the table, as long as the caller holds the lock of its shard.
type record struct {
	*slot // nil for an unknown indexer
	shard *shard
	ref   ref
}

// slot is the holding of an indexer, with the registry's notes on it. It has no pointer, so that the
// collector passes over the table.
type slot struct {
	block      blockRef   // of the holding; 0 if the shard's odd holdings have it
	number     uint32     // stands for this native's own lease in News; 0 without one
	filed      wheelPlace // where the wheel comes around to it
	waitsUntil wheelPlace // where outbox.delayed comes around to it
	flags      flags
	born       uint16 // how many records the shard had before, and never 0
	shown      uint8  // 1 + the lease that watchers know, of held
	place      place
	outbox     outboxState
	key        key
}

// flags are the registry's notes on a record.
type flags uint16

const (
	used        flags = 1 << iota // it is in the index; else the wheels must let go of it
	waits                         // it is in the wheel, at filed
	owned                         // this native has granted its first lease
	echoed                        // a native announced it too since its last check
	lookedAhead                   // looked up ahead of this deadline already
	rival                         // another process with its key was refused since its last registration
	staled                        // watchers know it as stale: its ended lease is shown
	hasHungUp                     // it ended its connection itself since its last registration here
	shownLate                     // watchers know the lease that is shown as late
)

func (s *slot) is(f flags) bool { return s.flags&f != 0 }

func (s *slot) set(f flags, on bool) {
	if on {
		s.flags |= f
	} else {
		s.flags &^= f
	}
}

// place is which of the table's orders a record is in.
type place uint8

const (
	nowhere   place = iota // the holding is only its newest record
	inEntries              // it is listed, or was until the next sweep
	inLeaves               // it has left
)

// known reports whether the indexer has a record.
func (r record) known() bool { return r.slot != nil }

// id returns the PeerID of r's indexer.
func (r record) id() ports.PeerID { return r.key.id(r.shard.table.names) }

// holding returns the holding of r, an empty one for an unknown indexer. It is not to be changed.
func (r record) holding() *holding {
	if r.slot == nil {
		return &holding{}
	}
	s := r.shard
	if r.block == 0 {
		if h := s.odd[r.ref.number()]; h != nil {
			return h
		}
		return &holding{} // it is new
	}
	if s.unpacked.holding == nil || s.unpacked.ref != r.ref {
		s.unpacked.ref, s.unpacked.holding = r.ref, s.table.unpack(r.id(), s.arena.at(r.block), true)
	}
	return s.unpacked.holding
}

// glance is holding without what proofs need beside their claims. It is for answers without proofs.
func (r record) glance() *holding {
	if r.slot == nil || r.block == 0 || r.shard.unpacked.ref == r.ref && r.shard.unpacked.holding != nil {
		return r.holding()
	}
	return r.shard.table.unpack(r.id(), r.shard.arena.at(r.block), false)
}

// concerns reports whether a follower with that number is told of r: as it may have a lease of this native,
// a leave, or a lease of the follower.
func (r record) concerns(follower uint32) bool {
	return r.slot != nil && (r.block == 0 || concerns(r.shard.arena.at(r.block), follower))
}

// was returns the view of r that watchers know, if that is not stale. held is r's holding.
func (r record) was(held *holding) view {
	return view{shown: held.nth(int(r.shown)), late: r.is(shownLate)}
}

// ended returns the stale lease of r, nil without one.
func (r record) ended() *ended { return r.shard.ended[r.ref.number()] }

// hold makes next the holding of r, and is the view that watchers know.
func (r record) hold(next *holding, is view, e *ended) {
	if r.shown = 0; !is.stale {
		r.shown = uint8(next.place(is.shown))
	}
	r.set(shownLate, is.late)
	r.setEnded(e)
	r.shard.keep(r, next)
}

// keep packs the holding h of r.
func (s *shard) keep(r record, h *holding) {
	n := r.ref.number()
	packed, ok := s.table.pack(h, s.room[:0])
	if len(s.odd) > 0 {
		delete(s.odd, n)
	}
	was := r.block
	if was != 0 {
		s.table.unname(s.arena.at(was))
	}
	if s.unpacked.ref == r.ref {
		s.unpacked.holding = nil
	}
	if ok {
		s.room = packed
		r.block = s.arena.put(n, was, packed)
		return
	}
	s.arena.free(was)
	kept := *h
	s.odd[n], r.block = &kept, 0
}

func (r record) setEnded(e *ended) {
	switch n := r.ref.number(); {
	case e != nil:
		r.shard.ended[n] = e
	case len(r.shard.ended) > 0:
		delete(r.shard.ended, n)
	}
}

// number is the number of r's slot in its shard.
func (r ref) number() uint32 { return uint32(r) / shardCount }

// record returns the record of id.
func (s *shard) record(id ports.PeerID) record {
	return s.recordOf(id, s.index.hash(id))
}

// recordOf is record of an id with that hash.
func (s *shard) recordOf(id ports.PeerID, hash uint64) record {
	n, is := s.index.find(id, hash)
	return record{is, s, s.ref(n)}
}

func (s *shard) ref(n uint32) ref { return ref(n*shardCount) + ref(s.number) }

// at returns the record that r stands for now, an unknown one without a record. The caller has locked
// the shard.
func (s *shard) at(r ref) record {
	is := s.slots.at(r.number())
	if is == nil || !is.is(used) {
		is = nil
	}
	return record{is, s, r}
}

// shardOf returns the shard of r.
func (t *table) shardOf(r ref) *shard { return &t.shards[r%shardCount] }

// pointer returns a pointer to r, which may be unknown.
func (r record) pointer() pointer {
	if !r.known() {
		return pointer{}
	}
	return pointer{r.ref, r.born}
}

// of returns the record that p points to, an unknown one if it was dropped. The caller has locked the
// shard.
func (s *shard) of(p pointer) record {
	if p == (pointer{}) {
		return record{shard: s}
	}
	if r := s.at(p.ref); r.known() && r.born == p.born {
		return r
	}
	return record{shard: s}
}

// insert returns a new record of id, an unknown indexer. The caller has locked the shard, and
// applies a holding to the record.
func (s *shard) insert(id ports.PeerID) record {
	n := s.slots.take()
	is := s.slots.at(n)
	if s.born++; s.born == 0 {
		s.born++
	}
	*is = slot{key: keyOf(id, s.table.names), flags: used, born: s.born}
	s.index.insert(s.index.hash(id), n)
	s.table.size.Add(1)
	return record{is, s, s.ref(n)}
}

// drop forgets r. The view of r is empty.
func (s *shard) drop(r record) {
	n := r.ref.number()
	s.list(r, &holding{}, view{}, false)
	s.unfill(r)
	id := r.id()
	s.index.remove(id, s.index.hash(id))
	s.table.size.Add(-1)
	if r.block != 0 {
		s.table.unname(s.arena.at(r.block))
		s.arena.free(r.block)
		r.block = 0
	}
	delete(s.odd, n)
	delete(s.ended, n)
	if s.unpacked.ref == r.ref {
		s.unpacked.holding = nil
	}
	r.key.drop(s.table.names)
	if r.set(used, false); r.outbox.phase != flying { // else land frees it
		s.slots.drop(n)
	}
}

// compareKey implements keys.
func (t *table) compareKey(r ref, id ports.PeerID) int {
	return t.shardOf(r).slots.at(r.number()).key.compare(id, t.names)
}

// keyOf implements keys.
func (t *table) keyOf(r ref) ports.PeerID { return t.shardOf(r).slots.at(r.number()).key.id(t.names) }
