package domain

import (
	"testing"

	"github.com/opencloud/ocnode/adapters/proof"
	"pgregory.net/rapid"
)

// The item of a packed lease is that of the same lease made anew, whatever else its holding has.
func TestTheItemOfAPackedLeaseIsThatOfTheLease(t *testing.T) {
	s := newSaid(t)
	proofs := proof.NewVerifier()
	read := 0
	s.eachPacked(t, proofs, func(t *rapid.T, _ *table, h *holding, packed []byte) {
		first, is, ok := packedFirst(s.id, packed)
		if !ok {
			return
		}
		if has := h.first.deadline != (Instant{}); has != (first != nil) {
			t.Fatalf("it has a first lease: %t, want %t", first != nil, has)
		} else if !has {
			return
		}
		read++
		e := h.first.entry(s.id)
		if want := summedOf(&e, proofs); is != want {
			t.Fatalf("the item is %x, want %x of\n%s", is, want, plainly(h))
		}
		if sourceOf(first) != h.first.source || deadlineOf(first) != h.first.deadline {
			t.Fatalf("the lease is of source %v until %v, want\n%s", sourceOf(first), deadlineOf(first), plainly(h))
		}
	})
	if read == 0 {
		t.Error("no item was read")
	}
}
