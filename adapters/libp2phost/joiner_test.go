package libp2phost

import (
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

var nativeProtocols = []protocol.ID{ports.SubscribeProtocol, "/opencloud/kad/1.0.0"}

func TestJoinerReconnectsAfterARestartOnTheSamePort(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	native := newHost(t, key, ownTCP)
	listen, bootstrap := addrStrings(native.Addrs()), fullAddrs(native)
	h := newHost(t, newKey(t), loopbackTCP)
	log := new(logged)
	join(t, h, JoinerConfig{Bootstrap: bootstrap, Log: log.logger()})
	porttest.Eventually(t, "connected", func() bool { return connected(h, native) })
	since := time.Now()
	porttest.Eventually(t, "a steady connection", func() bool { return time.Since(since) > steadyAfter+100*time.Millisecond && connected(h, native) })

	native.Close()
	porttest.Eventually(t, "tried in vain", func() bool { return log.count("native cannot be reached") > 0 })
	// Whatever the peerstore knew has lapsed, as it does in 15 minutes.
	h.Peerstore().ClearAddrs(native.ID())
	native = newHost(t, key, listen...)
	porttest.Eventually(t, "connected again", func() bool { return connected(h, native) })
	porttest.Eventually(t, "the end of the outage is logged", func() bool { return log.count("level=INFO", "native reached") == 1 })
}

func TestThePauseBetweenAttemptsDoublesUpToItsBound(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		var r retry
		for _, most := range []time.Duration{retryMin, 2 * retryMin, 4 * retryMin, retryMax, retryMax} {
			if r.failed(); time.Until(r.next) < most/2 || time.Until(r.next) > most {
				t.Errorf("after %d failures it pauses for %v, want %v at most and half of it at least", r.failures, time.Until(r.next), most)
			}
		}
	})
}

func TestJoinerWarnsOnceAboutAnUnreachablePeerAndItself(t *testing.T) {
	nobody, err := net.Listen("tcp", hosttest.Loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	port := nobody.Addr().(*net.TCPAddr).Port
	nobody.Close()
	h := newHost(t, newKey(t), loopbackTCP)
	log := new(logged)
	stop := join(t, h, JoinerConfig{Log: log.logger(), Bootstrap: append(fullAddrs(h), fmt.Sprintf("/ip4/%s/tcp/%d/p2p/%s", hosttest.Loopback, port, otherID))})
	porttest.Eventually(t, "tried twice", func() bool { return log.count("native cannot be reached") >= 2 })
	stop()
	if n := log.count("level=WARN", "native cannot be reached", otherID, "connection refused", "hint="); n != 1 {
		t.Errorf("warned %d times", n)
	}
	if n := log.count("level=WARN", "names this node itself"); n != 1 {
		t.Errorf("warned %d times about itself", n)
	}
}

func TestJoinerNamesAForeignIdentity(t *testing.T) {
	native, h, log := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t)), new(logged)
	join(t, h, JoinerConfig{Log: log.logger(), Bootstrap: []string{native.Addrs()[0].String() + "/p2p/" + otherID}})
	porttest.Eventually(t, "a warning that names both", func() bool {
		return log.count("level=WARN", "peer id mismatch", otherID, native.ID().String()) == 1
	})
}

