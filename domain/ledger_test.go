package domain

import (
	"fmt"
	"math/rand"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Two registries hear the same of several natives, truth and lies: one by changes as the JSON watch has
// them, the other by numbers.
func TestARenewalByANumberCountsForWhatAChangeWithTheSameProofDoes(t *testing.T) {
	keys := prooftest.NewSigners(t, 4)
	steps := prooftest.Brief(60 * time.Minute)
	for seed := range int64(6) {
		porttest.FakeTime(t, func(t *testing.T) {
			random := rand.New(rand.NewSource(seed))
			trusted := func(c *Rules, _ *Settings) {
				if seed%3 == 1 {
					c.Plain = func() Plain { return PlainRefuse }
				}
				if seed%3 == 2 {
					c.Proofs = nil
				}
			}
			byChange, _ := bareRegistry(t, "me", trusted)
			byNumber, _ := bareRegistry(t, "me", trusted)
			natives := []ports.PeerID{"n1", "n2", "n3"}
			ledgers := map[ports.PeerID]*ledger{}
			for _, n := range natives {
				ledgers[n] = newLedger(Bounds{})
			}
			words, began := make([]prooftest.Word, len(keys)), make([]time.Time, len(keys))
			issue := func(i int) {
				began[i] = time.Now()
				words[i] = keys[i].Says(t, began[i], uint64(1+random.Intn(2)), fmt.Sprintf("/addr%d", random.Intn(2)))
			}
			for i := range keys {
				issue(i)
			}
			told := map[ports.PeerID]map[int]bool{"n1": {}, "n2": {}, "n3": {}} // the present record of that indexer
			took, refused := 0, 0
			for start := time.Now(); time.Since(start) < steps; {
				x, native := random.Intn(len(keys)+2), natives[random.Intn(len(natives))]
				plain := x >= len(keys)
				left := time.Duration(1+random.Intn(int(byChange.rules.Policy.TTL/time.Second))) * time.Second
				c := toldLease(ports.PeerID(fmt.Sprintf("plain%d", x)), native, left)
				r := ports.Renewal{Number: uint32(x + 1), Remaining: left, ExpiresAt: c.ExpiresAt.UnixNano()}
				if !plain {
					if random.Intn(40) == 0 {
						issue(x)
						for _, n := range natives {
							told[n][x] = false
						}
					}
					step := uint32(time.Since(began[x]) / prooftest.Interval)
					if lie := random.Intn(6); lie == 0 {
						step += uint32(random.Intn(4)) // it may not be due yet
					} else if lie == 1 && step > 0 {
						step -= 1
					}
					if int(step) >= prooftest.Steps {
						issue(x)
						continue
					}
					e := words[x].Entry(step)
					e.Native = native
					c = ports.Change{Kind: ports.ChangeUpdated, Listed: ports.Listed{Entry: e, Remaining: left}}
					r.Step, r.Link, r.ExpiresAt = step, e.Proof.Tick.Link, 0
				}
				c.Number = r.Number
				switch {
				case random.Intn(30) == 0 && seed%3 != 2: // without proofs, its times are those of the renewals
					c = ports.Change{Kind: ports.ChangeLeft, Number: c.Number, Listed: ports.Listed{Entry: ports.Entry{PeerID: c.PeerID, Native: native, ExpiresAt: time.Now().Add(left), Leave: true}, Remaining: left}}
					byChange.takeChanges(native, []ports.Change{c})
					byNumber.takeNews(native, ledgers[native], &ports.News{Changes: []ports.Change{c}}, 0)
					told[native][x] = false
				case !told[native][x]:
					byChange.takeChanges(native, []ports.Change{c})
					byNumber.takeNews(native, ledgers[native], &ports.News{Changes: []ports.Change{c}}, 0)
					told[native][x] = true
				default:
					if !plain && random.Intn(8) == 0 { // a link that nobody has revealed
						tick := *c.Proof
						tick.Tick.Link[5]++
						r.Link, c.Proof = tick.Tick.Link, &tick
					}
					before := byChange.takeChanges(native, []ports.Change{c})
					after := byNumber.takeNews(native, ledgers[native], &ports.News{Renewals: []ports.Renewal{r}}, 0)
					if l := ledgers[native]; len(l.missing) > 0 || l.at(r.Number).tries > 0 { // it asks for the entry
						l.missing = nil
						after = byNumber.takeNews(native, l, &ports.News{Changes: []ports.Change{c}}, 0)
					}
					if took++; before.accepted != after.accepted || before.refused != after.refused {
						t.Fatalf("of %s by %s: %+v by a change, %+v by a number", c.PeerID, native, before, after)
					}
					refused += after.refused
				}
				for i := range 6 {
					id := ports.PeerID(fmt.Sprintf("plain%d", i))
					if i < len(keys) {
						id = keys[i].PeerID
					}
					is, isListed := byChange.Get(id)
					got, listed := byNumber.Get(id)
					if listed != isListed || got.Addr != is.Addr || got.Native != is.Native || got.Remaining != is.Remaining || !got.ExpiresAt.Equal(is.ExpiresAt) ||
						got.State != is.State || (got.Proof == nil) != (is.Proof == nil) || is.Proof != nil && got.Proof.Tick != is.Proof.Tick {
						t.Fatalf("after %v, by a change %v %+v; by a number %v %+v", time.Since(start), isListed, is, listed, got)
					}
				}
				time.Sleep(time.Duration(random.Intn(8000)) * time.Millisecond)
				byChange.sweep()
				byNumber.sweep()
			}
			if took < 50 || seed%3 != 2 && refused == 0 {
				t.Errorf("%d renewals, and %d are refused: this shows little", took, refused)
			}
		})
	}
}

func TestARenewedLeaseEndsAtItsDeadlineAndARenewalOfAnEndedOneIsAskedFor(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		for _, c := range []struct {
			name        string
			wait        time.Duration // until the renewal
			after       time.Duration // from then on
			lists, asks bool
		}{
			{"just before its end", 10*time.Second - 1, 0, true, false},
			{"at its end", 10 * time.Second, 0, false, true},
			{"after its end", 10*time.Second + 1, 0, false, true},
			{"renewed, just before the new end", 5 * time.Second, 20*time.Second - 1, true, false},
			{"renewed, at the new end", 5 * time.Second, 20 * time.Second, false, false},
			{"renewed, after the new end", 5 * time.Second, 20*time.Second + 1, false, false},
		} {
			r, _ := bareRegistry(t, "me", nil)
			l := newLedger(Bounds{})
			told := toldLease("x", "n1", 10*time.Second)
			told.Number = 3
			r.takeNews("n1", l, &ports.News{Changes: []ports.Change{told}}, 0)
			time.Sleep(c.wait)
			// It was made a second ago.
			r.takeNews("n1", l, &ports.News{Renewals: []ports.Renewal{{Number: 3, Remaining: 21 * time.Second, ExpiresAt: time.Now().Add(20 * time.Second).UnixNano()}}}, time.Second)
			time.Sleep(c.after)
			if _, lists := r.Get("x"); lists != c.lists || len(l.missing) > 0 != c.asks {
				t.Errorf("%s: listed %v, asked for %v", c.name, lists, l.missing)
			}
		}
	})
}

