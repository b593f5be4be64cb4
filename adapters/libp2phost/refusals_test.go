package libp2phost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// tiny has room for four connections, of which one may be in its handshake.
var tiny = Limits{Conns: 4, Memory: MinMemory}

// limited makes a host with limits, that logs to log.
func limited(t *testing.T, l Limits, log *logged, addrs ...string) host.Host {
	t.Helper()
	h, err := New(Config{Key: newKey(t), Limits: l, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if _, err := Listen(h, addrs, false); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestARefusedConnectionIsToldOnBothSides(t *testing.T) {
	for name, listen := range map[string]string{"TCP": loopbackTCP, "QUIC": "/ip4/127.0.0.1/udp/0/quic-v1"} {
		t.Run(name, func(t *testing.T) {
			log := new(logged)
			native := limited(t, tiny, log, listen)
			for range tiny.inbound() {
				h := newHost(t, newKey(t))
				if err := h.Connect(t.Context(), infoOf(native)); err != nil {
					t.Fatal(err)
				}
				porttest.Eventually(t, "held", func() bool { return connected(native, h) })
			}
			refused, refusedLog := newHost(t, newKey(t)), new(logged)
			err := refused.Connect(t.Context(), infoOf(native))
			if err == nil {
				t.Fatal("one more than may be was let in")
			}
			if by := blame.Of(err); !strings.HasPrefix(by, "the other side") || !strings.Contains(by, "a limit of its own is reached") {
				t.Errorf("the refused side blames %q for %v", by, err)
			}
			if n := log.count("level=WARN", `msg="connection refused by this node"`, `limit="inbound connections" max=4`, "remoteAddr=/ip4/127.0.0.1/", "direction=inbound", "hint="); n != 1 {
				t.Errorf("the refusing side warns %d times:\n%s", n, log.text.String())
			}
			join(t, refused, JoinerConfig{Bootstrap: fullAddrs(native), Log: refusedLog.logger()})
			porttest.Eventually(t, "the joiner says who refused", func() bool {
				return refusedLog.count("level=WARN", "native cannot be reached", "the other side", "a limit of its own is reached") == 1
			})
			if n := log.count("level=WARN", "connection refused"); n != 1 {
				t.Errorf("a flood of refusals is %d lines", n)
			}
			if log.count("level=DEBUG", "connection refused") == 0 {
				t.Error("the others are not told at debug")
			}
		})
	}
}

func TestADialThatThisNodeRefusesItselfIsTold(t *testing.T) {
	log := new(logged)
	h := limited(t, tiny, log)
	for range tiny.Conns {
		if err := h.Connect(t.Context(), infoOf(newHost(t, newKey(t), loopbackTCP))); err != nil {
			t.Fatal(err)
		}
	}
	err := h.Connect(t.Context(), infoOf(newHost(t, newKey(t), loopbackTCP)))
	if by := blame.Of(err); !strings.HasPrefix(by, "this node refused it itself") {
		t.Errorf("%q is blamed for %v", by, err)
	}
	if log.count("level=WARN", "connection refused by this node", "limit=connections max=4", "direction=outbound") != 1 {
		t.Error(log.text.String())
	}
}

func TestAStreamBeyondAPeersShareIsToldOnBothSides(t *testing.T) {
	log := new(logged)
	native := limited(t, testLimits, log, loopbackTCP)
	release := make(chan struct{})
	defer close(release)
	native.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) {
		defer s.Close()
		if _, err := s.Write([]byte{1}); err == nil {
			<-release
		}
	})
	greedy, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	defer greedy.Close()
	if err := greedy.Connect(t.Context(), infoOf(native)); err != nil {
		t.Fatal(err)
	}
	for range peerProtocolStreams + 1 {
		s, openErr := greedy.NewStream(t.Context(), native.ID(), ports.SubscribeProtocol)
		if err = openErr; err != nil {
			break
		}
		defer s.Reset()
		s.SetDeadline(time.Now().Add(porttest.Patience))
		s.Write([]byte{1})
		if _, err = io.ReadFull(s, make([]byte, 1)); err != nil {
			break
		}
	}
	if by := blame.Of(err); !strings.Contains(by, "the other side refused the stream: a limit of its own is reached") {
		t.Errorf("%q is blamed for %v", by, err)
	}
	if log.count("level=WARN", "stream refused by this node", `limit="streams of one peer and protocol" max=64`, "peerID="+greedy.ID().String(), "protocol="+ports.SubscribeProtocol, "direction=inbound") != 1 {
		t.Error(log.text.String())
	}
}

func TestAConnectionClosedToMakeRoomIsToldOnBothSides(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) { // connGrace is long
		log := new(logged)
		limits := Limits{Conns: 8, Memory: MinMemory}
		told := newRefusals(limits, log.logger(), nil)
		manager, err := limits.connManager()
		if err != nil {
			t.Fatal(err)
		}
		watched := &watchedConns{manager, told}
		defer watched.Close()
		var conns []*idleConn
		for i := range limits.highWater() + 1 {
			c := &idleConn{id: peer.ID("peer" + string(rune('a'+i)))}
			c.closed = func() { watched.Notifee().Disconnected(nil, c) }
			conns = append(conns, c)
			watched.Notifee().Connected(nil, c)
		}
		time.Sleep(2 * connGrace) // it looks for itself every few seconds
		synctest.Wait()
		closed := 0
		for _, c := range conns {
			if c.code.Load() == uint32(network.ConnGarbageCollected) {
				closed++
			}
		}
		if want := limits.highWater() + 1 - limits.lowWater(); closed != want {
			t.Errorf("%d closed, want %d", closed, want)
		}
		if held := watched.GetInfo().ConnCount; held != limits.lowWater() {
			t.Errorf("%d counted, want %d: the manager does not find its connections again", held, limits.lowWater())
		}
		if n := log.count("level=WARN", "connection closed by this node to make room for others", `limit="connections held" max=6`, "peerID="); n != 1 {
			t.Errorf("%d lines:\n%s", n, log.text.String())
		}
	})
	remote := &network.ConnError{Remote: true, ErrorCode: network.ConnGarbageCollected}
	if by := blame.Of(remote); !strings.Contains(by, "the other side closed the connection, idle as it was") {
		t.Errorf("the other side blames %q", by)
	}
}

