package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// A native boots with a clock that is ahead, alone, and grants a lease to an indexer. Another native joins,
// before or after the clock is set right. Nobody believes what is not signed.
func TestANativeThatBootsAheadLosesNobody(t *testing.T) {
	keys := prooftest.NewSigners(t, 12) // a key each: what it has signed goes on counting
	for _, ahead := range []time.Duration{time.Hour, 50 * time.Minute} {
		for _, indexer := range []time.Duration{0, ahead} { // how far its clock is ahead until then
			for _, joins := range []string{"before", "after"} {
				if joins == "before" && indexer == 0 {
					continue // of two natives that differ neither is known to be right
				}
				key := keys[0]
				keys = keys[1:]
				t.Run(fmt.Sprintf("by %v, an indexer by %v, and another joins %s it is set right", ahead, indexer, joins), func(t *testing.T) {
					withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
						net.rules.Plain = refusing
						ids := peerIDs(2)
						clock, own := &settableClock{}, &settableClock{}
						clock.set(ahead)
						own.set(indexer)
						a := net.native(ids[0], nativeOptions{clock: clock.read, shares: true, lone: true})
						defer a.stop()
						x := net.indexer(key, indexerOptions{addr: addr, clock: own.clock()}, ids[0])
						defer x.kill()
						time.Sleep(10 * time.Minute)
						if joins == "after" {
							clock.set(0)
							own.set(0)
						}
						b := net.native(ids[1], nativeOptions{shares: true})
						defer b.stop()
						began := time.Now()
						missing := [2]int{}
						for second := range 75 * 60 {
							time.Sleep(time.Second)
							if second == 90 {
								clock.set(0)
								own.set(0)
							}
							for i, n := range []*followingNative{a, b} {
								if !n.lists(x.id) {
									missing[i]++
								}
							}
						}
						t.Logf("missing at its native %d s, at the other %d s, of %v", missing[0], missing[1], time.Since(began))
						if missing != [2]int{} {
							t.Errorf("missing at its native %d s, at the other %d s", missing[0], missing[1])
						}
					})
				})
			}
		}
	}
}

// Two natives cannot tell which of them has the wrong clock.
func TestANativeThatHearsOneOtherBlamesNoClock(t *testing.T) {
	for _, ahead := range []time.Duration{15 * time.Second, 25 * time.Second, time.Minute, time.Hour} {
		withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
			ids := peerIDs(3)
			wrong := net.native(ids[0], nativeOptions{skew: ahead})
			right := net.native(ids[1], nativeOptions{})
			time.Sleep(5 * time.Minute)
			for name, n := range map[string]*followingNative{"wrong": wrong, "right": right} {
				for _, told := range n.Of(ports.EventClock) {
					if told.Via == "" {
						t.Errorf("by %v: the native whose clock is %s says %+v", ahead, name, told)
					}
				}
				n.Take()
			}
			third := net.native(ids[2], nativeOptions{})
			time.Sleep(5 * time.Minute)
			if told := wrong.Of(ports.EventClock); len(told) == 0 {
				t.Errorf("by %v: two others have another time, and nothing is said", ahead)
			}
			for _, n := range []*followingNative{right, third} {
				for _, told := range n.Of(ports.EventClock) {
					if told.Took != 0 {
						t.Errorf("by %v: a native whose clock is right says %+v", ahead, told)
					}
				}
			}
			net.stop(wrong, right, third)
		})
	}
}
