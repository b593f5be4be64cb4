package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// indexerOf runs an indexer on natives until stop is called, which returns how long that took.
func indexerOf(t *testing.T, natives *Natives) (*porttest.Recorder, func() time.Duration) {
	t.Helper()
	events := &porttest.Recorder{}
	x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, natives, func() ports.Registration {
		return ports.Registration{PeerID: "me", Addr: "here"}
	}, events)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = x.Run(ctx) }()
	return events, func() time.Duration {
		began := time.Now()
		cancel()
		<-done
		return time.Since(began)
	}
}

func TestAnIndexerTakesThreeOfWhatItFinds(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		all := w.natives(10, grants)
		w.connect(all[0])
		w.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, w, w))
		synctest.Wait()
		holding := w.holding()
		if len(holding) != wantedNatives || !slices.Contains(holding, all[0]) {
			t.Errorf("leases at %v, want three with %s, the one that is connected", holding, all[0])
		}
		time.Sleep(time.Hour)
		if now := w.holding(); !slices.Equal(now, holding) {
			t.Errorf("leases at %v, want the same three %v", now, holding)
		}
		if w.looked() != 1 {
			t.Errorf("it looked around %d times with three that answer", w.looked())
		}
		stop()
		if left := w.holding(); len(left) != 0 {
			t.Errorf("leases at %v after the stop", left)
		}
	})
}

func TestOneNeighbourIsEnoughUntilThereAreMore(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		all := w.natives(5, grants)
		_, stop := indexerOf(t, FindNatives("me", nil, w, w))
		defer stop()
		time.Sleep(10 * time.Minute)
		if n := w.looked(); n < 20 || n > 40 {
			t.Errorf("with no native at all it looked %d times in ten minutes, want once in half a heartbeat", n)
		}
		w.connect(all[0])
		synctest.Wait()
		if !slices.Equal(w.holding(), all[:1]) {
			t.Errorf("leases at %v right after the first has connected", w.holding())
		}
		time.Sleep(time.Hour)
		before := w.looked()
		time.Sleep(time.Hour)
		if n := w.looked() - before; n < 10 || n > 15 {
			t.Errorf("with one native it looked %d times in an hour, want once in five minutes", n)
		}
		if !slices.Equal(w.holding(), all[:1]) {
			t.Errorf("leases at %v, want only %s", w.holding(), all[0])
		}
		w.find(all...)
		time.Sleep(lookPauses * time.Minute)
		if len(w.holding()) != wantedNatives || w.counts(w.left, all[0]) != 0 {
			t.Errorf("leases at %v, want three with the first", w.holding())
		}
	})
}

func TestThoseThatAnswerArePreferred(t *testing.T) {
	for _, worse := range []behaviour{down, hangs, mute, refuses} {
		t.Run(fmt.Sprint(worse), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				w := newTown()
				bad, good := w.natives(3, worse), w.natives(3, grants)
				w.connect(bad...)
				w.find(good...)
				_, stop := indexerOf(t, FindNatives("me", nil, w, w))
				time.Sleep(2 * time.Minute)
				for _, id := range good {
					if !slices.Contains(w.holding(), id) {
						t.Errorf("leases at %v, want %v", w.holding(), good)
					}
				}
				registered := map[ports.PeerID]int{}
				for _, id := range bad {
					registered[id] = w.counts(w.registered, id)
				}
				time.Sleep(10 * time.Minute)
				for _, id := range bad {
					if n := w.counts(w.registered, id); n > registered[id] {
						t.Errorf("with three that answer it still registers with %s", id)
					}
				}
				stop()
			})
		})
	}
}

// Natives of the seed take registrations and never answer; where there are no others, they
// are what an indexer has.
func TestThreeOfTheSeedAreKept(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		w.find(w.natives(8, mute)...)
		events, stop := indexerOf(t, FindNatives("me", nil, w, w))
		time.Sleep(5 * time.Minute)
		total := 0
		for range 60 {
			time.Sleep(time.Minute)
			total += len(w.holding())
		}
		if total < 60*wantedNatives || total > 60*(wantedNatives+2) {
			t.Errorf("on average it has %.1f leases, want three and a few that are tried", float64(total)/60)
		}
		if took := stop(); took > 0 {
			t.Errorf("the stop took %v", took)
		}
		if events.Count(ports.EventLeaseLeft) != 0 {
			t.Error("a leave that is not offered is told of")
		}
	})
}

