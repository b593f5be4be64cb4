package libp2phost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestLimitsForMachines(t *testing.T) {
	for _, test := range []struct {
		name           string
		memory, files  uint64
		conns, holding int
		streams        int
	}{
		{"a small machine", 512 << 20, 256, 192, 144, 512},
		{"a usual container", 2 << 30, 1024, 768, 576, 2048},
		{"a large machine with few files", 64 << 30, 1024, 768, 576, 65536},
		{"a small machine with many files", 512 << 20, 1 << 20, 1024, 768, 512},
		{"just enough for 10,000", 7 << 30, 14358, 13334, 10000, 7168},
		{"a file too few for 10,000", 7 << 30, 14357, 13333, 9999, 7168},
		{"a server", 24 << 30, 20000, 18976, 14232, 24576},
		{"a server without a file limit", 24 << 30, 1 << 63, 49152, 36864, 24576},
		{"unknown", 0, 0, 768, 576, 1024},
		{"a toy", 16 << 20, 16, 16, 12, 256},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := LimitsFor(test.memory, test.files)
			if l.Conns != test.conns || l.highWater() != test.holding || l.streams() != test.streams {
				t.Errorf("%d connections, %d held, %d streams; want %d, %d, %d", l.Conns, l.highWater(), l.streams(), test.conns, test.holding, test.streams)
			}
			if !(0 < l.lowWater() && l.lowWater() < l.highWater() && l.highWater() <= l.inbound() && l.inbound() < l.Conns && l.perSite() > 0) {
				t.Errorf("out of order: %d < %d <= %d < %d", l.lowWater(), l.highWater(), l.inbound(), l.Conns)
			}
			manager, err := l.resourceManager(nil)
			if err != nil {
				t.Fatal(err)
			}
			manager.Close()
		})
	}
	if l := DefaultLimits(); l.Conns < MinConns || l.Memory < MinMemory {
		t.Errorf("of this machine: %+v", l)
	}
}

// openConns asks the resource manager for n connections from an address and returns
// how many it grants.
func openConns(t *testing.T, l Limits, n int, from func(i int) string) (granted int) {
	t.Helper()
	manager, err := l.resourceManager(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	for i := range n {
		scope, err := manager.OpenConnection(network.DirInbound, true, ma.StringCast(from(i)))
		if err != nil {
			continue
		}
		defer scope.Done()
		// With a peer it leaves the bound on handshakes.
		if err := scope.SetPeer(peer.ID(fmt.Sprint("peer", i))); err != nil {
			t.Fatal(err)
		}
		granted++
	}
	return granted
}

func TestLimitsPerSite(t *testing.T) {
	l := LimitsFor(2<<30, 1024) // 768 connections
	for name, test := range map[string]struct {
		from func(i int) string
		want int
	}{
		"one IPv4 address": {func(int) string { return "/ip4/8.8.8.8/tcp/1" }, 384},
		"one IPv4 block":   {func(i int) string { return fmt.Sprintf("/ip4/8.8.8.%d/tcp/1", i%250+1) }, 672},
		"many IPv4 addresses": {func(i int) string {
			return fmt.Sprintf("/ip4/8.8.%d.%d/tcp/1", i/250, i%250+1)
		}, 672},
		"one IPv6 site": {func(i int) string { return fmt.Sprintf("/ip6/2a00:0:0:1::%x/tcp/1", i) }, 384},
		"one IPv6 block": {func(i int) string {
			return fmt.Sprintf("/ip6/2a00:0:0:%x00::1/tcp/1", i%250)
		}, 672},
		"loopback": {func(int) string { return "/ip4/127.0.0.1/tcp/1" }, 672},
	} {
		t.Run(name, func(t *testing.T) {
			if got := openConns(t, l, l.Conns, test.from); got != test.want {
				t.Errorf("%d connections granted, want %d", got, test.want)
			}
		})
	}
	set := l
	set.PerSite, set.CountLoopback = 100, true
	for from, want := range map[string]int{
		"/ip4/8.8.8.8/tcp/1": 100, "/ip4/8.8.8.%d/tcp/1": 200, "/ip6/2a00:0:0:%x00::1/tcp/1": 200,
		"/ip4/127.0.0.1/tcp/1": 100, "/ip6/::1/tcp/1": 100,
	} {
		got := openConns(t, set, l.Conns, func(i int) string {
			if strings.Contains(from, "%") {
				return fmt.Sprintf(from, i%250)
			}
			return from
		})
		if got != want {
			t.Errorf("with 100 a site set, %d connections from %s granted, want %d", got, from, want)
		}
	}
}

// What looks like an attack may be a company that leaves by one address, or by a few.
func TestAttackLimitsLetFiveThousandIn(t *testing.T) {
	const indexers = 5000
	// What README asks of the machine of a native of 10,000 indexers.
	l := LimitsFor(7<<30, 14358)
	for name, from := range map[string]func(i int) string{
		"one address":   func(int) string { return "/ip4/8.8.8.8/tcp/1" },
		"250 addresses": func(i int) string { return fmt.Sprintf("/ip4/8.8.8.%d/tcp/1", i%250+1) },
		"one IPv6 site": func(i int) string { return fmt.Sprintf("/ip6/2a00:0:0:1::%x/tcp/1", i) },
	} {
		got := openConns(t, l, indexers, from)
		t.Logf("%s: %d of %d connections granted at once", name, got, indexers)
		if got != indexers {
			t.Errorf("%s: %d of %d connections granted", name, got, indexers)
		}
	}
}

func TestASiteMayDialAgainEachHeartbeat(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		l := LimitsFor(2<<30, 1024)
		manager, err := l.resourceManager(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer manager.Close()
		for _, burst := range []struct {
			after time.Duration
			want  int
		}{{0, l.perSite()}, {0, 0}, {redialPeriod / 4, l.perSite() / 4}, {redialPeriod, l.perSite()}} {
			time.Sleep(burst.after)
			granted := 0
			for range l.perSite() {
				if scope, err := manager.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/8.8.8.8/tcp/1")); err == nil {
					granted++
					scope.Done()
				}
			}
			if granted != burst.want {
				t.Errorf("%d connections granted %v later, want %d", granted, burst.after, burst.want)
			}
		}
	})
}

