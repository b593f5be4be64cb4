package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

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
					// A native without others has nothing else to go by when it is set ahead.
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
								// An indexer that was an hour ahead is proven when its first number is not ahead any more.
								if got, ok := n.Get(x.id); !ok || got.Proof == nil && !porttest.Raced() || got.ExpiresAt.After(time.Now().Add(domain.DefaultTTLPolicy().TTL+time.Second)) {
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
