package telemetry

import (
	"errors"
	"net/http"
	"runtime"

	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var _ ports.Observer = (*Metrics)(nil)

// NewRegistry returns a registry of one node's metrics, the Go runtime's and the
// process's among them.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return reg
}

// Handler answers scrapes of reg.
func Handler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// Sources is what is asked at each scrape. The functions are called concurrently
// and must not block; a nil one leaves its gauges out.
type Sources struct {
	// Version is the binary's.
	Version string
	// Counts returns the sizes of the live table and the known set.
	Counts func() (live, known int)
	// OutboxWaiting returns how many PeerIDs wait to be put and announced.
	OutboxWaiting func() int
}

// Metrics counts events. It is cheap enough for the path of every heartbeat: all
// series exist from the start, so to observe is to switch and to add.
type Metrics struct {
	accepted, malformed, tooLarge, peerMismatch, addrInvalid, refused, busy prometheus.Counter

	heard, sent, sendFailed prometheus.Counter

	found, notFound, lookupFailed prometheus.Counter
	lookupDuration                prometheus.Histogram

	replicated, alone, putFailed prometheus.Counter
	putDuration                  prometheus.Histogram

	expired, forgotten prometheus.Counter

	granted, unconfirmed, leaseFailed, lost prometheus.Counter
}

// NewMetrics registers a node's metrics with reg. That they are registered there
// already is the error to expect.
func NewMetrics(reg prometheus.Registerer, from Sources) (*Metrics, error) {
	f := family{reg: reg}
	registrations := f.counters("ocnode_registrations_total", "Registrations answered, by what became of them.")
	sent := f.counters("ocnode_announcements_sent_total", "Announcements of this node's own, by what became of them.")
	lookups := f.counters("ocnode_lookups_total", "Look-ups of known PeerIDs in the store, by what became of them.")
	puts := f.counters("ocnode_store_puts_total",
		"Puts into the store, by what became of them; alone is stored here and on no other node.")
	leases := f.counters("ocnode_lease_attempts_total",
		"Registrations sent to natives, by what became of them; unconfirmed is written and not answered.")
	m := &Metrics{
		accepted:     registrations("accepted"),
		malformed:    registrations(string(ports.CodeMalformed)),
		tooLarge:     registrations(string(ports.CodeTooLarge)),
		peerMismatch: registrations(string(ports.CodePeerMismatch)),
		addrInvalid:  registrations(string(ports.CodeAddrInvalid)),
		refused:      registrations(string(ports.CodeRefused)),
		busy:         registrations(string(ports.CodeBusy)),

		heard:      f.counter("ocnode_announcements_heard_total", "Announcements heard from other natives."),
		sent:       sent("sent"),
		sendFailed: sent("error"),

		found:          lookups("found"),
		notFound:       lookups("not_found"),
		lookupFailed:   lookups("error"),
		lookupDuration: f.histogram("ocnode_lookup_duration_seconds", "Duration of look-ups of known PeerIDs in the store."),

		replicated:  puts("replicated"),
		alone:       puts("alone"),
		putFailed:   puts("error"),
		putDuration: f.histogram("ocnode_store_put_duration_seconds", "Duration of puts into the store."),

		expired:   f.counter("ocnode_expirations_total", "Entries that reached their deadline and were removed."),
		forgotten: f.counter("ocnode_forgotten_total", "Known PeerIDs that are no longer looked up."),

		granted:     leases("granted"),
		unconfirmed: leases("unconfirmed"),
		leaseFailed: leases("failed"),
		lost:        f.counter("ocnode_leases_lost_total", "Connections to natives that ended while a lease was held."),
	}
	if from.Counts != nil {
		f.gauge("ocnode_live_indexers", "Entries in the live table.", func() int { live, _ := from.Counts(); return live })
		f.gauge("ocnode_known_peers", "PeerIDs in the known set.", func() int { _, known := from.Counts(); return known })
	}
	if from.OutboxWaiting != nil {
		f.gauge("ocnode_outbox_waiting", "PeerIDs that wait to be put into the store and announced.", from.OutboxWaiting)
	}
	f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "ocnode_build_info",
		Help:        "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": from.Version, "goversion": runtime.Version()},
	}, func() float64 { return 1 }))
	if f.err != nil {
		return nil, f.err
	}
	return m, nil
}

// Observe implements ports.Observer.
func (m *Metrics) Observe(e ports.Event) {
	switch e.Kind {
	case ports.EventRegistered:
		m.accepted.Inc()
	case ports.EventRefused:
		m.refusal(e.Code).Inc()
	case ports.EventHeard:
		m.heard.Inc()
	case ports.EventLookedUp:
		m.lookupDuration.Observe(e.Took.Seconds())
		switch {
		case e.Err == nil:
			m.found.Inc()
		case errors.Is(e.Err, ports.ErrNotFound):
			m.notFound.Inc()
		default:
			m.lookupFailed.Inc()
		}
	case ports.EventPut:
		m.putDuration.Observe(e.Took.Seconds())
		switch {
		case e.Err != nil:
			m.putFailed.Inc()
		case e.Replicas > 0:
			m.replicated.Inc()
		default:
			m.alone.Inc()
		}
	case ports.EventAnnounced:
		if e.Err != nil {
			m.sendFailed.Inc()
		} else {
			m.sent.Inc()
		}
	case ports.EventExpired:
		m.expired.Inc()
	case ports.EventForgotten:
		m.forgotten.Inc()
	case ports.EventLeaseGranted:
		m.granted.Inc()
	case ports.EventLeaseUnconfirmed:
		m.unconfirmed.Inc()
	case ports.EventLeaseFailed:
		m.leaseFailed.Inc()
	case ports.EventLeaseLost:
		m.lost.Inc()
	}
}

// refusal returns the counter of a code; one that has none counts as refused.
func (m *Metrics) refusal(code ports.Code) prometheus.Counter {
	switch code {
	case ports.CodeMalformed:
		return m.malformed
	case ports.CodeTooLarge:
		return m.tooLarge
	case ports.CodePeerMismatch:
		return m.peerMismatch
	case ports.CodeAddrInvalid:
		return m.addrInvalid
	case ports.CodeBusy:
		return m.busy
	default:
		return m.refused
	}
}

// family makes metrics, registers each, and joins the errors.
type family struct {
	reg prometheus.Registerer
	err error
}

func (f *family) add(c prometheus.Collector) { f.err = errors.Join(f.err, f.reg.Register(c)) }

func (f *family) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	f.add(c)
	return c
}

// counters returns the counter of each result; its series exists from then on.
func (f *family) counters(name, help string) func(result string) prometheus.Counter {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	f.add(v)
	return func(result string) prometheus.Counter { return v.WithLabelValues(result) }
}

// histogram has the usual buckets (5 ms to 10 s, beyond any deadline of a store)
// and finer ones below, where local answers fall.
func (f *family) histogram(name, help string) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: append([]float64{.0001, .00025, .0005, .001, .0025}, prometheus.DefBuckets...),
	})
	f.add(h)
	return h
}

func (f *family) gauge(name, help string, value func() int) {
	f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
}
