package libp2phost

import (
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// TestNativesAreMetAnewWhenItChangesWhomANodeTrusts has two natives of which each in turn is
// trusted, and an indexer, whose connection nothing of that is a reason to close.
func TestNativesAreMetAnewWhenItChangesWhomANodeTrusts(t *testing.T) {
	h := newHost(t, newKey(t), loopbackTCP)
	one, other, indexer := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP)
	idOf := func(h host.Host) ports.PeerID { return ports.PeerID(h.ID().String()) }
	for _, native := range []host.Host{one, other} {
		native.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
	}
	var trusted atomic.Value
	trusted.Store(idOf(one))
	join(t, h, JoinerConfig{Natives: nativeProtocols, Trusts: func(id ports.PeerID) bool { return trusted.Load() == id }, Log: new(logged).logger()})
	var closed atomic.Int64
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) { closed.Add(1) }})
	for _, peer := range []host.Host{one, other, indexer} {
		if err := h.Connect(t.Context(), infoOf(peer)); err != nil {
			t.Fatal(err)
		}
	}
	remembers := func(native host.Host) bool { return h.ConnManager().IsProtected(native.ID(), protectTag) }
	porttest.Eventually(t, "the one that is trusted is remembered", func() bool { return remembers(one) })
	if remembers(other) {
		t.Error("a native is remembered that is not trusted")
	}

	trusted.Store(idOf(other))
	if err := Part(h, nativeProtocols, func(id ports.PeerID) bool { return id == idOf(one) || id == idOf(other) || id == idOf(indexer) }); err != nil {
		t.Fatal(err)
	}
	porttest.Eventually(t, "the other is dialled, and alone remembered", func() bool {
		return closed.Load() >= 2 && connected(h, other) && remembers(other) && !remembers(one)
	})
	if n := closed.Load(); n != 2 || !connected(h, indexer) {
		t.Errorf("%d connections were closed, want those of the two natives", n)
	}

	// Whom nothing has changed of stays.
	if err := Part(h, nativeProtocols, func(ports.PeerID) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if n := closed.Load(); n != 2 || !connected(h, other) {
		t.Errorf("%d connections were closed", n)
	}
}
