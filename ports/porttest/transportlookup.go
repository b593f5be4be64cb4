package porttest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// exampleEntries returns n different entries, sorted by PeerID; the caller may rename them.
func exampleEntries(n int) []ports.Listed {
	now := time.Now()
	var entries []ports.Listed
	for i := range n {
		l := ports.Listed{
			Entry: ports.Entry{
				PeerID: peerIDs[i%len(peerIDs)], Addr: fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 1+i),
				ExpiresAt: time.Date(2026, 3, 1, 12, 0, i, 123456789, time.UTC), SeenAt: now.Add(-time.Duration(i%7) * time.Hour),
			},
			State: ports.StateLive, Source: ports.SourceOwn, Remaining: time.Duration(1+i) * 1234567 * time.Microsecond,
		}
		switch i % 3 {
		case 1:
			l.Addrs, l.Native = []string{l.Addr, "/dns4/é.example/udp/4001/quic-v1"}, peerIDs[0]
			l.State, l.Source = ports.StateLate, ports.SourceNative
		case 2:
			l.Meta = map[string]string{"zone": "Île-de-France", "tower": "🗼", "": "empty name", "empty": "", "control": "\x00\r\n\"\\<&>\u2028"}
			l.Source, l.SeenAt = ports.SourceStore, time.Time{}
		}
		entries = append(entries, l)
	}
	return entries
}

// sameListed reports whether got equals want, although SeenAt travels as an age.
func sameListed(want, got ports.Listed) bool {
	if want.SeenAt.IsZero() != got.SeenAt.IsZero() || got.SeenAt.Sub(want.SeenAt).Abs() > Patience || !got.ExpiresAt.Equal(want.ExpiresAt) {
		return false
	}
	got.SeenAt, got.ExpiresAt = want.SeenAt, want.ExpiresAt
	return reflect.DeepEqual(want, got)
}

// box holds a value that a test and its native share: a socket between them orders nothing.
type box[T any] struct {
	mu sync.Mutex
	v  T
}

func (b *box[T]) set(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.v = v
}

func (b *box[T]) get() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.v
}

func transportLeave(t *testing.T, tt *transportTest) {
	senders := make(chan ports.PeerID, 1)
	tt.serveAll(t, Native{OnLeave: func(_ context.Context, sender ports.PeerID, _ []byte) error {
		senders <- sender
		return nil
	}})
	if err := tt.remote(t).Leave(t.Context(), tt.indexer.ID, nil); err != nil {
		t.Fatal(err)
	}
	if sender := <-senders; sender != tt.indexer.ID {
		t.Errorf("%s left, want %s", sender, tt.indexer.ID)
	}
}

func transportAsksInOwnName(t *testing.T, tt *transportTest) {
	tt.serveAll(t, saying(func(_ context.Context, sender ports.PeerID) error {
		return ports.Refuse(ports.CodeRefused, "the sender is %s", sender)
	}))
	n := tt.remote(t)
	asks := func(sender ports.PeerID) map[string]func(context.Context, ports.Native) error {
		all := tt.asks(sender)
		all["register"] = func(ctx context.Context, n ports.Native) error {
			r := tt.registration()
			r.PeerID = sender
			_, err := n.Register(ctx, sender, r)
			return err
		}
		return all
	}
	for _, sender := range []ports.PeerID{tt.native.ID, "", "another"} {
		for what, ask := range asks(sender) {
			err := ask(t.Context(), n)
			if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused || !strings.Contains(err.Error(), "this node can prove no identity but its own") {
				t.Errorf("%s as %q: got %v, want an error before it is sent", what, sender, err)
			}
		}
	}
	want := ports.Refuse(ports.CodeRefused, "the sender is %s", tt.indexer.ID)
	for what, ask := range asks(tt.indexer.ID) {
		err := ask(t.Context(), n)
		if got, ok := errors.AsType[*ports.Refusal](err); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
}

func transportLookUp(t *testing.T, tt *transportTest) {
	var answer box[ports.Answer]
	tt.serveAll(t, Native{OnLookUp: func(_ context.Context, sender, id ports.PeerID) (ports.Answer, error) {
		want := answer.get()
		if sender != tt.indexer.ID || id != want.PeerID {
			t.Errorf("%s asked for %s, want %s to ask for %s", sender, id, tt.indexer.ID, want.PeerID)
		}
		return want, nil
	}})
	n := tt.remote(t)
	for i, entry := range exampleEntries(3) {
		entry.Natives = append(entry.Natives, peerIDs[:i]...)
		want := ports.Answer{Listed: entry, Condition: []ports.Condition{"", ports.ConditionWarming, ports.ConditionIsolated}[i], Missing: [][]ports.PeerID{nil, nil, peerIDs[:2]}[i]}
		answer.set(want)
		got, err := n.LookUp(t.Context(), tt.indexer.ID, want.PeerID)
		if err != nil || !sameListed(want.Listed, got.Listed) || got.Condition != want.Condition || !slices.Equal(got.Missing, want.Missing) {
			t.Errorf("got %+v and %v, want %+v", got, err, want)
		}
	}
}

func transportNotFound(t *testing.T, tt *transportTest) {
	tt.serveAll(t, Native{OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
		return ports.Answer{Condition: ports.ConditionPartial, Missing: peerIDs[:1]}, fmt.Errorf("in the store: %w", ports.ErrNotFound)
	}})
	a, err := tt.remote(t).LookUp(t.Context(), tt.indexer.ID, peerIDs[0])
	_, refused := errors.AsType[*ports.Refusal](err)
	if !errors.Is(err, ports.ErrNotFound) || refused || !reflect.DeepEqual(a, ports.Answer{Condition: ports.ConditionPartial, Missing: peerIDs[:1]}) {
		t.Errorf("got %+v and %v, want the condition and %v", a, err, ports.ErrNotFound)
	}
}

