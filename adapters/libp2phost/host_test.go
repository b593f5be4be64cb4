package libp2phost

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/adapters/internal/metricstest"
)

func TestNewDoesNotListenAndListenBindsAll(t *testing.T) {
	h := newHost(t, newKey(t))
	if addrs := h.Network().ListenAddresses(); len(addrs) != 0 {
		t.Fatalf("listens before Listen: %v", addrs)
	}
	if passed, err := Listen(h, []string{loopbackTCP, loopbackQUIC, loopbackTCP}, false); err != nil || passed != nil {
		t.Fatalf("%v, passed over %v", err, passed)
	}
	if addrs := h.Addrs(); len(addrs) != 2 {
		t.Errorf("told at once: %v", addrs)
	}
	// Nothing of what is not used answers.
	want := []string{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"}
	var got []string
	for _, id := range h.Mux().Protocols() {
		got = append(got, string(id))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("serves %v, want %v", got, want)
	}
}

func TestListenRefusesAPortInUseAndFreesTheRest(t *testing.T) {
	for _, kind := range []string{"tcp", "quic"} {
		t.Run(kind, func(t *testing.T) {
			taken := newHost(t, newKey(t), ownTCP, ownQUIC)
			inUse := taken.Addrs()[slices.IndexFunc(taken.Addrs(), func(a ma.Multiaddr) bool {
				return hasProtocol(a, ma.P_TCP) == (kind == "tcp")
			})].String()
			for _, optional := range []bool{false, true} {
				h := newHost(t, newKey(t))
				_, err := Listen(h, []string{ownTCP, inUse, ownQUIC}, optional)
				if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), inUse) || !strings.Contains(err.Error(), "host.listen") {
					t.Errorf("optional %v: got %v", optional, err)
				}
				bound := h.Addrs()
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
				newHost(t, newKey(t), addrStrings(bound)...)
			}
		})
	}
}

func addrStrings(addrs []ma.Multiaddr) []string {
	var texts []string
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return texts
}

// stubHost has a network that answers each AddListenAddr as bind does.
type stubHost struct {
	host.Host
	bind func(ma.Multiaddr) error
}

type stubNetwork struct {
	network.Network
	bind func(ma.Multiaddr) error
}

func (h stubHost) Network() network.Network              { return stubNetwork{bind: h.bind} }
func (n stubNetwork) AddListenAddr(a ma.Multiaddr) error { return n.bind(a) }

