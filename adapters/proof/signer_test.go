package proof_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

const seqFile = "record.seq"

func seq(t *testing.T, s *proof.Signer, atLeast int64) int64 {
	t.Helper()
	n, err := s.Seq(atLeast)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSeqOnlyGrows(t *testing.T) {
	key, dir := keyOf(t, 0), t.TempDir()
	last := int64(0)
	// The clock goes back and forth, and the process starts again and again.
	for _, clock := range []int64{1000, 1000, 999, 0, 2000, 2000, 5, 1 << 40, 3000, 3000} {
		got := seq(t, signer(t, key, dir), clock)
		if got <= last || got < clock {
			t.Errorf("at %d, after %d, it is %d", clock, last, got)
		}
		last = got
	}
	s := signer(t, key, dir)
	var mu sync.Mutex
	var running sync.WaitGroup
	given := map[int64]bool{}
	for range 4 {
		running.Go(func() {
			for range 10 {
				n, err := s.Seq(1)
				mu.Lock()
				if given[n] || n <= last || err != nil {
					t.Errorf("%d was given before (%v)", n, err)
				}
				given[n] = true
				mu.Unlock()
			}
		})
	}
	running.Wait()
	if after := seq(t, signer(t, key, dir), 1); after != last+41 {
		t.Errorf("after 40 more it is %d, want %d", after, last+41)
	}
	if others, _ := filepath.Glob(filepath.Join(dir, "*")); len(others) != 1 {
		t.Errorf("%s has %v, want %s alone", dir, others, seqFile)
	}
	text, err := os.ReadFile(filepath.Join(dir, seqFile))
	if want := strconv.FormatInt(last+41, 10) + "\n"; err != nil || string(text) != want {
		t.Errorf("the file has %q (%v), want %q", text, err, want)
	}
}

func TestTheFileOfSeqIsItsOwners(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	dir := t.TempDir()
	seq(t, signer(t, keyOf(t, 0), dir), 1)
	info, err := os.Stat(filepath.Join(dir, seqFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v (%v), want 0600", info.Mode(), err)
	}
}

// An indexer goes on without the file, and its numbers still grow.
func TestSeqWithoutAPlaceToKeepIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := signer(t, keyOf(t, 0), dir)
	last := seq(t, s, 1000)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n, err := s.Seq(1000)
		if err == nil || n <= last {
			t.Errorf("%d after %d, and %v; want a greater number and an error", n, last, err)
		}
		last = n
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	last = seq(t, s, 1)
	if after := seq(t, signer(t, keyOf(t, 0), dir), 1); after != last+1 {
		t.Errorf("%d after %d: what could be kept again was not", after, last)
	}
	// A signer without a folder keeps nothing, and says nothing of it.
	s = signer(t, keyOf(t, 0), "")
	if first, second := seq(t, s, 7), seq(t, s, 7); first != 7 || second != 8 {
		t.Errorf("got %d and %d", first, second)
	}
}

func TestADamagedFileOfSeqIsSetAside(t *testing.T) {
	path := func(dir string) string { return filepath.Join(dir, seqFile) }
	for name, text := range map[string]string{
		"empty": "", "a word": "seq\n", "negative": "-1\n", "a fraction": "1.5\n", "two numbers": "1\n2\n", "zeros": "\x00\x00\x00",
		"the largest": "9223372036854775807\n", "more than fits": strings.Repeat("1", 40), "more than a record may have": strconv.Itoa(proof.MaxSeq+1) + "\n",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(path(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := proof.NewSigner(keyOf(t, 0), dir)
		if err != nil {
			t.Errorf("%s: %v, want it set aside", name, err)
			continue
		}
		aside, err := os.ReadFile(s.Torn())
		if err != nil || string(aside) != text || s.Torn() != path(dir)+".torn" {
			t.Errorf("%s: set aside is %q (%v) in %q", name, aside, err, s.Torn())
		}
		if got := seq(t, s, 1000); got != 1000 {
			t.Errorf("%s: after it comes %d, want 1000", name, got)
		}
		if s := signer(t, keyOf(t, 0), dir); s.Torn() != "" || seq(t, s, 1) != 1001 {
			t.Errorf("%s: the next process begins anew", name)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(path(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := proof.NewSigner(keyOf(t, 0), dir); err == nil {
		t.Error("a folder in its place is no error")
	}
	for _, text := range []string{"7", "7\n", " 7 \n"} {
		dir := t.TempDir()
		if err := os.WriteFile(path(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := seq(t, signer(t, keyOf(t, 0), dir), 1); got != 8 {
			t.Errorf("after %q it is %d, want 8", text, got)
		}
	}
}

func TestTheSameClaimMakesTheSameRecord(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	c.Meta = map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
	first := sign(t, key, c)
	for range 20 {
		if again := sign(t, key, c); !bytes.Equal(first, again) {
			t.Fatalf("it is %x and %x", first, again)
		}
	}
	if _, err := signer(t, key, "").Sign(ports.Claim{PeerID: "x", Seq: 1}); err == nil {
		t.Error("a PeerID that is none was signed")
	}
}

func TestAChainIsOfANewSecret(t *testing.T) {
	s := signer(t, keyOf(t, 0), "")
	for _, n := range []int{0, 1, steps, ports.MaxSteps} {
		a, b := s.Chain(n), s.Chain(n)
		if len(a) != n+1 || a[n] == b[n] {
			t.Fatalf("chains of %d steps have %d links, and the secrets %x and %x", n, len(a), a[n], b[n])
		}
		for i, link := range chainOf(a[n][:], n) {
			if a[i] != link {
				t.Fatalf("link %d of %d is %x, want %x", i, n, a[i], link)
			}
		}
	}
}

func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"record.seq": "7\n", "record.seq.new-1": "8", "record.seq.torn": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := proof.NewSigner(keyOf(t, 0), dir)
	if err != nil {
		t.Fatal(err)
	}
	if seq, err := s.Seq(0); err != nil || seq != 8 {
		t.Errorf("the next number is %d, %v; want 8", seq, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v; want record.seq and record.seq.torn", entries, err)
	}
}
