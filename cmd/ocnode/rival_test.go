package main_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// twoProcesses starts a native, and two indexers with one key.
func twoProcesses(t *testing.T) (native, older, newer *node) {
	t.Helper()
	native = start(t, t.TempDir())
	indexer := func(key []byte, meta string) *node {
		dir := t.TempDir()
		if key != nil {
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "data", "identity.key"), string(key))
		}
		n := start(t, dir, "--modules=indexer", "--registry.heartbeat=2s", "--indexer.natives", native.Addrs[0], "--indexer.meta", "start="+meta)
		n.Logs("lease granted")
		return n
	}
	older = indexer(nil, "first")
	key, err := os.ReadFile(filepath.Join(older.Cmd.Dir, "data", "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	newer = indexer(key, "second")
	if older.PeerID != newer.PeerID {
		t.Fatalf("%s and %s have one key", older.PeerID, newer.PeerID)
	}
	return native, older, newer
}

// Somebody copies a key to another machine. Natives list the process that started last, and both
// processes hear of each other.
func TestOfTwoProcessesWithOneKeyTheNewerIsListed(t *testing.T) {
	t.Parallel()
	native, older, newer := twoProcesses(t)
	older.Logs("another process with this node's key started after it; this one registers no more while that one lives")
	if status, err := older.get("/readyz", nil); status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("the older one's /readyz answers %d, %v", status, err)
	}
	newer.expectReady()
	newer.Logs("another process has this node's key, and started before it; stop that one")
	native.Logs("two processes have one key; the older is refused")
	if x := native.lists(newer.PeerID); x.Meta["start"] != "second" {
		t.Errorf("listed is %v", x.Meta)
	}
	older.Signal(2)
	older.ExpectExit(0)
	if x := native.lists(newer.PeerID); x.Meta["start"] != "second" {
		t.Errorf("after the older one stopped, listed is %v", x.Meta)
	}
	if n := strings.Count(newer.Log.String(), "lease lost"); n > 0 {
		t.Errorf("the newer one lost its lease %d times", n)
	}
}

// A roll-out that is taken back.
func TestTheOlderProcessIsListedAgainWhenTheNewerStops(t *testing.T) {
	t.Parallel()
	native, older, newer := twoProcesses(t)
	older.Logs("another process with this node's key started after it; this one registers no more while that one lives")
	newer.Signal(2)
	newer.ExpectExit(0)
	older.Logs("no other process with this node's key lives any more; this one registers again")
	older.expectReady()
	ocnodetest.Eventually(t, "the older one is listed", func() bool {
		listed, err := native.list()
		return err == nil && listed[older.PeerID].Meta["start"] == "first"
	})
}
