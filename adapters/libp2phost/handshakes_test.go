package libp2phost

import (
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports/porttest"
)

// pipes is a listener of net.Pipe, which works in fake time.
type pipes struct {
	conns  chan manet.Conn
	closed chan struct{}
}

func (p pipes) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case conn := <-p.conns:
		return conn, &network.NullScope{}, nil
	case <-p.closed:
		return nil, nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}
func (pipes) Addr() net.Addr          { return new(net.TCPAddr) }
func (pipes) Multiaddr() ma.Multiaddr { return ma.StringCast("/ip4/192.0.2.1/tcp/1") }

type pipeEnd struct{ net.Conn }

func (pipeEnd) LocalMultiaddr() ma.Multiaddr  { return ma.StringCast("/ip4/192.0.2.1/tcp/1") }
func (pipeEnd) RemoteMultiaddr() ma.Multiaddr { return ma.StringCast("/ip4/192.0.2.2/tcp/1") }

// dial returns the other end of a new connection.
func (p pipes) dial() pipeEnd {
	here, there := net.Pipe()
	p.conns <- pipeEnd{there}
	return pipeEnd{here}
}

func newUpgrader(t *testing.T) (transport.Upgrader, peer.ID) {
	t.Helper()
	key := newKey(t)
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		t.Fatal(err)
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return up, id
}

func TestAHandshakeThatDoesNotEndIsCutOff(t *testing.T) {
	handshakeTimeout := timeoutsOf(0).handshake
	porttest.FakeTime(t, func(t *testing.T) {
		native, id := newUpgrader(t)
		p := pipes{make(chan manet.Conn), make(chan struct{})}
		l := timedUpgrader{native, handshakeTimeout}.UpgradeGatedMaListener(nil, p)
		defer l.Close()
		inside := make(chan transport.CapableConn)
		go func() {
			for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
				inside <- conn
			}
		}()

		silent, slow := p.dial(), p.dial()
		ended := make(chan time.Duration, 2)
		began := time.Now()
		for _, conn := range []net.Conn{silent, slow} {
			go func() {
				_, _ = io.Copy(io.Discard, conn)
				ended <- time.Since(began)
			}()
		}
		go func() { // a byte at a time is no progress
			for _, b := range []byte("\x13/multistream/1.0.0\n\x07/noise\n") {
				_, _ = slow.Write([]byte{b})
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(handshakeTimeout - 1)
		synctest.Wait()
		if n := len(ended); n > 0 {
			t.Errorf("the instant before, %d have ended", n)
		}
		for range cap(ended) {
			if after := <-ended; after != handshakeTimeout {
				t.Errorf("a connection without a handshake ended after %v, want %v", after, handshakeTimeout)
			}
		}

		other, _ := newUpgrader(t)
		conn, err := other.Upgrade(t.Context(), nil, p.dial(), network.DirOutbound, id, &network.NullScope{})
		if err != nil {
			t.Fatal(err)
		}
		in := <-inside
		time.Sleep(2 * handshakeTimeout)
		if in.IsClosed() || conn.IsClosed() {
			t.Error("a connection that ended its handshake was cut off as well")
		}
		_, _ = conn.Close(), in.Close()
		time.Sleep(time.Minute) // what a closing connection still waits for
	})
}

func TestASiteHasHalfOfTheHandshakes(t *testing.T) {
	l := LimitsFor(2<<30, 1024) // 768 connections, of which 192 in their handshake
	l.CountLoopback = true
	for _, test := range []struct {
		name   string
		addrs  []string
		proven bool // each at once
		want   []int
	}{
		{"an address and another", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"}, false, []int{96, 96}},
		{"an address of IPv6, its site, and another", []string{"/ip6/2001:db8::1/tcp/1", "/ip6/2001:db8:0:80::1/udp/1/quic-v1", "/ip6/2001:db8:0:100::1/tcp/1"}, false, []int{96, 0, 96}},
		{"TCP and QUIC together", []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"}, false, []int{96, 0}},
		{"with an identity", []string{"/ip4/192.0.2.1/tcp/1"}, true, []int{200}},
	} {
		t.Run(test.name, func(t *testing.T) {
			manager, err := l.resourceManager(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			log := new(logged)
			w := &watchedResources{manager, newRefusals(l, log.logger(), nil)}
			var got []int
			var open []network.ConnManagementScope
			for _, addr := range test.addrs {
				n := 0
				for i := range 200 {
					scope, err := w.OpenConnection(network.DirInbound, true, ma.StringCast(addr))
					if err != nil {
						continue
					}
					if open = append(open, scope); test.proven {
						if err := scope.SetPeer(peer.ID(rune(i))); err != nil {
							t.Fatal(err)
						}
					}
					n++
				}
				got = append(got, n)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v connections in their handshake, want %v", got, test.want)
			}
			if warned := log.count("level=WARN", "connection refused by this node", `limit="connections of one site in their handshake" max=96`, "hint="); warned != 1 && !test.proven {
				t.Errorf("it warns %d times", warned)
			}
			for _, scope := range open {
				scope.Done()
				scope.Done()
			}
			if left := len(w.refusals.handshakes.of); left > 0 {
				t.Errorf("%d sites are counted when all connections have ended", left)
			}
		})
	}
}
