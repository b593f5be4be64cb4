package kaddht

import (
	"errors"
	"slices"
	"sync"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
)

// libraryScope is the name of the library's meter.
const libraryScope = "github.com/libp2p/go-libp2p-kad-dht"

// register adds the metrics of this store and of the library.
func (s *Store) register(reg prometheus.Registerer) error {
	library, err := libraryMetrics()
	if err != nil {
		return err
	}
	return errors.Join(
		reg.Register(gauge("ocnode_dht_peers", "Servers of the DHT in the routing table: look-ups begin with these.", s.Peers)),
		reg.Register(gauge("ocnode_dht_servers", "Servers of the DHT that this node has met and that answer.", s.servers.len)),
		reg.Register(gauge("ocnode_dht_strangers", "Those of ocnode_dht_servers that do not follow this native: entries are put to these.", func() int { return int(s.servers.strangers.Load()) })),
		reg.Register(s.puts),
		reg.Register(gauge("ocnode_dht_records", "Records of the DHT that this node holds, expired ones included. A native shows the entries of its table besides.", s.Records)),
		reg.Register(s.gate.counts),
		reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ocnode_dht_displaced_total", Help: "Records of the DHT that gave way to others, since limits.dht-memory was used up.",
		}, func() float64 { return float64(s.data.displacedCount()) })),
		reg.Register(library),
	)
}

func newPuts() *prometheus.CounterVec {
	puts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ocnode_dht_puts_total",
		Help: "Entries sent to a server of the DHT, by what became of them. A server refuses what is not newer than its own.",
	}, []string{"result"})
	for r := taken; r <= unanswered; r++ {
		puts.WithLabelValues(r.String())
	}
	return puts
}

func gauge(name, help string, value func() int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

// libraryMetrics returns the library's reports to OpenTelemetry's global meter, as kad_dht_…. A
// process has a single such meter: all Stores count into the same series.
var libraryMetrics = sync.OnceValues(func() (prometheus.Collector, error) {
	reg := prometheus.NewRegistry() // of this library alone; a registry is a collector itself
	exporter, err := otelprometheus.New(
		otelprometheus.WithRegisterer(reg),
		otelprometheus.WithNamespace("kad_dht"),
		otelprometheus.WithoutScopeInfo(),
		otelprometheus.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, err
	}
	otel.SetMeterProvider(metric.NewMeterProvider(
		metric.WithReader(exporter),
		metric.WithResource(resource.Empty()),
		metric.WithView(libraryView),
		metric.WithExemplarFilter(exemplar.AlwaysOffFilter), // exemplars would keep the dropped attributes
	))
	return reg, nil
})

// latencies are the buckets of the library's latencies, in milliseconds: fewer than its own 40,
// since each type of message has them in both directions.
var latencies = []float64{.1, .25, .5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000}

// libraryView drops series per peer, and wrong series.
func libraryView(i metric.Instrument) (metric.Stream, bool) {
	stream := metric.Stream{Name: i.Name, Description: i.Description, Unit: i.Unit, AttributeFilter: isMessageType}
	switch {
	case i.Scope.Name != libraryScope:
		stream.Aggregation = metric.AggregationDrop{} // its labels are unreviewed
	case i.Name == "rpc.outbound.bytes":
		stream.Aggregation = metric.AggregationDrop{} // it counts one byte for every request
	case slices.Contains([]string{"rpc.inbound.request_latency", "rpc.outbound.request_latency"}, i.Name):
		stream.Aggregation = metric.AggregationExplicitBucketHistogram{Boundaries: latencies, NoMinMax: true}
	}
	return stream, true
}

// isMessageType passes one attribute, and only its existing values: peer_id and instance_id have
// a value per node, and a stranger may send any number as a type.
func isMessageType(kv attribute.KeyValue) bool {
	if kv.Key != "message_type" {
		return false
	}
	_, known := pb.Message_MessageType_value[kv.Value.AsString()]
	return known || kv.Value.AsString() == "UNKNOWN" // the type of a message that did not decode
}
