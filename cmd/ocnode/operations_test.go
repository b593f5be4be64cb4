package main_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v3"
)

const operations = root + "/docs/operations.md"

// symptoms has, for each symptom of docs/operations.md that quotes what is said, what
// brings it about here, and returns what is said then.
var symptoms = map[string]func(t *testing.T) string{
	"It does not start: the data folder is in use": func(t *testing.T) string {
		dir := t.TempDir()
		start(t, dir)
		return fails(t, dir, 1, freePorts)
	},
	"It does not start: a port is in use": func(t *testing.T) string {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = taken.Close() })
		addr := taken.Addr().(*net.TCPAddr)
		return fails(t, t.TempDir(), 1, freePorts, fmt.Sprint("--host.listen=/ip4/127.0.0.1/tcp/", addr.Port)) +
			fails(t, t.TempDir(), 1, freePorts, "--http.listen", addr.String())
	},
	"It does not start: an address is not this machine's": func(t *testing.T) string {
		return fails(t, t.TempDir(), 1, freePorts, "--host.listen=/ip4/192.0.2.77/tcp/4101") // TEST-NET-1
	},
	"It does not start: exit code 3": func(t *testing.T) string {
		return fails(t, t.TempDir(), 3, append([]string{"OCNODE_REGISTRY__TTL=soon"}, freePorts...))
	},
	"It does not start: the key's mode": func(t *testing.T) string {
		dir := t.TempDir()
		run(t, dir, 0, "id")
		if err := os.Chmod(filepath.Join(dir, "data", "identity.key"), 0o660); err != nil {
			t.Fatal(err)
		}
		return fails(t, dir, 3, freePorts)
	},
	"It does not start: HTTP beyond loopback": func(t *testing.T) string {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "http.token"), secretToken)
		if err := os.Chmod(filepath.Join(dir, "http.token"), 0o644); err != nil {
			t.Fatal(err)
		}
		return fails(t, dir, 3, freePorts, "--http.listen=:4180") + fails(t, dir, 3, freePorts, "--http.token=http.token")
	},
	"A native is alone: the line is slow": func(t *testing.T) string {
		silent, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = silent.Close() })
		return complains(t, "native cannot be reached; trying on", fmt.Sprintf("--host.bootstrap=/ip4/127.0.0.1/udp/%d/quic-v1/p2p/%s", silent.LocalAddr().(*net.UDPAddr).Port, stranger))
	},
	"A native is alone: the key of the private network": func(t *testing.T) string {
		native := start(t, t.TempDir(), tcpOnly, "--host.psk", newPSK(t))
		return complains(t, "native cannot be reached; trying on", "--host.bootstrap="+native.Addrs[0])
	},
	"A native says `unheard`, or entries are `stale`": func(t *testing.T) string {
		n := launch(t, t.TempDir(), freePorts[:2], "--registry.ttl=110ms", "--registry.heartbeat=100ms", "--registry.refresh=50ms")
		n.Says("ready")
		ocnodetest.Eventually(t, "it notices that it stood still", func() bool {
			n.Signal(syscall.SIGSTOP)
			run(t, t.TempDir(), 0, "version") // a while
			n.Signal(syscall.SIGCONT)
			return strings.Contains(n.Log.String(), "stood still")
		})
		return n.Log.String()
	},
	"Two natives have one key": func(t *testing.T) string {
		third := launch(t, t.TempDir(), append([]string{"OCNODE_HTTP__LISTEN="}, freePorts[0]))
		addr := addrs(t, third)[0]
		dir, copied := t.TempDir(), t.TempDir()
		first := start(t, dir, "--host.bootstrap", addr)
		key, err := os.ReadFile(filepath.Join(dir, "data", "identity.key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(copied, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(copied, "data", "identity.key"), string(key))
		second := launch(t, copied, freePorts[:2], "--host.bootstrap", addr+","+first.Addrs[0])
		second.Says("has this node's key")
		third.Says("answer at once")
		return second.Log.String() + third.Log.String()
	},
	"HTTP answers 401 or 403": func(t *testing.T) string {
		token := filepath.Join(t.TempDir(), "http.token")
		write(t, token, secretToken)
		n := start(t, t.TempDir(), "--http.token", token)
		_, without := run(t, t.TempDir(), 1, "status", "--api", n.HTTP)
		// By a name of this machine's that the node knows nothing of.
		proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", n.HTTP, "natives.example"
		}})
		t.Cleanup(proxy.Close)
		_, elsewhere := run(t, t.TempDir(), 1, "status", "--token", token, "--api", proxy.URL)
		return without + elsewhere
	},
	"It does not start: the folder cannot be written": func(t *testing.T) string {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() != 0 {
			return fails(t, dir, 1, freePorts)
		}
		// Root may write everywhere, unless that is taken from it and the folder is another's.
		if err := os.Chown(dir, 65532, 65532); err != nil {
			t.Fatal(err)
		}
		p := ocnodetest.Start(t, ocnodetest.Command("setpriv", t.TempDir(), freePorts, "--bounding-set=-all", "--inh-caps=-all", binary, "--data.dir", filepath.Join(dir, "data")))
		p.ExpectExit(1)
		return p.Log.String()
	},
	"A native is alone: it cannot reach the others": func(t *testing.T) string {
		return complains(t, "native cannot be reached; trying on", fmt.Sprintf("--host.bootstrap=/ip4/127.0.0.1/tcp/%d/p2p/%s", ocnodetest.UnusedPort(t), stranger))
	},
	"A native is alone: the name does not resolve": func(t *testing.T) string {
		// A label longer than 63 bytes, of which no name server needs to be asked.
		return complains(t, "native cannot be reached; trying on", "--host.bootstrap=/dns4/"+strings.Repeat("x", 64)+".invalid/tcp/4101/p2p/"+stranger)
	},
	"A native is alone: the PeerID is another": func(t *testing.T) string {
		native := start(t, t.TempDir())
		addr, _, _ := strings.Cut(native.Addrs[0], "/p2p/")
		return complains(t, "native cannot be reached; trying on", "--host.bootstrap="+addr+"/p2p/"+stranger)
	},
	"An indexer is listed nowhere": func(t *testing.T) string {
		addr, _, _ := strings.Cut(start(t, t.TempDir()).Addrs[0], "/p2p/")
		return leaseFails(t, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", ocnodetest.UnusedPort(t), stranger)) + leaseFails(t, addr+"/p2p/"+stranger)
	},
	"An indexer is listed at one native only": func(t *testing.T) string {
		deaf := metrics(t, start(t, t.TempDir()))
		a := launch(t, t.TempDir(), append([]string{"OCNODE_HTTP__LISTEN="}, freePorts[0]))
		addr := addrs(t, a)[0]
		b := start(t, t.TempDir(), "--host.bootstrap", addr, "--registry.ttl", "5m", "--modules.indexer")
		b.lists(b.PeerID)
		a.Says("changes refused")
		if listed, log := run(t, t.TempDir(), 0, "ls", "--native", addr, "-o", "json"); strings.TrimSpace(listed) != "[]" || log != "" {
			t.Errorf("the other native lists %s, %s", listed, log)
		}
		return deaf + a.Log.String() + complains(t, "gossip without dht: this node hears who is alive elsewhere and cannot look it up; turn dht on to list what other natives hold", "--modules=native,gossip")
	},
	"A command says that the node is unreachable": func(t *testing.T) string {
		_, log := run(t, t.TempDir(), 4, "status", "--api", fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t)))
		return log
	},
	"A node lists nobody since it is no native": func(t *testing.T) string {
		n := start(t, t.TempDir(), "--modules=dht")
		_, log := run(t, t.TempDir(), 1, "ls", "--api", n.HTTP)
		return log
	},
	"Indexers are turned away, or HTTP hangs, once there are many": func(t *testing.T) string {
		small := launch(t, t.TempDir(), append([]string{"GOMEMLIMIT=8MiB", "OCNODE_HTTP__LISTEN="}, freePorts[0]))
		fill(t, addrs(t, small)[0])
		said := ""
		for _, addr := range addrs(t, small) {
			said += leaseFails(t, addr)
		}
		small.Says("refused by this node")
		said += small.Log.String()

		few := shell(t, t.TempDir(), append([]string{"OCNODE_HTTP__LISTEN="}, freePorts[0]), "sh -c 'ulimit -n 24; exec ocnode'")
		fill(t, addrs(t, few)[0])
		return said + leaseFails(t, addrs(t, few)[0])
	},
}

