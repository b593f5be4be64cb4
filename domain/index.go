package domain

import (
	"hash/maphash"

	"github.com/opencloud/ocnode/ports"
)

// index finds the slots of a shard by their PeerIDs. Slots whose hashes end alike are in a bucket, which
// is a line of the processor's cache: with an entry that has a part of the hash too, a look-up reads
// that line and the slot. The index grows and shrinks by a bucket at a time (linear hashing), so that no
// heartbeat waits until a whole index is moved.
type index struct {
	slots   *slab
	seed    maphash.Seed
	long    *names
	buckets buckets
	over    buckets // these follow a bucket that is full
	half    int     // a power of two; the buckets from half on were split from the buckets before it
	size    int
}

// bucket has its entries in front. A bucket is full if another follows.
type bucket struct {
	entries [bucketRoom]entry
	more    uint32 // 1 + the place in index.over of the bucket that follows, 0 without one
}

// entry is 1 + the number of a slot, and the first bits of the hash of its PeerID above it; 0 for none.
type entry uint32

const (
	bucketRoom = 15
	// A bucket is split when there are more than so many entries a bucket, and joined when there are
	// fewer. Buckets that are not split yet have up to twice as many as those that are.
	mostABucket, fewestABucket = 10, 6

	entryBits = 22 // of a slot's number
	// maxSlots is how many slots an index can tell apart.
	maxSlots = 1<<entryBits - 1
)

func newIndex(slots *slab, seed maphash.Seed, long *names) index {
	return index{slots: slots, seed: seed, long: long, half: 1}
}

func (x *index) hash(id ports.PeerID) uint64 { return maphash.String(x.seed, string(id)) }

func entryOf(hash uint64, n uint32) entry {
	return entry(uint32(hash>>32)&^maxSlots | (n + 1))
}

func (e entry) number() uint32 { return uint32(e&maxSlots) - 1 }

// place returns the place of the bucket of that hash.
func (x *index) place(hash uint64) int {
	i := int(hash / shardCount & uint64(2*x.half-1)) // all hashes of a shard have the same remainder
	if i >= x.buckets.len {
		i -= x.half
	}
	return i
}

// find returns the slot of id, which has that hash; nil without one.
func (x *index) find(id ports.PeerID, hash uint64) (n uint32, is *slot) {
	if x.size == 0 {
		return 0, nil
	}
	_, _, n, is = x.search(id, hash)
	return n, is
}

// search is find for an index that is not empty. It also returns where the entry is.
func (x *index) search(id ports.PeerID, hash uint64) (in *bucket, i int, n uint32, is *slot) {
	like := entryOf(hash, 0)
	for b := x.buckets.at(x.place(hash)); b != nil; b = x.next(b) {
		for i, e := range &b.entries {
			if (e^like) > maxSlots || e == 0 {
				continue
			}
			n := e.number()
			if is := x.slots.at(n); is.key.is(id, x.long) {
				return b, i, n, is
			}
		}
	}
	return nil, 0, 0, nil
}

// next returns the bucket that follows b, nil without one.
func (x *index) next(b *bucket) *bucket {
	if b.more == 0 {
		return nil
	}
	return x.over.at(int(b.more - 1))
}

// insert takes in slot n of id, which has that hash and which the index does not have.
func (x *index) insert(hash uint64, n uint32) {
	if x.buckets.len == 0 {
		x.buckets.add()
	}
	x.put(x.place(hash), entryOf(hash, n))
	if x.size++; x.size > mostABucket*x.buckets.len {
		x.grow()
	}
}

// put adds e to the bucket at that place.
func (x *index) put(place int, e entry) {
	b := x.buckets.at(place)
	for b.more != 0 {
		b = x.next(b)
	}
	i := b.used()
	if i == bucketRoom {
		x.over.add()
		b.more = uint32(x.over.len)
		b, i = x.next(b), 0
	}
	b.entries[i] = e
}

// used returns how many entries b has.
func (b *bucket) used() int {
	for i, e := range &b.entries {
		if e == 0 {
			return i
		}
	}
	return bucketRoom
}

