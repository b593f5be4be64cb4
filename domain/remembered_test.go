package domain

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unique"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
	"pgregory.net/rapid"
)

// watchedTable returns a table, and an indexer that signs. Somebody watches the table.
func watchedTable(t testing.TB) (*table, said) {
	table := newTable(DefaultTTLPolicy(), Bounds{})
	table.proofs = proof.NewVerifier()
	table.names.fix(selfName, "me")
	t.Cleanup(table.changes.remember())
	t.Cleanup(table.changes.watch())
	return table, newSaid(t)
}

// change returns a change of any kind.
func (s said) change(t *rapid.T) change {
	c := change{kind: rapid.SampledFrom(kindsRemembered[:]).Draw(t, "kind"), id: s.id, fresh: rapid.Bool().Draw(t, "fresh")}
	if c.kind == conditionChanged {
		c.id = ""
		return c
	}
	c.word = s.word(t, rapid.SampledFrom([]source{stored, told, granted}).Draw(t, "source"), c.kind == ports.ChangeLeft)
	if d := c.word.details; d != nil && len(d.addrs) == 0 {
		d.addrs = nil
	}
	if c.word.proof == nil && c.word.unproven && rapid.Bool().Draw(t, "early") {
		c.word.early = s.proof(t)
	}
	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 && c.word.proof == nil {
		c.word.details = detailsOf(nil, map[string]string{"large": strings.Repeat("x", maxPacked)})
	}
	return c
}

// Watchers read each change as it was, whatever it is, and however many come after it.
func TestAChangeIsRecalledAsItWas(t *testing.T) {
	table, s := watchedTable(t)
	log := table.changes
	var model []change
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 200).Draw(t, "changes") {
			c := s.change(t)
			log.add(c.kind, c.id, &c.word, c.fresh)
			model = append(model, c)
		}
		if log.head() != uint64(len(model)) {
			t.Fatalf("%d changes are remembered, want %d", log.head(), len(model))
		}
		from := rapid.IntRange(max(0, len(model)-5000), len(model)).Draw(t, "from")
		limit := rapid.IntRange(0, 1000).Draw(t, "limit")
		all, ok := log.read(uint64(from), limit)
		if !ok {
			t.Fatal("they are forgotten")
		}
		n := from
		for m := range all {
			var got change
			table.recall(m, &got, true)
			if want := model[n]; !reflect.DeepEqual(got, want) || m.kind() != want.kind || m.source() != want.word.source {
				t.Fatalf("change %d is %+v, want %+v", n, got, want)
			}
			bare := got
			if table.recall(m, &bare, false); got.word.proof != nil && m.odd == nil {
				if p := bare.word.proof; p.Record != nil || p.Tick != got.word.proof.Tick || !reflect.DeepEqual(p.Claim, got.word.proof.Claim) {
					t.Fatalf("without its record, change %d has %+v", n, p)
				}
			}
			n++
		}
		if n != min(len(model), from+limit) {
			t.Fatalf("%d changes were read of %d from %d on, at most %d", n-from, len(model), from, limit)
		}
	})
}

// Readers take no lock, and see whole changes while others come and the oldest are forgotten.
func TestChangesAreReadWhileOthersCome(t *testing.T) {
	table, _ := watchedTable(t)
	log := table.changes
	const all = maxChanges + 5*stretchChanges
	id := func(n uint64) ports.PeerID { return ports.PeerID(fmt.Sprint("x", n)) }
	var readers sync.WaitGroup
	done := make(chan struct{})
	defer readers.Wait()
	for range 2 {
		readers.Go(func() {
			for next := uint64(0); next < all; {
				changes, ok := log.read(next, 700)
				if !ok {
					next = log.head() // it was too slow
					continue
				}
				for m := range changes {
					var c change
					if table.recall(m, &c, true); c.id != id(next) || c.word.native.Value() != "n1" {
						t.Errorf("change %d is %+v", next, c)
						return
					}
					next++
				}
				select {
				case <-done:
					if next < log.head() {
						continue
					}
					return
				default:
				}
			}
		})
	}
	w := lease(told, "n1", time.Minute)
	for n := range uint64(all) {
		if n%100 == 0 {
			w.details = detailsOf(nil, map[string]string{"large": strings.Repeat("x", maxPacked)}) // does not pack
		} else {
			w.details = nil
		}
		log.add(ports.ChangeRenewed, id(n), &w, false)
	}
	close(done)
	if first := log.kept.Load().first; all-first > maxChanges || all-first < maxChanges-2*stretchChanges {
		t.Errorf("the last %d of %d changes are remembered, want %d", all-first, all, maxChanges)
	}
}

// However large changes are, the memory of them has a bound.
func TestLargeChangesAreForgottenSooner(t *testing.T) {
	table, _ := watchedTable(t)
	w := lease(granted, "me", time.Minute)
	w.details = detailsOf(nil, map[string]string{"large": strings.Repeat("x", 1900)})
	for range 40_000 {
		table.changes.add(ports.ChangeUpdated, "x", &w, false)
	}
	k := table.changes.kept.Load()
	if len(k.all) != maxStretches {
		t.Errorf("%d stretches are held, want %d", len(k.all), maxStretches)
	}
	if held := table.changes.head() - k.first; held < maxChanges/8*3/2 {
		t.Errorf("%d changes are remembered: too few for a walk of the table", held)
	}
}

