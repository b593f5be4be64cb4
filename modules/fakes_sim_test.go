package modules_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// fakes are natives that take leases and tell nobody of them but each other's readers.
type fakes struct {
	mu    sync.Mutex
	hosts []host.Host
	takes map[ports.PeerID]time.Time // until when each indexer has a lease
}

// fakes starts n fakes, which are connected to the natives.
func (s *simulation) fakes(n int, natives []*member) *fakes {
	s.t.Helper()
	f := &fakes{takes: map[ports.PeerID]time.Time{}}
	for i := range n {
		h := s.bare(fmt.Sprintf("1.200.0.%d", i+1))
		s.t.Cleanup(func() { _ = h.Close() })
		f.hosts = append(f.hosts, h)
		transport, err := stream.New(h, nil, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(transport.Close)
		stop, err := transport.Serve(f.native())
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(stop)
	}
	f.connect(s.t, natives)
	return f
}

func (f *fakes) connect(t *testing.T, natives []*member) {
	t.Helper()
	for _, h := range f.hosts {
		for _, n := range natives {
			to, err := peer.AddrInfoFromString(n.addr())
			if err != nil {
				t.Fatal(err)
			}
			if err := h.Connect(t.Context(), *to); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (f *fakes) ids() (ids []ports.PeerID) {
	for _, h := range f.hosts {
		ids = append(ids, ports.PeerID(h.ID().String()))
	}
	return ids
}

// native is every fake: they confirm each other.
func (f *fakes) native() ports.Native {
	policy := domain.DefaultTTLPolicy()
	return porttest.Native{
		OnRegister: func(_ context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.takes[sender] = time.Now().Add(policy.TTL)
			return policy.Grant(time.Now()), nil
		},
		OnLookUp: func(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			left := time.Until(f.takes[id])
			if left <= 0 {
				return ports.Answer{}, ports.ErrNotFound
			}
			return ports.Answer{Listed: ports.Listed{
				Entry: ports.Entry{PeerID: id, Addr: "/ip4/1.2.3.4/tcp/1"}, Remaining: left, Natives: f.ids(),
			}}, nil
		},
		OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
		OnNatives: func(context.Context, ports.PeerID) (all []ports.NativeStatus, _ error) {
			for _, h := range f.hosts {
				all = append(all, ports.NativeStatus{PeerID: ports.PeerID(h.ID().String()), Addrs: []string{h.Addrs()[0].String()}})
			}
			return all, nil
		},
	}
}

// TestSimNativesThatTellNobodyDoNotKeepAnIndexer has three fakes, and two honest natives of
// host.bootstrap that restart one after the other.
func TestSimNativesThatTellNobodyDoNotKeepAnIndexer(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(2, modules.Environment{})
		natives[0].settings["host.bootstrap"] = natives[1].addr() // for when it starts again
		fakes := s.fakes(3, natives)
		var indexers []*member
		var seen []*porttest.Recorder
		for i := range porttest.Scale(10, 3) {
			x := s.member(fmt.Sprint("indexer-", i), map[string]string{"modules": "indexer", "host.bootstrap": natives[0].addr() + "," + natives[1].addr()})
			events := &porttest.Recorder{}
			seen = append(seen, events)
			x.observers = append(x.observers, events)
			x.start()
			indexers = append(indexers, x)
		}
		s.settle(natives, indexers)
		time.Sleep(time.Minute)
		for i, n := range natives {
			n.stop()
			rest := natives[1-i]
			for range 20 {
				time.Sleep(time.Second)
				if count(rest) != len(indexers) {
					t.Fatalf("with %s away, %d of %d are listed", n.name, count(rest), len(indexers))
				}
			}
			n.start()
			fakes.connect(t, []*member{n})
			for range 120 {
				time.Sleep(time.Second)
				if count(rest) != len(indexers) {
					t.Fatalf("with %s back, %d of %d are listed", n.name, count(rest), len(indexers))
				}
			}
			if count(n) != len(indexers) {
				t.Errorf("two minutes after its start %s lists %d of %d", n.name, count(n), len(indexers))
			}
		}
		for i, events := range seen {
			doubted := map[ports.PeerID]bool{}
			for _, e := range events.Of(ports.EventLeaseDoubted) {
				doubted[e.Via] = true
			}
			for _, id := range fakes.ids() {
				if !doubted[id] {
					t.Errorf("%s does not doubt %s, which tells nobody", indexers[i].name, id)
				}
			}
			for _, n := range natives {
				if doubted[n.node.PeerID()] {
					t.Errorf("%s doubts %s, which is honest", indexers[i].name, n.name)
				}
			}
		}
		stopAll(indexers, natives)
	})
}
