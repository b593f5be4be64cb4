package modules_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/fnv"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// strangers are PeerIDs of nobody in the simulated network.
func strangers(t testing.TB, n int) []ports.PeerID {
	t.Helper()
	ids := make([]ports.PeerID, n)
	for i := range ids {
		_, public, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = ports.PeerID(id.String())
	}
	return ids
}

// enter registers each in process, without a node behind it.
func enter(t testing.TB, m *member, ids []ports.PeerID) {
	t.Helper()
	for _, id := range ids {
		h := fnv.New32a() // the same address each time
		_, _ = h.Write([]byte(id))
		i := h.Sum32()
		r := ports.Registration{PeerID: id, Addr: fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", i>>16&255, i>>8&255, i&255)}
		if _, err := m.node.Registry().Register(context.Background(), id, r); err != nil {
			t.Fatal(err)
		}
	}
}

// plain starts natives that have nothing but each other to hear from: no DHT, no gossip.
func (s *simulation) plain(n int) []*member {
	var natives []*member
	for i := range n {
		m := s.member(fmt.Sprintf("plain-%d", i), map[string]string{"modules": "native"})
		if i > 0 {
			m.settings["host.bootstrap"] = natives[0].addr()
		}
		m.start()
		natives = append(natives, m)
	}
	time.Sleep(3 * time.Second)
	return natives
}

func TestSimALateNativeIsWholeWithinTwoSecondsOfConnecting(t *testing.T) {
	many := strangers(t, porttest.Scale(10_000, 2_000))
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.plain(2)
		enter(t, natives[0], many[:len(many)/2])
		enter(t, natives[1], many[len(many)/2:])
		for _, id := range many[:100] {
			if err := natives[0].node.Registry().Leave(t.Context(), id, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		late := s.member("late", map[string]string{"modules": "native", "host.bootstrap": natives[0].addr() + "," + natives[1].addr()})
		late.start()
		took, ok := until(2*time.Second, func() bool { return count(late) == len(many)-100 })
		t.Logf("whole after %v, at %v one way", took, s.latency)
		if !ok {
			t.Errorf("2 s after it started it lists %d of %d", count(late), len(many)-100)
		}
		if _, ok := until(time.Second, func() bool { return late.node.Registry().Condition() == "" }); !ok {
			t.Errorf("it is %s", late.node.Registry().Condition())
		}
		stopAll([]*member{late}, natives)
	})
}

func TestSimNativesThatWereCutOffHoldTheSameTableWithinTwoSecondsOfTheCutsEnd(t *testing.T) {
	for _, cut := range []time.Duration{5 * time.Second, 20 * time.Second, 90 * time.Second, 20 * time.Minute} {
		t.Run(cut.String(), func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(2, modules.Environment{})
				// One at each side, and each moves while nobody else hears of it.
				left, right := s.indexersAt("left-", 2, natives[:1], false), s.indexersAt("right-", 2, natives[1:], false)
				all := slices.Concat(left, right)
				s.settle(natives, all)
				s.away.Store(natives[1].ip, struct{}{})
				for _, x := range right { // these are on its side of the cut
					s.away.Store(x.ip, struct{}{})
				}
				time.Sleep(cut)
				enter(t, natives[0], []ports.PeerID{newcomers[0]})
				enter(t, natives[1], []ports.PeerID{newcomers[1]})
				s.away.Clear()
				took, ok := until(10*time.Second, func() bool {
					_, a := natives[0].node.Registry().Get(newcomers[1])
					_, b := natives[1].node.Registry().Get(newcomers[0])
					return a && b
				})
				t.Logf("after a cut of %v one again within %v, at %v one way", cut, took, s.latency)
				if !ok || took > 2*time.Second {
					t.Errorf("one again only after %v", took)
				}
				stopAll(all, natives)
			})
		})
	}
}

// A native is cut off without a word. Each side lacks the indexers of the other from the end of their
// leases on, and says so by then.
func TestSimNoAbsenceGoesUnmarkedWhenPacketsAreDropped(t *testing.T) {
	ids := strangers(t, 30)
	for _, cut := range []time.Duration{3 * time.Second, 6 * time.Second, 20 * time.Second, 100 * time.Second} {
		t.Run(cut.String(), func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(3, modules.Environment{})
				due := make([]time.Time, len(ids))
				for i := range due {
					due[i] = time.Now().Add(time.Duration(i) * 2 * time.Second)
				}
				var absent, unmarked, named time.Duration
				pass := func(d time.Duration) (whole bool) {
					const step = 50 * time.Millisecond
					for began := time.Now(); time.Since(began) < d; time.Sleep(step) {
						for i, id := range ids {
							if !time.Now().Before(due[i]) {
								enter(t, natives[i%len(natives)], []ports.PeerID{id})
								due[i] = due[i].Add(time.Minute)
							}
						}
						synctest.Wait() // or a table and its condition are of two times
						whole = true
						for _, n := range natives {
							r := n.node.Registry()
							missing, condition := count(n) < len(ids), r.Condition()
							whole = whole && !missing && condition == ""
							if missing {
								absent += step
							}
							if missing && condition == "" {
								unmarked += step
							}
							if len(r.Missing()) > 0 {
								named += step
							}
						}
					}
					return whole
				}
				pass(2*time.Minute + time.Duration(s.random.Int64N(int64(time.Minute))))
				if absent, unmarked = 0, 0; !pass(time.Second) || absent > 0 {
					t.Fatal("it does not begin whole")
				}
				s.away.Store(natives[1].ip, struct{}{})
				pass(cut)
				s.away.Clear()
				healed := time.Now()
				for !pass(100*time.Millisecond) && time.Since(healed) < 10*time.Second {
				}
				took := time.Since(healed)
				t.Logf("absent for %v, %v of that unmarked, others named for %v; whole %v after the cut's end, at %v one way", absent, unmarked, named, took, s.latency)
				if unmarked > 0 {
					t.Errorf("absent for %v, and nobody said so", unmarked)
				}
				if took > 2*time.Second {
					t.Errorf("whole %v after the cut's end", took)
				}
				if cut > 10*time.Second && named == 0 {
					t.Error("nobody noticed the cut")
				}
				stopAll(natives)
			})
		})
	}
}

