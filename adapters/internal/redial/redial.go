// Package redial connects to a peer now, however often dials to it have failed.
package redial

import (
	"context"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// Connect is h.Connect without libp2p's back-off, which would put a peer off for up to 5 minutes
// after it was lost. Back-off forgets the peer before the dial.
//
// Do not use network.WithForceDirectDial, which passes over the back-off as well: go-libp2p v0.51
// panics if h is closed while such a dial begins, even if its caller has given up.
func Connect(ctx context.Context, h host.Host, info peer.AddrInfo) error {
	if s, ok := h.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	return h.Connect(ctx, info)
}
