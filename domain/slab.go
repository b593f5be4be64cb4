package domain

import "sync/atomic"

// chunkSlots are the slots of a chunk, which has 4 KiB: a slot has 84 bytes.
const chunkSlots = 48

// slab holds the slots of a shard in chunks, so that it grows without a copy, and no slot moves. The
// shard's lock guards a slab. at also serves readers without the lock, of slots that are in use.
type slab struct {
	chunks atomic.Pointer[[]*chunk]
	room   int // no chunk before this has room
}

type chunk struct {
	slots [chunkSlots]slot
	used  int32
	free  int32 // 1 + the first slot that was freed; slot.number leads on
	fresh int32 // the slots from here on were never used
}

// at returns the slot of that number, nil if its chunk was given back or never made.
func (l *slab) at(n uint32) *slot {
	chunks := *l.chunks.Load()
	if k := int(n / chunkSlots); k < len(chunks) && chunks[k] != nil {
		return &chunks[k].slots[n%chunkSlots]
	}
	return nil
}

// take returns the number of an unused slot, in the first chunk with room: so that the others empty.
func (l *slab) take() uint32 {
	chunks := *l.chunks.Load()
	for l.room < len(chunks) && chunks[l.room] != nil && chunks[l.room].used == chunkSlots {
		l.room++
	}
	if l.room == len(chunks) {
		chunks = append(chunks, nil)
		l.chunks.Store(&chunks)
	}
	c := chunks[l.room]
	if c == nil {
		c = &chunk{}
		chunks[l.room] = c
	}
	i := c.fresh
	if c.free > 0 {
		i = c.free - 1
		c.free = int32(c.slots[i].number)
	} else {
		c.fresh++
	}
	c.used++
	return uint32(l.room*chunkSlots) + uint32(i)
}

// drop frees the slot of that number. A chunk without a used slot is given back, but for the first.
func (l *slab) drop(n uint32) {
	chunks := *l.chunks.Load()
	k, i := int(n/chunkSlots), int32(n%chunkSlots)
	c := chunks[k]
	c.slots[i] = slot{number: uint32(c.free)}
	c.free = i + 1
	l.room = min(l.room, k)
	if c.used--; c.used == 0 && k > 0 {
		chunks[k] = nil
	}
}
