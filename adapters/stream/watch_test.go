package stream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// telling is a native that yields batches of that many changes as fast as the reader takes them,
// or with no changes a single batch.
func telling(changes int) porttest.Native {
	return porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for i := 0; ctx.Err() == nil; i++ {
				if !yield(ports.Batch{Cursor: fmt.Sprint(i), Live: changes, Condition: ports.ConditionIsolated, Changes: joined(changes)}, nil) {
					return
				}
				if changes == 0 {
					<-ctx.Done()
				}
			}
			yield(ports.Batch{}, ctx.Err())
		}
	}}
}

func joined(n int) []ports.Change {
	var changes []ports.Change
	for i := range n {
		changes = append(changes, ports.Change{Kind: ports.ChangeJoined, Listed: ports.Listed{
			Entry: ports.Entry{
				PeerID: anID, Addr: fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 1+i), Native: anID,
				ExpiresAt: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC), SeenAt: time.Now(),
			},
			State: ports.StateLive, Source: ports.SourceOwn, Remaining: 66 * time.Second,
		}})
	}
	return changes
}

const anID = ports.PeerID("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")

func TestAWatcherThatNeverReadsIsDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		tr, seen := observed(t, native)
		serve(t, tr, telling(100))
		s := openFor(t, watcher, native, ports.WatchProtocol)
		_ = s.SetDeadline(time.Time{})
		send(t, s, "{}\n")
		time.Sleep(9 * time.Second)
		if seen.Count(ports.EventWatching) != 1 || seen.Count(ports.EventWatched) != 0 {
			t.Errorf("after 9 s: %+v", seen.Take())
		}
		time.Sleep(5 * time.Second) // 10, and however long the windows took to fill
		synctest.Wait()
		events := seen.Of(ports.EventWatched)
		if len(events) != 1 || events[0].PeerID != idOf(watcher) {
			t.Fatalf("observed %+v", events)
		}
		expectRefusal(t, events[0].Err, ports.CodeTooSlow)
		if tr.Running() != 0 {
			t.Error("the watch is served still")
		}
		if _, err := io.Copy(io.Discard, s); err == nil {
			t.Error("the stream ended as if all were well")
		}
	})
}

func TestStopDoesNotWaitForAWatcherThatNeverReads(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		tr, seen := observed(t, native)
		stop := serve(t, tr, telling(100))
		send(t, openFor(t, watcher, native, ports.WatchProtocol), "{}\n")
		time.Sleep(5 * time.Second)
		began := time.Now()
		stop()
		if took := time.Since(began); took > ports.ExchangeTimeout/2 {
			t.Errorf("stop took %s", took)
		}
		if events := seen.Of(ports.EventWatched); len(events) != 1 || events[0].Err != nil {
			t.Errorf("observed %+v, want a watcher that was not dropped", events)
		}
	})
}

func TestAWatchWithoutChangesSaysThatItLives(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		serve(t, newTransport(t, native), telling(0))
		var at []time.Duration
		began := time.Now()
		for b, err := range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
			if err != nil || b.Cursor != "0" || b.Condition != ports.ConditionIsolated || len(b.Changes) != 0 {
				t.Fatalf("got %+v and %v", b, err)
			}
			if at = append(at, time.Since(began).Round(time.Second)); len(at) == 4 {
				break
			}
		}
		if got, want := fmt.Sprint(at), "[0s 30s 1m0s 1m30s]"; got != want {
			t.Errorf("batches came after %s, want %s", got, want)
		}
	})
}

func TestAWatchThatFallsSilentIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		says  string
		after time.Duration
	}{
		"before the first batch": {"", ports.ExchangeTimeout},
		"after it":               {`{"Cursor":"1"}` + "\n", ports.WatchTimeout},
		"in the next one":        {`{"Cursor":"1"}` + "\n" + `{"Cursor":`, ports.WatchTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
				native.SetStreamHandler(ports.WatchProtocol, reading(func(s network.Stream) { _, _ = io.WriteString(s, c.says) }))
				n := remote(t, newTransport(t, watcher), native)
				_ = openFor(t, watcher, native, ports.WatchProtocol).Reset()
				began := time.Now()
				var last error
				for _, last = range n.Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
				}
				if _, refused := errors.AsType[*ports.Refusal](last); !errors.Is(last, ports.ErrSilent) || refused {
					t.Errorf("got %v, want an error that says so and is no refusal", last)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("given up after %s, want %s", took, c.after)
				}
			})
		})
	}
}

