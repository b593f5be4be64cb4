package deploytools

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds whatever is waited for; only a failure takes so long.
const patience = time.Minute

// container is what stands for one here: a process of the image's binary, with all of
// its environment, and the paths and addresses of the container put for those of this
// machine.
type container struct {
	t    *testing.T
	name string
	env  []string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
}

// run starts the image's binary with these arguments and this environment alone.
func run(t *testing.T, name, dir string, env map[string]string, args ...string) *container {
	t.Helper()
	c := &container{t: t, name: name, env: pairs(env), cmd: exec.Command(binary(t), args...), done: make(chan struct{})}
	c.cmd.Dir, c.cmd.Env, c.cmd.Stdout, c.cmd.Stderr = dir, c.env, &c.log, &c.log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.done) }()
	t.Cleanup(c.kill)
	return c
}

func (c *container) kill() {
	_ = c.cmd.Process.Kill() // it may have ended
	<-c.done
	if c.t.Failed() {
		c.t.Logf("%s %q:\n%s", c.name, c.env, c.log.String())
	}
}

// stop is what the engine does at a stop, and fails the test unless it is clean.
func (c *container) stop(grace time.Duration) {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(grace):
		c.t.Fatalf("%s has not stopped after %v", c.name, grace)
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		c.t.Errorf("%s exits %d\n%s", c.name, code, c.log.String())
	}
}

// ask runs a command of the image's binary beside the node, as docker exec does, and
// returns what it prints.
func (c *container) ask(args ...string) (string, error) {
	cmd := exec.Command(binary(c.t), args...)
	cmd.Dir, cmd.Env = c.cmd.Dir, c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// healthy waits until the image's health check passes.
func (c *container) healthy() {
	c.t.Helper()
	check := imageOf(c.t, stage(c.t, "")).health[2:]
	eventually(c.t, c.name+" is healthy", func() bool {
		select {
		case <-c.done:
			c.t.Fatalf("%s has ended", c.name)
		default:
		}
		_, err := c.ask(check...)
		return err == nil
	})
}

type entry struct {
	PeerID, Addr, Via string
	Meta              map[string]string
}

// lists waits until the native lists an indexer, and returns the first.
func (c *container) lists() (found entry) {
	c.t.Helper()
	eventually(c.t, c.name+" lists the indexer", func() bool {
		out, err := c.ask("ls", "-o", "json")
		var list []entry
		if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) == 0 {
			return false
		}
		found = list[0]
		return true
	})
	return found
}

func (c *container) peerID() string {
	c.t.Helper()
	out, err := c.ask("id")
	if err != nil {
		c.t.Fatalf("%s: %v: %s", c.name, err, out)
	}
	return strings.TrimSpace(out)
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

func pairs(env map[string]string) (list []string) {
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	return list
}

// replace puts what is here for what is in a container, in every value.
func replace(env map[string]string, here ...string) map[string]string {
	replaced := maps.Clone(env)
	for name, value := range env {
		replaced[name] = strings.NewReplacer(here...).Replace(value)
	}
	return replaced
}

// under returns where a path of a container is here, given what is mounted where.
func under(mounts map[string]string, path string) string {
	for at, dir := range mounts {
		if path == at || strings.HasPrefix(path, at+"/") {
			return filepath.Join(dir, strings.TrimPrefix(path, at))
		}
	}
	return path
}

var nextPort atomic.Int32
var firstPort sync.Once

// unusedPort returns a port of 127.0.0.1, TCP and UDP, that stays unused until somebody
// asks for this very number: below 32768, where systems look for a port to give away.
func unusedPort(t *testing.T) int {
	t.Helper()
	firstPort.Do(func() { nextPort.Store(20_000 + rand.Int32N(10_000)) })
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

// listen is the built-in host.listen at another port, on loopback.
func listen(port int) string {
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d,/ip4/127.0.0.1/udp/%[1]d/quic-v1", port)
}
