package domain

// News that comes late, out of order or in between, and lies.

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// The leave comes while the registration's signature is checked.
func TestARegistrationThatIsUnderWayDoesNotUndoALeave(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		v := &interruptedVerifier{Verifier: proof.NewVerifier()}
		r, _ := bareRegistry(t, "n1", func(c *Rules, _ *Settings) { c.Proofs = v })
		says := key.Says(t, time.Now(), 1, "a")
		leave := key.Leaves(t, time.Now().Add(time.Millisecond), 1)
		v.meanwhile = func() {
			if err := r.Leave(t.Context(), key.PeerID, leave); err != nil {
				t.Error(err)
			}
		}
		lease, err := r.Register(t.Context(), key.PeerID, says.Registration(0))
		if _, ok := r.Get(key.PeerID); ok {
			t.Errorf("it has left, which was signed later than what it is listed for (%+v, %v)", lease, err)
		}
	})
}

// The indexers leave, or register anew, while the signatures of many are checked that a native tells.
func TestAChangeThatIsUnderWayUndoesNothingNewer(t *testing.T) {
	keys := prooftest.NewSigners(t, 20)
	for _, registers := range []bool{false, true} {
		porttest.FakeTime(t, func(t *testing.T) {
			v := &interruptedVerifier{Verifier: proof.NewVerifier()}
			r, _ := bareRegistry(t, "n1", func(c *Rules, _ *Settings) { c.Proofs = v })
			var changes []ports.Change
			for _, key := range keys {
				e := key.Says(t, time.Now(), 1, "a").Entry(0)
				e.Native = "n2"
				changes = append(changes, ports.Change{Kind: ports.ChangeSnapshot, Listed: ports.Listed{Entry: e, Remaining: prooftest.TTL}})
			}
			v.meanwhile = func() {
				for _, key := range keys {
					var err error
					if at := time.Now().Add(time.Millisecond); registers {
						_, err = r.Register(t.Context(), key.PeerID, key.Says(t, at, 2, "b").Registration(0))
					} else {
						err = r.Leave(t.Context(), key.PeerID, key.Leaves(t, at, 1))
					}
					if err != nil {
						t.Error(err)
					}
				}
			}
			r.takeChanges("n2", changes)
			for _, key := range keys {
				if l, ok := r.Get(key.PeerID); ok != registers || registers && l.Addr != "b" {
					t.Errorf("with registrations %t it is listed %t, at %s", registers, ok, l.Addr)
				}
			}
		})
	}
}

// The registration of a newer process comes meanwhile.
func TestARegistrationThatIsUnderWayDoesNotUndoANewerOne(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		v := &interruptedVerifier{Verifier: proof.NewVerifier()}
		r, _ := bareRegistry(t, "n1", func(c *Rules, _ *Settings) { c.Proofs = v })
		older := key.Says(t, time.Now(), 1, "a")
		newer := key.Says(t, time.Now().Add(time.Millisecond), 2, "b")
		v.meanwhile = func() {
			if _, err := r.Register(t.Context(), key.PeerID, newer.Registration(0)); err != nil {
				t.Error(err)
			}
		}
		_, err := r.Register(t.Context(), key.PeerID, older.Registration(0))
		if l, _ := r.Get(key.PeerID); l.Addr != "b" || err == nil {
			t.Errorf("listed at %s, and the older process is told %v", l.Addr, err)
		}
	})
}

// An indexer is late by 4 s, in a table that it fills with seven others.
func TestWhoIsRememberedInAFullTableIsLetInAgain(t *testing.T) {
	keys := prooftest.NewSigners(t, 8)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "n1", func(_ *Rules, s *Settings) { s.Bounds.Entries = 8 })
		x := keys[0].Says(t, time.Now(), 1, "a")
		register := func(reg ports.Registration) error {
			_, err := r.Register(t.Context(), reg.PeerID, reg)
			return err
		}
		plain := func(i int) ports.Registration {
			id := ports.PeerID(fmt.Sprint("p", i))
			return ports.Registration{PeerID: id, Addr: "a"}
		}
		if err := register(x.Registration(0)); err != nil {
			t.Fatal(err)
		}
		for at := range 70 { // x stops for a little longer than its lease
			if at%30 == 0 {
				for i := range 7 {
					if err := register(plain(i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(time.Second)
			r.sweep()
		}
		if err := register(x.Registration(1)); err != nil {
			t.Errorf("%d of 8 are held, %d listed, and x, who is one of the 8, is told %v", r.table.len(), r.table.listed.Load(), err)
		}
		if _, ok := r.Get(keys[0].PeerID); !ok || r.table.len() > 8 {
			t.Errorf("listed %v, %d records", ok, r.table.len())
		}
	})
}

// An indexer is told by a native that late, in a full table.
func TestWhoIsRememberedInAFullTableIsToldAgain(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Bounds.Entries = 4 })
		x := key.Says(t, time.Now(), 1, "a")
		tell := func(step uint32) {
			e := x.Entry(step)
			e.Native = "n1"
			r.takeChanges("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 66 * time.Second}}})
		}
		tell(0)
		for at := range 70 {
			if at%30 == 0 {
				for i := range 3 {
					id := ports.PeerID(fmt.Sprint("p", i))
					if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "a"}); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(time.Second)
			r.sweep()
		}
		tell(1)
		if _, ok := r.Get(key.PeerID); !ok {
			t.Errorf("%d records of 4, one of them its own, and it is not listed", r.table.len())
		}
	})
}

