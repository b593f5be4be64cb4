package libp2phost

import (
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

const (
	// leasedTag marks the connections of those who hold a lease here.
	leasedTag = "ocnode/lease"
	// leasedValue is more than that of strangers, 0, and less than that of the DHT's peers.
	leasedValue = 1
)

// Keep has the connections to id, which holds a lease here, closed after those of
// strangers when room is made, or no longer. It ends with the connections, so each renewal
// asks for it again. (libp2p has a protection that does not end. It keeps as many strangers
// beside the protected as it would keep without them, and no room is made at all.)
func Keep(h host.Host, id ports.PeerID, leased bool) {
	pid, err := peer.Decode(string(id))
	switch {
	case err != nil: // nobody who is connected
	case leased:
		h.ConnManager().TagPeer(pid, leasedTag, leasedValue)
	default:
		h.ConnManager().UntagPeer(pid, leasedTag)
	}
}
