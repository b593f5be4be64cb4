package porttest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// exampleNews are News of that many changes of all kinds, and renewals of both kinds.
func exampleNews(changes, renewals int) *ports.News {
	kinds := []ports.ChangeKind{ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeLate, ports.ChangeExpired, ports.ChangeLeft}
	n := &ports.News{}
	for i, l := range exampleEntries(changes) {
		c := ports.Change{Kind: kinds[i%len(kinds)], Number: uint32(i + 1), Listed: l}
		c.Remaining, c.Source, c.Natives, c.Leave = c.Remaining.Truncate(time.Millisecond), "", nil, false
		switch c.Kind {
		case ports.ChangeExpired:
			c.Listed = ports.Listed{Entry: ports.Entry{PeerID: l.PeerID, Native: l.Native}}
		case ports.ChangeLeft:
			c.Listed = ports.Listed{Entry: ports.Entry{PeerID: l.PeerID, Native: l.Native, ExpiresAt: l.ExpiresAt, Leave: true}, Remaining: c.Remaining}
		}
		n.Changes = append(n.Changes, c)
	}
	for i := range renewals {
		r := ports.Renewal{Number: uint32(3*i + 1), Remaining: time.Duration(66_000-i%1000) * time.Millisecond}
		if i%5 == 4 {
			r.ExpiresAt = 1772359200500000000 + int64(i)
		} else {
			r.Step, r.Link = uint32(i%60), ports.Link{byte(i), byte(i >> 8), 31: 7}
		}
		n.Renewals = append(n.Renewals, r)
	}
	return n
}

// watchesNumbers asks for the News of the native.
func (tt *transportTest) watchesNumbers(ctx context.Context, t *testing.T, ask <-chan []ports.Range) iter.Seq2[ports.Batch, error] {
	t.Helper()
	return tt.remote(t).Watch(ctx, tt.indexer.ID, ports.WatchRequest{Cursor: "from", Own: true, Numbers: true, Mine: true, Beat: 1700 * time.Millisecond, Ask: ask})
}

func transportNews(t *testing.T, tt *transportTest) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	shared := exampleNews(30, 300)
	want := []ports.Batch{
		{Reset: ports.ResetNew, Live: 7, Start: "this run", Beat: 1700 * time.Millisecond, Now: now, News: exampleNews(500, 0)},
		{Cursor: "log.1", Condition: ports.ConditionPartial, Missing: peerIDs[:2], Audience: 1 << 63},
		{Cursor: "log.2", News: shared, Age: 700 * time.Millisecond},
		{Cursor: "log.3", News: exampleNews(0, 5000)},
		{Cursor: "log.4", Sums: []ports.Range{{Count: 5, Sum: 1<<64 - 1}, {From: 7, Until: 1<<32 - 1, Count: 1<<32 - 1}}},
		{Cursor: "log.4", Told: []ports.Range{{From: 1, Until: 1 << 20, Whole: true}}, News: &ports.News{Changes: exampleNews(400, 0).Changes}},
		{Cursor: "log.2", News: shared, Age: 800 * time.Millisecond}, // to a watcher that resumes
	}
	requests := make(chan ports.WatchRequest, 1)
	done := ports.Refuse(ports.CodeRefused, "that is all")
	tt.serveAll(t, Native{OnWatch: func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		if sender != tt.indexer.ID {
			t.Errorf("%s asked, want %s", sender, tt.indexer.ID)
		}
		requests <- w
		return telling(want, done)(ctx, sender, w)
	}})
	var got []ports.Batch
	var end error
	for b, err := range tt.watchesNumbers(t.Context(), t, nil) {
		if end = err; err == nil {
			got = append(got, b)
		}
	}
	if refusal, ok := errors.AsType[*ports.Refusal](end); !ok || !reflect.DeepEqual(refusal, done) {
		t.Fatalf("ended with %v, want %v", end, done)
	}
	asked := <-requests
	asked.Ask, asked.Full = nil, nil
	if want := (ports.WatchRequest{Cursor: "from", Own: true, Numbers: true, Mine: true, Beat: 1700 * time.Millisecond}); asked != want {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
	got = joinNews(got)
	if len(got) != len(want) {
		t.Fatalf("got %d batches, want %d", len(got), len(want))
	}
	for i, w := range want {
		if err := sameNews(w, got[i]); err != nil {
			t.Errorf("batch %d: %v", i, err)
		}
	}
}

// joinNews merges the parts of batches: all have no cursor but the last, and those of a snapshot.
func joinNews(batches []ports.Batch) (joined []ports.Batch) {
	whole := true
	for _, b := range batches {
		last := len(joined) - 1
		if whole || joined[last].Reset != "" && b.Cursor != "" && b.News == nil {
			if b.News != nil {
				b.News = &ports.News{Changes: slices.Clone(b.News.Changes), Renewals: slices.Clone(b.News.Renewals)}
			}
			joined = append(joined, b)
		} else {
			to := &joined[last]
			to.News.Changes = append(to.News.Changes, b.News.Changes...)
			to.News.Renewals = append(to.News.Renewals, b.News.Renewals...)
			to.Told, to.Sums, to.Cursor = append(to.Told, b.Told...), b.Sums, b.Cursor
		}
		whole = b.Cursor != ""
	}
	return joined
}

