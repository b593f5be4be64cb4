package stream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// numbers asks a native for its News.
var numbers = ports.WatchRequest{Own: true, Numbers: true, Renewed: true}

// news are News of so many renewals.
func news(renewals int) *ports.News {
	n := &ports.News{}
	for i := range renewals {
		n.Renewals = append(n.Renewals, ports.Renewal{Number: uint32(i + 1), Step: 1, Link: ports.Link{byte(i)}, Remaining: time.Minute})
	}
	return n
}

// tellingNews is a native that tells News of that many renewals as fast as the reader takes them, or
// with none a single batch. To a watch without Numbers it tells changes.
func tellingNews(renewals int) porttest.Native {
	return porttest.Native{OnWatch: func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		if !w.Numbers {
			return telling(renewals).OnWatch(ctx, sender, w)
		}
		return func(yield func(ports.Batch, error) bool) {
			for i := 0; ctx.Err() == nil; i++ {
				if !yield(ports.Batch{Cursor: fmt.Sprint(i), Condition: ports.ConditionIsolated, News: news(renewals)}, nil) {
					return
				}
				if renewals == 0 {
					<-ctx.Done()
				}
			}
			yield(ports.Batch{}, ctx.Err())
		}
	}}
}

// followFrame is a request for News.
func followFrame(t testing.TB, r wire.FollowRequest) string {
	t.Helper()
	frame, err := wire.AppendFollow(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	return string(frame)
}

// framesOf reads the frames of a teller, until the end of the stream or an error.
func framesOf(t *testing.T, r io.Reader, id ports.PeerID) (batches []ports.Batch, end error) {
	t.Helper()
	for frames, teller := wire.NewFrames(r, ports.MaxBatchBytes), wire.NewTeller(id); ; {
		message, err := frames.Next()
		var b ports.Batch
		if err == nil {
			b, err = teller.Decode(message, time.Now())
		}
		if err != nil {
			return batches, err
		}
		batches = append(batches, b)
	}
}

// first returns the first batch of a watch.
func first(t *testing.T, n ports.Native, sender ports.PeerID, w ports.WatchRequest) ports.Batch {
	t.Helper()
	for b, err := range n.Watch(t.Context(), sender, w) {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Fatal("no batch")
	return ports.Batch{}
}

func TestAWatchWithNumbersIsInBinaryIfTheNativeOffersThat(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr, told := observed(t, native)
		reader, read := observed(t, watcher)
		serve(t, tr, tellingNews(3))
		for _, c := range []struct {
			name   string
			w      ports.WatchRequest
			binary bool
		}{
			{"both can", numbers, true},
			{"without Numbers", ports.WatchRequest{Own: true, Renewed: true}, false},
			{"without Own", ports.WatchRequest{Numbers: true}, false},
			{"a native of before", numbers, false},
		} {
			n := remote(t, reader, native)
			if c.name == "a native of before" {
				native.RemoveStreamHandler(ports.FollowProtocol)
			}
			told.Take()
			read.Take()
			b := first(t, n, idOf(watcher), c.w)
			if (b.News != nil) != c.binary || (len(b.Changes) > 0) == c.binary || b.Condition != ports.ConditionIsolated {
				t.Errorf("%s: got %+v", c.name, b)
			}
			porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 0 })
			if events := read.Of(ports.EventNewsRead); (len(events) > 0) != c.binary || c.binary && (events[0].Via != idOf(native) || events[0].Frames != 1 || events[0].Renewals != 3) {
				t.Errorf("%s: read %+v", c.name, events)
			}
			if events := told.Of(ports.EventNewsTold); (len(events) > 0) != c.binary || c.binary && (events[0].PeerID != idOf(watcher) || events[0].Frames != 1 || events[0].Renewals != 3) {
				t.Errorf("%s: told %+v", c.name, events)
			}
		}
	})
}

// A watcher's host may remember a protocol that the native has given up since.
func TestANativeThatNoLongerOffersTheBinaryWatchIsWatchedInJSON(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		serve(t, newTransport(t, native), tellingNews(1))
		n := remote(t, newTransport(t, watcher), native)
		if b := first(t, n, idOf(watcher), numbers); b.News == nil {
			t.Errorf("got %+v", b)
		}
		native.Mux().RemoveHandler(ports.FollowProtocol) // and no peer is told
		if b := first(t, n, idOf(watcher), numbers); len(b.Changes) != 1 {
			t.Errorf("got %+v", b)
		}
	})
}

