package domain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// withSleeper runs a test with a native that sleeps when it is told to: all that it does stands still
// while time goes by.
func withSleeper(t *testing.T, f func(t *testing.T, net *followingNetwork, n *followingNative, sleep func(time.Duration))) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		var slept atomic.Int64
		n := net.native(peerIDs(1)[0], nativeOptions{lone: true, sleeps: func() time.Duration { return time.Duration(slept.Load()) }})
		defer n.stop()
		f(t, net, n, func(d time.Duration) { slept.Add(int64(d)) })
	})
}

// states are what n says of ids: a state, or - for an indexer that it does not list.
func states(n *native, ids ...ports.PeerID) (states []string) {
	for _, id := range ids {
		l, ok := n.Get(id)
		if !ok {
			states = append(states, "-")
			continue
		}
		states = append(states, string(l.State))
	}
	return states
}

// snapshot is the first whole batch of a watch, as kind and state of each entry.
func snapshot(t *testing.T, n ports.Native, sender ports.PeerID, request ports.WatchRequest) (told []string, condition ports.Condition) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for b, err := range n.Watch(ctx, sender, request) {
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Changes {
			told = append(told, fmt.Sprintf("%s %s %v", c.Kind, c.State, c.Remaining > 0))
		}
		if b.Cursor != "" {
			return told, b.Condition
		}
	}
	return nil, ""
}

func TestANativeThatSleptSaysNothingOfThoseItDidNotHear(t *testing.T) {
	for _, tc := range []struct {
		slept time.Duration
		want  ports.State
	}{{5 * time.Second, ports.StateLive}, {30 * time.Second, ports.StateLive}, {66*time.Second - 1, ports.StateLate}, {66 * time.Second, ports.StateStale}, {8 * time.Hour, ports.StateStale}} {
		t.Run(tc.slept.String(), func(t *testing.T) {
			withSleeper(t, func(t *testing.T, net *followingNetwork, n *followingNative, sleep func(time.Duration)) {
				time.Sleep(time.Minute)
				ids := peerIDs(4)[1:]
				for _, id := range ids {
					n.register(t, id, addr)
				}
				sleep(tc.slept)
				// Nothing has swept since.
				stale := tc.want == ports.StateStale
				if got := states(n.native, ids...); got[0] != string(tc.want) || got[1] != got[0] || got[2] != got[0] {
					t.Errorf("listed as %v, want %s", got, tc.want)
				}
				unheard := tc.slept > 10*time.Second
				page, err := n.List(t.Context(), "", ports.Query{})
				if err != nil || len(page.Entries) != 3 || (page.Condition == ports.ConditionUnheard) != unheard {
					t.Errorf("%d entries, %q, %v", len(page.Entries), page.Condition, err)
				}
				answer, err := n.LookUp(t.Context(), "", ids[0])
				if err != nil || answer.State != tc.want || (answer.Remaining > 0) == stale {
					t.Errorf("looked up as %s, %v, %v", answer.State, answer.Remaining, err)
				}
				told, condition := snapshot(t, n, "", ports.WatchRequest{})
				if want := fmt.Sprintf("snapshot %s %v", tc.want, !stale); len(told) != 3 || told[0] != want || (condition == ports.ConditionUnheard) != unheard {
					t.Errorf("a watch begins with %v, %q; want %s", told, condition, want)
				}
				if told, _ := snapshot(t, n, "n2", ports.WatchRequest{Own: true}); (len(told) == 0) != stale {
					t.Errorf("another native is told %v", told)
				}
				if live, _ := n.Counts(); !stale && live != 3 {
					t.Errorf("%d live", live)
				}
				if tc.slept < 10*time.Second {
					return
				}

				_, err = n.Register(t.Context(), ids[0], ports.Registration{PeerID: ids[0], Addr: addr})
				if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
					t.Errorf("a registration that may have waited: %v", err)
				}
				time.Sleep(1500 * time.Millisecond) // a sweep
				end := tc.slept > time.Minute       // by now
				if live, _ := n.Counts(); end && (live != 0 || n.Stale() != 3) {
					t.Errorf("%d live, %d stale", live, n.Stale())
				}
				n.register(t, ids[0], addr)
				if !end {
					if c := n.Condition(); c != "" {
						t.Errorf("nobody is missing, and it says %q", c)
					}
					return
				}
				if got, want := states(n.native, ids...), []string{"live", "stale", "stale"}; !slices.Equal(got, want) {
					t.Errorf("then %v, want %v", got, want)
				}
				if c := n.Condition(); c != ports.ConditionUnheard {
					t.Errorf("most are not heard yet, and it says %q", c)
				}
				n.register(t, ids[1], addr)
				time.Sleep(63 * time.Second)
				if got, want := states(n.native, ids...), []string{"late", "late", "stale"}; !slices.Equal(got, want) {
					t.Errorf("just before a TTL is over %v, want %v", got, want)
				}
				time.Sleep(2900 * time.Millisecond)
				if got := states(n.native, ids...); got[2] != "-" {
					t.Errorf("after a TTL %v", got)
				}
				n.register(t, ids[0], addr)
				time.Sleep(2 * time.Second) // a sweep
				if c := n.Condition(); c != "" {
					t.Errorf("after a TTL it says %q", c)
				}
			})
		})
	}
}