func TestNewsThatNoHonestNativeTellsAreRefusedOneByOne(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, events := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Bounds.Entries = 100 })
		l := newLedger(r.settings.Bounds) // of a native with less room than others
		said := func(number uint32, id, native ports.PeerID) ports.Change {
			c := toldLease(id, native, time.Minute)
			c.Number = number
			return c
		}
		renews := func(number uint32, left time.Duration) ports.Renewal {
			return ports.Renewal{Number: number, Remaining: left, ExpiresAt: time.Now().Add(left).UnixNano()}
		}
		took := r.takeNews("n1", l, &ports.News{
			Changes: []ports.Change{
				said(1, "x1", "n1"), said(2, "theirs", "n2"), said(DefaultEntries+1, "too high", "n1"), said(1<<31, "higher", "n1"), said(3, "x3", "n1"),
				{Kind: ports.ChangeExpired, Number: 77}, {Kind: ports.ChangeStale, Number: 4, Listed: said(4, "x4", "n1").Listed},
			},
			Renewals: []ports.Renewal{renews(1, time.Minute), renews(2, time.Minute), renews(50, time.Minute), renews(DefaultEntries+1, time.Minute), renews(1<<32-1, time.Minute), renews(3, 2*time.Hour), renews(3, -1), renews(3, time.Minute)},
		}, 0)
		if took.accepted != 6 || took.refused != 9 {
			t.Errorf("%+v", took)
		}
		if told := events.Of(ports.EventTold); len(told) != 1 || told[0].Changes != took.changes || told[0].Renewals != 8 || told[0].Refused != took.refused || told[0].Err == nil {
			t.Errorf("it tells the observer of %+v", told)
		}
		if l.count != 2 || len(l.pages) != 2 && len(l.pages) != 1 {
			t.Errorf("%d numbers stand for indexers, in %d pages", l.count, len(l.pages))
		}
		if is, _ := r.Get("x3"); is.Remaining != time.Minute {
			t.Errorf("x3 has %v left", is.Remaining)
		}
	})
}
