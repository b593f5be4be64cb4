package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// visits is a reader that is watched once for each of these, and once more until the
// watcher has enough of it.
type visits struct {
	reader
	list  []visit
	asked []asked
}

// visit is a watch from its first batch to what ends it.
type visit struct {
	batches []ports.Batch
	err     error
}

// asked is when a watch was asked for, and from where.
type asked struct {
	After  time.Duration
	Cursor string
}

func (v *visits) Watch(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		v.asked = append(v.asked, asked{time.Since(epoch), w.Cursor})
		if len(v.asked) > len(v.list) {
			<-ctx.Done()
			yield(ports.Batch{}, ctx.Err())
			return
		}
		this := v.list[len(v.asked)-1]
		for _, b := range this.batches {
			if !yield(b, nil) {
				return
			}
		}
		if this.err != nil {
			yield(ports.Batch{}, this.err)
		}
	}
}

// epoch is when fake time begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func listed(id ports.PeerID) ports.Listed {
	return ports.Listed{
		Entry: ports.Entry{PeerID: id, Addr: "/ip4/10.0.0.1/tcp/1", Native: "n1", ExpiresAt: epoch.Add(time.Minute)},
		State: ports.StateLive, Source: ports.SourceOwn, Remaining: time.Minute,
	}
}

// watched runs ocnode watch on v for a minute of fake time, or until it ends by itself.
func watched(t *testing.T, v *visits, output string, request ports.WatchRequest) (out, log string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var outText, logText bytes.Buffer
	p := &program{out: &outText, log: &logText, output: output}
	err = p.watch(ctx, v, request)
	return outText.String(), logText.String(), err
}

