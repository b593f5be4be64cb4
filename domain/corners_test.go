package domain_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// These are corners of a whole registry, each of which a version of the rule has missed.

// settings say how a registry of these tests differs from the usual.
type settings struct {
	self    ports.PeerID
	proofs  ports.Verifier
	entries int
	plain   func() domain.Plain
	store   ports.Store
}

// made returns a registry with a store of its own.
func made(t *testing.T, s settings, observer ports.Observer) (*domain.Registry, ports.Store) {
	rules := domain.Rules{Self: s.self, Policy: domain.DefaultTTLPolicy(), CheckAddr: func(ports.PeerID, string) error { return nil }, Proofs: s.proofs, Plain: s.plain}
	if s.store == nil {
		s.store = memory.NewStore(rules.Acceptable)
	}
	r, err := domain.NewRegistry(rules, domain.Settings{Line: line(true), Bounds: domain.Bounds{Entries: s.entries}}, s.store, silentAnnouncer{}, observer)
	if err != nil {
		t.Fatal(err)
	}
	return r, s.store
}

// tabled runs f with a registry that runs.
func tabled(t *testing.T, s settings, f func(t *testing.T, n *domain.Registry, store ports.Store, seen *porttest.Recorder)) {
	t.Helper()
	peerIDs(20)
	porttest.FakeTime(t, func(t *testing.T) {
		if s.self == "" {
			s.self = peerIDs(1)[0]
		}
		seen := &porttest.Recorder{}
		n, store := made(t, s, seen)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		f(t, n, store, seen)
		cancel()
		<-done
	})
}

func registers(t *testing.T, n *domain.Registry, id ports.PeerID, addr string) {
	t.Helper()
	if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err != nil {
		t.Fatal(err)
	}
}

// saysLease is a lease that by granted and tells, whose clock is ahead of this one.
func saysLease(by, id ports.PeerID, addr string, ahead time.Duration) []ports.Change {
	return []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{
		Entry:     ports.Entry{PeerID: id, Addr: addr, Native: by, ExpiresAt: time.Now().Add(66*time.Second + ahead)},
		Remaining: 66 * time.Second,
	}}}
}

func watches(t *testing.T, n *domain.Registry, q ports.WatchRequest) *[]ports.Change {
	t.Helper()
	var all []ports.Change
	w := n.Watch(t.Context(), "", q)
	go func() {
		for b, err := range w {
			if err != nil {
				return
			}
			all = append(all, b.Changes...)
		}
	}()
	synctest.Wait()
	return &all
}

func kinds(changes []ports.Change) (kinds []ports.ChangeKind) {
	for _, c := range changes {
		kinds = append(kinds, c.Kind)
	}
	return kinds
}

// An indexer registers with two natives in the same second, as all do, and stops. Once both
// heartbeats are overdue it is late, and a watcher without Renewed is told.
func TestAWatcherIsToldThatAnIndexerIsLate(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		id := peerIDs(4)
		got := watches(t, n, ports.WatchRequest{})
		time.Sleep(300 * time.Millisecond) // not at a sweep
		registers(t, n, id[3], addr)
		time.Sleep(2 * time.Millisecond)
		n.TakeChanges(id[1], saysLease(id[1], id[3], addr, 0))
		time.Sleep(64 * time.Second)
		synctest.Wait()
		if l, ok := n.Get(id[3]); !ok || l.State != ports.StateLate {
			t.Fatalf("shown %+v, %v, want it late", l, ok)
		}
		if !slices.Contains(kinds(*got), ports.ChangeLate) {
			t.Errorf("told %v, want joined and late", kinds(*got))
		}
	})
}

// The same where a lease has ended and the next is late by then already.
func TestAWatcherIsToldThatAnIndexerIsLateByItsNextLease(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		id := peerIDs(4)
		got := watches(t, n, ports.WatchRequest{Renewed: true})
		time.Sleep(300 * time.Millisecond) // not at a sweep
		registers(t, n, id[3], addr)
		time.Sleep(2 * time.Millisecond)
		n.TakeChanges(id[1], saysLease(id[1], id[3], addr, 0))
		time.Sleep(64 * time.Second)
		synctest.Wait()
		if !slices.Contains(kinds(*got), ports.ChangeLate) {
			t.Errorf("told %v, want a late among them", kinds(*got))
		}
	})
}