// remove takes out the slot of id, which has that hash.
func (x *index) remove(id ports.PeerID, hash uint64) {
	if x.size == 0 {
		return
	}
	b, i, _, is := x.search(id, hash)
	if is == nil {
		return
	}
	place := x.place(hash)
	last := x.buckets.at(place)
	for last.more != 0 {
		last = x.next(last)
	}
	end := last.used() - 1
	b.entries[i] = last.entries[end] // before last may go, or move
	last.entries[end] = 0
	if end == 0 {
		x.cut(place)
	}
	x.size--
	if x.size < fewestABucket*x.buckets.len && x.buckets.len > 1 {
		x.shrink()
	}
}

// cut takes the last bucket, which has no entry, from those that follow the bucket at that place. The
// last of all that follow another moves to where it was.
func (x *index) cut(place int) {
	link := &x.buckets.at(place).more
	if *link == 0 {
		return
	}
	for b := x.next(x.buckets.at(place)); b.more != 0; b = x.next(b) {
		link = &b.more
	}
	free := *link
	*link = 0
	if last := uint32(x.over.len); free != last {
		moved := x.over.at(int(last - 1))
		link := &x.buckets.at(x.place(x.hashOf(moved.entries[0]))).more
		for *link != last {
			link = &x.over.at(int(*link - 1)).more
		}
		*link = free
		*x.over.at(int(free - 1)) = *moved
	}
	x.over.drop()
}

// empty takes all entries out of the bucket at that place, and yields them in the room.
func (x *index) empty(place int, room []entry) []entry {
	for {
		last := x.buckets.at(place)
		for last.more != 0 {
			last = x.next(last)
		}
		room = append(room, last.entries[:last.used()]...)
		if last == x.buckets.at(place) {
			*last = bucket{}
			return room
		}
		x.cut(place)
	}
}

// grow adds a bucket, and moves what belongs there from the bucket that is split.
func (x *index) grow() {
	var room [4 * bucketRoom]entry
	from := x.buckets.len - x.half
	split := x.empty(from, room[:0])
	x.buckets.add()
	for _, e := range split {
		x.put(x.place(x.hashOf(e)), e)
	}
	if x.buckets.len == 2*x.half {
		x.half *= 2
	}
}

// shrink joins the last bucket with the bucket that it was split from.
func (x *index) shrink() {
	var room [4 * bucketRoom]entry
	if x.buckets.len == x.half {
		x.half /= 2
	}
	last := x.buckets.len - 1
	joined := x.empty(last, room[:0])
	x.buckets.drop()
	for _, e := range joined {
		x.put(last-x.half, e)
	}
}

// hashOf returns the hash of the PeerID of e.
func (x *index) hashOf(e entry) uint64 {
	var room [64]byte
	head, tail := x.slots.at(e.number()).key.parts(x.long)
	return maphash.Bytes(x.seed, append(append(room[:0], head...), tail...))
}

// all yields the number of every slot.
func (x *index) all(yield func(uint32) bool) {
	for place := range x.buckets.len {
		for b := x.buckets.at(place); b != nil; b = x.next(b) {
			for _, e := range b.entries[:b.used()] {
				if !yield(e.number()) {
					return
				}
			}
		}
	}
}

// buckets is a list of buckets that grows without a copy.
type buckets struct {
	chunks []*[bucketsAChunk]bucket
	len    int
}

// bucketsAChunk are the buckets that a shard takes memory for at once: 1 KiB.
const bucketsAChunk = 16

func (l *buckets) at(i int) *bucket { return &l.chunks[uint(i)/bucketsAChunk][uint(i)%bucketsAChunk] }

// add adds an empty bucket.
func (l *buckets) add() {
	if l.len == len(l.chunks)*bucketsAChunk {
		l.chunks = append(l.chunks, new([bucketsAChunk]bucket))
	}
	l.len++
}

// drop takes off the last bucket.
func (l *buckets) drop() {
	l.len--
	*l.at(l.len) = bucket{}
	if k := len(l.chunks) - 1; l.len == k*bucketsAChunk {
		l.chunks[k] = nil
		l.chunks = l.chunks[:k]
	}
}