func TestJoinerResolvesNames(t *testing.T) {
	first, second, third := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP)
	h := newHost(t, newKey(t), loopbackTCP)
	records := &madns.MockResolver{TXT: map[string][]string{
		"_dnsaddr.natives.example": {
			"dnsaddr=" + fullAddrs(first)[0],
			"dnsaddr=" + fullAddrs(h)[0], // natives share a name
			"dnsaddr=/dnsaddr/more.example",
			"dnsaddr=/ip4/127.0.0.1/tcp/1", // nobody
			"v=spf1",
		},
		"_dnsaddr.more.example": {"dnsaddr=" + fullAddrs(second)[0]},
		"_dnsaddr.one.example":  {"dnsaddr=" + fullAddrs(second)[0], "dnsaddr=" + fullAddrs(third)[0]},
		"_dnsaddr.loop.example": {"dnsaddr=/dnsaddr/loop.example", "dnsaddr=/dnsaddr/loop.example"},
	}}
	resolver, err := madns.NewResolver(madns.WithDefaultResolver(records))
	if err != nil {
		t.Fatal(err)
	}
	log := new(logged)
	join(t, h, JoinerConfig{Log: log.logger(), Resolver: resolver, Bootstrap: []string{
		"/dnsaddr/natives.example",
		"/dnsaddr/one.example/p2p/" + third.ID().String(),
		"/dnsaddr/loop.example",
		"/dnsaddr/none.example",
	}})
	for _, native := range []host.Host{first, second, third} {
		porttest.Eventually(t, "connected", func() bool { return connected(h, native) })
	}
	for _, name := range []string{"loop.example", "none.example"} {
		porttest.Eventually(t, "warned about "+name, func() bool {
			return log.count("level=WARN", "bootstrap name does not resolve", name) == 1
		})
	}
}

