package porttest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// telling is a native that yields batches and then err; with a nil err it waits for the end of
// ctx.
func telling(batches []ports.Batch, err error) func(context.Context, ports.PeerID, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for _, b := range batches {
				if !yield(b, nil) {
					return
				}
			}
			if err == nil {
				<-ctx.Done()
				err = ctx.Err()
			}
			yield(ports.Batch{}, err)
		}
	}
}

func transportWatchRequest(t *testing.T, tt *transportTest) {
	requests := make(chan ports.WatchRequest, 1)
	tt.serveAll(t, Native{OnWatch: func(_ context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		if sender != tt.indexer.ID {
			t.Errorf("%s asked, want %s", sender, tt.indexer.ID)
		}
		requests <- w
		return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{Cursor: "1"}, nil) }
	}})
	n := tt.remote(t)
	for _, want := range []ports.WatchRequest{
		{}, {Renewed: true}, {Own: true}, {Cursor: "12D3/7", Renewed: true, Own: true},
		{Own: true, Mine: true, Beat: 1700 * time.Millisecond},
		{Cursor: "nonsense \x00\"\\é🗼"}, {Cursor: strings.Repeat("x", ports.MaxCursorBytes)},
	} {
		for _, err := range n.Watch(t.Context(), tt.indexer.ID, want) {
			if err != nil {
				t.Errorf("%+v: %v", want, err)
			}
			break
		}
		if got := <-requests; got != want {
			t.Errorf("asked for %+v, want %+v", got, want)
		}
	}
	for _, err := range n.Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{Cursor: strings.Repeat("x", ports.MaxCursorBytes+1)}) {
		expectCode(t, err, ports.CodeMalformed)
	}
	select {
	case got := <-requests:
		t.Errorf("a cursor of %d bytes arrived", len(got.Cursor))
	default:
	}
}

// join merges the parts of batches: all have no cursor but the last.
func join(batches []ports.Batch) (joined []ports.Batch) {
	whole := true
	for _, b := range batches {
		if whole || b.Reset != "" {
			joined = append(joined, b)
		} else {
			to := &joined[len(joined)-1]
			to.Changes = append(to.Changes, b.Changes...)
			to.Cursor, to.Live, to.Condition = b.Cursor, b.Live, b.Condition
		}
		whole = b.Cursor != ""
	}
	return joined
}

func transportWatch(t *testing.T, tt *transportTest) {
	batches := make(chan []ports.Batch, 1)
	done := ports.Refuse(ports.CodeRefused, "that is all")
	tt.serveAll(t, Native{OnWatch: func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return telling(<-batches, done)(ctx, sender, w)
	}})
	n := tt.remote(t)
	examples := exampleEntries(500)
	kinds := []ports.ChangeKind{
		ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed, ports.ChangeLate, ports.ChangeStale, ports.ChangeExpired, ports.ChangeLeft,
	}
	random := rand.New(rand.NewPCG(1, 2)) // the same each time; ports import no library for more
	for range 100 {
		var want []ports.Batch
		for i := range 1 + random.IntN(4) {
			b := ports.Batch{
				Reset:     pick(random, "", ports.ResetNew, ports.ResetTooOld, ports.ResetUnknown, "of a later version"),
				Cursor:    fmt.Sprint("cursor ", i),
				Live:      random.IntN(1 << 40),
				Condition: pick(random, "", ports.ConditionIsolated, ports.ConditionWarming),
				Missing:   pick(random, nil, peerIDs[:1], peerIDs[:3]),
				Beat:      pick(random, 0, time.Second, 1700*time.Millisecond),
				Start:     pick(random, "", "another run"),
			}
			size := pick(random, 0, 0, 1, 1, 3, 3, 30, 400)
			from := random.IntN(len(examples) - size + 1)
			for i, l := range examples[from : from+size] {
				c := ports.Change{Kind: kinds[i%len(kinds)], Listed: l}
				switch c.Kind {
				case ports.ChangeExpired:
					c.Listed = ports.Listed{Entry: ports.Entry{PeerID: l.PeerID, Native: l.Native}}
				case ports.ChangeLeft:
					c.Listed = ports.Listed{Entry: ports.Entry{PeerID: l.PeerID, ExpiresAt: l.ExpiresAt, Leave: true}, Remaining: l.Remaining}
				}
				b.Changes = append(b.Changes, c)
			}
			want = append(want, b)
		}
		batches <- want
		var got []ports.Batch
		var end error
		for b, err := range n.Watch(context.Background(), tt.indexer.ID, ports.WatchRequest{Cursor: "from"}) {
			if end = err; err == nil {
				got = append(got, b)
			}
		}
		if refusal, ok := errors.AsType[*ports.Refusal](end); !ok || !reflect.DeepEqual(refusal, done) {
			t.Fatalf("ended with %v, want %v", end, done)
		}
		got = join(got)
		if len(got) != len(want) {
			t.Fatalf("got %d batches, want %d", len(got), len(want))
		}
		for i, w := range want {
			g := got[i]
			if g.Reset != w.Reset || g.Cursor != w.Cursor || g.Live != w.Live || g.Condition != w.Condition || !slices.Equal(g.Missing, w.Missing) || g.Beat != w.Beat || g.Start != w.Start || len(g.Changes) != len(w.Changes) {
				t.Fatalf("batch %d is %q, %q, %d, %q with %d changes, want %q, %q, %d, %q with %d", i,
					g.Reset, g.Cursor, g.Live, g.Condition, len(g.Changes), w.Reset, w.Cursor, w.Live, w.Condition, len(w.Changes))
			}
			for k, c := range w.Changes {
				if g.Changes[k].Kind != c.Kind || !sameListed(c.Listed, g.Changes[k].Listed) {
					t.Fatalf("batch %d, change %d is %+v, want %+v", i, k, g.Changes[k], c)
				}
			}
		}
	}
}

