package domain

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"pgregory.net/rapid"
)

// A renewal in the packed form does what merge and apply do. Two natives hear the same: one renews what
// is steady in its packed form, and the other has a watcher that wants renewals, so that it never does.
func TestAPackedRenewalIsThatOfTheRule(t *testing.T) {
	signer := prooftest.NewSigner(t)
	base := time.UnixMilli(noon.wall.UnixMilli()).UTC()
	word := func(n int, interval time.Duration, meta map[string]string) prooftest.Word {
		chain := signer.Chain(200)
		return signer.Word(t, ports.Claim{
			PeerID: signer.PeerID, Seq: base.UnixMilli() + int64(n), Start: 7, Interval: interval, TTL: 66 * sec,
			Addrs: []string{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1"}[:1+n%2], Meta: meta, Anchor: chain[0],
		}, chain)
	}
	words := []prooftest.Word{word(0, 20*sec, nil), word(1, 5*sec, map[string]string{"region": "eu", "": ""})}
	steadies := 0
	rapid.Check(t, func(rt *rapid.T) {
		var since time.Duration
		var both [2]*Registry
		var ledgers [2][3]*ledger
		for i := range both {
			r, _ := bareRegistry(t, "me", func(rules *Rules, _ *Settings) {
				rules.Proofs = proof.NewVerifier()
				rules.Clock = NewClock(nil, nil)
				rules.Clock.wall, rules.Clock.elapsed = base, func() time.Duration { return since }
			})
			for k := range ledgers[i] {
				ledgers[i][k] = newLedger(Bounds{})
			}
			both[i] = r
		}
		both[1].table.changes.remember()
		natives := []ports.PeerID{"n1", "n2", "n3"}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			since += time.Duration(rapid.IntRange(0, 25_000).Draw(rt, "pass")) * time.Millisecond
			signed, k := rapid.Bool().Draw(rt, "signed"), rapid.IntRange(0, 2).Draw(rt, "native")
			w := rapid.SampledFrom(words).Draw(rt, "record")
			due := min(int(since/w.Claim.Interval), len(w.Chain)-2)
			step := uint32(max(0, due-rapid.IntRange(0, 1).Draw(rt, "behind")))
			whole := rapid.IntRange(0, 3).Draw(rt, "whole") == 0
			remaining := time.Duration(rapid.IntRange(10, 66).Draw(rt, "remaining")) * sec
			act := rapid.SampledFrom([]string{"register", "register", "tell", "tell", "tell", "sweep", "leave"}).Draw(rt, "act")
			if act == "leave" && !whole {
				act = "register"
			}
			var said [2]string
			for i, r := range both {
				switch act {
				case "register":
					reg := ports.Registration{PeerID: signer.PeerID, Addr: "/ip4/10.0.0.1/tcp/1"}
					if signed {
						reg = w.Registration(step)
						if p := *reg.Proof; !whole {
							p.Record = nil
							reg.Proof = &p
						}
					}
					if !signed || !whole {
						is, ok := r.table.shard(signer.PeerID).steady(r.table.shard(signer.PeerID).record(signer.PeerID), r.now().at)
						if ok && is.says(&reg) {
							steadies++
						}
					}
					lease, err := r.Register(t.Context(), signer.PeerID, reg)
					said[i] = fmt.Sprintf("%+v %v", lease, err)
				case "tell":
					e := ports.Entry{PeerID: signer.PeerID, Addr: "/ip4/10.0.0.1/tcp/1", Native: natives[k], ExpiresAt: base.Add(since + remaining)}
					x := ports.Renewal{Number: 1, Remaining: remaining, ExpiresAt: e.ExpiresAt.UnixNano()}
					if signed {
						e = w.Entry(step)
						e.Native = natives[k]
						x = ports.Renewal{Number: 1, Remaining: remaining, Step: step, Link: e.Proof.Tick.Link}
					}
					news := &ports.News{Renewals: []ports.Renewal{x}}
					if whole {
						news = &ports.News{Changes: []ports.Change{{Kind: ports.ChangeUpdated, Number: 1, Listed: ports.Listed{Entry: e, Remaining: remaining}}}}
					}
					told := r.takeNews(natives[k], ledgers[i][k], news, 0)
					said[i] = fmt.Sprint(told.accepted, told.signed, told.refused, told.lag, told.why)
				case "leave":
					said[i] = fmt.Sprint(r.Leave(t.Context(), signer.PeerID, nil))
				case "sweep":
					r.sweep()
				}
				rec := r.table.shard(signer.PeerID).record(signer.PeerID)
				said[i] += "\n" + plainly(rec.holding())
				if rec.known() {
					said[i] += fmt.Sprint(rec.shown, rec.flags, rec.place)
				}
				l, ok := r.Get(signer.PeerID)
				said[i] += fmt.Sprintf("%+v %t", l.Entry.Version(), ok)
			}
			if said[0] != said[1] {
				rt.Fatalf("after %s at %v:\n%s\nby the rule:\n%s", act, since, said[0], said[1])
			}
		}
	})
	if steadies == 0 {
		t.Error("nothing was renewed in its packed form")
	}
	t.Log(steadies, "renewals in the packed form")
}
