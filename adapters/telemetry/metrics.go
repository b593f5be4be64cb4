package telemetry

import (
	"errors"
	"net/http"
	"runtime"
	"time"

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

// Handler answers scrapes of reg. What cannot be collected is left out and counted:
// a flaw in one library's metrics must not hide all others.
func Handler(reg *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: reg})
}

// Sources is what is told of a node besides its events. The functions are called at
// each scrape, concurrently, and must not block; a nil one leaves its gauges out.
type Sources struct {
	// Version is the binary's.
	Version string
	// TTL and Heartbeat are those of the node's configuration: they must agree in the
	// whole network, and here others see whether they do.
	TTL, Heartbeat time.Duration
	// Indexer is set of a node that keeps leases.
	Indexer bool
	// Leases returns how many of this node's leases another native shows, no other native shows,
	// and no other native could be asked for.
	Leases func() (confirmed, doubted, unasked int)
	// Ready tells whether every module serves.
	Ready func() bool
	// Counts returns the sizes of the live table and the known set.
	Counts func() (live, known int)
	// Stale returns how many entries have ended and are shown all the same.
	Stale func() int
	// OutboxWaiting returns how many PeerIDs wait to be put and announced.
	OutboxWaiting func() int
	// Avoided returns how many puts and announcements of renewals were left out.
	Avoided func() (puts, announcements uint64)
	// HeldBack returns how many renewals were not announced, as others were.
	HeldBack func() uint64
	// Following returns how many natives are followed.
	Following func() int
	// ClockOffset returns how far this node's clock is ahead of the others'.
	ClockOffset func() time.Duration
	// Condition returns how far a native's word can be relied on.
	Condition func() ports.Condition
	// Signatures returns how many signatures were checked alone and in batches, and how many were bad.
	Signatures func() (alone, batched, bad uint64)
}

// Metrics counts events. It is cheap enough for the path of every heartbeat: all
// series exist from the start, so to observe is to switch and to add.
type Metrics struct {
	accepted prometheus.Counter
	refused  refusals
	limited  map[ports.Limit]prometheus.Counter
	left     prometheus.Histogram

	dialledBack, notDialledBack prometheus.Counter

	registered, lookedUp, joinedElsewhere prometheus.Counter // what joined through either
	leftHere, leftElsewhere               prometheus.Counter

	unfollowed, told, toldRefused prometheus.Counter
	renewed, mended               prometheus.Counter // told by a number; numbers
	reconciled, lied              prometheus.Counter // searches for a difference
	watchers                      prometheus.Gauge
	dropped                       prometheus.Counter

	framesTold, framesRead, renewalsTold, renewalsRead prometheus.Counter // of binary watches
	framesMalformed, framesTooLarge                    prometheus.Counter

	beating      prometheus.Gauge
	beats        prometheus.Counter
	beatingEnded map[ports.Code]prometheus.Counter

	askedFound, askedNotFound, askedBusy, askedFailed prometheus.Counter

	heard, sent, sendFailed prometheus.Counter

	found, notFound, lookupFailed prometheus.Counter
	lookupDuration                prometheus.Histogram

	replicated, alone, putFailed prometheus.Counter
	putDuration                  prometheus.Histogram

	untrusted map[ports.Untrusted]prometheus.Counter

	expired, forgotten prometheus.Counter

	faults map[ports.Fault]prometheus.Counter
	rivals prometheus.Counter

	granted, unconfirmed, leaseFailed, lost prometheus.Counter
	leaveTaken, leaveFailed                 prometheus.Counter
	leaseRefused                            refusals
	leaseDuration                           prometheus.Histogram
	lastGranted, superseded                 prometheus.Gauge
}

// refusals has a counter for every code of a refusal.
type refusals struct {
	malformed, tooLarge, peerMismatch, addrInvalid, proofInvalid, superseded, refused, busy prometheus.Counter
}

func newRefusals(counter func(result string) prometheus.Counter) refusals {
	of := func(code ports.Code) prometheus.Counter { return counter(string(code)) }
	return refusals{
		malformed:    of(ports.CodeMalformed),
		tooLarge:     of(ports.CodeTooLarge),
		peerMismatch: of(ports.CodePeerMismatch),
		addrInvalid:  of(ports.CodeAddrInvalid),
		proofInvalid: of(ports.CodeProofInvalid),
		superseded:   of(ports.CodeSuperseded),
		refused:      of(ports.CodeRefused),
		busy:         of(ports.CodeBusy),
	}
}