// Nobody can come back to changes that nobody watched. So few are remembered.
func TestWhatNobodyWatchesIsForgottenSoon(t *testing.T) {
	table := newTable(DefaultTTLPolicy(), Bounds{})
	log := table.changes
	w := lease(granted, "me", time.Minute)
	add := func(n int, kind ports.ChangeKind) {
		for range n {
			log.add(kind, "x", &w, false)
		}
	}
	held := func() uint64 { return log.head() - log.kept.Load().first }
	const many = 10 * maxUnwatched
	if add(many, ports.ChangeUpdated); held() > maxUnwatched {
		t.Errorf("%d changes are remembered before the first watch", held())
	}
	stop := log.watch()
	forget := log.remember()
	before := held()
	if add(many, ports.ChangeRenewed); held() < before+many-stretchChanges {
		t.Errorf("%d changes are remembered while somebody watches", held())
	}
	cursor := log.cursor(log.head())
	forget()
	stop()
	before = held()
	if add(many, ports.ChangeRenewed); held() != before+many {
		t.Errorf("%d changes are remembered for a watcher that comes back soon, want %d", held(), before+many)
	}
	if _, reset := log.resume(cursor, true); reset != "" {
		t.Errorf("a watcher that comes back soon gets a snapshot: %s", reset)
	}
	log.mu.Lock()
	log.left, log.renewedAt = log.left.Add(-renewalsKept), log.renewedAt.Add(-renewalsKept)
	log.mu.Unlock()
	if add(maxUnwatched, ports.ChangeRenewed); held() > maxUnwatched {
		t.Errorf("%d changes are remembered ten minutes later", held())
	}
	log.rest()
	if add(many, ports.ChangeRenewed); held() > maxUnwatched {
		t.Errorf("%d changes are remembered as renewals are forgotten", held())
	}
	defer log.watch()()
	defer log.remember()()
	if _, reset := log.resume(cursor, true); reset != ports.ResetTooOld {
		t.Errorf("a watcher that comes back late gets %q", reset)
	}
	if _, reset := log.resume(log.cursor(log.head()-1), true); reset != ports.ResetTooOld {
		t.Errorf("a watcher that may have missed a renewal gets %q", reset)
	}
	if _, reset := log.resume(log.cursor(log.head()), true); reset != "" {
		t.Errorf("a watcher that missed nothing gets %q", reset)
	}
}

// A follower that reads may fall as far behind as all News go. Of News that are old, fewer are kept.
func TestOldNewsAreForgottenSooner(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		kept int
	}{{0, maxNews}, {newsAge, maxNews}, {newsAge + 1, maxAged}} {
		n := newTable(DefaultTTLPolicy(), Bounds{}).news
		const each = 1024
		add := func(at Instant) { n.add(&ports.News{Renewals: make([]ports.Renewal, each)}, at) }
		for range maxNews/each - 1 {
			add(Instant{1})
		}
		if add(Instant{1 + c.age}); n.weight != c.kept || n.endNow()-n.first != uint64(c.kept/each) {
			t.Errorf("after %v, News of %d renewals are kept, want %d", c.age, n.weight, c.kept)
		}
		if _, _, _, ok := n.read(n.first); !ok || n.first != uint64(maxNews-c.kept)/each {
			t.Errorf("after %v, the first News are number %d", c.age, n.first)
		}
	}
}

// BenchmarkChangelog says what it takes to remember a change, under the lock of its shard, and to read it
// once, for a watcher without proofs and for a native.
func BenchmarkChangelog(b *testing.B) {
	signed := func(s said, w *word) {
		claim := s.records[0].Claim
		p := s.records[0].Entry(50).Proof
		p.Claim = &claim
		w.proof, w.seenAt, w.expiresAt = p, w.expiresAt, claim.ExpiresAt(50).UnixNano()
		w.addr, w.details = claimedText(&claim)
	}
	for _, c := range []struct {
		name string
		make func(s said, w *word)
	}{
		{"plain", func(said, *word) {}},
		{"told", func(_ said, w *word) {
			w.source, w.native = told, unique.Make(ports.PeerID("12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust"))
		}},
		{"signed", signed},
	} {
		w := lease(granted, "me", time.Minute)
		w.addr = "/ip4/10.1.2.3/tcp/4001"
		b.Run(c.name+"/add", func(b *testing.B) {
			table, s := watchedTable(b)
			c.make(s, &w)
			b.ReportAllocs()
			for b.Loop() {
				table.changes.add(ports.ChangeRenewed, s.id, &w, false)
			}
			k := table.changes.kept.Load()
			b.ReportMetric(float64(len(k.all))*(64<<10)/float64(table.changes.head()-k.first), "B/change")
		})
		for _, records := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/read/records=%t", c.name, records), func(b *testing.B) {
				table, s := watchedTable(b)
				c.make(s, &w)
				table.changes.add(ports.ChangeRenewed, s.id, &w, false)
				b.ReportAllocs()
				var is change
				for b.Loop() {
					all, _ := table.changes.read(0, 1)
					for m := range all {
						table.recall(m, &is, records)
					}
				}
			})
		}
	}
}
