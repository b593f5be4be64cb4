package stream

import (
	"context"
	"net/netip"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports"
)

// DefaultWatchers bounds the watches that are served at once: what a native's memory holds
// of each (three goroutines, the stream, a frame) stays near 100 MB in all.
const DefaultWatchers = 1024

// Door decides who may register, by the authenticated identity and the IP address that
// the connection comes from, which is invalid if the connection has none. Its "no" is a
// *ports.Refusal. All methods are called concurrently.
type Door interface {
	// Hear is asked before a frame is read. It must not block.
	Hear(sender ports.PeerID, from netip.Addr) error
	// Admit is asked about each registration that decodes. What it returns is handed to
	// the native. ctx ends when it is time to answer.
	Admit(ctx context.Context, sender ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error)
	// Settle is told what became of each registration that was admitted.
	Settle(sender ports.PeerID, granted bool)
	// AdmitLeave and SettleLeave are the same for a leave.
	AdmitLeave(sender ports.PeerID, from netip.Addr) error
	SettleLeave(sender ports.PeerID, taken bool)
}

// Guard protects the natives that a Transport serves.
type Guard struct {
	// Door is asked who may register; nil lets everybody.
	Door Door
	// Watchers is how many watches are served at once; 0 is DefaultWatchers.
	Watchers int
}

// Guard guards what is served from then on; without it, everybody may register.
func (t *Transport) Guard(g Guard) {
	t.servingMu.Lock()
	defer t.servingMu.Unlock()
	t.guard = g
}

// openDoor is a door that lets everybody pass.
type openDoor struct{}

func (openDoor) Hear(ports.PeerID, netip.Addr) error { return nil }

func (openDoor) Admit(_ context.Context, _ ports.PeerID, _ netip.Addr, r ports.Registration) (ports.Registration, error) {
	return r, nil
}

func (openDoor) Settle(ports.PeerID, bool)                 {}
func (openDoor) AdmitLeave(ports.PeerID, netip.Addr) error { return nil }
func (openDoor) SettleLeave(ports.PeerID, bool)            {}

// comesFrom returns the IP address at the other end of c.
func comesFrom(c network.Conn) netip.Addr {
	ip, err := manet.ToIP(c.RemoteMultiaddr())
	if err != nil {
		return netip.Addr{}
	}
	from, _ := netip.AddrFromSlice(ip)
	return from.Unmap()
}
