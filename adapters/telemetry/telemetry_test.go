package telemetry

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errTest = errors.New("no route")

// allEvents has every kind with every result.
var allEvents = []ports.Event{
	{Kind: ports.EventRegistered, PeerID: "a", Joined: true},
	{Kind: ports.EventRegistered, PeerID: "a", Remaining: 6 * time.Second},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeMalformed},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeTooLarge},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodePeerMismatch},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeAddrInvalid},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeRefused},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy},
	{Kind: ports.EventRefused, PeerID: "a", Code: "of a later version"},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitRate, "too often")},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitSite, "too many")},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitEntries, "full")},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeAddrInvalid, Err: &ports.Refusal{Code: ports.CodeAddrInvalid, Limit: ports.LimitAddress}},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitDialBacks, "not yet")},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy("of a later version", "no series of its own")},
	{Kind: ports.EventLimited, PeerID: "w", Err: ports.Busy(ports.LimitWatchers, "full")},
	{Kind: ports.EventLimited, PeerID: "w", Err: ports.Busy(ports.LimitPeerWatchers, "full")},
	{Kind: ports.EventDialledBack, PeerID: "a", Took: time.Second / 4},
	{Kind: ports.EventDialledBack, PeerID: "a", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventDialledBack, PeerID: "a", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventHeard, PeerID: "a", Via: "n"},
	{Kind: ports.EventLookedUp, PeerID: "a", Via: "n", Took: time.Second / 4, Joined: true},
	{Kind: ports.EventLookedUp, PeerID: "a", Took: 3 * time.Second, Err: fmt.Errorf("get a: %w", ports.ErrNotFound)},
	{Kind: ports.EventLookedUp, PeerID: "a", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventPut, PeerID: "a", Took: time.Second / 4, Replicas: 3},
	{Kind: ports.EventPut, PeerID: "a", Took: time.Second / 4},
	{Kind: ports.EventPut, PeerID: "a", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventAnnounced, PeerID: "a"},
	{Kind: ports.EventAnnounced, PeerID: "a", Err: errTest},
	{Kind: ports.EventUntrusted, What: ports.UntrustedAnnouncement, PeerID: "a", Via: "n"},
	{Kind: ports.EventUntrusted, What: ports.UntrustedChange, PeerID: "a", Via: "n"},
	{Kind: ports.EventUntrusted, What: ports.UntrustedLeave, PeerID: "a"},
	{Kind: ports.EventUntrusted, What: ports.UntrustedWatch, PeerID: "w"},
	{Kind: ports.EventUntrusted, What: ports.UntrustedEntry, PeerID: "a"},
	{Kind: ports.EventExpired, PeerID: "a"},
	{Kind: ports.EventForgotten, PeerID: "a"},
	{Kind: ports.EventJoined, PeerID: "a", Via: "n", Joined: true},
	{Kind: ports.EventLeft, PeerID: "a", Joined: true},
	{Kind: ports.EventLeft, PeerID: "a"},
	{Kind: ports.EventLeft, PeerID: "a", Via: "n", Joined: true},
	{Kind: ports.EventFollowing, Via: "n", Took: time.Second / 4},
	{Kind: ports.EventUnfollowed, Via: "n", Err: errTest},
	{Kind: ports.EventTold, Via: "n", Changes: 7},
	{Kind: ports.EventNewsTold, PeerID: "w", Frames: 2, Renewals: 700},
	{Kind: ports.EventNewsRead, Via: "n", Frames: 1, Renewals: 100},
	{Kind: ports.EventNewsRefused, Via: "n", Code: ports.CodeMalformed, Err: errTest},
	{Kind: ports.EventNewsRefused, PeerID: "w", Code: ports.CodeTooLarge, Err: errTest},
	{Kind: ports.EventTold, Via: "n", Changes: 5, Renewals: 4, Refused: 2, Err: errTest},
	{Kind: ports.EventReconciled, Via: "n", Changes: 3},
	{Kind: ports.EventReconciled, Via: "n", Err: errTest},
	{Kind: ports.EventWatching, PeerID: "w"},
	{Kind: ports.EventWatching, PeerID: "w"},
	{Kind: ports.EventWatching, PeerID: "w"},
	{Kind: ports.EventWatched, PeerID: "w"},
	{Kind: ports.EventWatched, PeerID: "w", Err: errTest},
	{Kind: ports.EventLimited, PeerID: "a", Err: ports.Busy(ports.LimitPeerHeartbeats, "full")},
	{Kind: ports.EventBeating, PeerID: "a"},
	{Kind: ports.EventBeating, PeerID: "a"},
	{Kind: ports.EventBeats, PeerID: "a", Changes: 16},
	{Kind: ports.EventBeats, PeerID: "a", Changes: 1},
	{Kind: ports.EventBeaten, PeerID: "a", Code: ports.CodeBusy, Err: errTest},
	{Kind: ports.EventAsked, PeerID: "a", Took: time.Second / 4},
	{Kind: ports.EventAsked, PeerID: "a", Took: time.Second / 4, Err: ports.ErrNotFound},
	{Kind: ports.EventAsked, PeerID: "a", Code: ports.CodeBusy, Err: errTest},
	{Kind: ports.EventAsked, PeerID: "a", Err: errTest},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeProofInvalid, Err: errTest},
	{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeSuperseded, Err: errTest},
	{Kind: ports.EventFaulty, PeerID: "a", Fault: ports.FaultTick, Err: errTest},
	{Kind: ports.EventFaulty, PeerID: "a", Via: "n", Fault: ports.FaultOlder, Err: errTest},
	{Kind: ports.EventFaulty, PeerID: "a", Via: "n", Fault: "of a stranger", Err: errTest},
	{Kind: ports.EventRival, PeerID: "a"},
	{Kind: ports.EventTwin, PeerID: "a", Err: errTest},
	{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "n", Took: time.Second / 4},
	{Kind: ports.EventLeaseUnconfirmed, PeerID: "a", Via: "n", Took: time.Second / 4},
	{Kind: ports.EventRival, PeerID: "a", Via: "n"},
	{Kind: ports.EventClock, PeerID: "a", Took: time.Minute},
	{Kind: ports.EventUnheard, PeerID: "a", Took: time.Minute},
	{Kind: ports.EventRivalGone, PeerID: "a"},
	{Kind: ports.EventRival, PeerID: "a", Via: "n", Code: ports.CodeSuperseded, Err: errTest},
	{Kind: ports.EventLeaseFailed, PeerID: "a", Via: "n", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventLeaseFailed, PeerID: "a", Via: "n", Code: ports.CodeBusy, Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventLeaseFailed, PeerID: "a", Via: "n", Code: "of a stranger", Took: time.Second / 4, Err: errTest},
	{Kind: ports.EventLeaseLost, PeerID: "a", Via: "n"},
	{Kind: ports.EventLeaseDoubted, PeerID: "a", Via: "n"},
	{Kind: ports.EventLeaseDoubted, PeerID: "a"},
	{Kind: ports.EventLeaseConfirmed, PeerID: "a", Via: "n"},
	{Kind: ports.EventLeaseConfirmed, PeerID: "a"},
	{Kind: ports.EventLeaseLeft, PeerID: "a", Via: "n", Took: time.Second / 4},
	{Kind: ports.EventLeaseLeft, PeerID: "a", Via: "n", Err: errTest},
}