func transportList(t *testing.T, tt *transportTest) {
	type exchange struct {
		q ports.Query
		p ports.Page
	}
	var current box[exchange]
	tt.serveAll(t, Native{OnList: func(_ context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
		if want := current.get().q; sender != tt.indexer.ID || !reflect.DeepEqual(q, want) {
			t.Errorf("%s asked for %+v, want %s to ask for %+v", sender, q, tt.indexer.ID, want)
		}
		return current.get().p, nil
	}})
	n := tt.remote(t)
	for _, c := range []exchange{
		{ports.Query{}, ports.Page{}},
		{ports.Query{}, ports.Page{Entries: exampleEntries(ports.DefaultPage), Next: peerIDs[0]}},
		{ports.Query{Limit: 1, After: peerIDs[1]}, ports.Page{Entries: exampleEntries(1), Next: peerIDs[2], Condition: ports.ConditionPartial, Missing: peerIDs[:2]}},
		{ports.Query{Limit: ports.MaxPage, Meta: map[string]string{"zone": "Île-de-France", "": "\x00"}}, ports.Page{Entries: exampleEntries(ports.MaxPage)}},
		{ports.Query{Limit: ports.MaxPage}, ports.Page{Next: peerIDs[2], Condition: ports.ConditionWarming}},
	} {
		current.set(c)
		got, err := n.List(t.Context(), tt.indexer.ID, c.q)
		if err != nil || len(got.Entries) != len(c.p.Entries) || got.Next != c.p.Next || got.Condition != c.p.Condition || !slices.Equal(got.Missing, c.p.Missing) {
			t.Errorf("%+v: got %d entries, next %q, condition %q and %v, want %d, %q and %q", c.q,
				len(got.Entries), got.Next, got.Condition, err, len(c.p.Entries), c.p.Next, c.p.Condition)
			continue
		}
		for i, want := range c.p.Entries {
			if !sameListed(want, got.Entries[i]) {
				t.Errorf("entry %d is %+v, want %+v", i, got.Entries[i], want)
			}
		}
	}
}

func transportListLimits(t *testing.T, tt *transportTest) {
	tt.serveAll(t, Native{OnList: func(_ context.Context, _ ports.PeerID, q ports.Query) (ports.Page, error) {
		t.Errorf("asked for %+v", q)
		return ports.Page{}, nil
	}})
	n := tt.remote(t)
	for _, limit := range []int{-1, ports.MaxPage + 1, -1 << 62, 1 << 62} {
		_, err := n.List(t.Context(), tt.indexer.ID, ports.Query{Limit: limit})
		expectCode(t, err, ports.CodeOutOfRange)
		if err != nil && !strings.Contains(err.Error(), fmt.Sprint(ports.MaxPage)) {
			t.Errorf("%v does not name the bounds", err)
		}
	}
	_, err := n.List(t.Context(), tt.indexer.ID, ports.Query{Meta: map[string]string{"a": strings.Repeat("a", ports.MaxMetaBytes)}})
	expectCode(t, err, ports.CodeTooLarge)
}

