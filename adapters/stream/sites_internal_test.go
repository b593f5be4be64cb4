package stream

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	coretest "github.com/libp2p/go-libp2p/core/test"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
)

// 128 identities with eight watches each would keep every other native from following this
// native.
func TestOneSiteDoesNotHaveAllWatches(t *testing.T) {
	srv := newServer(&Transport{}, nil)
	n := 0
	for i := range DefaultWatchers {
		if srv.admitWatcher(ports.PeerID(fmt.Sprint("evil", i/maxWatchersOfPeer)), netip.MustParseAddr("192.0.2.1")) == nil {
			n++
		}
	}
	if err := srv.admitWatcher("honest", netip.MustParseAddr("198.51.100.1")); err != nil {
		t.Errorf("one site has %d watches, and another native: %v", n, err)
	}
	for i := range n {
		srv.dismissWatcher(ports.PeerID(fmt.Sprint("evil", i/maxWatchersOfPeer)), netip.MustParseAddr("192.0.2.1"))
	}
	srv.dismissWatcher("honest", netip.MustParseAddr("198.51.100.1"))
	if w := srv.watchers; w.all != 0 || len(w.of) != 0 || len(w.sites) != 0 {
		t.Errorf("when all have gone, %+v are counted", w)
	}
}

type crowded struct{ host.Host }

func (c crowded) Network() network.Network { return crowdedNetwork{c.Host.Network()} }

type crowdedNetwork struct{ network.Network }

func (crowdedNetwork) Connectedness(peer.ID) network.Connectedness { return network.Connected }

// Neighbours is called at each change of a neighbour: a site may have 5,500 connections.

func TestNeighboursOfManyAreCheap(t *testing.T) {
	h := hosttest.New(t)
	tr, err := New(h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	tr.Neighbours()
	tr.neighbours.host = crowded{h}
	const peers, each = 500, 32
	for i := range peers {
		id, err := coretest.RandPeerID()
		if err != nil {
			t.Fatal(err)
		}
		var addrs []ma.Multiaddr
		for j := range each {
			addrs = append(addrs, ma.StringCast(fmt.Sprintf("/ip4/%d.%d.%d.%d/udp/%d/quic-v1", 20+i%200, i/200, j/250, j%251, 1000+j)))
		}
		h.Peerstore().AddAddrs(id, addrs, time.Hour)
		_ = h.Peerstore().AddProtocols(id, Protocol)
		tr.neighbours.mu.Lock()
		tr.neighbours.update(id)
		tr.neighbours.mu.Unlock()
	}
	var all []ports.Neighbour
	if n := testing.AllocsPerRun(10, func() { all, _ = tr.Neighbours() }); len(all) != peers || n > peers/10 {
		t.Errorf("%d neighbours take %v allocations, each time that one comes or goes", len(all), n)
	}
}

func TestNativesAtAPublicAddressAreOfOneSite(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/192.0.33.8/tcp/4101":            "192.0.33.8/32",
		"/ip4/192.0.33.8/udp/7/quic-v1":       "192.0.33.8/32",
		"/ip6/2600:1900:4000:af1::1/tcp/4101": "2600:1900:4000:a00::/56",
		"/ip4/10.0.0.1/tcp/4101":              "",
		"/ip4/127.0.0.1/tcp/4101":             "",
		"/ip6/fe80::1/tcp/4101":               "",
		"/ip6/::1/tcp/4101":                   "",
		"/dns4/native.example/tcp/4101":       "",
	} {
		if got := siteOf(ma.StringCast(addr)); got != want {
			t.Errorf("%s is of the site %q, want %q", addr, got, want)
		}
	}
}

// remoteConn is a connection with a peer at an address.
type remoteConn struct {
	network.Conn
	remote ma.Multiaddr
}

func (c remoteConn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

func TestANativeIsAtThePublicAddressOfAConnection(t *testing.T) {
	for want, addrs := range map[string][]string{
		"":                          {"/ip4/10.0.0.1/tcp/4101", "/ip4/127.0.0.1/tcp/4101"},
		"/ip4/192.0.33.8/tcp/52931": {"/ip4/10.0.0.1/tcp/4101", "/ip4/192.0.33.8/tcp/52931"},
	} {
		var conns []network.Conn
		for _, a := range addrs {
			conns = append(conns, remoteConn{remote: ma.StringCast(a)})
		}
		if addr, site := at(conns); addr != want || site == "" != (want == "") {
			t.Errorf("connected at %v, it is at %q, of the site %q, want %q", addrs, addr, site, want)
		}
	}
}
