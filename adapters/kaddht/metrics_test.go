package kaddht

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports/porttest"
)

// TestMetricsHaveNoLabelThatAStrangerWrites counts with two stores in a process, and a stranger
// sends messages of unknown types.
func TestMetricsHaveNoLabelThatAStrangerWrites(t *testing.T) {
	regs := []*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	var stores []*Store
	for _, reg := range regs {
		stores = append(stores, newStoreOf(t, hosttest.New(t), Config{Server: true, Accept: rule, TTL: porttest.TTL, Metrics: reg}))
	}
	hosttest.Connect(t, stores[0].host, stores[1].host)
	for i, s := range stores {
		porttest.Eventually(t, "each has the other", func() bool { return s.Peers() == 1 && metricstest.Gather(t, regs[i])["ocnode_dht_peers"] == 1 })
	}
	before := metricstest.Gather(t, regs[0])
	e := entryFor(t)
	if n, err := stores[0].Put(t.Context(), e); n != 1 || err != nil {
		t.Fatalf("%d took it: %v", n, err)
	}
	for i := range stores {
		if got := metricstest.Gather(t, regs[i])["ocnode_dht_records"]; got != 1 {
			t.Errorf("store %d has %v records", i, got)
		}
	}
	// A put goes past the library, which puts the result of a search itself.
	if err := stores[0].messenger.PutValue(t.Context(), stores[1].host.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, e))); err != nil {
		t.Fatal(err)
	}
	after := metricstest.Gather(t, regs[0])
	if got := after[`ocnode_dht_puts_total{result="taken"}`]; got != 1 {
		t.Errorf("%v puts are counted", got)
	}
	for series, want := range map[string]float64{ // of both stores together
		`kad_dht_rpc_outbound_requests_total{message_type="PUT_VALUE"}`:               1,
		`kad_dht_rpc_inbound_messages_total{message_type="PUT_VALUE"}`:                2,
		`kad_dht_rpc_inbound_bytes{message_type="PUT_VALUE"}`:                         2,
		`kad_dht_rpc_outbound_request_latency_milliseconds{message_type="PUT_VALUE"}`: 1,
	} {
		if got := after[series] - before[series]; got != want {
			t.Errorf("%s moved by %v, want %v", series, got, want)
		}
	}

	stranger := hosttest.New(t)
	hosttest.Connect(t, stranger, stores[0].host)
	const errorsOf = "kad_dht_rpc_inbound_message_errors_total" // without a type
	had := metricstest.Gather(t, regs[0])[errorsOf]
	for kind := range 20 {
		s, err := stranger.NewStream(t.Context(), stores[0].host.ID(), kadProtocol)
		if err != nil {
			t.Fatal(err)
		}
		message := binary.AppendUvarint([]byte{1 << 3}, uint64(770_000+kind)) // field 1, a varint
		_ = s.SetDeadline(time.Now().Add(porttest.Patience))
		_, _ = s.Write(append([]byte{byte(len(message))}, message...))
		_, _ = io.Copy(io.Discard, s)
		_ = s.Close()
	}
	porttest.Eventually(t, "the strange messages are counted", func() bool { return metricstest.Gather(t, regs[0])[errorsOf] == had+20 })
	for series := range metricstest.Gather(t, regs[0]) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, `"}`), "{")
		if name == "ocnode_dht_untrusted_total" || name == "ocnode_dht_puts_total" { // all their series exist from the start
			continue
		}
		kind, found := strings.CutPrefix(labels, `message_type="`)
		if _, known := pb.Message_MessageType_value[kind]; labels != "" && (!found || !known) {
			t.Errorf("there is %s", series)
		}
		if strings.HasPrefix(series, "kad_dht_rpc_outbound_bytes") {
			t.Errorf("there is %s, which is wrong", series)
		}
	}
	if _, err := New(stores[0].host, Config{Accept: rule, Read: unread, TTL: time.Second, Metrics: regs[0]}); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("a second store in one registry: %v", err)
	}
}

func TestWhatOthersReportToOpenTelemetryIsNotShown(t *testing.T) {
	reg := prometheus.NewRegistry()
	newStoreOf(t, hosttest.New(t), Config{Accept: rule, TTL: porttest.TTL, Metrics: reg})
	counter, err := otel.Meter("example.com/somebody").Int64Counter("somebodys")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1)
	for series := range metricstest.Gather(t, reg) {
		if strings.Contains(series, "somebodys") {
			t.Errorf("there is %s", series)
		}
	}
}

func TestOfAttributesTheKnownTypesPass(t *testing.T) {
	for attr, want := range map[attribute.KeyValue]bool{
		attribute.String("message_type", "GET_VALUE"):   true,
		attribute.String("message_type", "UNKNOWN"):     true,
		attribute.String("message_type", "770000"):      false,
		attribute.String("message_type", ""):            false,
		attribute.String("peer_id", "12D3KooW"):         false,
		attribute.String("instance_id", "0xc000012345"): false,
		attribute.String("of a later version", "x"):     false,
	} {
		if got := isMessageType(attr); got != want {
			t.Errorf("%v: %v, want %v", attr, got, want)
		}
	}
}
