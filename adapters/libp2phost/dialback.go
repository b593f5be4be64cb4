package libp2phost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/opencloud/ocnode/ports"
)

// WayBack dials the addresses that peers say are theirs.
type WayBack struct{ transports transports }

// transports is a network that tells what it would dial an address with.
type transports interface {
	TransportForDialing(ma.Multiaddr) transport.Transport
}

// NewWayBack returns a WayBack over the transports and the identity of h.
func NewWayBack(h host.Host) (*WayBack, error) {
	network, ok := h.Network().(transports)
	if !ok {
		return nil, fmt.Errorf("%T does not tell its transports", h.Network())
	}
	return &WayBack{network}, nil
}

// Resolve returns the addresses that a name in addr stands for now: addr itself if there
// is no name in it. It blocks until the resolver has answered or ctx ends.
func (w *WayBack) Resolve(ctx context.Context, addr string) ([]string, error) {
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return nil, err
	}
	resolved, err := madns.Resolve(ctx, m)
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(resolved))
	for i, m := range resolved {
		texts[i] = m.String()
	}
	return texts, nil
}

// Routes reports whether this node has a route to ip. It connects a UDP socket, which sends nothing.
func (w *WayBack) Routes(ip netip.Addr) bool {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, discardPort)))
	if err != nil {
		return !unrouted(err)
	}
	_ = conn.Close()
	return true
}

// discardPort is any port: nothing is sent there.
const discardPort = 9

// unrouted reports whether an error says that there is no route, or not even the family.
func unrouted(err error) bool {
	for _, no := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// Dial returns nil if id answers at addr, which has no name in it: a connection of its own
// is made there, whatever others there are, up to where the other side has proven who it
// is, and closed. It blocks until then or until ctx ends. Nothing is sent on it, so whoever
// else is there learns no more than that this node has dialled.
func (w *WayBack) Dial(ctx context.Context, id ports.PeerID, addr string) error {
	pid, err := peer.Decode(string(id))
	if err != nil {
		return err
	}
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return err
	}
	m, _ = peer.SplitAddr(m)
	t := w.transports.TransportForDialing(m)
	if t == nil || !t.CanDial(m) {
		return errors.New("this node has no transport for it")
	}
	conn, err := t.Dial(ctx, m, pid)
	if err != nil {
		return err
	}
	return conn.Close()
}
