package domain_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// hand is one of a clock, which somebody may set.
type settableClock struct{ ahead atomic.Int64 }

func (clock *settableClock) set(d time.Duration) { clock.ahead.Store(int64(d)) }
func (clock *settableClock) read() time.Duration { return time.Duration(clock.ahead.Load()) }
func (clock *settableClock) clock() *domain.Clock {
	return domain.NewClock(func() time.Time { return time.Now().Add(clock.read()) })
}

// town is some natives, indexers that live with each and with all of them, and one that has
// died, whose last word is said again all the time.
type settledNetwork struct {
	*followingNetwork
	natives []*followingNative
	clocks  []*settableClock // of the natives
	living  []*indexer
	dead    ports.PeerID

	lies    sync.Map
	samples int
}

func withSettledNetwork(t *testing.T, natives int, indexers *settableClock, f func(t *testing.T, net *settledNetwork)) {
	keys := prooftest.NewSigners(t, natives+2)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		s := &settledNetwork{followingNetwork: net}
		ids := peerIDs(natives)
		for _, id := range ids {
			clock := &settableClock{}
			s.clocks = append(s.clocks, clock)
			s.natives = append(s.natives, net.native(id, nativeOptions{store: lyingStore{net.space.Join(), &s.lies}, topic: net.topic, clock: clock.read, lone: natives == 1}))
		}
		if natives > 1 {
			time.Sleep(time.Second)
		}
		dead := net.indexer(keys[0], indexerOptions{addr: addr}, ids...)
		s.dead = dead.id
		for i, key := range keys[1:] {
			at := ids
			if i < natives {
				at = ids[i : i+1]
			}
			options := indexerOptions{addr: addr}
			if indexers != nil {
				options.clock = indexers.clock()
			}
			s.living = append(s.living, net.indexer(key, options, at...))
		}
		time.Sleep(time.Duration(3*60+rand.IntN(60)) * time.Second)
		last, err := s.natives[0].store.Local(dead.id, ports.Version{})
		if err != nil || last.Proof == nil {
			t.Fatalf("the store has %+v, %v", last, err)
		}
		dead.kill()
		time.Sleep(70 * time.Second)
		s.lies.Store(dead.id, last)
		f(t, s)
		for _, x := range s.living {
			x.kill()
		}
		net.stop(s.natives...)
	})
}

// watch has the test fail if one that lives is missing anywhere, or the dead one is listed, at
// any tenth of a second.
func (net *settledNetwork) watch(d time.Duration) {
	net.t.Helper()
	voice := net.topic.Join("somebody")
	defer voice.Close()
	for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		for i, n := range net.natives {
			for j, x := range net.living {
				net.samples++
				if !n.lists(x.id) {
					net.t.Fatalf("after %v native %d does not list indexer %d, which lives", time.Since(began), i, j)
				}
			}
			if got, ok := n.Get(net.dead); ok {
				net.t.Fatalf("after %v native %d lists the dead one: %+v", time.Since(began), i, got)
			}
		}
		if time.Since(began)%(5*time.Second) < 100*time.Millisecond {
			_ = voice.Announce(net.t.Context(), net.dead)
		}
	}
}

func TestAttackAClockOfANativeThatJumpsLosesNobodyAndRevivesNobody(t *testing.T) {
	for _, natives := range []int{3, 2, 1} {
		for _, jump := range []time.Duration{-time.Hour, time.Hour, -time.Minute, time.Minute} {
			t.Run(fmt.Sprintf("one of %d, by %v", natives, jump), func(t *testing.T) {
				withSettledNetwork(t, natives, nil, func(t *testing.T, net *settledNetwork) {
					net.watch(10 * time.Second)
					wrong := net.natives[0]
					wrong.Take()
					net.clocks[0].set(jump)
					net.watch(prooftest.Brief(10 * time.Minute))
					told := wrong.Of(ports.EventClock)
					// One that hears from nobody has nothing else to go by when it is set ahead.
					if want := natives > 1 || jump < 0; want != (len(told) == 1) || want && told[0].Took.Round(time.Second) != jump {
						t.Errorf("told of its clock: %+v, which is %v ahead", told, jump)
					}
					for i, n := range net.natives[1:] {
						if told := n.Of(ports.EventClock); len(told) > 0 {
							t.Errorf("native %d, whose clock is right: %+v", i+1, told)
						}
					}
					net.clocks[0].set(0)
					net.watch(prooftest.Brief(70 * time.Minute)) // for longer than a record counts
					t.Logf("%d samples", net.samples)
				})
			})
		}
	}
}

func TestAttackAClockOfAnIndexerThatJumpsOrIsOffLosesNobody(t *testing.T) {
	for _, natives := range []int{3, 1} {
		for _, off := range []time.Duration{-time.Hour, -time.Minute, time.Minute, time.Hour} {
			t.Run(fmt.Sprintf("with %d, by %v", natives, off), func(t *testing.T) {
				for _, from := range []time.Duration{0, off} {
					clock := &settableClock{}
					clock.set(from)
					withSettledNetwork(t, natives, clock, func(t *testing.T, net *settledNetwork) {
						net.watch(10 * time.Second)
						clock.set(off - from) // those that began right are off, and the others right
						net.watch(prooftest.Brief(70 * time.Minute))
						for i, n := range net.natives {
							if told := n.Of(ports.EventClock); len(told) > 0 {
								t.Errorf("native %d, whose clock is right: %+v", i, told)
							}
							for _, x := range net.living {
								// Who was an hour ahead is proven when its first number is not ahead any more.
								if got, ok := n.Get(x.id); !ok || got.Proof == nil && !prooftest.Race || got.ExpiresAt.After(time.Now().Add(domain.DefaultTTLPolicy().TTL+time.Second)) {
									t.Errorf("native %d lists %v %+v, want it proven", i, ok, got)
								}
							}
						}
						t.Logf("%d samples", net.samples)
					})
				}
			})
		}
	}
}
