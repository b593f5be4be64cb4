package proof

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/curve"
)

// honest returns n signatures of as many keys.
func honest(t testing.TB, n int) []*signature {
	t.Helper()
	all := make([]*signature, n)
	for i := range all {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i), byte(i >> 8), 7, 9}, 8))
		message := fmt.Appendf(nil, "message %d", i)
		all[i] = &signature{key: key.Public().(ed25519.PublicKey), message: message, signature: ed25519.Sign(key, message)}
	}
	return all
}

// verdict returns whether s is sound, and fails unless a single check and batches of all sizes agree
// on that.
func verdict(t testing.TB, s signature, others []*signature) bool {
	t.Helper()
	alone := s
	alone.check()
	for _, size := range []int{1, 2, minBatch, len(others) + 1} {
		batch := append([]*signature{{key: s.key, message: s.message, signature: s.signature}}, others[:size-1]...)
		batched := batch[0]
		rand.Shuffle(size, func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		bad := checkBatch(batch, func(int) {})
		if batched.sound != alone.sound || bad != map[bool]int{true: 0, false: 1}[alone.sound] {
			t.Fatalf("alone it is sound: %t, in a batch of %d: %t, with %d bad in all", alone.sound, size, batched.sound, bad)
		}
		for _, o := range others[:size-1] {
			if !o.sound {
				t.Fatalf("in a batch of %d it has an honest signature refused", size)
			}
		}
	}
	return alone.sound
}

// The vectors of "Taming the many EdDSAs", on which libraries differ.
func TestABatchAndASingleCheckAgreeOnKnownCases(t *testing.T) {
	text, err := os.ReadFile("testdata/speccheck.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct{ Message, Pub_key, Signature string }
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	// What ZIP 215 says of them, as Zebra does. The bad ones have an S that is too large, or are made
	// for the reduced form of R.
	want := []bool{true, true, true, true, true, true, false, false, false, true, true, true}
	if len(cases) != len(want) {
		t.Fatalf("%d cases, want %d", len(cases), len(want))
	}
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	others := honest(t, 99)
	for i, c := range cases {
		s := signature{key: unhex(c.Pub_key), message: unhex(c.Message), signature: unhex(c.Signature)}
		if got := verdict(t, s, others); got != want[i] {
			t.Errorf("case %d: sound is %t, want %t", i, got, want[i])
		}
		// A native of an earlier version checks by crypto/ed25519.
		if ed25519.Verify(s.key, s.message, s.signature) && !want[i] {
			t.Errorf("case %d: natives of earlier versions take it", i)
		}
	}
}

// smallOrder returns the encodings of the 8 points of small order, and of those the 6 more that are not
// canonical.
func smallOrder(t *testing.T) (all [][]byte) {
	t.Helper()
	for _, point := range curve.EIGHT_TORSION {
		var c curve.CompressedEdwardsY
		all = append(all, c.SetEdwardsPoint(point)[:])
	}
	ff := bytes.Repeat([]byte{0xff}, 30)
	for _, ends := range [][2]byte{{0xed, 0x7f}, {0xed, 0xff}, {0xee, 0x7f}, {0xee, 0xff}, {0xec, 0xff}} {
		all = append(all, slices.Concat([]byte{ends[0]}, ff, []byte{ends[1]}))
	}
	return append(all, slices.Concat([]byte{1}, make([]byte, 30), []byte{0x80}))
}

// ZIP 215's own vectors: a key and a point of small order, and an S of 0.
func TestABatchAndASingleCheckAgreeOnSmallOrders(t *testing.T) {
	points, others := smallOrder(t), honest(t, 15)
	for _, key := range points {
		for _, r := range points {
			s := signature{key: key, message: []byte("Zcash"), signature: append(bytes.Clone(r), make([]byte, 32)...)}
			if !verdict(t, s, others) {
				t.Errorf("the key %x with the point %x is refused", key, r)
			}
			s.signature[32] = 1
			if verdict(t, s, others) {
				t.Errorf("the key %x with the point %x and an S of 1 is taken", key, r)
			}
		}
	}
}

func TestABatchAndASingleCheckAgreeOnOtherBytes(t *testing.T) {
	others := honest(t, 15)
	good := *others[0]
	for name, change := range map[string]func(*signature){
		"no signature":               func(s *signature) { s.signature = nil },
		"a signature of 63 bytes":    func(s *signature) { s.signature = s.signature[:63] },
		"a signature of 65 bytes":    func(s *signature) { s.signature = append(s.signature, 0) },
		"a signature of 0":           func(s *signature) { s.signature = make([]byte, 64) },
		"a key of 31 bytes":          func(s *signature) { s.key = s.key[:31] },
		"no key":                     func(s *signature) { s.key = nil },
		"a key that is no point":     func(s *signature) { s.key = append([]byte{2}, make([]byte, 31)...) },
		"another message":            func(s *signature) { s.message = []byte("message 1") },
		"another key":                func(s *signature) { s.key = others[1].key },
		"an R that is no point":      func(s *signature) { copy(s.signature, append([]byte{2}, make([]byte, 31)...)) },
		"the signature of another":   func(s *signature) { s.signature = others[1].signature },
		"an S of the highest number": func(s *signature) { copy(s.signature[32:], bytes.Repeat([]byte{0xff}, 32)) },
	} {
		s := signature{key: good.key, message: good.message, signature: bytes.Clone(good.signature)}
		change(&s)
		if verdict(t, s, others) {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func FuzzABatchAndASingleCheckAgree(f *testing.F) {
	others := honest(f, minBatch-1)
	for _, s := range others[:2] {
		f.Add([]byte(s.key), s.message, s.signature)
	}
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, message, sealed []byte) {
		s := signature{key: key, message: message, signature: sealed}
		batch := append([]*signature{{key: key, message: message, signature: sealed}}, others...)
		s.check()
		if bad := checkBatch(batch, func(int) {}); batch[0].sound != s.sound || s.sound != (bad == 0) {
			t.Fatalf("alone it is sound: %t, in a batch: %t, with %d bad", s.sound, batch[0].sound, bad)
		}
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, sealed) && !s.sound {
			t.Fatal("natives of earlier versions take it")
		}
	})
}

// A bad signature has each of its batch checked alone. Others may run in between.
func TestABadSignatureLetsOthersRun(t *testing.T) {
	steps := func(bad bool) (steps int) {
		var batch []*signature
		for i := range maxBatch {
			public, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte{byte(i)}
			s := ed25519.Sign(private, message)
			if bad && i == 7 {
				s[3] ^= 1
			}
			batch = append(batch, &signature{key: public, message: message, signature: s})
		}
		if n := checkBatch(batch, func(int) { steps++ }); (n == 1) != bad || batch[7].sound == bad {
			t.Errorf("%d signatures are bad, want it %v of one", n, bad)
		}
		return steps
	}
	if sound, bad := steps(false), steps(true); bad < sound+maxBatch {
		t.Errorf("others may run %d times, and %d times with a bad signature: not between the single checks", sound, bad)
	}
}