func TestJoinerFollowsANameToAnotherPeer(t *testing.T) {
	j, err := NewJoiner(newHost(t, newKey(t)), JoinerConfig{Bootstrap: []string{"/ip4/192.0.2.1/tcp/1/p2p/" + otherID}, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	self, other := decode(t, selfID), decode(t, otherID)
	configured := func(want ...string) (changed <-chan struct{}) {
		t.Helper()
		peers, changed := j.Configured()
		var got []string
		for _, p := range peers {
			got = append(got, fmt.Sprint(p.PeerID, p.Addrs))
		}
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("configured are %v, want %v", got, want)
		}
		return changed
	}
	named, given := selfID+"[/ip4/192.0.2.2/tcp/2]", otherID+"[/ip4/192.0.2.1/tcp/1]"
	before := configured(given)
	n := new(name)
	j.named(n, []peer.AddrInfo{{ID: self, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.2/tcp/2")}}, {ID: other}})
	<-before
	before = configured(named, given)
	if !j.targets[self].configured || !j.targets[other].configured {
		t.Fatal("not configured by the name")
	}
	j.named(n, nil)
	<-before
	before = configured(given)
	j.named(n, nil)
	select {
	case <-before:
		t.Error("told of a change without one")
	default:
	}
	if j.targets[self].configured {
		t.Error("configured though the name leads elsewhere")
	}
	if !j.targets[other].configured {
		t.Error("not configured though its address is")
	}
}

func decode(t *testing.T, text string) peer.ID {
	t.Helper()
	id, err := peer.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestJoinerRemembersNativesAndOnlyThem(t *testing.T) {
	t.Parallel()
	for name, protocols := range map[string][]protocol.ID{
		"known when identified": {ports.SubscribeProtocol},
		"DHT server":            {"/opencloud/kad/1.0.0"},
		"indexer":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := newKey(t)
			serve := func(h host.Host) {
				for _, id := range protocols {
					h.SetStreamHandler(id, func(s network.Stream) { s.Close() })
				}
			}
			native := newHost(t, key, ownTCP)
			serve(native)
			listen := addrStrings(native.Addrs())
			h := newHost(t, newKey(t), loopbackTCP)
			log := new(logged)
			stop := join(t, h, JoinerConfig{Natives: nativeProtocols, Log: log.logger()})
			// The other one dials, so that its address is known from itself alone.
			if err := native.Connect(t.Context(), infoOf(h)); err != nil {
				t.Fatal(err)
			}
			porttest.Eventually(t, "identified", func() bool {
				known, err := h.Peerstore().GetProtocols(native.ID())
				return err == nil && len(known) > 0
			})
			if protocols == nil {
				stop()
				if h.ConnManager().IsProtected(native.ID(), protectTag) {
					t.Error("an indexer is protected")
				}
				return
			}
			porttest.Eventually(t, "protected", func() bool { return h.ConnManager().IsProtected(native.ID(), protectTag) })
			native.Close()
			porttest.Eventually(t, "tried in vain", func() bool { return log.count("level=DEBUG", "native cannot be reached") > 0 })
			native = newHost(t, key, listen...)
			porttest.Eventually(t, "connected again", func() bool { return connected(h, native) })
			if n := log.count("level=WARN"); n != 0 {
				t.Errorf("%d warnings about a peer that nobody configured", n)
			}
		})
	}
}

func TestJoinerRemembersWhoWasMetBeforeRunOrBecameANativeLater(t *testing.T) {
	early, late := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP)
	early.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
	h := newHost(t, newKey(t), loopbackTCP)
	for _, native := range []host.Host{early, late} {
		if err := h.Connect(t.Context(), infoOf(native)); err != nil {
			t.Fatal(err)
		}
	}
	join(t, h, JoinerConfig{Natives: nativeProtocols})
	porttest.Eventually(t, "protected", func() bool { return h.ConnManager().IsProtected(early.ID(), protectTag) })
	late.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
	porttest.Eventually(t, "protected", func() bool { return h.ConnManager().IsProtected(late.ID(), protectTag) })
}

// TestJoinerRemembersTheAddressThatWorked has a native tell of more addresses than are
// remembered, such as those of the bridges of its containers.
func TestJoinerRemembersTheAddressThatWorked(t *testing.T) {
	native, h := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t))
	if err := h.Connect(t.Context(), infoOf(native)); err != nil {
		t.Fatal(err)
	}
	h.Peerstore().AddProtocols(native.ID(), ports.SubscribeProtocol)
	for i := range ports.MaxAddrs + 1 {
		h.Peerstore().AddAddr(native.ID(), ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.1/tcp/4101", i)), time.Hour)
	}
	j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	j.hear(event.EvtPeerIdentificationCompleted{Peer: native.ID()})
	works := native.Network().ListenAddresses()[0]
	if got := j.targets[native.ID()].addrs; len(got) != ports.MaxAddrs || !got[0].Equal(works) {
		t.Errorf("it was reached at %s, and will be dialled at %s", works, got)
	}
}

// maxRemembered is the room that these tests give a joiner.
const maxRemembered = 64

func TestJoinerMemoryIsBounded(t *testing.T) {
	h := newHost(t, newKey(t))
	j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Remembered: maxRemembered, Bootstrap: []string{"/ip4/192.0.2.1/tcp/1/p2p/" + otherID}, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	met := func() peer.ID {
		id, err := peer.IDFromPrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		h.Peerstore().AddProtocols(id, ports.SubscribeProtocol)
		h.Peerstore().AddAddr(id, ma.StringCast("/ip4/127.0.0.1/tcp/1"), time.Hour)
		j.hear(event.EvtPeerIdentificationCompleted{Peer: id})
		return id
	}
	first := met()
	j.targets[first].since = time.Now().Add(-time.Minute)
	for range maxRemembered - 1 {
		j.targets[met()].connected = true
	}
	second := met()
	if j.targets[first] != nil || h.ConnManager().IsProtected(first, protectTag) {
		t.Error("the one gone longest was kept")
	}
	if j.targets[second] == nil {
		t.Error("the newcomer was not remembered")
	}
	j.targets[second].connected = true
	if third := met(); j.targets[third] != nil {
		t.Error("remembered although all others are connected")
	}
	if len(j.targets) != maxRemembered+1 { // and the configured one
		t.Errorf("%d targets", len(j.targets))
	}
}

func TestNewJoinerRefusesWrongAddresses(t *testing.T) {
	if _, err := NewJoiner(newHost(t, newKey(t)), JoinerConfig{Bootstrap: []string{"/ip4/192.0.2.1/tcp/1"}}); err == nil {
		t.Error("accepted an address without /p2p/")
	}
}

// One peer opens streams and does not say what for. Nobody else's are taken then.

// Who says once that it is a native, at addresses of a victim, and goes, has them dialled.

func TestJoinerDoesNotHammerAVictim(t *testing.T) {
	t.Parallel()
	var dialled atomic.Int64
	var victims []ma.Multiaddr
	for range ports.MaxAddrs {
		l, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				dialled.Add(1)
				defer c.Close()
			}
		}()
		a, err := manet.FromNetAddr(l.Addr())
		if err != nil {
			t.Fatal(err)
		}
		victims = append(victims, a)
	}
	native := newHost(t, newKey(t), loopbackTCP)
	join(t, native, JoinerConfig{Natives: nativeProtocols, Bootstrap: nil})
	for range 8 {
		evil := unlimited(t, victims...)
		evil.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { _ = s.Reset() })
		if err := evil.Connect(t.Context(), infoOf(native)); err != nil {
			t.Fatal(err)
		}
		porttest.Eventually(t, "remembered", func() bool { return native.ConnManager().IsProtected(evil.ID(), protectTag) })
		_ = evil.Close()
	}
	dialled.Store(0)
	time.Sleep(10 * time.Second)
	if n := dialled.Load(); n > 150 {
		t.Errorf("8 connections of a stranger, which have ended: %d dials to the victim in 10 s", n)
	}
}

