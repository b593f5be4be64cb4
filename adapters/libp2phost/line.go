package libp2phost

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"

	"github.com/opencloud/ocnode/ports"
)

// maxProbed bounds the connected peers, and the addresses, that one question goes to. A line that is
// lost for eight is lost for most.
const maxProbed = 8

// Line tells whether this node reaches other machines.
type Line struct {
	host host.Host
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

var _ ports.Line = (*Line)(nil)

// NewLine returns the line of h. dial dials other machines; nil is a net.Dialer's DialContext.
func NewLine(h host.Host, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Line {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &Line{h, dial}
}

// Works implements ports.Line. A peer answers a ping. A machine answers a TCP connection at its
// address: it takes it, or refuses it since the process there has ended. This machine's own answers
// count only if one of addrs is its own.
func (l *Line) Works(ctx context.Context, addrs []string) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	targets, local := machines(addrs)
	peers := l.peers(local)
	answers := make(chan bool)
	for _, p := range peers {
		go func() { answers <- l.pings(ctx, p) }()
	}
	for _, target := range targets {
		go func() { answers <- l.reaches(ctx, target) }()
	}
	works := false
	for range len(peers) + len(targets) {
		if <-answers {
			works = true
			cancel() // the others
		}
	}
	return works
}

// peers returns connected peers, those of this machine only if local is set.
func (l *Line) peers(local bool) (peers []peer.ID) {
	for _, p := range l.host.Network().Peers() {
		for _, c := range l.host.Network().ConnsToPeer(p) {
			if local || !manet.IsIPLoopback(c.RemoteMultiaddr()) {
				peers = append(peers, p)
				break
			}
		}
		if len(peers) == maxProbed {
			break
		}
	}
	return peers
}

// pings reports whether p answers over a connection that it has to this node. A peer that does not
// offer a ping answers so.
func (l *Line) pings(ctx context.Context, p peer.ID) bool {
	result := <-ping.Ping(network.WithNoDial(ctx, "is the line lost?"), l.host, p)
	var notOffered multistream.ErrNotSupported[protocol.ID]
	return result.Error == nil && result.RTT > 0 || errors.As(result.Error, &notOffered)
}

// reaches reports whether the machine at a TCP address answers.
func (l *Line) reaches(ctx context.Context, address string) bool {
	conn, err := l.dial(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}

// machines returns the IP and port of each address that has both, and whether one of them is this
// machine's own.
func machines(addrs []string) (targets []string, local bool) {
	for _, addr := range addrs {
		m, err := ma.NewMultiaddr(addr)
		if err != nil {
			continue
		}
		ip, err := manet.ToIP(m)
		if err != nil {
			continue // a name, or the address of a relay
		}
		port, err := m.ValueForProtocol(ma.P_TCP)
		if err != nil {
			port, err = m.ValueForProtocol(ma.P_UDP) // any port tells whether the machine answers
		}
		if err != nil || len(targets) == maxProbed {
			continue
		}
		local = local || ip.IsLoopback()
		targets = append(targets, net.JoinHostPort(ip.String(), port))
	}
	return targets, local
}
