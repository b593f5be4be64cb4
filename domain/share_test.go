package domain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"pgregory.net/rapid"
)

// sharedRegistry is a registry with a small table. It trusts the native "trusted".
func sharedRegistry(t *testing.T, entries int) (*Registry, *porttest.Recorder) {
	t.Helper()
	return bareRegistry(t, "me", func(_ *Rules, s *Settings) {
		s.Bounds = Bounds{Entries: entries, Trusted: func(id ports.PeerID) bool { return id == "trusted" }}
	})
}

func indexerOf(native ports.PeerID, i int) ports.PeerID {
	return ports.PeerID(fmt.Sprintf("%s's %d", native, i))
}

// tells has native tell n indexers of its own, and returns how many of them are listed.
func tells(r *Registry, native ports.PeerID, n int) (listed int) {
	for i := range n {
		e := ports.Entry{PeerID: indexerOf(native, i), Addr: "/a", Native: native, ExpiresAt: time.Now().Add(time.Minute)}
		r.takeChanges(native, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: time.Minute}}})
	}
	return lists(r, native, n)
}

func lists(r *Registry, native ports.PeerID, n int) (listed int) {
	for i := range n {
		if _, ok := r.Get(indexerOf(native, i)); ok {
			listed++
		}
	}
	return listed
}

// registers has n indexers register here, and returns how many were granted a lease.
func registers(r *Registry, n int) (granted int) {
	for i := range n {
		id := indexerOf("me", i)
		if _, err := r.Register(context.Background(), id, ports.Registration{PeerID: id, Addr: "/a"}); err == nil {
			granted++
		}
	}
	return granted
}

// A native makes up indexers by the thousand. The table has 800 places, so it fills 100.
func TestAttackANativeThatMakesUpIndexersFillsItsShare(t *testing.T) {
	r, events := sharedRegistry(t, 800)
	if got := tells(r, "liar", 5000); got != 100 {
		t.Errorf("the liar fills %d places, want its share of 100", got)
	}
	told := events.Of(ports.EventTold)
	if last := told[len(told)-1]; last.Refused != 1 || !errors.Is(last.Err, errShare) {
		t.Errorf("its last word is observed as %+v, want it refused for its share", last)
	}
	if got := tells(r, "honest", 100); got != 100 {
		t.Errorf("of 100 indexers of an honest native %d are listed", got)
	}
	if got := tells(r, "trusted", 500); got != 500 {
		t.Errorf("of 500 indexers of a trusted native %d are listed", got)
	}
	if got := registers(r, 300); got != 300 || r.table.len() != 800 {
		t.Errorf("%d of 300 indexers registered, and the table has %d entries of 800", got, r.table.len())
	}
	if liar, trusted := lists(r, "liar", 5000), lists(r, "trusted", 500); trusted != 500 || liar > lists(r, "honest", 100) {
		t.Errorf("%d of the liar and %d of the trusted native are left, want the liar's to give way first", liar, trusted)
	}
	for range 3 { // it tells them again, and again
		tells(r, "liar", 5000)
	}
	if got := registers(r, 300); got != 300 || lists(r, "me", 300) != 300 || lists(r, "trusted", 500) != 500 {
		t.Errorf("%d of 300 indexers renewed", got)
	}
	if got := registers(r, 301); got != 300 {
		t.Errorf("a table without indexers of strangers took %d more", got-300)
	}
}

// Each gossip author has a share, too, and a trusted native goes before it.
func TestAttackAnAuthorThatAnnouncesMadeUpIndexersFillsItsShare(t *testing.T) {
	r, _ := sharedRegistry(t, 80)
	finds := func(author ports.PeerID, n int) int {
		for i := range n {
			id := indexerOf(author, i)
			_, _, _ = r.takeEntry(id, author, ports.Entry{PeerID: id, Addr: "/a", Native: "any", ExpiresAt: time.Now().Add(time.Minute)})
		}
		return lists(r, author, n)
	}
	if got := finds("liar", 500); got != 10 {
		t.Errorf("the liar fills %d places, want 10", got)
	}
	if got := finds("honest", 9); got != 9 {
		t.Errorf("of 9 of an honest author %d are listed", got)
	}
	if got := finds("trusted", 80); got != 80 || lists(r, "liar", 500) > 0 {
		t.Errorf("of 80 of a trusted native %d are listed, and %d of the liar", got, lists(r, "liar", 500))
	}
}

