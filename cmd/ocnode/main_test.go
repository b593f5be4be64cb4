// These tests use ocnode as others do: as processes of the built binary, over
// libp2p, and over HTTP by hand.
package main_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// stall is for how long a busy machine may stand still without failing a test.
const stall = 8 * time.Second

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random times")

// binary is ocnode, built once.
var binary string

func TestMain(m *testing.M) {
	if binary = os.Getenv(labBinary); binary != "" { // a lab
		os.Exit(m.Run())
	}
	os.Exit(ocnodetest.Main(m, "ocnode", &binary))
}

// launch starts the binary in dir, with nothing of this process's environment.
func launch(t *testing.T, dir string, environ []string, args ...string) *ocnodetest.Process {
	t.Helper()
	return ocnodetest.Start(t, ocnodetest.Command(binary, dir, environ, args...))
}

// run runs a command that ends by itself, and returns what it printed where.
func run(t *testing.T, dir string, code int, args ...string) (out, log string) {
	t.Helper()
	p := launch(t, dir, nil, args...)
	p.ExpectExit(code)
	return p.Out.String(), p.Log.String()
}

// freePorts is a node that disturbs nothing, and tells in JSON what it bound.
var freePorts = []string{
	"OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1", "OCNODE_HTTP__LISTEN=127.0.0.1:0", "OCNODE_LOG__FORMAT=json",
}

// node is a process that runs a node.
type node struct {
	*ocnodetest.Process
	ocnodetest.Line // which said that it is ready
	t               *testing.T
}

// ready waits until the node that p runs is.
func ready(t *testing.T, p *ocnodetest.Process) *node {
	t.Helper()
	return &node{p, p.Logs("ready"), t}
}

// start starts a node in dir and waits until it is ready. Without arguments it is
// the bare command.
func start(t *testing.T, dir string, args ...string) *node {
	t.Helper()
	p := launch(t, dir, freePorts, args...)
	return ready(t, p)
}

var client = http.Client{Timeout: ocnodetest.Patience}

// get asks the node's HTTP, and decodes the answer into what into points to.
func (n *node) get(path string, into any) (status int, err error) {
	return get("http://"+n.HTTP+path, into)
}

func get(url string, into any) (status int, err error) {
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(body, into)
	}
	return resp.StatusCode, err
}

// entry is an indexer as a native lists it.
type entry struct {
	PeerID, Addr, State, Via string
	Addrs                    []string
	Meta                     map[string]string
	SeenAt, ExpiresAt        time.Time
}

// list returns who is alive.
func (n *node) list() (map[string]entry, error) { return list("http://" + n.HTTP) }

func list(api string) (map[string]entry, error) {
	var page struct{ Indexers []entry }
	if status, err := get(api+"/api/v1/indexers", &page); err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("status %d: %w", status, err)
	}
	listed := make(map[string]entry)
	for _, x := range page.Indexers {
		listed[x.PeerID] = x
	}
	return listed, nil
}

// lists waits until the node lists id.
func (n *node) lists(id string) (x entry) {
	n.t.Helper()
	ocnodetest.Eventually(n.t, n.PeerID+" lists "+id, func() (ok bool) {
		listed, err := n.list()
		x, ok = listed[id]
		return ok && err == nil
	})
	return x
}

// stoodStill reports whether the node says that it slept or stood still, as on a busy machine.
func (n *node) stoodStill() bool { return strings.Contains(n.Log.String(), "slept or stood still") }

// expectReady fails the test unless the node is ready.
func (n *node) expectReady() {
	n.t.Helper()
	if status, err := n.get("/readyz", nil); status != http.StatusOK || err != nil {
		n.t.Errorf("/readyz answers %d, %v", status, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
