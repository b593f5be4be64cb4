package domain

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestANativeTellsEachOwnLeaseOnceAndItsRenewalsByANumber(t *testing.T) {
	keys := prooftest.NewSigners(t, 1)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		register := func(reg ports.Registration) {
			t.Helper()
			if _, err := r.Register(t.Context(), reg.PeerID, reg); err != nil {
				t.Fatal(err)
			}
		}
		plain := ports.Registration{PeerID: "plain", Addr: "/a"}
		register(plain)
		r.takeChanges("other", []ports.Change{toldLease("elsewhere", "other", time.Minute)})
		x := follow(t, r, "")
		defer x.stop()
		changes, _ := newsOf(x.take())
		if len(changes) != 1 || changes[0].Kind != ports.ChangeSnapshot || changes[0].PeerID != "plain" || changes[0].Number != 1 || x.cursor == "" {
			t.Fatalf("the snapshot is %+v with the cursor %q, want its own lease as number 1", changes, x.cursor)
		}

		word := keys[0].Says(t, time.Now(), 1, "/b")
		register(word.Registration(0))
		time.Sleep(10 * time.Millisecond)
		changes, _ = newsOf(x.take())
		if len(changes) != 1 || changes[0].Kind != ports.ChangeJoined || changes[0].Number != 2 || changes[0].Proof == nil || changes[0].Proof.Record == nil {
			t.Fatalf("within 10 ms of a join it tells %+v, want the whole entry as number 2", changes)
		}

		time.Sleep(prooftest.Interval)
		x.take()
		register(plain)
		tick := word.Registration(1)
		tick.Proof.Record = nil
		register(tick)
		register(plain) // within the same second
		time.Sleep(r.rules.Policy.renewalInterval())
		changes, renewals := newsOf(x.take())
		if len(changes) != 0 || len(renewals) != 2 || renewals[0].Number != 1 || renewals[1].Number != 2 {
			t.Fatalf("within a second of two renewals it tells %+v and %+v, want both by their numbers", changes, renewals)
		}
		if p := renewals[0]; p.ExpiresAt == 0 || p.Step != 0 || p.Remaining <= r.rules.Policy.TTL-2*time.Second {
			t.Errorf("the plain renewal is %+v", p)
		}
		if p := renewals[1]; p.Step != 1 || p.Link != word.Proof(1).Tick.Link || p.ExpiresAt != 0 {
			t.Errorf("the signed renewal is %+v", p)
		}

		plain.Addr = "/c"
		register(plain)
		time.Sleep(10 * time.Millisecond)
		if changes, _ = newsOf(x.take()); len(changes) != 1 || changes[0].Kind != ports.ChangeUpdated || changes[0].Number != 1 || changes[0].Addr != "/c" {
			t.Errorf("a new address is told as %+v", changes)
		}
		if err := r.Leave(t.Context(), "plain", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		if changes, _ = newsOf(x.take()); len(changes) != 1 || changes[0].Kind != ports.ChangeLeft || changes[0].Number != 1 {
			t.Errorf("a leave is told as %+v", changes)
		}
		register(ports.Registration{PeerID: "next", Addr: "/d"})
		time.Sleep(10 * time.Millisecond)
		if changes, _ = newsOf(x.take()); len(changes) != 1 || changes[0].Kind != ports.ChangeJoined || changes[0].Number != 1 {
			t.Errorf("the next is told as %+v, want the number that is free again", changes)
		}
		for range 80 {
			time.Sleep(time.Second)
			r.sweep()
		}
		kinds := map[ports.ChangeKind]int{}
		changes, _ = newsOf(x.take())
		for _, c := range changes {
			kinds[c.Kind]++
		}
		if kinds[ports.ChangeLate] != 2 || kinds[ports.ChangeExpired] != 2 || len(changes) != 4 {
			t.Errorf("two that die are told as %v", kinds)
		}
	})
}

// toldLease is a plain lease of native as it tells it.
func toldLease(id, native ports.PeerID, left time.Duration) ports.Change {
	return ports.Change{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: ports.Entry{PeerID: id, Addr: "/a", Native: native, ExpiresAt: time.Now().Add(left)}, Remaining: left}}
}