// idleConn is all that the connection manager asks of a connection.
type idleConn struct {
	network.Conn
	id     peer.ID
	code   atomic.Uint32
	closed func()
}

func (c *idleConn) RemotePeer() peer.ID                    { return c.id }
func (c *idleConn) RemoteMultiaddr() ma.Multiaddr          { return ma.StringCast("/ip4/192.0.2.1/tcp/1") }
func (c *idleConn) Stat() network.ConnStats                { return network.ConnStats{} }
func (c *idleConn) GetStreams() []network.Stream           { return nil }
func (c *idleConn) ConnState() (s network.ConnectionState) { return s }
func (c *idleConn) CloseWithError(code network.ConnErrorCode) error {
	if c.code.Swap(uint32(code)) == 0 {
		c.closed()
	}
	return nil
}

func TestWhichLimitRefused(t *testing.T) {
	log := new(logged)
	l := LimitsFor(2<<30, 1024)
	open := func(n int, dir network.Direction, from string) (network.ResourceManager, error) {
		t.Helper()
		manager, err := l.resourceManager(nil)
		if err != nil {
			t.Fatal(err)
		}
		watched := &watchedResources{manager, newRefusals(l, log.logger(), nil)}
		t.Cleanup(func() { watched.Close() })
		for range n {
			scope, openErr := watched.OpenConnection(dir, true, ma.StringCast(from))
			if openErr != nil {
				return watched, openErr
			}
			if err = scope.SetPeer("one"); err != nil {
				return watched, err
			}
		}
		return watched, nil
	}
	many, _ := open(0, network.DirInbound, "")
	var handshakes error
	for range l.Conns/transientShare + 1 {
		_, handshakes = many.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
	}
	if handshakes == nil || log.count("level=WARN", `limit="connections in their handshake" max=192 remoteAddr=/ip4/127.0.0.1/tcp/1 direction=inbound`) != 1 {
		t.Errorf("%v\n%s", handshakes, log.text.String())
	}
	if _, err := open(peerConns+1, network.DirInbound, "/ip4/127.0.0.1/tcp/1"); err == nil || log.count("level=WARN", `limit="connections of one peer" max=8`, "peerID=") != 1 {
		t.Errorf("%v\n%s", err, log.text.String())
	}
	site, _ := open(0, network.DirInbound, "")
	var err error
	for range l.perSite() + 1 {
		var scope network.ConnManagementScope
		if scope, err = site.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/8.8.8.8/tcp/1")); err == nil {
			scope.SetPeer(peer.ID(time.Now().String()))
		}
	}
	if err == nil || log.count("level=WARN", `limit="new connections of one site a minute"`)+log.count("level=WARN", `limit="connections of one site" max=384`) != 1 {
		t.Errorf("%v\n%s", err, log.text.String())
	}
}

