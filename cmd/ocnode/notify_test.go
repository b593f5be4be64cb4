package main_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"golang.org/x/sys/unix"
)

// manager is a service manager: the socket that it is told things over.
type manager struct {
	t      *testing.T
	socket *net.UnixConn
	path   string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	// The name of a socket has 107 bytes at most, and t.TempDir's may be longer.
	dir, err := os.MkdirTemp("", "ocnode-notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	return &manager{t, socket, path}
}

// hears waits for the next message and returns its assignments.
func (m *manager) hears() map[string]string {
	m.t.Helper()
	if err := m.socket.SetReadDeadline(time.Now().Add(ocnodetest.Patience)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.socket.Read(b)
	if err != nil {
		m.t.Fatalf("the service manager hears nothing: %v", err)
	}
	said := make(map[string]string)
	for line := range strings.SplitSeq(strings.TrimSpace(string(b[:n])), "\n") {
		name, value, _ := strings.Cut(line, "=")
		said[name] = value
	}
	return said
}

// expect fails the test unless the next message is this one assignment.
func (m *manager) expect(assignment string) {
	m.t.Helper()
	said := m.hears()
	if name, value, _ := strings.Cut(assignment, "="); len(said) != 1 || said[name] != value {
		m.t.Fatalf("the service manager hears %v, want %s", said, assignment)
	}
}

// hearsNothing fails the test if anything was said before now.
func (m *manager) hearsNothing() {
	m.t.Helper()
	go func() { _, _ = m.socket.WriteTo([]byte("NOW=1"), m.socket.LocalAddr()) }() // it may wait for room
	m.expect("NOW=1")
}

// monotonic is the clock that systemd compares with.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// What systemd's Type=notify-reload asks for.
func TestAServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	m, dir := newManager(t), t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	write(t, config, "log: {level: info}\n")
	api := fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t))
	p := launch(t, dir, []string{
		"NOTIFY_SOCKET=" + m.path, "OCNODE_HTTP__LISTEN=" + api, freePorts[0], "OCNODE_LOG__FORMAT=json",
	})
	m.expect("READY=1")
	if status, err := get("http://"+api+"/readyz", nil); status != http.StatusOK || err != nil {
		t.Errorf("it says that it is ready, and /readyz answers %d, %v", status, err)
	}

	for _, text := range []string{"registry: {ttl: 70s}\n", "registry: {ttl: soon}\n"} { // good or bad, it goes on
		write(t, config, text)
		before := monotonic(t)
		p.Signal(syscall.SIGHUP)
		said := m.hears()
		at, err := strconv.ParseInt(said["MONOTONIC_USEC"], 10, 64)
		if said["RELOADING"] != "1" || err != nil || len(said) != 2 {
			t.Fatalf("at SIGHUP the service manager hears %v", said)
		}
		if at := time.Duration(at) * time.Microsecond; at < before.Truncate(time.Microsecond) || at > monotonic(t) {
			t.Errorf("it reloads at %v, and was asked to at %v", at, before)
		}
		m.expect("READY=1")
	}
	p.Logs("configuration reread; some of what changed can only change with a restart")
	p.Logs("the configuration has mistakes and was not taken over; mend them and send SIGHUP again")

	p.Signal(syscall.SIGTERM)
	m.expect("STOPPING=1")
	p.ExpectExit(0)
}

// A start that fails never says that it is ready.
func TestAServiceManagerIsNotToldOfANodeThatCannotStart(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := launch(t, t.TempDir(), []string{"NOTIFY_SOCKET=" + m.path, "OCNODE_HTTP__LISTEN=" + taken.Addr().String(), freePorts[0]})
	p.ExpectExit(1)
	m.hearsNothing()
}

// It tells the watchdog twice in its time, and nothing while it is stopped.
func TestAServiceManagersWatchdogIsTold(t *testing.T) {
	t.Parallel()
	const within = 400 * time.Millisecond
	m := newManager(t)
	p := launch(t, t.TempDir(), append([]string{
		"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=" + strconv.FormatInt(within.Microseconds(), 10),
	}, freePorts...))
	m.expect("READY=1")
	for range 4 {
		m.expect("WATCHDOG=1")
	}
	p.Signal(syscall.SIGSTOP)
	if _, err := syscall.Wait4(p.Cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil { // until all of it stands still
		t.Fatal(err)
	}
	go func() { _, _ = m.socket.WriteTo([]byte("STOPPED=1"), m.socket.LocalAddr()) }()
	for said := m.hears(); said["STOPPED"] != "1"; said = m.hears() {
		if said["WATCHDOG"] != "1" {
			t.Fatalf("the service manager hears %v", said)
		}
	}
	time.Sleep(3 * within)
	m.hearsNothing()
	p.Signal(syscall.SIGCONT)
	m.expect("WATCHDOG=1")
	p.Signal(syscall.SIGTERM)
	for said := m.hears(); said["STOPPING"] != "1"; said = m.hears() {
		if said["WATCHDOG"] != "1" {
			t.Fatalf("the service manager hears %v", said)
		}
	}
	p.ExpectExit(0)
}