// A look-up is answered though the asker's share is full.
func TestAFullShareKeepsNoAnswerBack(t *testing.T) {
	r, _ := sharedRegistry(t, 8)
	e := ports.Entry{PeerID: "x", Addr: "/a", Native: "any", ExpiresAt: time.Now().Add(time.Minute)}
	r.store = oneEntryStore{e: e}
	if _, _, err := r.takeEntry("y", callers, ports.Entry{PeerID: "y", Addr: "/a", Native: "any", ExpiresAt: e.ExpiresAt}); err != nil {
		t.Fatal(err)
	}
	got, err := r.search(t.Context(), "x", "")
	if err != nil || got.listed == nil || got.listed.PeerID != "x" {
		t.Errorf("the answer is %+v, %v", got.listed, err)
	}
	if _, ok := r.Get("x"); ok {
		t.Error("it is in the table, beyond the share")
	}
}

func TestAnIndexerThatRegistersOrThatATrustedNativeTellsCountsToNoShare(t *testing.T) {
	r, _ := sharedRegistry(t, 80)
	is := indexerOf("liar", 0)
	fills := func(want ports.PeerID) {
		t.Helper()
		s := r.table.shard(is)
		s.mu.Lock()
		defer s.mu.Unlock()
		var got ports.PeerID
		if share, ok := s.shares.of[s.record(is).ref]; ok {
			got = share.teller.id
		}
		if got != want {
			t.Errorf("%q fills its place, want %q", got, want)
		}
	}
	tell := func(native ports.PeerID, remaining time.Duration) {
		t.Helper()
		e := ports.Entry{PeerID: is, Addr: "/a", Native: native, ExpiresAt: time.Now().Add(remaining)}
		if _, err := r.takeChange(native, nil, &ports.Change{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: remaining}}); err != nil {
			t.Fatal(err)
		}
	}
	tell("liar", 10*time.Second)
	fills("liar")
	tell("another", 30*time.Second)
	fills("liar")
	tell("trusted", 20*time.Second)
	fills("")
	r.Age(15 * time.Second)
	r.Sweep()
	fills("") // by the word of trusted
	r.Age(10 * time.Second)
	r.Sweep()
	fills("another")
	if _, err := r.Register(t.Context(), is, ports.Registration{PeerID: is, Addr: "/a"}); err != nil {
		t.Fatal(err)
	}
	fills("")
	r.Age(10 * time.Second) // the word of another has ended
	r.Sweep()
	fills("")
}

// Two natives tell the same indexers, and the first takes its word back as soon as its share is full.
func TestAttackTwoNativesFillNoMoreThanTheirShares(t *testing.T) {
	r, _ := sharedRegistry(t, 80)
	for i := range 80 {
		id := indexerOf("liar", i)
		for _, native := range []ports.PeerID{"liar", "liar 2"} {
			e := ports.Entry{PeerID: id, Addr: "/a", Native: native, ExpiresAt: time.Now().Add(time.Minute)}
			r.takeChanges(native, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: time.Minute}}})
		}
		e := ports.Entry{PeerID: id, Native: "liar", ExpiresAt: time.Now().Add(time.Hour), Leave: true}
		r.takeChanges("liar", []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: e, Remaining: time.Second}}})
	}
	if got := r.table.len(); got > 20 {
		t.Errorf("they fill %d places, want at most their shares of 10 each", got)
	}
	checkShares(t, r, 10)
}

func TestWatchersAreToldOfAnEviction(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, stop := newWatchedRegistry(t)
		defer stop()
		r.settings.Bounds.Entries = 1
		r.tell(ports.ChangeJoined, "n1", "n1", 30*time.Second)
		if registers(r.Registry, 1) != 1 {
			t.Error("the only place of the table is not given to the indexer that registers")
		}
		r.pass(1)
		if want := []string{"joined@0s", "expired@0s", "joined@0s"}; !slices.Equal(r.told, want) {
			t.Errorf("told %v, want %v", r.told, want)
		}
	})
}

