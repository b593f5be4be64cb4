package kaddht

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestDiscovery(t *testing.T) {
	porttest.Discovery(t, func(t *testing.T) func() (ports.PeerID, ports.Discovery) {
		var stores []*Store
		return func() (ports.PeerID, ports.Discovery) {
			s := newStore(t, hosttest.New(t), rule)
			for _, other := range stores {
				hosttest.Connect(t, s.host, other.host)
			}
			stores = append(stores, s)
			porttest.Eventually(t, "it knows the others", func() bool { return s.Peers() == len(stores)-1 })
			return ports.PeerID(s.host.ID().String()), s
		}
	})
}

// advertised lets s advertise itself until the test ends or stop is called.
func advertised(t *testing.T, s *Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Advertise(ctx); err != nil {
			t.Errorf("advertise: %v", err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// found returns the natives that s finds, sorted.
func found(t *testing.T, s *Store) (ids []peer.ID, infos []ports.Found) {
	t.Helper()
	if err := s.Find(t.Context(), func(f ports.Found) { infos = append(infos, f) }); err != nil {
		t.Errorf("find: %v", err)
	}
	for _, f := range infos {
		id, err := peer.Decode(string(f.PeerID))
		if err != nil {
			t.Error(err)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, infos
}

func finds(t *testing.T, s *Store, want ...host.Host) bool {
	t.Helper()
	var ids []peer.ID
	for _, h := range want {
		ids = append(ids, h.ID())
	}
	slices.Sort(ids)
	got, _ := found(t, s)
	return slices.Equal(got, ids)
}

// client returns a client of the DHT that knows those servers.
func client(t *testing.T, servers ...host.Host) *Store {
	t.Helper()
	return clientOn(t, hosttest.New(t), servers...)
}

func clientOn(t *testing.T, on host.Host, servers ...host.Host) *Store {
	t.Helper()
	s := newStoreOf(t, on, Config{Accept: rule, TTL: porttest.TTL})
	for _, h := range servers {
		hosttest.Connect(t, s.host, h)
	}
	porttest.Eventually(t, "the client knows them", func() bool { return s.Peers() >= len(servers) })
	return s
}

// TestNativesAreFound starts natives that join through the first, and an indexer that knows the
// last. The indexer finds all natives, at dialable addresses, and no other peer.
func TestNativesAreFound(t *testing.T) {
	var natives []*Store
	var hosts []host.Host
	for range 3 {
		s := newStore(t, hosttest.New(t), rule)
		advertised(t, s)
		if natives = append(natives, s); len(natives) > 1 {
			hosttest.Connect(t, s.host, natives[0].host)
		}
		hosts = append(hosts, s.host)
	}
	newStore(t, hosttest.New(t), rule) // a server of the DHT that is no native
	indexer := client(t)
	hosttest.Connect(t, indexer.host, natives[2].host)
	porttest.Eventually(t, "the indexer finds all three", func() bool { return finds(t, indexer, hosts...) })
	porttest.Eventually(t, "a native finds the other two", func() bool { return finds(t, natives[0], hosts[1:]...) })

	_, infos := found(t, indexer)
	for _, f := range infos {
		id, _ := peer.Decode(string(f.PeerID))
		info := peer.AddrInfo{ID: id}
		for _, addr := range f.Addrs {
			info.Addrs = append(info.Addrs, ma.StringCast(addr))
		}
		stranger := hosttest.New(t) // it knows only this server
		if err := stranger.Connect(t.Context(), info); err != nil {
			t.Errorf("%s cannot be dialled at %s: %v", f.PeerID, f.Addrs, err)
		}
	}
}

func TestNativesOfAnotherNetworkAreNotFound(t *testing.T) {
	a := newStore(t, hosttest.New(t), rule)
	advertised(t, a)
	other := newStoreOf(t, hosttest.New(t), Config{Server: true, Accept: rule, TTL: porttest.TTL, Prefix: protocol.ID("/elsewhere")})
	advertised(t, other)
	ours, theirs := client(t), newStoreOf(t, hosttest.New(t), Config{Accept: rule, TTL: porttest.TTL, Prefix: "/elsewhere"})
	for _, s := range []*Store{ours, theirs} {
		hosttest.Connect(t, s.host, a.host)
		hosttest.Connect(t, s.host, other.host)
	}
	porttest.Eventually(t, "each finds its own", func() bool { return finds(t, ours, a.host) && finds(t, theirs, other.host) })
}

// TestANativeThatIsToldOfWithoutAddressesIsLookedUp lets the server with the record forget the
// native's addresses. Another server knows them.
func TestANativeThatIsToldOfWithoutAddressesIsLookedUp(t *testing.T) {
	native, took := newStore(t, hosttest.New(t), rule), newStore(t, hosttest.New(t), rule)
	hosttest.Connect(t, native.host, took.host)
	porttest.Eventually(t, "they know each other", func() bool { return native.Peers() == 1 && took.Peers() == 1 })
	native.advertise(t.Context())
	knows := newStore(t, hosttest.New(t), rule)
	hosttest.Connect(t, knows.host, native.host)
	indexer := client(t)
	hosttest.Connect(t, indexer.host, took.host)
	hosttest.Connect(t, indexer.host, knows.host)
	porttest.Eventually(t, "the indexer knows both", func() bool { return indexer.Peers() >= 2 && knows.Peers() >= 1 })
	took.host.Peerstore().ClearAddrs(native.host.ID())
	porttest.Eventually(t, "the native is found with its addresses", func() bool { return finds(t, indexer, native.host) })
}

func TestOnlyAddressesWithATransportAreTold(t *testing.T) {
	s := client(t)
	id, _ := peer.Decode(string(hosttest.PeerID(t)))
	info := peer.AddrInfo{ID: id}
	for _, addr := range []string{
		"/dns4/native.example/tcp/4101", "/ip4/192.0.2.1/tcp/4101", "/ip4/192.0.2.1/tcp/4101",
		"/ip4/192.0.2.1/udp/4101", "/ip4/0.0.0.0/tcp/4101", "/ip6/fe80::1/tcp/4101", "/ip4/192.0.2.1/udp/4101/quic-v1/webtransport",
	} {
		info.Addrs = append(info.Addrs, ma.StringCast(addr))
	}
	info.Addrs = append(info.Addrs, ma.Multiaddr{}, ma.StringCast("/dns4/native.example"))
	got := s.dialable(info)
	slices.Sort(got)
	if want := []string{"/dns4/native.example/tcp/4101", "/ip4/192.0.2.1/tcp/4101"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestWhatIsAdvertisedLapses lets a native advertise alone, meet another, and end.
func TestWhatIsAdvertisedLapses(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 3)
		a, b := newStore(t, hosts[0], rule), newStore(t, hosts[1], rule)
		stop := advertised(t, a)
		time.Sleep(advertiseEvery / 2) // no server is there yet
		hosttest.Connect(t, hosts[0], hosts[1])
		time.Sleep(2 * time.Second)
		indexer := newStoreOf(t, hosts[2], Config{Accept: rule, TTL: porttest.TTL})
		hosttest.Connect(t, hosts[2], hosts[1])
		time.Sleep(time.Second)
		if !finds(t, indexer, hosts[0]) || !finds(t, b, hosts[0]) {
			t.Error("a native that advertised alone was not advertised to a later server")
		}
		time.Sleep(2 * provideFor)
		if !finds(t, indexer, hosts[0]) {
			t.Error("it is not advertised again in time")
		}
		stop()
		last := time.Now()
		time.Sleep(provideFor - advertiseEvery - time.Second)
		if !finds(t, indexer, hosts[0]) {
			t.Errorf("the advertisement lapsed after %v already", time.Since(last))
		}
		time.Sleep(advertiseEvery + 2*time.Second)
		if !finds(t, b) {
			t.Errorf("it is still advertised by another after %v", time.Since(last))
		}
	})
}

// TestStrangersProvideNothingElse sends a server provider records of another key, and more of
// its own key than it keeps.
func TestStrangersProvideNothingElse(t *testing.T) {
	s := newStore(t, hosttest.New(t), rule)
	stranger := hosttest.New(t)
	other := newStore(t, stranger, rule)
	hosttest.Connect(t, stranger, s.host)
	porttest.Eventually(t, "they know each other", func() bool { return s.Peers() == 1 && other.Peers() == 1 })
	send := func(namespace string, addrs []ma.Multiaddr) error {
		sum, err := multihash.Sum([]byte(namespace), multihash.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		return other.messenger.PutProviderAddrs(t.Context(), s.host.ID(), sum, peer.AddrInfo{ID: stranger.ID(), Addrs: addrs})
	}
	get := func(namespace string) []*peer.AddrInfo {
		sum, _ := multihash.Sum([]byte(namespace), multihash.SHA2_256, -1)
		got, _, err := other.messenger.GetProviders(t.Context(), s.host.ID(), sum)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	_ = send("/elsewhere", stranger.Addrs()) // it has no answer, taken or not
	var many []ma.Multiaddr
	for port := range 500 {
		many = append(many, ma.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 1000+port)))
	}
	porttest.Eventually(t, "the record of a native is taken", func() bool {
		_ = send(nativesNamespace(DefaultPrefix), many) // again, if the earlier record reset the stream
		return len(get(nativesNamespace(DefaultPrefix))) == 1
	})
	if got := get(nativesNamespace(DefaultPrefix))[0]; len(got.Addrs) > maxProviderAddrs {
		t.Errorf("%d addresses are sent", len(got.Addrs))
	}
	if got := get("/elsewhere"); len(got) != 0 {
		t.Errorf("another key is provided by %v", got)
	}
}

func TestProvidersAreBounded(t *testing.T) {
	p, err := newProviders(nativesNamespace(DefaultPrefix))
	if err != nil {
		t.Fatal(err)
	}
	d := newStoreOf(t, hosttest.New(t), Config{Server: true, Accept: rule, TTL: porttest.TTL})
	if d.provided.key != p.key {
		t.Errorf("a store's key begins with %s, want %s", d.provided.key, p.key)
	}
	sum, _ := multihash.Sum([]byte(nativesNamespace(DefaultPrefix)), multihash.SHA2_256, -1)
	for range 3000 {
		id, _ := peer.Decode(string(hosttest.PeerID(t)))
		if err := d.dht.ProviderStore().AddProvider(t.Context(), sum, peer.AddrInfo{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.provided.len(); n < 900 || n > 1100 {
		t.Errorf("%d providers are held, want about a thousand", n)
	}
	if got, err := d.dht.ProviderStore().GetProviders(t.Context(), sum); err != nil || len(got) != d.provided.len() {
		t.Errorf("%d providers are sent of %d, error %v", len(got), d.provided.len(), err)
	}
	if err := d.dht.ProviderStore().AddProvider(t.Context(), []byte("another key"), peer.AddrInfo{ID: d.host.ID()}); err == nil {
		t.Error("another key is provided")
	}
}
