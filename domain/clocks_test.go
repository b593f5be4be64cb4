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
type hand struct{ ahead atomic.Int64 }

func (h *hand) set(d time.Duration) { h.ahead.Store(int64(d)) }
func (h *hand) read() time.Duration { return time.Duration(h.ahead.Load()) }
func (h *hand) clock() *domain.Clock {
	return domain.NewClock(func() time.Time { return time.Now().Add(h.read()) })
}

// town is some natives, indexers that live with each and with all of them, and one that has
// died, whose last word is said again all the time.
type town struct {
	*mesh
	natives []*follower
	clocks  []*hand // of the natives
	living  []*source
	dead    ports.PeerID

	lies    sync.Map
	samples int
}

func settled(t *testing.T, natives int, indexers *hand, f func(t *testing.T, w *town)) {
	keys := prooftest.NewSigners(t, natives+2)
	proven(t, func(t *testing.T, m *mesh) {
		w := &town{mesh: m}
		ids := peerIDs(natives)
		for _, id := range ids {
			h := &hand{}
			w.clocks = append(w.clocks, h)
			w.natives = append(w.natives, m.native(id, member{store: poisoned{m.space.Join(), &w.lies}, topic: m.topic, clock: h.read, lone: natives == 1}))
		}
		if natives > 1 {
			time.Sleep(time.Second)
		}
		dead := m.indexer(keys[0], how{addr: addr}, ids...)
		w.dead = dead.id
		for i, key := range keys[1:] {
			at := ids
			if i < natives {
				at = ids[i : i+1]
			}
			h := how{addr: addr}
			if indexers != nil {
				h.clock = indexers.clock()
			}
			w.living = append(w.living, m.indexer(key, h, at...))
		}
		time.Sleep(time.Duration(3*60+rand.IntN(60)) * time.Second)
		last, err := w.natives[0].store.Local(dead.id, ports.Version{})
		if err != nil || last.Proof == nil {
			t.Fatalf("the store has %+v, %v", last, err)
		}
		dead.kill()
		time.Sleep(70 * time.Second)
		w.lies.Store(dead.id, last)
		f(t, w)
		for _, x := range w.living {
			x.kill()
		}
		m.stop(w.natives...)
	})
}

// watch has the test fail if one that lives is missing anywhere, or the dead one is listed, at
// any tenth of a second.
func (w *town) watch(d time.Duration) {
	w.t.Helper()
	voice := w.topic.Join("somebody")
	defer voice.Close()
	for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		for i, n := range w.natives {
			for j, x := range w.living {
				w.samples++
				if !n.lists(x.id) {
					w.t.Fatalf("after %v native %d does not list indexer %d, which lives", time.Since(began), i, j)
				}
			}
			if got, ok := n.Get(w.dead); ok {
				w.t.Fatalf("after %v native %d lists the dead one: %+v", time.Since(began), i, got)
			}
		}
		if time.Since(began)%(5*time.Second) < 100*time.Millisecond {
			_ = voice.Announce(w.t.Context(), w.dead)
		}
	}
}

func TestAttackAClockOfANativeThatJumpsLosesNobodyAndRevivesNobody(t *testing.T) {
	for _, natives := range []int{3, 2, 1} {
		for _, jump := range []time.Duration{-time.Hour, time.Hour, -time.Minute, time.Minute} {
			t.Run(fmt.Sprintf("one of %d, by %v", natives, jump), func(t *testing.T) {
				settled(t, natives, nil, func(t *testing.T, w *town) {
					w.watch(10 * time.Second)
					wrong := w.natives[0]
					wrong.Take()
					w.clocks[0].set(jump)
					w.watch(prooftest.Brief(10 * time.Minute))
					told := wrong.Of(ports.EventClock)
					// One that hears from nobody has nothing else to go by when it is set ahead.
					if want := natives > 1 || jump < 0; want != (len(told) == 1) || want && told[0].Took.Round(time.Second) != jump {
						t.Errorf("told of its clock: %+v, which is %v ahead", told, jump)
					}
					for i, n := range w.natives[1:] {
						if told := n.Of(ports.EventClock); len(told) > 0 {
							t.Errorf("native %d, whose clock is right: %+v", i+1, told)
						}
					}
					w.clocks[0].set(0)
					w.watch(prooftest.Brief(70 * time.Minute)) // for longer than a record counts
					t.Logf("%d samples", w.samples)
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
					h := &hand{}
					h.set(from)
					settled(t, natives, h, func(t *testing.T, w *town) {
						w.watch(10 * time.Second)
						h.set(off - from) // those that began right are off, and the others right
						w.watch(prooftest.Brief(70 * time.Minute))
						for i, n := range w.natives {
							if told := n.Of(ports.EventClock); len(told) > 0 {
								t.Errorf("native %d, whose clock is right: %+v", i, told)
							}
							for _, x := range w.living {
								// Who was an hour ahead is proven when its first number is not ahead any more.
								if got, ok := n.Get(x.id); !ok || got.Proof == nil && !prooftest.Race || got.ExpiresAt.After(time.Now().Add(domain.DefaultTTLPolicy().TTL+time.Second)) {
									t.Errorf("native %d lists %v %+v, want it proven", i, ok, got)
								}
							}
						}
						t.Logf("%d samples", w.samples)
					})
				}
			})
		}
	}
}