func newMetrics(tb testing.TB, from Sources) (*Metrics, *prometheus.Registry) {
	tb.Helper()
	reg := NewRegistry()
	m, err := NewMetrics(reg, from)
	if err != nil {
		tb.Fatal(err)
	}
	return m, reg
}

// scrape returns the samples of ocnode's own metrics, without the buckets.
func scrape(tb testing.TB, reg *prometheus.Registry) map[string]string {
	tb.Helper()
	w := httptest.NewRecorder()
	Handler(reg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		tb.Fatalf("%d %s", w.Code, w.Body)
	}
	samples := make(map[string]string)
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "ocnode_") && !strings.Contains(line, "_bucket{") {
			series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			samples[series] = value
		}
	}
	return samples
}

var allSources = Sources{
	Version:       "1.2.3",
	TTL:           66 * time.Second,
	Heartbeat:     time.Minute,
	Indexer:       true,
	Ready:         func() bool { return true },
	Counts:        func() (live, known int) { return 7, 9 },
	Stale:         func() int { return 2 },
	OutboxWaiting: func() int { return 5 },
	Avoided:       func() (puts, announcements uint64) { return 11, 12 },
	HeldBack:      func() uint64 { return 6 },
	Following:     func() int { return 2 },
	Leases:        func() (confirmed, doubted, unasked int) { return 3, 2, 1 },
	Condition:     func() ports.Condition { return ports.ConditionIsolated },
	ClockOffset:   func() time.Duration { return -3 * time.Second / 2 },
}

