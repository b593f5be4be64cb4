package domain

import (
	"bytes"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// Many changes are prepared some at a time, and come out in their order, each with its own fault.
func TestManyChangesArePreparedInTheirOrder(t *testing.T) {
	r, _ := bareRegistry(t, "me", func(rules *Rules, _ *Settings) { rules.Proofs = proof.NewVerifier() })
	signers := prooftest.NewSigners(t, preparedAtOnce+50)
	for _, n := range []int{0, 1, preparedAtOnce, preparedAtOnce + 1, len(signers)} {
		var changes []ports.Change
		for i, s := range signers[:n] {
			e := s.Says(t, time.Now(), 1, "/ip4/192.0.2.1/tcp/4001").Entry(0)
			e.Native = "n1"
			if i%100 == 99 || i == preparedAtOnce {
				e.Proof.Record = bytes.Clone(e.Proof.Record)
				e.Proof.Record[len(e.Proof.Record)-1] ^= 1
			}
			changes = append(changes, ports.Change{Kind: ports.ChangeSnapshot, Number: uint32(i + 1), Listed: ports.Listed{Entry: e, Remaining: prooftest.TTL}})
		}
		next := 0
		for i, c := range r.prepareAll("n1", changes) {
			if i != next || c.Number != changes[i].Number {
				t.Fatalf("of %d changes the %d-th has place %d and number %d", n, next, i, c.Number)
			}
			if bad := i%100 == 99 || i == preparedAtOnce; (c.err != nil) != bad || (c.Proof.Claim == nil) != bad {
				t.Errorf("of %d changes that at %d has the claim %v: %v", n, i, c.Proof.Claim, c.err)
			}
			next++
		}
		if next != n {
			t.Errorf("%d of %d changes came", next, n)
		}
		for range r.prepareAll("n1", changes) { // its goroutine ends with this loop
			break
		}
	}
}
