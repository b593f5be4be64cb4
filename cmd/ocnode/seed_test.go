package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// What a peer knows that was built from the seed's diagram alone.
const (
	seedProtocol protocol.ID = "/opencloud/native/subscribe/1.0"
	seedTopic                = "oc-indexer-registry"
	seedKey                  = "/indexer/"
	seedPrefix   protocol.ID = "/opencloud"
	seedAddr                 = "/ip4/127.0.0.1/tcp/4001"
)

// IndexerRegistration is what a seed indexer sends.
type IndexerRegistration struct{ PeerID, Addr string }

type liveIndexerEntry struct {
	PeerID, Addr string
	ExpiresAt    time.Time
}

// anything is a seed's validator: it believes what it is told.
type anything struct{}

func (anything) Validate(string, []byte) error        { return nil }
func (anything) Select(string, [][]byte) (int, error) { return 0, nil }

// newSeed returns a bare libp2p host.
func newSeed(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// connect connects h to a node at addr, which ends in its PeerID.
func connect(t *testing.T, h host.Host, addr string) peer.ID {
	t.Helper()
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(t.Context(), *info); err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// open opens a stream for a registration. It ends with the test.
func open(t *testing.T, h host.Host, addr string) network.Stream {
	t.Helper()
	s, err := h.NewStream(t.Context(), connect(t, h, addr), seedProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	_ = s.SetDeadline(time.Now().Add(ocnodetest.Patience))
	return s
}

// register registers h as the seed does: one object and a newline, then Close.
func register(t *testing.T, h host.Host, addr string) {
	t.Helper()
	s := open(t, h, addr)
	if err := json.NewEncoder(s).Encode(IndexerRegistration{h.ID().String(), seedAddr}); err != nil {
		t.Fatal(err)
	}
	_ = s.Close() // over QUIC an error if the native has answered and closed already
}

// joinTopic subscribes h to the gossip, and returns when it knows the native there.
func joinTopic(t *testing.T, h host.Host, native peer.ID) (*pubsub.Topic, *pubsub.Subscription) {
	t.Helper()
	ps, err := pubsub.NewGossipSub(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := ps.Join(seedTopic)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := topic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	ocnodetest.Eventually(t, "the seed knows that the native gossips", func() bool { return slices.Contains(topic.ListPeers(), native) })
	return topic, sub
}

// joinDHT makes h part of the DHT, and returns when it knows the native there.
func joinDHT(t *testing.T, h host.Host, native peer.ID, mode dht.ModeOpt) *dht.IpfsDHT {
	t.Helper()
	d, err := dht.New(h, dht.Mode(mode), dht.ProtocolPrefix(seedPrefix),
		dht.Validator(record.NamespacedValidator{"indexer": anything{}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	ocnodetest.Eventually(t, "the seed knows that the native serves the DHT", func() bool { return d.RoutingTable().Find(native) != "" })
	return d
}

func TestEndToEndASeedIndexerIsServed(t *testing.T) {
	t.Parallel()
	// An entry is announced at most once in a sixth of a heartbeat.
	native := start(t, t.TempDir(), "--registry.heartbeat=3s")
	for name, send := range map[string]func(t *testing.T, s network.Stream, frame []byte){
		"and leaves its side open": func(t *testing.T, s network.Stream, frame []byte) {
			sendAll(t, s, frame)
		},
		"and closes without reading": func(t *testing.T, s network.Stream, frame []byte) {
			sendAll(t, s, frame)
			_ = s.Close()
		},
		"in three fragments": func(t *testing.T, s network.Stream, frame []byte) {
			third := len(frame) / 3
			for _, fragment := range [][]byte{frame[:third], frame[third : 2*third], frame[2*third:]} {
				sendAll(t, s, fragment)
				time.Sleep(100 * time.Millisecond) // parts them on their way
			}
		},
	} {
		t.Run("it writes "+name, func(t *testing.T) {
			h := newSeed(t)
			id := h.ID().String()
			at := connect(t, h, native.Addrs[0])
			_, gossip := joinTopic(t, h, at)
			store := joinDHT(t, h, at, dht.ModeClient)

			frame, err := json.Marshal(IndexerRegistration{id, seedAddr})
			if err != nil {
				t.Fatal(err)
			}
			register := func() { send(t, open(t, h, native.Addrs[0]), append(frame, '\n')) }
			began := time.Now()
			register()

			if x := native.lists(id); x.Addr != seedAddr || x.Via != native.PeerID || x.State != "live" {
				t.Errorf("it is listed as %+v", x)
			}
			if took := time.Since(began); took > 2*time.Second && !ocnodetest.StoodStill() {
				t.Errorf("it is listed after %v: the native waited for something", took)
			}
			// What is said before the two are in each other's mesh may be lost: the next
			// heartbeat says it again.
			ocnodetest.Eventually(t, "it hears the gossip about itself", func() bool {
				if hears(t, gossip, at, id) {
					return true
				}
				register()
				return false
			})
			var value []byte
			ocnodetest.Eventually(t, "the DHT has it", func() bool { // what takes its time is announced before
				value, err = store.GetValue(t.Context(), seedKey+id)
				return err == nil
			})
			var e liveIndexerEntry
			if err := json.Unmarshal(value, &e); err != nil {
				t.Fatal(err)
			}
			granted := e.ExpiresAt.Add(-66 * time.Second)
			if e.PeerID != id || e.Addr != seedAddr || granted.Before(began.Add(-clockSlack)) || granted.After(time.Now()) {
				t.Errorf("the record is %+v", e)
			}
		})
	}
}

// hears reports whether native says within a second that id is alive.
func hears(t *testing.T, gossip *pubsub.Subscription, native peer.ID, id string) bool {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for {
		m, err := gossip.Next(ctx)
		if err != nil {
			return false
		}
		if m.GetFrom() == native && string(m.Data) == id {
			return true
		}
	}
}

func sendAll(t *testing.T, s io.Writer, b []byte) {
	t.Helper()
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

// What a seed native puts and gossips has nothing but the seed's three fields.
func TestEndToEndASeedNativeIsHeard(t *testing.T) {
	t.Parallel()
	native := start(t, t.TempDir())
	h := newSeed(t)
	at := connect(t, h, native.Addrs[0])
	topic, _ := joinTopic(t, h, at)
	store := joinDHT(t, h, at, dht.ModeServer)

	id := newSeed(t).ID().String()
	say := func() {
		inMesh := pubsub.WithReadiness(pubsub.MinTopicSize(1)) // nobody hears it before
		if err := topic.Publish(t.Context(), []byte(id), inMesh); err != nil {
			t.Fatal(err)
		}
	}
	say() // with nothing behind it yet
	expires := time.Now().Add(3*time.Second + stall)
	value, err := json.Marshal(liveIndexerEntry{id, seedAddr, expires})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutValue(t.Context(), seedKey+id, value); err != nil {
		t.Fatal(err)
	}
	say()
	if x := native.lists(id); x.Addr != seedAddr || x.ExpiresAt.Sub(expires).Abs() > clockSlack {
		t.Errorf("it is listed as %+v, want the deadline %v", x, expires)
	}
	ocnodetest.Eventually(t, "it is gone", func() bool {
		asked := time.Now()
		listed, err := native.list()
		_, ok := listed[id]
		if ok && asked.After(expires.Add(clockSlack)) {
			t.Fatal("it is listed after its deadline")
		}
		return err == nil && !ok
	})
}

// seedNative takes registrations and never answers.
type seedNative struct {
	host.Host
	mu      sync.Mutex
	arrived []time.Time
	got     []IndexerRegistration
}

// newSeedNative returns a native that does with the stream of a registration what
// then says.
func newSeedNative(t *testing.T, then func(network.Stream)) *seedNative {
	t.Helper()
	n := &seedNative{Host: newSeed(t)}
	n.SetStreamHandler(seedProtocol, func(s network.Stream) {
		var r IndexerRegistration
		if err := json.NewDecoder(bufio.NewReader(s)).Decode(&r); err != nil {
			if t.Context().Err() == nil { // else it is killed as it registers
				t.Errorf("the registration does not decode: %v", err)
			}
			return
		}
		if r.PeerID != s.Conn().RemotePeer().String() {
			t.Errorf("the registration is for %q and comes from %s", r.PeerID, s.Conn().RemotePeer())
		}
		n.mu.Lock()
		n.arrived, n.got = append(n.arrived, time.Now()), append(n.got, r)
		n.mu.Unlock()
		then(s)
	})
	return n
}

// first returns the first registration.
func (n *seedNative) first() IndexerRegistration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.got[0]
}

// pauses returns how long after one another registrations arrived.
func (n *seedNative) pauses() (pauses []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 1; i < len(n.arrived); i++ {
		pauses = append(pauses, n.arrived[i].Sub(n.arrived[i-1]))
	}
	return pauses
}

func (n *seedNative) addr() string { return n.Addrs()[0].String() + "/p2p/" + n.ID().String() }

func TestEndToEndAnIndexerRegistersWithSeedNatives(t *testing.T) {
	t.Parallel()
	// Longer than the 5 s for which it waits for an answer.
	const heartbeat = 5500 * time.Millisecond
	const early, slack = heartbeat / 10, time.Second
	open := newSeedNative(t, func(network.Stream) {})
	closed := newSeedNative(t, func(s network.Stream) { _ = s.Close() })
	reset := newSeedNative(t, func(s network.Stream) { _ = s.Reset() })
	indexer := start(t, t.TempDir(), "--modules=indexer", "--registry.heartbeat", heartbeat.String(),
		"--indexer.natives", open.addr(), "--indexer.natives", closed.addr(), "--indexer.natives", reset.addr())

	for name, n := range map[string]*seedNative{"leaves streams open": open, "closes streams": closed} {
		ocnodetest.Eventually(t, "a native that "+name+" is registered with three times", func() bool { return len(n.pauses()) >= 2 })
		// A machine that stands still makes one of them longer.
		if pauses := n.pauses(); slices.Min(pauses) < heartbeat-early-slack || slices.Min(pauses) > heartbeat+slack {
			t.Errorf("a native that %s is registered with after %v, want once a heartbeat, %v", name, pauses, heartbeat)
		}
		t.Logf("a native that %s is registered with after %v", name, n.pauses())
		if r := n.first(); r.PeerID != indexer.PeerID || r.Addr == "" {
			t.Errorf("the registration is %+v", r)
		}
	}
	// A reset is a failure: it is tried again sooner, and no flood either.
	retried := reset.pauses()
	if len(retried) < 3 || len(retried) > 12 || slices.Min(retried) < 100*time.Millisecond {
		t.Errorf("a native that resets is registered with after %v", retried)
	}
	t.Logf("a native that resets is registered with after %v", retried)
}
