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

func (w *wheel[T]) add(at Instant, item T) {
	s := max(int64((at.since+w.slot-1)/w.slot), w.next)
	w.slots[s] = append(w.slots[s], item)
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