// leaseFails returns the log, in text, of an indexer that gets no lease at the native at
// this address.
func leaseFails(t *testing.T, addr string) string {
	t.Helper()
	return complains(t, "lease failed", "--modules=indexer", "--indexer.natives", addr)
}

// addrs returns the addresses of a node that logs in text.
func addrs(t *testing.T, p *ocnodetest.Process) (addrs []string) {
	t.Helper()
	p.Await("it is ready", func() bool {
		m := regexp.MustCompile(`msg=ready .*addrs="\[(.*?)\]"`).FindStringSubmatch(p.Log.String())
		if m != nil {
			addrs = strings.Fields(m[1])
		}
		return m != nil
	})
	return addrs
}

// fill connects to a native until it takes no more, which one failure does not tell.
func fill(t *testing.T, addr string) {
	t.Helper()
	native, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 40 {
		if newSeed(t).Connect(t.Context(), *native) == nil {
			refused = 0
		} else if refused++; refused == 2 {
			return
		}
	}
	t.Fatal("it takes 40 connections")
}

// fails runs a node that must end with this exit code, and returns what it says.
func fails(t *testing.T, dir string, code int, environ []string, args ...string) string {
	t.Helper()
	p := launch(t, dir, environ, args...)
	p.ExpectExit(code)
	return p.Log.String()
}

