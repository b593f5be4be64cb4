package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

const stranger = "12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"

// printed runs a command that succeeds and returns the JSON document that it prints.
func printed[T any](t *testing.T, dir string, args ...string) (doc T) {
	t.Helper()
	out, log := run(t, dir, 0, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &doc); err != nil || log != "" {
		t.Fatalf("ocnode %s prints %q and %q: %v", args, out, log, err)
	}
	return doc
}

// The ports are given, as the built-in ones may be taken on the machine of the tests.
func TestTheBareCommandIsAHealthyLoneNative(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"bare":     nil,
		"modules":  {"--modules", "native,dht,gossip"},
		"run":      {"run"},
		"no store": {"run", "--modules", "native"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := start(t, dir, args...)
			n.expectReady()
			if listed := printed[[]entry](t, dir, "ls", "--api", n.HTTP); listed == nil || len(listed) > 0 {
				t.Errorf("it lists %v, want []", listed)
			}
			register(t, newSeed(t), n.Addrs[0])
			ocnodetest.Eventually(t, "it lists who registers", func() bool {
				listed, err := n.list()
				return err == nil && len(listed) == 1
			})
			key, err := os.Stat(filepath.Join(dir, "data", "identity.key"))
			if err != nil || key.Mode().Perm() != 0o600 {
				t.Errorf("its key is %v, %v", key, err)
			}
			if log := n.Log.String(); strings.Contains(log, `"level":"WARN"`) || strings.Contains(log, `"level":"ERROR"`) {
				t.Errorf("it is not healthy:\n%s", log)
			}
		})
	}
}

func TestANodeMayBeNativeAndIndexer(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), "--modules.indexer", "--indexer.meta", "zone=eu-1,role=cpu")
	x := n.lists(n.PeerID)
	if x.Via != n.PeerID || !reflect.DeepEqual(x.Meta, map[string]string{"zone": "eu-1", "role": "cpu"}) {
		t.Errorf("it lists itself as %+v", x)
	}
	if !slices.Contains(n.Addrs, x.Addr+"/p2p/"+n.PeerID) {
		t.Errorf("it says that it is at %s, want one of %s", x.Addr, n.Addrs)
	}
}

func TestANodeMayServeTheDHTAlone(t *testing.T) {
	t.Parallel()
	native := start(t, t.TempDir())
	n := start(t, t.TempDir(), "--modules=dht", "--host.bootstrap", native.Addrs[0])
	n.expectReady()
	var refusal struct{ Error struct{ Code string } }
	if status, err := n.get("/api/v1/indexers", &refusal); status != http.StatusNotFound || refusal.Error.Code != "not_a_native" {
		t.Errorf("its list is answered %d %+v, %v", status, refusal, err)
	}
	h := newSeed(t)
	store := joinDHT(t, h, connect(t, h, n.Addrs[0]), dht.ModeClient)
	register(t, h, native.Addrs[0])
	ocnodetest.Eventually(t, "what the native puts is found there", func() bool {
		_, err := store.GetValue(t.Context(), seedKey+h.ID().String())
		return err == nil
	})
}

func TestCommandsAskARunningNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	native := start(t, t.TempDir())
	indexer := start(t, t.TempDir(), "--modules=indexer,dht", "--indexer.natives", native.Addrs[0], "--indexer.meta", "zone=eu-1")
	at := []string{"--api", native.HTTP}
	x := native.lists(indexer.PeerID)

	for _, command := range [][]string{{"ls"}, {"get", indexer.PeerID}, {"status"}} {
		out, log := run(t, dir, 0, append(command, at...)...)
		if log != "" {
			t.Errorf("%s: standard error has %q", command, log)
		}
		if id := indexer.PeerID; command[0] != "status" && !strings.Contains(out, id) {
			t.Errorf("%s does not print %s:\n%s", command, id, out)
		}
	}
	if listed := printed[[]entry](t, dir, append(at, "ls")...); len(listed) != 1 || !reflect.DeepEqual(listed[0], x) {
		t.Errorf("ls prints %+v, want %+v", listed, x)
	}
	if got := printed[entry](t, dir, append(at, "get", indexer.PeerID)...); !reflect.DeepEqual(got, x) {
		t.Errorf("get prints %+v, want %+v", got, x)
	}
	type status struct {
		PeerID         string
		Addrs, Modules []string
		Live, Known    int
	}
	want := status{native.PeerID, native.Addrs, []string{"native", "dht", "gossip"}, 1, 1}
	if got := printed[status](t, dir, append(at, "status")...); !reflect.DeepEqual(got, want) {
		t.Errorf("status prints %+v, want %+v", got, want)
	}
	if got := printed[status](t, dir, "status", "--api", indexer.HTTP); got.PeerID != indexer.PeerID || got.Live != 0 {
		t.Errorf("the indexer's status is %+v", got)
	}

	_, log := run(t, dir, 5, append(at, "get", stranger, "-o", "json")...)
	expectMessage(t, log, "no live indexer", stranger)
	_, log = run(t, dir, 1, "ls", "--api", indexer.HTTP)
	expectMessage(t, log, "without the native module", "ask a native")

	// A command may leave --api out where the configuration says where HTTP is.
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf("http: {listen: %q}\n", native.HTTP))
	if listed := printed[[]entry](t, dir, "ls"); len(listed) != 1 {
		t.Errorf("ls prints %+v, want the indexer", listed)
	}
}

func TestCommandsSayThatNobodyIsThere(t *testing.T) {
	t.Parallel()
	api := fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t))
	for _, command := range [][]string{{"ls"}, {"get", stranger}, {"status"}} {
		out, log := run(t, t.TempDir(), 4, append(command, "-o", "json", "--api", api)...)
		if out != "" {
			t.Errorf("%s: standard output has %q", command, out)
		}
		expectMessage(t, log, api, "start the node")
	}
}

func TestIdentityAndVersionAreTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id := printed[struct{ PeerID string }](t, dir, "id").PeerID
	if n := start(t, dir); n.PeerID != id {
		t.Errorf("id prints %q, and the node is %s", id, n.PeerID)
	}
	v := printed[struct{ Version, GoVersion, Platform string }](t, dir, "version")
	if v.Version == "" || !strings.HasPrefix(v.GoVersion, "go") || !strings.Contains(v.Platform, "/") {
		t.Errorf("version prints %+v", v)
	}
}

// TestAWatchOutlivesItsNative restarts the native that is watched, both ways: the watches
// say that it is away, begin again, see who comes, and end cleanly.
func TestAWatchOutlivesItsNative(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{
		"--host.listen", fmt.Sprint("/ip4/127.0.0.1/tcp/", ocnodetest.UnusedPort(t)), "--http.listen", fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t)),
	}
	native := start(t, dir, args...)
	register(t, newSeed(t), native.Addrs[0])
	ways := []*ocnodetest.Process{
		launch(t, t.TempDir(), nil, "watch", "--api", native.HTTP),
		launch(t, t.TempDir(), nil, "watch", "--native", native.Addrs[0]),
		launch(t, t.TempDir(), nil, "watch", "--native", native.Addrs[0], "-o", "json"),
	}
	for _, p := range ways {
		p.Prints(`synced\b.*\b1\b`)
	}
	native.Kill()
	for _, p := range ways {
		p.Says("asking again in 1s\n")
	}
	native = start(t, dir, args...)
	late := newSeed(t)
	register(t, late, native.Addrs[0])
	for _, p := range ways {
		p.Prints(`(?s)synced.*\breset\b.*synced`)
		p.Prints(late.ID().String())
		p.Signal(syscall.SIGINT)
		p.ExpectExit(0)
	}
}