func TestWatchingNativesOfAnotherMake(t *testing.T) {
	const batch = `{"Reset":"new","Changes":[{"Kind":"joined","PeerID":"` + string(anID) + `"}],"Cursor":"7","Live":1}` + "\n"
	for name, c := range map[string]struct {
		handler network.StreamHandler
		batches int
		code    ports.Code
	}{
		"ends without a reason":             {saying(batch), 1, ""},
		"ends at once":                      {saying(""), 0, ""},
		"ends in half a batch":              {saying(batch + batch[:20]), 1, ""},
		"resets":                            {reading(func(s network.Stream) { _ = s.Reset() }), 0, ""},
		"disconnects":                       {reading(func(s network.Stream) { _ = s.Conn().Close() }), 0, ""},
		"says why it ends":                  {saying(batch + batch + `{"Error":{"Code":"too_slow","Message":"m"}}` + "\n"), 2, ports.CodeTooSlow},
		"says it before it has read":        {func(s network.Stream) { _, _ = io.WriteString(s, `{"Error":{"Code":"busy"}}`+"\n"); _ = s.Close() }, 0, ports.CodeBusy},
		"ends by a code of a later version": {saying(`{"Error":{"Code":"moved"}}` + "\n" + batch), 0, "moved"},
		"answers as to a registration":      {saying(`{"OK":false,"Error":{"Code":"busy","Message":"m"}}` + "\n"), 0, ports.CodeBusy},
		"says something else":               {saying("220 ready\n" + batch), 0, ""},
		"says junk in a change":             {saying(batch + `{"Changes":[{"Kind":"joined","PeerID":"x"}]}` + "\n" + batch), 1, ""},
		"says a change twice as long":       {saying(batch + `{"X":"` + strings.Repeat("a", ports.MaxBatchBytes) + `"}` + "\n" + batch), 1, ""},
		"says what is new":                  {saying(`{"Changes":[{"Kind":"moved"}],"X":[{}],"Cursor":"8"}` + "\n"), 1, ""},
		"says empty lines":                  {saying("\n"), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, watcher := newHost(), newHost()
				native.SetStreamHandler(ports.WatchProtocol, c.handler)
				batches := 0
				var last error
				for _, last = range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
					if last == nil {
						batches++
					}
				}
				if batches != c.batches {
					t.Errorf("got %d batches, want %d", batches, c.batches)
				}
				if c.code != "" {
					expectRefusal(t, last, c.code)
				} else if _, refused := errors.AsType[*ports.Refusal](last); last == nil || refused {
					t.Errorf("ended with %v, want an error that is no refusal", last)
				}
			})
		})
	}
}

// A reader takes the first cursor as the end of what it missed.
func TestAPartOfABatchHasNoCursor(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		native.SetStreamHandler(ports.WatchProtocol, saying(
			`{}`+"\n"+`{"Cursor":"1"}`+"\n"+`{}`+"\n"+`{"Cursor":"2"}`+"\n"+`{"Reset":"cursor_too_old"}`+"\n"+`{}`+"\n"+`{"Cursor":"3"}`+"\n"))
		var cursors []string
		for b, err := range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), ports.WatchRequest{Cursor: "0"}) {
			if err == nil {
				cursors = append(cursors, b.Cursor)
			}
		}
		if got, want := fmt.Sprintf("%q", cursors), `["" "1" "" "2" "" "" "3"]`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// batchOf reads a frame of a watch.
func batchOf(t *testing.T, r *bufio.Reader) (b struct {
	Cursor *string
	Error  struct{ Code ports.Code }
}) {
	t.Helper()
	line, err := r.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &b)
	}
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return b
}

func TestAWatcherThatEndsItsSideIsServedUntilItGoes(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr, seen := observed(t, native)
		serve(t, tr, telling(1))
		s := openFor(t, watcher, native, ports.WatchProtocol)
		send(t, s, `{"Cursor":"nonsense"}`)
		_ = s.CloseWrite()
		r := bufio.NewReader(s)
		for i := range 20 {
			if b := batchOf(t, r); b.Cursor == nil || *b.Cursor != fmt.Sprint(i) {
				t.Fatalf("batch %d is %+v", i, b)
			}
		}
		_ = s.Reset()
		porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 0 })
		if events := seen.Of(ports.EventWatched); len(events) != 1 || events[0].Err != nil || events[0].PeerID != idOf(watcher) {
			t.Errorf("observed %+v", events)
		}
	})
}

func TestAWatcherThatGoesEndsAnIdleWatchAtOnce(t *testing.T) {
	for name, leave := range map[string]func(s network.Stream){
		"resets":      func(s network.Stream) { _ = s.Reset() },
		"disconnects": func(s network.Stream) { _ = s.Conn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, watcher := newHost(), newHost()
				tr := newTransport(t, native)
				serve(t, tr, telling(0))
				s := openFor(t, watcher, native, ports.WatchProtocol)
				send(t, s, "{}\nand more, which is not read")
				batchOf(t, bufio.NewReader(s))
				leave(s)
				porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 0 })
			})
		})
	}
}

