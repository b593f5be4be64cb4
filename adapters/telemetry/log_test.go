package telemetry

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// newLog returns a Log at level that writes lines without a time to the buffer.
func newLog(level string) (*Log, *bytes.Buffer) {
	var out bytes.Buffer
	options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		panic(err)
	}
	options.Level = l
	log := slog.New(slog.NewTextHandler(&out, options))
	return NewLog(log, log), &out
}

func TestWhatAnOperatorIsTold(t *testing.T) {
	for _, tc := range []struct {
		name   string
		events []ports.Event
		want   string
	}{
		{"an indexer joins and renews",
			[]ports.Event{
				{Kind: ports.EventRegistered, PeerID: "a", Joined: true},
				{Kind: ports.EventRegistered, PeerID: "a"},
			},
			"level=INFO msg=\"indexer joined\" peerID=a\n"},
		{"an indexer is found through another native, and again",
			[]ports.Event{
				{Kind: ports.EventHeard, PeerID: "a", Via: "n"},
				{Kind: ports.EventLookedUp, PeerID: "a", Via: "n", Took: time.Millisecond, Joined: true},
				{Kind: ports.EventLookedUp, PeerID: "a", Via: "n", Took: time.Millisecond},
			},
			"level=INFO msg=\"indexer joined\" peerID=a via=n took=1ms\n"},
		{"natives follow each other, and one tells of an indexer that comes and goes",
			[]ports.Event{
				{Kind: ports.EventFollowing, Via: "n", Took: time.Millisecond},
				{Kind: ports.EventTold, Via: "n", Changes: 1},
				{Kind: ports.EventJoined, PeerID: "a", Via: "n", Joined: true},
				{Kind: ports.EventLeft, PeerID: "a", Via: "n", Joined: true},
				{Kind: ports.EventTold, Via: "n", Changes: 9, Refused: 3, Err: errTest},
				{Kind: ports.EventTold, Via: "n", Changes: 9, Refused: 3, Err: errTest},
				{Kind: ports.EventUnfollowed, Via: "n", Err: errTest},
			},
			"level=INFO msg=\"following a native\" via=n took=1ms\n" +
				"level=INFO msg=\"indexer joined\" peerID=a via=n\n" +
				"level=INFO msg=\"indexer left\" peerID=a via=n\n" +
				"level=WARN msg=\"changes refused\" via=n changes=9 refused=3 error=\"no route\"\n" +
				"level=INFO msg=\"native not followed any more\" via=n error=\"no route\"\n"},
		{"an indexer leaves, and a watcher is dropped",
			[]ports.Event{
				{Kind: ports.EventLeft, PeerID: "a", Joined: true},
				{Kind: ports.EventWatching, PeerID: "w"},
				{Kind: ports.EventWatched, PeerID: "w", Err: errTest},
			},
			"level=INFO msg=\"indexer left\" peerID=a\n" +
				"level=INFO msg=\"watcher dropped\" peerID=w error=\"no route\"\n"},
		{"an indexer expires and is forgotten",
			[]ports.Event{
				{Kind: ports.EventExpired, PeerID: "a"},
				{Kind: ports.EventLookedUp, PeerID: "a", Took: time.Millisecond, Err: ports.ErrNotFound},
				{Kind: ports.EventForgotten, PeerID: "a"},
			},
			"level=INFO msg=\"indexer expired\" peerID=a\n"},
		{"a registration is refused",
			[]ports.Event{{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodePeerMismatch}},
			"level=INFO msg=\"registration refused\" peerID=a code=peer_mismatch\n"},
		{"strangers try, and a native whose list is another",
			[]ports.Event{
				{Kind: ports.EventUntrusted, What: ports.UntrustedLeave, PeerID: "a"},
				{Kind: ports.EventUntrusted, What: ports.UntrustedWatch, PeerID: "w"},
				{Kind: ports.EventUntrusted, What: ports.UntrustedWatch, PeerID: "w"},
			},
			"level=INFO msg=\"untrusted native refused\" what=watch peerID=w\n"},
		{"two limits refuse, and each is told of once",
			[]ports.Event{
				{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitSite, "too many")},
				{Kind: ports.EventRefused, PeerID: "b", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitSite, "too many")},
				{Kind: ports.EventRefused, PeerID: "c", Code: ports.CodeBusy, Err: ports.Busy(ports.LimitRate, "too often")},
				{Kind: ports.EventLimited, PeerID: "w", Err: ports.Busy(ports.LimitWatchers, "full")},
			},
			"level=INFO msg=\"registration refused\" peerID=a code=busy error=\"busy: too many\" limit=site_identities\n" +
				"level=INFO msg=\"registration refused\" peerID=c code=busy error=\"busy: too often\" limit=identity_rate\n" +
				"level=INFO msg=\"refused by a limit\" peerID=w error=\"busy: full\" limit=watchers\n"},
		{"a put and an announcement fail",
			[]ports.Event{
				{Kind: ports.EventPut, PeerID: "a", Took: time.Millisecond},
				{Kind: ports.EventAnnounced, PeerID: "a"},
				{Kind: ports.EventPut, PeerID: "a", Took: 3 * time.Second, Err: errTest},
				{Kind: ports.EventAnnounced, PeerID: "a", Err: errTest},
			},
			"level=WARN msg=\"put failed\" peerID=a took=3s error=\"no route\"\n" +
				"level=WARN msg=\"announcement failed\" peerID=a error=\"no route\"\n"},
		{"a lease changes, at one native of two",
			[]ports.Event{
				{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "m"},
				{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseLost, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseFailed, PeerID: "a", Via: "n", Took: time.Second, Err: errTest},
				{Kind: ports.EventLeaseFailed, PeerID: "a", Via: "n", Took: time.Second, Err: errTest},
				{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "m"},
				{Kind: ports.EventLeaseGranted, PeerID: "a", Via: "n"},
			},
			"level=INFO msg=\"lease granted\" peerID=a via=n\n" +
				"level=INFO msg=\"lease granted\" peerID=a via=m\n" +
				"level=WARN msg=\"lease lost\" peerID=a via=n\n" +
				"level=WARN msg=\"lease failed\" peerID=a via=n took=1s error=\"no route\"\n" +
				"level=INFO msg=\"lease granted\" peerID=a via=n\n"},
		{"natives tell nobody of a lease, and then one of them does",
			[]ports.Event{
				{Kind: ports.EventLeaseDoubted, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseDoubted, PeerID: "a"},
				{Kind: ports.EventLeaseConfirmed, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseConfirmed, PeerID: "a"},
			},
			"level=INFO msg=\"lease doubted\" peerID=a via=n\n" +
				"level=WARN msg=\"natives hold leases of this indexer, and no other native shows them; it may be listed nowhere\" peerID=a " +
				"hint=\"name a native that you trust in host.bootstrap, or in indexer.natives\"\n" +
				"level=INFO msg=\"lease confirmed\" peerID=a via=n\n" +
				"level=INFO msg=\"another native shows this indexer again\" peerID=a\n"},
		{"a native of the seed never answers",
			[]ports.Event{
				{Kind: ports.EventLeaseUnconfirmed, PeerID: "a", Via: "n"},
				{Kind: ports.EventLeaseUnconfirmed, PeerID: "a", Via: "n"},
			},
			"level=INFO msg=\"lease unconfirmed\" peerID=a via=n\n"},
		{
			name: "whose word is no proof, and two processes with one key",
			events: []ports.Event{
				{Kind: ports.EventFaulty, PeerID: "a", Via: "n", Fault: ports.FaultTick, Err: errTest},
				{Kind: ports.EventRival, PeerID: "a"},
				{Kind: ports.EventRival, PeerID: "a", Via: "n"},
				{Kind: ports.EventRival, PeerID: "a", Via: "n", Code: ports.CodeSuperseded, Err: errTest},
				{Kind: ports.EventRivalGone, PeerID: "a"},
			},
			want: "level=INFO msg=\"proof refused\" peerID=a via=n fault=tick error=\"no route\"\n" +
				"level=WARN msg=\"two processes have one key; the older is refused\" peerID=a\n" +
				"level=WARN msg=\"another process has this node's key, and started before it; stop that one\" peerID=a via=n\n" +
				"level=ERROR msg=\"another process with this node's key started after it; this one registers no more while that one lives\" peerID=a via=n code=superseded error=\"no route\"\n" +
				"level=INFO msg=\"no other process with this node's key lives any more; this one registers again\" peerID=a\n",
		},
		{"two clocks differ",
			[]ports.Event{{Kind: ports.EventClock, PeerID: "n", Via: "m", Took: time.Minute}},
			"level=WARN msg=\"this node's clock and that of the only other native differ; nothing tells which of them is wrong\" peerID=n via=m ahead=1m0s hint=\"have both clocks set, by NTP for one\"\n"},
		{"a native that does not hear its indexers",
			[]ports.Event{{Kind: ports.EventUnheard, PeerID: "n", Took: time.Minute}, {Kind: ports.EventUnheard, PeerID: "n"}},
			"level=WARN msg=\"this native slept or stood still; entries that ended meanwhile are shown as stale\" peerID=n for=1m0s\n" +
				"level=WARN msg=\"nothing answers this native; its line is lost, or its indexers have lost theirs; what ends now may be alive\" peerID=n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log, out := newLog("info")
			for _, e := range tc.events {
				log.Observe(e)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDebugHasALineForEveryEvent(t *testing.T) {
	log, out := newLog("debug")
	for n, e := range allEvents {
		before := out.Len()
		log.Observe(e)
		line := out.String()[before:]
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, "peerID=a") && !strings.Contains(line, "via=n") && !strings.Contains(line, "peerID=w") {
			t.Errorf("%d: %q", n, line)
		}
	}
	log.Observe(ports.Event{Kind: ports.EventPut, PeerID: "a", Replicas: 3})
	if !strings.HasSuffix(out.String(), "level=DEBUG msg=put peerID=a replicas=3\n") {
		t.Errorf("got %s", out)
	}
}

func TestIdleMinutesAreSilent(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		log, out := newLog("info")
		heartbeat := func(joined bool) {
			for i := range 10 {
				id := ports.PeerID(fmt.Sprint(i))
				log.Observe(ports.Event{Kind: ports.EventRegistered, PeerID: id, Joined: joined})
				log.Observe(ports.Event{Kind: ports.EventPut, PeerID: id, Took: time.Millisecond})
				log.Observe(ports.Event{Kind: ports.EventAnnounced, PeerID: id})
				log.Observe(ports.Event{Kind: ports.EventHeard, PeerID: id, Via: "n"})
				log.Observe(ports.Event{Kind: ports.EventLookedUp, PeerID: id, Via: "n", Took: time.Millisecond})
				log.Observe(ports.Event{Kind: ports.EventLeaseGranted, PeerID: id, Via: "n"})
			}
		}
		heartbeat(true)
		started := out.Len()
		for range 5 {
			time.Sleep(time.Minute)
			heartbeat(false)
		}
		if out.Len() != started {
			t.Errorf("got %s", out.String()[started:])
		}
	})
}

