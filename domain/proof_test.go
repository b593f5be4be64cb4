package domain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

func TestWhatIsBelievedOfWhoDoesNotSign(t *testing.T) {
	for _, c := range []struct {
		plain domain.Plain
		is    bool // believed, here and of others
	}{
		{domain.PlainAccept, true},
		{domain.PlainRefuse, false},
	} {
		t.Run(string(c.plain), func(t *testing.T) {
			withSigningNetwork(t, c.plain, func(t *testing.T, net *network) {
				a, b := net.nativeWithKey(), net.nativeWithKey()
				defer a.stop()
				defer b.stop()
				plain, put, signs := newSignedIndexer(t), newSignedIndexer(t), newSignedIndexer(t)
				_, err := a.Register(t.Context(), plain.PeerID, ports.Registration{PeerID: plain.PeerID, Addr: addr})
				if taken := err == nil; taken != c.is || a.lists(plain.PeerID) != c.is {
					t.Errorf("a plain registration: %v", err)
				}
				signs.issue(t, addr)
				a.answer(t, signs.heartbeat(0, true))
				if _, err := net.space.Join().Put(t.Context(), ports.Entry{PeerID: put.PeerID, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}); err != nil {
					t.Fatal(err)
				}
				b.Hear(ports.Announcement{PeerID: put.PeerID, From: "somebody"})
				time.Sleep(time.Second)
				synctest.Wait()
				if b.lists(plain.PeerID) != c.is || b.lists(put.PeerID) != c.is || !b.lists(signs.PeerID) {
					t.Errorf("another native lists plain: %t, bare: %t, signed: %t", b.lists(plain.PeerID), b.lists(put.PeerID), b.lists(signs.PeerID))
				}
				if e, err := net.space.Join().Local(plain.PeerID, ports.Version{}); c.is && (err != nil || e.Version().Signed()) {
					t.Errorf("the store has a plain one as %+v, %v", e.Version(), err)
				}
			})
		})
	}
}

// TestWhatIsBelievedNoMoreIsGoneAtOnce has a native refuse plain indexers, and accept them again.
func TestWhatIsBelievedNoMoreIsGoneAtOnce(t *testing.T) {
	believing := domain.PlainAccept
	withSigningNetwork(t, domain.PlainAccept, func(t *testing.T, net *network) {
		other := net.nativeWithKey()
		net.rules.Plain = func() domain.Plain { return believing }
		n := net.nativeWithKey()
		defer other.stop()
		defer n.stop()
		own, heard, bare, signs := newSignedIndexer(t), newSignedIndexer(t), newSignedIndexer(t), newSignedIndexer(t)
		n.register(t, own.PeerID, addr)
		other.register(t, heard.PeerID, addr)
		signs.issue(t, addr)
		other.answer(t, signs.heartbeat(0, true))
		if _, err := net.space.Join().Put(t.Context(), ports.Entry{PeerID: bare.PeerID, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*signedIndexer{heard, bare, signs} {
			n.Hear(ports.Announcement{PeerID: x.PeerID, From: "somebody"})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		all := []*signedIndexer{own, heard, bare, signs}
		for _, step := range []struct {
			plain  domain.Plain
			remain []*signedIndexer
		}{
			{domain.PlainAccept, all},
			{domain.PlainRefuse, []*signedIndexer{signs}},
			{domain.PlainAccept, []*signedIndexer{signs}}, // what is gone has to be heard of again
		} {
			believing = step.plain
			n.Revise()
			for i, x := range all {
				if want := slices.Contains(step.remain, x); n.lists(x.PeerID) != want {
					t.Errorf("%s: of %d it lists number %d: %t, want %t", step.plain, len(all), i, !want, want)
				}
			}
		}
		if got := countUntrusted(n, ports.UntrustedEntry); got != len(all)-1 {
			t.Errorf("%d entries were told to count no more, want %d", got, len(all)-1)
		}
	})
}

func TestATickWithoutItsRecordGrantsNothing(t *testing.T) {
	withSigningNetwork(t, domain.PlainAccept, func(t *testing.T, net *network) {
		a := net.nativeWithKey()
		defer a.stop()
		x := newSignedIndexer(t)
		x.issue(t, addr)
		if lease := a.answer(t, x.heartbeat(0, false)); !lease.NeedRecord || lease.TTL != 0 || a.lists(x.PeerID) {
			t.Errorf("got %+v", lease)
		}
		if lease := a.answer(t, x.heartbeat(0, true)); lease.NeedRecord || lease.TTL == 0 || lease.Seq != x.word.Claim.Seq || !a.lists(x.PeerID) {
			t.Errorf("with the record: %+v", lease)
		}
		time.Sleep(time.Minute)
		if lease := a.answer(t, x.heartbeat(1, false)); lease.NeedRecord || lease.TTL == 0 {
			t.Errorf("with a tick: %+v", lease)
		}
		forged := x.heartbeat(2, false)
		forged.Proof.Tick.Link[0]++
		var refusal *ports.Refusal
		if _, err := a.Register(t.Context(), x.PeerID, forged); !errors.As(err, &refusal) || refusal.Code != ports.CodeProofInvalid {
			t.Errorf("a link that was made up: %v", err)
		}
	})
}

// An indexer that signs lives on where it is heard, by any clock of its own and of the native.
func TestALeaseOfOnesOwnNeedsNoClock(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		withSigningNetwork(t, domain.PlainRefuse, func(t *testing.T, net *network) {
			net.rules.Clock = domain.NewClock(func() time.Time { return time.Now().Add(off) }, nil)
			a := net.nativeWithKey()
			defer a.stop()
			x := newSignedIndexer(t)
			x.issue(t, addr)
			lease := a.answer(t, x.heartbeat(0, true))
			if !lease.NeedRecord || lease.TTL == 0 || !a.lists(x.PeerID) || time.Until(lease.Now).Round(time.Second) != off {
				t.Errorf("%v ahead it answers %+v, want a lease, its clock and to be sent another record", off, lease)
			}
		})
	}
}

// TestWhoFollowsIsToldTheRecordOfWhatWasHeardFirst has an indexer register with a native that
// has heard of it from another.
func TestWhoFollowsIsToldTheRecordOfWhatWasHeardFirst(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		net.rules.Proofs = proof.NewVerifier()
		all := net.natives(2, nativeOptions{})
		defer net.stop(all...)
		time.Sleep(time.Second)
		var told []ports.Change
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() {
			for batch, err := range all[1].Watch(ctx, "follower", ports.WatchRequest{Own: true}) {
				if err != nil {
					return
				}
				told = append(told, batch.Changes...)
			}
		})
		x := newSignedIndexer(t)
		x.issue(t, addr)
		for _, n := range all {
			n.answer(t, x.heartbeat(0, true))
			time.Sleep(10 * time.Second)
		}
		cancel()
		watching.Wait()
		if !all[1].lists(x.PeerID) || len(told) != 1 || told[0].PeerID != x.PeerID || told[0].Proof == nil || told[0].Proof.Record == nil {
			t.Errorf("it is told %+v, want one change with the record", told)
		}
	})
}

