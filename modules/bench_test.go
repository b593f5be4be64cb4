package modules_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

const (
	echoProtocol = protocol.ID("/echo")
	// cannedLease is as long as the answer to a registration, so that an echo moves the
	// same bytes in both directions.
	cannedLease = `{"OK":true,"ExpiresAt":"2026-03-01T10:01:06.123456789Z","TTLSeconds":66,"HeartbeatSeconds":60,"Now":"2026-03-01T10:00:00.123456789Z"}` + "\n"
)

// echoed is what a bare libp2p program would do with a registration's bytes: read the
// frame under a deadline, and write as much as the native would.
func echoed(s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	frame, err := bufio.NewReader(s).ReadSlice('\n')
	if err == nil && len(frame) > 0 {
		_, err = io.WriteString(s, cannedLease)
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// contender is one way to have a frame answered.
type contender struct {
	name     string
	protocol protocol.ID
	at       peer.AddrInfo
	full     bool // it would not hold the connections of the fan-in
	settle   func()
	host     host.Host                // that answers
	frame    string                   // "" for the registration of whoever asks
	frames   func(h host.Host) string // in its place
	answer   string                   // what it begins with; "" for that of a lease
}

// contenders starts a whole native, DHT and gossip on and no other native, and the
// echoes that it is set beside; the registration comes first.
func contenders(b *testing.B) []contender {
	b.Helper()
	var inside host.Host
	node := benchNode(b, "native,dht,gossip", "", modules.Module{
		Name: "echo", Summary: "an echo on the native's own host", Always: true, Wire: func(*modules.Plan) fx.Option {
			return fx.Invoke(func(h host.Host) { inside = h; h.SetStreamHandler(echoProtocol, echoed) })
		},
	})
	own, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	bare := func(opts ...libp2p.Option) peer.AddrInfo {
		h := bareHost(b, append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))...)
		h.SetStreamHandler(echoProtocol, echoed)
		return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
	}
	// What a registration leaves to the outbox is part of its cost.
	sent := func() {
		for node.Registry().Waiting() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	return []contender{
		{name: "registration", protocol: ports.SubscribeProtocol, at: *own, settle: sent},
		{name: "echo on the native's own host", protocol: echoProtocol, at: *own, settle: func() {}, host: inside},
		{name: "echo on a default libp2p host", protocol: echoProtocol, at: bare(), settle: func() {}, full: true},
		{name: "echo on a host without limits or metrics", protocol: echoProtocol, settle: func() {},
			at: bare(libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())},
	}
}

// bareHost is a host as libp2p makes it, over TCP alone.
func bareHost(b *testing.B, opts ...libp2p.Option) host.Host {
	b.Helper()
	h, err := libp2p.New(append(opts, libp2p.Transport(tcp.NewTCPTransport))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = h.Close() })
	return h
}

