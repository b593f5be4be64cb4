package domain

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A watcher is told of each end of an entry once, and in time.
func TestEveryEndIsTold(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*watchedRegistry)
		want []string
	}{
		{"a leave between the deadline and the sweep", func(r *watchedRegistry) {
			r.tell(ports.ChangeJoined, "n1", "n1", 10*time.Second)
			time.Sleep(10*time.Second + 100*time.Millisecond)
			r.tell(ports.ChangeLeft, "n2", "n2", 66*time.Second)
		}, []string{"joined@0s", "expired@10s"}},
		{"a lease that ends before the leave that it stands against", func(r *watchedRegistry) {
			r.tell(ports.ChangeLeft, "n2", "n1", 60*time.Second)
			r.tell(ports.ChangeJoined, "n1", "n1", 5*time.Second)
		}, []string{"joined@0s", "expired@5s"}},
		{"a lease that its native made shorter", func(r *watchedRegistry) {
			r.tell(ports.ChangeJoined, "n1", "n1", 66*time.Second)
			r.pass(10)
			r.tell(ports.ChangeRenewed, "n1", "n1", 5*time.Second)
		}, []string{"joined@0s", "expired@15s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r, stop := newWatchedRegistry(t)
				defer stop()
				tt.do(r)
				r.pass(200)
				if _, ok := r.Get("x"); ok || r.table.len() != 0 || r.table.listed.Load() != 0 {
					t.Errorf("x is still there")
				}
				if !slices.Equal(r.told, tt.want) {
					t.Errorf("told %v, want %v", r.told, tt.want)
				}
			})
		})
	}
}

// A table takes longer to hand over than a native remembers what happens meanwhile.
func TestATakeoverKeepsUpWithTheHeartbeats(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, stop := newWatchedRegistry(t)
		defer stop()
		n := porttest.Scale(200_000, 60_000)
		ids := make([]ports.PeerID, n)
		register := func(i int) {
			if _, err := r.Register(t.Context(), ids[i], ports.Registration{PeerID: ids[i], Addr: "a"}); err != nil {
				t.Error(err)
			}
		}
		for i := range ids {
			ids[i] = ports.PeerID(fmt.Sprintf("x%06d", i))
			register(i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		taken := make(map[ports.PeerID]time.Time) // when it was heard last
		var whole bool
		var ended error
		var done atomic.Bool
		go func() {
			defer done.Store(true)
			for b, err := range r.Watch(ctx, "", ports.WatchRequest{Own: true, Renewed: true}) {
				if err != nil {
					ended = err
					return
				}
				for _, c := range b.Changes {
					if c.SeenAt.Before(taken[c.PeerID]) {
						t.Errorf("%s: %s of %v after one of %v", c.PeerID, c.Kind, c.SeenAt, taken[c.PeerID])
					}
					taken[c.PeerID] = c.SeenAt
				}
				if whole = whole || b.Cursor != ""; whole {
					return
				}
				time.Sleep(time.Duration(len(b.Changes)) * 50 * time.Microsecond) // seconds for the table
			}
		}()
		renewals := 0
		for ; !done.Load() && renewals < 5*n; synctest.Wait() {
			for range 150 {
				register(renewals % n)
				renewals++
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
		synctest.Wait()
		if !whole || len(taken) != n {
			t.Errorf("whole %v with %d entries after %d heartbeats: %v", whole, len(taken), renewals, ended)
		}
		if renewals <= maxChanges {
			t.Errorf("%d heartbeats are all remembered: this shows nothing", renewals)
		}
	})
}

func TestWhoComesBackIsCounted(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		register := func(reg ports.Registration) {
			t.Helper()
			if _, err := r.Register(t.Context(), reg.PeerID, reg); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(what string, want int64) {
			t.Helper()
			if got := r.table.owned.Load(); got != want {
				t.Errorf("%s it says that it granted %d, want %d", what, got, want)
			}
		}
		register(ports.Registration{PeerID: "x", Addr: "a"})
		expect("registered,", 1)
		if err := r.Leave(t.Context(), "x", nil); err != nil {
			t.Fatal(err)
		}
		expect("left,", 0)
		register(ports.Registration{PeerID: "x", Addr: "a"})
		expect("back,", 1)
		time.Sleep(70 * time.Second)
		r.sweep()
		expect("expired,", 0)

		for range 3 { // one that signs and is remembered
			register(key.Says(t, time.Now(), 1, "a").Registration(0))
			expect("signed, registered,", 1)
			time.Sleep(70 * time.Second)
			r.sweep()
			expect("signed, expired,", 0)
		}
	})
}

func TestALeaveDoesNotEndALaterLeaseBehindTheOneItEnds(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, stop := newWatchedRegistry(t)
		defer stop()
		granted := time.Now() // by n1
		time.Sleep(10 * time.Second)
		left := time.Now() // n1
		time.Sleep(time.Second)
		// It registers with n2, which puts it; this native hears of that and finds it.
		e := Entry{PeerID: "x", Addr: "a", Native: "n2", ExpiresAt: time.Now().Add(66 * time.Second)}
		if _, _, err := r.takeEntry("x", callers, e); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, ok := r.Get("x"); !ok {
			t.Fatal("not found in the store")
		}
		// n1 is reached again.
		change := func(kind ports.ChangeKind, at time.Time) ports.Change {
			ends := at.Add(66 * time.Second)
			return ports.Change{Kind: kind, Listed: ports.Listed{Entry: Entry{PeerID: "x", Addr: "a", Native: "n1", ExpiresAt: ends, Leave: kind == ports.ChangeLeft}, Remaining: time.Until(ends)}}
		}
		r.takeChanges("n1", []ports.Change{change(ports.ChangeRenewed, granted), change(ports.ChangeLeft, left)})
		if _, ok := r.Get("x"); !ok {
			t.Errorf("the leave at n1 has ended the lease that n2 granted after it")
		}
		r.pass(100)
		if _, ok := r.Get("x"); ok || r.table.len() != 0 {
			t.Errorf("x is still there")
		}
		t.Log(r.told)
	})
}

