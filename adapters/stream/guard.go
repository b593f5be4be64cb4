package stream

import (
	"context"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports"
)

// DefaultWatchers bounds concurrent watches: a watch takes three goroutines, the stream and a
// frame, all watches together near 200 MB. Half of them are for the natives that follow.
const DefaultWatchers = 2 * ports.MaxFollowed

// Door admits peers, by the authenticated identity and the IP address of the connection, which
// is invalid if the connection has none. It refuses with a *ports.Refusal. All methods are
// called concurrently.
type Door interface {
	// Hear admits a sender before its frame is read. It must not block.
	Hear(sender ports.PeerID, from netip.Addr) error
	// Admit admits a decoded registration and returns the registration for the native. ctx ends
	// with the time for the answer.
	Admit(ctx context.Context, sender ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error)
	// Settle reports whether the native granted an admitted registration.
	Settle(sender ports.PeerID, granted bool)
	// Renew is Hear, Admit and Settle in one, for a heartbeat that brings no addresses. The sender
	// holds nothing yet if held is false: then Admit and Settle follow. It must not block.
	Renew(sender ports.PeerID) (held bool, err error)
	// AdmitLeave and SettleLeave do the same for a leave.
	AdmitLeave(sender ports.PeerID, from netip.Addr) error
	SettleLeave(sender ports.PeerID, taken bool)
}

// Guard protects the natives that a Transport serves.
type Guard struct {
	// Door admits peers; nil admits all.
	Door Door
	// Watchers bounds concurrent watches; 0 is DefaultWatchers.
	Watchers int
}

// Guard applies g to later calls of Serve. Without a Guard, every peer may register.
func (t *Transport) Guard(g Guard) {
	t.servingMu.Lock()
	defer t.servingMu.Unlock()
	t.guard = g
}

// openDoor admits every peer.
type openDoor struct{}

func (openDoor) Hear(ports.PeerID, netip.Addr) error { return nil }

func (openDoor) Admit(_ context.Context, _ ports.PeerID, _ netip.Addr, r ports.Registration) (ports.Registration, error) {
	return r, nil
}

func (openDoor) Settle(ports.PeerID, bool)                 {}
func (openDoor) Renew(ports.PeerID) (bool, error)          { return true, nil }
func (openDoor) AdmitLeave(ports.PeerID, netip.Addr) error { return nil }
func (openDoor) SettleLeave(ports.PeerID, bool)            {}

// comesFrom returns the remote IP address of c.
func comesFrom(c network.Conn) netip.Addr {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}
	}
	from, _ := netip.AddrFromSlice(ip)
	return from.Unmap()
}