func TestWatchPrintsALineForEachEvent(t *testing.T) {
	strange := listed("b\x1b[2J")
	strange.Addr = "two words\n"
	story := []visit{{batches: []ports.Batch{
		{Reset: ports.ResetNew, Changes: []ports.Change{{Kind: ports.ChangeSnapshot, Listed: listed("a")}}, Cursor: "1", Live: 1, Condition: ports.ConditionWarming},
		{Cursor: "2", Live: 1, Condition: ports.ConditionWarming},
		{Changes: []ports.Change{
			{Kind: ports.ChangeJoined, Listed: strange},
			{Kind: ports.ChangeExpired, Listed: ports.Listed{Entry: ports.Entry{PeerID: "a", Native: "n1"}}},
		}, Cursor: "3", Live: 1, Condition: ports.ConditionWarming},
	}}}
	porttest.FakeTime(t, func(t *testing.T) {
		at := time.Now().Format(time.RFC3339)
		out, _, err := watched(t, &visits{list: story}, outputTable, ports.WatchRequest{})
		want := at + "   snapshot   a   /ip4/10.0.0.1/tcp/1   n1\n" +
			at + "   synced     1 live   this native is warming: it has just started, and who is missing may be alive\n" +
			at + `   joined     "b\x1b[2J"   "two words\n"   n1` + "\n" +
			at + "   expired    a   -   n1\n"
		if diff := cmp.Diff(want, out); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
	porttest.FakeTime(t, func(t *testing.T) {
		out, _, err := watched(t, &visits{list: story}, outputJSON, ports.WatchRequest{})
		indexer := `"addrs":["/ip4/10.0.0.1/tcp/1"],"meta":{},"state":"live","source":"own","seenAt":null,"expiresAt":"2000-01-01T00:01:00Z","leftSeconds":60,"via":"n1"`
		want := `{"kind":"reset","reason":"new"}` + "\n" +
			`{"kind":"snapshot","peerID":"a","addr":"/ip4/10.0.0.1/tcp/1",` + indexer + "}\n" +
			`{"kind":"synced","live":1,"condition":"warming","cursor":"1"}` + "\n" +
			`{"kind":"joined","peerID":"b\u001b[2J","addr":"two words\n",` + strings.Replace(indexer, "/ip4/10.0.0.1/tcp/1", `two words\n`, 1) + "}\n" +
			`{"kind":"expired","peerID":"a","via":"n1","cursor":"3"}` + "\n"
		if diff := cmp.Diff(want, out); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

// TestWatchGoesOnWhereItBrokeOff has a native that goes away in every way there is.
func TestWatchGoesOnWhereItBrokeOff(t *testing.T) {
	joined := func(id ports.PeerID, cursor string) ports.Batch {
		return ports.Batch{Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: listed(id)}}, Cursor: cursor}
	}
	away := fmt.Errorf("%w: refused", httpapi.ErrUnreachable)
	porttest.FakeTime(t, func(t *testing.T) {
		v := &visits{list: []visit{
			{[]ports.Batch{joined("a", "7")}, away},
			{nil, away},
			{nil, &httpapi.APIError{Status: 503, Code: httpapi.CodeBusy, Message: "busy"}},
			{nil, away},
			{nil, away},
			{[]ports.Batch{joined("b", "8")}, ports.Refuse(ports.CodeTooSlow, "read faster")},
			{[]ports.Batch{{Cursor: "9"}}, ports.Refuse(ports.CodeBusy, "it shuts down")},
			{[]ports.Batch{{Reset: ports.ResetUnknown, Changes: []ports.Change{{Kind: ports.ChangeSnapshot, Listed: listed("c")}}}}, errors.New("cut\nin two")},
			{[]ports.Batch{{Reset: ports.ResetTooOld, Cursor: "n-1", Live: 1}}, nil},
		}}
		out, log, err := watched(t, v, outputTable, ports.WatchRequest{Cursor: "6"})
		if err != nil {
			t.Errorf("it ends with %v", err)
		}
		want := []asked{
			{0, "6"}, {1 * time.Second, "7"}, {3 * time.Second, "7"}, {7 * time.Second, "7"}, {15 * time.Second, "7"},
			{30 * time.Second, "7"}, {31 * time.Second, "8"}, {32 * time.Second, "9"}, {33 * time.Second, ""}, {34 * time.Second, "n-1"},
		}
		if diff := cmp.Diff(want, v.asked); diff != "" {
			t.Errorf("it asked (-want +got):\n%s", diff)
		}
		var kinds []string
		for line := range strings.Lines(out) {
			kinds = append(kinds, strings.Fields(line)[1])
		}
		if diff := cmp.Diff([]string{"joined", "synced", "joined", "reset", "snapshot", "reset", "synced"}, kinds); diff != "" {
			t.Errorf("it printed (-want +got):\n%s", diff)
		}
		lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
		if len(lines) != len(v.list) || lines[0] != "ocnode: the watch broke off: node unreachable: refused; asking again in 1s" ||
			!strings.HasSuffix(lines[4], "asking again in 15s") || !strings.Contains(lines[7], "cut; in two") {
			t.Errorf("it says\n%s", log)
		}
	})
}

func TestWatchEndsWhereGoingOnIsOfNoUse(t *testing.T) {
	synced := []ports.Batch{{Reset: ports.ResetNew, Cursor: "1"}}
	away := fmt.Errorf("%w: refused", httpapi.ErrUnreachable)
	for name, tc := range map[string]struct {
		list []visit
		code int
	}{
		"nobody is there":          {[]visit{{nil, away}}, exitUnreachable},
		"nobody has time":          {[]visit{{nil, ports.Refuse(ports.CodeBusy, "full")}}, exitRuntime},
		"a node of the seed":       {[]visit{{nil, ports.ErrNotOffered}}, exitRuntime},
		"refused":                  {[]visit{{nil, ports.Refuse(ports.CodeRefused, "no")}}, exitRuntime},
		"it is no native any more": {[]visit{{synced, away}, {nil, &httpapi.APIError{Status: 404, Code: httpapi.CodeNotANative}}}, exitRuntime},
		"it does not offer it now": {[]visit{{synced, away}, {nil, fmt.Errorf("x: %w", ports.ErrNotOffered)}}, exitRuntime},
		"it refuses now":           {[]visit{{synced, ports.Refuse(ports.CodeRefused, "no")}}, exitRuntime},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				v := &visits{list: tc.list}
				_, _, err := watched(t, v, outputTable, ports.WatchRequest{})
				if err == nil || exitCode(err) != tc.code || len(v.asked) != len(tc.list) {
					t.Errorf("it ends with %v (exit code %d) after %d watches", err, exitCode(err), len(v.asked))
				}
			})
		})
	}
}

func TestWatchEndsWithItsReader(t *testing.T) {
	gone := errors.New("broken pipe")
	p := &program{out: broken{gone}, log: broken{gone}, output: outputTable}
	v := &visits{list: []visit{{batches: []ports.Batch{{Reset: ports.ResetNew, Cursor: "1"}}}}}
	if err := p.watch(t.Context(), v, ports.WatchRequest{}); !errors.Is(err, gone) {
		t.Errorf("it ends with %v", err)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestTimesAreBrief(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "-", -1: "-", 0.001234567: "1.23ms", 0.08: "80ms", 0.9996: "1s", 2.345678: "2.35s", 1e-7: "100ns", 1e300: "256111h6m40s",
	} {
		if got := brief(seconds); got != want {
			t.Errorf("%v s is %s, want %s", seconds, got, want)
		}
	}
}