func TestASignedLeaseThatIsToldIsNoLongerThanALease(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		e := key.Says(t, time.Now(), 1, "a").Entry(50) // the indexer has given all its links away
		e.Native = "n1"
		r.takeChanges("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 40 * time.Minute}}})
		time.Sleep(67 * time.Second)
		if got, ok := r.Get(key.PeerID); ok {
			t.Errorf("67 s after it was told it is listed for another %v", got.Remaining)
		}
	})
}

// While a snapshot is sent, an indexer renews by a tick, and then signs another record. A watcher
// gets no tick of a record that it was not given.
func TestASnapshotTellsNoTickWithoutItsRecord(t *testing.T) {
	s := prooftest.NewSigner(t)
	r, _ := bareRegistry(t, "me", nil)
	for i := range maxBatch + 200 { // they sort before the signer
		id := ports.PeerID(fmt.Sprintf("0%05d", i))
		if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/a"}); err != nil {
			t.Fatal(err)
		}
	}
	registers := func(w prooftest.Word, step uint32) {
		reg := w.Registration(step)
		if step > 0 {
			reg.Proof = &ports.Proof{Tick: reg.Proof.Tick}
		}
		if _, err := r.Register(t.Context(), s.PeerID, reg); err != nil {
			t.Fatal(err)
		}
	}
	first, second := s.Says(t, time.Now().Add(-2*prooftest.Interval), 1, "/b"), s.Says(t, time.Now().Add(-time.Second), 1, "/c")
	registers(first, 0)
	records := map[int64]bool{}
	begun := false
	for b, err := range r.Watch(t.Context(), "", ports.WatchRequest{Own: true, Renewed: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if !begun {
			begun = true
			registers(first, 1)
			registers(second, 0)
		}
		for _, c := range b.Changes {
			switch {
			case c.Proof == nil:
			case c.Proof.Record != nil:
				records[c.Proof.Tick.Seq] = true
			case !records[c.Proof.Tick.Seq]:
				t.Errorf("a %s of step %d without its record", c.Kind, c.Proof.Tick.Step)
			}
		}
		if b.Cursor != "" {
			break
		}
	}
	if len(records) != 2 {
		t.Errorf("it was given %d records, want both", len(records))
	}
}
