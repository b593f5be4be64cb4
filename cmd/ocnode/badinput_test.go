package main_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// expectMessage fails the test unless log ends in an error that says all of these.
func expectMessage(t *testing.T, log string, says ...string) {
	t.Helper()
	_, message, _ := strings.Cut("\n"+log, "\nocnode: ")
	for _, want := range says {
		if !strings.Contains(message, want) {
			t.Errorf("standard error does not say %q: %q", want, log)
		}
	}
}

func TestWhatDoesNotAddUpIsRefused(t *testing.T) {
	t.Parallel()
	const usage, configuration = 2, 3
	bootstrap := "/ip4/192.0.2.1/tcp/4101"
	for name, tt := range map[string]struct {
		args    string
		environ []string
		file    string
		code    int
		says    []string
	}{
		"a TTL that is not longer than the heartbeat": {
			args: "--registry.ttl 60s", code: configuration,
			says: []string{"--registry.ttl", "1m0s is not longer than registry.heartbeat 1m0s", "1m6s"},
		},
		"a heartbeat that is not shorter than the TTL, in the file": {
			file: "registry:\n  heartbeat: 70s\n", code: configuration,
			says: []string{"registry.ttl", "1m6s is not longer than registry.heartbeat 1m10s"},
		},
		"a refresh that is not shorter than the TTL": {
			environ: []string{"OCNODE_REGISTRY__REFRESH=66s"}, code: configuration,
			says: []string{"OCNODE_REGISTRY__REFRESH", "1m6s is not shorter than registry.ttl 1m6s", "33s"},
		},
		"no data folder": {
			args: "--data.dir=", code: configuration,
			says: []string{"--data.dir: must not be empty"},
		},
		"no data folder, to tell its identity": {
			args: "id --data.dir=", code: configuration,
			says: []string{"--data.dir: must not be empty"},
		},
		"a data folder that is a file": {
			args: "--data.dir config.yaml", file: "host: {}\n", code: 1,
			says: []string{`data.dir "config.yaml": `, "not a directory; name a folder that this user may write to"},
		},
		"a bootstrap address without an identity": {
			args: "--host.bootstrap " + bootstrap, code: configuration,
			says: []string{"--host.bootstrap", bootstrap, "append /p2p/<PeerID>"},
		},
		"a native's address without an identity": {
			args: "--modules indexer --indexer.natives " + bootstrap, code: configuration,
			says: []string{"--indexer.natives", bootstrap, "/p2p/<PeerID>"},
		},
		"a key that does not exist, in the file": {
			file: "http: {listen: ''}\nregistry:\n  tll: 9s\n", code: configuration,
			says: []string{"config.yaml:3: ", "registry.tll", "registry.ttl"},
		},
		"a variable of no key": {
			environ: []string{"OCNODE_REGISTRY__TLL=9s"}, code: configuration,
			says: []string{"OCNODE_REGISTRY__TLL", "OCNODE_REGISTRY__TTL"},
		},
		"a file that is not there": {
			args: "--config other.yaml", code: configuration,
			says: []string{"other.yaml"},
		},
		"an unknown module": {
			args: "--modules natve,dht", code: configuration,
			says: []string{`"natve"`, "native"},
		},
		"values of the wrong form, all at once": {
			args: "--registry.ttl soon", environ: []string{"OCNODE_HTTP__LISTN=x"}, file: "nonsense: 1\n", code: configuration,
			says: []string{"config.yaml:1: nonsense", "OCNODE_HTTP__LISTN", "--registry.ttl"},
		},
		"values that make no sense, all at once": {
			args: "--registry.ttl 0s --log.level loud", file: "http:\n  listen: here\n", code: configuration,
			says: []string{"config.yaml:2: http.listen", "--registry.ttl", "--log.level"},
		},
		"no module": {
			args: "--modules=", code: configuration,
			says: []string{"--modules native,dht,gossip"},
		},
		"gossip without native": {
			args: "--modules dht,gossip", code: configuration,
			says: []string{"turn native on too, or gossip off"},
		},
		"an indexer that knows no native": {
			args: "--modules indexer", code: configuration,
			says: []string{"indexer.natives", "turn native on"},
		},
		"an unknown flag": {
			args: "--registry.tll 9s", code: usage,
			says: []string{"--registry.tll", "did you mean --registry.ttl?"},
		},
		"an unknown flag of run": {
			args: "run --host.bootstap x", code: usage,
			says: []string{"--host.bootstap", "did you mean --host.bootstrap?"},
		},
		"an unknown command": {
			args: "statsu", code: usage,
			says: []string{`"statsu"`, "status"},
		},
		"the modules and one of them": {
			args: "--modules native --modules.indexer", code: usage,
			says: []string{"--modules", "--modules.indexer", "give one of them"},
		},
		"an unknown format": {
			args: "status -o yaml", code: usage,
			says: []string{"yaml", "table and json"},
		},
		"get without a PeerID": {
			args: "get", code: usage,
			says: []string{"PeerID"},
		},
		"an address to ask that is none": {
			args: "ls --api http://", code: usage,
			says: []string{"--api", "host:port"},
		},
		"a node to ask that has no HTTP": {
			args: "ls", environ: []string{"OCNODE_HTTP__LISTEN="}, code: usage,
			says: []string{"http.listen is empty", "--api"},
		},
		"a node to ask at a free port": {
			args: "ls", environ: freePorts, code: usage,
			says: []string{"free port", "--api"},
		},
		"a demo of too many": {
			args: "demo --natives 99", code: usage,
			says: []string{"--natives 99", "1 to 10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				write(t, filepath.Join(dir, "config.yaml"), tt.file)
			}
			p := launch(t, dir, tt.environ, strings.Fields(tt.args)...)
			p.ExpectExit(tt.code)
			expectMessage(t, p.Log.String(), tt.says...)
			if out := p.Out.String(); out != "" {
				t.Errorf("standard output has %q", out)
			}
			if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
				t.Error("it made a data folder")
			}
		})
	}
}

func TestAKeyThatOthersCanUseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	id, _ := run(t, dir, 0, "id")
	key := filepath.Join(dir, "data", "identity.key")
	for _, mode := range []fs.FileMode{0o644, 0o604, 0o602, 0o620, 0o660} {
		t.Run(mode.String(), func(t *testing.T) {
			if err := os.Chmod(key, mode); err != nil {
				t.Fatal(err)
			}
			_, log := run(t, dir, 3)
			expectMessage(t, log, filepath.Join("data", "identity.key"), fmt.Sprintf("%#o", mode), "chmod 600")
		})
	}
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o400} { // orchestrators let a group read
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if got, _ := run(t, dir, 0, "id"); got != id {
			t.Errorf("mode %v: the identity is %q, was %q", mode, got, id)
		}
	}
}

func TestAPortInUseIsNamed(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	onTCP := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", tcp.Addr().(*net.TCPAddr).Port)
	onUDP := fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", udp.LocalAddr().(*net.UDPAddr).Port)
	const mend = "stop the process that has this port, or choose another in host.listen"
	for name, tt := range map[string]struct {
		listen, http string
		says         []string
	}{
		"TCP, one of several": {listen: "/ip4/127.0.0.1/tcp/0," + onTCP, says: []string{onTCP, mend}},
		"UDP, one of several": {listen: onUDP + ",/ip4/127.0.0.1/tcp/0", says: []string{onUDP, mend}},
		"both":                {listen: onUDP + "," + onTCP, says: []string{onUDP, onTCP, mend}},
		"HTTP":                {http: tcp.Addr().String(), says: []string{"http.listen", tcp.Addr().String(), "choose another"}},
		"not of this machine": {listen: "/ip4/192.0.2.99/tcp/0", says: []string{"/ip4/192.0.2.99/tcp/0", "addresses of this machine"}},
	} {
		t.Run(name, func(t *testing.T) {
			environ := freePorts
			if tt.listen != "" {
				environ = append(environ[:len(environ):len(environ)], "OCNODE_HOST__LISTEN="+tt.listen)
			}
			if tt.http != "" {
				environ = append(environ[:len(environ):len(environ)], "OCNODE_HTTP__LISTEN="+tt.http)
			}
			p := launch(t, t.TempDir(), environ)
			p.ExpectExit(1)
			expectMessage(t, p.Log.String(), tt.says...)
		})
	}
}

func TestASignalEndsAStartThatHangs(t *testing.T) {
	t.Parallel()
	p, began := signalledWhileItHangs(t, nil)
	if code := p.Wait(ocnodetest.Patience); code != 1 || !strings.Contains(p.Log.String(), "ocnode: it did not stop within 4.9s of the signal, and is ended\n") {
		t.Errorf("it exits %d and says %q", code, p.Log.String())
	}
	if took := time.Since(began); took < 4900*time.Millisecond {
		t.Errorf("it ends after %v", took)
	}
}

func TestASignalEndsAStartThatHangsAndHasNoReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	p, _ := signalledWhileItHangs(t, w)
	if code := p.Wait(ocnodetest.Patience); code != 1 {
		t.Errorf("it ends with %v, want exit code 1", p.Cmd.ProcessState)
	}
}

// signalledWhileItHangs starts a node whose configuration is a pipe that nobody writes into, and sends it a
// SIGTERM. Its standard error is log, unless that is nil.
func signalledWhileItHangs(t *testing.T, log *os.File) (p *ocnodetest.Process, sent time.Time) {
	t.Helper()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := ocnodetest.Command(binary, dir, nil, "--config", "pipe.yaml")
	if log != nil {
		cmd.Stderr = log
	}
	p = ocnodetest.Start(t, cmd)
	ocnodetest.Eventually(t, "it waits for what the pipe holds", func() bool {
		w, err := os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil { // it has the pipe open: an error until then
			t.Cleanup(func() { _ = w.Close() })
		}
		return err == nil
	})
	sent = time.Now()
	p.Signal(syscall.SIGTERM)
	return p, sent
}

func TestADataFolderInUseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir)
	p := launch(t, dir, freePorts)
	p.ExpectExit(1)
	expectMessage(t, p.Log.String(), "data", "in use by another process", "choose another data.dir")
	if id, _ := run(t, dir, 0, "id"); id != n.PeerID+"\n" {
		t.Errorf("the identity is %q, want that of the node that runs, %s", id, n.PeerID)
	}
	n.expectReady()
}

func TestABootstrapThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	dir, port := t.TempDir(), ocnodetest.UnusedPort(t)
	id, _ := run(t, dir, 0, "id")
	addr := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)
	n := start(t, t.TempDir(), "--host.bootstrap", addr+"/p2p/"+strings.TrimSpace(id))
	warning := n.Logs("native cannot be reached; trying on")
	if warning.Level != "WARN" || !strings.Contains(fmt.Sprint(warning.Addrs), addr) || !strings.Contains(warning.Hint, "check") {
		t.Errorf("the warning is %+v", warning)
	}
	ocnodetest.Eventually(t, "it is ready without it", func() bool { // once it has tried for as long as it warms
		status, err := n.get("/readyz", nil)
		return err == nil && status == http.StatusOK
	})
	start(t, dir, "--host.listen", addr)
	n.Logs("native reached")
}