// of returns the counter of a code; one that has none, such as a stranger may answer
// with, counts as refused.
func (r refusals) of(code ports.Code) prometheus.Counter {
	switch code {
	case ports.CodeMalformed:
		return r.malformed
	case ports.CodeTooLarge:
		return r.tooLarge
	case ports.CodePeerMismatch:
		return r.peerMismatch
	case ports.CodeAddrInvalid:
		return r.addrInvalid
	case ports.CodeProofInvalid:
		return r.proofInvalid
	case ports.CodeSuperseded:
		return r.superseded
	case ports.CodeBusy:
		return r.busy
	default:
		return r.refused
	}
}

// durations are the usual buckets (5 ms to 10 s, beyond any deadline of a store) and
// finer ones below, where local answers fall.
var durations = append([]float64{.0001, .00025, .0005, .001, .0025}, prometheus.DefBuckets...)

// margins are the buckets of what is left of a lease, in seconds. With the default
// times an indexer renews when 6 to 12 s are left; retries of a failed heartbeat come
// 1, 2 and 4 s later.
var margins = []float64{.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60}

// NewMetrics registers a node's metrics with reg. That they are registered there
// already is the error to expect.
func NewMetrics(reg prometheus.Registerer, from Sources) (*Metrics, error) {
	f := family{reg: reg}
	registrations := f.counters("ocnode_registrations_total", "Registrations answered, by what became of them.", "result")
	sent := f.counters("ocnode_announcements_sent_total", "Announcements of this node's own, by what became of them.", "result")
	lookups := f.counters("ocnode_lookups_total", "Look-ups of known PeerIDs in the store, by what became of them.", "result")
	puts := f.counters("ocnode_store_puts_total",
		"Puts into the store, by what became of them. One that is alone found no other node to put to: there is none, or all near the key follow this native.", "result")
	joins := f.counters("ocnode_joins_total", "PeerIDs that became live, by how this native learnt of it.", "via")
	leaves := f.counters("ocnode_leaves_total", "Live entries whose indexer left, by how this native learnt of it: from the indexer, or from another native.", "via")
	asked := f.counters("ocnode_asked_total",
		"Look-ups of PeerIDs that this node does not hold, for others who asked, by what became of them; busy is too many at once.", "result")
	reconciliations := f.counters("ocnode_reconciliations_total", "Searches for a difference between what a followed native told and this one heard, after their sums differed, by what became of them.", "result")
	leaving := f.counters("ocnode_lease_leaves_total", "Natives that were told, when this indexer stopped, that it leaves, by what became of it.", "result")
	untrusted := f.counters("ocnode_untrusted_total",
		"What was turned away, or of entries removed, since it is of somebody who is not in trust.indexers or, of watches, trust.natives; registrations are ocnode_registrations_total.", "what")
	limits := f.counters("ocnode_limited_total",
		"Registrations, leaves and watches that a limit of this native has refused, by which one.", "limit")
	dialBacks := f.counters("ocnode_dial_backs_total", "Addresses that this native dialled to see whether they are the sender's, by what came of it.", "result")
	leases := f.counters("ocnode_lease_attempts_total",
		"Registrations sent to natives, by what became of them: unconfirmed is written and not answered, failed is not even that, the rest is the code of a refusal.", "result")
	frames := f.counters("ocnode_follow_frames_total", "Frames of the binary watches between natives: told to natives that follow this one, and read from natives that it follows.", "way")
	renewals := f.counters("ocnode_follow_renewals_total", "Renewals in these frames.", "way")
	framesRefused := f.counters("ocnode_follow_frames_refused_total", "Frames of binary watches, of either side, that ended their stream, by what was wrong with them.", "reason")
	m := &Metrics{
		framesTold:      frames("told"),
		framesRead:      frames("read"),
		renewalsTold:    renewals("told"),
		renewalsRead:    renewals("read"),
		framesMalformed: framesRefused(string(ports.CodeMalformed)),
		framesTooLarge:  framesRefused(string(ports.CodeTooLarge)),

		accepted: registrations("accepted"),
		refused:  newRefusals(registrations),
		limited:  make(map[ports.Limit]prometheus.Counter),

		dialledBack:    dialBacks("proven"),
		notDialledBack: dialBacks("failed"),

		left: f.histogram("ocnode_heartbeat_left_seconds",
			"What was left of a live entry when its indexer registered again.", margins),

		registered: joins("registration"),
		lookedUp:   joins("lookup"),

		joinedElsewhere: joins("native"),
		leftHere:        leaves("indexer"),
		leftElsewhere:   leaves("native"),

		unfollowed:  f.counter("ocnode_follows_ended_total", "Natives that this one followed and does not any more: the connection ended, or the watch failed."),
		told:        f.counter("ocnode_changes_told_total", "Changes that natives told which this one follows, renewals included."),
		renewed:     f.counter("ocnode_changes_renewed_total", "Changes that natives told which this one follows as renewals of a number, in binary."),
		mended:      f.counter("ocnode_reconciled_total", "Numbers of followed natives' leases that stood for something else here, and were told again."),
		reconciled:  reconciliations("mended"),
		lied:        reconciliations("nothing"),
		toldRefused: f.counter("ocnode_changes_refused_total", "Changes told that are not the native's to tell, or that no lease can have."),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ocnode_watchers", Help: "Watchers over libp2p that this native serves, other natives included.",
		}),
		dropped: f.counter("ocnode_watchers_dropped_total", "Watches over libp2p that this native ended, mostly since the watcher did not read."),

		askedFound:    asked("found"),
		askedNotFound: asked("not_found"),
		askedBusy:     asked("busy"),
		askedFailed:   asked("error"),

		leaveTaken:  leaving("taken"),
		leaveFailed: leaving("failed"),

		heard:      f.counter("ocnode_announcements_heard_total", "Announcements heard from other natives."),
		sent:       sent("sent"),
		sendFailed: sent("error"),

		found:          lookups("found"),
		notFound:       lookups("not_found"),
		lookupFailed:   lookups("error"),
		lookupDuration: f.histogram("ocnode_lookup_duration_seconds", "Duration of look-ups of known PeerIDs in the store.", durations),

		replicated:  puts("replicated"),
		alone:       puts("alone"),
		putFailed:   puts("error"),
		putDuration: f.histogram("ocnode_store_put_duration_seconds", "Duration of puts into the store.", durations),

		untrusted: make(map[ports.Untrusted]prometheus.Counter),

		expired:   f.counter("ocnode_expirations_total", "Entries that reached their deadline and were removed."),
		forgotten: f.counter("ocnode_forgotten_total", "Known PeerIDs that are no longer looked up."),

		granted:      leases("granted"),
		unconfirmed:  leases("unconfirmed"),
		leaseFailed:  leases("failed"),
		leaseRefused: newRefusals(leases),
		leaseDuration: f.histogram("ocnode_lease_attempt_duration_seconds",
			"Duration of registrations sent to natives, the dial included.", durations),
		lost: f.counter("ocnode_leases_lost_total", "Connections to natives that ended while a lease was held."),

		lastGranted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ocnode_lease_last_granted_timestamp_seconds",
			Help: "When a native last granted this indexer a lease, in seconds since 1970; 0 before the first.",
		}),
		superseded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ocnode_superseded",
			Help: "1 while this indexer does not register, since a process with its key that started later lives; else 0.",
		}),
	}
	faults := f.counters("ocnode_proofs_refused_total",
		"Records and ticks that proved nothing, from registrations, the store and other natives, by what was wrong with them.", "fault")
	m.faults = make(map[ports.Fault]prometheus.Counter)
	for _, fault := range ports.Faults() {
		m.faults[fault] = faults(string(fault))
	}
	m.beats = f.counter("ocnode_heartbeat_frames_total", "Frames that indexers sent over open streams of heartbeats; each is one of ocnode_registrations_total too, once it was understood.")
	m.beating = prometheus.NewGauge(prometheus.GaugeOpts{Name: "ocnode_heartbeat_streams", Help: "Open streams of heartbeats that this native serves."})
	f.add(m.beating)
	beatingEnded := f.counters("ocnode_heartbeat_streams_ended_total",
		"Open streams of heartbeats that this native ended, by why: a frame that is none, or no frame for a TTL (malformed), one that is too large, an indexer that beats too often or a native that stops (busy), or answers that are not read (too_slow).", "code")
	m.beatingEnded = make(map[ports.Code]prometheus.Counter)
	for _, code := range []ports.Code{ports.CodeMalformed, ports.CodeTooLarge, ports.CodeBusy, ports.CodeTooSlow} {
		m.beatingEnded[code] = beatingEnded(string(code))
	}
	m.rivals = f.counter("ocnode_rivals_total", "Signs of two processes with one key: registrations refused since another process with the key has started since, and two natives with one key.")
	if from.ClockOffset != nil {
		f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ocnode_clock_offset_seconds",
			Help: "How far this node's clock is ahead of the median of the natives' that it knows; above 30 either way it goes by theirs.",
		}, func() float64 { return from.ClockOffset().Seconds() }))
	}
	for _, what := range []ports.Untrusted{
		ports.UntrustedAnnouncement, ports.UntrustedChange, ports.UntrustedLeave, ports.UntrustedWatch, ports.UntrustedEntry,
	} {
		m.untrusted[what] = untrusted(string(what))
	}
	for _, limit := range ports.LimitNames {
		m.limited[limit] = limits(string(limit))
	}
	f.add(m.watchers)
	if from.Indexer {
		f.add(m.lastGranted)
		f.add(m.superseded)
	}
	if from.Signatures != nil {
		f.signatures(from.Signatures)
	}
	if from.Following != nil {
		f.gauge("ocnode_natives_followed", "Natives that tell this one what they grant, as they grant it.", from.Following)
	}
	if from.Condition != nil {
		for _, c := range ports.Conditions {
			f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name:        "ocnode_condition",
				Help:        "1 while the native says this condition: warming has not taken over what others hold, isolated has lost all others, unheard did not hear its indexers for a while, partial has lost some others.",
				ConstLabels: prometheus.Labels{"condition": string(c)},
			}, func() float64 {
				if from.Condition() == c {
					return 1
				}
				return 0
			}))
		}
	}
	if from.Leases != nil {
		f.leases(from.Leases)
	}
	if from.Ready != nil {
		f.gauge("ocnode_ready", "1 while every module serves, as /readyz has it; 0 while the node starts or stops.", func() int {
			if from.Ready() {
				return 1
			}
			return 0
		})
	}
	f.constant("ocnode_registry_ttl_seconds", "registry.ttl of this node; it must be the same in the whole network.", from.TTL)
	f.constant("ocnode_registry_heartbeat_seconds", "registry.heartbeat of this node.", from.Heartbeat)
	if from.Counts != nil {
		f.gauge("ocnode_live_indexers", "Live entries, those included that expired since the last sweep.", func() int { live, _ := from.Counts(); return live })
		f.gauge("ocnode_known_peers", "PeerIDs that this native knows: the live ones, and those that it heard of and looks up.", func() int { _, known := from.Counts(); return known })
	}
	if from.Stale != nil {
		f.gauge("ocnode_stale_indexers", "Entries that have ended and are shown as stale, since this native did not hear its indexers for a while.", from.Stale)
	}
	if from.HeldBack != nil {
		f.add(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ocnode_renewals_held_back_total",
			Help: "Renewals that were not announced though a listener does not follow this native: a native announces at most 20 a second.",
		}, func() float64 { return float64(from.HeldBack()) }))
	}
	if from.OutboxWaiting != nil {
		f.gauge("ocnode_outbox_waiting", "PeerIDs that wait to be put into the store and announced.", from.OutboxWaiting)
	}
	if from.Avoided != nil {
		f.avoided(from.Avoided)
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
		if e.Joined {
			m.registered.Inc()
		} else {
			m.left.Observe(e.Remaining.Seconds())
		}
	case ports.EventRefused:
		m.refused.of(e.Code).Inc()
		m.countLimit(e.Err)
	case ports.EventLimited:
		m.countLimit(e.Err)
	case ports.EventDialledBack:
		if e.Err == nil {
			m.dialledBack.Inc()
		} else {
			m.notDialledBack.Inc()
		}
	case ports.EventHeard:
		m.heard.Inc()
	case ports.EventLookedUp:
		m.lookupDuration.Observe(e.Took.Seconds())
		if e.Joined {
			m.lookedUp.Inc()
		}
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
	case ports.EventUntrusted:
		m.untrusted[e.What].Inc()
	case ports.EventExpired:
		m.expired.Inc()
	case ports.EventForgotten:
		m.forgotten.Inc()
	case ports.EventFaulty:
		if c := m.faults[e.Fault]; c != nil {
			c.Inc()
		}
	case ports.EventTwin:
		m.rivals.Inc()
	case ports.EventRival:
		switch {
		case e.Via == "":
			m.rivals.Inc()
		case e.Code == ports.CodeSuperseded:
			m.superseded.Set(1)
		}
	case ports.EventRivalGone:
		m.superseded.Set(0)
	case ports.EventJoined:
		m.joinedElsewhere.Inc()
	case ports.EventLeft:
		switch {
		case !e.Joined:
		case e.Via == "":
			m.leftHere.Inc()
		default:
			m.leftElsewhere.Inc()
		}
	case ports.EventUnfollowed:
		m.unfollowed.Inc()
	case ports.EventTold:
		m.told.Add(float64(e.Changes))
		m.renewed.Add(float64(e.Renewals))
		m.toldRefused.Add(float64(e.Refused))

	case ports.EventNewsTold:
		m.framesTold.Add(float64(e.Frames))
		m.renewalsTold.Add(float64(e.Renewals))
	case ports.EventNewsRead:
		m.framesRead.Add(float64(e.Frames))
		m.renewalsRead.Add(float64(e.Renewals))
	case ports.EventNewsRefused:
		if e.Code == ports.CodeTooLarge {
			m.framesTooLarge.Inc()
		} else {
			m.framesMalformed.Inc()
		}
	case ports.EventReconciled:
		m.mended.Add(float64(e.Changes))
		if e.Err == nil {
			m.reconciled.Inc()
		} else {
			m.lied.Inc()
		}
	case ports.EventWatching:
		m.watchers.Inc()
	case ports.EventWatched:
		m.watchers.Dec()
		if e.Err != nil {
			m.dropped.Inc()
		}
	case ports.EventBeating:
		m.beating.Inc()
	case ports.EventBeats:
		m.beats.Add(float64(e.Changes))
	case ports.EventBeaten:
		m.beating.Dec()
		if c := m.beatingEnded[e.Code]; c != nil {
			c.Inc()
		}
	case ports.EventAsked:
		switch {
		case e.Err == nil:
			m.askedFound.Inc()
		case errors.Is(e.Err, ports.ErrNotFound):
			m.askedNotFound.Inc()
		case e.Code == ports.CodeBusy:
			m.askedBusy.Inc()
		default:
			m.askedFailed.Inc()
		}
	case ports.EventLeaseLeft:
		if e.Err == nil {
			m.leaveTaken.Inc()
		} else {
			m.leaveFailed.Inc()
		}
	case ports.EventLeaseGranted:
		m.granted.Inc()
		m.leaseDuration.Observe(e.Took.Seconds())
		m.lastGranted.SetToCurrentTime()
	case ports.EventLeaseUnconfirmed:
		m.unconfirmed.Inc()
		m.leaseDuration.Observe(e.Took.Seconds())
	case ports.EventLeaseFailed:
		m.leaseDuration.Observe(e.Took.Seconds())
		if e.Code != "" {
			m.leaseRefused.of(e.Code).Inc()
		} else {
			m.leaseFailed.Inc()
		}
	case ports.EventLeaseLost:
		m.lost.Inc()
	}
}

