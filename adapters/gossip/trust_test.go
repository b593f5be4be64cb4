package gossip

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports/porttest"
)

// closed returns an announcer over h that hears those on the list.
func closed(t *testing.T, h host.Host, list *hosttest.Roll) (*Announcer, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	a, err := New(h, Config{Natives: list.Trusts, Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a, reg
}

// TestAnOutsiderIsNotHeard has an outsider flood a closed native by itself, and by way of an
// open native that is on the list, which speaks for itself beside it.
func TestAnOutsiderIsNotHeard(t *testing.T) {
	const flood, honest, batch = 5000, 500, 500
	h, friendly, bad := hosttest.New(t), hosttest.New(t), hosttest.New(t)
	list := &hosttest.Roll{}
	list.Set(h, friendly)
	a, reg := closed(t, h, list)
	friend := newAnnouncer(t, friendly)
	heard, passed := listen(t, a), listen(t, friend)
	bare, err := pubsub.NewGossipSub(t.Context(), bad, pubsub.WithPeerOutboundQueueSize(flood), pubsub.WithFloodPublish(true))
	if err != nil {
		t.Fatal(err)
	}
	topic, err := bare.Join(DefaultTopic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topic.Subscribe(); err != nil {
		t.Fatal(err)
	}
	hosttest.Connect(t, friendly, h)
	hosttest.Connect(t, bad, h)
	hosttest.Connect(t, bad, friendly)
	porttest.Eventually(t, "the honest ones know each other, and the open one the outsider", func() bool {
		got := metricstest.Gather(t, reg)
		return a.Peers() == 1 && friend.Peers() == 2 && len(topic.ListPeers()) == 1 && got["ocnode_gossip_mesh_peers"] == 1
	})

	quiet := hosttest.New(t) // whose only stream this is, so that no other takes its place
	hosttest.Connect(t, quiet, h)
	idle, err := quiet.NewStream(t.Context(), h.ID(), pubsub.GossipSubID_v11)
	if err != nil {
		t.Fatal(err)
	}
	_ = idle.SetDeadline(time.Now().Add(porttest.Patience))
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Errorf("a stream that says nothing: %v, want a reset", err)
	}
	// It does not wait to be subscribed to: each of its streams floods for as long as it lasts.
	written, id := 0, []byte(hosttest.PeerID(t))
	for range flood / 50 {
		s, err := bad.NewStream(t.Context(), h.ID(), pubsub.GossipSubID_v11)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(porttest.Patience))
		rpc, err := proto.Marshal(&pb.RPC{Publish: []*pb.Message{{Data: id, Topic: proto.String(DefaultTopic), From: []byte(bad.ID())}}})
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			written++
			if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(rpc))), rpc...)); err != nil {
				break
			}
		}
		if _, err := s.Read(make([]byte, 1)); err == nil {
			t.Fatal("it is answered")
		}
	}
	for i := range flood {
		if i%batch == 0 { // so that no queue between overflows, which would lose honest ones too
			porttest.Eventually(t, "the open one has heard the flood so far", func() bool { return passed.len() >= i && heard.len() >= i*honest/flood })
		}
		if err := topic.Publish(t.Context(), []byte(hosttest.PeerID(t))); err != nil {
			t.Fatal(err)
		}
		if i%(flood/honest) == 0 {
			if err := friend.Announce(t.Context(), hosttest.PeerID(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	porttest.Eventually(t, "all has come", func() bool { return passed.len() == flood && heard.len() >= honest })
	got := metricstest.Gather(t, reg)
	t.Logf("an outsider wrote %d messages itself and had %d published by way of a native, which heard %d of them: %d heard, of %d by the native itself; %v streams and %v messages turned away",
		written, flood, passed.len(), heard.len(), honest, got["ocnode_gossip_untrusted_total"], got[`ocnode_gossip_messages_total{result="untrusted_author"}`])
	if heard.len() != honest || a.Peers() != 1 || got["ocnode_gossip_mesh_peers"] != 1 {
		t.Errorf("%d are heard, want %d; it knows %d peers, of which %v are in the mesh", heard.len(), honest, a.Peers(), got["ocnode_gossip_mesh_peers"])
	}
	if got["ocnode_gossip_untrusted_total"] < flood/50 || got[`ocnode_gossip_messages_total{result="untrusted_author"}`] == 0 {
		t.Errorf("they are not counted: %v", got)
	}
}

// TestWhoIsTakenOffTheListIsNotHeardAnyMore revises the list while both are in each other's
// mesh.
func TestWhoIsTakenOffTheListIsNotHeardAnyMore(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		h, other := hosts[0], hosts[1]
		list := &hosttest.Roll{}
		list.Set(h, other)
		a, reg := closed(t, h, list)
		taken := newAnnouncer(t, other)
		heard, heardThere := listen(t, a), listen(t, taken)
		hosttest.Connect(t, other, h)
		announce := func(times int) {
			t.Helper()
			for range times {
				for _, announcer := range []*Announcer{a, taken} {
					if err := announcer.Announce(t.Context(), hosttest.PeerID(t)); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		expect := func(when string, want int, peers float64) {
			t.Helper()
			got := metricstest.Gather(t, reg)
			if heard.len() != want || heardThere.len() != want || float64(a.Peers()) != peers || got["ocnode_gossip_mesh_peers"] != peers {
				t.Errorf("%s: %d and %d are heard, want %d; it knows %d peers, of which %v are in the mesh, want %v",
					when, heard.len(), heardThere.len(), want, a.Peers(), got["ocnode_gossip_mesh_peers"], peers)
			}
		}
		const few, many = 7, 100
		time.Sleep(2 * time.Second) // two of GossipSub's heartbeats, after which the mesh stands
		announce(few)
		expect("on the list", few, 1)

		list.Set(h)
		_ = h.Network().ClosePeer(other.ID())
		hosttest.Connect(t, other, h)
		announce(many)
		expect("off the list", few, 0)
		time.Sleep(time.Minute) // until the other tries no more
		announce(many)
		expect("off the list for long", few, 0)
		if metricstest.Gather(t, reg)["ocnode_gossip_untrusted_total"] == 0 {
			t.Error("no stream of it was turned away")
		}

		list.Set(h, other)
		_ = h.Network().ClosePeer(other.ID())
		hosttest.Connect(t, other, h)
		time.Sleep(2 * time.Second)
		announce(few)
		expect("on the list again", 2*few, 1)
	})
}

// TestAStreamIsNoLongerHeardThanItsPeerIsOnTheList has the connection stay.
func TestAStreamIsNoLongerHeardThanItsPeerIsOnTheList(t *testing.T) {
	h, other := hosttest.New(t), hosttest.New(t)
	list := &hosttest.Roll{}
	list.Set(h, other)
	a, reg := closed(t, h, list)
	taken := newAnnouncer(t, other)
	heard := listen(t, a)
	hosttest.Connect(t, other, h)
	porttest.Eventually(t, "the other knows that it listens", func() bool { return taken.Peers() == 1 })
	first := hosttest.PeerID(t)
	if err := taken.Announce(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	porttest.Eventually(t, "it is heard", func() bool { return heard.has(first, other.ID()) })
	list.Set(h)
	if err := taken.Announce(t.Context(), hosttest.PeerID(t)); err != nil {
		t.Fatal(err)
	}
	porttest.Eventually(t, "its stream is turned away", func() bool { return metricstest.Gather(t, reg)["ocnode_gossip_untrusted_total"] > 0 })
	if heard.len() != 1 {
		t.Errorf("%d are heard", heard.len())
	}
}
