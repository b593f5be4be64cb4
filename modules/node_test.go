package modules_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

// planOf returns the plan of a node with these settings and no file; it may be of more
// modules than ocnode's own.
func planOf(t testing.TB, settings map[string]string, more ...modules.Module) (*modules.Plan, error) {
	t.Helper()
	list := append(modules.Builtin(), more...)
	schema := modules.Schema(list)
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	schema.AddFlags(flags)
	for key, value := range settings {
		if err := flags.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := schema.Load(config.Sources{Flags: flags})
	if cfg == nil {
		return nil, err
	}
	return modules.NewPlan(list, cfg)
}

func newNode(t testing.TB, settings map[string]string, env modules.Environment, more ...modules.Module) *modules.Node {
	t.Helper()
	plan, err := planOf(t, settings, more...)
	if err != nil {
		t.Fatal(err)
	}
	env.StopTimeout = cmp.Or(env.StopTimeout, porttest.Patience)
	node, err := modules.New(plan, env)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// leastSettings make a node that disturbs nothing: free ports on loopback.
func leastSettings(t testing.TB) map[string]string {
	return map[string]string{
		"data.dir": t.TempDir(), "http.listen": "127.0.0.1:0",
		"host.listen": "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1",
	}
}

func TestEverySubsetOfModulesRunsOrSaysWhatIsMissing(t *testing.T) {
	names := []string{"native", "indexer", "dht", "gossip"}
	reg := newNode(t, leastSettings(t), modules.Environment{})
	if err := reg.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer stop(t, reg)
	ran := 0
	for bits := range 1 << len(names) {
		var on []string
		has := map[string]bool{}
		for i, name := range names {
			if bits&(1<<i) != 0 {
				on, has[name] = append(on, name), true
			}
		}
		for _, natives := range []string{"", reg.Addrs()[0]} {
			list := strings.Join(on, ",")
			t.Run(fmt.Sprintf("%s, natives given %v", cmp.Or(list, "none"), natives != ""), func(t *testing.T) {
				settings := leastSettings(t)
				settings["modules"], settings["indexer.natives"] = list, natives
				plan, err := planOf(t, settings)
				want := ""
				switch {
				case !has["native"] && !has["indexer"] && !has["dht"]:
					want = "turn one of them on"
				case has["gossip"] && !has["native"]:
					want = "turn native on too, or gossip off"
				case has["indexer"] && !has["native"] && natives == "":
					want = "names no native to register with"
				}
				if want != "" {
					if err == nil || !strings.Contains(err.Error(), want) || !modules.Misconfigured(err) {
						t.Errorf("the plan says %v, want %q", err, want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				var registered porttest.Recorder
				node, err := modules.New(plan, modules.Environment{Observers: []ports.Observer{&registered}})
				if err != nil {
					t.Fatal(err)
				}
				if err := node.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				ran++
				if has["indexer"] && !has["native"] { // reg is no indexer
					if got := get(t, node, "/api/v1/indexers/"+string(reg.PeerID())); got != http.StatusNotFound {
						t.Errorf("a look-up right after the start is answered %d", got)
					}
				}
				if got := get(t, node, "/readyz"); got != http.StatusOK {
					t.Errorf("/readyz answers %d", got)
				}
				listing := http.StatusNotFound
				if has["native"] {
					listing = http.StatusOK
				}
				if got := get(t, node, "/api/v1/indexers"); got != listing {
					t.Errorf("/api/v1/indexers answers %d, want %d", got, listing)
				}
				if has["indexer"] {
					eventually(t, "it has a lease", func() bool { return registered.Count(ports.EventLeaseGranted) > 0 })
				}
				if has["indexer"] && has["native"] && natives == "" {
					if _, ok := node.Registry().Get(node.PeerID()); !ok {
						t.Error("it does not list itself")
					}
				}
				stop(t, node)
			})
		}
	}
	if ran != 11+9 {
		t.Errorf("%d subsets ran, want 11 with natives given and 9 without", ran)
	}
}

func stop(t testing.TB, node *modules.Node) {
	t.Helper()
	if err := node.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func get(t testing.TB, node *modules.Node, path string) int {
	t.Helper()
	resp, err := http.Get("http://" + node.HTTP() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	porttest.Eventually(t, what, ok)
}

func TestANodeThatCannotStartLeavesNothingBehind(t *testing.T) {
	first := newNode(t, leastSettings(t), modules.Environment{})
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer stop(t, first)
	tcp, quic := first.Addrs()[0], first.Addrs()[1]
	for _, c := range []struct{ name, key, value, want string }{
		{"a TCP port in use", "host.listen", "/ip4/127.0.0.1/tcp/0," + tcp[:strings.Index(tcp, "/p2p/")], "choose another in host.listen"},
		{"a UDP port in use", "host.listen", "/ip4/127.0.0.1/tcp/0," + quic[:strings.Index(quic, "/p2p/")], "choose another in host.listen"},
		{"an HTTP port in use", "http.listen", first.HTTP(), "http.listen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := leastSettings(t)
			settings[c.key] = c.value
			for range 2 { // the second finds the folder unlocked again
				node := newNode(t, settings, modules.Environment{})
				if err := node.Start(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("the start says %v, want %q", err, c.want)
				}
			}
		})
	}
}

func TestASignalDuringTheStartStopsTheNodeInGoodOrder(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(after, cancel)
		node := newNode(t, leastSettings(t), modules.Environment{})
		if err := errors.Join(node.Start(ctx), node.Wait(ctx), node.Stop()); err != nil {
			t.Errorf("a signal %v after the start: %v", after, err)
		}
	}
}

func TestAStopThatIsOutOfTimeLeavesNothingRunning(t *testing.T) {
	settings := leastSettings(t)
	settings["modules"] = "native,indexer,dht,gossip"
	node := newNode(t, settings, modules.Environment{StopTimeout: 1})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the stop says %v", err)
	}
	// Its folder is let go last. TestMain sees to it that nothing runs on.
	plan, err := planOf(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "another node may have its folder", func() bool {
		again, err := modules.New(plan, modules.Environment{StopTimeout: porttest.Patience})
		if err == nil {
			stop(t, again)
		}
		return err == nil
	})
}

func TestADataFolderIsOneNodesAtATime(t *testing.T) {
	settings := leastSettings(t)
	first := newNode(t, settings, modules.Environment{})
	plan, err := planOf(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := modules.New(plan, modules.Environment{}); err == nil || !strings.Contains(err.Error(), "data.dir") || modules.Misconfigured(err) {
		t.Errorf("the second says %v", err)
	}
	stop(t, first)
	second := newNode(t, settings, modules.Environment{})
	if second.PeerID() != first.PeerID() {
		t.Error("the identity changed")
	}
	stop(t, second)
}

func TestWhatDoesNotAddUp(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"registry.ttl", "60s", "is not longer than registry.heartbeat"},
		{"registry.refresh", "66s", "is not shorter than registry.ttl"},
		{"registry.heartbeat", "-1s", "is not between"},
		{"host.listen", "", "must not be empty"},
		{"host.listen", "/ip4/127.0.0.1/udp/4101", "is not an address to listen on"},
		{"host.bootstrap", "/ip4/127.0.0.1/tcp/4101", "/p2p/"},
		{"host.announce", "/ip4/0.0.0.0/tcp/4101", "/ip4/0.0.0.0/tcp/4101"},
		{"indexer.natives", "/ip4/127.0.0.1/tcp/4101", "must be an address that ends in /p2p/<PeerID>"},
		{"indexer.meta", "k=" + strings.Repeat("a", 1024), "1025 bytes"},
		{"dht.prefix", "opencloud", "must begin with"},
		{"dht.prefix", "/ipfs", "public IPFS network"},
		{"gossip.topic", "", "must not be empty"},
		{"http.listen", "4180", "host:port"},
		{"log.level", "loud", "debug, info, warn and error"},
		{"log.format", "xml", "text and json"},
		{"data.dir", "", "must not be empty"},
	} {
		t.Run(c.key+"="+c.value[:min(len(c.value), 30)], func(t *testing.T) {
			_, err := planOf(t, map[string]string{c.key: c.value, "modules": "native,indexer,dht,gossip"})
			if err == nil || !strings.Contains(err.Error(), "--"+c.key+": ") || !strings.Contains(err.Error(), c.want) || !modules.Misconfigured(err) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

var leakOptions = []goleak.Option{
	goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), // http.DefaultClient's
	goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
}

// TestMain sees to it that no node leaves a goroutine behind.
func TestMain(m *testing.M) {
	gologshim.SetDefaultHandler(slog.DiscardHandler) // libp2p's own, about simulated sockets
	goleak.VerifyTestMain(patientMain{m}, leakOptions...)
}

// patientMain gives goroutines that are about to end longer for that than goleak does, a second.
type patientMain struct{ *testing.M }

func (m patientMain) Run() int {
	code := m.M.Run()
	for end := time.Now().Add(porttest.Patience); code == 0 && goleak.Find(leakOptions...) != nil && time.Now().Before(end); {
	}
	return code
}

func TestAnAddressOfAnotherNodeIsAMistake(t *testing.T) {
	settings := leastSettings(t)
	settings["host.announce"] = "/ip4/192.0.2.1/tcp/4101/p2p/" + string(strangers(t, 1)[0])
	plan, err := planOf(t, settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := modules.New(plan, modules.Environment{StopTimeout: porttest.Patience}); !modules.Misconfigured(err) || !strings.Contains(err.Error(), "host.announce") || !strings.Contains(err.Error(), "is another's") {
		t.Errorf("it says %v", err)
	}
}
