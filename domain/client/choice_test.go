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
		net := newNetwork()
		all := net.natives(10, grants)
		net.connect(all[0])
		net.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, net, net))
		synctest.Wait()
		holding := net.holding()
		if len(holding) != wantedNatives || !slices.Contains(holding, all[0]) {
			t.Errorf("leases at %v, want three with %s, the one that is connected", holding, all[0])
		}
		time.Sleep(time.Hour)
		if now := net.holding(); !slices.Equal(now, holding) {
			t.Errorf("leases at %v, want the same three %v", now, holding)
		}
		if net.looked() != 1 {
			t.Errorf("it looked around %d times with three that answer", net.looked())
		}
		stop()
		if left := net.holding(); len(left) != 0 {
			t.Errorf("leases at %v after the stop", left)
		}
	})
}

func TestOneNeighbourIsEnoughUntilThereAreMore(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		all := net.natives(5, grants)
		_, stop := indexerOf(t, FindNatives("me", nil, net, net))
		defer stop()
		time.Sleep(10 * time.Minute)
		if n := net.looked(); n < 20 || n > 40 {
			t.Errorf("with no native at all it looked %d times in ten minutes, want once in half a heartbeat", n)
		}
		net.connect(all[0])
		synctest.Wait()
		if !slices.Equal(net.holding(), all[:1]) {
			t.Errorf("leases at %v right after the first has connected", net.holding())
		}
		time.Sleep(time.Hour)
		before := net.looked()
		time.Sleep(time.Hour)
		if n := net.looked() - before; n < 10 || n > 15 {
			t.Errorf("with one native it looked %d times in an hour, want once in five minutes", n)
		}
		if !slices.Equal(net.holding(), all[:1]) {
			t.Errorf("leases at %v, want only %s", net.holding(), all[0])
		}
		net.find(all...)
		time.Sleep(lookPauses * time.Minute)
		if len(net.holding()) != wantedNatives || net.counts(net.left, all[0]) != 0 {
			t.Errorf("leases at %v, want three with the first", net.holding())
		}
	})
}

func TestThoseThatAnswerArePreferred(t *testing.T) {
	for _, worse := range []behaviour{down, hangs, mute, refuses} {
		t.Run(fmt.Sprint(worse), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newNetwork()
				bad, good := net.natives(3, worse), net.natives(3, grants)
				net.connect(bad...)
				net.find(good...)
				_, stop := indexerOf(t, FindNatives("me", nil, net, net))
				time.Sleep(2 * time.Minute)
				for _, id := range good {
					if !slices.Contains(net.holding(), id) {
						t.Errorf("leases at %v, want %v", net.holding(), good)
					}
				}
				registered := map[ports.PeerID]int{}
				for _, id := range bad {
					registered[id] = net.counts(net.registered, id)
				}
				time.Sleep(10 * time.Minute)
				for _, id := range bad {
					if n := net.counts(net.registered, id); n > registered[id] {
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
		net := newNetwork()
		net.find(net.natives(8, mute)...)
		events, stop := indexerOf(t, FindNatives("me", nil, net, net))
		time.Sleep(5 * time.Minute)
		total := 0
		for range 60 {
			time.Sleep(time.Minute)
			total += len(net.holding())
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
				net := newNetwork()
				all := net.natives(4, grants)
				net.find(all...)
				_, stop := indexerOf(t, FindNatives("me", nil, net, net))
				time.Sleep(90 * time.Second)
				before := net.holding()
				dead := before[1]
				net.set(how, dead)
				time.Sleep(30 * time.Second)
				for _, id := range all {
					if id != dead && !slices.Contains(net.holding(), id) {
						t.Errorf("30 s after %s died, leases are at %v", dead, net.holding())
					}
				}
				time.Sleep(10 * time.Minute)
				tried := net.counts(net.registered, dead)
				time.Sleep(10 * time.Minute)
				if n := net.counts(net.registered, dead); n != tried {
					t.Errorf("with three others it still registers with the dead one")
				}
				net.set(grants, dead)
				net.set(down, slices.DeleteFunc(all, func(id ports.PeerID) bool { return id == dead })...)
				time.Sleep(time.Minute)
				if !slices.Equal(net.holding(), []ports.PeerID{dead}) {
					t.Errorf("a minute after all others died, leases are at %v", net.holding())
				}
				stop()
			})
		})
	}
}

func TestWhatItHasIsNotGivenUpForTheSakeOfLooking(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		all := net.natives(3, grants)
		net.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, net, net))
		defer stop()
		time.Sleep(time.Minute)
		net.set(down, all...)
		bad := net.natives(20, down)
		net.find(append(bad, all...)...)
		time.Sleep(20 * time.Minute)
		net.set(grants, all...)
		time.Sleep(time.Minute)
		if !slices.Equal(net.holding(), all) {
			t.Errorf("leases at %v a heartbeat after the only natives came back", net.holding())
		}
	})
}

func TestPinnedNativesStayPinned(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		all := net.natives(6, grants)
		net.find(all...)
		net.connect(all...)
		pinned := map[ports.PeerID]ports.Native{}
		for _, id := range all[:4] {
			pinned[id] = fakeNative{net: net, id: id}
		}
		_, stop := indexerOf(t, PinNatives(pinned))
		time.Sleep(time.Minute)
		net.set(down, all[0])
		time.Sleep(10 * time.Minute)
		if !slices.Equal(net.holding(), all[1:4]) || net.looked() != 0 {
			t.Errorf("leases at %v, and %d looks; want %v alone", net.holding(), net.looked(), all[1:4])
		}
		net.set(grants, all[0])
		time.Sleep(time.Minute)
		if !slices.Equal(net.holding(), all[:4]) {
			t.Errorf("leases at %v, want %v again", net.holding(), all[:4])
		}
		stop()
		if len(net.holding()) != 0 {
			t.Errorf("leases at %v after the stop", net.holding())
		}
	})
}