// A native whose clock is 40 s ahead told a lease. The indexer leaves here, and that goes into
// the DHT: natives that follow neither hear of it in no other way.
func TestABareLeaveIsPutWhateverOthersClocksShow(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, store ports.Store, _ *porttest.Recorder) {
		id := peerIDs(4)
		registers(t, n, id[3], addr)
		n.TakeChanges(id[1], saysLease(id[1], id[3], addr, 40*time.Second))
		time.Sleep(5 * time.Second)
		if err := n.Leave(t.Context(), id[3], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if e, err := store.Local(id[3], ports.Version{}); err != nil || !e.Leave {
			t.Errorf("the store has %+v, %v, want the leave", e, err)
		}
	})
}

// An indexer leaves, and registers again: with a native whose clock is 5 s ahead, then here. A
// native that follows this one alone lists it ("a registration after the leave counts again").
func TestWhoRegistersAfterALeaveIsListedByFollowers(t *testing.T) {
	id := peerIDs(4)
	tabled(t, settings{self: id[0]}, func(t *testing.T, a *domain.Registry, store ports.Store, _ *porttest.Recorder) {
		c, _ := made(t, settings{self: id[2]}, &porttest.Recorder{})
		got := watches(t, a, ports.WatchRequest{Own: true, Renewed: true})
		registers(t, a, id[3], addr)
		a.TakeChanges(id[1], saysLease(id[1], id[3], addr, 5*time.Second))
		time.Sleep(time.Second)
		if err := a.Leave(t.Context(), id[3], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		a.TakeChanges(id[1], saysLease(id[1], id[3], addr, 5*time.Second))
		registers(t, a, id[3], addr)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		c.TakeChanges(id[0], *got)
		if _, ok := c.Get(id[3]); !ok {
			t.Error("who follows it does not list the indexer")
		}
		if e, err := store.Local(id[3], ports.Version{}); err != nil || e.Leave {
			t.Errorf("the store has %+v, %v, want the lease", e, err)
		}
	})
}

// An indexer has left with its signature, as another native told. It registers here without
// one, and leaves. A native that follows this one is told the leave, and the store has it.
func TestABareLeaveAfterASignedOneIsTold(t *testing.T) {
	s := prooftest.NewSigner(t)
	id := peerIDs(4)
	tabled(t, settings{self: id[0], proofs: proof.NewVerifier()}, func(t *testing.T, a *domain.Registry, store ports.Store, _ *porttest.Recorder) {
		got := watches(t, a, ports.WatchRequest{Own: true, Renewed: true})
		left := ports.Entry{PeerID: s.PeerID, Native: id[1], Leave: true, ExpiresAt: time.UnixMilli(time.Now().UnixMilli()).Add(prooftest.TTL).UTC(), Proof: &ports.Proof{Record: s.Leaves(t, time.Now(), 1)}}
		a.TakeChanges(id[1], []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: left, Remaining: time.Hour}}})
		time.Sleep(10 * time.Second)
		registers(t, a, s.PeerID, addr)
		time.Sleep(10 * time.Second)
		if err := a.Leave(t.Context(), s.PeerID, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if k := kinds(*got); len(k) != 2 || k[0] != ports.ChangeJoined || k[1] != ports.ChangeLeft {
			t.Errorf("told %v, want joined and left", k)
		}
		if e, err := store.Local(s.PeerID, ports.Version{}); err != nil || !e.Leave {
			t.Errorf("the store has %+v, %v, want the leave", e, err)
		}
	})
}

// A lease ended, and no sweep has come yet. A reload of the lists does not make its indexer a
// stranger: it goes on being known, and looked up.
func TestWhoExpiredBeforeARevisionIsKnownAndNoStranger(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, _ ports.Store, seen *porttest.Recorder) {
		id := peerIDs(4)
		time.Sleep(300 * time.Millisecond) // not at a sweep
		registers(t, n, id[3], addr)
		time.Sleep(66*time.Second + time.Millisecond)
		n.Revise()
		time.Sleep(5 * time.Second)
		if k := seen.Count(ports.EventUntrusted); k != 0 {
			t.Errorf("%d untrusted, want none", k)
		}
		if live, known := n.Counts(); live != 0 || known != 1 {
			t.Errorf("live %d, known %d, want 0 and 1", live, known)
		}
	})
}