func TestOutboundConnectionsSurviveAFlood(t *testing.T) {
	l := LimitsFor(512<<20, 256)
	manager, err := l.resourceManager(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	for i := range l.Conns {
		if scope, err := manager.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/127.0.0.1/tcp/1")); err == nil {
			defer scope.Done()
			if err := scope.SetPeer(peer.ID(fmt.Sprint("peer", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range l.Conns / outboundShare {
		scope, err := manager.OpenConnection(network.DirOutbound, true, ma.StringCast("/ip4/8.8.8.8/tcp/1"))
		if err != nil {
			t.Fatalf("outbound connection %d: %v", i, err)
		}
		defer scope.Done()
		if err := scope.SetPeer("native"); err != nil && i < peerConns {
			t.Fatal(err)
		}
	}
}

// dialLight connects to a host as an identity of its own that costs no more than the
// connection.
func dialLight(ctx context.Context, t testing.TB, to host.Host) (transport.CapableConn, error) {
	key := newKey(t)
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	dialer, err := tcp.NewTCPTransport(up, nil, nil, tcp.DisableReuseport())
	if err != nil {
		return nil, err
	}
	return dialer.Dial(ctx, to.Addrs()[0], to.ID())
}

func TestANativeHoldsManyConnections(t *testing.T) {
	const clients = 600 // libp2p's defaults end at 252
	native := newHost(t, newKey(t), loopbackTCP)
	ctx, cancel := context.WithTimeout(t.Context(), 5*porttest.Patience)
	defer cancel()
	var dialers sync.WaitGroup
	var mu sync.Mutex
	var conns []transport.CapableConn
	for range 8 {
		dialers.Go(func() {
			for range clients / 8 {
				conn, err := dialLight(ctx, t, native)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	dialers.Wait()
	porttest.Eventually(t, "all connections held", func() bool { return len(native.Network().Peers()) == clients })
	native.ConnManager().TrimOpenConns(ctx)
	if held := len(native.Network().Peers()); held != clients {
		t.Errorf("%d of %d held", held, clients)
	}
	for _, conn := range conns {
		conn.Close()
	}
}

// Natives gossip with all natives that they are connected to, and ask their DHT, each on a stream each way.
func TestEachConnectedNativeHasItsStreams(t *testing.T) {
	for _, gib := range []uint64{1, 2, 4, 8, 16} {
		l := LimitsFor(gib<<30, 1<<16)
		manager, err := l.resourceManager(nil)
		if err != nil {
			t.Fatal(err)
		}
		open := func(p peer.ID, way network.Direction) error {
			s, err := manager.OpenStream(p, way)
			if err == nil {
				err = s.SetProtocol("/meshsub/1.2.0")
			}
			return err
		}
		for i := range l.Natives() {
			p := peer.ID(fmt.Sprint("native ", i))
			if err := errors.Join(open(p, network.DirInbound), open(p, network.DirOutbound)); err != nil {
				t.Errorf("with %d GiB native %d of %d has no stream: %v", gib, i, l.Natives(), err)
				break
			}
		}
		if err := manager.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStreamsOfOnePeerAreBoundedAndOthersServed(t *testing.T) {
	native := newHost(t, newKey(t), loopbackTCP)
	release := make(chan struct{})
	var serving sync.WaitGroup
	for _, id := range []protocol.ID{ports.SubscribeProtocol, "/opencloud/other/1.0"} {
		native.SetStreamHandler(id, func(s network.Stream) {
			serving.Add(1)
			defer serving.Done()
			defer s.Close()
			if _, err := s.Write([]byte{1}); err == nil {
				<-release
			}
		})
	}
	var streams []network.Stream
	served := func(h host.Host, id protocol.ID) bool {
		ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
		defer cancel()
		s, err := h.NewStream(ctx, native.ID(), id)
		if err != nil {
			return false
		}
		streams = append(streams, s)
		s.SetDeadline(time.Now().Add(porttest.Patience))
		s.Write([]byte{1})
		_, err = io.ReadFull(s, make([]byte, 1))
		return err == nil
	}
	greedy, modest := newHost(t, newKey(t)), newHost(t, newKey(t))
	for _, h := range []host.Host{greedy, modest} {
		if err := h.Connect(t.Context(), infoOf(native)); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	for range 2 * peerProtocolStreams {
		if served(greedy, ports.SubscribeProtocol) {
			count++
		}
	}
	if count != peerProtocolStreams {
		t.Errorf("%d streams served, want %d", count, peerProtocolStreams)
	}
	if !served(modest, ports.SubscribeProtocol) {
		t.Error("another peer is not served")
	}
	if !served(greedy, "/opencloud/other/1.0") {
		t.Error("another protocol of the same peer is not served")
	}
	close(release)
	serving.Wait()
	for _, s := range streams {
		s.Close()
	}
	porttest.Eventually(t, "served again", func() bool { return served(greedy, ports.SubscribeProtocol) })
}