func TestAFloodIsALineATimeAndTheRestIsCounted(t *testing.T) {
	for _, tc := range []struct {
		event ports.Event
		lines int
		every time.Duration
	}{
		{ports.Event{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeMalformed}, 1, 10 * time.Second},
		{ports.Event{Kind: ports.EventRegistered, PeerID: "a", Joined: true}, 20, 10 * time.Second},
		{ports.Event{Kind: ports.EventExpired, PeerID: "a"}, 20, 10 * time.Second},
		{ports.Event{Kind: ports.EventPut, PeerID: "a", Err: errTest}, 1, time.Minute},
		{ports.Event{Kind: ports.EventAnnounced, PeerID: "a", Err: errTest}, 1, time.Minute},
	} {
		t.Run(string(tc.event.Kind), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				log, out := newLog("info")
				const flood = 1000
				step := func(wait time.Duration, events, lines, suppressed int) {
					t.Helper()
					time.Sleep(wait)
					out.Reset()
					for range events {
						log.Observe(tc.event)
					}
					if got := strings.Count(out.String(), "\n"); got != lines {
						t.Errorf("%d lines, want %d", got, lines)
					}
					said := strings.Contains(out.String(), fmt.Sprintf(" suppressed=%d\n", suppressed))
					if said != (suppressed > 0) || strings.Count(out.String(), "suppressed=") > 1 {
						t.Errorf("want %d suppressed once, got %s", suppressed, out)
					}
				}
				step(0, flood, tc.lines, 0)
				step(tc.every-1, flood, 0, 0)
				step(1, flood, tc.lines, 2*flood-tc.lines)
				step(tc.every+1, 1, 1, flood-tc.lines)
				step(tc.every, 1, 1, 0)
			})
		})
	}
}

func TestASuppressedLineComesAtDebug(t *testing.T) {
	log, out := newLog("debug")
	for range 2 {
		log.Observe(ports.Event{Kind: ports.EventRefused, PeerID: "a", Code: ports.CodeBusy})
	}
	want := "level=INFO msg=\"registration refused\" peerID=a code=busy\n" +
		"level=DEBUG msg=\"registration refused\" peerID=a code=busy\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