// A table has room for four indexers. All four left with a signed leave, came back, and their
// leases ended. The native remembers one of them at most, so that another indexer finds room.
func TestWhoCameBackAfterALeaveAndIsGoneKeepsNobodyOut(t *testing.T) {
	signers := prooftest.NewSigners(t, 4)
	tabled(t, settings{proofs: proof.NewVerifier(), entries: 4}, func(t *testing.T, n *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		for _, s := range signers {
			if _, err := n.Register(t.Context(), s.PeerID, s.Says(t, time.Now(), 1, addr).Registration(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if err := n.Leave(t.Context(), s.PeerID, s.Leaves(t, time.Now(), 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if _, err := n.Register(t.Context(), s.PeerID, s.Says(t, time.Now(), 2, addr).Registration(0)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		if live, _ := n.Counts(); live != 0 || n.Held() > 1 {
			t.Errorf("live %d, held %d, want none and one at most", live, n.Held())
		}
		id := peerIDs(4)[3]
		if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err != nil {
			t.Errorf("a table without an entry: %v", err)
		}
	})
}

// What is held of an indexer that left and came back is the same, whichever is heard first.
func TestALeaveAndTheRecordAfterItEndAlikeInEitherOrder(t *testing.T) {
	s := prooftest.NewSigner(t)
	id := peerIDs(4)
	var told [2][]ports.ChangeKind
	for i := range 2 {
		tabled(t, settings{self: id[0], proofs: proof.NewVerifier()}, func(t *testing.T, a *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
			began := time.UnixMilli(time.Now().UnixMilli()).UTC()
			time.Sleep(2 * time.Second)
			left := ports.Change{Kind: ports.ChangeLeft, Listed: ports.Listed{Remaining: time.Hour, Entry: ports.Entry{PeerID: s.PeerID, Native: id[1], Leave: true, ExpiresAt: began.Add(prooftest.TTL), Proof: &ports.Proof{Record: s.Leaves(t, began, 1)}}}}
			e := s.Says(t, began.Add(time.Second), 2, addr).Entry(0)
			e.Native = id[2]
			back := ports.Change{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: 64 * time.Second}}
			if i == 0 {
				a.TakeChanges(id[1], []ports.Change{left})
				a.TakeChanges(id[2], []ports.Change{back})
			} else {
				a.TakeChanges(id[2], []ports.Change{back})
				a.TakeChanges(id[1], []ports.Change{left})
			}
			time.Sleep(2 * time.Minute)
			told[i] = kinds(*watches(t, a, ports.WatchRequest{Own: true, Renewed: true}))
		})
	}
	if !slices.Equal(told[0], told[1]) {
		t.Errorf("once the lease has ended, a new follower is told %v if the leave came first, else %v", told[0], told[1])
	}
}

// An indexer left one native, then registered with another, and left that: the last leave counts
// for what the DHT has, though a native told the first.
func TestALaterLeaveOfTheStoreIsRemembered(t *testing.T) {
	id := peerIDs(5)
	var has *ports.Entry
	store := &stubStore{get: func(context.Context, ports.PeerID) (ports.Entry, error) {
		if has == nil {
			return ports.Entry{}, ports.ErrNotFound
		}
		return *has, nil
	}}
	tabled(t, settings{self: id[0], store: store}, func(t *testing.T, a *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		at := func(d time.Duration) time.Time { return time.Now().UTC().Add(d) }
		a.TakeChanges(id[1], []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{Remaining: 60 * time.Second, Entry: ports.Entry{PeerID: id[4], Native: id[1], Leave: true, ExpiresAt: at(60 * time.Second)}}}})
		// The DHT has the lease of 61 s at one server still, the leave of 62 s at another.
		lease := ports.Entry{PeerID: id[4], Addr: addr, Addrs: []string{addr}, Native: id[2], ExpiresAt: at(61 * time.Second)}
		leave := ports.Entry{PeerID: id[4], Addr: addr, Native: id[2], ExpiresAt: at(62 * time.Second), Leave: true}
		for _, e := range []ports.Entry{leave, lease} {
			has = &e
			_, _ = a.LookUp(t.Context(), id[3], id[4])
			time.Sleep(6 * time.Second)
		}
		if l, ok := a.Get(id[4]); ok {
			t.Errorf("an indexer that left is listed: %+v", l)
		}
	})
}

// Two natives tell the same tick of a record: both leases end when that does. Which of them is
// shown does not hang on who told first.
func TestTwoEqualLeasesAreShownAlikeInEitherOrder(t *testing.T) {
	s := prooftest.NewSigner(t)
	id := peerIDs(4)
	var native [2]ports.PeerID
	for i := range 2 {
		tabled(t, settings{self: id[0], proofs: proof.NewVerifier()}, func(t *testing.T, a *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
			e := s.Says(t, time.Now(), 2, addr).Entry(0)
			time.Sleep(2 * time.Second)
			for _, by := range [][]ports.PeerID{{id[1], id[2]}, {id[2], id[1]}}[i] {
				of := e
				of.Native, of.Proof = by, &ports.Proof{Record: e.Proof.Record, Tick: e.Proof.Tick}
				a.TakeChanges(by, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: of, Remaining: 65 * time.Second}}})
			}
			l, _ := a.Get(s.PeerID)
			native[i] = l.Native
		})
	}
	if native[0] != native[1] {
		t.Errorf("shown by way of %s, or of %s", native[0], native[1])
	}
}