func TestEveryEventIsCountedOnceUnderItsResult(t *testing.T) {
	m, reg := newMetrics(t, allSources)
	want := map[string]string{ // after all events
		`ocnode_registrations_total{result="accepted"}`:       "2",
		`ocnode_registrations_total{result="malformed"}`:      "1",
		`ocnode_registrations_total{result="too_large"}`:      "1",
		`ocnode_registrations_total{result="peer_mismatch"}`:  "1",
		`ocnode_registrations_total{result="addr_invalid"}`:   "2",
		`ocnode_registrations_total{result="refused"}`:        "2",
		`ocnode_registrations_total{result="busy"}`:           "6",
		`ocnode_limited_total{limit="identity_rate"}`:         "1",
		`ocnode_limited_total{limit="site_identities"}`:       "1",
		`ocnode_limited_total{limit="entries"}`:               "1",
		`ocnode_limited_total{limit="address"}`:               "1",
		`ocnode_limited_total{limit="dial_backs"}`:            "1",
		`ocnode_limited_total{limit="watchers"}`:              "1",
		`ocnode_limited_total{limit="peer_watchers"}`:         "1",
		`ocnode_dial_backs_total{result="proven"}`:            "1",
		`ocnode_dial_backs_total{result="failed"}`:            "2",
		`ocnode_announcements_heard_total`:                    "1",
		`ocnode_announcements_sent_total{result="sent"}`:      "1",
		`ocnode_announcements_sent_total{result="error"}`:     "1",
		`ocnode_lookups_total{result="found"}`:                "1",
		`ocnode_lookups_total{result="not_found"}`:            "1",
		`ocnode_lookups_total{result="error"}`:                "1",
		`ocnode_lookup_duration_seconds_count`:                "3",
		`ocnode_lookup_duration_seconds_sum`:                  "3.5",
		`ocnode_store_puts_total{result="replicated"}`:        "1",
		`ocnode_store_puts_total{result="alone"}`:             "1",
		`ocnode_store_puts_total{result="error"}`:             "1",
		`ocnode_store_put_duration_seconds_count`:             "3",
		`ocnode_store_put_duration_seconds_sum`:               "0.75",
		`ocnode_untrusted_total{what="announcement"}`:         "1",
		`ocnode_untrusted_total{what="change"}`:               "1",
		`ocnode_untrusted_total{what="leave"}`:                "1",
		`ocnode_untrusted_total{what="watch"}`:                "1",
		`ocnode_untrusted_total{what="entry"}`:                "1",
		`ocnode_expirations_total`:                            "1",
		`ocnode_forgotten_total`:                              "1",
		`ocnode_heartbeat_left_seconds_count`:                 "1",
		`ocnode_heartbeat_left_seconds_sum`:                   "6",
		`ocnode_joins_total{via="registration"}`:              "1",
		`ocnode_joins_total{via="lookup"}`:                    "1",
		`ocnode_joins_total{via="native"}`:                    "1",
		`ocnode_leaves_total{via="indexer"}`:                  "1",
		`ocnode_leaves_total{via="native"}`:                   "1",
		`ocnode_follows_ended_total`:                          "1",
		`ocnode_changes_told_total`:                           "12",
		`ocnode_changes_refused_total`:                        "2",
		`ocnode_changes_renewed_total`:                        "4",
		`ocnode_reconciled_total`:                             "3",
		`ocnode_reconciliations_total{result="mended"}`:       "1",
		`ocnode_reconciliations_total{result="nothing"}`:      "1",
		`ocnode_watchers`:                                     "1",
		`ocnode_watchers_dropped_total`:                       "1",
		`ocnode_asked_total{result="found"}`:                  "1",
		`ocnode_asked_total{result="not_found"}`:              "1",
		`ocnode_asked_total{result="busy"}`:                   "1",
		`ocnode_asked_total{result="error"}`:                  "1",
		`ocnode_lease_leaves_total{result="taken"}`:           "1",
		`ocnode_lease_leaves_total{result="failed"}`:          "1",
		`ocnode_natives_followed`:                             "2",
		`ocnode_condition{condition="warming"}`:               "0",
		`ocnode_condition{condition="isolated"}`:              "1",
		`ocnode_condition{condition="unheard"}`:               "0",
		`ocnode_condition{condition="partial"}`:               "0",
		`ocnode_lease_attempt_duration_seconds_count`:         "5",
		`ocnode_lease_attempt_duration_seconds_sum`:           "1.25",
		`ocnode_lease_attempts_total{result="malformed"}`:     "0",
		`ocnode_lease_attempts_total{result="too_large"}`:     "0",
		`ocnode_lease_attempts_total{result="peer_mismatch"}`: "0",
		`ocnode_lease_attempts_total{result="addr_invalid"}`:  "0",
		`ocnode_lease_attempts_total{result="refused"}`:       "1",
		`ocnode_lease_attempts_total{result="busy"}`:          "1",
		`ocnode_registry_ttl_seconds`:                         "66",
		`ocnode_registry_heartbeat_seconds`:                   "60",
		`ocnode_ready`:                                        "1",
		`ocnode_lease_attempts_total{result="granted"}`:       "1",
		`ocnode_lease_attempts_total{result="unconfirmed"}`:   "1",
		`ocnode_lease_attempts_total{result="failed"}`:        "1",
		`ocnode_leases_lost_total`:                            "1",
		`ocnode_live_indexers`:                                "7",
		`ocnode_known_peers`:                                  "9",
		`ocnode_stale_indexers`:                               "2",
		`ocnode_outbox_waiting`:                               "5",
		`ocnode_renewals_avoided_total{what="put"}`:           "11",
		`ocnode_renewals_avoided_total{what="announcement"}`:  "12",

		`ocnode_follow_frames_total{way="told"}`:                 "2",
		`ocnode_follow_frames_total{way="read"}`:                 "1",
		`ocnode_follow_renewals_total{way="told"}`:               "700",
		`ocnode_follow_renewals_total{way="read"}`:               "100",
		`ocnode_follow_frames_refused_total{reason="malformed"}`: "1",
		`ocnode_follow_frames_refused_total{reason="too_large"}`: "1",
		`ocnode_renewals_held_back_total`:                        "6",
	}
	want[`ocnode_registrations_total{result="proof_invalid"}`] = "1"
	want[`ocnode_registrations_total{result="superseded"}`] = "1"
	want[`ocnode_lease_attempts_total{result="proof_invalid"}`] = "0"
	want[`ocnode_lease_attempts_total{result="superseded"}`] = "0"
	want[`ocnode_rivals_total`] = "2"
	want[`ocnode_superseded`] = "1"
	want[`ocnode_leases{elsewhere="confirmed"}`] = "3"
	want[`ocnode_leases{elsewhere="doubted"}`] = "2"
	want[`ocnode_leases{elsewhere="unasked"}`] = "1"
	want[`ocnode_limited_total{limit="peer_heartbeats"}`] = "1"
	want[`ocnode_heartbeat_streams`] = "1"
	want[`ocnode_heartbeat_frames_total`] = "17"
	for _, code := range []string{"malformed", "too_large", "busy", "too_slow"} {
		want[`ocnode_heartbeat_streams_ended_total{code="`+code+`"}`] = "0"
	}
	want[`ocnode_heartbeat_streams_ended_total{code="busy"}`] = "1"
	want[`ocnode_clock_offset_seconds`] = "-1.5"
	for _, fault := range ports.Faults() {
		want[`ocnode_proofs_refused_total{fault="`+string(fault)+`"}`] = "0"
	}
	want[`ocnode_proofs_refused_total{fault="tick"}`] = "1"
	want[`ocnode_proofs_refused_total{fault="older"}`] = "1"
	series := len(want) + 2 // those that are not in want
	const lastGranted = "ocnode_lease_last_granted_timestamp_seconds"
	check := func(when string, want func(series string) string) {
		t.Helper()
		got := scrape(t, reg)
		if info := `ocnode_build_info{goversion="` + runtime.Version() + `",version="1.2.3"}`; got[info] != "1" {
			t.Errorf("%s: no %s", when, info)
		}
		for series, value := range got {
			if series != lastGranted && !strings.HasPrefix(series, "ocnode_build_info{") && value != want(series) {
				t.Errorf("%s: %s is %s, want %s", when, series, value, want(series))
			}
		}
		if len(got) != series {
			t.Errorf("%s: %d series, want %d", when, len(got), series)
		}
	}

	check("before any event", func(series string) string {
		switch series {
		case `ocnode_leases{elsewhere="confirmed"}`, `ocnode_leases{elsewhere="doubted"}`, `ocnode_leases{elsewhere="unasked"}`,
			"ocnode_live_indexers", "ocnode_stale_indexers", "ocnode_known_peers", "ocnode_outbox_waiting", "ocnode_renewals_held_back_total", `ocnode_renewals_avoided_total{what="put"}`, `ocnode_renewals_avoided_total{what="announcement"}`, "ocnode_natives_followed", `ocnode_condition{condition="isolated"}`,
			"ocnode_clock_offset_seconds", "ocnode_ready", "ocnode_registry_ttl_seconds", "ocnode_registry_heartbeat_seconds":
			return want[series]
		}
		return "0"
	})
	if at := scrape(t, reg)[lastGranted]; at != "0" {
		t.Errorf("before any event a lease was granted at %s", at)
	}
	for _, e := range allEvents {
		m.Observe(e)
	}
	check("after all events", func(series string) string { return want[series] })
	at, err := strconv.ParseFloat(scrape(t, reg)[lastGranted], 64)
	if ago := float64(time.Now().Unix()) - at; err != nil || ago < -1 || ago > 60 {
		t.Errorf("the last lease was granted %v s ago: %v", ago, err)
	}
}