func TestManyThatEndAtOnceAreStaleOnlyIfNothingIsHeard(t *testing.T) {
	for _, tc := range []struct {
		name    string
		line    ports.Line
		dead    int
		living  int
		hungUp  bool
		unheard bool
		want    string // once all leases have ended
	}{
		{"the line is lost", line(false), 3, 0, false, true, "stale"},
		{"no line is known of", nil, 3, 0, false, true, "stale"},
		{"a machine answers", line(true), 3, 0, false, false, "-"},
		{"they hung up", line(false), 3, 0, true, false, "-"},
		{"two are too few", line(false), 2, 0, false, true, "-"},
		{"the others renew", line(false), 3, 12, false, false, "-"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			withEachWatch(t, func(t *testing.T, net *followingNetwork) {
				n := net.native(peerIDs(1)[0], nativeOptions{lone: true, line: tc.line})
				defer n.stop()
				ids := peerIDs(20)[1:]
				living, dead := ids[:tc.living], ids[tc.living:tc.living+tc.dead]
				for _, id := range dead {
					n.register(t, id, addr)
					time.Sleep(time.Second)
				}
				if tc.hungUp {
					for _, id := range dead {
						n.HungUp(id, false)
					}
				}
				last := time.Now().Add(-time.Second)
				pass := func(since time.Duration) { // the last of the dead registered
					for i := 0; time.Since(last) < since; i++ {
						if len(living) > 0 {
							n.register(t, living[i%len(living)], addr)
						}
						time.Sleep(500 * time.Millisecond)
					}
				}
				pass(64 * time.Second)
				if (n.Condition() == ports.ConditionUnheard) != tc.unheard {
					t.Errorf("before the first lease ends it says %q", n.Condition())
				}
				pass(69 * time.Second)
				for _, got := range states(n.native, dead...) {
					if got != tc.want {
						t.Errorf("%s, want %s", got, tc.want)
					}
				}
				if (n.Condition() == ports.ConditionUnheard) != tc.unheard {
					t.Errorf("it says %q", n.Condition())
				}
				pass(131 * time.Second)
				if got := states(n.native, dead[tc.dead-1]); got[0] != tc.want {
					t.Errorf("just before another TTL %v", got)
				}
				pass(133 * time.Second)
				for _, got := range states(n.native, dead...) {
					if got != "-" {
						t.Errorf("a TTL after its end %s", got)
					}
				}
				if told := n.Count(ports.EventUnheard); (told > 0) != tc.unheard {
					t.Errorf("told %d times that it is unheard", told)
				}
			})
		})
	}
}

func TestANativeAsksOthersBeforeItDoubts(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  bool
		want string
	}{{"they hear none of them either", false, "-"}, {"none answers", true, "stale"}} {
		t.Run(tc.name, func(t *testing.T) {
			withEachWatch(t, func(t *testing.T, net *followingNetwork) {
				all := net.natives(2, nativeOptions{})
				defer net.stop(all...)
				time.Sleep(time.Second)
				ids := peerIDs(6)[3:]
				for _, id := range ids {
					all[0].register(t, id, addr)
				}
				if tc.cut {
					all[1].cut()
				}
				time.Sleep(69 * time.Second)
				for _, got := range states(all[0].native, ids...) {
					if got != tc.want {
						t.Errorf("%s, want %s", got, tc.want)
					}
				}
				for _, got := range states(all[1].native, ids...) {
					if got != "-" {
						t.Errorf("the other native, which did not hear them, lists %s", got)
					}
				}
			})
		})
	}
}

