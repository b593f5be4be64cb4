package keytext

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func textOf(t testing.TB, key []byte) string {
	t.Helper()
	id, err := peer.IDFromBytes(append([]byte(head), key...))
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func TestTheTextIsThatOfTheLibrary(t *testing.T) {
	keys := [][]byte{make([]byte, 32), bytes.Repeat([]byte{0xff}, 32), append(make([]byte, 31), 1), append([]byte{0xff}, make([]byte, 31)...)}
	for range 20_000 {
		key := make([]byte, 32)
		for i := range key {
			key[i] = byte(rand.Uint32())
		}
		keys = append(keys, key)
	}
	for _, key := range keys {
		want := textOf(t, key)
		if got := encode(key); got != want {
			t.Fatalf("the key %x is %s, want %s", key, got, want)
		}
		if text, ok := Text(append([]byte(head), key...)); !ok || text != want {
			t.Fatalf("the key %x is %s, %t, want %s", key, text, ok, want)
		}
		if id, ok := Binary(want); !ok || string(id[:]) != head+string(key) {
			t.Fatalf("%s is %x, %t, want %x", want, id, ok, key)
		}
		if back, ok := decode(want); !ok || !bytes.Equal(back[:], key) {
			t.Fatalf("%s is %x, %t, want %x", want, back, ok, key)
		}
	}
}

// Other texts are left to the library.
func TestAnyOtherTextIsNone(t *testing.T) {
	good := textOf(t, bytes.Repeat([]byte{7}, 32))
	low, high := textOf(t, make([]byte, 32)), textOf(t, bytes.Repeat([]byte{0xff}, 32))
	for name, text := range map[string]string{
		"nothing": "", "one less": good[:51], "one more": good + "1", "a character that is no digit": good[:30] + "0" + good[31:],
		"another character": good[:30] + "l" + good[31:], "not ASCII": good[:30] + "é" + good[32:], "another head": "1" + strings.Repeat("z", 51),
		"the number below the lowest key": low[:51] + "0", "the number above the highest key": high[:8] + strings.Repeat("z", 44),
		"the lowest text": prefix + strings.Repeat("1", 44), "an RSA key": "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
	} {
		if key, ok := decode(text); ok {
			if id, err := peer.Decode(text); err != nil || !bytes.Equal([]byte(id), append([]byte(head), key[:]...)) {
				t.Errorf("%s: %q is %x", name, text, key)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(textOf(f, make([]byte, 32)))
	f.Add(strings.Repeat("z", 52))
	f.Fuzz(func(t *testing.T, text string) {
		key, ok := decode(text)
		id, err := peer.Decode(text)
		is := err == nil && len(text) == textLen && strings.HasPrefix(string(id), head) && len(id) == len(head)+keyBytes
		if ok != is || ok && (encode(key[:]) != text || string(id) != head+string(key[:])) {
			t.Fatalf("%q is %x, %t; the library has %x, %v", text, key, ok, string(id), err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	key := bytes.Repeat([]byte{7}, 32)
	for b.Loop() {
		encode(key)
	}
}

func BenchmarkEncodeByTheLibrary(b *testing.B) {
	key := bytes.Repeat([]byte{7}, 32)
	for b.Loop() {
		textOf(b, key)
	}
}

func BenchmarkDecodeByTheLibrary(b *testing.B) {
	text := textOf(b, bytes.Repeat([]byte{7}, 32))
	for b.Loop() {
		if _, err := peer.Decode(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	text := textOf(b, bytes.Repeat([]byte{7}, 32))
	for b.Loop() {
		decode(text)
	}
}

func TestAnotherPeerIDHasNoText(t *testing.T) {
	good := append([]byte(head), make([]byte, keyBytes)...)
	for name, id := range map[string][]byte{"nothing": nil, "a byte less": good[:37], "a byte more": append(bytes.Clone(good), 0), "another key": append([]byte{0x12, 0x20}, make([]byte, 36)...)} {
		if text, ok := Text(id); ok {
			t.Errorf("%s: it is %s", name, text)
		}
	}
	if id, ok := Binary("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"); ok {
		t.Errorf("an RSA key is %x", id)
	}
}
