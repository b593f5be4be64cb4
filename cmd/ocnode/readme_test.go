package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

const root = "../.."

// place is one of the machines of README.md, here a folder and ports of its own. The
// variables stand for that it is another machine; the commands are as they are written.
type place struct {
	*node
	dir      string
	p2p, api int
	private  bool // no QUIC
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return &place{dir: t.TempDir(), p2p: ocnodetest.UnusedPort(t), api: ocnodetest.UnusedPort(t)}
}

func (m *place) environ() []string {
	listen := "OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/%d,/ip4/127.0.0.1/udp/%[1]d/quic-v1"
	if m.private {
		listen = "OCNODE_HOST__LISTEN=/ip4/127.0.0.1/tcp/%d"
	}
	return []string{
		fmt.Sprintf(listen, m.p2p),
		fmt.Sprint("OCNODE_HTTP__LISTEN=127.0.0.1:", m.api), "OCNODE_LOG__FORMAT=json",
	}
}

// runs runs a command that goes on, and waits until its node is ready.
func (m *place) runs(t *testing.T, command string) {
	t.Helper()
	m.node = ready(t, shell(t, m.dir, m.environ(), command))
}

// prints runs a command that ends by itself, and returns what it prints.
func (m *place) prints(t *testing.T, command string) string {
	t.Helper()
	out, _ := m.ends(t, command, 0)
	return out
}

// ends runs a command that ends by itself with this exit code, and returns what it
// prints, and what it says of what is wrong.
func (m *place) ends(t *testing.T, command string, code int) (out, log string) {
	t.Helper()
	p := shell(t, m.dir, m.environ(), command)
	p.ExpectExit(code)
	return p.Out.String(), p.Log.String()
}

// readme is the network of README.md as far as it has been read.
type readme struct{ a, b, indexer, fromFile, beside, closed, within *place }

// here puts what is here for the placeholders of README.md.
func (r *readme) here(t *testing.T, text string) string {
	t.Helper()
	var table []string
	if r.a.node != nil {
		table = append(table, "/dns4/a.example/tcp/4101/p2p/12D3Koo…", r.a.Addrs[0], "/ip4/127.0.0.1/tcp/4101/p2p/12D3Koo…", r.a.Addrs[0])
	}
	if r.b.node != nil {
		table = append(table, "/dns4/b.example/tcp/4101/p2p/12D3Koo…", r.b.Addrs[0])
	}
	if r.indexer.node != nil {
		table = append(table, "12D3Koo…", r.indexer.PeerID)
	}
	table = append(table, "--http.listen 127.0.0.1:4181", fmt.Sprint("--http.listen 127.0.0.1:", r.beside.api),
		"tcp/4102", fmt.Sprint("tcp/", r.beside.p2p), "udp/4102", fmt.Sprint("udp/", r.beside.p2p))
	table = append(table, "127.0.0.1:4181", fmt.Sprint("127.0.0.1:", r.b.api)) // "another node"
	text = strings.NewReplacer(table...).Replace(text)
	if strings.Contains(text, "…") || strings.Contains(text, ".example") {
		t.Fatalf("nothing here stands for a placeholder of %s", text)
	}
	return text
}

