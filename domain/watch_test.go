package domain_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"pgregory.net/rapid"
)

// replica is the table of a watcher.
type replica struct {
	table  map[ports.PeerID]ports.Listed
	cursor string
	resets []ports.Reset
	kinds  []ports.ChangeKind
}

// apply takes a batch in.
func (r *replica) apply(b ports.Batch) {
	if b.Reset != "" {
		r.table = make(map[ports.PeerID]ports.Listed)
		r.resets = append(r.resets, b.Reset)
		r.cursor = ""
	}
	for _, c := range b.Changes {
		r.kinds = append(r.kinds, c.Kind)
		if c.Kind.Gone() {
			delete(r.table, c.PeerID)
		} else {
			r.table[c.PeerID] = c.Listed
		}
	}
	if b.Cursor != "" {
		r.cursor = b.Cursor
	}
}

// differs says in what r differs from what n lists, "" if in nothing. With renewals it
// holds the times against each other too.
func (r *replica) differs(n *domain.Registry, renewals bool) string {
	page, _ := n.Page("", ports.MaxPage)
	listed := make(map[ports.PeerID]ports.Listed)
	for _, l := range page {
		listed[l.PeerID] = l
	}
	for id, want := range listed {
		got, ok := r.table[id]
		switch {
		case !ok:
			return fmt.Sprintf("%s is listed and was not told", id)
		case got.Addr != want.Addr || !slices.Equal(got.Addrs, want.Addrs) || !maps.Equal(got.Meta, want.Meta):
			return fmt.Sprintf("%s is listed as %+v and was told as %+v", id, want, got)
		case renewals && (!got.ExpiresAt.Equal(want.ExpiresAt) || got.Native != want.Native || got.Source != want.Source):
			return fmt.Sprintf("%s is listed as %+v and was told as %+v", id, want, got)
		}
	}
	for id := range r.table {
		if _, ok := listed[id]; !ok {
			return fmt.Sprintf("%s is not listed and was told", id)
		}
	}
	return ""
}

// watchInto has r apply what n tells a watcher, until stop is called.
func watchInto(t *testing.T, n ports.Native, r *replica, w ports.WatchRequest) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b, err := range n.Watch(ctx, "", w) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the watch ended: %v", err)
				}
				return
			}
			r.apply(b)
		}
	}()
	return func() { cancel(); <-done }
}

func TestAWatcherIsToldWhatBecomesOfAnEntry(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(5)
		a := net.native(id[0], nil)
		defer a.stop()
		a.register(t, id[1], addr)
		var r, all replica
		defer watchInto(t, a, &r, ports.WatchRequest{})()
		defer watchInto(t, a, &all, ports.WatchRequest{Renewed: true})()
		synctest.Wait()
		a.register(t, id[2], addr)
		time.Sleep(50 * time.Second)
		a.register(t, id[2], addr)     // renewed
		a.register(t, id[1], addr+"1") // updated
		time.Sleep(62 * time.Second)   // both are late
		a.register(t, id[2], addr)     // and live again
		if err := a.Leave(t.Context(), id[2], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second) // id[1] expires
		synctest.Wait()
		const snapshot, joined, updated, renewed, late, left, expired = ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed, ports.ChangeLate, ports.ChangeLeft, ports.ChangeExpired
		want := []ports.ChangeKind{snapshot, joined, updated, late, late, updated, left, expired}
		if !slices.Equal(r.kinds, want) {
			t.Errorf("told %v, want %v", r.kinds, want)
		}
		if want := slices.Insert(slices.Clone(want), 2, renewed); !slices.Equal(all.kinds, want) {
			t.Errorf("who asked for renewals was told %v, want %v", all.kinds, want)
		}
		if len(r.table) != 0 || r.cursor == "" {
			t.Errorf("the table is %v at %q", r.table, r.cursor)
		}
	})
}