// newcomers are made outside of the bubbles.
var newcomers = func() (ids []ports.PeerID) {
	for range 2 {
		_, public, _ := crypto.GenerateEd25519Key(rand.Reader)
		id, _ := peer.IDFromPublicKey(public)
		ids = append(ids, ports.PeerID(id.String()))
	}
	return ids
}()

func TestSimAnIndexerThatStopsIsGoneEverywhereWithinTwoSecondsAndStaysGone(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		indexers := s.indexers(4, natives[:2], true)
		s.settle(natives, indexers)
		time.Sleep(time.Duration(s.random.Int64N(int64(2 * time.Minute))))
		x := indexers[0]
		id := x.node.PeerID()
		x.stop()
		gone := func() bool {
			for _, n := range natives {
				if _, ok := n.node.Registry().Get(id); ok {
					return false
				}
			}
			return true
		}
		took, ok := until(2*time.Second, gone)
		t.Logf("gone everywhere after %v, at %v one way", took, s.latency)
		if !ok {
			t.Errorf("2 s after it stopped it is listed")
		}
		// One native is replaced, and whoever asks for it gets nothing either.
		natives[2].stop()
		late := s.member("late", map[string]string{"modules": "native,dht,gossip", "host.bootstrap": natives[0].addr()})
		late.start()
		natives[2] = late
		for range 400 {
			time.Sleep(200 * time.Millisecond)
			if !gone() {
				t.Fatal("it is listed again")
			}
			if _, err := late.node.Registry().LookUp(t.Context(), "", id); err == nil {
				t.Fatal("it is found again")
			}
		}
		if took, ok := until(5*time.Second, everyone(natives, indexers[1:])); !ok {
			t.Errorf("the others are not listed by all after %v", took)
		}
		x.start() // and when it comes back, it is there
		if took, ok := until(5*time.Second, everyone(natives, indexers)); !ok {
			t.Errorf("not listed by all %v after it came back", took)
		}
		stopAll(indexers, natives)
	})
}

func TestSimNativesWhoseClocksDifferByAMinuteShowTheSameTable(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		var natives []*member
		for i, skew := range []time.Duration{-time.Minute, 0, time.Minute} {
			m := s.member(fmt.Sprintf("skewed-%d", i), map[string]string{"modules": "native,dht,gossip"})
			m.env = modules.Environment{Now: func() time.Time { return time.Now().Add(skew) }}
			if i > 0 {
				m.settings["host.bootstrap"] = natives[0].addr()
			}
			m.start()
			natives = append(natives, m)
		}
		time.Sleep(3 * time.Second)
		indexers := append(s.indexers(3, natives, false), s.indexersAt("all-", 3, natives, true)...)
		s.settle(natives, indexers)
		missing, samples := 0, 0
		for range 3000 {
			time.Sleep(100 * time.Millisecond)
			for _, n := range natives {
				for _, x := range indexers {
					samples++
					if !n.lists(x) {
						missing++
					}
				}
			}
		}
		t.Logf("%d samples, %d missing", samples, missing)
		if missing != 0 {
			t.Errorf("missing in %d of %d samples", missing, samples)
		}
		x := indexers[0]
		id := x.node.PeerID()
		x.stop()
		time.Sleep(2 * time.Second)
		for range 1000 {
			for _, n := range natives {
				if _, ok := n.node.Registry().Get(id); ok {
					t.Fatalf("%s lists who has left", n.name)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		stopAll(indexers[1:], natives)
	})
}

// A watcher is told of a change at another native.
func TestSimAChangeIsSeenByAWatcherOfAnotherNative(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		seen := make(chan time.Time, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b, err := range natives[1].node.Registry().Watch(ctx, "", ports.WatchRequest{}) {
				if err != nil {
					return
				}
				for _, c := range b.Changes {
					if c.Kind == ports.ChangeJoined {
						seen <- time.Now()
					}
				}
			}
		}()
		var took []time.Duration
		for range 100 {
			time.Sleep(time.Duration(s.random.Int64N(int64(time.Second))))
			began := time.Now()
			id := ports.PeerID(natives[0].node.PeerID())
			enter(t, natives[0], []ports.PeerID{id})
			took = append(took, (<-seen).Sub(began))
			if err := natives[0].node.Registry().Leave(t.Context(), id, nil); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(took)
		t.Logf("seen after %v in the median, %v at the latest, at %v one way", took[50], took[99], s.latency)
		if late := took[98]; late > 75*time.Millisecond+s.latency {
			t.Errorf("p99 is %v, at %v one way", late, s.latency)
		}
		cancel()
		<-done
		stopAll(natives)
	})
}