func transportNatives(t *testing.T, tt *transportTest) {
	var natives box[[]ports.NativeStatus]
	tt.serveAll(t, Native{OnNatives: func(_ context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
		if sender != tt.indexer.ID {
			t.Errorf("%s asked, want %s", sender, tt.indexer.ID)
		}
		return natives.get(), nil
	}})
	n := tt.remote(t)
	for _, want := range [][]ports.NativeStatus{nil, {
		{PeerID: peerIDs[0]},
		{
			PeerID: peerIDs[1], Addrs: []string{"/ip4/192.0.2.1/tcp/4101", "/ip4/192.0.2.1/udp/4101/quic-v1"}, Following: true,
			RoundTrip: 1234567, Live: 1 << 40, Lag: 40*24*time.Hour + 1,
		},
	}} {
		natives.set(want)
		if got, err := n.Natives(t.Context(), tt.indexer.ID); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v and %v, want %+v", got, err, want)
		}
	}
}

// asks are all requests of sender to a Native except a registration.
func (tt *transportTest) asks(sender ports.PeerID) map[string]func(context.Context, ports.Native) error {
	return map[string]func(context.Context, ports.Native) error{
		"leave": func(ctx context.Context, n ports.Native) error { return n.Leave(ctx, sender, nil) },
		"look up": func(ctx context.Context, n ports.Native) error {
			_, err := n.LookUp(ctx, sender, peerIDs[0])
			return err
		},
		"list": func(ctx context.Context, n ports.Native) error {
			_, err := n.List(ctx, sender, ports.Query{})
			return err
		},
		"natives": func(ctx context.Context, n ports.Native) error {
			_, err := n.Natives(ctx, sender)
			return err
		},
		"watch": func(ctx context.Context, n ports.Native) (err error) {
			for _, err = range n.Watch(ctx, sender, ports.WatchRequest{}) {
			}
			return err
		},
	}
}

// saying is a native that answers sender with err alone.
func saying(err func(ctx context.Context, sender ports.PeerID) error) Native {
	return Native{
		OnRegister: func(ctx context.Context, sender ports.PeerID, _ ports.Registration) (ports.Lease, error) {
			return ports.Lease{}, err(ctx, sender)
		},
		OnLeave: func(ctx context.Context, sender ports.PeerID, _ []byte) error { return err(ctx, sender) },
		OnLookUp: func(ctx context.Context, sender, _ ports.PeerID) (ports.Answer, error) {
			return ports.Answer{}, err(ctx, sender)
		},
		OnList: func(ctx context.Context, sender ports.PeerID, _ ports.Query) (ports.Page, error) {
			return ports.Page{}, err(ctx, sender)
		},
		OnNatives: func(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
			return nil, err(ctx, sender)
		},
		OnWatch: func(ctx context.Context, sender ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, err(ctx, sender)) }
		},
	}
}

func transportAskRefused(t *testing.T, tt *transportTest) {
	var says box[error]
	tt.serveAll(t, saying(func(context.Context, ports.PeerID) error { return says.get() }))
	n := tt.remote(t)
	for what, ask := range tt.asks(tt.indexer.ID) {
		refusal := ports.Refuse(ports.CodeRefused, "%s is not allowed — “at all”", what)
		says.set(fmt.Errorf("wrapped: %w", refusal))
		got, ok := errors.AsType[*ports.Refusal](ask(t.Context(), n))
		if !ok || !reflect.DeepEqual(got, refusal) {
			t.Errorf("%s: got %v, want %v", what, got, refusal)
		}
		says.set(errors.New("a secret of the native"))
		err := ask(t.Context(), n)
		expectCode(t, err, ports.CodeBusy)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the native's own error arrived: %v", what, err)
		}
	}
}

func transportAskContext(t *testing.T, tt *transportTest) {
	entered, release := make(chan struct{}), make(chan struct{})
	tt.serveAll(t, saying(func(context.Context, ports.PeerID) error {
		select {
		case entered <- struct{}{}:
		case <-release:
		}
		<-release // even after ctx ends
		return nil
	}))
	defer close(release)
	n := tt.remote(t)
	for what, ask := range tt.asks(tt.indexer.ID) {
		promptly(t, what+" with a context that ended meanwhile", func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				select {
				case <-entered:
					cancel()
				case <-ctx.Done():
				}
			}()
			if err := ask(ctx, n); !errors.Is(err, context.Canceled) {
				return fmt.Errorf("got %v, want %v", err, context.Canceled)
			}
			return nil
		})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ask(ended, n); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: with an ended context: got %v, want %v", what, err, context.Canceled)
		}
	}
}

func transportAskNotServing(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	for what, ask := range tt.asks(tt.indexer.ID) {
		err := ask(t.Context(), n)
		if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused {
			t.Errorf("%s: got %v, want an error that is no refusal", what, err)
		}
	}
}

