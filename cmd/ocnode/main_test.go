// These tests use ocnode as others do: as processes of the built binary, over
// libp2p, and over HTTP by hand.
package main_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds whatever the tests wait for; only a failure takes so long.
const patience = time.Minute

// stall is for how long a busy machine may stand still without failing a test.
const stall = 8 * time.Second

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random times")

// binary is ocnode, built once, with the race detector if the tests have it.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ocnode-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ocnode")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary)
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build.Args = append(build.Args, "-race")
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n%s", build, err, out)
		return 1
	}
	go watchLateness()
	return m.Run()
}

// lateness is by how much this process came late, of which that of the last 10 s counts.
var lateness struct {
	mu   sync.Mutex
	seen []late
}

type late struct {
	at time.Time
	by time.Duration
}

func watchLateness() {
	const tick, usual = 20 * time.Millisecond, 10 * time.Millisecond
	for {
		began := time.Now()
		time.Sleep(tick)
		now := time.Now()
		lateness.mu.Lock()
		lateness.seen = slices.DeleteFunc(lateness.seen, func(l late) bool { return now.Sub(l.at) > 10*time.Second })
		if by := now.Sub(began) - tick; by > usual {
			lateness.seen = append(lateness.seen, late{now, by})
		}
		lateness.mu.Unlock()
	}
}

// stoodStill reports whether the machine had no time for this process a moment ago, and
// so maybe none for others: what has to be done within seconds may not have been.
func stoodStill() bool {
	lateness.mu.Lock()
	defer lateness.mu.Unlock()
	var sum time.Duration
	for _, l := range lateness.seen {
		sum += l.by
	}
	return sum > 500*time.Millisecond
}

// process is a run of the binary.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, log output
	ended    chan struct{} // closed once it has ended and was waited for
}

// launch starts the binary in dir, with nothing of this process's environment. It
// is killed at the end of the test, if it has not ended by then.
func launch(t *testing.T, dir string, environ []string, args ...string) *process {
	t.Helper()
	return launchCommand(t, exec.Command(binary, args...), dir, environ)
}

// launchCommand is launch for another command than the binary.
func launchCommand(t *testing.T, cmd *exec.Cmd, dir string, environ []string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, ended: make(chan struct{})}
	// The race detector would wait a second at every exit.
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"HOME=" + dir, "GORACE=atexit_sleep_ms=0"}, environ...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // ProcessState has it
	}()
	t.Cleanup(func() {
		p.kill()
		if log := p.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			t.Errorf("%s: a race or a panic", p.cmd)
		}
		if t.Failed() {
			t.Logf("%s\n%s%s", p.cmd, p.out.String(), p.log.String())
		}
	})
	return p
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// unclean is what a process says that had too little time to stop, upon which it exits 1.
var unclean = regexp.MustCompile(`context deadline exceeded|did not (stop|close) (in|within)`)

// expectExit waits for the end. A stop that runs out of time is one all the same if the
// machine stood still.
func (p *process) expectExit(code int, within time.Duration) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.t.Fatalf("%s: has not ended after %v", p.cmd, within)
	}
	got := p.cmd.ProcessState.ExitCode()
	if code == 0 && got == 1 && unclean.MatchString(p.log.String()) && stoodStill() {
		p.t.Logf("%s: had too little time to stop", p.cmd)
		return
	}
	if got != code {
		p.t.Fatalf("%s: exit code %d, want %d\n%s", p.cmd, got, code, p.log.String())
	}
}

// hasEnded is for those who wait for something that will not come any more.
func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// prints waits for standard output to have what pattern says, and returns that with
// its groups.
func (p *process) prints(pattern string) []string {
	p.t.Helper()
	var match []string
	re := regexp.MustCompile(pattern)
	eventually(p.t, "it prints "+pattern, func() bool {
		ended := p.hasEnded()
		if match = re.FindStringSubmatch(p.out.String()); match == nil && ended {
			p.t.Fatalf("%s: ended without printing %s", p.cmd, pattern)
		}
		return match != nil
	})
	return match
}

// line is a line of the log in JSON, with what the tests care for.
type line struct {
	Level, Msg, Hint, Error, PeerID, HTTP string
	Addrs                                 []string
	Modules                               []string
}

// logs waits for a line with this message, the first.
func (p *process) logs(msg string) (found line) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("it logs %q", msg), func() bool {
		ended := p.hasEnded()
		for text := range strings.Lines(p.log.String()) {
			var l line
			if json.Unmarshal([]byte(text), &l) == nil && l.Msg == msg {
				found = l
				return true
			}
		}
		if ended {
			p.t.Fatalf("%s: ended without logging %q", p.cmd, msg)
		}
		return false
	})
	return found
}

// output is what a process wrote so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run runs a command that ends by itself, and returns what it printed where.
func run(t *testing.T, dir string, code int, args ...string) (out, log string) {
	t.Helper()
	p := launch(t, dir, nil, args...)
	p.expectExit(code, patience)
	return p.out.String(), p.log.String()
}

// freePorts is a node that disturbs nothing, and tells in JSON what it bound.
var freePorts = []string{
	"OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1", "OCNODE_HTTP__LISTEN=127.0.0.1:0", "OCNODE_LOG__FORMAT=json",
}

// node is a process that runs a node.
type node struct {
	*process
	line // which said that it is ready
}

// start starts a node in dir and waits until it is ready. Without arguments it is
// the bare command.
func start(t *testing.T, dir string, args ...string) *node {
	t.Helper()
	p := launch(t, dir, freePorts, args...)
	return &node{p, p.logs("ready")}
}

var client = http.Client{Timeout: patience}

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
	eventually(n.t, n.PeerID+" lists "+id, func() (ok bool) {
		listed, err := n.list()
		x, ok = listed[id]
		return ok && err == nil
	})
	return x
}

// expectReady fails the test unless the node is ready.
func (n *node) expectReady() {
	n.t.Helper()
	if status, err := n.get("/readyz", nil); status != http.StatusOK || err != nil {
		n.t.Errorf("/readyz answers %d, %v", status, err)
	}
}

// eventually waits until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

var nextPort atomic.Int32

// unusedPort returns a port of 127.0.0.1, TCP and UDP, that stays unused until
// somebody asks for this very number: below 32768, where systems look for a port if
// they are to choose.
func unusedPort(t *testing.T) int {
	t.Helper()
	nextPort.CompareAndSwap(0, 20_000+rand.Int32N(10_000))
	for range 100 {
		port := int(nextPort.Add(1))
		addr := fmt.Sprint("127.0.0.1:", port)
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = tcp.Close()
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		_ = udp.Close()
		return port
	}
	t.Fatal("no unused port")
	return 0
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
