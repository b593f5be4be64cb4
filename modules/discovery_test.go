package modules_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

func TestAnIndexerNeedsAWayToFindNatives(t *testing.T) {
	const native = "/ip4/192.0.2.1/tcp/4101/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF"
	for _, c := range []struct {
		settings map[string]string
		ok       bool
	}{
		{map[string]string{"modules": "indexer"}, false},
		{map[string]string{"modules": "indexer,dht"}, false}, // which nobody has joined
		{map[string]string{"modules": "indexer", "indexer.natives": native}, true},
		{map[string]string{"modules": "indexer", "host.bootstrap": native}, true},
		{map[string]string{"modules": "indexer,dht", "host.bootstrap": native}, true},
		{map[string]string{"modules": "indexer,mdns"}, true},
		{map[string]string{"modules": "indexer,native"}, true},
	} {
		_, err := planOf(t, c.settings)
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c.settings, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "names no native to register with") || !strings.Contains(err.Error(), "host.bootstrap")) {
			t.Errorf("%v: the error does not help: %v", c.settings, err)
		}
	}
}

// leases are the natives that an indexer has a lease at, as it is told.
type leases struct {
	mu   sync.Mutex
	held map[ports.PeerID]bool
}

func (l *leases) Observe(e ports.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[ports.PeerID]bool{}
	}
	switch e.Kind {
	case ports.EventLeaseGranted:
		l.held[e.Via] = true
	case ports.EventLeaseLost, ports.EventLeaseFailed:
		delete(l.held, e.Via)
	}
}

func (l *leases) at(natives []*member) (at []*member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range natives {
		if l.held[n.node.PeerID()] {
			at = append(at, n)
		}
	}
	return at
}

// TestSimOneAddressIsEnough gives an indexer the address of one native, which dies.
func TestSimOneAddressIsEnough(t *testing.T) {
	for _, on := range []string{"indexer", "indexer,dht"} {
		t.Run(on, func(t *testing.T) { oneAddressIsEnough(t, on) })
	}
}

func oneAddressIsEnough(t *testing.T, on string) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(5, modules.Environment{})
		x := s.member("indexer", map[string]string{"modules": on, "host.bootstrap": natives[0].addr()})
		held := &leases{}
		x.observers = append(x.observers, held)
		x.start()
		took, ok := until(30*time.Second, func() bool { return len(held.at(natives)) >= 3 })
		if !ok {
			t.Fatalf("after %v it has leases at %d natives, want three", took, len(held.at(natives)))
		}
		t.Logf("three natives after %v", took)
		s.settle(natives, []*member{x})

		natives[0].stop()
		rest := natives[1:]
		took, ok = until(time.Minute, func() bool {
			if !everyone(rest, []*member{x})() {
				t.Fatal("it is missing somewhere")
			}
			return len(held.at(rest)) >= 3
		})
		if !ok {
			t.Errorf("%v after the first native died it has leases at %d others, want three", took, len(held.at(rest)))
		}
		t.Logf("three others after %v", took)
		x.stop()
		stopAll(rest)
	})
}

// TestSimANativeThatMovesIsFoundAgain has a native that starts anew at another port, and the other
// native die once the indexer had time for a retry.
func TestSimANativeThatMovesIsFoundAgain(t *testing.T) {
	for _, on := range []string{"indexer", "indexer,dht"} {
		t.Run(on, func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(2, modules.Environment{})
				stays, moves := natives[0], natives[1]
				x := s.member("indexer", map[string]string{"modules": on, "host.bootstrap": stays.addr()})
				held := &leases{}
				x.observers = append(x.observers, held)
				x.start()
				if took, ok := until(30*time.Second, func() bool { return len(held.at(natives)) == 2 }); !ok {
					t.Fatalf("after %v it has leases at %d natives, want both", took, len(held.at(natives)))
				}
				moves.stop()
				time.Sleep(time.Duration(s.random.Int64N(int64(2 * time.Minute))))
				moves.settings["host.listen"] = "/ip4/" + moves.ip + "/udp/4102/quic-v1"
				moves.start()
				took, ok := until(32*time.Second, func() bool { return slices.Contains(held.at(natives), moves) })
				if !ok {
					t.Errorf("%v after it moved, the indexer has no lease there", took)
				}
				t.Logf("a lease %v after it moved", took)
				stays.stop()
				for range 120 {
					time.Sleep(time.Second)
					if !moves.lists(x) {
						t.Fatal("it is listed nowhere")
					}
				}
				stopAll([]*member{x, moves})
			})
		})
	}
}

// TestSimABootstrapPeerIsANativeToRegisterWith has an indexer without a DHT.
func TestSimABootstrapPeerIsANativeToRegisterWith(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(2, modules.Environment{})
		x := s.member("indexer", map[string]string{"modules": "indexer", "host.bootstrap": natives[1].addr()})
		held := &leases{}
		x.observers = append(x.observers, held)
		x.start()
		if took, ok := until(10*time.Second, func() bool { return slices.Contains(held.at(natives), natives[1]) }); !ok {
			t.Errorf("after %v it has no lease at the native that it joins through", took)
		}
		s.settle(natives, []*member{x})
		x.stop()
		stopAll(natives)
	})
}

// TestSimAFinderResolvesWithoutNatives kills the only native: who is no native still
// finds the indexer, in the DHT of those who are left, until its entry expires.
func TestSimAFinderResolvesWithoutNatives(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		native := s.member("native", map[string]string{"modules": "native,dht,gossip"})
		native.start()
		shelf := s.member("shelf", map[string]string{"modules": "dht", "host.bootstrap": native.addr()})
		shelf.start()
		reader := s.member("reader", map[string]string{"modules": "indexer,dht", "host.bootstrap": native.addr() + "," + shelf.addr()})
		var finder *client.Finder
		reader.more = []modules.Module{{Name: "probe", Summary: "of the tests", Always: true, Wire: func(*modules.Plan) fx.Option {
			return fx.Invoke(func(f *client.Finder) { finder = f })
		}}}
		reader.start()
		x := s.member("indexer", map[string]string{"modules": "indexer", "indexer.natives": native.addr()})
		x.start()
		s.settle([]*member{native}, []*member{x, reader})
		time.Sleep(3 * time.Second) // what was put before the shelf had joined is put again

		native.stop()
		last := s.lastHeartbeat(x)
		got, err := finder.LookUp(t.Context(), x.node.PeerID())
		if err != nil || got.PeerID != x.node.PeerID() || got.Source != ports.SourceStore || got.Remaining <= 0 {
			t.Errorf("with the native gone it is %+v, %v", got, err)
		}
		time.Sleep(time.Until(last.Add(61 * time.Second))) // natives that hang have 4 s to answer
		if _, err := finder.LookUp(t.Context(), x.node.PeerID()); err != nil {
			t.Errorf("before its lease has ended: %v", err)
		}
		time.Sleep(time.Until(last.Add(66 * time.Second)))
		if _, err := finder.LookUp(t.Context(), x.node.PeerID()); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("after its lease has ended: %v", err)
		}
		stopAll([]*member{x, reader, shelf})
	})
}