// A watcher may be cut off at any time, and often. Its table is the native's as soon as it has a
// cursor.
func TestReplayedChangesRebuildTheTable(t *testing.T) {
	id := peerIDs(20)
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			op   string
			who  int
			addr string
			wait time.Duration
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				op:   rapid.SampledFrom([]string{"register", "register", "register", "elsewhere", "leave", "leave elsewhere", "cut", "wait"}).Draw(t, "op"),
				who:  rapid.IntRange(2, 9).Draw(t, "who"),
				addr: rapid.SampledFrom([]string{addr, addr + "1"}).Draw(t, "addr"),
				wait: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 10, 30, 900, 20_000, 70_000}).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, 60).Draw(rt, "steps")
		renewed := rapid.Bool().Draw(rt, "renewed")
		wrong := "" // rapid's own failing panics in a bubble
		porttest.FakeTime(t, func(t *testing.T) {
			net := newNetwork(t)
			a, b := net.native(id[0], nil), net.native(id[1], nil)
			defer a.stop()
			defer b.stop()
			var r replica
			stop := watchInto(t, a, &r, ports.WatchRequest{Renewed: renewed})
			defer func() { stop() }()
			for _, s := range steps {
				reg := ports.Registration{PeerID: id[s.who], Addr: s.addr}
				switch s.op {
				case "register":
					_, _ = a.Register(t.Context(), reg.PeerID, reg)
				case "elsewhere":
					_, _ = b.Register(t.Context(), reg.PeerID, reg)
				case "leave":
					_ = a.Leave(t.Context(), reg.PeerID, nil)
				case "leave elsewhere":
					_ = b.Leave(t.Context(), reg.PeerID, nil)
				case "cut":
					stop()
					stop = func() {}
					time.Sleep(s.wait)
					stop = watchInto(t, a, &r, ports.WatchRequest{Renewed: renewed, Cursor: r.cursor})
				}
				time.Sleep(s.wait)
				synctest.Wait()
			}
			for range 5 { // what has expired is told when the sweep comes around
				time.Sleep(1100 * time.Millisecond)
				synctest.Wait()
				if wrong = r.differs(a.Registry, renewed); wrong == "" {
					break
				}
			}
			if slices.Contains(r.resets, ports.ResetUnknown) || slices.Contains(r.resets, ports.ResetTooOld) {
				wrong = fmt.Sprintf("it had to begin anew: %v", r.resets)
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func TestACursorThatIsOfNoUseGetsASnapshot(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(5)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		a.register(t, id[2], addr)
		var at, other replica
		stopAt, stopOther := watchInto(t, a, &at, ports.WatchRequest{}), watchInto(t, b, &other, ports.WatchRequest{})
		synctest.Wait()
		stopAt()
		stopOther()
		for _, c := range []struct {
			name   string
			cursor string
			want   ports.Reset
		}{
			{"none", "", ports.ResetNew},
			{"another native's", other.cursor, ports.ResetUnknown},
			{"nonsense", "nonsense", ports.ResetUnknown},
			{"of the future", at.cursor + "9", ports.ResetUnknown},
			{"negative", strings.Replace(at.cursor, ".", ".-", 1), ports.ResetUnknown},
			{"its own", at.cursor, ""},
		} {
			for batch, err := range a.Watch(t.Context(), "", ports.WatchRequest{Cursor: c.cursor}) {
				if err != nil || batch.Reset != c.want || (len(batch.Changes) == 1) != (c.want != "") {
					t.Errorf("%s: %+v, %v, want %q and a snapshot", c.name, batch, err, c.want)
				}
				break
			}
		}
		// Renewals were not remembered before a watcher asked for them.
		for batch := range a.Watch(t.Context(), "", ports.WatchRequest{Cursor: at.cursor, Renewed: true}) {
			if batch.Reset != "" {
				t.Errorf("nothing was missed, and it is reset: %s", batch.Reset)
			}
			break
		}
	})
}

func TestRenewalsThatWereNotRememberedAreAReasonToBeginAnew(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(5)
		a := net.native(id[0], nil)
		defer a.stop()
		var r replica
		stop := watchInto(t, a, &r, ports.WatchRequest{})
		synctest.Wait()
		stop()
		a.register(t, id[2], addr)
		a.register(t, id[2], addr)
		for batch := range a.Watch(t.Context(), "", ports.WatchRequest{Cursor: r.cursor, Renewed: true}) {
			if batch.Reset != ports.ResetTooOld {
				t.Errorf("got %q, want %q", batch.Reset, ports.ResetTooOld)
			}
			break
		}
	})
}