// countLimit counts a refusal that a limit is the reason of.
func (m *Metrics) countLimit(err error) {
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		if counter, ok := m.limited[refusal.Limit]; ok {
			counter.Inc()
		}
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

// counters returns the counter of each value of a label; its series exists from then on.
func (f *family) counters(name, help, label string) func(value string) prometheus.Counter {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	f.add(v)
	return func(value string) prometheus.Counter { return v.WithLabelValues(value) }
}

func (f *family) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	f.add(h)
	return h
}

func (f *family) gauge(name, help string, value func() int) {
	f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) }))
}

// leases adds a gauge for each answer of other natives about a lease.
func (f *family) leases(count func() (confirmed, doubted, unasked int)) {
	for i, elsewhere := range []string{"confirmed", "doubted", "unasked"} {
		f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "ocnode_leases",
			Help:        "Leases that this indexer holds: another native shows it (confirmed), no other native shows it (doubted), or no other native could be asked (unasked).",
			ConstLabels: prometheus.Labels{"elsewhere": elsewhere},
		}, func() float64 {
			confirmed, doubted, unasked := count()
			return float64([...]int{confirmed, doubted, unasked}[i])
		}))
	}
}

// signatures adds the counters of the signatures that were checked.
func (f *family) signatures(count func() (alone, batched, bad uint64)) {
	f.counterFunc("ocnode_signatures_bad_total", "Signatures of records that were checked, and are not the indexers'.", nil, func() float64 {
		_, _, bad := count()
		return float64(bad)
	})
	for i, how := range []string{"alone", "batch"} {
		f.counterFunc("ocnode_signatures_checked_total", "Signatures of records that were checked: each alone, or many at once in a batch, which costs less.",
			prometheus.Labels{"how": how}, func() float64 {
				alone, batched, _ := count()
				return float64([...]uint64{alone, batched}[i])
			})
	}
}

func (f *family) counterFunc(name, help string, labels prometheus.Labels, value func() float64) {
	f.add(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// avoided adds a counter for each way in which a renewal may be spread.
func (f *family) avoided(count func() (puts, announcements uint64)) {
	for i, what := range []string{"put", "announcement"} {
		f.counterFunc("ocnode_renewals_avoided_total", "Puts and announcements of renewals that were left out: all natives that they would reach follow this native.",
			prometheus.Labels{"what": what}, func() float64 {
				puts, announcements := count()
				return float64([...]uint64{puts, announcements}[i])
			})
	}
}

func (f *family) constant(name, help string, value time.Duration) {
	f.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value.Seconds))
}