// The shares add up, whatever comes in whatever order.
func TestTheSharesAddUp(t *testing.T) {
	natives := []ports.PeerID{"liar", "another", "trusted"}
	rapid.Check(t, func(rt *rapid.T) {
		r, _ := sharedRegistry(t, 24)
		here := map[ports.PeerID]bool{}   // it registered, and did not leave or end
		passed := map[ports.PeerID]bool{} // a peer that tells it may fill its place without room in the share
		for range rapid.IntRange(1, 120).Draw(rt, "steps") {
			id := ports.PeerID(fmt.Sprint("x", rapid.IntRange(0, 40).Draw(rt, "indexer")))
			native := rapid.SampledFrom(natives).Draw(rt, "native")
			left := time.Duration(rapid.IntRange(1, 66).Draw(rt, "left")) * time.Second
			e := ports.Entry{PeerID: id, Addr: rapid.SampledFrom([]string{"/a", "/b"}).Draw(rt, "addr"), Native: native, ExpiresAt: r.rules.wall().Add(left)}
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0:
				_, err := r.Register(context.Background(), id, ports.Registration{PeerID: id, Addr: e.Addr})
				if _, filled := largestOf(r); err != nil && filled > 0 {
					rt.Fatalf("%v, and strangers fill %d places", err, filled)
				}
				here[id], passed[id] = err == nil, true
			case 1:
				_ = r.Leave(context.Background(), id, nil)
				here[id], passed[id] = false, true
			case 2:
				passed[id] = passed[id] || native == "trusted"
				_, _, _ = r.takeEntry(id, native, e)
			case 3:
				age := time.Duration(rapid.IntRange(1, 40).Draw(rt, "age")) * time.Second
				r.Age(age)
				r.Sweep()
				for id := range here {
					listed, ok := r.Get(id)
					here[id] = here[id] && ok && listed.Source == ports.SourceOwn
				}
			default:
				kind := rapid.SampledFrom([]ports.ChangeKind{ports.ChangeJoined, ports.ChangeJoined, ports.ChangeLeft}).Draw(rt, "kind")
				passed[id] = passed[id] || native == "trusted"
				r.takeChanges(native, []ports.Change{{Kind: kind, Listed: ports.Listed{Entry: e, Remaining: left}}})
			}
			if r.table.len() > 24 {
				rt.Fatalf("the table has %d entries of 24", r.table.len())
			}
			checkShares(rt, r, r.table.tellers.most+len(passed))
			for id, is := range here {
				if _, ok := r.Get(id); is && !ok {
					rt.Fatalf("%s, which registered, is not listed", id)
				}
			}
		}
	})
}

func largestOf(r *Registry) (id ports.PeerID, filled int) {
	if is := r.table.tellers.largest(); is != nil {
		return is.id, is.records
	}
	return "", 0
}

// checkShares compares the counts of the shares with the records, and with the most that a peer may
// fill.
func checkShares(t interface{ Fatalf(string, ...any) }, r *Registry, most int) {
	counted := map[*teller]int{}
	for i := range r.table.shards {
		s := &r.table.shards[i]
		inShard := 0
		for n := range s.index.all {
			rec := s.at(s.ref(n))
			if is, filled := s.shares.of[rec.ref]; filled {
				counted[is.teller]++
				inShard++
				if is.teller.id == "trusted" || rec.is(owned) || s.shares.from[is.teller][is.at] != rec.ref {
					t.Fatalf("%s is counted to %+v", rec.id(), is)
				}
			}
		}
		listed := 0
		for _, all := range s.shares.from {
			listed += len(all)
		}
		if inShard != listed || inShard != len(s.shares.of) {
			t.Fatalf("a shard has %d such records, %d in its lists and %d places", inShard, listed, len(s.shares.of))
		}
	}
	all := r.table.tellers.byID
	if len(counted) != len(all) {
		t.Fatalf("%d peers fill records, and %d are counted", len(counted), len(all))
	}
	for of, n := range counted {
		if all[of.id] != of || of.records != n || n > most {
			t.Fatalf("%s fills %d, and is counted for %d of %d", of.id, n, of.records, most)
		}
	}
}

// Registrations, words of natives and evictions meet in all shards.
func TestSharesUnderLoad(t *testing.T) {
	r, _ := sharedRegistry(t, 400)
	var running sync.WaitGroup
	for _, native := range []ports.PeerID{"liar", "liar 2", "trusted"} {
		running.Go(func() {
			for range 5 {
				tells(r, native, 100)
			}
		})
	}
	granted := 0
	running.Go(func() { granted = registers(r, 300) })
	running.Wait()
	if granted != 300 || lists(r, "me", 300) != 300 || r.table.len() > 410 { // some come in at once beside the last place
		t.Errorf("%d of 300 were granted a lease, and the table has %d entries of 400", granted, r.table.len())
	}
	checkShares(t, r, r.table.tellers.most+400)
}

// This native stood still, and shows what it was told before as stale.
func TestAStaleIndexerGivesWay(t *testing.T) {
	for name, swept := range map[string]bool{"swept": true, "before the sweep": false} {
		t.Run(name, func(t *testing.T) {
			r, _ := sharedRegistry(t, 80)
			hearing := &r.table.hearing
			if tells(r, "liar", 10) != 10 || tells(r, "trusted", 70) != 70 {
				t.Fatal("the table is not full")
			}
			hearing.sweeps(r.now().at)
			r.Age(100 * time.Second)
			hearing.sweeps(r.now().at)
			if swept {
				r.Sweep()
			}
			if listed, _ := r.Get(indexerOf("liar", 0)); listed.State != ports.StateStale {
				t.Fatalf("it lists %+v, want a stale entry", listed)
			}
			for range 10 {
				if !r.makeRoom() {
					t.Error("a stale indexer does not give way")
				}
			}
			if r.makeRoom() || r.table.len() != 70 || r.Stale() > 70 {
				t.Errorf("%d indexers are left, %d of them stale", r.table.len(), r.Stale())
			}
			checkShares(t, r, 10)
		})
	}
}
