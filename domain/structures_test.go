package domain

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"pgregory.net/rapid"
)

func TestTheWheelHoldsEveryItemUntilItsInstantAndAtMostASlotLonger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slot := time.Duration(rapid.IntRange(1, 50).Draw(t, "slot"))
		at := func(n int) Instant { return Instant{time.Duration(n)} }
		w := newWheel[Instant](slot)
		held, now := map[Instant]int{}, at(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "add") {
				on := at(rapid.IntRange(0, 2000).Draw(t, "at"))
				due := latest(on, now) // what is overdue already counts from now
				w.add(on, due)
				held[due]++
				continue
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "wait")))
			for more := true; more; {
				var due []Instant
				due, more = w.take(now, 2)
				if len(due) > 2 {
					t.Fatalf("took %d items, the limit is 2", len(due))
				}
				for _, on := range due {
					if now.Before(on) {
						t.Fatalf("item of %d came at %d", on, now)
					}
					held[on]--
				}
			}
			for on, n := range held {
				if n > 0 && !now.Before(on.Add(slot)) {
					t.Fatalf("item of %d is still held at %d, slot %d", on, now, slot)
				}
			}
		}
	})
}

// fourDigits are keys of records whose refs are their PeerIDs.
type fourDigits struct{}

func (fourDigits) keyOf(r ref) ports.PeerID { return ports.PeerID(fmt.Sprintf("%04d", r)) }

func (k fourDigits) compareKey(r ref, id ports.PeerID) int { return cmp.Compare(k.keyOf(r), id) }

func TestTheOrderIsThatOfASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := order{keys: fourDigits{}}
		var model []ports.PeerID
		// Enough to split and join blocks, from a space small enough to hit twice.
		for range rapid.IntRange(0, 4).Draw(t, "rounds") {
			drawn := rapid.SliceOfN(rapid.IntRange(0, 3000), 0, 1500).Draw(t, "ids")
			add := rapid.Bool().Draw(t, "add")
			for _, n := range drawn {
				id := ports.PeerID(fmt.Sprintf("%04d", n))
				at, found := slices.BinarySearch(model, id)
				if add {
					o.insert(id, ref(n))
					if !found {
						model = slices.Insert(model, at, id)
					}
				} else {
					o.remove(id)
					if found {
						model = slices.Delete(model, at, at+1)
					}
				}
			}
		}
		from := ports.PeerID(fmt.Sprintf("%04d", rapid.IntRange(0, 3000).Draw(t, "from")))
		n := rapid.IntRange(0, 2000).Draw(t, "n")
		at, found := slices.BinarySearch(model, from)
		if found {
			at++
		}
		want := model[at:]
		want = want[:min(n, len(want))]
		if got := o.after(from, n); !slices.Equal(got, want) {
			t.Fatalf("after %s: got %d ids, want %d", from, len(got), len(want))
		}
		for i, b := range o.blocks {
			if len(b) == 0 || len(b) > blockSize || cap(b) > 2*blockSize {
				t.Fatalf("block %d of %d has %d ids, room for %d", i, len(o.blocks), len(b), cap(b))
			}
		}
	})
}

func TestTheKnownSetForgetsTheOldestAndWhatIsMissedTwice(t *testing.T) {
	k := newKnownSet()
	for _, id := range []ports.PeerID{"a", "b", "c", "b"} {
		if evicted := k.add(id, false, 3); len(evicted) > 0 {
			t.Fatalf("%s had to go and there was room", evicted)
		}
	}
	if evicted := k.add("d", false, 3); !slices.Equal(evicted, []ports.PeerID{"a"}) {
		t.Errorf("%q had to go, want the oldest, a", evicted)
	}
	if k.missed("b") {
		t.Error("b is forgotten after one miss")
	}
	if !k.missed("b") || k.missed("b") {
		t.Error("b is not forgotten at its second miss, once")
	}
	k.remove("c")
	if got := k.all(); !slices.Equal(got, []ports.PeerID{"d"}) || k.len() != 1 {
		t.Errorf("known are %v, want d", got)
	}
	for _, id := range []ports.PeerID{"e", "f", "g"} {
		k.add(id, id == "e", 10)
	}
	if got := k.all(); !slices.Equal(got, []ports.PeerID{"e", "d", "f", "g"}) {
		t.Errorf("known are %v, want e first, which was alive here", got)
	}
	if evicted := k.add("h", false, 2); !slices.Equal(evicted, []ports.PeerID{"d", "f", "g"}) {
		t.Errorf("with a lower limit %q had to go, want those that were never found, the oldest first", evicted)
	}
	if evicted := k.add("i", true, 1); !slices.Equal(evicted, []ports.PeerID{"h", "e"}) {
		t.Errorf("with no room %q had to go, want h and then e", evicted)
	}
}

func TestAShortTimeIsItsInstantInWholeMicroseconds(t *testing.T) {
	for _, want := range []time.Duration{0, time.Microsecond, -9 * time.Second, 66 * time.Second, 4 * 365 * 24 * time.Hour} {
		var short shortTime
		short.set(Instant{want + 999})
		if got := short.at().Sub(Instant{want}); got != 0 && got != time.Microsecond {
			t.Errorf("%v is off by %v", want, got)
		}
	}
}