// A heartbeat of the lease here is overdue, and two natives tell the next tick: both of their
// leases end when that does. Which of them stands in does not hang on who told first.
func TestTwoEqualLeasesStandInAlikeInEitherOrder(t *testing.T) {
	s := prooftest.NewSigner(t)
	id := peerIDs(4)
	var native [2]ports.PeerID
	for i := range 2 {
		tabled(t, settings{self: id[0], proofs: proof.NewVerifier()}, func(t *testing.T, a *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
			w := s.Says(t, time.Now(), 2, addr)
			time.Sleep(100 * time.Millisecond)
			if _, err := a.Register(t.Context(), s.PeerID, w.Registration(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(prooftest.Interval + 500*time.Millisecond)
			e := w.Entry(1)
			for _, by := range [][]ports.PeerID{{id[1], id[2]}, {id[2], id[1]}}[i] {
				of := e
				of.Native, of.Proof = by, &ports.Proof{Record: e.Proof.Record, Tick: e.Proof.Tick}
				a.TakeChanges(by, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: of, Remaining: 66 * time.Second}}})
			}
			time.Sleep(4 * time.Second)
			l, _ := a.Get(s.PeerID)
			if native[i] = l.Native; native[i] == id[0] {
				t.Fatal("nothing stands in")
			}
		})
	}
	if native[0] != native[1] {
		t.Errorf("shown by way of %s, or of %s", native[0], native[1])
	}
}

// A sweep comes at the instant at which a heartbeat is overdue, and another native has told a longer
// lease of the same address. Watchers are told that it stands in, as it is listed from then on.
func TestWatchersAreToldOfAStandInFromTheInstantThatAHeartbeatIsOverdue(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		id := peerIDs(4)
		got := watches(t, n, ports.WatchRequest{Renewed: true})
		time.Sleep(10 * time.Second) // at a sweep
		registers(t, n, id[3], addr)
		time.Sleep(20*time.Second + 300*time.Millisecond)
		n.TakeChanges(id[1], saysLease(id[1], id[3], addr, 0))
		time.Sleep(42 * time.Second)
		synctest.Wait()
		l, ok := n.Get(id[3])
		last := (*got)[len(*got)-1]
		if !ok || l.Native != last.Native || l.State != last.State {
			t.Errorf("%s of %s is listed, and the last that a watcher was told is %s by %s, %s", l.State, l.Native, last.Kind, last.Native, last.State)
		}
	})
}

// A native stops while it looks somebody up. That says nothing of whom it looked for: a finder takes a
// not-found of a whole native for the last word, and asks no other.
func TestAStopIsNoNotFound(t *testing.T) {
	id := peerIDs(4)
	store := &stubStore{get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
		<-ctx.Done()
		return ports.Entry{}, ports.ErrNotFound // as ports.Store has it
	}}
	porttest.FakeTime(t, func(t *testing.T) {
		n, _ := made(t, settings{self: id[0], store: store}, &porttest.Recorder{})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		time.AfterFunc(time.Second, stop)
		_, err := n.LookUp(t.Context(), id[1], id[2])
		if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
			t.Errorf("told %v, want busy", err)
		}
		<-done
	})
}
