package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// labBinary is set in a process that is the lab of a test: ocnode, built already.
const labBinary = "OCNODE_LAB_BINARY"

// inLab runs the test f in a lab: in a process with namespaces of its own for users, mounts and the
// network. So it may do to its network what it likes, and all of it ends with the process. The test
// is skipped where that is not allowed, or where tools are missing.
func inLab(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(labBinary) != "" {
		f(t)
		return
	}
	for tool, pkg := range map[string]string{"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("a lab needs %s: install %s", tool, pkg)
		}
	}
	enter := []string{"--map-root-user", "--mount", "--net"}
	try := append(slices.Clone(enter), "sh", "-c", "mount -t tmpfs lab /run && mkdir /run/netns && ip netns add try && nsenter --net=/run/netns/try nft add table inet lab")
	if out, err := exec.Command("unshare", try...).CombinedOutput(); err != nil {
		t.Skipf("no lab: this machine allows no namespaces, or no nft in them: %v: %s", err, out)
	}
	cmd := exec.Command("unshare", append(enter, os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.timeout=5m")...)
	cmd.Env = append(os.Environ(), labBinary+"="+binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "lab: "); ok {
			t.Log(text)
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// lab is a network of machines, which are namespaces on a bridge. The test itself is on the bridge
// too.
type lab struct{ t *testing.T }

// labToken is for HTTP, which wants one beyond loopback.
const labToken = "0123456789abcdef0123456789abcdef0123456789abcdef"

// labNet is the first three bytes of all addresses.
const labNet = "10.77.0."

func newLab(t *testing.T) lab {
	t.Helper()
	l := lab{t}
	l.do("mount -t tmpfs lab /run && mkdir /run/netns")
	l.do("ip link set lo up && ip link add name bridge0 type bridge && ip addr add %s254/24 dev bridge0 && ip link set bridge0 up", labNet)
	return l
}

// do runs a command, or fails the test.
func (l lab) do(format string, args ...any) {
	l.t.Helper()
	command := fmt.Sprintf(format, args...)
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// machine is a machine of a lab.
type machine struct {
	lab
	name, ip string
}

// machine makes a machine.
func (l lab) machine(name string, n int) machine {
	l.t.Helper()
	m := machine{l, name, fmt.Sprint(labNet, n)}
	l.do("ip netns add %[1]s && ip link add name %[1]s-port type veth peer name eth0 netns %[1]s && ip link set %[1]s-port master bridge0 up", name)
	m.inside("ip link set lo up && ip addr add %s/24 dev eth0 && ip link set eth0 up && ip route add default via %s254", m.ip, labNet)
	m.inside("nft add table inet lab && nft add chain inet lab in '{ type filter hook input priority 0; }'")
	return m
}

// inside runs a command on the machine.
func (m machine) inside(format string, args ...any) {
	m.t.Helper()
	m.do("nsenter --net=/run/netns/%s sh -ec %q", m.name, fmt.Sprintf(format, args...))
}

// deafen has the machine hear no packet of other from now on, without a word to anybody. Packets
// that the machine sends itself arrive.
func (m machine) deafen(other machine) {
	m.inside("nft add rule inet lab in ip saddr %s drop", other.ip)
}

// hear ends that for all.
func (m machine) hear() { m.inside("nft flush chain inet lab in") }

// start starts a node on the machine, over this transport alone: tcp or quic.
func (m machine) start(transport string, args ...string) *node {
	m.t.Helper()
	listen := map[string]string{"tcp": "/ip4/%s/tcp/4101", "quic": "/ip4/%s/udp/4101/quic-v1"}[transport]
	args = append([]string{"--net=/run/netns/" + m.name, binary, "--host.listen", fmt.Sprintf(listen, m.ip), "--http.listen", m.ip + ":8080",
		"--http.token", "token", "--log.format", "json", "--registry.ttl", "6.6s", "--registry.heartbeat", "6s", "--registry.refresh", "3s"}, args...)
	dir := m.t.TempDir()
	write(m.t, filepath.Join(dir, "token"), labToken)
	return ready(m.t, ocnodetest.Start(m.t, ocnodetest.Command("/usr/bin/nsenter", dir, nil, args...)))
}

// heard is what a native says at a time.
type heard struct {
	at        time.Time
	listed    map[string]entry
	condition string
	ready     bool
}

// marked reports whether the native says that it may miss somebody.
func (h heard) marked() bool { return h.condition != "" || !h.ready }

// hearsay asks a native for its list, its condition and its readiness.
func hearsay(n *node) (h heard, err error) {
	var page struct {
		Condition string
		Indexers  []entry
	}
	h.at = time.Now()
	req, err := http.NewRequest(http.MethodGet, "http://"+n.HTTP+"/api/v1/indexers", nil)
	if err != nil {
		return h, err
	}
	req.Header.Set("Authorization", "Bearer "+labToken)
	resp, err := client.Do(req)
	if err != nil {
		return h, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return h, err
	}
	status, err := n.get("/readyz", nil)
	h.listed, h.condition, h.ready = make(map[string]entry), page.Condition, status == http.StatusOK
	for _, x := range page.Indexers {
		h.listed[x.PeerID] = x
	}
	return h, err
}

// absence is for how long a native missed an indexer, and for how long of it it did not say that it
// may miss somebody.
type absence struct{ absent, unmarked time.Duration }

// watchFor asks natives again and again for d, or until done returns true of what all say at once.
func watchFor(t *testing.T, d time.Duration, natives, indexers []*node, done func(all []heard) bool) (sum absence, took time.Duration) {
	t.Helper()
	const step = 100 * time.Millisecond
	began := time.Now()
	for last := began; time.Since(began) < d; time.Sleep(step) {
		now := time.Now()
		passed := now.Sub(last)
		last = now
		absent, unmarked := false, false
		var all []heard
		for _, n := range natives {
			h, err := hearsay(n)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
			for _, x := range indexers {
				if _, ok := h.listed[x.PeerID]; !ok {
					absent, unmarked = true, unmarked || !h.marked()
				}
			}
		}
		if absent {
			sum.absent += passed
		}
		if unmarked {
			sum.unmarked += passed
		}
		if done != nil && done(all) {
			break
		}
	}
	return sum, time.Since(began)
}