// Who is met first stays, if connected: one site's identities take all places.

func TestOneSiteDoesNotTakeAllPlacesOfTheJoiner(t *testing.T) {
	h := newHost(t, newKey(t))
	j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Remembered: maxRemembered, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	met := func(addr string) peer.ID {
		id, err := peer.IDFromPrivateKey(newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		h.Peerstore().AddProtocols(id, ports.SubscribeProtocol)
		h.Peerstore().AddAddr(id, ma.StringCast(addr), time.Hour)
		j.hear(event.EvtPeerIdentificationCompleted{Peer: id})
		return id
	}
	honest := met("/ip4/198.51.100.1/tcp/4101")
	j.targets[honest].met = true // and cut off just now
	for i := range maxRemembered {
		if x := j.targets[met(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", 1000+i))]; x != nil {
			x.connected = true
		}
	}
	if j.targets[honest] == nil {
		t.Error("a native that was cut off is forgotten, as one site made 64 identities meanwhile")
	}
	later := met("/ip4/198.51.100.2/tcp/4101")
	if j.targets[later] == nil {
		t.Error("one site's identities leave no place for other natives")
	}
}

// A native is reached, identified again after it has gone: what worked must not be forgotten.

func TestWhatWorkedIsKeptWhenItHasGone(t *testing.T) {
	native, h := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t))
	if err := h.Connect(t.Context(), infoOf(native)); err != nil {
		t.Fatal(err)
	}
	h.Peerstore().AddProtocols(native.ID(), ports.SubscribeProtocol)
	h.Peerstore().AddAddr(native.ID(), ma.StringCast("/ip4/10.0.0.1/tcp/4101"), time.Hour)
	j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	j.hear(event.EvtPeerIdentificationCompleted{Peer: native.ID()})
	tgt := j.targets[native.ID()]
	before := tgt.shown
	if before == 0 {
		t.Fatal("nothing is shown")
	}
	if err := h.Network().ClosePeer(native.ID()); err != nil {
		t.Fatal(err)
	}
	// Events queue: this one was sent before it went, and is heard after.
	j.hear(event.EvtPeerProtocolsUpdated{Peer: native.ID()})
	if tgt.shown < before {
		t.Errorf("of %v, %d are where it was met; before it went, %d were: they are dialled every 5 s, others up to a minute apart", tgt.addrs, tgt.shown, before)
	}
}
