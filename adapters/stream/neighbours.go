package stream

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

// eventBuffer holds the host's events during an update: the host waits for a slow subscriber.
const eventBuffer = 256

// neighbours tracks the natives among the connected peers. It starts at its first use, since
// most nodes never use it.
type neighbours struct {
	host host.Host

	mu      sync.Mutex
	events  event.Subscription // nil before the first use
	closed  bool
	natives map[peer.ID]neighbour
	changed chan struct{}
	running sync.WaitGroup
}

// neighbour is a connected native, in its final form: with thousands of natives, a new spelling
// and order of all at each change would cost a core.
type neighbour = ports.Neighbour

func (n *neighbours) init(h host.Host) {
	n.host, n.natives, n.changed = h, make(map[peer.ID]neighbour), make(chan struct{})
}

// Neighbours implements ports.Transport. A native is a peer that speaks the registration
// protocol. libp2p learns that when it identifies the peer, a moment after it connects.
func (t *Transport) Neighbours() (natives []ports.Neighbour, changed <-chan struct{}) {
	n := &t.neighbours
	if err := n.begin(); err != nil {
		t.log.Error("natives that connect are not seen", "error", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, is := range n.natives {
		natives = append(natives, is)
	}
	slices.SortFunc(natives, func(a, b ports.Neighbour) int { return cmp.Compare(a.PeerID, b.PeerID) })
	return natives, n.changed
}

// begin subscribes to the host's events about its peers, and updates the peers it has.
func (n *neighbours) begin() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.events != nil || n.closed {
		return nil
	}
	events, err := n.host.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerProtocolsUpdated), new(event.EvtPeerConnectednessChanged),
	}, eventbus.BufSize(eventBuffer), eventbus.Name("ocnode/natives"))
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	n.events = events
	for _, id := range n.host.Network().Peers() {
		n.update(id)
	}
	n.running.Go(func() {
		for e := range events.Out() {
			n.mu.Lock()
			switch e := e.(type) {
			case event.EvtPeerIdentificationCompleted:
				n.update(e.Peer)
			case event.EvtPeerProtocolsUpdated:
				n.update(e.Peer)
			case event.EvtPeerConnectednessChanged:
				n.update(e.Peer)
			}
			n.mu.Unlock()
		}
	})
	return nil
}

// update records the current state of id. The caller holds mu.
func (n *neighbours) update(id peer.ID) {
	was, known := n.natives[id]
	is, native := n.current(id)
	if native {
		is.PeerID, is.Addrs = was.PeerID, bestFirst(n.host.Peerstore().Addrs(id), n.met(id))
		if !known {
			is.PeerID = ports.PeerID(id.String())
		}
		n.natives[id] = is
	} else {
		delete(n.natives, id)
	}
	if native == known && is.Watchable == was.Watchable {
		return
	}
	if !n.closed {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

func (n *neighbours) current(id peer.ID) (is neighbour, native bool) {
	if n.host.Network().Connectedness(id) != network.Connected {
		return neighbour{}, false
	}
	speaks, err := n.host.Peerstore().SupportsProtocols(id, Protocol, ports.FollowProtocol, ports.WatchProtocol)
	if err != nil || !slices.Contains(speaks, Protocol) {
		return neighbour{}, false
	}
	is = neighbour{Watchable: len(speaks) > 1} // by either watch
	is.At, is.Site = at(n.host.Network().ConnsToPeer(id))
	return is, true
}

// at returns the public address of the first of conns that has one, and its site.
func at(conns []network.Conn) (addr, site string) {
	for _, c := range conns {
		if site := siteOf(c.RemoteMultiaddr()); site != "" {
			return c.RemoteMultiaddr().String(), site
		}
	}
	return "", ""
}

func siteOf(a ma.Multiaddr) string {
	ip, err := manet.ToIP(a)
	if err != nil || !manet.IsPublicAddr(a) {
		return ""
	}
	addr, _ := netip.AddrFromSlice(ip)
	return sites.Counted(addr.Unmap()).String()
}

func (n *neighbours) close() {
	n.mu.Lock()
	events := n.events
	n.closed = true
	n.mu.Unlock()
	if events != nil {
		_ = events.Close()
	}
	n.running.Wait()
}

// met returns the IP addresses of the connections with id, without those of loopback: other readers
// do not reach id there.
func (n *neighbours) met(id peer.ID) (at []net.IP) {
	for _, c := range n.host.Network().ConnsToPeer(id) {
		if ip, err := manet.ToIP(c.RemoteMultiaddr()); err == nil && !ip.IsLoopback() {
			at = append(at, ip)
		}
	}
	return at
}

// bestFirst returns the best of addrs as text, at most MaxAddrs: first those with an IP address of
// met, then public addresses, loopback last, TCP before others. Only the neighbour itself knows
// which of its private addresses lead to a bridge.
func bestFirst(addrs []ma.Multiaddr, met []net.IP) (ranked []string) {
	order := func(a ma.Multiaddr) int {
		order := 4
		ip, err := manet.ToIP(a)
		switch {
		case err == nil && slices.ContainsFunc(met, ip.Equal):
			order = 0
		case manet.IsIPLoopback(a):
			order = 6
		case manet.IsPublicAddr(a):
			order = 2
		}
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
			order++
		}
		return order
	}
	for _, a := range slices.SortedFunc(slices.Values(addrs), func(a, b ma.Multiaddr) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), a.Compare(b))
	}) {
		if text := a.String(); len(text) <= ports.MaxAddrBytes && len(ranked) < ports.MaxAddrs {
			ranked = append(ranked, text)
		}
	}
	return ranked
}
