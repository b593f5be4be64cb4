package domain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Whatever is lost, told twice, in another order or with other numbers, is mended within a few sums.
func TestADifferenceToWhatANativeToldIsFoundAndMended(t *testing.T) {
	keys := prooftest.NewSigners(t, 40)
	var held []ports.Batch
	for _, c := range []struct {
		name  string
		spoil func(ports.Batch) []ports.Batch
	}{
		{"a frame is lost", func(b ports.Batch) []ports.Batch {
			b.News, b.Age = nil, 0
			return []ports.Batch{b}
		}},
		{"a frame comes twice", func(b ports.Batch) []ports.Batch { return []ports.Batch{b, b} }},
		{"frames come in another order", func(b ports.Batch) (out []ports.Batch) {
			if held = append(held, b); len(held) < 4 {
				return nil
			}
			out, held = held, nil
			slices.Reverse(out)
			return out
		}},
		{"changes are lost out of a frame", func(b ports.Batch) []ports.Batch {
			told := *b.News
			told.Changes = told.Changes[:len(told.Changes)/2]
			told.Renewals = told.Renewals[:len(told.Renewals)/2]
			b.News = &told
			return []ports.Batch{b}
		}},
		{"numbers are others", func(b ports.Batch) []ports.Batch {
			told := ports.News{Changes: slices.Clone(b.News.Changes), Renewals: slices.Clone(b.News.Renewals)}
			for i := range told.Changes {
				told.Changes[i].Number += 3
			}
			for i := range told.Renewals {
				told.Renewals[i].Number += 3
			}
			b.News = &told
			return []ports.Batch{b}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				p := newPair(t, nil)
				defer func() { p.reader.stop() }()
				began := time.Now()
				words := make([]prooftest.Word, len(keys))
				beat := func() {
					for i, k := range keys {
						step := uint32(time.Since(began) / prooftest.Interval)
						if words[i].Record == nil {
							words[i] = k.Says(t, began, 1, "/a")
						}
						if _, err := p.teller.Register(t.Context(), k.PeerID, words[i].Registration(step)); err != nil {
							t.Fatal(err)
						}
						p.registers(t, ports.PeerID(fmt.Sprintf("plain%d", i)), "/a")
					}
				}
				beat()
				p.pass(2)
				if !p.equal() || p.ledger.count != uint32(2*len(keys)) {
					t.Fatalf("%d numbers are told, want %d", p.ledger.count, 2*len(keys))
				}
				held = nil
				spoiled := 0
				p.spoiled(func(b ports.Batch) []ports.Batch {
					if b.News == nil || len(b.Told) > 0 {
						return []ports.Batch{b}
					}
					spoiled++
					return c.spoil(b)
				})
				p.pass(int(prooftest.Interval / time.Second))
				beat() // 80 renewals
				for i := range keys {
					if i%3 == 0 {
						_ = p.teller.Leave(t.Context(), ports.PeerID(fmt.Sprintf("plain%d", i)), nil)
					}
					if i%4 == 0 {
						p.registers(t, ports.PeerID(fmt.Sprintf("new%d", i)), "/n")
					}
				}
				p.pass(2)
				if spoiled == 0 {
					t.Fatal("nothing was spoiled")
				}
				p.spoiled(nil)
				p.pass(40)
				if !p.equal() {
					t.Errorf("the sums still differ: %+v, and it told %+v; %v", p.ledger.total(), p.teller.table.news.told.total(), p.events.Of(ports.EventReconciled))
				}
				for i, k := range keys {
					for _, id := range []ports.PeerID{k.PeerID, ports.PeerID(fmt.Sprintf("plain%d", i)), ports.PeerID(fmt.Sprintf("new%d", i))} {
						theirs, there := p.teller.Get(id)
						mine, here := p.hearer.Get(id)
						if there && (!here || mine.Addr != theirs.Addr || (mine.Remaining-theirs.Remaining).Abs() > 3*time.Second) {
							t.Errorf("%s is listed there, and here %v: %v and %v are left", id, here, theirs.Remaining, mine.Remaining)
						}
					}
				}
			})
		})
	}
}

// The sums of a native with many leases differ in a few places.
func TestAFewDifferencesAmongManyCostAFewRanges(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer func() { p.reader.stop() }()
		const many = 10_000
		for i := range many {
			p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
		}
		p.pass(3)
		if !p.equal() || p.ledger.count != many {
			t.Fatalf("%d are told, want %d", p.ledger.count, many)
		}
		p.between(func() {
			for range 5 {
				p.ledger.set(p.ledger.at(3+rand.Uint32N(many-3)), 7)
			}
			p.ledger.free(2)
		})
		asked, told := 0, 0
		p.spoiled(func(b ports.Batch) []ports.Batch {
			asked += len(b.Sums)
			if len(b.Told) == 0 || len(b.News.Changes) < 2 {
				return []ports.Batch{b}
			}
			told += len(b.News.Changes)
			// It is told in two frames, as by a stream with small frames.
			half := len(b.News.Changes) / 2
			first, second, r := b, b, b.Told[0]
			middle := b.News.Changes[half].Number
			first.News, first.Told = &ports.News{Changes: b.News.Changes[:half]}, []ports.Range{{From: r.From, Until: middle}}
			second.News, second.Told = &ports.News{Changes: b.News.Changes[half:]}, []ports.Range{{From: middle, Until: r.Until}}
			return []ports.Batch{first, second}
		})
		p.pass(25)
		if !p.equal() {
			t.Error("the sums still differ")
		}
		if asked > 1000 || told > 6*wholeCount {
			t.Errorf("it asked for %d sums, and was told %d entries", asked, told)
		}
		ended := p.events.Of(ports.EventReconciled)
		if len(ended) != 1 || ended[0].Changes < 5 || ended[0].Changes > 6 || ended[0].Err != nil || ended[0].Via != "teller" {
			t.Errorf("it tells of %+v", ended)
		}
	})
}

// A native that tells wrong sums costs its follower a question now and then, and fewer with time.
func TestSumsThatLieCostBoundedWork(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		for _, c := range []struct {
			name string
			lie  func(*ports.Range)
		}{
			{"of another sum", func(r *ports.Range) { r.Sum++ }},
			{"of more indexers", func(r *ports.Range) { r.Count = 1 << 31; r.Sum = rand.Uint64() }},
		} {
			p := newPair(t, nil)
			const many = 1000
			for i := range many {
				p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
			}
			p.pass(2)
			sums, entries := 0, 0
			p.spoiled(func(b ports.Batch) []ports.Batch {
				b.Sums = slices.Clone(b.Sums)
				for i := range b.Sums {
					c.lie(&b.Sums[i])
				}
				if sums += len(b.Sums); len(b.Told) > 0 {
					entries += len(b.News.Changes)
				}
				return []ports.Batch{b}
			})
			for range 10 { // ten minutes
				for i := range many {
					p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
				}
				p.pass(60)
			}
			ended := p.events.Of(ports.EventReconciled)
			if len(ended) < 3 || len(ended) > 8 {
				t.Errorf("%s: %d searches in ten minutes", c.name, len(ended))
			}
			for _, e := range ended {
				if e.Err == nil || e.Changes != 0 {
					t.Errorf("%s: it tells of %+v", c.name, e)
				}
			}
			if sums > 60+len(ended)*maxRounds*ports.MaxRanges || entries > len(ended)*maxWhole {
				t.Errorf("%s: it was told %d sums and %d entries", c.name, sums, entries)
			}
			if p.hearer.table.len() != many {
				t.Errorf("%s: it lists %d", c.name, p.hearer.table.len())
			}
			p.reader.stop()
		}
	})
}