func TestListenPassesOverAMissingFamilyOfTheBuiltInList(t *testing.T) {
	lacking := func(family int, errno syscall.Errno) func(ma.Multiaddr) error {
		return func(a ma.Multiaddr) error {
			if hasProtocol(a, family) {
				return &net.OpError{Op: "listen", Err: os.NewSyscallError("socket", errno)}
			}
			return nil
		}
	}
	all := func(ma.Multiaddr) error { return syscall.EAFNOSUPPORT }
	v4, v6 := "/ip4/0.0.0.0/tcp/4101", "/ip6/::/tcp/4101"
	for name, test := range map[string]struct {
		bind     func(ma.Multiaddr) error
		addrs    []string
		optional bool
		passed   []string
		want     string
	}{
		"IPv6 not compiled in":   {lacking(ma.P_IP6, syscall.EAFNOSUPPORT), []string{v4, v6}, true, []string{v6}, ""},
		"IPv6 switched off":      {lacking(ma.P_IP6, syscall.EADDRNOTAVAIL), []string{v4, v6}, true, []string{v6}, ""},
		"IPv4 missing":           {lacking(ma.P_IP4, syscall.EAFNOSUPPORT), []string{v4, v6}, true, []string{v4}, ""},
		"both missing":           {all, []string{v4, v6}, true, []string{v4, v6}, "neither IPv4 nor IPv6"},
		"asked for by name":      {lacking(ma.P_IP6, syscall.EAFNOSUPPORT), []string{v4, v6}, false, nil, v6},
		"port in use":            {lacking(ma.P_IP6, syscall.EADDRINUSE), []string{v4, v6}, true, nil, "stop the process"},
		"privileged port":        {lacking(ma.P_IP6, syscall.EACCES), []string{v4, v6}, true, nil, "above 1023"},
		"another host's address": {lacking(ma.P_IP4, syscall.EADDRNOTAVAIL), []string{"/ip4/192.0.2.1/tcp/1"}, true, nil, "addresses of this machine"},
		"does not parse":         {all, []string{"4101"}, true, nil, "not a multiaddr"},
	} {
		t.Run(name, func(t *testing.T) {
			passed, err := Listen(stubHost{bind: test.bind}, test.addrs, test.optional)
			if !slices.Equal(passed, test.passed) {
				t.Errorf("passed over %v, want %v", passed, test.passed)
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAnnounceReplacesWhatOthersAreTold(t *testing.T) {
	key := newKey(t)
	id, _ := PeerIDOf(key)
	h, err := New(Config{Key: key, Limits: testLimits, UserAgent: "ocnode/1.2.3", Announce: []string{"/dns4/native.example/tcp/4101", "/ip4/192.0.2.1/tcp/1/p2p/" + string(id)}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := Listen(h, []string{loopbackTCP}, false); err != nil {
		t.Fatal(err)
	}
	want := []string{"/dns4/native.example/tcp/4101", "/ip4/192.0.2.1/tcp/1"}
	got := addrStrings(h.Addrs()) // in no order of ours
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("announces %v, want %v", got, want)
	}
	other := newHost(t, newKey(t))
	info := infoOf(h)
	info.Addrs = h.Network().ListenAddresses()
	if err := other.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if agent, err := other.Peerstore().Get(h.ID(), "AgentVersion"); err != nil || agent != "ocnode/1.2.3" {
		t.Errorf("user agent %v, %v", agent, err)
	}
	for _, addr := range []string{"/ip4/0.0.0.0/tcp/1", "/ip4/192.0.2.1/tcp/1/p2p/" + otherID} {
		if _, err := New(Config{Key: key, Announce: []string{addr}}); err == nil || !strings.Contains(err.Error(), "host.announce") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestTwoHostsWithMetricsInOneProcess(t *testing.T) {
	registries := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	var hosts []host.Host
	for _, registry := range registries {
		h, err := New(Config{Key: newKey(t), Limits: testLimits, Metrics: registry})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if _, err := Listen(h, []string{loopbackTCP, loopbackQUIC}, false); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	to := infoOf(hosts[1]) // by one address, as a slow dial is joined by the next
	to.Addrs = slices.DeleteFunc(to.Addrs, func(a ma.Multiaddr) bool { return !hasProtocol(a, ma.P_TCP) })
	if err := hosts[0].Connect(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	got := metricstest.Gather(t, registries[0])
	for series, want := range map[string]float64{
		// Each host's own.
		`ocnode_connections{direction="outbound"}`:      1,
		`ocnode_connections{direction="inbound"}`:       0,
		`ocnode_connection_limit{direction="inbound"}`:  float64(testLimits.inbound()),
		`ocnode_connection_limit{direction="outbound"}`: float64(testLimits.Conns),
		`ocnode_stream_limit`:                           float64(testLimits.streams()),
		`ocnode_blocked_total{resource="peer"}`:         0,
		`ocnode_blocked_total{resource="peer_service"}`: 0,
	} {
		if value, ok := got[series]; !ok || value != want {
			t.Errorf("%s is %v, want %v", series, value, want)
		}
	}
	if other := metricstest.Gather(t, registries[1]); other[`ocnode_connections{direction="inbound"}`] != 1 || other[`ocnode_connections{direction="outbound"}`] != 0 {
		t.Errorf("the other host has %v", other)
	}
	// The process's, in both.
	swarm := 0
	for series := range got {
		if strings.HasPrefix(series, "libp2p_swarm_connections_opened_total{") {
			swarm++
		}
		if strings.HasPrefix(series, "libp2p_") && !strings.HasPrefix(series, "libp2p_swarm_") && !strings.HasPrefix(series, "libp2p_identify_") {
			t.Errorf("%s is there", series)
		}
	}
	if swarm == 0 {
		t.Errorf("none of libp2p's own counts connections: %v", got)
	}
	if _, err := New(Config{Key: newKey(t), Limits: testLimits, Metrics: registries[0]}); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("a second host in one registry: %v", err)
	}
}

func TestDialTCPFirst(t *testing.T) {
	ms := time.Millisecond
	for name, test := range map[string][]struct {
		addr  string
		delay time.Duration
	}{
		"nothing":   {},
		"TCP alone": {{"/ip4/8.8.8.8/tcp/1", 0}},
		// Without TCP nothing is waited for.
		"QUIC alone": {{"/ip4/8.8.8.8/udp/1/quic-v1", 0}},
		"both": {
			{"/ip4/8.8.8.8/tcp/1", 0},
			{"/ip4/8.8.8.8/udp/1/quic-v1", 250 * ms},
		},
		"private and public": {
			{"/ip4/10.0.0.1/tcp/1", 0},
			{"/ip4/8.8.8.8/tcp/1", 0},
			{"/ip4/10.0.0.1/udp/1/quic-v1", 250 * ms},
			{"/ip4/8.8.8.8/udp/1/quic-v1", 250 * ms},
		},
		"both families": {
			{"/ip6/2a00::1/tcp/1", 0},
			{"/ip4/8.8.8.8/tcp/1", 250 * ms},
			{"/ip6/2a00::1/udp/1/quic-v1", 500 * ms},
			{"/ip4/8.8.8.8/udp/1/quic-v1", 750 * ms},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var addrs []ma.Multiaddr
			var want, got []string
			for _, dial := range test {
				addrs = append(addrs, ma.StringCast(dial.addr))
				want = append(want, fmt.Sprint(dial.addr, " ", dial.delay))
			}
			slices.Reverse(addrs)
			for _, dial := range dialTCPFirst(addrs) {
				got = append(got, fmt.Sprint(dial.Addr, " ", dial.Delay))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

func TestHostsConnectOverTCPIfTheyCanAndOverQUICIfNot(t *testing.T) {
	both := newHost(t, newKey(t), loopbackTCP, loopbackQUIC)
	quicOnly := newHost(t, newKey(t), loopbackQUIC)
	overTCP := func(to host.Host) bool {
		h := newHost(t, newKey(t))
		if err := h.Connect(t.Context(), infoOf(to)); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(h.Network().Conns(), func(c network.Conn) bool { return !hasProtocol(c.RemoteMultiaddr(), ma.P_TCP) })
	}
	// QUIC joins a TCP dial that takes 250 ms, as it may where the machine stalls.
	for tries := 10; !overTCP(both); tries-- {
		if tries == 0 {
			t.Fatal("connected over QUIC where TCP answers")
		}
	}
	if overTCP(quicOnly) {
		t.Error("connected over TCP where nothing listens")
	}
}
