package libp2phost

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	manet "github.com/multiformats/go-multiaddr/net"
)

// handshakes counts by its site each inbound connection that has not proven an identity yet. A
// resource manager bounds all of them together: silent connections of a single site would keep
// newcomers out.
type handshakes struct {
	most   int
	siteOf func(netip.Addr) netip.Prefix

	mu sync.Mutex
	of map[netip.Prefix]int
}

func newHandshakes(l Limits) *handshakes {
	return &handshakes{most: max(1, l.Conns/transientShare/siteShare), siteOf: l.site, of: make(map[netip.Prefix]int)}
}

// begin counts a connection from ip, or refuses it. The result is for end; it is invalid for an
// address that is not counted.
func (h *handshakes) begin(ip netip.Addr) (netip.Prefix, error) {
	site := h.siteOf(ip)
	if !site.IsValid() {
		return site, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of[site] >= h.most {
		return netip.Prefix{}, fmt.Errorf("site %s has %d connections in their handshake already: %w", site, h.most, network.ErrResourceLimitExceeded)
	}
	h.of[site]++
	return site, nil
}

func (h *handshakes) end(site netip.Prefix) {
	if !site.IsValid() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of[site]--; h.of[site] == 0 {
		delete(h.of, site)
	}
}

// newTCP returns a constructor of the TCP transport. It closes each inbound connection whose
// handshake takes too long. libp2p gives a handshake 15 s and has no option for that. (QUIC has a
// limit of its own: 5 s of silence, 10 s in all.)
func newTCP(t timeouts) func(transport.Upgrader, network.ResourceManager, *tcpreuse.ConnMgr) (*tcp.TcpTransport, error) {
	return func(u transport.Upgrader, r network.ResourceManager, shared *tcpreuse.ConnMgr) (*tcp.TcpTransport, error) {
		return tcp.NewTCPTransport(timedUpgrader{u, t.handshake}, r, shared, tcp.DisableReuseport(), tcp.WithConnectionTimeout(t.addr))
	}
}

type timedUpgrader struct {
	transport.Upgrader
	within time.Duration
}

// UpgradeGatedMaListener implements transport.Upgrader.
func (u timedUpgrader) UpgradeGatedMaListener(t transport.Transport, l transport.GatedMaListener) transport.Listener {
	return upgraded{u.Upgrader.UpgradeGatedMaListener(t, accepted{l, u.within})}
}

// accepted starts the time of each handshake.
type accepted struct {
	transport.GatedMaListener
	within time.Duration
}

func (l accepted) Accept() (manet.Conn, network.ConnManagementScope, error) {
	conn, scope, err := l.GatedMaListener.Accept()
	if err != nil {
		return nil, nil, err
	}
	return conn, &timedScope{scope, time.AfterFunc(l.within, func() { _ = conn.Close() })}, nil
}

// upgraded ends it.
type upgraded struct{ transport.Listener }

func (l upgraded) Accept() (transport.CapableConn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if scope, ok := conn.Scope().(*timedScope); ok {
		scope.timeout.Stop()
	}
	return conn, nil
}

// timedScope leads from an upgraded connection to the time-out of its handshake.
type timedScope struct {
	network.ConnManagementScope
	timeout *time.Timer
}

// Done implements network.ConnManagementScope.
func (s *timedScope) Done() {
	s.timeout.Stop()
	s.ConnManagementScope.Done()
}
