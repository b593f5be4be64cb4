package domain

import "time"

// wheel holds items until an instant, in slots of equal width. Adding and taking
// are O(1), and taking when nothing is due costs a comparison. An item comes out
// at its instant or up to one slot later, never earlier. A wheel is not safe for
// concurrent use.
type wheel[T any] struct {
	slot  time.Duration
	next  int64 // the first slot that take has not emptied
	slots map[int64][]T
}

func newWheel[T any](slot time.Duration) wheel[T] {
	return wheel[T]{slot: slot, slots: make(map[int64][]T)}
}

// wheelPlace is the number of a slot. It wraps around: two places are compared only if they are closer
// than a year.
type wheelPlace uint32

func (p wheelPlace) before(q wheelPlace) bool { return int32(p-q) < 0 }

// reached returns the last slot that take empties at that instant.
func (w *wheel[T]) reached(at Instant) wheelPlace { return wheelPlace(at.since / w.slot) }

// of returns the slot of an item that is due at that instant.
func (w *wheel[T]) of(at Instant) wheelPlace { return wheelPlace((at.since + w.slot - 1) / w.slot) }

// add returns the slot that the item is in.
func (w *wheel[T]) add(at Instant, item T) wheelPlace {
	s := max(int64((at.since+w.slot-1)/w.slot), w.next)
	w.slots[s] = append(w.slots[s], item)
	return wheelPlace(s)
}

// take removes at most limit items that are due. It reports whether there may be more.
func (w *wheel[T]) take(at Instant, limit int) (due []T, more bool) {
	for ; w.next <= int64(at.since/w.slot); w.next++ {
		items := w.slots[w.next]
		if len(items) > limit {
			w.slots[w.next] = items[limit:]
			return items[:limit:limit], true
		}
		if len(items) > 0 {
			delete(w.slots, w.next)
			w.next++
			return items, true
		}
	}
	return nil, false
}