// sameNews returns how got differs from want, whose Told may come in parts.
func sameNews(want, got ports.Batch) error {
	for i := 1; i < len(got.Told); {
		if got.Told[i-1].Until == got.Told[i].From {
			got.Told[i-1].Until = got.Told[i].Until
			got.Told = slices.Delete(got.Told, i, i+1)
		} else {
			i++
		}
	}
	wanted, is := want.News, got.News
	want.News, got.News = nil, nil
	if !want.Now.Equal(got.Now) {
		return fmt.Errorf("it says that it is %v, want %v", got.Now, want.Now)
	}
	want.Now, got.Now = time.Time{}, time.Time{}
	switch {
	case !reflect.DeepEqual(want, got):
		return fmt.Errorf("got %+v, want %+v", got, want)
	case (wanted == nil) != (is == nil):
		return fmt.Errorf("got News %v, want %v", is, wanted)
	case wanted == nil:
		return nil
	case len(is.Changes) != len(wanted.Changes) || !slices.Equal(is.Renewals, wanted.Renewals):
		return fmt.Errorf("got %d changes and %d renewals, want %d and %d", len(is.Changes), len(is.Renewals), len(wanted.Changes), len(wanted.Renewals))
	}
	for i, c := range wanted.Changes {
		g := is.Changes[i]
		if p := c.Proof; p != nil && p.Record != nil {
			// The record says these, so a transport may leave them out.
			c.Addrs, c.Meta, g.Addrs, g.Meta = nil, nil, nil, nil
		}
		if g.Kind != c.Kind || g.Number != c.Number || g.Leave != c.Leave || !sameListed(c.Listed, g.Listed) {
			return fmt.Errorf("change %d is %+v, want %+v", i, g, c)
		}
	}
	return nil
}

func transportFull(t *testing.T, tt *transportTest) {
	tt.serveAll(t, Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for says := "no word"; yield(ports.Batch{Cursor: says}, nil); {
				select {
				case full := <-w.Full:
					says = fmt.Sprint("full: ", full)
				case <-ctx.Done():
					return
				}
			}
		}
	}})
	words := make(chan bool, 1)
	request := ports.WatchRequest{Own: true, Numbers: true, Full: words}
	var heard []string
	for b, err := range tt.remote(t).Watch(t.Context(), tt.indexer.ID, request) {
		if err != nil {
			t.Fatal(err)
		}
		if heard = append(heard, b.Cursor); len(heard) == 4 {
			break
		}
		words <- len(heard) != 2
	}
	if want := []string{"no word", "full: true", "full: false", "full: true"}; !slices.Equal(heard, want) {
		t.Errorf("the native heard %q, want %q", heard, want)
	}
}

func transportAsk(t *testing.T, tt *transportTest) {
	ended := make(chan struct{})
	tt.serveAll(t, Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			defer close(ended)
			if !yield(ports.Batch{Cursor: "0"}, nil) {
				return
			}
			for i := 1; ; i++ {
				select {
				case ranges := <-w.Ask:
					if !yield(ports.Batch{Cursor: fmt.Sprint(i), Sums: ranges}, nil) {
						return
					}
				case <-ctx.Done():
					yield(ports.Batch{}, ctx.Err())
					return
				}
			}
		}
	}})
	most := make([]ports.Range, ports.MaxRanges)
	for i := range most {
		most[i] = ports.Range{From: uint32(i) << 20, Until: uint32(i+1) << 20, Count: 1<<32 - 1, Sum: 1<<64 - 1}
	}
	most[len(most)-1].Until = 0
	asks := [][]ports.Range{{{}}, {{From: 1, Until: 2, Whole: true}, {From: 2}}, most}
	asking := make(chan []ports.Range)
	answers := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for b, err := range tt.watchesNumbers(ctx, t, asking) {
		if err != nil {
			t.Fatal(err)
		}
		if answers > 0 && !slices.Equal(b.Sums, asks[answers-1]) {
			t.Errorf("ask %d is answered by %+v", answers, b.Sums)
		}
		if answers == len(asks) {
			break
		}
		select {
		case asking <- asks[answers]:
		case <-time.After(Patience):
			t.Fatal("the ask is not taken")
		}
		answers++
	}
	if answers != len(asks) {
		t.Errorf("%d asks, want %d", answers, len(asks))
	}
	select {
	case <-ended:
	case <-time.After(Patience):
		t.Error("the native's watch lives on after the watcher's")
	}
}

func transportNumbersEnd(t *testing.T, tt *transportTest) {
	contexts, stop := tt.watched(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, last = range tt.watchesNumbers(ctx, t, make(chan []ports.Range)) {
		cancel()
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("ended with %v, want %v", last, context.Canceled)
	}
	expectEnded(t, <-contexts)
	for _, err := range tt.watchesNumbers(t.Context(), t, nil) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	expectEnded(t, <-contexts)
	stopped := make(chan struct{})
	for b, err := range tt.watchesNumbers(t.Context(), t, nil) {
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
