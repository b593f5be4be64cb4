package gossip

import (
	"fmt"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/ports"
)

// gate is the host that the library gossips by: it hears natives alone, and nothing else
// that others send is even decoded.
type gate struct {
	host.Host
	natives func(ports.PeerID) bool
	// refused counts the streams of others.
	refused prometheus.Counter
}

func newGate(h host.Host, natives func(ports.PeerID) bool) *gate {
	if natives == nil {
		natives = func(ports.PeerID) bool { return true }
	}
	return &gate{Host: h, natives: natives, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "ocnode_gossip_untrusted_total",
		Help: "GossipSub streams that were turned away, since the peer is not in trust.natives.",
	})}
}

// SetStreamHandler implements host.Host.
func (g *gate) SetStreamHandler(p protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(p, func(s network.Stream) {
		from := ports.PeerID(s.Conn().RemotePeer().String())
		if !g.natives(from) {
			g.refused.Inc()
			_ = s.ResetWithError(network.StreamGated)
			return
		}
		handle(&gatedStream{s, g, from})
	})
}

// gatedStream is a stream of a native, which may be one no longer.
type gatedStream struct {
	network.Stream
	gate *gate
	from ports.PeerID
}

// Read implements network.Stream.
func (s *gatedStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if !s.gate.natives(s.from) {
		s.gate.refused.Inc()
		return 0, fmt.Errorf("%s is none of the natives that this node trusts", s.from)
	}
	return n, err
}

// outsiders is the blacklist of the library: it opens no stream to those on it, and hears
// nothing that is theirs, whoever hands it on.
type outsiders struct{ *gate }

var _ pubsub.Blacklist = outsiders{}

// Contains implements pubsub.Blacklist.
func (o outsiders) Contains(p peer.ID) bool { return !o.natives(ports.PeerID(p.String())) }

// Add implements pubsub.Blacklist. Nobody calls it.
func (o outsiders) Add(peer.ID) bool { return false }