// readmeCommands says for each command of README.md on which machine it is run there,
// and what it must do.
var readmeCommands = map[string]func(t *testing.T, r *readme, command string){
	"ocnode run": func(t *testing.T, r *readme, command string) { r.a.runs(t, command) },
	"ocnode status": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, r.a.Addrs[0]+"\n") || !strings.HasSuffix(r.a.Addrs[0], "/p2p/"+r.a.PeerID) {
			t.Errorf("%s prints %s, want %s", command, out, r.a.Addrs[0])
		}
	},
	"ocnode run --host.bootstrap /dns4/a.example/tcp/4101/p2p/12D3Koo…": func(t *testing.T, r *readme, command string) {
		r.b.runs(t, command)
	},
	"ocnode run --modules indexer --indexer.meta zone=eu-1 \\\n  --indexer.natives /dns4/a.example/tcp/4101/p2p/12D3Koo…,/dns4/b.example/tcp/4101/p2p/12D3Koo…": func(t *testing.T, r *readme, command string) {
		r.indexer.runs(t, command)
		for _, native := range []*place{r.a, r.b} { // each by itself: either may die
			ocnodetest.Eventually(t, "each native has granted it a lease", func() bool {
				x := native.lists(r.indexer.PeerID)
				return x.Via == native.PeerID && x.Meta["zone"] == "eu-1"
			})
		}
	},
	"ocnode config init --role indexer": func(t *testing.T, r *readme, command string) {
		r.fromFile.prints(t, command)
		if _, err := os.Stat(filepath.Join(r.fromFile.dir, "config.yaml")); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	},
	"ocnode config check": func(t *testing.T, r *readme, command string) {
		if _, log := r.fromFile.ends(t, command, 3); strings.Count(log, "\n") != 1 || !strings.Contains(log, "indexer.natives: names no native") {
			t.Errorf("%s says\n%s", command, log)
		}
	},
	"ocnode config show --origin": func(t *testing.T, r *readme, command string) {
		if out, _ := r.fromFile.ends(t, command, 3); !strings.Contains(out, "# config.yaml:") || !strings.Contains(out, "# OCNODE_HTTP__LISTEN") {
			t.Errorf("%s prints\n%s", command, out)
		}
	},
	"ocnode run --data.dir b --http.listen 127.0.0.1:4181 \\\n  --host.listen /ip4/127.0.0.1/tcp/4102,/ip4/127.0.0.1/udp/4102/quic-v1 \\\n  --host.bootstrap /ip4/127.0.0.1/tcp/4101/p2p/12D3Koo…": func(t *testing.T, r *readme, command string) {
		r.beside.runs(t, command)
		r.beside.lists(r.indexer.PeerID)
		if want := fmt.Sprint("127.0.0.1:", r.beside.api); r.beside.HTTP != want || !strings.Contains(r.beside.Addrs[0], fmt.Sprint("/tcp/", r.beside.p2p)) {
			t.Errorf("it is at %s and %s, want %s", r.beside.HTTP, r.beside.Addrs, want)
		}
	},
	"ocnode key psk network.psk":            func(t *testing.T, r *readme, command string) { r.closed.prints(t, command) },
	"ocnode id > natives.txt":               func(t *testing.T, r *readme, command string) { r.closed.prints(t, command) },
	"ocnode id --data.dir x > indexers.txt": func(t *testing.T, r *readme, command string) { r.closed.prints(t, command) },
	"ocnode run --host.psk network.psk --trust.natives file:natives.txt \\\n  --trust.indexers file:indexers.txt --trust.plain refuse": func(t *testing.T, r *readme, command string) {
		r.closed.runs(t, command)
	},
	"ocnode run --data.dir x --modules indexer --host.psk network.psk --trust.natives file:natives.txt \\\n  --indexer.natives /ip4/127.0.0.1/tcp/4101/p2p/12D3Koo…": func(t *testing.T, r *readme, command string) {
		command = strings.Replace(command, r.a.Addrs[0], r.closed.Addrs[0], 1) // the native that it means is that of the folder
		r.within.runs(t, command)
		r.closed.lists(r.within.PeerID)
		if out := r.closed.prints(t, "ocnode get "+r.within.PeerID); !strings.Contains(out, "signed") {
			t.Errorf("it is listed as %s", out)
		}
		// Nobody else gets in: not with another key, not with none, and not without being listed.
		for why, command := range map[string]string{
			"network key": "ocnode run --data.dir y --modules indexer --indexer.natives " + r.closed.Addrs[0],
			"refused":     "ocnode run --data.dir z --modules indexer --host.psk network.psk --indexer.natives " + r.closed.Addrs[0],
		} {
			faults := ocnodetest.Undisturbed(func() (faults []string) { // a handshake that had no time says something else
				without := newPlace(t)
				without.private, without.dir = true, r.closed.dir
				p := shell(t, without.dir, without.environ(), command)
				if said := p.Logs("lease failed").Error; !strings.Contains(said, why) {
					faults = append(faults, said)
				}
				p.Signal(syscall.SIGTERM)
				p.ExpectExit(0)
				return faults
			})
			for _, said := range faults {
				t.Errorf("%s says nothing of %q: %s", command, why, said)
			}
		}
		if listed, err := r.closed.list(); err != nil || len(listed) != 1 {
			t.Errorf("listed are %v, %v", listed, err)
		}
	},
	"ocnode ls": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, r.indexer.PeerID) {
			t.Errorf("%s prints %s", command, out)
		}
	},
	"ocnode get 12D3Koo…": func(t *testing.T, r *readme, command string) {
		out := r.a.prints(t, command)
		for _, addr := range append(r.a.lists(r.indexer.PeerID).Addrs, "zone=eu-1") {
			if !strings.Contains(out, addr) {
				t.Errorf("%s prints no %s:\n%s", command, addr, out)
			}
		}
	},
	"ocnode status -o json": func(t *testing.T, r *readme, command string) {
		var s struct{ PeerID string }
		if err := json.Unmarshal([]byte(r.a.prints(t, command)), &s); err != nil || s.PeerID != r.a.PeerID {
			t.Errorf("%s says that it is %q, %v", command, s.PeerID, err)
		}
	},
	"ocnode ls --api 127.0.0.1:4181": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, r.b.PeerID) || !strings.Contains(out, r.indexer.PeerID) {
			t.Errorf("%s prints not what the other native lists:\n%s", command, out) // by way of the other
		}
	},
	"ocnode watch": func(t *testing.T, r *readme, command string) {
		p := shell(t, r.a.dir, r.a.environ(), command)
		p.Prints(`(?m)snapshot +` + r.indexer.PeerID + ` (.*\n)+.* synced +\d+ live$`)
		p.Signal(syscall.SIGINT)
		p.ExpectExit(0)
	},
	"ocnode natives": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, r.b.PeerID) {
			t.Errorf("%s prints\n%s", command, out)
		}
	},
	"ocnode ls --native /dns4/b.example/tcp/4101/p2p/12D3Koo… --meta zone=eu-1": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, r.indexer.PeerID) || !strings.Contains(out, r.b.PeerID) {
			t.Errorf("%s prints not what the other native lists:\n%s", command, out)
		}
	},
	"ocnode modules": func(t *testing.T, r *readme, command string) {
		if out := r.a.prints(t, command); !strings.Contains(out, "native    on      default") {
			t.Errorf("%s prints\n%s", command, out)
		}
	},
}