func TestADeadNativeIsReplaced(t *testing.T) {
	for _, how := range []behaviour{down, hangs, refuses} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				w := newTown()
				all := w.natives(4, grants)
				w.find(all...)
				_, stop := indexerOf(t, FindNatives("me", nil, w, w))
				time.Sleep(90 * time.Second)
				before := w.holding()
				dead := before[1]
				w.set(how, dead)
				time.Sleep(30 * time.Second)
				for _, id := range all {
					if id != dead && !slices.Contains(w.holding(), id) {
						t.Errorf("30 s after %s died, leases are at %v", dead, w.holding())
					}
				}
				time.Sleep(10 * time.Minute)
				tried := w.counts(w.registered, dead)
				time.Sleep(10 * time.Minute)
				if n := w.counts(w.registered, dead); n != tried {
					t.Errorf("with three others it still registers with the dead one")
				}
				w.set(grants, dead)
				w.set(down, slices.DeleteFunc(all, func(id ports.PeerID) bool { return id == dead })...)
				time.Sleep(time.Minute)
				if !slices.Equal(w.holding(), []ports.PeerID{dead}) {
					t.Errorf("a minute after all others died, leases are at %v", w.holding())
				}
				stop()
			})
		})
	}
}

func TestWhatItHasIsNotGivenUpForTheSakeOfLooking(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		all := w.natives(3, grants)
		w.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, w, w))
		defer stop()
		time.Sleep(time.Minute)
		w.set(down, all...)
		bad := w.natives(20, down)
		w.find(append(bad, all...)...)
		time.Sleep(20 * time.Minute)
		w.set(grants, all...)
		time.Sleep(time.Minute)
		if !slices.Equal(w.holding(), all) {
			t.Errorf("leases at %v a heartbeat after the only natives came back", w.holding())
		}
	})
}

func TestPinnedNativesStayPinned(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		all := w.natives(6, grants)
		w.find(all...)
		w.connect(all...)
		pinned := map[ports.PeerID]ports.Native{}
		for _, id := range all[:4] {
			pinned[id] = resident{w: w, id: id}
		}
		_, stop := indexerOf(t, PinNatives(pinned))
		time.Sleep(time.Minute)
		w.set(down, all[0])
		time.Sleep(10 * time.Minute)
		if !slices.Equal(w.holding(), all[1:4]) || w.looked() != 0 {
			t.Errorf("leases at %v, and %d looks; want %v alone", w.holding(), w.looked(), all[1:4])
		}
		w.set(grants, all[0])
		time.Sleep(time.Minute)
		if !slices.Equal(w.holding(), all[:4]) {
			t.Errorf("leases at %v, want %v again", w.holding(), all[:4])
		}
		stop()
		if len(w.holding()) != 0 {
			t.Errorf("leases at %v after the stop", w.holding())
		}
	})
}

func TestAStopLeavesAndTakesASecondAtMost(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		good, hung, dead, seed := w.natives(1, grants), w.natives(2, grants), w.natives(1, grants), w.natives(1, mute)
		pinned := map[ports.PeerID]ports.Native{}
		for _, id := range slices.Concat(good, hung, dead, seed) {
			pinned[id] = resident{w: w, id: id}
		}
		events, stop := indexerOf(t, PinNatives(pinned))
		time.Sleep(time.Minute)
		w.set(hangs, hung...)
		w.set(down, dead...)
		time.Sleep(time.Second / 2) // and there are registrations under way with them
		if took := stop(); took > leaveTimeout {
			t.Errorf("the stop took %v, want %v at most", took, leaveTimeout)
		}
		if w.counts(w.left, good[0]) != 1 {
			t.Error("it did not leave the one that answers")
		}
		told := map[ports.PeerID]error{}
		for _, e := range events.Of(ports.EventLeaseLeft) {
			told[e.Via] = e.Err
		}
		if len(told) != 4 || told[good[0]] != nil || !errors.Is(told[hung[0]], context.DeadlineExceeded) || !errors.Is(told[dead[0]], errDown) {
			t.Errorf("told of %v", told)
		}
	})
}

func TestItLeavesTheNativesThatItReplacedToo(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		all := w.natives(4, grants)
		w.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, w, w))
		time.Sleep(time.Second)
		replaced := w.holding()[0]
		w.set(refuses, replaced) // its lease lasts, and it takes a leave
		time.Sleep(10 * time.Second)
		if len(w.holding()) != 4 {
			t.Fatalf("leases at %v, want all", w.holding())
		}
		stop()
		if len(w.holding()) != 0 {
			t.Errorf("leases at %v after the stop", w.holding())
		}
	})
}

func TestALeaseThatHasLapsedIsNotLeft(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		id := w.natives(1, grants)[0]
		events, stop := indexerOf(t, PinNatives(map[ports.PeerID]ports.Native{id: resident{w: w, id: id}}))
		time.Sleep(time.Second)
		w.set(down, id)
		time.Sleep(domain.DefaultTTLPolicy().TTL)
		if took := stop(); took > 0 || events.Count(ports.EventLeaseLeft) != 0 {
			t.Errorf("the stop took %v, and %d leaves were told of", took, events.Count(ports.EventLeaseLeft))
		}
	})
}

