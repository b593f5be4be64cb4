package proof_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// proofsOf returns the proofs of n indexers at a step.
func proofsOf(t *testing.T, n int, step uint32) (proofs []*ports.Proof) {
	t.Helper()
	for _, s := range prooftest.NewSigners(t, n) {
		proofs = append(proofs, s.Says(t, issued, 1, "/ip4/192.0.2.1/tcp/4001").Proof(step))
	}
	return proofs
}

func anyClaim(*ports.Claim) error { return nil }

// Whatever is checked at once comes out as it does one by one, in any number.
func TestManyProofsAreCheckedAsEachAlone(t *testing.T) {
	liar := prooftest.NewSigner(t)
	victim := prooftest.NewVictim(t, prooftest.NewSigner(t), issued)
	victim.Step = 2
	for _, n := range []int{0, 1, 7, 8, 9, 255, 256, 257, 600} {
		proofs := proofsOf(t, n, 3)
		places := []int{}
		for i, class := range prooftest.Classes() {
			if at := i * 53; class != prooftest.WrongRank && at < n { // which has no proof
				proofs[at] = victim.Lie(t, class, i, liar).Entry.Proof
				places = append(places, at)
			}
		}
		v := proof.NewVerifier()
		errs := v.VerifyAll(proofs, anyClaim)
		for i, p := range proofs {
			claim, err := proof.NewVerifier().Verify(p.Record, p.Tick)
			if got, want := faultOf(t, errs[i]), faultOf(t, err); got != want {
				t.Errorf("%d of %d: %v, alone %v", i, n, errs[i], err)
			}
			if (p.Claim == nil) != (claim == nil) || claim != nil && p.Claim.PeerID != claim.PeerID {
				t.Errorf("%d of %d: claims %+v, alone %+v", i, n, p.Claim, claim)
			}
		}
		if c := v.Counts(); n >= 9 && c.Batched < uint64(n-len(places)) {
			t.Errorf("%d at once: %+v", n, c)
		}
	}
}

// A liar puts one bad signature into each batch.
func TestABadSignatureAmongManyIsFound(t *testing.T) {
	proofs := proofsOf(t, 64, 1)
	v := proof.NewVerifier()
	for at := 0; at < len(proofs); at += 9 {
		was := proofs[at].Record
		proofs[at].Record = bytes.Clone(was)
		proofs[at].Record[len(was)-40] ^= 1
		before := v.Counts()
		for i, err := range proof.NewVerifier().VerifyAll(proofs, anyClaim) {
			if want := map[bool]ports.Fault{true: ports.FaultSignature}[i == at]; faultOf(t, err) != want {
				t.Errorf("with a bad signature at %d, that at %d is %v", at, i, err)
			}
		}
		for i, err := range v.VerifyAll(proofs, anyClaim) {
			if (err != nil) != (i == at) {
				t.Errorf("the second time, with a bad signature at %d, that at %d is %v", at, i, err)
			}
		}
		if c := v.Counts(); c.Bad != before.Bad+1 || c.Batched+c.Single > before.Batched+before.Single+64 {
			t.Errorf("counted are %+v, before %+v", c, before)
		}
		proofs[at].Record = was
	}
	if c := v.Counts(); c.Batched+c.Single >= 64+64+8 { // the sound ones are remembered
		t.Errorf("signatures were checked twice: %+v", c)
	}
}

// A claim that the caller refuses costs no signature.
func TestARefusedClaimIsNotChecked(t *testing.T) {
	proofs := proofsOf(t, 20, 1)
	third, err := proof.NewVerifier().Read(proofs[3].Record)
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	v := proof.NewVerifier()
	errs := v.VerifyAll(proofs, func(c *ports.Claim) error {
		if c.PeerID == third.PeerID {
			return refused
		}
		return nil
	})
	for i, err := range errs {
		if i == 3 && err != refused || i != 3 && err != nil {
			t.Errorf("proof %d: %v", i, err)
		}
	}
	if c := v.Counts(); c != (proof.Counts{Batched: 19}) {
		t.Errorf("counted are %+v, want 19 in a batch", c)
	}
}