// pick returns a random element.
func pick[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

func transportWatchSnapshot(t *testing.T, tt *transportTest) {
	entries := exampleEntries(2000)
	var changes []ports.Change
	for _, l := range entries {
		changes = append(changes, ports.Change{Kind: ports.ChangeSnapshot, Listed: l})
	}
	tt.serveAll(t, Native{OnWatch: telling([]ports.Batch{
		{Reset: ports.ResetNew, Changes: changes[:1000]}, {Changes: changes[1000:]}, {Cursor: "whole"},
	}, nil)})
	got := 0
	for b, err := range tt.remote(t).Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{}) {
		if err != nil {
			t.Fatal(err)
		}
		if (b.Reset != "") != (got == 0) {
			t.Errorf("Reset %q after %d changes", b.Reset, got)
		}
		if got += len(b.Changes); b.Cursor != "" {
			if got != len(changes) {
				t.Errorf("cursor %q after %d changes of %d", b.Cursor, got, len(changes))
			}
			break
		}
	}
}

// expectEnded fails the test if ctx does not end.
func expectEnded(t *testing.T, ctx context.Context) {
	t.Helper()
	select {
	case <-ctx.Done():
	case <-time.After(Patience):
		t.Error("the native's context lives on after the watch")
	}
}

// watched serves a native that yields a single batch, and returns the contexts of its watches.
func (tt *transportTest) watched(t *testing.T) (contexts <-chan context.Context, stop func()) {
	all := make(chan context.Context, 1)
	return all, tt.serveAll(t, Native{OnWatch: func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		all <- ctx
		return telling([]ports.Batch{{Reset: ports.ResetNew, Cursor: "1"}}, nil)(ctx, sender, w)
	}})
}

func transportWatchContext(t *testing.T, tt *transportTest) {
	contexts, _ := tt.watched(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range tt.remote(t).Watch(ctx, tt.indexer.ID, ports.WatchRequest{}) {
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v, want %v", last, context.Canceled)
	}
	expectEnded(t, <-contexts)
}

func transportWatchBreak(t *testing.T, tt *transportTest) {
	contexts, _ := tt.watched(t)
	for _, err := range tt.remote(t).Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	expectEnded(t, <-contexts)
}

func transportWatchStop(t *testing.T, tt *transportTest) {
	contexts, stop := tt.watched(t)
	stopped := make(chan struct{})
	var last error
	for b, err := range tt.remote(t).Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{}) {
		if last = err; err == nil && b.Cursor == "1" {
			go func() {
				defer close(stopped)
				stop()
			}()
		}
	}
	expectCode(t, last, ports.CodeBusy)
	expectEnded(t, <-contexts)
	<-stopped
}

func transportWatchTooSlow(t *testing.T, tt *transportTest) {
	tt.serveAll(t, Native{OnWatch: telling([]ports.Batch{{Cursor: "1"}}, ports.Refuse(ports.CodeTooSlow, "read faster"))})
	var batches int
	var last error
	for _, last = range tt.remote(t).Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{Cursor: "0"}) {
		if last == nil {
			batches++
		}
	}
	if batches != 1 {
		t.Errorf("%d batches before the end, want 1", batches)
	}
	expectCode(t, last, ports.CodeTooSlow)
}