// A registration that a stop breaks off may have been granted unheard.
func TestARegistrationThatIsBrokenOffIsLeft(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		id := w.natives(1, hangs)[0]
		events, stop := indexerOf(t, PinNatives(map[ports.PeerID]ports.Native{id: resident{w: w, id: id}}))
		time.Sleep(time.Second)
		if took := stop(); took > leaveTimeout || events.Count(ports.EventLeaseLeft) != 1 {
			t.Errorf("the stop took %v, and %d leaves were told of, want one", took, events.Count(ports.EventLeaseLeft))
		}
	})
}

// TestAnIndexerIsFoundWhereverAnyNativeIs lets natives come, go and change at random, and
// wants what an indexer must never lack.
func TestAnIndexerIsFoundWhereverAnyNativeIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [3]int {
			return [3]int{rapid.IntRange(0, 7).Draw(rt, "native"), rapid.IntRange(0, int(refuses)).Draw(rt, "does"), rapid.IntRange(0, 90).Draw(rt, "seconds")}
		}), 1, 30).Draw(rt, "steps")
		var failure string
		porttest.FakeTime(t, func(t *testing.T) {
			w := newTown()
			all := w.natives(8, down)
			w.find(all...)
			_, stop := indexerOf(t, FindNatives("me", nil, w, w))
			for _, s := range steps {
				w.set(behaviour(s[1]), all[s[0]])
				time.Sleep(time.Duration(s[2]) * time.Second)
			}
			time.Sleep(retrySilent + 5*time.Minute) // all is calm, and who said nothing is tried again
			good := 0
			for _, id := range all {
				if w.does[id] == grants {
					good++
				}
			}
			at := 0
			for _, id := range w.holding() {
				if w.does[id] == grants {
					at++
				}
			}
			if want := min(good, wantedNatives); at < want || at > want+1 {
				failure = fmt.Sprintf("%d natives answer, and %d of them have a lease", good, at)
			}
			if took := stop(); took > leaveTimeout {
				failure = fmt.Sprintf("the stop took %v", took)
			}
			for _, id := range w.holding() {
				if w.does[id] == grants {
					failure = fmt.Sprintf("%s still has a lease after the stop", id)
				}
			}
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// Whoever connects in numbers, and fails, is not asked over and over, nor does it keep out
// those that are found.
func TestMoreNeighboursThanAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		connected int
		do        behaviour
	}{{maxCandidates - 4, mute}, {maxCandidates + 6, mute}, {maxCandidates + 6, down}, {3 * maxCandidates, down}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				w := newTown()
				w.connect(w.natives(tt.connected, tt.do)...)
				honest := w.natives(3, grants)
				w.find(honest...)
				_, stop := indexerOf(t, FindNatives("me", nil, w, w))
				defer stop()
				time.Sleep(2 * time.Second)
				w.mu.Lock()
				tried := 0
				for _, n := range w.registered {
					tried += n
				}
				w.mu.Unlock()
				// Each at most at 0 s, after 0.5 to 1 s, and after 1 to 2 s more.
				if tried > 4*(tt.connected+len(honest)) {
					t.Errorf("%d neighbours were asked %d times in 2 s", tt.connected, tried)
				}
				time.Sleep(5 * time.Minute)
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, id := range honest {
					if w.leases[id].Before(time.Now()) {
						t.Errorf("no lease at %s, which was found", id)
					}
				}
			})
		})
	}
}

func TestAnIndexerTakesTrustedNativesAlone(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		strangers, trusted := w.natives(5, grants), w.natives(4, grants)
		var list atomic.Pointer[[]ports.PeerID]
		list.Store(&trusted)
		trusts := func(id ports.PeerID) bool { return slices.Contains(*list.Load(), id) }
		w.find(append(strangers[:3:3], trusted...)...)
		w.connect(strangers...)
		natives := FindNatives("me", trusts, w, w)
		_, stop := indexerOf(t, natives)
		defer stop()
		holds := func(want ...ports.PeerID) {
			t.Helper()
			time.Sleep(2 * lookPauses * time.Minute) // one that has some looks for more as seldom
			synctest.Wait()
			held := w.holding()
			stranger := slices.ContainsFunc(held, func(id ports.PeerID) bool { return !slices.Contains(want, id) })
			if len(held) != min(len(want), wantedNatives) || stranger {
				t.Errorf("it has leases at %v, want up to three of %v", held, want)
			}
		}
		holds(trusted...)
		one := trusted[3:]
		list.Store(&one)
		natives.Revise()
		holds(one...)
		list.Store(&trusted)
		natives.Revise()
		holds(trusted...)
	})
}
