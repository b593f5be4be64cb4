package libp2phost

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/marcopolo/simnet"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// told is a native that another tells of.
func told(id peer.ID, addrs ...string) ports.Found {
	return ports.Found{PeerID: ports.PeerID(id.String()), Addrs: addrs}
}

func madeUp(t *testing.T, addrs ...string) ports.Found {
	return ports.Found{PeerID: hosttest.PeerID(t), Addrs: addrs}
}

// A native that others tell of is connected, and kept as any that was met. A peer that is none is not.
func TestJoinerMeetsNatives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		sim.Start()
		t.Cleanup(sim.Close)
		h, native, none := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2"), simulated(t, sim, "1.0.0.3")
		native.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
		j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Log: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, j)
		knows := func() int {
			synctest.Wait()
			return len(j.targets)
		}
		gone := madeUp(t, "/ip4/1.0.0.9/udp/4101/quic-v1")
		for _, f := range []ports.Found{
			gone, told(native.ID(), "/dnsaddr/made.up", "/ip4/0.0.0.0/udp/1/quic-v1", fullAddrs(native)[0]), told(none.ID(), addrStrings(none.Addrs())...),
			told(h.ID(), "/ip4/1.0.0.2/udp/4101/quic-v1"), {PeerID: "nobody", Addrs: gone.Addrs},
		} {
			j.Meet(f, "teller")
		}
		time.Sleep(2 * time.Second)
		if !connected(h, native) || !h.ConnManager().IsProtected(native.ID(), protectTag) {
			t.Error("the native that another told of is not kept connected")
		}
		time.Sleep(time.Minute)
		if h.ConnManager().IsProtected(none.ID(), protectTag) {
			t.Error("a peer that is no native is kept connected")
		}
		if n := knows(); n != 1 {
			t.Errorf("it knows %d peers, want the native alone", n)
		}
		// Neither is dialled again by the word of others, for a while.
		j.Meet(gone, "another")
		time.Sleep(time.Second)
		if n := knows(); n != 1 {
			t.Errorf("it tries again at once: it knows %d peers", n)
		}
		time.Sleep(avoidFor)
		j.Meet(gone, "another")
		time.Sleep(time.Second)
		if n := knows(); n != 2 {
			t.Errorf("it does not try again %v later: it knows %d peers", avoidFor, n)
		}
		stop()
	})
}

// A liar that tells first where natives are not keeps none of them away.
func TestALieAboutANativeHidesItFromNobody(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		sim.Start()
		t.Cleanup(sim.Close)
		h, native := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		native.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
		j, err := NewJoiner(h, JoinerConfig{Natives: nativeProtocols, Log: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer run(t, j)()
		lie := told(native.ID(), "/ip4/1.0.0.9/udp/4101/quic-v1")
		for range 5 {
			j.Meet(lie, "liar")
			time.Sleep(time.Minute)
		}
		j.Meet(told(native.ID(), fullAddrs(native)[0]), "honest")
		time.Sleep(time.Minute)
		if !connected(h, native) {
			t.Error("after a lie a native is not met where it is")
		}
		// It is told of while the lie of this minute is found out.
		other := simulated(t, sim, "1.0.0.3")
		other.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
		j.Meet(told(other.ID(), "/ip4/1.0.0.9/udp/4101/quic-v1"), "liar")
		for range 2 {
			j.Meet(told(other.ID(), fullAddrs(other)[0]), "honest")
		}
		time.Sleep(time.Minute)
		if !connected(h, other) {
			t.Error("beside a lie a native is not met where it is")
		}
	})
}

// A liar costs few dials, and takes the room of no other teller.
func TestMeetingsAreShared(t *testing.T) {
	j, err := NewJoiner(newHost(t, newKey(t)), JoinerConfig{Natives: nativeProtocols, Log: new(logged).logger()})
	if err != nil {
		t.Fatal(err)
	}
	meetings := func(by ports.PeerID) (n int) {
		for _, m := range j.targets {
			if m.meeting.by == by {
				n++
			}
		}
		return n
	}
	for i := range 500 {
		j.arrange(hearsay{madeUp(t, fmt.Sprintf("/ip4/192.0.2.%d/tcp/%d", i%250, i+1)), "liar"})
	}
	if n := meetings("liar"); n != maxByTeller {
		t.Errorf("a liar has %d meetings, want %d", n, maxByTeller)
	}
	for i := range 100 {
		j.arrange(hearsay{madeUp(t, fmt.Sprintf("/ip4/198.51.100.1/tcp/%d", i+1)), "hammer"})
	}
	if n := meetings("hammer"); n != maxAtSite {
		t.Errorf("%d meetings at one site, want %d", n, maxAtSite)
	}
	for i := range 100 {
		j.arrange(hearsay{madeUp(t, fmt.Sprintf("/ip4/203.0.113.%d/tcp/1", i)), ports.PeerID(fmt.Sprint("teller", i))})
	}
	if n := len(j.targets); n != maxMeetings {
		t.Errorf("%d meetings, want %d", n, maxMeetings)
	}
	for _, addr := range []string{"", "/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/0", "/dnsaddr/x", "/ip4/192.0.2.1", "/ip4/192.0.2.1/tcp/1/p2p/" + otherID, "/ip4/192.0.2.1/tcp/1/" + strings.Repeat("x", ports.MaxAddrBytes)} {
		clear(j.targets)
		if j.arrange(hearsay{madeUp(t, addr), "x"}); len(j.targets) > 0 {
			t.Errorf("it would dial %q", addr)
		}
	}
	many := slices.Repeat([]string{"/ip4/192.0.2.1/tcp/1"}, 1000)
	if j.arrange(hearsay{madeUp(t, many...), "x"}); len(j.targets) != 1 {
		t.Error("a native with many addresses is not met")
	}
	for _, m := range j.targets {
		if len(m.addrs) > ports.MaxAddrs {
			t.Errorf("%d addresses of it are dialled", len(m.addrs))
		}
	}
	for range maxAvoided + 10 {
		id, _ := peer.Decode(string(hosttest.PeerID(t)))
		j.avoid(avoidance{id, ""}, time.Now())
	}
	if len(j.avoided) != maxAvoided {
		t.Errorf("it remembers %d that it could not meet, want %d", len(j.avoided), maxAvoided)
	}
}
