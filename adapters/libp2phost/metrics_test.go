package libp2phost

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports"
)

// counted returns a resource manager with these limits, and what counts it.
func counted(t *testing.T, l Limits) (network.ResourceManager, *metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	m, err := newMetrics(reg, l)
	if err != nil {
		t.Fatal(err)
	}
	manager, err := l.resourceManager(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Close() })
	return manager, m, reg
}

func TestWhateverLimitRefusesIsCounted(t *testing.T) {
	l := LimitsFor(2<<30, 1024) // 768 connections, 384 of a site
	manager, _, reg := counted(t, l)
	want := map[string]float64{}
	check := func(when string) {
		t.Helper()
		got := metricstest.Gather(t, reg)
		for _, resource := range []string{
			"inbound_connection", "outbound_connection", "site_connection", "site_rate", "inbound_stream", "outbound_stream",
			"peer", "protocol", "service", "memory", "peer_protocol", "peer_service",
		} {
			if n := got[fmt.Sprintf("ocnode_blocked_total{resource=%q}", resource)]; n != want[resource] {
				t.Errorf("%s: %v of %s are counted, want %v", when, n, resource, want[resource])
			}
		}
	}
	check("before all")

	// A site's limit, which the resource manager does not report.
	var open []network.ConnManagementScope
	for i := range l.perSite() + 5 {
		scope, err := manager.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/8.8.8.8/tcp/1"))
		if err != nil {
			want[map[bool]string{true: "site_rate", false: "site_connection"}[err.Error() == tooFast]]++
			continue
		}
		open = append(open, scope)
		if err := scope.SetPeer(peer.ID(fmt.Sprint("of a site ", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := want["site_connection"] + want["site_rate"]; n != 5 {
		t.Errorf("%v connections were refused, want 5", n)
	}
	check("one site")
	if got := metricstest.Gather(t, reg)[`ocnode_connections{direction="inbound"}`]; got != float64(l.perSite()) {
		t.Errorf("%v connections are counted, want %d", got, l.perSite())
	}
	for _, scope := range open {
		scope.Done()
	}
	if got := metricstest.Gather(t, reg)[`ocnode_connections{direction="inbound"}`]; got != 0 {
		t.Errorf("%v connections are counted after the last was closed", got)
	}

	// One peer's connections.
	for i := range peerConns + 2 {
		scope, err := manager.OpenConnection(network.DirOutbound, true, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
		if err != nil {
			want["outbound_connection"]++
			continue
		}
		defer scope.Done()
		if err := scope.SetPeer("somebody"); err != nil {
			want["peer"]++
		} else if i >= peerConns {
			t.Error("a peer may have more connections than it may")
		}
	}
	check("one peer")

	// One peer's registrations, and all its streams.
	for i := range peerStreams + 3 {
		scope, err := manager.OpenStream("somebody", network.DirInbound)
		if err != nil {
			want["inbound_stream"]++
			continue
		}
		defer scope.Done()
		id := ports.SubscribeProtocol
		if i > 2*peerProtocolStreams {
			id = fmt.Sprint("/other/", i)
		}
		if err := scope.SetProtocol(protocol.ID(id)); err != nil {
			want["peer_protocol"]++
		}
	}
	if want["inbound_stream"] != 3 || want["peer_protocol"] == 0 || want["peer"] != 2 {
		t.Errorf("refused were %v", want)
	}
	check("one peer's streams")
	if got := metricstest.Gather(t, reg); got[`ocnode_streams{direction="inbound"}`] != peerStreams+3-want["inbound_stream"] {
		t.Errorf("%v streams are counted", got[`ocnode_streams{direction="inbound"}`])
	}
}