func TestAFollowerGoesOnFromItsCursorAndIsToldHowOldTheNewsAre(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.registers(t, "x", "/a")
		p.registers(t, "y", "/a")
		p.pass(2)
		p.reader.stop()
		p.registers(t, "x", "/b")
		p.registers(t, "z", "/a")
		if err := p.teller.Leave(t.Context(), "y", nil); err != nil {
			t.Fatal(err)
		}
		p.pass(20)
		p.begin(t, p.reader.cursor)
		defer func() { p.reader.stop() }()
		for _, b := range p.reader.take() {
			if b.Reset != "" || b.Age != 0 && b.Age < 0 {
				t.Errorf("it begins anew: %+v", b)
			}
		}
		if got, ok := p.hearer.Get("x"); !ok || got.Addr != "/b" {
			t.Errorf("x is listed as %v, %+v", ok, got)
		}
		if _, ok := p.hearer.Get("y"); ok {
			t.Error("y has left meanwhile, and is listed")
		}
		// The lease ends when it ends at its native: it is told with its rest, as of now.
		theirs, _ := p.teller.Get("z")
		if mine, ok := p.hearer.Get("z"); !ok || mine.Remaining != theirs.Remaining {
			t.Errorf("z has %v left here, and %v there", mine.Remaining, theirs.Remaining)
		}
		if !p.equal() {
			t.Error("the sums differ")
		}
	})
}

func TestAFollowerThatWasAwayForTooLongBeginsAnew(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		for _, c := range []struct {
			name   string
			spoil  func(cursor string) string
			joins  int
			resets ports.Reset
		}{
			{"soon", func(c string) string { return c }, 10, ""},
			{"after more than is kept", func(c string) string { return c }, maxIdle + 2, ports.ResetTooOld},
			{"with the cursor of a JSON watch", func(c string) string { return c[:10] + c[11:] }, 0, ports.ResetUnknown},
			{"with a cursor of later", func(c string) string { return c + "9" }, 0, ports.ResetUnknown},
		} {
			p := newPair(t, nil)
			p.registers(t, "x", "/a")
			p.pass(1)
			p.reader.stop()
			for i := range c.joins {
				p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
			}
			p.begin(t, c.spoil(p.reader.cursor))
			var reset ports.Reset
			for _, b := range p.reader.take() {
				if b.Reset != "" {
					reset = b.Reset
				}
			}
			if reset != c.resets || !p.equal() || p.hearer.table.len() != 1+c.joins {
				t.Errorf("%s: reset %q, want %q; equal %v; %d records", c.name, reset, c.resets, p.equal(), p.hearer.table.len())
			}
			p.reader.stop()
			synctest.Wait()
		}
	})
}

// Their leases end at the follower meanwhile. A number alone would not bring them back.
func TestAFollowerThatGoesOnListsWhoeverRenewedMeanwhileAtOnce(t *testing.T) {
	keys := prooftest.NewSigners(t, 3)
	for _, away := range []int{3, 40, 70, 200} {
		porttest.FakeTime(t, func(t *testing.T) {
			p := newPair(t, nil)
			began := time.Now()
			var words []prooftest.Word
			for _, k := range keys {
				words = append(words, k.Says(t, began, 1, "/a"))
			}
			pass := func(seconds int) {
				for range seconds {
					p.pass(1)
					if second := int(time.Since(began) / time.Second); second%10 == 0 {
						p.registers(t, "plain", "/a")
						for i, k := range keys {
							if _, err := p.teller.Register(t.Context(), k.PeerID, words[i].Registration(uint32(time.Since(began)/prooftest.Interval))); err != nil {
								t.Fatal(err)
							}
						}
					}
				}
			}
			pass(12)
			p.reader.stop()
			pass(away)
			p.begin(t, p.reader.cursor)
			defer func() { p.reader.stop() }()
			for _, id := range []ports.PeerID{"plain", keys[0].PeerID, keys[1].PeerID, keys[2].PeerID} {
				theirs, there := p.teller.Get(id)
				if mine, here := p.hearer.Get(id); !here || !there || mine.Remaining < theirs.Remaining-prooftest.Interval {
					t.Errorf("after %d s %s is listed here %v, there %v: %v and %v are left", away, id, here, there, mine.Remaining, theirs.Remaining)
				}
			}
			for _, b := range p.reader.take() {
				if b.Reset != "" {
					t.Errorf("after %d s it begins anew: %s", away, b.Reset)
				}
			}
			p.pass(1)
			if !p.equal() {
				t.Errorf("after %d s the sums differ", away)
			}
		})
	}
}