func TestGaugesWithoutASourceAreLeftOut(t *testing.T) {
	_, reg := newMetrics(t, Sources{})
	for series := range scrape(t, reg) {
		for _, gauge := range []string{"ocnode_live", "ocnode_known", "ocnode_outbox", "ocnode_renewals_avoided", "ocnode_natives", "ocnode_condition"} {
			if strings.HasPrefix(series, gauge) {
				t.Errorf("there is %s", series)
			}
		}
	}
}

func TestMetricsAreNamedAsPrometheusAsks(t *testing.T) {
	m, reg := newMetrics(t, allSources)
	for _, e := range allEvents {
		m.Observe(e)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestNoPeerIDIsInAnyLabel(t *testing.T) {
	m, reg := newMetrics(t, allSources)
	const id = "12D3KooWStranger"
	for _, e := range allEvents {
		e.PeerID, e.Via = id, id
		m.Observe(e)
	}
	w := httptest.NewRecorder()
	Handler(reg).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "ocnode_") || strings.Contains(w.Body.String(), id) {
		t.Errorf("got %s", w.Body)
	}
}

func TestASecondNodeInOneRegistryIsAnError(t *testing.T) {
	_, reg := newMetrics(t, Sources{})
	if _, err := NewMetrics(reg, Sources{}); !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		t.Errorf("got %v", err)
	}
	newMetrics(t, Sources{}) // one of its own is none
}