func TestANativeThatOffersEitherWatchIsWatchable(t *testing.T) {
	handler := func(s network.Stream) { _ = s.Reset() }
	for name, c := range map[string]struct {
		offers    []protocol.ID
		watchable bool
	}{
		"none":       {[]protocol.ID{ports.LookupProtocol}, false},
		"JSON":       {[]protocol.ID{ports.WatchProtocol}, true},
		"the binary": {[]protocol.ID{ports.FollowProtocol}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
				tr := newTransport(t, watcher)
				for _, p := range append(c.offers, stream.Protocol) {
					native.SetStreamHandler(p, handler)
				}
				_ = openFor(t, watcher, native, stream.Protocol).Reset()
				synctest.Wait()
				if all, _ := tr.Neighbours(); len(all) != 1 || all[0].Watchable != c.watchable {
					t.Errorf("got %+v", all)
				}
			})
		})
	}
}

func TestAFollowerThatNeverReadsIsDroppedAndCounted(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		tr, seen := observed(t, native)
		serve(t, tr, tellingNews(1000))
		s := openFor(t, watcher, native, ports.FollowProtocol)
		_ = s.SetDeadline(time.Time{})
		send(t, s, followFrame(t, wire.FollowRequest{}))
		time.Sleep(9 * time.Second)
		if seen.Count(ports.EventWatching) != 1 || seen.Count(ports.EventWatched) != 0 {
			t.Error("after 9 s it is dropped")
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
	})
}

func TestABinaryWatchWithoutNewsSaysThatItLives(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		serve(t, newTransport(t, native), tellingNews(0))
		var at []time.Duration
		began := time.Now()
		for b, err := range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), numbers) {
			if err != nil || b.Cursor != "0" || b.Condition != ports.ConditionIsolated || b.News != nil {
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

// aFrame is a frame of a teller, with a cursor.
const aFrame = "\x03\x12\x01\x37"

func TestABinaryWatchThatFallsSilentIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		says  string
		after time.Duration
	}{
		"before the first frame": {"", ports.ExchangeTimeout},
		"after it":               {aFrame, ports.WatchTimeout},
		"in the next one":        {aFrame + aFrame[:2], ports.WatchTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
				native.SetStreamHandler(ports.FollowProtocol, func(s network.Stream) {
					_, _ = wire.NewFrames(s, ports.MaxFrameBytes).Next()
					_, _ = io.WriteString(s, c.says)
					_, _ = io.Copy(io.Discard, s)
				})
				n := remote(t, newTransport(t, watcher), native)
				_ = openFor(t, watcher, native, ports.FollowProtocol).Reset()
				began := time.Now()
				var last error
				for _, last = range n.Watch(t.Context(), idOf(watcher), numbers) {
				}
				if _, refused := errors.AsType[*ports.Refusal](last); !errors.Is(last, ports.ErrSilent) || refused {
					t.Errorf("got %v, want an error that says so and is no refusal", last)
				}
				if said := fmt.Sprintf("for %s:", c.after); last == nil || !strings.Contains(last.Error(), said) {
					t.Errorf("got %q, want %q in it", last, said)
				}
				if took := time.Since(began); took < c.after || took > c.after+time.Second {
					t.Errorf("given up after %s, want %s", took, c.after)
				}
			})
		})
	}
}

