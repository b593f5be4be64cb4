package libp2phost

import (
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Real connections, streams cut in all ways, over TCP and QUIC: nothing stays counted.
func TestNothingStaysCounted(t *testing.T) {
	limits := LimitsFor(4<<30, 8192)
	limits.CountLoopback = true
	var told *refusals
	opts, err := Options(Config{Key: newKey(t), Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, func(cfg *libp2p.Config) error {
		told = cfg.ResourceManager.(*watchedResources).refusals
		return nil
	})
	native, err := libp2p.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer native.Close()
	if _, err := Listen(native, []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, false); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{string(ports.SubscribeProtocol), string(ports.LookupProtocol), "/x"} {
		native.SetStreamHandler(protocol.ID(p), func(s network.Stream) { _, _ = io.Copy(io.Discard, s); _ = s.Close() })
	}
	var running sync.WaitGroup
	for i := range 6 {
		running.Go(func() {
			for round := range 4 {
				h := unlimited(t)
				addr := native.Network().ListenAddresses()[(i+round)%2]
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := h.Connect(ctx, peer.AddrInfo{ID: native.ID(), Addrs: []ma.Multiaddr{addr}}); err != nil {
					cancel()
					continue
				}
				for range 20 {
					proto := []string{string(ports.SubscribeProtocol), string(ports.LookupProtocol), "/x", "/none"}[rand.IntN(4)]
					s, err := h.NewStream(ctx, native.ID(), protocol.ID(proto))
					if err != nil {
						continue
					}
					_, _ = s.Write([]byte("x"))
					switch rand.IntN(3) {
					case 0:
						_ = s.Reset()
					case 1:
						_ = s.Close()
					}
				}
				cancel()
				_ = h.Close()
			}
		})
	}
	running.Wait()
	porttest.Eventually(t, "nothing counted", func() bool {
		s := told.shares
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.homes) == 0 && len(s.streams) == 0
	})
}

// One peer with connections over a counted site and, last, an uncounted or another one: all

// its streams follow the last connection, open or closed.

func TestStreamsCountWhereTheyComeFrom(t *testing.T) {
	w, _ := countedResources(t)
	hold := func(id peer.ID, ip string) network.ConnManagementScope {
		c, err := w.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/"+ip+"/tcp/1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetPeer(id); err != nil {
			t.Fatal(err)
		}
		return c
	}
	id := peer.ID([]byte{0, 4, 1, 1, 2, 3})
	_ = hold(id, "203.0.113.1")
	hold(id, "198.51.100.1").Done() // gone at once
	s, err := w.OpenStream(id, network.DirInbound)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.SetProtocol(ports.LookupProtocol)
	for in := range w.refusals.shares.streams {
		if in.site.Addr().String() != "203.0.113.1" {
			t.Errorf("its only connection is from 203.0.113.1, and its stream counts at %s", in.site)
		}
	}
}

func countedResources(t *testing.T) (*watchedResources, *prometheus.Registry) {
	l := LimitsFor(512<<20, 1024)
	l.CountLoopback = true
	inner, m, reg := counted(t, l)
	return &watchedResources{inner, newRefusals(l, nil, m)}, reg
}

func blocked(t *testing.T, reg *prometheus.Registry) (n float64) {
	for series, value := range metricstest.Gather(t, reg) {
		if strings.HasPrefix(series, "ocnode_blocked_total{") {
			n += value
		}
	}
	return n
}

// docs/operations.md: "/metrics counts each refusal".

func TestARefusedStreamOfASiteIsCounted(t *testing.T) {
	w, reg := countedResources(t)
	refused := 0
	for i := range 8 {
		id := peer.ID([]byte{0, 4, byte(i), 1, 2, 3})
		c, err := w.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/203.0.113.1/tcp/1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetPeer(id); err != nil {
			t.Fatal(err)
		}
		for range 60 {
			s, err := w.OpenStream(id, network.DirInbound)
			if err == nil {
				err = s.SetProtocol(ports.LookupProtocol)
			}
			if err != nil {
				refused++
			}
		}
	}
	t.Logf("%d refused", refused)
	if got := blocked(t, reg); refused == 0 || got < float64(refused) {
		t.Errorf("%d streams are refused, and %v counted", refused, got)
	}
}

// Every count is given back.

func TestSharesAreGivenBack(t *testing.T) {
	w, _ := countedResources(t)
	id := peer.ID([]byte{0, 4, 1, 1, 2, 3})
	for round := range 3 {
		c, err := w.OpenConnection(network.DirInbound, true, ma.StringCast("/ip4/203.0.113.1/tcp/1"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetPeer(id)
		_ = c.SetPeer(id)
		var scopes []network.StreamManagementScope
		for i := range 300 {
			s, err := w.OpenStream(id, network.DirInbound)
			if err != nil {
				continue
			}
			switch i % 4 {
			case 0:
				_ = s.SetProtocol(ports.LookupProtocol)
				_ = s.SetProtocol(ports.LookupProtocol)
			case 1:
				_ = s.SetProtocol("/x")
			case 2:
				s.Done()
				_ = s.SetProtocol(ports.LeaveProtocol)
			}
			scopes = append(scopes, s)
		}
		if round%2 == 0 {
			c.Done()
			c.Done()
			_ = c.SetPeer(id)
		}
		for _, s := range scopes {
			s.Done()
			s.Done()
		}
		if round%2 == 1 {
			c.Done()
		}
		if s := w.refusals.shares; len(s.streams) != 0 || len(s.homes) != 0 {
			t.Errorf("round %d: left %v %v", round, s.streams, s.homes)
		}
	}
}
