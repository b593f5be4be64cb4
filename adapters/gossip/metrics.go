package gossip

import (
	"errors"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"
)

var _ pubsub.RawTracer = (*metrics)(nil)

// reasons are the library's for rejecting a message, as a label has them. Its
// remaining ones cannot occur: the gate keeps out whoever is on the blacklist, all
// messages are signed.
var reasons = map[string]string{
	pubsub.RejectMissingSignature:    "missing_signature",
	pubsub.RejectInvalidSignature:    "invalid_signature",
	pubsub.RejectValidationQueueFull: "queue_full",
	pubsub.RejectValidationThrottled: "throttled",
	pubsub.RejectValidationFailed:    "not_a_peer_id",
	pubsub.RejectSelfOrigin:          "self_origin",
	pubsub.RejectBlacklistedSource:   "untrusted_author",
}

// otherReason stands for any other.
const otherReason = "other"

// metrics counts what the library tells its tracers. All series exist from the start,
// and none is of a peer.
type metrics struct {
	delivered, duplicate, otherwise prometheus.Counter
	rejected                        map[string]prometheus.Counter // by the library's reason
	undelivered                     prometheus.Counter
	received, sent, dropped         prometheus.Counter

	mu    sync.Mutex
	peers map[peer.ID]struct{}
	mesh  map[peer.ID]struct{} // of the one topic
}

func newMetrics(reg prometheus.Registerer, refused prometheus.Counter) (*metrics, error) {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ocnode_gossip_messages_total",
		Help: "GossipSub messages received from neighbours, by what became of them: delivered, duplicate, or why it was rejected.",
	}, []string{"result"})
	rpcs := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ocnode_gossip_rpcs_total",
		Help: "GossipSub packets, by what became of them; dropped is not sent, since the neighbour takes them too slowly.",
	}, []string{"result"})
	m := &metrics{
		delivered: messages.WithLabelValues("delivered"),
		duplicate: messages.WithLabelValues("duplicate"),
		otherwise: messages.WithLabelValues(otherReason),
		rejected:  make(map[string]prometheus.Counter, len(reasons)),
		undelivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ocnode_gossip_undelivered_total",
			Help: "GossipSub messages that were good and lost, since this node was too busy to hear them.",
		}),
		received: rpcs.WithLabelValues("received"),
		sent:     rpcs.WithLabelValues("sent"),
		dropped:  rpcs.WithLabelValues("dropped"),
		peers:    make(map[peer.ID]struct{}),
		mesh:     make(map[peer.ID]struct{}),
	}
	for reason, label := range reasons {
		m.rejected[reason] = messages.WithLabelValues(label)
	}
	return m, errors.Join(
		reg.Register(messages),
		reg.Register(rpcs),
		reg.Register(m.undelivered),
		reg.Register(refused),
		reg.Register(m.size("ocnode_gossip_peers", "Neighbours that this node sends gossip to.", m.peers)),
		reg.Register(m.size("ocnode_gossip_mesh_peers", "Neighbours in the mesh of the topic, which hand each other whole messages at once.", m.mesh)),
	)
}

func (m *metrics) size(name, help string, of map[peer.ID]struct{}) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return float64(len(of))
	})
}

func (m *metrics) OnNewOutboundStream(p peer.ID, _ protocol.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers[p] = struct{}{}
}

// OnClosedOutboundStream is told of a neighbour that is gone; from the mesh it goes
// without a Prune.
func (m *metrics) OnClosedOutboundStream(p peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers, p)
	delete(m.mesh, p)
}

func (m *metrics) Graft(p peer.ID, _ string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mesh[p] = struct{}{}
}

func (m *metrics) Prune(p peer.ID, _ string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mesh, p)
}

func (m *metrics) DeliverMessage(*pubsub.Message)   { m.delivered.Inc() }
func (m *metrics) DuplicateMessage(*pubsub.Message) { m.duplicate.Inc() }

func (m *metrics) RejectMessage(_ *pubsub.Message, reason string) {
	if c, known := m.rejected[reason]; known {
		c.Inc()
	} else {
		m.otherwise.Inc()
	}
}

func (m *metrics) UndeliverableMessage(*pubsub.Message) { m.undelivered.Inc() }

func (m *metrics) RecvRPC(*pubsub.RPC)          { m.received.Inc() }
func (m *metrics) SendRPC(*pubsub.RPC, peer.ID) { m.sent.Inc() }
func (m *metrics) DropRPC(*pubsub.RPC, peer.ID) { m.dropped.Inc() }

func (m *metrics) Join(string)                                          {}
func (m *metrics) Leave(string)                                         {}
func (m *metrics) ValidateMessage(*pubsub.Message)                      {}
func (m *metrics) ThrottlePeer(peer.ID)                                 {}
func (m *metrics) SendRPCCompleted(*pubsub.RPC, peer.ID, time.Duration) {}