// An indexer leaves again and again.
func TestLeavesDoNotFillTheWheel(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		for i := range 500 {
			time.Sleep(10 * time.Millisecond)
			if err := r.Leave(t.Context(), key.PeerID, key.Leaves(t, time.Now().Add(time.Duration(i)*time.Millisecond), 1)); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for _, items := range r.table.shard(key.PeerID).wheel.slots {
			n += len(items)
		}
		if n > 5 {
			t.Errorf("one record is %d times in the wheel, for an hour", n)
		}
		for range 2 * 3600 {
			time.Sleep(time.Second)
			r.sweep()
		}
		if r.table.len() != 0 {
			t.Errorf("%d records after all has ended", r.table.len())
		}
	})
}

// Another native renews with the record before, as it has not heard of the new one.
func TestATickOfTheRecordBeforeIsOlder(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, rec := bareRegistry(t, "me", nil)
		before := key.Says(t, time.Now(), 1, "a")
		time.Sleep(time.Minute)
		after := key.Says(t, time.Now(), 1, "b")
		tell := func(from ports.PeerID, w prooftest.Word, step uint32, whole bool) {
			e := w.Entry(step)
			e.Native = from
			if !whole {
				e.Proof = &ports.Proof{Tick: e.Proof.Tick}
			}
			r.takeChanges(from, []ports.Change{{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 60 * time.Second}}})
		}
		tell("n1", before, 0, true)
		tell("n2", before, 0, true)
		tell("n1", after, 0, true)
		tell("n2", before, 1, false) // it has not heard of the new one yet
		for _, e := range rec.Of(ports.EventTold) {
			if e.Refused != 0 {
				t.Errorf("refused: %v", e.Err)
			}
		}
		if n := r.lookups.Len(); n != 0 {
			t.Errorf("%d looked up", n)
		}
	})
}

// The caller that asked first is gone before the answer.
func TestWhoGoesAwayDoesNotAnswerForTheNatives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		f := NewFollower(r.rules, connectedTransport{neighbours: []ports.Neighbour{{PeerID: "n1", Watchable: true}}}, FollowerSettings{})
		r.follower = f
		f.followed["n1"] = &followed{id: "n1", native: connectedNative{porttest.Native{OnList: func(ctx context.Context, _ ports.PeerID, _ ports.Query) (ports.Page, error) {
			select {
			case <-ctx.Done():
				return ports.Page{}, ctx.Err()
			case <-time.After(10 * time.Millisecond):
				return ports.Page{}, nil
			}
		}}}}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = r.Natives(gone, "")
		got, _ := r.Natives(t.Context(), "")
		if len(got) != 1 || got[0].RoundTrip == 0 {
			t.Errorf("got %+v", got)
		}
	})
}

// A native says, without proof, that an indexer which signs has left.
func TestABareLeaveThatIsToldHidesNobodyWhoSigns(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		e := key.Says(t, time.Now(), 1, "a").Entry(0)
		e.Native = "n9" // which this one does not follow
		rules := Rules{Self: "me", Policy: DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil }}
		if err := rules.ReadProof(&e); err != nil { // as stores do
			t.Fatal(err)
		}
		r, err := NewRegistry(rules, Settings{}, oneEntryStore{e: e}, silentAnnouncer{}, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		synctest.Wait()
		r.takeChanges("rogue", []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{
			Entry: Entry{PeerID: key.PeerID, Native: "rogue", ExpiresAt: time.Now().Add(66 * time.Second), Leave: true}, Remaining: 66 * time.Second}}})
		if _, err := r.LookUp(t.Context(), "somebody", key.PeerID); err != nil {
			t.Errorf("look-up: %v", err)
		}
		cancel()
		<-done
	})
}

// A lease, and the lease that follows it and was signed later, end between two sweeps.
func TestTheNewestRecordIsRememberedAlsoOfTheNextLease(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		before := key.Says(t, time.Now(), 1, "a")
		if _, err := r.Register(t.Context(), key.PeerID, before.Registration(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		after := key.Says(t, time.Now(), 1, "a") // the next record, which this native was not reached with
		e := after.Entry(0)
		e.Native = "n1"
		r.takeChanges("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 66 * time.Second}}})
		time.Sleep(67 * time.Second)
		r.sweep()
		if got := r.seq(key.PeerID); got != after.Claim.Seq {
			t.Errorf("remembers %d, want %d (older %d)", got, after.Claim.Seq, before.Claim.Seq)
		}
	})
}

// A bare lease that is told outlasts both the lease and what its indexer signed elsewhere.
func TestABareNextLeaseDoesNotKeepOutASignedOne(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		x := key.PeerID
		if _, err := r.Register(t.Context(), x, ports.Registration{PeerID: x, Addr: "a"}); err != nil { // a program of before
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		// It is started anew as one that signs, and elsewhere.
		e := key.Says(t, time.Now(), 1, "b").Entry(0)
		e.Native = "n1"
		time.Sleep(time.Second)
		r.takeChanges("rogue", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{
			Entry: Entry{PeerID: x, Addr: "evil", Native: "rogue", ExpiresAt: time.Now().Add(66 * time.Second)}, State: ports.StateLive, Remaining: 66 * time.Second}}})
		r.takeChanges("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 65 * time.Second}}})
		time.Sleep(57 * time.Second)
		if l, ok := r.Get(x); !ok || l.Addr != "b" {
			t.Errorf("listed %v at %q", ok, l.Addr)
		}
	})
}
