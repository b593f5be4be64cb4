package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/opencloud/ocnode/ports"
)

// These tests use the program as others do: they build it and run it as processes.

// built is the program.
var built string

func TestMain(m *testing.M) { os.Exit(ocnodetest.Main(m, "boltstore", &built)) }

// program returns a run of it in dir, with nothing of this process's environment.
func program(dir string, args ...string) *exec.Cmd {
	return ocnodetest.Command(built, dir, nil, args...)
}

// node is a process that runs a node.
type node struct {
	*ocnodetest.Process
	ocnodetest.Line // which said that it is ready
	t               *testing.T
}

// start starts a node in dir, and waits until it is ready.
func start(t *testing.T, dir string, args ...string) *node {
	t.Helper()
	p := ocnodetest.Start(t, ocnodetest.Command(built, dir, []string{
		"OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/0", "OCNODE_HTTP__LISTEN=127.0.0.1:0", "OCNODE_LOG__FORMAT=json",
		// Announced six times a second, whoever renews; and nothing expires before the test ends.
		"OCNODE_REGISTRY__HEARTBEAT=1s", "OCNODE_REGISTRY__TTL=5m",
	}, args...))
	return &node{p, p.Logs("ready"), t}
}

// lists returns how the node lists id.
func (n *node) lists(id string) (entry struct{ ExpiresAt time.Time }, ok bool) {
	n.t.Helper()
	out, err := program(n.Cmd.Dir, "get", id, "--api", n.HTTP, "-o", "json").Output()
	return entry, err == nil && json.Unmarshal(out, &entry) == nil
}

// keeps looks into a copy of a file that a node may have open.
func keeps(t *testing.T, path, id string) (ports.Entry, bool) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reading := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(reading, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := Open(reading, notExpired)
	if err != nil {
		return ports.Entry{}, false // copied while it was written
	}
	defer store.Close()
	e, err := store.Local(ports.PeerID(id), ports.Version{})
	return e, err == nil
}

// TestAnEntryOutlivesItsNode has a native killed, and its indexer with it. When the native is
// back, it answers whoever asks for the indexer with what it finds in its file: it has no DHT
// to look anything up in, and nobody else to hear of it from.
func TestAnEntryOutlivesItsNode(t *testing.T) {
	const with = "--modules=native,gossip,boltstore"
	dir, indexerDir := t.TempDir(), t.TempDir()
	file := filepath.Join(dir, "data", "entries.db")

	native := start(t, dir, with)
	if !slices.Equal(native.Modules, []string{"native", "gossip", "boltstore"}) {
		t.Errorf("its modules are %v", native.Modules)
	}
	indexer := start(t, indexerDir, "--modules=indexer", "--indexer.natives", native.Addrs[0])
	id := indexer.PeerID
	ocnodetest.Eventually(t, "the entry is in the file", func() bool { _, ok := keeps(t, file, id); return ok })
	indexer.Kill()
	native.Kill()
	kept, ok := keeps(t, file, id)
	if !ok {
		t.Fatal("kill -9 took the entry along")
	}

	native = start(t, dir, with)
	if listed, ok := native.lists(id); !ok || listed.ExpiresAt.Sub(kept.ExpiresAt).Abs() > time.Second {
		t.Errorf("of what it stored before it was killed it answers %+v, %v; want %+v", listed, ok, kept)
	}

	if _, err := Open(file, notExpired); err == nil {
		t.Error("two have the file open")
	}
	native.Signal(syscall.SIGTERM)
	native.ExpectExit(0)

	off := start(t, dir, "--modules=native,gossip")
	if !slices.Equal(off.Modules, []string{"native", "gossip"}) {
		t.Errorf("turned off, the modules are %v", off.Modules)
	}
	store := open(t, file, notExpired) // nobody else has it open now
	if e, err := store.Local(ports.PeerID(id), ports.Version{}); err != nil || !e.ExpiresAt.Equal(kept.ExpiresAt) {
		t.Errorf("the file has %+v, %v; want %+v", e, err, kept)
	}
}

func TestTheModuleHasItsFlags(t *testing.T) {
	out, err := program(t.TempDir(), "run", "--help").Output()
	for _, want := range []string{"--modules.boltstore", module.Summary, "--boltstore.file", "name of the file of the entries"} {
		if err != nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("run --help does not say %q (%v)", want, err)
		}
	}
}

func TestTheModuleIsListed(t *testing.T) {
	for _, c := range []struct{ modules, want string }{
		{"native,boltstore", `(?m)^boltstore +on +--modules +Store +` + module.Summary + `$`},
		{"native,dht", `(?m)^boltstore +off +--modules +Store +`},
	} {
		out, err := program(t.TempDir(), "modules", "--modules", c.modules).Output()
		if err != nil || !regexp.MustCompile(c.want).Match(out) {
			t.Errorf("modules --modules %s prints (%v)\n%s", c.modules, err, out)
		}
	}
}

// TestTheWalkThroughIsTrue runs what docs/adapters.md shows of a terminal, in a folder
// with the config.yaml that it shows last before that.
func TestTheWalkThroughIsTrue(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "adapters.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir, ran := t.TempDir(), 0
	for i, block := range strings.Split(string(text), "```") {
		language, body, _ := strings.Cut(block, "\n")
		switch {
		case i%2 == 0:
		case language == "yaml":
			if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		case language == "console":
			for _, run := range strings.Split("\n"+body, "\n$ ./boltstore")[1:] {
				args, want, _ := strings.Cut(run, "\n")
				out, err := program(dir, strings.Fields(args)...).CombinedOutput()
				if strings.TrimSpace(string(out)) != strings.TrimSpace(want) {
					t.Errorf("boltstore%s prints (%v)\n%s\nand docs/adapters.md says\n%s", args, err, out, want)
				}
				ran++
			}
		}
	}
	if ran == 0 {
		t.Error("docs/adapters.md shows no terminal")
	}
}

func TestTheExitCodeOfAMistakeIsTheConfigurations(t *testing.T) {
	for _, args := range []string{"--modules=native,dht,boltstore", "--boltstore.file=../entries.db", "--modules=native,boltsore"} {
		cmd := program(t.TempDir(), args)
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}
