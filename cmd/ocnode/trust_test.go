package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
)

// answerTo registers h and returns what the native answers.
func answerTo(t *testing.T, h host.Host, addr string) (answer struct {
	OK    bool
	Error struct{ Code, Message string }
}) {
	t.Helper()
	s := open(t, h, addr)
	if err := json.NewEncoder(s).Encode(IndexerRegistration{h.ID().String(), seedAddr}); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(s).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestWhoIsTrustedIsReadAgainAtSIGHUP changes the list of indexers by its file alone, to
// what is right and to what is wrong.
func TestWhoIsTrustedIsReadAgainAtSIGHUP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := filepath.Join(dir, "indexers")
	one, other := newSeed(t), newSeed(t)
	write(t, list, "# Who may register.\n\n"+one.ID().String()+" # the first\r\n")
	write(t, filepath.Join(dir, "config.yaml"), "trust:\n  indexers: [file:indexers]\n")
	n := start(t, dir)
	addr := n.Addrs[0]
	takes := func(h host.Host, want bool) {
		t.Helper()
		answer := answerTo(t, h, addr)
		refusal := answer.Error
		closed := refusal.Code == "refused" && strings.Contains(refusal.Message, "this network is closed") &&
			strings.Contains(refusal.Message, h.ID().String()) && strings.Contains(refusal.Message, "ask whoever runs the native "+n.PeerID)
		if answer.OK != want || closed == want {
			t.Errorf("it answers %+v, want %t", answer, want)
		}
	}
	takes(one, true)
	takes(other, false)
	n.lists(one.ID().String())

	// What is wrong changes nothing, and is told by file and line.
	for _, wrong := range []struct {
		does func() error
		says string
	}{
		{func() error { return os.WriteFile(list, []byte(other.ID().String()+"\nnobody\n"), 0o600) }, `indexers:2: "nobody" is not a PeerID`},
		{func() error { return os.WriteFile(list, []byte("# nobody\n"), 0o600) }, "indexers names no PeerID"},
		{func() error { return os.WriteFile(list, make([]byte, 1<<20+1), 0o600) }, "indexers is larger than 1048576 bytes"},
		{func() error { return os.Remove(list) }, "indexers: no such file"},
		{func() error { return syscall.Mkfifo(list, 0o600) }, `"indexers" is no regular file`},
	} {
		if err := wrong.does(); err != nil {
			t.Fatal(err)
		}
		said := n.hangUp()
		said.expect(t, "ERROR", rereadWrong, nil, nil)
		if !strings.Contains(said.Error, "config.yaml:2: trust.indexers: ") || !strings.Contains(said.Error, wrong.says) {
			t.Errorf("it does not say %q: %q", wrong.says, said.Error)
		}
		takes(one, true)
		takes(other, false)
	}

	if err := os.Remove(list); err != nil {
		t.Fatal(err)
	}
	write(t, list, other.ID().String())
	n.hangUp().expect(t, "INFO", rereadAll, []string{"trust.indexers"}, nil)
	if listed, err := n.list(); err != nil || len(listed) != 0 {
		t.Errorf("it lists %v, %v; want nobody any more", listed, err)
	}
	takes(one, false)
	takes(other, true)
	n.lists(other.ID().String())
	n.hangUp().expect(t, "INFO", rereadAll, nil, nil)

	write(t, filepath.Join(dir, "config.yaml"), "trust:\n  indexers: []\n")
	n.hangUp().expect(t, "INFO", rereadAll, []string{"trust.indexers"}, nil)
	takes(one, true)
	if status, err := n.get("/healthz", nil); status != 200 || err != nil {
		t.Errorf("/healthz answers %d, %v", status, err)
	}
}
