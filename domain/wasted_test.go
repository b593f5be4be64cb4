package domain

import (
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// hashCounter is a Verifier that counts the steps that are hashed.
type hashCounter struct {
	ports.Verifier
	steps int
}

func (c *hashCounter) Follows(from, to ports.Link, steps uint32) bool {
	if steps <= ports.MaxSteps {
		c.steps += int(steps)
	}
	return c.Verifier.Follows(from, to, steps)
}

// toldBriefly is a registry that a native has told the leases of indexers with a heartbeat a second.
type toldBriefly struct {
	*Registry
	hashes *hashCounter
	ledger *ledger
	words  []prooftest.Word
}

func newToldBriefly(t *testing.T, keys []*prooftest.Signer) *toldBriefly {
	r := &toldBriefly{hashes: &hashCounter{Verifier: proof.NewVerifier()}, ledger: newLedger(Bounds{})}
	r.Registry, _ = bareRegistry(t, "me", func(c *Rules, _ *Settings) { c.Proofs = r.hashes })
	told := &ports.News{}
	for i, k := range keys {
		chain := k.Chain(700)
		word := k.Word(t, ports.Claim{
			PeerID: k.PeerID, Addrs: []string{"/a"}, Seq: time.Now().UnixMilli(), Start: 1, Interval: time.Second, TTL: prooftest.TTL, Anchor: chain[0],
		}, chain)
		e := word.Entry(0)
		e.Native = "n1"
		r.words = append(r.words, word)
		told.Changes = append(told.Changes, ports.Change{Kind: ports.ChangeJoined, Number: uint32(i + 1), Listed: ports.Listed{Entry: e, Remaining: prooftest.TTL}})
	}
	if got := r.takeNews("n1", r.ledger, told, 0); got.accepted != len(keys) {
		t.Fatalf("%+v", got)
	}
	r.hashes.steps = 0
	return r
}

// renews has the native renew the leases of the first indexers by that step, as renewals or as the
// changes of the JSON watch.
func (r *toldBriefly) renews(indexers, step int, json, lie bool) taken {
	told, changes := &ports.News{}, []ports.Change{}
	for i, w := range r.words[:indexers] {
		tick := ports.Tick{Seq: w.Claim.Seq, Step: uint32(step)}
		if lie {
			tick.Link = ports.Link{1, byte(i), byte(i >> 8)}
		} else {
			tick.Link = w.Chain[step]
		}
		if json {
			e := (&ports.Proof{Tick: tick, Claim: &w.Claim}).Entry()
			e.Native = "n1"
			changes = append(changes, ports.Change{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: e, Remaining: prooftest.TTL}})
		} else {
			told.Renewals = append(told.Renewals, ports.Renewal{Number: uint32(i + 1), Step: tick.Step, Link: tick.Link, Remaining: prooftest.TTL})
		}
	}
	if json {
		return r.takeBatch("n1", r.ledger, &ports.Batch{Changes: changes}, 0)
	}
	return r.takeNews("n1", r.ledger, told, 0)
}

func TestAttackFalseLinksFarAheadCostABoundedHashing(t *testing.T) {
	keys := prooftest.NewSigners(t, 100)
	for _, json := range []bool{false, true} {
		porttest.FakeTime(t, func(t *testing.T) {
			r := newToldBriefly(t, keys)
			const seconds = 30
			for second := range seconds {
				for range 3 {
					if got := r.renews(len(keys), ports.MaxSteps, json, true); got.refused != len(keys) || got.accepted > 0 || got.why == nil {
						t.Fatalf("of %d false links: %+v", len(keys), got)
					}
				}
				if most := wastedAtOnce + ports.MaxSteps + second*wastedRate; r.hashes.steps > most {
					t.Fatalf("after %d s %d steps are hashed, want %d at most", second, r.hashes.steps, most)
				}
				time.Sleep(time.Second)
			}
			if r.hashes.steps < wastedAtOnce+(seconds-8)*wastedRate {
				t.Errorf("%d steps are hashed: it is refused for longer than it must be", r.hashes.steps)
			}
			// Its true renewals go on meanwhile, but for those far ahead.
			if got := r.renews(2, hashesLocked, json, false); got.accepted != 2 || got.refused != 0 {
				t.Errorf("of renewals: %+v", got)
			}
			r.renews(1, ports.MaxSteps, json, true)
			if got := r.renews(1, 3*hashesLocked, json, false); got.refused != 1 {
				t.Errorf("of one far ahead: %+v", got)
			}
			time.Sleep(10 * time.Second)
			if got := r.renews(2, 3*hashesLocked, json, false); got.accepted != 2 || got.refused != 0 {
				t.Errorf("of those far ahead, later: %+v", got)
			}
		})
	}
}

// The indexers of an honest native stand still for a minute, again and again.
func TestTrueLinksFarAheadAreAllTaken(t *testing.T) {
	keys := prooftest.NewSigners(t, 200)
	for _, json := range []bool{false, true} {
		porttest.FakeTime(t, func(t *testing.T) {
			r := newToldBriefly(t, slices.Clone(keys))
			for step := 60; step <= 600; step += 60 {
				time.Sleep(time.Minute)
				before := r.hashes.steps
				if got := r.renews(len(keys), step, json, false); got.accepted != len(keys) || got.refused != 0 {
					t.Fatalf("at step %d: %+v: %v", step, got, got.why)
				}
				if r.hashes.steps-before <= wastedAtOnce+ports.MaxSteps {
					t.Fatalf("%d steps are hashed: this shows little", r.hashes.steps-before)
				}
			}
		})
	}
}