func TestWatchesOfOnePeerAreBounded(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher, another := newHost(), newHost(), newHost()
		tr := newTransport(t, native)
		serve(t, tr, telling(0))
		watch := func(h host.Host) (network.Stream, ports.Code) {
			s := openFor(t, h, native, ports.WatchProtocol)
			send(t, s, "{}\n")
			return s, batchOf(t, bufio.NewReader(s)).Error.Code
		}
		var streams []network.Stream
		for range 8 {
			s, code := watch(watcher)
			if code != "" {
				t.Fatalf("refused with %s", code)
			}
			streams = append(streams, s)
		}
		if _, code := watch(watcher); code != ports.CodeBusy {
			t.Errorf("a ninth watch: got %q, want busy", code)
		}
		if _, code := watch(another); code != "" {
			t.Errorf("another's watch: refused with %s", code)
		}
		_ = streams[0].Reset()
		porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 8 })
		if _, code := watch(watcher); code != "" {
			t.Errorf("refused with %s after another had ended", code)
		}
	})
}

func TestAllWatchesAreBounded(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr, seen := observed(t, native)
		serve(t, tr, telling(0))
		n := remote(t, newTransport(t, watcher), native)
		watch := func() (err error) {
			for _, err = range n.Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
				break
			}
			return err
		}
		tr.SetWatchers(1999)
		if err := watch(); err != nil {
			t.Errorf("the 2,000th: %v", err)
		}
		porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 0 })
		tr.SetWatchers(2000)
		expectRefusal(t, watch(), ports.CodeBusy)
		refused := seen.Of(ports.EventLimited)
		if len(refused) != 1 || refused[0].PeerID != idOf(watcher) || refused[0].Err.(*ports.Refusal).Limit != ports.LimitWatchers {
			t.Errorf("observed %+v, want one refusal by the limit", refused)
		}
		if seen.Count(ports.EventWatching) != 1 || seen.Count(ports.EventWatched) != 1 {
			t.Errorf("observed %+v, want the served watch", seen.Take())
		}
	})
}

func TestANativeThatEndsAWatchWithoutAWordIsBusy(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr, seen := observed(t, native)
		batches := make(chan ports.Batch, 1)
		serve(t, tr, porttest.Native{OnWatch: func(context.Context, ports.PeerID, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) { yield(<-batches, nil) }
		}})
		for _, batch := range []ports.Batch{{}, {Cursor: strings.Repeat("x", ports.MaxCursorBytes+1)}, {Cursor: "\xff"}} {
			batches <- batch
			var last error
			for _, last = range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
			}
			expectRefusal(t, last, ports.CodeBusy)
		}
		porttest.Eventually(t, "three have gone", func() bool { return seen.Count(ports.EventWatched) == 3 })
		for _, e := range seen.Of(ports.EventWatched) {
			if e.Err == nil {
				t.Error("observed without the reason")
			}
		}
	})
}

func TestCloseEndsWatches(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr := newTransport(t, native)
		serve(t, tr, telling(0))
		var last error
		for _, last = range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), ports.WatchRequest{}) {
			if last == nil {
				tr.Close()
			}
		}
		expectRefusal(t, last, ports.CodeBusy)
	})
}

// BenchmarkSnapshot sends 100,000 entries to a watcher over TCP.
func BenchmarkSnapshot(b *testing.B) {
	const entries, each = 100_000, 500
	native, watcher := newTCPHost(b), newTCPHost(b)
	batch := ports.Batch{Changes: joined(each)}
	server, err := stream.New(native, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	stop, err := server.Serve(porttest.Native{OnWatch: func(context.Context, ports.PeerID, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for range entries / each {
				if !yield(batch, nil) {
					return
				}
			}
			yield(ports.Batch{Cursor: "whole"}, nil)
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	client, err := stream.New(watcher, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	n, err := client.Native(idOf(native), addrsOf(native))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		got := 0
		for batch, err := range n.Watch(b.Context(), idOf(watcher), ports.WatchRequest{}) {
			if err != nil {
				b.Fatal(err)
			}
			if got += len(batch.Changes); batch.Cursor != "" {
				break
			}
		}
		if got != entries {
			b.Fatalf("got %d entries", got)
		}
	}
}

func TestAReaderMayLeaveAWatchWhoseContextHasEnded(t *testing.T) {
	native, watcher := hosttest.New(t), hosttest.New(t)
	serve(t, newTransport(t, native), telling(1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range remote(t, newTransport(t, watcher), native).Watch(ctx, idOf(watcher), ports.WatchRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		break // once panicked: it was told of the end of ctx
	}
}