// What a native of another make says ends the watch with a reason, and is counted.
func TestFollowingNativesOfAnotherMake(t *testing.T) {
	refused := func(code ports.Code) string { return string(wire.EncodeFollowEnd(ports.Refuse(code, "m"))) }
	for name, c := range map[string]struct {
		says    string
		batches int
		code    ports.Code // of the refusal that ends the watch
		counted ports.Code
	}{
		"ends without a reason":       {aFrame, 1, "", ""},
		"ends in a frame":             {aFrame + aFrame[:3], 1, "", ports.CodeMalformed},
		"ends in a length":            {aFrame + "\x80", 1, "", ports.CodeMalformed},
		"says why it ends":            {aFrame + aFrame + refused(ports.CodeTooSlow), 2, ports.CodeTooSlow, ""},
		"ends by a later code":        {refused("moved") + aFrame, 0, "moved", ""},
		"answers in JSON":             {`{"Error":{"Code":"busy"}}` + "\n", 0, "", ports.CodeMalformed},
		"says junk in a change":       {aFrame + "\x04\x52\x02\x08\x01" + aFrame, 1, "", ports.CodeMalformed},
		"says columns that differ":    {aFrame + "\x05\x5a\x03\x12\x01\x07" + aFrame, 1, "", ports.CodeMalformed},
		"says a frame over its limit": {aFrame + string(binary.AppendUvarint(nil, ports.MaxBatchBytes+1)), 1, "", ports.CodeTooLarge},
		"says a length without end":   {"\xff\xff\xff\xff\xff", 0, "", ports.CodeTooLarge},
		"says what is new":            {"\x03\xf8\x07\x01" + "\x00" + aFrame, 3, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, watcher := newHost(), newHost()
				native.SetStreamHandler(ports.FollowProtocol, func(s network.Stream) {
					if _, err := wire.NewFrames(s, ports.MaxFrameBytes).Next(); err == nil {
						_, _ = io.WriteString(s, c.says)
					}
					_ = s.Close()
				})
				tr, seen := observed(t, watcher)
				batches := 0
				var last error
				for _, last = range remote(t, tr, native).Watch(t.Context(), idOf(watcher), numbers) {
					if last == nil {
						batches++
					}
				}
				if batches != c.batches || seen.Count(ports.EventNewsRead) != c.batches {
					t.Errorf("got %d batches, want %d", batches, c.batches)
				}
				if c.code != "" {
					expectRefusal(t, last, c.code)
				} else if _, refused := errors.AsType[*ports.Refusal](last); last == nil || refused {
					t.Errorf("ended with %v, want an error that is no refusal", last)
				}
				events := seen.Of(ports.EventNewsRefused)
				if len(events) > 1 || (len(events) == 1) != (c.counted != "") || len(events) == 1 && (events[0].Code != c.counted || events[0].Via != idOf(native) || events[0].Err == nil) {
					t.Errorf("counted %+v", events)
				}
			})
		})
	}
}

// What a follower of another make says ends its stream with a reason, and is counted.
func TestFollowersOfAnotherMake(t *testing.T) {
	for name, c := range map[string]struct {
		hello bool // its request is in order
		says  string
		want  ports.Code
	}{
		"asks in JSON":                   {false, `{"Own":true}` + "\n", ports.CodeMalformed},
		"asks in a frame that is cut":    {false, "\x07\x0a", ports.CodeMalformed},
		"asks in a frame over its limit": {false, string(binary.AppendUvarint(nil, ports.MaxFrameBytes+1)) + string(make([]byte, ports.MaxFrameBytes+1)), ports.CodeTooLarge},
		"has a cursor over its limit":    {false, "\x43\x0a\x41" + strings.Repeat("x", 65), ports.CodeMalformed},
		"asks for junk":                  {true, "\x02\x20\x07", ports.CodeMalformed},
		"asks for ranges that overlap":   {true, "\x04\x22\x00\x22\x00", ports.CodeMalformed},
		"asks by a frame over its limit": {true, "\xff\xff\xff", ports.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, watcher := newHost(), newHost()
				tr, seen := observed(t, native)
				serve(t, tr, tellingNews(0))
				s := openFor(t, watcher, native, ports.FollowProtocol)
				if c.hello {
					send(t, s, followFrame(t, wire.FollowRequest{}))
					if _, err := wire.NewFrames(iotest.OneByteReader(s), ports.MaxBatchBytes).Next(); err != nil {
						t.Fatal(err)
					}
				}
				send(t, s, c.says)
				if !c.hello {
					_ = s.CloseWrite()
				}
				batches, end := framesOf(t, s, idOf(native))
				expectRefusal(t, end, c.want)
				if len(batches) != 0 {
					t.Errorf("%d batches", len(batches))
				}
				porttest.Eventually(t, "it is served no more", func() bool { return tr.Running() == 0 })
				if events := seen.Of(ports.EventNewsRefused); len(events) != 1 || events[0].Code != c.want || events[0].PeerID != idOf(watcher) {
					t.Errorf("counted %+v", events)
				}
			})
		})
	}
}

func TestAFollowerHasTimeForItsRequest(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		serve(t, newTransport(t, native), tellingNews(0))
		s := openFor(t, watcher, native, ports.FollowProtocol)
		send(t, s, "\x07\x0a")
		began := time.Now()
		_, end := framesOf(t, s, idOf(native))
		expectRefusal(t, end, ports.CodeMalformed)
		if took := time.Since(began); took < 3*time.Second || took > ports.ExchangeTimeout {
			t.Errorf("answered after %s", took)
		}
	})
}