func TestAStopLeavesAndTakesASecondAtMost(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		good, hung, dead, seed := net.natives(1, grants), net.natives(2, grants), net.natives(1, grants), net.natives(1, mute)
		pinned := map[ports.PeerID]ports.Native{}
		for _, id := range slices.Concat(good, hung, dead, seed) {
			pinned[id] = fakeNative{net: net, id: id}
		}
		events, stop := indexerOf(t, PinNatives(pinned))
		time.Sleep(time.Minute)
		net.set(hangs, hung...)
		net.set(down, dead...)
		time.Sleep(time.Second / 2) // and there are registrations under way with them
		if took := stop(); took > leaveTimeout {
			t.Errorf("the stop took %v, want %v at most", took, leaveTimeout)
		}
		if net.counts(net.left, good[0]) != 1 {
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
		net := newNetwork()
		all := net.natives(4, grants)
		net.find(all...)
		_, stop := indexerOf(t, FindNatives("me", nil, net, net))
		time.Sleep(time.Second)
		replaced := net.holding()[0]
		net.set(refuses, replaced) // its lease lasts, and it takes a leave
		time.Sleep(10 * time.Second)
		if len(net.holding()) != 4 {
			t.Fatalf("leases at %v, want all", net.holding())
		}
		stop()
		if len(net.holding()) != 0 {
			t.Errorf("leases at %v after the stop", net.holding())
		}
	})
}

func TestALeaseThatHasLapsedIsNotLeft(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		id := net.natives(1, grants)[0]
		events, stop := indexerOf(t, PinNatives(map[ports.PeerID]ports.Native{id: fakeNative{net: net, id: id}}))
		time.Sleep(time.Second)
		net.set(down, id)
		time.Sleep(domain.DefaultTTLPolicy().TTL)
		if took := stop(); took > 0 || events.Count(ports.EventLeaseLeft) != 0 {
			t.Errorf("the stop took %v, and %d leaves were told of", took, events.Count(ports.EventLeaseLeft))
		}
	})
}

// A registration that a stop breaks off may have been granted unheard.
func TestARegistrationThatIsBrokenOffIsLeft(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		id := net.natives(1, hangs)[0]
		events, stop := indexerOf(t, PinNatives(map[ports.PeerID]ports.Native{id: fakeNative{net: net, id: id}}))
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
			net := newNetwork()
			all := net.natives(8, down)
			net.find(all...)
			_, stop := indexerOf(t, FindNatives("me", nil, net, net))
			for _, s := range steps {
				net.set(behaviour(s[1]), all[s[0]])
				time.Sleep(time.Duration(s[2]) * time.Second)
			}
			time.Sleep(retrySilent + 5*time.Minute) // all is calm, and a silent native is tried again
			good := 0
			for _, id := range all {
				if net.does[id] == grants {
					good++
				}
			}
			at := 0
			for _, id := range net.holding() {
				if net.does[id] == grants {
					at++
				}
			}
			if want := min(good, wantedNatives); at < want || at > want+1 {
				failure = fmt.Sprintf("%d natives answer, and %d of them have a lease", good, at)
			}
			if took := stop(); took > leaveTimeout {
				failure = fmt.Sprintf("the stop took %v", took)
			}
			for _, id := range net.holding() {
				if net.does[id] == grants {
					failure = fmt.Sprintf("%s still has a lease after the stop", id)
				}
			}
		})
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// Peers that connect in numbers, and fail, are not asked over and over. They do not keep out
// those that are found.
func TestMoreNeighboursThanAreRemembered(t *testing.T) {
	for _, tt := range []struct {
		connected int
		do        behaviour
	}{{maxCandidates - 4, mute}, {maxCandidates + 6, mute}, {maxCandidates + 6, down}, {3 * maxCandidates, down}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newNetwork()
				net.connect(net.natives(tt.connected, tt.do)...)
				honest := net.natives(3, grants)
				net.find(honest...)
				_, stop := indexerOf(t, FindNatives("me", nil, net, net))
				defer stop()
				time.Sleep(2 * time.Second)
				net.mu.Lock()
				tried := 0
				for _, n := range net.registered {
					tried += n
				}
				net.mu.Unlock()
				// Each at most at 0 s, after 0.5 to 1 s, and after 1 to 2 s more.
				if tried > 4*(tt.connected+len(honest)) {
					t.Errorf("%d neighbours were asked %d times in 2 s", tt.connected, tried)
				}
				time.Sleep(5 * time.Minute)
				net.mu.Lock()
				defer net.mu.Unlock()
				for _, id := range honest {
					if net.leases[id].Before(time.Now()) {
						t.Errorf("no lease at %s, which was found", id)
					}
				}
			})
		})
	}
}

func TestAnIndexerTakesTrustedNativesAlone(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		strangers, trusted := net.natives(5, grants), net.natives(4, grants)
		var list atomic.Pointer[[]ports.PeerID]
		list.Store(&trusted)
		trusts := func(id ports.PeerID) bool { return slices.Contains(*list.Load(), id) }
		net.find(append(strangers[:3:3], trusted...)...)
		net.connect(strangers...)
		natives := FindNatives("me", trusts, net, net)
		_, stop := indexerOf(t, natives)
		defer stop()
		holds := func(want ...ports.PeerID) {
			t.Helper()
			time.Sleep(2 * lookPauses * time.Minute) // one that has some looks for more as seldom
			synctest.Wait()
			held := net.holding()
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
