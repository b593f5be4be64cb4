package domain

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
	"pgregory.net/rapid"
)

// texts are PeerIDs of all kinds of keys, shorter and longer ones, and texts that begin like them.
func texts() *rapid.Generator[ports.PeerID] {
	kinds := []string{
		ed25519Text + strings.Repeat("a", 41) + "%03d", secp256k1Text + strings.Repeat("a", 42) + "%03d",
		"Qm" + strings.Repeat("a", 41) + "%03d", ed25519Text + "%03d", "x%d", strings.Repeat("long", 30) + "%03d",
		secp256k1Text + strings.Repeat("a", 41) + "%03d", strings.Repeat("a", 49) + "%03d",
	}
	return rapid.Custom(func(t *rapid.T) ports.PeerID {
		return ports.PeerID(fmt.Sprintf(rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.IntRange(0, 300).Draw(t, "number")))
	})
}

func TestAKeyIsItsText(t *testing.T) {
	long := newNames()
	rapid.Check(t, func(t *rapid.T) {
		id, other := texts().Draw(t, "id"), texts().Draw(t, "other")
		if rapid.Bool().Draw(t, "cut") {
			other = other[:rapid.IntRange(0, len(other)).Draw(t, "at")]
		}
		k := keyOf(id, long)
		defer k.drop(long)
		if k.id(long) != id || !k.is(id, long) || k.is(other, long) != (id == other) {
			t.Fatalf("%s is %s as a key, and is %s: %t", id, k.id(long), other, k.is(other, long))
		}
		if got, want := k.compare(other, long), cmp.Compare(id, other); got != want {
			t.Fatalf("%s beside %s is %d, want %d", id, other, got, want)
		}
	})
	if len(long.byID) != 1 || len(long.unused) != len(long.byNum)-2 {
		t.Errorf("names that nothing uses are kept: %v", long.byID)
	}
}

// The index and the slab hold what they were given, however often slots are used again, and give back
// what they need no more.
func TestTheIndexIsThatOfAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var slots slab
		slots.chunks.Store(&[]*chunk{})
		long := newNames()
		x := newIndex(&slots, maphash.MakeSeed(), long)
		model := map[ports.PeerID]uint32{}
		for range rapid.IntRange(0, 5).Draw(t, "rounds") {
			ids := rapid.SliceOfN(texts(), 0, 1000).Draw(t, "ids")
			add := rapid.Bool().Draw(t, "add")
			for _, id := range ids {
				n, is := x.find(id, x.hash(id))
				had, held := model[id]
				if (is != nil) != held || held && n != had {
					t.Fatalf("%s is in slot %d (%t), want %d (%t)", id, n, is != nil, had, held)
				}
				switch {
				case add && !held:
					n := slots.take()
					slots.at(n).key = keyOf(id, long)
					x.insert(x.hash(id), n)
					model[id] = n
				case !add && held:
					x.remove(id, x.hash(id))
					is.key.drop(long)
					slots.drop(n)
					delete(model, id)
				}
			}
		}
		checkIndex(t, &x, &slots, long, model)
	})
}

// checkIndex checks that x has what the model has, in no more memory than that takes.
func checkIndex(t rapid.TB, x *index, slots *slab, long *names, model map[ports.PeerID]uint32) {
	count, chunks := 0, map[uint32]bool{0: true}
	for n := range x.all {
		if id := slots.at(n).key.id(long); model[id] != n {
			t.Fatalf("%s is in slot %d, want %d", id, n, model[id])
		}
		count++
		chunks[n/chunkSlots] = true
	}
	if count != len(model) || x.size != count || x.buckets.len > 1+count/fewestABucket || x.over.len > count/bucketRoom {
		t.Fatalf("%d slots in %d buckets and %d that follow, counted as %d, want %d", count, x.buckets.len, x.over.len, x.size, len(model))
	}
	for _, l := range []*buckets{&x.buckets, &x.over} {
		if len(l.chunks) > (l.len+bucketsAChunk-1)/bucketsAChunk {
			t.Fatalf("%d chunks for %d buckets", len(l.chunks), l.len)
		}
	}
	for k, c := range *slots.chunks.Load() {
		if c != nil && !chunks[uint32(k)] {
			t.Fatalf("chunk %d is kept, and has no used slot", k)
		}
	}
}

// An index of thousands has buckets that follow others, and moves them as slots come and go.
func TestALargeIndexIsThatOfAMap(t *testing.T) {
	var slots slab
	slots.chunks.Store(&[]*chunk{})
	long := newNames()
	x := newIndex(&slots, maphash.MakeSeed(), long)
	model := map[ports.PeerID]uint32{}
	id := func(i int) ports.PeerID { return ports.PeerID(fmt.Sprintf("%s%044d", ed25519Text, i)) }
	const most = 6000
	for _, upTo := range []int{most, most / 2, most, most / 5, most / 2, 0} { // i runs in an order of its own
		for i := 0; len(model) != upTo; i++ {
			id := id(i * 7907 % most)
			n, held := model[id]
			switch {
			case !held && len(model) < upTo:
				n := slots.take()
				slots.at(n).key = keyOf(id, long)
				x.insert(x.hash(id), n)
				model[id] = n
			case held && len(model) > upTo:
				x.remove(id, x.hash(id))
				slots.drop(n)
				delete(model, id)
			}
		}
		checkIndex(t, &x, &slots, long, model)
		for i := range most {
			n, is := x.find(id(i), x.hash(id(i)))
			if had, held := model[id(i)]; (is != nil) != held || n != had {
				t.Fatalf("%s is in slot %d (%t), want %d (%t)", id(i), n, is != nil, had, held)
			}
		}
	}
}
