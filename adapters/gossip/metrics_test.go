package gossip

import (
	"errors"
	"fmt"
	"testing"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMetricsFollowWhatComesAndWhoIsThere(t *testing.T) {
	bad, h := hosttest.New(t), hosttest.New(t)
	reg := prometheus.NewRegistry()
	a, err := New(h, Config{Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	heard := listen(t, a)
	before := metricstest.Gather(t, reg)
	if len(before) != 10+3+4 {
		t.Errorf("%d series from the start, want 17: %v", len(before), before)
	}
	for series, value := range before {
		if value != 0 {
			t.Errorf("%s begins at %v", series, value)
		}
	}

	bare, err := pubsub.NewGossipSub(t.Context(), bad, pubsub.WithFloodPublish(true)) // its own mesh may still be empty
	if err != nil {
		t.Fatal(err)
	}
	topic, err := bare.Join(DefaultTopic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Subscribe(); err != nil {
		t.Fatal(err)
	}
	hosttest.Connect(t, bad, h)
	porttest.Eventually(t, "the neighbour is in the mesh", func() bool {
		got := metricstest.Gather(t, reg)
		return got["ocnode_gossip_peers"] == 1 && got["ocnode_gossip_mesh_peers"] == 1 && len(topic.ListPeers()) == 1
	})
	const good = 7
	for range good {
		if err := topic.Publish(t.Context(), []byte(hosttest.PeerID(t))); err != nil {
			t.Fatal(err)
		}
	}
	rejected := hostileMessages(t)
	for _, message := range rejected {
		if err := topic.Publish(t.Context(), message); err != nil {
			t.Fatal(err)
		}
	}
	porttest.Eventually(t, "each is counted by what became of it", func() bool {
		got := metricstest.Gather(t, reg)
		return got[`ocnode_gossip_messages_total{result="delivered"}`] == good && got[`ocnode_gossip_messages_total{result="not_a_peer_id"}`] == float64(len(rejected))
	})
	before = metricstest.Gather(t, reg)
	if err := a.Announce(t.Context(), hosttest.PeerID(t)); err != nil {
		t.Fatal(err)
	}
	var got map[string]float64
	porttest.Eventually(t, "its own is sent", func() bool {
		got = metricstest.Gather(t, reg)
		return got[`ocnode_gossip_rpcs_total{result="sent"}`] > before[`ocnode_gossip_rpcs_total{result="sent"}`]
	})
	for _, result := range []string{"invalid_signature", "missing_signature", "queue_full", "self_origin", "throttled", "other"} {
		if n := got[fmt.Sprintf("ocnode_gossip_messages_total{result=%q}", result)]; n != 0 {
			t.Errorf("%v %s", n, result)
		}
	}
	if got[`ocnode_gossip_messages_total{result="delivered"}`] != good { // its own is no message received
		t.Errorf("delivered are %v, want %d", got[`ocnode_gossip_messages_total{result="delivered"}`], good)
	}
	if got[`ocnode_gossip_rpcs_total{result="received"}`] == 0 || got[`ocnode_gossip_rpcs_total{result="sent"}`] == 0 || got[`ocnode_gossip_rpcs_total{result="dropped"}`] != 0 {
		t.Errorf("packets: %v", got)
	}
	porttest.Eventually(t, "all are heard", func() bool { return heard.len() == good })

	if err := bad.Close(); err != nil {
		t.Fatal(err)
	}
	porttest.Eventually(t, "a neighbour that is gone is not counted", func() bool {
		got := metricstest.Gather(t, reg)
		return got["ocnode_gossip_peers"] == 0 && got["ocnode_gossip_mesh_peers"] == 0
	})
	if _, err := New(h, Config{Metrics: reg}); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("a second announcer in one registry: %v", err)
	}
}

func TestEveryReasonOfTheLibraryHasItsLabel(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := newMetrics(reg, newGate(nil, nil).refused)
	if err != nil {
		t.Fatal(err)
	}
	for reason, label := range map[string]string{
		pubsub.RejectMissingSignature: "missing_signature", pubsub.RejectInvalidSignature: "invalid_signature",
		pubsub.RejectValidationQueueFull: "queue_full", pubsub.RejectValidationThrottled: "throttled",
		pubsub.RejectValidationFailed: "not_a_peer_id", pubsub.RejectSelfOrigin: "self_origin",
		pubsub.RejectBlacklistedSource: "untrusted_author",
		"a reason of a later version":  "other",
	} {
		series := fmt.Sprintf("ocnode_gossip_messages_total{result=%q}", label)
		before := metricstest.Gather(t, reg)[series]
		m.RejectMessage(nil, reason)
		if got := metricstest.Gather(t, reg)[series]; got != before+1 {
			t.Errorf("%s: %s is %v after %v", reason, label, got, before)
		}
	}
	m.DuplicateMessage(nil)
	m.UndeliverableMessage(nil)
	m.DropRPC(nil, "")
	got := metricstest.Gather(t, reg)
	for _, series := range []string{`ocnode_gossip_messages_total{result="duplicate"}`, "ocnode_gossip_undelivered_total", `ocnode_gossip_rpcs_total{result="dropped"}`} {
		if got[series] != 1 {
			t.Errorf("%s is %v", series, got[series])
		}
	}
}
