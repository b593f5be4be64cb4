package domain_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// identity is a node with a key.
type identity struct {
	id     ports.PeerID
	signer *proof.Signer
	chain  []ports.Link
	record []byte
	claim  ports.Claim
}

func newIdentity(t testing.TB) *identity {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := proof.NewSigner(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return &identity{id: ports.PeerID(id.String()), signer: signer}
}

// issue makes a record of now, for a heartbeat a minute.
func (x *identity) issue(t testing.TB, addrs ...string) {
	t.Helper()
	seq, err := x.signer.Seq(time.Now().UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	x.claim = ports.Claim{PeerID: x.id, Addrs: addrs, Seq: seq, Start: 1, TTL: domain.DefaultTTLPolicy().TTL}
	if len(addrs) > 0 {
		x.chain = x.signer.Chain(60)
		x.claim.Interval, x.claim.Anchor = time.Minute, x.chain[0]
	}
	if x.record, err = x.signer.Sign(x.claim); err != nil {
		t.Fatal(err)
	}
}

// heartbeat is the registration at a step, with the record or without.
func (x *identity) heartbeat(step uint32, record bool) ports.Registration {
	p := &ports.Proof{Tick: ports.Tick{Seq: x.claim.Seq, Step: step, Link: x.chain[step]}}
	if record {
		p.Record = x.record
	}
	return ports.Registration{PeerID: x.id, Addr: x.claim.Addrs[0], Proof: p}
}

// signing is a network whose natives check what indexers sign, and believe of plain indexers
// what believing says.
func signing(t *testing.T, believing domain.Plain, f func(t *testing.T, w *world)) {
	bubble(t, func(t *testing.T, w *world) {
		w.rules.Clock = domain.NewClock(nil)
		w.rules.Proofs = proof.NewVerifier()
		w.rules.Plain = func() domain.Plain { return believing }
		w.space = memory.NewSpace(w.rules.Acceptable)
		f(t, w)
	})
}

// keyed is a native with a key of its own.
func (w *world) keyed() *native { return w.native(newIdentity(w.t).id, nil) }

func (n *native) answer(t *testing.T, r ports.Registration) ports.Lease {
	t.Helper()
	lease, err := n.Register(t.Context(), r.PeerID, r)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func TestWhatIsBelievedOfWhoDoesNotSign(t *testing.T) {
	for _, c := range []struct {
		plain domain.Plain
		is    bool // believed, here and of others
	}{
		{domain.PlainAccept, true},
		{domain.PlainRefuse, false},
	} {
		t.Run(string(c.plain), func(t *testing.T) {
			signing(t, c.plain, func(t *testing.T, w *world) {
				a, b := w.keyed(), w.keyed()
				defer a.stop()
				defer b.stop()
				plain, put, signs := newIdentity(t), newIdentity(t), newIdentity(t)
				_, err := a.Register(t.Context(), plain.id, ports.Registration{PeerID: plain.id, Addr: addr})
				if taken := err == nil; taken != c.is || a.lists(plain.id) != c.is {
					t.Errorf("a plain registration: %v", err)
				}
				signs.issue(t, addr)
				a.answer(t, signs.heartbeat(0, true))
				if _, err := w.space.Join().Put(t.Context(), ports.Entry{PeerID: put.id, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}); err != nil {
					t.Fatal(err)
				}
				b.Hear(ports.Announcement{PeerID: put.id, From: "somebody"})
				time.Sleep(time.Second)
				synctest.Wait()
				if b.lists(plain.id) != c.is || b.lists(put.id) != c.is || !b.lists(signs.id) {
					t.Errorf("another native lists plain: %t, bare: %t, signed: %t", b.lists(plain.id), b.lists(put.id), b.lists(signs.id))
				}
				if e, err := w.space.Join().Local(plain.id, ports.Version{}); c.is && (err != nil || e.Version().Signed()) {
					t.Errorf("the store has a plain one as %+v, %v", e.Version(), err)
				}
			})
		})
	}
}

// TestWhatIsBelievedNoMoreIsGoneAtOnce has a native refuse plain indexers, and accept them again.
func TestWhatIsBelievedNoMoreIsGoneAtOnce(t *testing.T) {
	believing := domain.PlainAccept
	signing(t, domain.PlainAccept, func(t *testing.T, w *world) {
		other := w.keyed()
		w.rules.Plain = func() domain.Plain { return believing }
		n := w.keyed()
		defer other.stop()
		defer n.stop()
		own, heard, bare, signs := newIdentity(t), newIdentity(t), newIdentity(t), newIdentity(t)
		n.register(t, own.id, addr)
		other.register(t, heard.id, addr)
		signs.issue(t, addr)
		other.answer(t, signs.heartbeat(0, true))
		if _, err := w.space.Join().Put(t.Context(), ports.Entry{PeerID: bare.id, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*identity{heard, bare, signs} {
			n.Hear(ports.Announcement{PeerID: x.id, From: "somebody"})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		all := []*identity{own, heard, bare, signs}
		for _, step := range []struct {
			plain  domain.Plain
			remain []*identity
		}{
			{domain.PlainAccept, all},
			{domain.PlainRefuse, []*identity{signs}},
			{domain.PlainAccept, []*identity{signs}}, // what is gone has to be heard of again
		} {
			believing = step.plain
			n.Revise()
			for i, x := range all {
				if want := slices.Contains(step.remain, x); n.lists(x.id) != want {
					t.Errorf("%s: of %d it lists number %d: %t, want %t", step.plain, len(all), i, !want, want)
				}
			}
		}
		if got := untrusted(n, ports.UntrustedEntry); got != len(all)-1 {
			t.Errorf("%d entries were told to count no more, want %d", got, len(all)-1)
		}
	})
}

func TestATickWithoutItsRecordGrantsNothing(t *testing.T) {
	signing(t, domain.PlainAccept, func(t *testing.T, w *world) {
		a := w.keyed()
		defer a.stop()
		x := newIdentity(t)
		x.issue(t, addr)
		if lease := a.answer(t, x.heartbeat(0, false)); !lease.NeedRecord || lease.TTL != 0 || a.lists(x.id) {
			t.Errorf("got %+v", lease)
		}
		if lease := a.answer(t, x.heartbeat(0, true)); lease.NeedRecord || lease.TTL == 0 || lease.Seq != x.claim.Seq || !a.lists(x.id) {
			t.Errorf("with the record: %+v", lease)
		}
		time.Sleep(time.Minute)
		if lease := a.answer(t, x.heartbeat(1, false)); lease.NeedRecord || lease.TTL == 0 {
			t.Errorf("with a tick: %+v", lease)
		}
		forged := x.heartbeat(2, false)
		forged.Proof.Tick.Link[0]++
		var refusal *ports.Refusal
		if _, err := a.Register(t.Context(), x.id, forged); !errors.As(err, &refusal) || refusal.Code != ports.CodeProofInvalid {
			t.Errorf("a link that was made up: %v", err)
		}
	})
}

// One that signs lives on where it is heard, whatever its clock and the native's say.
func TestALeaseOfOnesOwnNeedsNoClock(t *testing.T) {
	for _, off := range []time.Duration{-2 * time.Hour, 2 * time.Hour} {
		signing(t, domain.PlainRefuse, func(t *testing.T, w *world) {
			w.rules.Clock = domain.NewClock(func() time.Time { return time.Now().Add(off) })
			a := w.keyed()
			defer a.stop()
			x := newIdentity(t)
			x.issue(t, addr)
			lease := a.answer(t, x.heartbeat(0, true))
			if !lease.NeedRecord || lease.TTL == 0 || !a.lists(x.id) || time.Until(lease.Now).Round(time.Second) != off {
				t.Errorf("%v ahead it answers %+v, want a lease, its clock and to be sent another record", off, lease)
			}
		})
	}
}

// TestWhoFollowsIsToldTheRecordOfWhatWasHeardFirst has an indexer register with a native that
// has heard of it from another.
func TestWhoFollowsIsToldTheRecordOfWhatWasHeardFirst(t *testing.T) {
	meshed(t, func(t *testing.T, m *mesh) {
		m.rules.Proofs = proof.NewVerifier()
		all := m.natives(2, member{})
		defer m.stop(all...)
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
		x := newIdentity(t)
		x.issue(t, addr)
		for _, n := range all {
			n.answer(t, x.heartbeat(0, true))
			time.Sleep(10 * time.Second)
		}
		cancel()
		watching.Wait()
		if !all[1].lists(x.id) || len(told) != 1 || told[0].PeerID != x.id || told[0].Proof == nil || told[0].Proof.Record == nil {
			t.Errorf("it is told %+v, want one change with the record", told)
		}
	})
}

func TestWhoLeftAndIsBackIsFoundInTheStore(t *testing.T) {
	signing(t, domain.PlainAccept, func(t *testing.T, w *world) {
		a := w.keyed()
		w.topic = memory.NewTopic() // no gossip between them
		b := w.keyed()
		defer a.stop()
		defer b.stop()
		x := newIdentity(t)
		x.issue(t, addr)
		a.answer(t, x.heartbeat(0, true))
		x.issue(t)
		if err := a.Leave(t.Context(), x.id, x.record); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		x.issue(t, addr)
		b.answer(t, x.heartbeat(0, true))
		time.Sleep(10 * time.Second)
		if _, err := a.LookUp(context.Background(), "asker", x.id); err != nil {
			t.Errorf("it has been back for 10 s and stands in the store: %v", err)
		}
	})
}

func TestASecondLeaveCounts(t *testing.T) {
	for _, signs := range []bool{true, false} {
		t.Run(fmt.Sprint("signs ", signs), func(t *testing.T) {
			signing(t, domain.PlainAccept, func(t *testing.T, w *world) {
				a := w.keyed()
				w.topic = memory.NewTopic() // a hears nothing of b
				b := w.keyed()
				defer a.stop()
				defer b.stop()
				x := newIdentity(t)
				leave := func(n *native) {
					t.Helper()
					var record []byte
					if signs {
						x.issue(t)
						record = x.record
					}
					if err := n.Leave(t.Context(), x.id, record); err != nil {
						t.Fatal(err)
					}
				}
				register := func(n *native) {
					if signs {
						x.issue(t, addr)
						n.answer(t, x.heartbeat(0, true))
					} else {
						n.register(t, x.id, addr)
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
				a.Hear(ports.Announcement{PeerID: x.id, From: "somebody"})
				time.Sleep(time.Second)
				if a.lists(x.id) {
					t.Errorf("signs %t: a lists who told it that it left, after it was granted a lease elsewhere", signs)
				}
				if e, err := w.space.Join().Local(x.id, ports.Version{}); err != nil || !e.Leave {
					t.Errorf("signs %t: the store has %+v, %v, want the leave", signs, e, err)
				}
			})
		})
	}
}