func transportAskStop(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	for what, ask := range tt.asks(tt.indexer.ID) {
		promptly(t, what+" and stop", func() error {
			entered := make(chan struct{})
			stop := tt.serveAll(t, saying(func(ctx context.Context, _ ports.PeerID) error {
				close(entered)
				<-ctx.Done()
				return ctx.Err()
			}))
			defer stop()
			failed := make(chan error, 1)
			go func() { failed <- ask(t.Context(), n) }()
			select {
			case <-entered:
			case err := <-failed:
				return fmt.Errorf("it does not arrive: %w", err)
			}
			stop()
			err := <-failed
			if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
				return fmt.Errorf("of a native that stopped meanwhile: got %v, want a refusal with code %s", err, ports.CodeBusy)
			}
			return nil
		})
	}
}

func transportOverConnection(t *testing.T, tt *transportTest) {
	tt.serveAll(t, Native{OnRegister: grant, OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil }})
	if _, err := tt.register(t.Context(), tt.remote(t)); err != nil {
		t.Fatal(err)
	}
	n, err := tt.indexer.Native(tt.native.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Leave(t.Context(), tt.indexer.ID, nil); err != nil {
		t.Error(err)
	}
}

func transportNeighbours(t *testing.T, tt *transportTest) {
	expect := func(of TransportNode, want ...ports.PeerID) {
		t.Helper()
		for give := time.After(Patience); ; {
			natives, changed := of.Neighbours()
			var ids []ports.PeerID
			whole := true // a native may appear before all of its protocols
			for _, n := range natives {
				ids = append(ids, n.PeerID)
				whole = whole && n.Watchable && len(n.Addrs) > 0
			}
			if whole && reflect.DeepEqual(ids, want) {
				return
			}
			select {
			case <-changed:
			case <-give:
				t.Fatalf("the neighbours of %s are %+v, want %v, watchable and reachable, and nothing changes", of.ID, natives, want)
			}
		}
	}
	expect(tt.indexer)
	for range 2 {
		stop := tt.serve(t, grant)
		if _, err := tt.register(t.Context(), tt.remote(t)); err != nil {
			t.Fatal(err)
		}
		expect(tt.indexer, tt.native.ID)
		expect(tt.native)
		_, changed := tt.indexer.Neighbours()
		stop()
		select {
		case <-changed:
		case <-time.After(Patience):
			t.Error("no change when a neighbour stopped serving")
		}
		expect(tt.indexer)
	}
}

func transportAskConcurrency(t *testing.T, tt *transportTest) {
	entries := exampleEntries(50)
	tt.serveAll(t, Native{
		OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
		OnLookUp: func(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
			return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: id}}}, nil
		},
		OnList: func(_ context.Context, _ ports.PeerID, q ports.Query) (ports.Page, error) {
			return ports.Page{Entries: entries[:q.Limit]}, nil
		},
		OnNatives: func(context.Context, ports.PeerID) ([]ports.NativeStatus, error) {
			return []ports.NativeStatus{{PeerID: peerIDs[0]}}, nil
		},
		OnWatch: func(_ context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{Cursor: w.Cursor}, nil) }
		},
	})
	n := tt.remote(t)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 25 {
				if err := n.Leave(t.Context(), tt.indexer.ID, nil); err != nil {
					t.Errorf("leave: %v", err)
				}
				id := peerIDs[i%len(peerIDs)]
				if a, err := n.LookUp(t.Context(), tt.indexer.ID, id); err != nil || a.PeerID != id {
					t.Errorf("look-up: got %s and %v, want %s", a.PeerID, err, id)
				}
				if p, err := n.List(t.Context(), tt.indexer.ID, ports.Query{Limit: 1 + i}); err != nil || len(p.Entries) != 1+i {
					t.Errorf("list: got %d and %v, want %d", len(p.Entries), err, 1+i)
				}
				if s, err := n.Natives(t.Context(), tt.indexer.ID); err != nil || len(s) != 1 {
					t.Errorf("natives: got %v and %v", s, err)
				}
				// A native may take a moment to notice the end of an earlier watch.
				cursor := fmt.Sprint(w, "/", i)
				for began, busy := time.Now(), true; busy; {
					for b, err := range n.Watch(t.Context(), tt.indexer.ID, ports.WatchRequest{Cursor: cursor}) {
						refusal, _ := errors.AsType[*ports.Refusal](err)
						if busy = refusal != nil && refusal.Code == ports.CodeBusy && time.Since(began) < Patience; busy {
							break
						}
						if err != nil || b.Cursor != cursor {
							t.Errorf("watch: got %q and %v, want %q", b.Cursor, err, cursor)
						}
						break
					}
				}
				_, _ = tt.indexer.Neighbours()
			}
		})
	}
	all.Wait()
}