// benchClient has the limits of a client, which are none.
func benchClient(b *testing.B) host.Host {
	return bareHost(b, libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
}

// shape is how many ask at once, over how many connections.
type shape struct {
	name               string
	connections, asked int
	requests           int // in a batch: some 100 ms of it
}

var shapes = []shape{
	{"1", 1, 1, 400},
	{"16", 16, 16, 1600},
	{"fan-in", 300, 16, 1600},
}

// clients connects as many as the shape has to each contender.
func (s shape) clients(b *testing.B, to []contender) []host.Host {
	b.Helper()
	clients := make([]host.Host, s.connections)
	for i := range clients {
		clients[i] = benchClient(b)
		for _, c := range to {
			if s.skips(c) {
				continue
			}
			if err := clients[i].Connect(b.Context(), c.at); err != nil {
				b.Fatal(err)
			}
		}
	}
	return clients
}

func (s shape) skips(c contender) bool { return c.full && s.connections > 100 }

// batch asks n times, and returns the median time to an answer and the CPU a request
// of the whole process, clients included.
func (s shape) batch(b *testing.B, clients []host.Host, c contender, n int) (p50, each time.Duration) {
	b.Helper()
	took := make([]time.Duration, n)
	var next atomic.Int64
	var asking sync.WaitGroup
	before := cpu()
	for worker := range s.asked {
		asking.Go(func() {
			for turn := worker; ; turn += s.asked {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				h := clients[turn%len(clients)]
				began := time.Now()
				answer, err := ask(b.Context(), h, c.at.ID, c.protocol, c.request(h))
				if err != nil || !strings.HasPrefix(answer, cmp.Or(c.answer, `{"OK":true,`)) {
					b.Errorf("%s: answer %q: %v", c.name, answer, err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	asking.Wait()
	c.settle()
	each = (cpu() - before) / time.Duration(n)
	if b.Failed() {
		b.FailNow()
	}
	slices.Sort(took)
	return took[n/2], each
}

// request is what h asks c.
func (c contender) request(h host.Host) string {
	switch {
	case c.frames != nil:
		return c.frames(h)
	case c.frame != "":
		return c.frame
	}
	return benchFrame(h)
}

func benchFrame(h host.Host) string {
	return fmt.Sprintf(`{"PeerID":"%s","Addr":"/ip4/127.0.0.1/tcp/4001"}`+"\n", h.ID())
}

// BenchmarkRegistration sets a registration beside echoes of the same bytes, all asked
// by the same clients; BenchmarkTable does so in turns, which says more.
func BenchmarkRegistration(b *testing.B) {
	list := contenders(b)
	for _, s := range shapes {
		clients := s.clients(b, list)
		for _, c := range list {
			if s.skips(c) {
				continue
			}
			b.Run(strings.ReplaceAll(c.name, " ", "_")+"/"+s.name, func(b *testing.B) {
				b.ReportAllocs()
				p50, each := s.batch(b, clients, c, b.N)
				b.ReportMetric(float64(each.Nanoseconds())/1e3, "cpu-µs/op")
				b.ReportMetric(float64(p50.Nanoseconds())/1e3, "p50-µs")
			})
		}
	}
}

// tableOfRegistration has the contenders take turns, so that whatever else the machine
// does meets all of them alike. A ratio is the median of the rounds' ratios.
func tableOfRegistration(b *testing.B, t *table, scale float64) {
	t.part("A registration over a stream, DHT and gossip on, no other native, beside echoes of the same bytes")
	list := contenders(b)
	for _, s := range shapes {
		clients := s.clients(b, list)
		p50s, cpus := make([][]float64, len(list)), make([][]float64, len(list))
		rounds := scaled(15, scale, 3)
		for round := range rounds + 1 { // the first warms up
			for turn := range list {
				i := (round + turn) % len(list)
				if s.skips(list[i]) {
					continue
				}
				p50, each := s.batch(b, clients, list[i], s.requests)
				if round > 0 {
					p50s[i], cpus[i] = append(p50s[i], float64(p50)), append(cpus[i], float64(each))
				}
			}
		}
		at := s.name + " at once"
		if s.connections > s.asked {
			at = fmt.Sprintf("%d at once of %d connections", s.asked, s.connections)
		}
		us := func(ns []float64) string { return unit("µs", 1)(median(ns) / 1e3) }
		t.row(at+": registration", us(cpus[0])+" CPU, p50 "+us(p50s[0]), "")
		for i, c := range list[1:] {
			if i++; s.skips(c) {
				continue
			}
			cpuRatio, p50Ratio := median(ratios(cpus[0], cpus[i])), median(ratios(p50s[0], p50s[i]))
			what, bound := at+": "+c.name, ""
			verdict := fmt.Sprintf("%.2fx CPU, %.2fx p50", cpuRatio, p50Ratio)
			if s.connections == s.asked {
				bound = "≤ 1.15x"
				if max(cpuRatio, p50Ratio) <= 1.15 {
					verdict = "within (" + verdict + ")"
				} else {
					verdict = "OVER (" + verdict + ")"
				}
			}
			t.last().rows = append(t.last().rows, tableRow{what: what, measured: us(cpus[i]) + " CPU, p50 " + us(p50s[i]), bound: bound, verdict: verdict})
		}
		if s.name == "16" {
			for _, c := range list[:2] {
				t.note("%s, 16 at once, its CPU: %s", c.name, profiled(b, func() {
					for end := time.Now().Add(time.Duration(4 * scale * float64(time.Second))); time.Now().Before(end); {
						s.batch(b, clients, c, s.requests)
					}
				}))
			}
		}
		for _, h := range clients {
			_ = h.Close()
		}
	}
	t.note("CPU is the whole process's, its clients' half included. The echo on the native's own host shows what the handler, the registry and its outbox add; the other two are hosts of their own, as libp2p makes one and with all limits and metrics off.")
	t.note("A default libp2p host takes no more than 252 connections, so the fan-in has no such echo.")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func ratios(of, to []float64) []float64 {
	each := make([]float64, len(of))
	for i := range of {
		each[i] = of[i] / to[i]
	}
	return each
}

func ask(ctx context.Context, h host.Host, to peer.ID, name protocol.ID, frame string) (string, error) {
	s, err := h.NewStream(ctx, to, name)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := io.WriteString(s, frame); err != nil {
		return "", err
	}
	if err := s.CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(s)
	return string(answer), err
}

// cpu returns what this process has used so far, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// profiled runs f and says where its CPU went.
func profiled(b *testing.B, f func()) string {
	b.Helper()
	var out bytes.Buffer
	if err := pprof.StartCPUProfile(&out); err != nil {
		return "not profiled: " + err.Error() // by -cpuprofile already
	}
	f()
	pprof.StopCPUProfile()
	p, err := profile.Parse(&out)
	if err != nil {
		b.Fatal(err)
	}
	return shares(p)
}

// layers are what CPU is put down to, by the package of the function that called for
// it: the innermost of these on its stack. What has none of them is Go's own: the
// collector, which sweeps up behind all of them, and the scheduler.
var layers = []struct{ name, packages string }{
	{"system calls", "internal/runtime/syscall.,syscall.,internal/poll."},
	{"noise", "github.com/libp2p/go-libp2p/p2p/security/noise,github.com/flynn/noise,crypto/,golang.org/x/crypto/,github.com/libp2p/go-libp2p/core/crypto"},
	{"yamux", "github.com/libp2p/go-yamux,github.com/libp2p/go-libp2p/p2p/muxer"},
	{"QUIC", "github.com/quic-go/"},
	{"simulated network", "github.com/marcopolo/simnet"},
	{"multistream", "github.com/multiformats/go-multistream"},
	{"limits", "github.com/libp2p/go-libp2p/p2p/host/resource-manager"},
	{"DHT", "github.com/libp2p/go-libp2p-kad-dht,github.com/libp2p/go-libp2p-kbucket,github.com/libp2p/go-libp2p-record,github.com/opencloud/ocnode/adapters/kaddht"},
	{"GossipSub", "github.com/libp2p/go-libp2p-pubsub,github.com/opencloud/ocnode/adapters/gossip"},
	{"ocnode", "github.com/opencloud/ocnode/domain,github.com/opencloud/ocnode/adapters,github.com/opencloud/ocnode/modules."},
	{"libp2p's host and swarm", "github.com/libp2p/,github.com/multiformats/"},
	{"this benchmark", "github.com/opencloud/ocnode/modules_test"},
}

const restOfLayers = "Go's scheduler and collector"

// shares returns each layer's share of p, the largest first.
func shares(p *profile.Profile) string {
	sums := make(map[string]int64)
	var total int64
	for _, s := range p.Sample {
		value := s.Value[len(s.Value)-1]
		sums[layerOf(s)] += value
		total += value
	}
	names := slices.Collect(func(yield func(string) bool) {
		for name := range sums {
			if !yield(name) {
				return
			}
		}
	})
	slices.SortFunc(names, func(x, y string) int { return int(sums[y] - sums[x]) })
	var said []string
	for _, name := range names {
		if percent := 100 * float64(sums[name]) / float64(total); percent >= 0.5 {
			said = append(said, fmt.Sprintf("%s %.0f %%", name, percent))
		}
	}
	return strings.Join(said, ", ")
}

func layerOf(s *profile.Sample) string {
	for _, location := range s.Location { // the innermost first
		for _, line := range location.Line {
			for _, layer := range layers {
				for prefix := range strings.SplitSeq(layer.packages, ",") {
					if strings.HasPrefix(line.Function.Name, prefix) {
						return layer.name
					}
				}
			}
		}
	}
	return restOfLayers
}