// An answer of another native shows an indexer that the native itself hears no more.
func TestAnIndexerThatAnotherNativeHearsIsLive(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		ids := peerIDs(6)[3:]
		other := net.scriptedNative("n2", nil)
		defer other.stop()
		n := net.native(peerIDs(1)[0], nativeOptions{})
		defer n.stop()
		time.Sleep(time.Second)
		for _, id := range ids {
			n.register(t, id, addr)
		}
		other.mu.Lock()
		other.find = func(id ports.PeerID) (ports.Answer, error) {
			if id != ids[0] {
				return ports.Answer{}, ports.ErrNotFound
			}
			return ports.Answer{Listed: ports.Listed{Entry: entryOf(id, "n2"), State: ports.StateLive, Source: ports.SourceOwn, Remaining: 50 * time.Second}}, nil
		}
		other.mu.Unlock()
		time.Sleep(69 * time.Second)
		synctest.Wait()
		if got, want := states(n.native, ids...), []string{"live", "-", "-"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// An indexer that a sleeping native did not hear may live at a native that it does not follow.
func TestAStaleIndexerIsLookedUpInTheStore(t *testing.T) {
	ids := peerIDs(5)
	moved, silent, slow := ids[1], ids[2], ids[3]
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		var slept atomic.Int64
		store := &stubStore{get: func(ctx context.Context, id ports.PeerID) (ports.Entry, error) {
			switch id {
			case moved:
				e := entryOf(id, ids[4])
				e.Addr, e.ExpiresAt = "/ip4/192.0.2.9/tcp/9", e.ExpiresAt.Add(time.Duration(slept.Load()))
				return e, nil
			case slow:
				<-ctx.Done()
			}
			return ports.Entry{}, ports.ErrNotFound
		}}
		n := net.native(ids[0], nativeOptions{lone: true, store: store, sleeps: func() time.Duration { return time.Duration(slept.Load()) }})
		defer n.stop()
		for _, id := range []ports.PeerID{moved, silent, slow} {
			n.register(t, id, addr)
		}
		slept.Store(int64(70 * time.Second))
		for id, want := range map[ports.PeerID]ports.State{moved: ports.StateLive, silent: ports.StateStale, slow: ports.StateStale} {
			answer, err := n.LookUp(t.Context(), "x", id)
			if err != nil || answer.State != want || (answer.Addr != addr) != (id == moved) {
				t.Errorf("looked up as %s at %s, %v; want %s", answer.State, answer.Addr, err, want)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if answer, err := n.LookUp(ctx, "x", id); err != nil || answer.State != want {
				t.Errorf("a caller that cannot wait hears %s, %v; want %s", answer.State, err, want)
			}
		}
	})
}

// A refresh of many known indexers takes long. The native hears its indexers all the same.
func TestALongRefreshIsNoStandstill(t *testing.T) {
	ids := peerIDs(102)
	withNetwork(t, func(t *testing.T, net *network) {
		n := net.native(ids[0], &stubStore{local: func(ports.PeerID) (ports.Entry, error) {
			time.Sleep(100 * time.Millisecond)
			return ports.Entry{}, ports.ErrNotFound
		}})
		defer n.stop()
		voice := net.topic.Join("somebody")
		defer voice.Close()
		for _, id := range ids[2:] {
			if err := voice.Announce(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		for range 60 { // a refresh of them takes 10 s
			time.Sleep(time.Second)
			if _, err := n.Register(t.Context(), ids[1], ports.Registration{PeerID: ids[1], Addr: addr}); err != nil || n.Condition() != "" {
				t.Fatalf("it says %q, and a registration: %v", n.Condition(), err)
			}
		}
		if got := n.Count(ports.EventUnheard); got != 0 {
			t.Errorf("told %d times that it stood still", got)
		}
	})
}

// Each indexer ends while its native sleeps. It may be trusted no more by the time that the native
// sweeps, or shows it as stale.
func TestAnIndexerThatIsTrustedNoMoreIsNotStale(t *testing.T) {
	for name, after := range map[string]time.Duration{"before a sweep": 0, "after it": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			for name, plain := range map[string]domain.Plain{"its name is off the list": domain.PlainAccept, "it does not sign": domain.PlainRefuse} {
				t.Run(name, func(t *testing.T) {
					withEachWatch(t, func(t *testing.T, net *followingNetwork) {
						var slept atomic.Int64
						var revised atomic.Bool
						id := peerIDs(3)
						net.rules.Indexers = func(x ports.PeerID) bool {
							return x != id[1] || plain == domain.PlainRefuse || !revised.Load()
						}
						net.rules.Plain = func() domain.Plain {
							if revised.Load() {
								return plain
							}
							return domain.PlainAccept
						}
						n := net.native(id[0], nativeOptions{lone: true, sleeps: func() time.Duration { return time.Duration(slept.Load()) }})
						defer n.stop()
						n.register(t, id[1], addr)
						slept.Store(int64(70 * time.Second))
						time.Sleep(after)
						if got := states(n.native, id[1]); got[0] != string(ports.StateStale) {
							t.Fatalf("listed as %v", got)
						}
						revised.Store(true)
						n.Revise()
						for range 3 {
							if got := states(n.native, id[1]); got[0] != "-" || n.Stale() > 0 {
								t.Errorf("listed as %v, and %d are stale", got, n.Stale())
							}
							time.Sleep(2 * time.Second)
						}
					})
				})
			}
		})
	}
}

// What has ended is not counted as live, be it listed.
func TestAWatchCountsNoStaleEntryAsLive(t *testing.T) {
	withSleeper(t, func(t *testing.T, net *followingNetwork, n *followingNative, sleep func(time.Duration)) {
		ids := peerIDs(4)[1:]
		for _, id := range ids {
			n.register(t, id, addr)
		}
		sleep(66 * time.Second)
		time.Sleep(1500 * time.Millisecond) // a sweep
		n.register(t, ids[0], addr)
		for b, err := range n.Watch(t.Context(), "", ports.WatchRequest{}) {
			if err != nil || len(b.Changes) != 3 || b.Live != 1 {
				t.Errorf("told of %d entries, of them %d live, %v; want 3 and 1", len(b.Changes), b.Live, err)
			}
			break
		}
	})
}