// complains runs a node until it logs this message, and returns its log, in text.
func complains(t *testing.T, msg string, args ...string) string {
	t.Helper()
	p := launch(t, t.TempDir(), freePorts[:2], args...)
	p.Says(msg)
	return p.Log.String()
}

func metrics(t *testing.T, n *node) string {
	t.Helper()
	resp, err := client.Get("http://" + n.HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return b.String()
}

// What docs/operations.md quotes is what the binary says, word for word but for "…".
func TestTheSymptomsAreThoseOfOperations(t *testing.T) {
	t.Parallel()
	quoted := make(map[string][]block)
	for _, b := range blocks(t, operations) {
		if b.kind == "text" {
			quoted[b.heading] = append(quoted[b.heading], b)
		}
	}
	for heading := range quoted {
		if symptoms[heading] == nil {
			t.Errorf("nothing brings about %q", heading)
		}
	}
	for heading, bring := range symptoms {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			if quoted[heading] == nil {
				t.Fatal("operations.md does not quote it any more")
			}
			missing := func() (faults []string) {
				said := bring(t)
				for _, b := range quoted[heading] {
					pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(b.text)), "…", ".*")
					if !regexp.MustCompile(pattern).MatchString(said) {
						faults = append(faults, fmt.Sprintf("operations.md:%d: nobody says %s; it was\n%s", b.line, b.text, said))
					}
				}
				return faults
			}
			for _, fault := range ocnodetest.Undisturbed(missing) { // what had no time says something else
				t.Error(fault)
			}
		})
	}
}

// elsewhere are the commands of docs/operations.md that need another machine than that
// of the tests; .ci/deploy checks the files that they are given.
var elsewhere = []string{"curl", "docker", "install", "journalctl", "kubectl", "nft", "openssl", "sysctl", "systemctl", "ufw"}

// ocnodeCommand is a use of the binary, here or in a container.
var ocnodeCommand = regexp.MustCompile(`(?:^|[ /])ocnode ([a-z]+)`)

func TestTheCommandsOfOperationsAreReal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	api := fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t))
	p := launch(t, dir, []string{"OCNODE_HTTP__LISTEN=" + api, freePorts[0], freePorts[2]})
	p.Logs("ready")
	here := strings.NewReplacer("/var/lib/ocnode", filepath.Join(dir, "data"), "127.0.0.1:4180", api, "127.0.0.1:4181", api)
	known, ran := make(map[string]bool), 0
	for _, b := range blocks(t, operations) {
		if b.kind != "sh" {
			continue
		}
		if out, err := exec.Command("/bin/sh", "-nc", b.text).CombinedOutput(); err != nil {
			t.Errorf("operations.md:%d: %v\n%s", b.line, err, out)
		}
		for _, match := range ocnodeCommand.FindAllStringSubmatch(b.text, -1) {
			known[match[1]] = true
		}
		if strings.HasPrefix(b.text, "(") {
			continue // a test of its own runs it
		}
		commands := b.commands()
		if strings.Contains(b.text, "$(") { // over several lines; the first word is what counts
			commands = commands[:1]
		}
		for _, command := range commands {
			word, _, _ := strings.Cut(command, " ")
			switch {
			case slices.Contains(elsewhere, word):
			case word == "ocnode":
				ran++
				shell(t, dir, []string{"OCNODE_HTTP__LISTEN=" + api}, here.Replace(command)).ExpectExit(0)
			default:
				t.Errorf("operations.md:%d: nothing tests %q", b.line, command)
			}
		}
	}
	for command := range known {
		if command != "ls" && command != "status" && command != "id" && command != "key" { // run above, or in a container the same
			t.Errorf("nothing tests ocnode %s", command)
		}
	}
	if ran < 4 {
		t.Errorf("only %d commands were run", ran)
	}
}