func TestAFloodOfRefusalsIsALineAMinute(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		log := new(logged)
		told := newRefusals(tiny, log.logger(), nil)
		err := errors.New("connections per ip limit exceeded for /ip4/192.0.2.1/tcp/1")
		flood := func() {
			for range 1000 {
				told.conn(err, network.DirInbound, ma.StringCast("/ip4/192.0.2.1/tcp/1"), "")
			}
		}
		flood()
		time.Sleep(refusalsEvery - 1)
		flood()
		if n := log.count("level=WARN"); n != 1 {
			t.Errorf("%d lines in the first minute", n)
		}
		time.Sleep(time.Nanosecond)
		flood()
		if log.count("level=WARN") != 2 || log.count("level=WARN", "suppressed=1999") != 1 {
			t.Errorf("the second minute does not say how many there were")
		}
		told.conn(errors.New("context canceled"), network.DirInbound, nil, "")
		if log.count("canceled") != 0 || log.count() != 3000 {
			t.Error("what is no limit's doing is told as one")
		}
	})
}

func TestWhoIsToBlame(t *testing.T) {
	const silent = "no answer came in time: the line may be slow (host.timeout), or a firewall drops what is sent"
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"nobody answered", context.DeadlineExceeded, silent},
		{"no address answered", &swarm.DialError{Cause: context.DeadlineExceeded, DialErrors: []swarm.TransportError{{Cause: context.DeadlineExceeded}}}, silent},
		{"of two addresses, one refused", &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: []swarm.TransportError{{Cause: context.DeadlineExceeded}, {Cause: &network.ConnError{Remote: true, ErrorCode: network.ConnShutdown}}}},
			"the other side is shutting down"},
		{"it is not there", fmt.Errorf("dial: %w", syscall.ECONNREFUSED), ""},
		{"its handshake takes too long", fmt.Errorf("failed to negotiate security protocol: %w", context.DeadlineExceeded),
			"the other side took the connection, and its handshake did not end in time: the line may be slow (host.timeout), a firewall drops what is sent, or the other side is overloaded or out of open files; " +
				"if the addresses are right, the two may have different private network keys (host.psk), or only one of them has one"},
		{"it is shutting down", &network.ConnError{Remote: true, ErrorCode: network.ConnShutdown}, "the other side is shutting down"},
		{"this side closed it", &network.ConnError{ErrorCode: network.ConnShutdown}, ""},
		{"a reset without a reason", &network.StreamError{Remote: true}, "the other side reset the stream"},
		{"this side gave up", fmt.Errorf("failed to negotiate security protocol: %w", context.Canceled), ""},
		{"it offers neither TLS nor Noise", fmt.Errorf("failed to negotiate security protocol: %w", multistream.ErrNotSupported[protocol.ID]{}), ""},
		{"the end of a connection", io.ErrUnexpectedEOF, "the other side closed the connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := blame.Of(c.err); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if !errors.Is(blame.Explain(c.err), c.err) {
				t.Error("the explained error is another")
			}
		})
	}
}

func unlimited(t *testing.T, addrs ...ma.Multiaddr) host.Host {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return addrs }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestOnePeerDoesNotHoldAllHandshakesOfStreams(t *testing.T) {
	log := new(logged)
	limits := LimitsFor(512<<20, 1024)
	limits.CountLoopback = true
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("one of the two sites is that of IPv6: %v", err)
	} else {
		l.Close()
	}
	native := limited(t, limits, log, loopbackTCP, "/ip6/::1/tcp/0") // two sites
	native.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) {
		_, _ = s.Write([]byte{1})
		_ = s.Close()
	})
	greedy, modest := unlimited(t), unlimited(t)
	for i, h := range []host.Host{greedy, modest} {
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: native.ID(), Addrs: native.Addrs()[i : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	register := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
		defer cancel()
		s, err := modest.NewStream(ctx, native.ID(), ports.SubscribeProtocol)
		if err != nil {
			return err
		}
		defer s.Reset()
		_ = s.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = s.Write([]byte{1})
		_, err = io.ReadFull(s, make([]byte, 1))
		return err
	}
	if err := register(); err != nil {
		t.Fatal(err)
	}
	for range 160 {
		s, err := greedy.Network().NewStream(t.Context(), native.ID())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write([]byte{19})
	}
	porttest.Eventually(t, "one of its streams is refused", func() bool { return log.count("streams of one site in their handshake") > 0 })
	if err := register(); err != nil {
		t.Errorf("while one peer is silent on its streams, another's registration: %v", err)
	}
}
