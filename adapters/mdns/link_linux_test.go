package mdns

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/miekg/dns"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestDiscovery(t *testing.T) {
	if !hosttest.InOwnNetwork(t) {
		return
	}
	prefix := "/"
	porttest.Discovery(t, func(t *testing.T) func() (ports.PeerID, ports.Discovery) {
		prefix += "x" // one link, and each network by itself
		of := prefix
		return func() (ports.PeerID, ports.Discovery) {
			h := hosttest.New(t)
			return ports.PeerID(h.ID().String()), New(h, of, addrsOf(h), slog.New(slog.DiscardHandler))
		}
	})
}

func TestNativesOnOneLinkAreFound(t *testing.T) {
	if !hosttest.InOwnNetwork(t) {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	native := func(prefix string) host.Host {
		h := hosttest.New(t)
		running.Go(func() {
			if err := New(h, prefix, addrsOf(h), log).Advertise(ctx); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	a, b := native("/opencloud"), native("/opencloud")
	elsewhere := native("/elsewhere")
	finds := func(h host.Host, prefix string, want ...host.Host) func() bool {
		return func() bool {
			var ids []ports.PeerID
			if err := New(h, prefix, addrsOf(h), log).Find(t.Context(), func(f ports.Found) {
				ids = append(ids, f.PeerID)
				if !slices.ContainsFunc(want, func(w host.Host) bool { return slices.Contains(f.Addrs, w.Addrs()[0].String()) }) {
					t.Errorf("%s is found at %v", f.PeerID, f.Addrs)
				}
			}); err != nil {
				t.Error(err)
			}
			var wanted []ports.PeerID
			for _, w := range want {
				wanted = append(wanted, ports.PeerID(w.ID().String()))
			}
			slices.Sort(ids)
			slices.Sort(wanted)
			return slices.Equal(ids, wanted)
		}
	}
	indexer := hosttest.New(t)
	porttest.Eventually(t, "an indexer finds both natives", finds(indexer, "/opencloud", a, b))
	porttest.Eventually(t, "a native finds the other", finds(a, "/opencloud", b))
	porttest.Eventually(t, "another network's native is found there", finds(indexer, "/elsewhere", elsewhere))
	if !finds(indexer, "/nowhere")() {
		t.Error("somebody is found in a network without natives")
	}

	running.Go(func() {
		if err := New(a, "/opencloud", addrsOf(a), log).Join(ctx); err != nil {
			t.Error(err)
		}
	})
	porttest.Eventually(t, "a native joins the other", func() bool { return a.Network().Connectedness(b.ID()) == network.Connected })
	if a.Network().Connectedness(elsewhere.ID()) == network.Connected {
		t.Error("it joins another network's")
	}
}

func TestANativeThatMovesIsFoundAtItsNewAddressesAndNoOther(t *testing.T) {
	if !hosttest.InOwnNetwork(t) {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var addrs atomic.Value
	addrs.Store([]string{"/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/tcp/1"})
	h := hosttest.New(t)
	native := New(h, "/opencloud", func() []string { return addrs.Load().([]string) }, log)
	running.Go(func() {
		if err := native.Advertise(ctx); err != nil {
			t.Error(err)
		}
	})
	indexer := hosttest.New(t)
	at := func(want ...string) func() bool {
		return func() bool {
			var got []string
			if err := New(indexer, "/opencloud", addrsOf(indexer), log).Find(t.Context(), func(f ports.Found) { got = f.Addrs }); err != nil {
				t.Error(err)
			}
			return slices.Equal(got, want)
		}
	}
	porttest.Eventually(t, "the native is found, the best address first", at("/ip4/192.0.2.1/tcp/1", "/ip4/127.0.0.1/tcp/1"))
	addrs.Store([]string{"/ip4/192.0.2.2/tcp/1"})
	native.Moved()
	porttest.Eventually(t, "it is found where it is now", at("/ip4/192.0.2.2/tcp/1"))
}

// js answers a question for a service as js-libp2p does, once.
func js(t *testing.T, service string, addrs ...string) (answered <-chan struct{}) {
	t.Helper()
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	conn, err := net.ListenMulticastUDP("udp4", &multicastInterfaces()[0], group)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conn.Close()
		buf := make([]byte, maxPacketBytes)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Error(err)
				return
			}
			var msg dns.Msg
			if err := msg.Unpack(buf[:n]); err != nil || msg.Response || len(msg.Question) != 1 || msg.Question[0].Name != service+"." {
				continue
			}
			if _, err := conn.WriteTo(jsAnswer(t, service, 120, addrs...), group); err != nil {
				t.Error(err)
			}
			return
		}
	}()
	return done
}

func TestANativeWithoutSRVAndAIsFound(t *testing.T) {
	if !hosttest.InOwnNetwork(t) {
		return
	}
	indexer, id := hosttest.New(t), string(hosttest.PeerID(t))
	answered := js(t, Service("/opencloud")+".local", "/ip4/192.0.2.1/tcp/1/p2p/"+id, "/ip4/192.0.2.2/tcp/1/p2p/"+id)
	var got []ports.Found
	if err := New(indexer, "/opencloud", addrsOf(indexer), slog.New(slog.DiscardHandler)).Find(t.Context(), func(f ports.Found) { got = append(got, f) }); err != nil {
		t.Fatal(err)
	}
	<-answered
	if len(got) != 1 || string(got[0].PeerID) != id || !slices.Equal(got[0].Addrs, []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"}) {
		t.Errorf("found %v", got)
	}
}