func TestAFollowerThatEndsItsSideIsServedUntilItGoes(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr := newTransport(t, native)
		serve(t, tr, tellingNews(1))
		s := openFor(t, watcher, native, ports.FollowProtocol)
		send(t, s, followFrame(t, wire.FollowRequest{}))
		_ = s.CloseWrite()
		frames := wire.NewFrames(s, ports.MaxBatchBytes)
		for i := range 20 {
			if message, err := frames.Next(); err != nil {
				t.Fatalf("frame %d: %q, %v", i, message, err)
			}
		}
		_ = s.Reset()
		porttest.Eventually(t, "the watch has ended", func() bool { return tr.Running() == 0 })
	})
}

// The limits of the watches count those in binary too.
func TestBinaryWatchesAreBounded(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		tr, seen := observed(t, native)
		serve(t, tr, tellingNews(0))
		follow := func() error {
			s := openFor(t, watcher, native, ports.FollowProtocol)
			send(t, s, followFrame(t, wire.FollowRequest{}))
			message, err := wire.NewFrames(s, ports.MaxBatchBytes).Next()
			if err == nil {
				_, err = wire.NewTeller(idOf(native)).Decode(message, time.Now())
			}
			return err
		}
		for range 7 {
			if err := follow(); err != nil {
				t.Fatal(err)
			}
		}
		s := openFor(t, watcher, native, ports.WatchProtocol)
		send(t, s, "{}\n")
		porttest.Eventually(t, "all are served", func() bool { return seen.Count(ports.EventWatching) == 8 })
		expectRefusal(t, follow(), ports.CodeBusy)
		if refused := seen.Of(ports.EventLimited); len(refused) != 1 || refused[0].Err.(*ports.Refusal).Limit != ports.LimitPeerWatchers {
			t.Errorf("observed %+v", refused)
		}
	})
}

// An answer takes a walk of the table, so a follower can cause a few at once, and then one a second.
func TestTheAsksOfAFollowerAreBounded(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		var asked atomic.Int32
		serve(t, newTransport(t, native), porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				for yield(ports.Batch{Cursor: "1"}, nil) {
					select {
					case <-w.Ask:
						asked.Add(1)
					case <-ctx.Done():
						return
					}
				}
			}
		}})
		s := openFor(t, watcher, native, ports.FollowProtocol)
		_ = s.SetDeadline(time.Time{})
		go func() { _, _ = io.Copy(io.Discard, s) }()
		send(t, s, followFrame(t, wire.FollowRequest{}))
		go func() {
			for { // empty asks are asks, too
				if _, err := io.WriteString(s, "\x00"); err != nil {
					return
				}
			}
		}()
		for _, c := range []struct {
			after time.Duration
			most  int32
		}{{900 * time.Millisecond, 32}, {10 * time.Second, 43}, {time.Minute, 103}} {
			time.Sleep(c.after)
			synctest.Wait()
			if got := asked.Load(); got > c.most || got < c.most-3 {
				t.Errorf("after another %s the native was asked %d times, want at most %d", c.after, got, c.most)
			}
		}
		_ = s.Reset()
	})
}

func TestStopEndsBinaryWatches(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, watcher host.Host) {
		tr, seen := observed(t, native)
		stop := serve(t, tr, tellingNews(1000))
		send(t, openFor(t, watcher, native, ports.FollowProtocol), followFrame(t, wire.FollowRequest{})) // it never reads
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

// All followers are told the same bytes, whatever each of them was told before.
func TestNewsAreTheSameForAllFollowers(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native := newHost()
		shared := news(100)
		serve(t, newTransport(t, native), porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				for range 40 {
					if !yield(ports.Batch{Cursor: w.Cursor + "own", News: news(1)}, nil) || !yield(ports.Batch{Cursor: w.Cursor, News: shared}, nil) {
						return
					}
				}
			}
		}})
		for _, cursor := range []string{"a", "b", "c"} {
			watcher := newHost()
			w := numbers
			w.Cursor = cursor
			got := 0
			for b, err := range remote(t, newTransport(t, watcher), native).Watch(t.Context(), idOf(watcher), w) {
				if err != nil {
					break
				}
				if b.Cursor == cursor {
					if got++; !slices.Equal(b.News.Renewals, shared.Renewals) {
						t.Errorf("%s: got %+v", cursor, b.News)
					}
				}
			}
			if got != 40 {
				t.Errorf("%s: %d batches", cursor, got)
			}
		}
	})
}