func TestWhoLeftAndIsBackIsFoundInTheStore(t *testing.T) {
	withSigningNetwork(t, domain.PlainAccept, func(t *testing.T, net *network) {
		a := net.nativeWithKey()
		net.topic = memory.NewTopic() // no gossip between them
		b := net.nativeWithKey()
		defer a.stop()
		defer b.stop()
		x := newSignedIndexer(t)
		x.issue(t, addr)
		a.answer(t, x.heartbeat(0, true))
		if err := a.Leave(t.Context(), x.PeerID, x.leave(t)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		x.issue(t, addr)
		b.answer(t, x.heartbeat(0, true))
		time.Sleep(10 * time.Second)
		if _, err := a.LookUp(context.Background(), "asker", x.PeerID); err != nil {
			t.Errorf("it has been back for 10 s and stands in the store: %v", err)
		}
	})
}

func TestASecondLeaveCounts(t *testing.T) {
	for _, signs := range []bool{true, false} {
		t.Run(fmt.Sprint("signs ", signs), func(t *testing.T) {
			withSigningNetwork(t, domain.PlainAccept, func(t *testing.T, net *network) {
				a := net.nativeWithKey()
				net.topic = memory.NewTopic() // a hears nothing of b
				b := net.nativeWithKey()
				defer a.stop()
				defer b.stop()
				x := newSignedIndexer(t)
				leave := func(n *native) {
					t.Helper()
					var record []byte
					if signs {
						record = x.leave(t)
					}
					if err := n.Leave(t.Context(), x.PeerID, record); err != nil {
						t.Fatal(err)
					}
				}
				register := func(n *native) {
					if signs {
						x.issue(t, addr)
						n.answer(t, x.heartbeat(0, true))
					} else {
						n.register(t, x.PeerID, addr)
					}
				}
				register(a)
				leave(a)
				time.Sleep(20 * time.Second)
				register(b)
				time.Sleep(time.Second)
				b.stop() // and it dies
				time.Sleep(time.Second)
				leave(a) // x tells a, which may hold a lease of it, that it is gone
				synctest.Wait()
				time.Sleep(2 * time.Second)
				a.Hear(ports.Announcement{PeerID: x.PeerID, From: "somebody"})
				time.Sleep(time.Second)
				if a.lists(x.PeerID) {
					t.Errorf("signs %t: a lists who told it that it left, after it was granted a lease elsewhere", signs)
				}
				if e, err := net.space.Join().Local(x.PeerID, ports.Version{}); err != nil || !e.Leave {
					t.Errorf("signs %t: the store has %+v, %v, want the leave", signs, e, err)
				}
			})
		})
	}
}