// kubectlStandIn knows three pods, of which one may not answer, and writes what is applied
// to a file. Like kubectl, it creates nothing twice.
const kubectlStandIn = `#!/bin/sh -e
case "$*" in
"exec $AWAY "*) exit 1 ;;
"exec ocnode-"[012]" -- /ocnode id") echo "id-of-$2" ;;
"create configmap ocnode-network --from-literal=bootstrap="*" --dry-run=client -o yaml") echo "$4" ;;
"apply -f -") cat >>applied ;;
"rollout restart statefulset/ocnode") echo restarted >>applied ;;
*) echo "kubectl $*" >&2; exit 2 ;;
esac
`

// The network in Kubernetes can be told again and again, and is not told by halves.
func TestTheNetworkOfOperationsIsToldToThePods(t *testing.T) {
	t.Parallel()
	var told []string
	for _, b := range blocks(t, operations) {
		if strings.HasPrefix(b.text, "(") {
			told = append(told, b.text)
		}
	}
	if len(told) != 1 {
		t.Fatalf("operations.md has %d blocks in parentheses", len(told))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectlStandIn), 0o700); err != nil {
		t.Fatal(err)
	}
	tell := func(away string) error {
		cmd := exec.Command("/bin/sh", "-uc", told[0])
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "AWAY=" + away}
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}
	want := ""
	for range 2 {
		if err := tell("nobody"); err != nil {
			t.Error(err)
		}
		want += "--from-literal=bootstrap=/dns/ocnode-0.ocnode/tcp/4101/p2p/id-of-ocnode-0,/dns/ocnode-1.ocnode/tcp/4101/p2p/id-of-ocnode-1,/dns/ocnode-2.ocnode/tcp/4101/p2p/id-of-ocnode-2\nrestarted\n"
	}
	if err := tell("ocnode-1"); err == nil {
		t.Error("with a pod away, it succeeds")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "applied")); string(got) != want || err != nil {
		t.Errorf("it applies\n%s%v, want\n%s", got, err, want)
	}
}

func TestTheConfigurationOfOperationsIsValid(t *testing.T) {
	t.Parallel()
	list, checked := modules.Builtin(), 0
	dir := t.TempDir()
	write(t, filepath.Join(dir, "http.token"), secretToken)
	write(t, filepath.Join(dir, "swarm.key"), modules.NewPSK())
	here := strings.NewReplacer("/run/credentials/ocnode.service", dir, "/etc/ocnode", dir)
	for _, b := range blocks(t, operations) {
		var sources config.Sources
		switch b.kind {
		case "yaml":
			if strings.HasPrefix(b.text, "scrape_configs:") {
				checked++
				if err := scrapes(b.text); err != nil {
					t.Errorf("operations.md:%d: %v", b.line, err)
				}
				continue
			}
			sources.File = filepath.Join(t.TempDir(), "config.yaml")
			write(t, sources.File, here.Replace(b.text))
		case "ini":
			for line := range strings.Lines(b.text) {
				if variable, ok := strings.CutPrefix(strings.TrimSpace(line), "Environment="); ok {
					sources.Environ = append(sources.Environ, here.Replace(variable))
				}
			}
		default:
			continue
		}
		checked++
		cfg, err := modules.Schema(list).Load(sources)
		if err == nil {
			_, err = modules.NewPlan(list, cfg)
		}
		if err != nil {
			t.Errorf("operations.md:%d: %v", b.line, err)
		}
	}
	if checked != 7 {
		t.Errorf("%d blocks of configuration were checked", checked)
	}
}

// scrapes checks a configuration of Prometheus as far as our page uses it.
func scrapes(text string) error {
	type authorization struct {
		CredentialsFile string `yaml:"credentials_file"`
	}
	var cfg struct {
		ScrapeConfigs []struct {
			JobName       string                       `yaml:"job_name"`
			Authorization authorization                `yaml:"authorization"`
			Static        []struct{ Targets []string } `yaml:"static_configs"`
			HTTPSDConfigs []struct {
				URL           string
				Authorization authorization
			} `yaml:"http_sd_configs"`
			Relabel []*relabel.Config `yaml:"relabel_configs"`
		} `yaml:"scrape_configs"`
	}
	d := yaml.NewDecoder(strings.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&cfg); err != nil {
		return err
	}
	// Whoever asks a native that listens for others brings the token.
	for _, job := range cfg.ScrapeConfigs {
		for _, sd := range job.HTTPSDConfigs {
			if sd.Authorization.CredentialsFile == "" {
				return fmt.Errorf("%s asks %s without a token", job.JobName, sd.URL)
			}
		}
		if len(job.Static) > 0 && job.Authorization.CredentialsFile == "" {
			return fmt.Errorf("%s scrapes without a token", job.JobName)
		}
	}
	return nil
}
