package libp2phost

import (
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Its own address is in host.bootstrap, since all natives have the same list, and so is the address of
// another process with a copy of its key.
func TestAnotherProcessWithThisNodesKeyIsTold(t *testing.T) {
	for name, copied := range map[string]bool{"a copied key": true, "its own address alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a twin is known when this node has waited for an arrival
			key := newKey(t)
			h := newHost(t, key, loopbackTCP)
			bootstrap := []string{fullAddrs(h)[0]}
			if copied {
				bootstrap = append(bootstrap, fullAddrs(newHost(t, key, loopbackTCP))[0])
			}
			var mu sync.Mutex
			var told []string
			looked := make(chan struct{})
			join(t, h, JoinerConfig{
				Bootstrap: bootstrap,
				Probe: func() (host.Host, error) {
					probe, err := NewProbe("", 0)
					if err != nil {
						return nil, err
					}
					return closing{probe, sync.OnceFunc(func() { close(looked) })}, nil
				},
				Twin: func(err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, err.Error())
				},
			})
			<-looked
			want := 0
			if copied {
				want = 1
			}
			mu.Lock()
			defer mu.Unlock()
			if len(told) != want {
				t.Errorf("told %q, want %d", told, want)
			}
		})
	}
}

// closing is a host that tells of its end.
type closing struct {
	host.Host
	closed func()
}

func (c closing) Close() error {
	defer c.closed()
	return c.Host.Close()
}

// The follower waits for bootstrap natives that may be reached, and for no others.
func TestAJoinerTellsWhichBootstrapPeersMayBeReached(t *testing.T) {
	native, h := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP)
	other := newHost(t, newKey(t), loopbackTCP) // no native
	gone := newHost(t, newKey(t), loopbackTCP)
	lost := fullAddrs(gone)[0]
	_ = gone.Close()
	native.SetStreamHandler(ports.WatchProtocol, func(s network.Stream) { _ = s.Reset() })
	j, err := NewJoiner(h, JoinerConfig{Bootstrap: []string{fullAddrs(native)[0], fullAddrs(other)[0], lost, fullAddrs(h)[0]}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	peers, _ := j.Peers()
	reachable := 0
	for _, p := range peers {
		if p.Reachable {
			reachable++
		}
	}
	if len(peers) != 3 || reachable != 3 {
		t.Errorf("before it runs there are %+v, want three that may be reached", peers)
	}
	run(t, j)
	porttest.Eventually(t, "the native is reachable, the lost peer is not, and the other is no native", func() bool {
		peers, _ := j.Peers()
		state := map[string]bool{}
		for _, p := range peers {
			state[string(p.PeerID)] = p.Reachable
		}
		is, known := state[gone.ID().String()]
		return len(peers) == 2 && state[native.ID().String()] && known && !is
	})
}

// A peer of host.bootstrap that is no native is no lost native either once it has gone. A native that
// stops offers nothing at last, and is one all the same.
func TestABootstrapPeerThatIsNoNativeIsNoneWhenItIsGone(t *testing.T) {
	for name, watch := range map[string]protocol.ID{
		"no native": "", "a native that stops": ports.WatchProtocol, "a native with the binary watch alone, that stops": ports.FollowProtocol,
	} {
		t.Run(name, func(t *testing.T) {
			h, other := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP)
			j, err := NewJoiner(h, JoinerConfig{Bootstrap: []string{fullAddrs(other)[0]}, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			offers := func(want bool) func() bool {
				return func() bool {
					spoken, err := h.Peerstore().GetProtocols(other.ID())
					return err == nil && len(spoken) > 0 && slices.Contains(spoken, watch) == want
				}
			}
			check := func(when string, want int) {
				t.Helper()
				j.publish()
				if peers, _ := j.Peers(); len(peers) != want {
					t.Errorf("%s it waits for %+v", when, peers)
				}
			}
			native := watch != ""
			if native {
				other.SetStreamHandler(watch, func(s network.Stream) { _ = s.Reset() })
			}
			hosttest.Connect(t, h, other)
			porttest.Eventually(t, "the peer is identified", offers(native))
			want := 0
			if native {
				want = 1
			}
			check("connected", want)
			other.RemoveStreamHandler(watch)
			porttest.Eventually(t, "the peer tells that it offers no watch", offers(false))
			check("without a watch", 0)
			_ = other.Close()
			porttest.Eventually(t, "the peer is gone", func() bool { return h.Network().Connectedness(other.ID()) != network.Connected })
			check("when the peer is gone", want)
		})
	}
}