func TestObservingAtInfoAllocatesNothing(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) { // no limit begins anew meanwhile
		m, _ := newMetrics(t, allSources)
		log, out := newLog("info")
		observers := Observers{m, log}
		for _, e := range allEvents { // limits are used up, leases known
			for range 30 {
				observers.Observe(e)
			}
		}
		written := out.Len()
		for _, e := range allEvents {
			if e.Kind == ports.EventLeaseGranted {
				break // each would be a change of the lease and be told
			}
			if n := testing.AllocsPerRun(100, func() { observers.Observe(e) }); n != 0 {
				t.Errorf("%+v: %v allocations", e, n)
			}
		}
		if out.Len() != written {
			t.Errorf("lines were written: %s", out.String()[written:])
		}
	})
}

func TestObserversMayBeUsedConcurrently(t *testing.T) {
	m, reg := newMetrics(t, allSources)
	log, _ := newLog("debug")
	observers := Observers{m, log}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, e := range allEvents {
				observers.Observe(e)
			}
		})
	}
	wg.Wait()
	if got := scrape(t, reg)[`ocnode_registrations_total{result="accepted"}`]; got != "16" {
		t.Errorf("accepted %s, want 16", got)
	}
}

func TestTheProcessIsMeasuredToo(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(NewRegistry()).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	want := []string{"\ngo_goroutines "}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		want = append(want, "\nprocess_resident_memory_bytes ")
	}
	for _, name := range want {
		if !strings.Contains(w.Body.String(), name) {
			t.Errorf("no%s", name)
		}
	}
}

func BenchmarkObserveHeartbeat(b *testing.B) {
	m, _ := newMetrics(b, allSources)
	log, _ := newLog("info")
	observers := Observers{m, log}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			observers.Observe(ports.Event{Kind: ports.EventRegistered, PeerID: "a"})
		}
	})
}
