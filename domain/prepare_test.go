package domain_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// A native that starts takes over a table. A liar has put a lie of each kind into it.
func TestManyNewRecordsAreCheckedInBatchesAndNoLieAmongThemIsBelieved(t *testing.T) {
	signers, liar := prooftest.NewSigners(t, 60), prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		verifier := proof.NewVerifier()
		net.rules.Proofs = verifier
		n := net.native(peerIDs(1)[0], nativeOptions{})
		defer n.stop()
		other := net.scriptedNative("other", nil)
		defer other.stop()
		says := func(e ports.Entry) ports.Change {
			e.Native = "other"
			return ports.Change{Kind: ports.ChangeSnapshot, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}}
		}
		var victims []*prooftest.Victim
		for _, s := range signers {
			v := prooftest.NewVictim(t, s, time.Now())
			v.Step = 1
			victims = append(victims, v)
		}
		time.Sleep(prooftest.Interval)
		// The first native that tells of an indexer tells a lie.
		tally := prooftest.NewTally()
		var changes []ports.Change
		lied, told := victims[:len(prooftest.Classes())], victims[len(prooftest.Classes()):]
		for i, class := range prooftest.Classes() {
			changes = append(changes, says(told[2*i].Now.Entry(1)), says(told[2*i+1].Now.Entry(1)))
			switch class {
			case prooftest.Replayed, prooftest.RolledBack, prooftest.WrongRank:
				continue // true, as long as nothing newer is known
			}
			lie := lied[i].Lie(t, class, i, liar)
			tally.Lied(lie)
			changes = append(changes, says(lie.Entry))
		}
		told = told[:2*len(prooftest.Classes())]
		n.Take()
		other.tell(changes...)
		synctest.Wait()
		tally.Told(n.Take())
		tally.Check(t)
		for i, v := range lied {
			if n.lists(v.PeerID) {
				t.Errorf("the lie %q is listed", prooftest.Classes()[i])
			}
		}
		for i, v := range told {
			if !n.lists(v.PeerID) {
				t.Errorf("indexer %d is not listed", i)
			}
		}
		alone, before, lies := verifier.Signatures()
		if alone != 0 || before < uint64(len(told)) || lies == 0 {
			t.Errorf("%d signatures were checked alone, %d in batches, and %d were bad; want none alone", alone, before, lies)
		}
		// The truth after the lie is listed.
		changes = nil
		for _, v := range victims {
			changes = append(changes, says(v.Now.Entry(v.Step)))
		}
		other.tell(changes...)
		synctest.Wait()
		for i, v := range victims {
			if !n.lists(v.PeerID) {
				t.Errorf("indexer %d is not listed", i)
			}
		}
		if alone, all, bad := verifier.Signatures(); alone != 0 || all >= before+uint64(len(signers)) || bad != lies {
			t.Errorf("%d signatures were checked alone, %d and %d in batches, and %d were bad; want none twice", alone, before, all-before, bad)
		}
	})
}
