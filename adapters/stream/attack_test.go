package stream_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// attacked is a native that receives lies.
type attacked struct {
	registry *domain.Registry
	recorder *porttest.Recorder
}

func newAttacked(t *testing.T) *attacked {
	t.Helper()
	n := &attacked{recorder: &porttest.Recorder{}}
	rules := domain.Rules{
		Self: "native", Policy: domain.DefaultTTLPolicy(), Proofs: proof.NewVerifier(),
		CheckAddr: func(ports.PeerID, string) error { return nil },
	}
	var err error
	n.registry, err = domain.NewRegistry(rules, domain.Settings{}, memory.NewStore(rules.Acceptable), memory.NewTopic().Join("native"), n.recorder)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// stands fails the test unless the native lists v by its last tick.
func (n *attacked) stands(t *testing.T, v *prooftest.Victim) {
	t.Helper()
	if got, ok := n.registry.Get(v.PeerID); !ok || got.Addr != v.Now.Claim.Addrs[0] || got.Proof == nil || got.Proof.Tick.Step != v.Step || got.Proof.Claim.Seq != v.Now.Claim.Seq {
		t.Fatalf("it is listed %v as %+v, want it at step %d", ok, got, v.Step)
	}
}

// The connection proves the sender of a registration. So a replay or an unsigned registration
// uses another's name, and a rollback is another process with the same key: no proof is at
// fault.
func refusedAs(lie prooftest.Lie) (prooftest.Lie, ports.Code) {
	switch lie.Class {
	case prooftest.Replayed, prooftest.WrongRank:
		return lie, ports.CodePeerMismatch
	case prooftest.RolledBack:
		return lie, ports.CodeSuperseded
	}
	return lie, ports.CodeProofInvalid
}

// maxStep leaves room for lies about the steps after it.
const maxStep = prooftest.Steps - 25

// registrar registers an indexer with a native.
type registrar func(t *testing.T, as *prooftest.Signer, r ports.Registration) error

// attack sends that many lies of each class, and honest registrations between them. The native grants
// all honest registrations.
func attack(t *testing.T, n *attacked, victims, liars []*prooftest.Signer, times int, register registrar) {
	t.Helper()
	honest := 0
	tally := prooftest.NewTally()
	codes := map[ports.Code]int{}
	grant := func(v *prooftest.Victim, w prooftest.Word, step uint32) {
		t.Helper()
		if err := register(t, v.Signer, w.Registration(step)); err != nil {
			t.Fatalf("an honest registration: %v", err)
		}
		honest++
	}
	var all []*prooftest.Victim
	for _, s := range victims {
		v := prooftest.NewVictim(t, s, time.Now().Add(-maxStep*prooftest.Interval)) // every step is due
		all = append(all, v)
		grant(v, v.Before, 0)
		grant(v, v.Now, 0)
	}
	for _, class := range prooftest.Classes() {
		for lies := 0; lies < times; lies += len(all) {
			n.recorder.Take()
			for _, v := range all {
				v.Step = min(v.Step+1, maxStep)
				grant(v, v.Now, v.Step)
			}
			for i, v := range all {
				liar := liars[(lies+i)%len(liars)]
				lie, want := refusedAs(v.Lie(t, class, lies+i, liar))
				as := v.Signer
				if want == ports.CodePeerMismatch {
					as = liar
				}
				if want == ports.CodeProofInvalid {
					tally.Lied(lie)
				} else {
					tally.Lies[class]++
				}
				err := register(t, as, ports.Registration{PeerID: v.PeerID, Addr: lie.Entry.Addr, Proof: lie.Entry.Proof})
				refusal, ok := errors.AsType[*ports.Refusal](err)
				if want == ports.CodeProofInvalid && ok && refusal.Code == ports.CodeAddrInvalid {
					want = ports.CodeAddrInvalid // the flipped bit is in an address
				}
				if !ok || refusal.Code != want {
					t.Fatalf("%s: %v, want a refusal with code %s", class, err, want)
				}
				codes[want]++
				n.stands(t, v)
			}
			tally.Told(n.recorder.Take())
			tally.Check(t)
		}
	}
	t.Logf("%d honest registrations granted beside; lies refused: %v; with %v; proofs refused for %v", honest, tally.Lies, codes, tally.Refused)
	tally.Enough(t, prooftest.Classes(), times)
}

func TestAttackNoLieIsBelievedOfWhoRegisters(t *testing.T) {
	t.Run("as frames", func(t *testing.T) {
		n := newAttacked(t)
		attack(t, n, prooftest.NewSigners(t, 20), prooftest.NewSigners(t, 50), prooftest.Attacks(), func(t *testing.T, as *prooftest.Signer, r ports.Registration) error {
			frame, err := wire.EncodeRegistration(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := wire.DecodeRegistration(bytes.TrimSuffix(frame, []byte("\n")), as.PeerID)
			if err != nil {
				t.Fatal(err)
			}
			_, err = n.registry.Register(t.Context(), as.PeerID, got)
			return err
		})
	})
	t.Run("over streams", func(t *testing.T) {
		n := newAttacked(t)
		h := hosttest.New(t)
		serve(t, newTransport(t, h), n.registry)
		natives := map[ports.PeerID]ports.Native{}
		join := func(count int) (signers []*prooftest.Signer) {
			for range count {
				own := hosttest.New(t)
				natives[idOf(own)] = remote(t, newTransport(t, own), h)
				signers = append(signers, prooftest.SignerOf(t, own.Peerstore().PrivKey(own.ID())))
			}
			return signers
		}
		attack(t, n, join(5), join(5), prooftest.Attacks()/50, func(t *testing.T, as *prooftest.Signer, r ports.Registration) error {
			ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
			defer cancel()
			_, err := natives[as.PeerID].Register(ctx, as.PeerID, r)
			return err
		})
	})
}
