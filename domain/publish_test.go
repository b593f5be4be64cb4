package domain

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
)

// holdingOf returns the holding of an indexer of that these words are said at noon.
func holdingOf(t interface{ Fatal(...any) }, words ...word) *holding {
	h := holding{}
	for _, w := range words {
		next, err := accepts.say(&h, w, true, noon)
		if err != nil && why(err) == "" {
			t.Fatal(err)
		}
		h = next
	}
	return &h
}

// Each row is a sentence of "The DHT" in docs/protocol.md.
func TestWhatANativePublishes(t *testing.T) {
	const full = 66 * sec
	clear := func(e Entry) *Entry { e.Proof = nil; return &e }
	mine := lease(granted, "me", 30*sec)
	for _, c := range []struct {
		sentence string
		words    []word
		after    time.Duration
		want     *Entry // without its proof
	}{
		{sentence: "nothing is nothing"},
		{"a lease that it granted", []word{mine}, 0, &Entry{Addr: "a", Native: "me", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec)}},
		{"the instant before its end", []word{mine}, 30*sec - 1, &Entry{Addr: "a", Native: "me", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec)}},
		{"nothing at its end", []word{mine}, 30 * sec, nil},
		{"nothing after it", []word{mine}, 30*sec + 1, nil},
		{"of two bare leases the later", []word{mine, lease(told, "n1", 40*sec)}, 0, &Entry{Addr: "a", Native: "n1", SeenAt: noon.wall.Add(-26 * sec), ExpiresAt: noon.wall.Add(40 * sec)}},
		{"of two that end at once, that of the last PeerID", []word{lease(told, "n2", 40*sec), lease(told, "n1", 40*sec)}, 0, &Entry{Addr: "a", Native: "n2", SeenAt: noon.wall.Add(-26 * sec), ExpiresAt: noon.wall.Add(40 * sec)}},
		{"nothing that only the store says", []word{lease(stored, "n1", full)}, 0, nil},
		{"nor beside a lease", []word{mine, lease(stored, "n1", full)}, 0, &Entry{Addr: "a", Native: "me", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec)}},
		{"nor after its end", []word{mine, lease(stored, "n1", full)}, 30 * sec, nil},
		{"nothing signed that only the store says", []word{signed(lease(stored, "n1", full), 0, 0)}, 0, nil},
		{"no time of a native with a wrong clock", []word{mine, by(lease(told, "n1", full), 10*time.Minute)}, 0, &Entry{Addr: "a", Native: "me", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec)}},
		{"nothing that has ended by the time of day", []word{by(lease(told, "n1", full), 0)}, 0, nil},
		{"the time of a proof, and no native's", []word{signed(lease(granted, "me", full), 0, 0)}, sec, &Entry{Addr: "a", Native: "me", SeenAt: noon.wall, ExpiresAt: noon.wall.Add(full)}},
		{"the newest tick", []word{signed(lease(granted, "me", full), -57, 0), signed(lease(told, "n1", full), -57, 1)}, 0, &Entry{Addr: "a", Native: "n1", SeenAt: noon.wall, ExpiresAt: noon.wall.Add(full)}},
		{"of two with one tick that of the last PeerID", []word{signed(lease(granted, "me", full), 0, 0), signed(lease(told, "n1", full), 0, 0)}, 0, &Entry{Addr: "a", Native: "n1", SeenAt: noon.wall, ExpiresAt: noon.wall.Add(full)}},
		{"a bare leave", []word{lease(told, "n1", 20*sec), leave(told, "n1", 30*sec)}, 0, &Entry{Native: "n1", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec), Leave: true}},
		{"a leave that it took, without the address that was left", []word{at(leave(granted, "me", 30*sec), "b")}, 0, &Entry{Native: "me", SeenAt: noon.wall.Add(-36 * sec), ExpiresAt: noon.wall.Add(30 * sec), Leave: true}},
		{"nothing at the end of a leave", []word{leave(told, "n1", 30*sec)}, 30 * sec, nil},
		{"no leave that only the store says", []word{leave(stored, "n1", 30*sec)}, 0, nil},
		{"a signed leave, whoever has it", []word{signed(leave(stored, "n1", full), 0, 0)}, 0, &Entry{ExpiresAt: noon.wall.Add(full), Leave: true}},
		{"a lease after the leave", []word{leave(told, "n1", 30*sec), lease(told, "n1", full)}, 0, &Entry{Addr: "a", Native: "n1", SeenAt: noon.wall, ExpiresAt: noon.wall.Add(full)}},
		{"nothing beside a lease that only the store says", []word{leave(told, "n1", 30*sec), lease(stored, "n1", full)}, 0, nil},
	} {
		var got *Entry
		if e, ok := accepts.policy.publish("x", holdingOf(t, c.words...), later(c.after)); ok {
			got = clear(e)
		}
		if c.want != nil {
			c.want.PeerID = "x"
			if c.want.Addr != "" {
				c.want.Addrs = []string{c.want.Addr}
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: published %+v, want %+v", c.sentence, got, c.want)
		}
	}
}

// valueOf is e in the order of a value of the DHT.
func valueOf(e Entry) []byte {
	value, _ := json.Marshal(struct {
		Addr, Native      any
		SeenAt, ExpiresAt time.Time
	}{e.Addr, e.Native, e.SeenAt, e.ExpiresAt})
	return value
}

// Natives hear the same words in any order, and grant some of them themselves. They publish the same
// bytes: those that the DHT would select of what each native knows.
func TestNativesWithTheSameNewsPublishTheSame(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		native := rapid.SampledFrom([]ports.PeerID{"n1", "n2", "n3"})
		words := rapid.SliceOfNDistinct(rapid.Custom(func(r *rapid.T) word {
			w := lease(told, native.Draw(r, "native"), time.Duration(rapid.IntRange(1, 3).Draw(r, "ends"))*20*sec)
			if rapid.Bool().Draw(r, "signed") {
				w = signed(w, 0, 0)
			}
			return w
		}), 1, 3, func(w word) ports.PeerID { return w.native.Value() }).Draw(r, "words")
		if signs := slices.ContainsFunc(words, func(w word) bool { return w.proof != nil }); signs {
			words = slices.DeleteFunc(words, func(w word) bool { return w.proof == nil }) // an indexer signs everywhere
		}
		var values [][]byte
		for _, self := range []ports.PeerID{"n1", "n2", "n3", "n4"} {
			heard := rapid.Permutation(slices.Clone(words)).Draw(r, "heard")
			for i := range heard {
				if heard[i].native.Value() == self {
					heard[i].source = granted
				}
			}
			e, ok := accepts.policy.publish("x", holdingOf(r, heard...), noon)
			if !ok {
				r.Fatalf("%s publishes nothing of %+v", self, heard)
			}
			value := valueOf(e)
			if values = append(values, value); !bytes.Equal(value, values[0]) {
				r.Fatalf("%s publishes %s, another %s", self, value, values[0])
			}
			for i := range heard { // a native that has heard one of them alone
				alone, _ := accepts.policy.publish("x", holdingOf(r, heard[i]), noon)
				less := valueOf(alone)
				if newer := alone.Version().Compare(e.Version()); newer > 0 || newer == 0 && bytes.Compare(less, value) > 0 {
					r.Fatalf("the DHT prefers %s to %s, which has heard more", less, value)
				}
			}
		}
	})
}