// A reader that stops costs nothing but its own place.
func TestAReaderThatFallsBehindIsDroppedAndNobodyElseIs(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(20)
		a := net.native(id[0], nil)
		defer a.stop()
		var reads replica
		defer watchInto(t, a, &reads, ports.WatchRequest{Renewed: true})()
		next, stop := iter.Pull2(a.Watch(t.Context(), "", ports.WatchRequest{Renewed: true}))
		defer stop()
		if b, err, ok := next(); !ok || err != nil || b.Reset != ports.ResetNew {
			t.Fatalf("the first batch is %+v, %v", b, err)
		}
		const more = domain.MaxChanges + 2*ports.MaxPage
		for i := range more {
			time.Sleep(time.Nanosecond) // at one instant, nothing is renewed
			a.register(t, id[1+i%10], addr)
			if i%500 == 0 {
				time.Sleep(30 * time.Millisecond) // for the one that reads
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := len(reads.kinds); got != more || reads.differs(a.Registry, true) != "" {
			t.Errorf("who reads was told of %d changes, want %d: %s", got, more, reads.differs(a.Registry, true))
		}
		var err error
		for range 3 {
			var b ports.Batch
			if b, err, _ = next(); err != nil {
				break
			}
			_ = b
		}
		var refusal *ports.Refusal
		if !errors.As(err, &refusal) || refusal.Code != ports.CodeTooSlow {
			t.Errorf("who does not read got %v, want %s", err, ports.CodeTooSlow)
		}
	})
}

// Changes that come together travel together: ten thousand a second are forty to eighty batches.
func TestChangesTravelInBatches(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		a := net.native(id[0], nil)
		defer a.stop()
		batches, changes := 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		var watcher sync.WaitGroup
		defer watcher.Wait()
		defer cancel()
		var last time.Time
		watcher.Go(func() {
			for b, err := range a.Watch(ctx, "", ports.WatchRequest{Renewed: true}) {
				if err != nil {
					return
				}
				if len(b.Changes) > 0 {
					batches++
					changes += len(b.Changes)
					last = time.Now()
				}
			}
		})
		time.Sleep(time.Second)
		began := time.Now()
		a.register(t, id[1], addr)
		synctest.Wait()
		if !last.Equal(began) {
			t.Errorf("what happened after a while of nothing was told after %v", last.Sub(began))
		}
		for range 1000 {
			for range 10 {
				time.Sleep(100 * time.Microsecond) // at one instant, nothing is renewed
				a.register(t, id[1], addr)
			}
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if changes != 10_001 || batches > 82 {
			t.Errorf("%d changes in %d batches, want 10001 in 82 at most", changes, batches)
		}
	})
}

// An Own watch is for other natives: what they do not hear from its own indexers would echo.
func TestAnOwnWatchTellsWhatTheNativeGranted(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(8)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		a.register(t, id[2], addr)
		b.register(t, id[3], addr)
		a.register(t, id[4], addr)
		if err := a.Leave(t.Context(), id[4], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var r replica
		var left []ports.Change
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for batch, err := range a.Watch(ctx, "", ports.WatchRequest{Own: true}) {
			if err != nil {
				break
			}
			r.apply(batch)
			if batch.Live != 1 {
				t.Errorf("it says that it granted %d, want 1", batch.Live)
			}
			for _, c := range batch.Changes {
				if c.Kind == ports.ChangeLeft {
					left = append(left, c)
				}
			}
			if batch.Cursor != "" {
				cancel()
			}
		}
		if _, ok := r.table[id[2]]; !ok || len(r.table) != 1 {
			t.Errorf("told %v, want what it granted alone", slices.Collect(maps.Keys(r.table)))
		}
		if len(left) != 1 || left[0].PeerID != id[4] || left[0].Native != id[0] || left[0].Remaining != 65*time.Second || left[0].ExpiresAt.IsZero() {
			t.Errorf("told the leaves %+v, want one with its times", left)
		}
	})
}

func TestManyWatchersOfALargeNativeKeepUp(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		const watchers = 1024 // the more there are, the rarer are the batches of each
		const indexers = 167  // of which each renews a hundred times a second: as many as a million
		id := peerIDs(1 + indexers)
		a := net.native(id[0], nil)
		defer a.stop()
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		var dropped, heard atomic.Int32
		defer watching.Wait()
		defer cancel()
		for i := range watchers {
			watching.Go(func() {
				for b, err := range a.Watch(ctx, "", ports.WatchRequest{Renewed: i == 0}) {
					if err != nil && ctx.Err() == nil {
						dropped.Add(1)
					}
					if i == 0 {
						heard.Add(int32(len(b.Changes)))
					}
				}
			})
		}
		synctest.Wait()
		for range porttest.Scale(4000, 1000) {
			for _, x := range id[1:] {
				a.register(t, x, addr)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute) // a watcher that looks rarely finds out now what it has missed
		if n := dropped.Load(); n > 0 {
			t.Errorf("%d of %d were dropped as too slow, though they read at once", n, watchers)
		}
		if n := heard.Load(); n <= domain.MaxChanges {
			t.Errorf("all of the %d changes are remembered: this shows nothing", n)
		}
	})
}
