package deploytools

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// container is what stands for one here: a process of the image's binary, with all of
// its environment, and the paths and addresses of the container put for those of this
// machine.
type container struct {
	*ocnodetest.Process
	t    *testing.T
	name string
}

// run starts the image's binary with these arguments and this environment alone.
func run(t *testing.T, name, dir string, env map[string]string, args ...string) *container {
	t.Helper()
	return &container{ocnodetest.Start(t, command(t, dir, pairs(env), args...)), t, name}
}

func command(t *testing.T, dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary(t), args...)
	cmd.Dir, cmd.Env = dir, env
	return cmd
}

// stop is what the engine does at a stop, and fails the test unless it is clean.
func (c *container) stop(grace time.Duration) {
	c.t.Helper()
	c.Signal(syscall.SIGTERM)
	if code := c.Wait(grace); code != 0 {
		c.t.Errorf("%s exits %d\n%s", c.name, code, c.Log.String())
	}
}

// ask runs a command of the image's binary beside the node, as docker exec does, and
// returns what it prints.
func (c *container) ask(args ...string) (string, error) {
	out, err := command(c.t, c.Cmd.Dir, c.Cmd.Env, args...).CombinedOutput()
	return string(out), err
}

// healthy waits until the image's health check passes.
func (c *container) healthy() {
	c.t.Helper()
	check := imageOf(c.t, stage(c.t, "")).health[2:]
	ocnodetest.Eventually(c.t, c.name+" is healthy", func() bool {
		if c.HasEnded() {
			c.t.Fatalf("%s has ended", c.name)
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
	ocnodetest.Eventually(c.t, c.name+" lists the indexer", func() bool {
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

// listen is the built-in host.listen at another port, on loopback.
func listen(port int) string {
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d,/ip4/127.0.0.1/udp/%[1]d/quic-v1", port)
}
