package domain

import (
	"hash/maphash"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// index finds the slots of a shard by their PeerIDs. Slots whose hashes end alike form a list by way of
// slot.next. The index grows and shrinks by a list at a time (linear hashing), so that no heartbeat
// waits until a whole index is moved.
type index struct {
	slots *slab
	seed  maphash.Seed
	long  *names
	lists []uint32 // 1 + the number of the first slot of each, 0 for an empty list
	half  int      // a power of two; the lists from half on were split from the lists before it
	size  int
}

// fewestLists is how many lists an index begins with.
const fewestLists = 4

func newIndex(slots *slab, seed maphash.Seed, long *names) index {
	return index{slots: slots, seed: seed, long: long, lists: make([]uint32, fewestLists), half: fewestLists}
}

// list returns the list of id.
func (x *index) list(id ports.PeerID) int { return x.listOf(maphash.String(x.seed, string(id))) }

func (x *index) listOf(hash uint64) int {
	i := int(hash / shardCount & uint64(2*x.half-1)) // all hashes of a shard have the same remainder
	if i >= len(x.lists) {
		i -= x.half
	}
	return i
}

// find returns the slot of id, nil without one.
func (x *index) find(id ports.PeerID) (n uint32, is *slot) {
	for at := x.lists[x.list(id)]; at != 0; at = is.next {
		if is = x.slots.at(at - 1); is.key.is(id, x.long) {
			return at - 1, is
		}
	}
	return 0, nil
}

// insert takes in slot n of id, which the index does not have.
func (x *index) insert(id ports.PeerID, n uint32) {
	x.put(x.list(id), n)
	if x.size++; x.size > len(x.lists) {
		x.grow()
	}
}

func (x *index) put(list int, n uint32) {
	x.slots.at(n).next, x.lists[list] = x.lists[list], n+1
}

// remove takes out the slot of id.
func (x *index) remove(id ports.PeerID) {
	for at := &x.lists[x.list(id)]; *at != 0; {
		is := x.slots.at(*at - 1)
		if is.key.is(id, x.long) {
			*at = is.next
			x.size--
			break
		}
		at = &is.next
	}
	if x.size < len(x.lists)/2 && len(x.lists) > fewestLists {
		x.shrink()
	}
}

// grow adds a list, and moves what belongs there from the list that is split.
func (x *index) grow() {
	from := len(x.lists) - x.half
	at := x.lists[from]
	x.lists = append(x.lists, 0)
	x.lists[from] = 0
	for at != 0 {
		n := at - 1
		is := x.slots.at(n)
		at = is.next
		x.put(x.listOf(x.hash(is)), n)
	}
	if len(x.lists) == 2*x.half {
		x.half *= 2
	}
}

// shrink joins the last list with the list that it was split from.
func (x *index) shrink() {
	if len(x.lists) == x.half {
		x.half /= 2
	}
	last := len(x.lists) - 1
	end := &x.lists[last-x.half]
	for *end != 0 {
		end = &x.slots.at(*end - 1).next
	}
	*end = x.lists[last]
	if x.lists = x.lists[:last]; cap(x.lists) > 4*last {
		x.lists = slices.Clone(x.lists)
	}
}

func (x *index) hash(is *slot) uint64 {
	var room [64]byte
	head, tail := is.key.parts(x.long)
	return maphash.Bytes(x.seed, append(append(room[:0], head...), tail...))
}

// all yields the number of every slot.
func (x *index) all(yield func(uint32) bool) {
	for _, at := range x.lists {
		for at != 0 {
			n := at - 1
			at = x.slots.at(n).next
			if !yield(n) {
				return
			}
		}
	}
}
