package libp2phost

import (
	"errors"
	"strings"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	_ prometheus.Collector  = (*metrics)(nil)
	_ rcmgr.MetricsReporter = (*metrics)(nil)
)

// metrics tells what one host's resource manager knows: how much is in use when it is
// asked, and what was refused.
//
// libp2p has such metrics, and is told not to make them: they follow each step of each
// stream, which made a registration a tenth dearer; all hosts of a process write over
// each other's gauges; and what the limits of a site refuse, the first that a flood
// meets, is not in them.
type metrics struct {
	conns, connLimit, streams, streamLimit *prometheus.Desc

	limits  Limits
	manager atomic.Pointer[network.ResourceManager] // once there is one

	blocked                            *prometheus.CounterVec
	inConns, outConns                  prometheus.Counter
	siteConns, siteRate, siteStreams   prometheus.Counter
	siteHandshakes                     prometheus.Counter
	inStreams, outStreams              prometheus.Counter
	peers, protocols, services, memory prometheus.Counter
	peerProtocols, peerServices        prometheus.Counter
}

// newMetrics registers the metrics of one host with limits l; nil if reg is nil.
func newMetrics(reg prometheus.Registerer, l Limits) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	direction := []string{"direction"}
	m := &metrics{
		conns:       prometheus.NewDesc("ocnode_connections", "Connections of this node, by who dialled.", direction, nil),
		connLimit:   prometheus.NewDesc("ocnode_connection_limit", "How many connections there may be at once; outbound ones may take what inbound ones may not.", direction, nil),
		streams:     prometheus.NewDesc("ocnode_streams", "Streams of this node, by who opened them.", direction, nil),
		streamLimit: prometheus.NewDesc("ocnode_stream_limit", "How many streams there may be at once.", nil, nil),
		limits:      l,
		blocked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ocnode_blocked_total",
			Help: "What the limits of this node have refused, by what it was: a connection or stream, a connection too many of a site (site_rate: in too short a time; site_handshake: in its handshake) or peer, a stream too many of a site, or of a protocol or service, in all or of one peer, or memory.",
		}, []string{"resource"}),
	}
	for resource, counter := range map[string]*prometheus.Counter{
		"inbound_connection": &m.inConns, "outbound_connection": &m.outConns,
		"site_connection": &m.siteConns, "site_rate": &m.siteRate, "site_stream": &m.siteStreams, "site_handshake": &m.siteHandshakes,
		"inbound_stream": &m.inStreams, "outbound_stream": &m.outStreams,
		"peer": &m.peers, "protocol": &m.protocols, "service": &m.services, "memory": &m.memory,
		"peer_protocol": &m.peerProtocols, "peer_service": &m.peerServices,
	} {
		*counter = m.blocked.WithLabelValues(resource)
	}
	if err := errors.Join(reg.Register(m), reg.Register(m.blocked)); err != nil {
		return nil, err
	}
	return m, nil
}

// watch returns manager, with what it refuses counted.
func (m *metrics) watch(manager network.ResourceManager) network.ResourceManager {
	m.manager.Store(&manager)
	return watched{manager, m}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{m.conns, m.connLimit, m.streams, m.streamLimit} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value int, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	gauge(m.connLimit, m.limits.inbound(), "inbound")
	gauge(m.connLimit, m.limits.Conns, "outbound")
	gauge(m.streamLimit, m.limits.streams())
	manager := m.manager.Load()
	if manager == nil {
		return
	}
	_ = (*manager).ViewSystem(func(all network.ResourceScope) error {
		stat := all.Stat()
		gauge(m.conns, stat.NumConnsInbound, "inbound")
		gauge(m.conns, stat.NumConnsOutbound, "outbound")
		gauge(m.streams, stat.NumStreamsInbound, "inbound")
		gauge(m.streams, stat.NumStreamsOutbound, "outbound")
		return nil
	})
}

func (m *metrics) BlockStream(_ peer.ID, d network.Direction) {
	if d == network.DirInbound {
		m.inStreams.Inc()
	} else {
		m.outStreams.Inc()
	}
}

func (m *metrics) BlockPeer(peer.ID)                      { m.peers.Inc() }
func (m *metrics) BlockProtocol(protocol.ID)              { m.protocols.Inc() }
func (m *metrics) BlockProtocolPeer(protocol.ID, peer.ID) { m.peerProtocols.Inc() }
func (m *metrics) BlockService(string)                    { m.services.Inc() }
func (m *metrics) BlockServicePeer(string, peer.ID)       { m.peerServices.Inc() }
func (m *metrics) BlockMemory(int)                        { m.memory.Inc() }

func (m *metrics) BlockConn(network.Direction, bool)      {} // watched knows of all
func (m *metrics) AllowConn(network.Direction, bool)      {}
func (m *metrics) AllowStream(peer.ID, network.Direction) {}
func (m *metrics) AllowPeer(peer.ID)                      {}
func (m *metrics) AllowProtocol(protocol.ID)              {}
func (m *metrics) AllowService(string)                    {}
func (m *metrics) AllowMemory(int)                        {}

// watched is a resource manager whose refused connections are counted, whatever limit
// they met: the manager itself reports only those of the whole node.
type watched struct {
	network.ResourceManager
	*metrics
}

func (w watched) OpenConnection(d network.Direction, fd bool, from ma.Multiaddr) (network.ConnManagementScope, error) {
	scope, err := w.ResourceManager.OpenConnection(d, fd, from)
	switch {
	case err == nil:
	case err.Error() == tooFast:
		w.siteRate.Inc()
	case strings.HasPrefix(err.Error(), tooManyOfSite):
		w.siteConns.Inc()
	case d == network.DirInbound:
		w.inConns.Inc()
	default:
		w.outConns.Inc()
	}
	return scope, err
}

// GetConnLimit is what libp2p holds the connection manager's marks against.
func (w watched) GetConnLimit() int {
	return w.ResourceManager.(connmgr.GetConnLimiter).GetConnLimit()
}

// kept registers those of libp2p's collectors that are worth it. Of the rest, the
// resource manager's would stand at 0 (see metrics) and AutoNAT's too, which is off; the
// event bus names its series after lines of source code, with the paths of whoever
// built it.
type kept struct{ prometheus.Registerer }

func (r kept) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 16) // more than any of libp2p's has
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		if !strings.Contains(desc.String(), `"libp2p_swarm_`) && !strings.Contains(desc.String(), `"libp2p_identify_`) {
			return nil
		}
	}
	return r.Registerer.Register(c)
}
