package client

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A sleep is a jump of the boot clock. Timers know nothing of it, so what is due stays due.
func TestAnIndexerThatSleptRegistersWithinASecondOfItsWaking(t *testing.T) {
	for _, slept := range []time.Duration{18 * time.Second, 8 * time.Hour} {
		porttest.FakeTime(t, func(t *testing.T) {
			began := time.Now()
			var sleep atomic.Int64
			clock := domain.NewClock(nil, func() time.Duration { return time.Since(began) + time.Duration(sleep.Load()) })
			net := newNetwork()
			ids := net.natives(3, grants)
			net.connect(ids...)
			x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy(), Clock: clock}, nil, FindNatives("me", nil, net),
				func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &porttest.Recorder{})
			if err != nil {
				t.Fatal(err)
			}
			stop := running(t, x)
			time.Sleep(20*time.Second + 300*time.Millisecond)
			before := make(map[ports.PeerID]int)
			for _, id := range ids {
				before[id] = net.counts(net.registered, id)
			}
			sleep.Add(int64(slept))
			time.Sleep(time.Second)
			for _, id := range ids {
				if n := net.counts(net.registered, id); n != before[id]+1 {
					t.Errorf("%v: it registered %d times with %s after it woke, want once", slept, n-before[id], id)
				}
			}
			// All leases are renewed, and left.
			time.Sleep(time.Second)
			stop()
			for _, id := range ids {
				if n := net.counts(net.left, id); n != 1 {
					t.Errorf("%v: it left %s %d times", slept, id, n)
				}
			}
		})
	}
}

// A lease that ended during a sleep is no lease any more. The natives are away when it wakes.
func TestALeaseThatEndedDuringASleepIsNotLeft(t *testing.T) {
	ttl := domain.DefaultTTLPolicy().TTL
	for _, c := range []struct {
		name  string
		slept time.Duration // from 10 s after the registration on
		left  int
	}{
		{"just before its end", ttl - 10*time.Second - 1, 1},
		{"at its end", ttl - 10*time.Second, 0},
		{"after its end", ttl, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				began := time.Now()
				var sleep atomic.Int64
				clock := domain.NewClock(nil, func() time.Duration { return time.Since(began) + time.Duration(sleep.Load()) })
				net := newNetwork()
				ids := net.natives(1, grants)
				native, err := net.Native(ids[0], []string{"a"})
				if err != nil {
					t.Fatal(err)
				}
				x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy(), Clock: clock}, nil, PinNatives(map[ports.PeerID]ports.Native{ids[0]: native}),
					func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &porttest.Recorder{})
				if err != nil {
					t.Fatal(err)
				}
				stop := running(t, x)
				time.Sleep(10 * time.Second)
				sleep.Add(int64(c.slept))
				stop()
				if n := net.counts(net.left, ids[0]); n != c.left {
					t.Errorf("it left %d times, want %d", n, c.left)
				}
			})
		})
	}
}

func TestConnectionsFromBeforeASleepAreGivenLittleTime(t *testing.T) {
	var waits []time.Duration
	r := renewal{heartbeat: time.Minute, took: time.Second / 10, failures: 5, drops: 5}
	r.suspect()
	for range 2 {
		waits = append(waits, ports.Patience(r.patient(t.Context(), 0), ports.ExchangeTimeout))
	}
	if want := []time.Duration{suspectPatience, ports.ExchangeTimeout}; !slices.Equal(waits, want) || r.failures+r.drops != 0 {
		t.Errorf("it waits %v with %d failures and %d drops, want %v", waits, r.failures, r.drops, want)
	}
}