// readmePictures begin the blocks of README.md that are nothing to run.
var readmePictures = []string{"cmd ──▶ modules ──▶ adapters ──▶ ports ◀── domain"}

// Every block of README.md does what it says, in the order in which it is read. A new
// one has to be added above.
func TestTheReadmeIsTrue(t *testing.T) {
	t.Parallel()
	r := &readme{newPlace(t), newPlace(t), newPlace(t), newPlace(t), newPlace(t), newPlace(t), newPlace(t)}
	r.beside.dir = r.a.dir
	r.closed.private, r.within.private, r.within.dir = true, true, r.closed.dir
	ran, pictures := make(map[string]bool), 0
	for _, b := range blocks(t, root+"/README.md") {
		if b.kind == "yaml" {
			write(t, filepath.Join(r.fromFile.dir, "config.yaml"), r.here(t, b.text))
			r.fromFile.runs(t, "ocnode run")
			for _, native := range []*place{r.a, r.b} {
				if x := native.lists(r.fromFile.PeerID); x.Meta["zone"] != "eu-1" {
					t.Errorf("README.md:%d: it is listed as %+v", b.line, x)
				}
			}
			continue
		}
		if len(readmePictures) > pictures && strings.HasPrefix(b.text, readmePictures[pictures]) {
			pictures++
			continue
		}
		for _, command := range b.commands() {
			if strings.HasPrefix(command, "make ") {
				plans(t, command)
				continue
			}
			do, ok := readmeCommands[command]
			if !ok {
				t.Errorf("README.md:%d: nothing tests %q", b.line, command)
				continue
			}
			ran[command] = true
			do(t, r, r.here(t, command))
		}
	}
	for command := range readmeCommands {
		if !ran[command] {
			t.Errorf("README.md does not say %q any more", command)
		}
	}
	if pictures != len(readmePictures) {
		t.Errorf("README.md lacks the picture %q", readmePictures[pictures])
	}
}

// plans has make say what a command would do: .ci/run is where it does it.
func plans(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	cmd := exec.Command(words[0], append([]string{"-n"}, words[1:]...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
		t.Errorf("%s: %v\n%s", cmd, err, out)
	}
}

// The table of what HTTP answers is true as well.
func TestTheReadmesTableOfHTTPIsTrue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	native := start(t, t.TempDir())
	indexer := start(t, t.TempDir(), "--modules=indexer", "--indexer.natives", native.Addrs[0])
	native.lists(indexer.PeerID)
	paths := 0
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(line, "| `/")
		if !ok {
			continue
		}
		path, _, _ = strings.Cut(path, "`")
		paths++
		if strings.HasPrefix(path, "api/v1/watch") { // which does not end
			p := launch(t, t.TempDir(), nil, "watch", "--api", native.HTTP)
			p.Prints("synced")
			continue
		}
		if status, err := native.get("/"+strings.ReplaceAll(path, "{peerID}", indexer.PeerID), nil); status != http.StatusOK || err != nil {
			t.Errorf("/%s answers %d, %v", path, status, err)
		}
	}
	if paths < 6 {
		t.Errorf("README.md has %d paths", paths)
	}
}
