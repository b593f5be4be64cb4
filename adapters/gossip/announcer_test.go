package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(hosttest.Settled{M: m})
}

func newAnnouncer(t *testing.T, h host.Host) *Announcer {
	t.Helper()
	a, err := New(h, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// notebook notes what is heard.
type notebook struct {
	mu    sync.Mutex
	heard map[ports.Announcement]int
	via   ports.PeerID
}

func listen(t *testing.T, a *Announcer) *notebook {
	t.Helper()
	n := &notebook{heard: make(map[ports.Announcement]int)}
	if _, err := a.Listen(n.hear); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *notebook) hear(a ports.Announcement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.via = a.Via
	a.Via = ""
	n.heard[a]++
}

// cameBy returns by way of whom the last one came.
func (n *notebook) cameBy() ports.PeerID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.via
}

func (n *notebook) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.heard)
}

func (n *notebook) has(id ports.PeerID, from peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.heard[ports.Announcement{PeerID: id, From: ports.PeerID(from.String())}] > 0
}

func TestAnnouncer(t *testing.T) {
	porttest.Announcer(t, func(t *testing.T) func() (ports.PeerID, porttest.ClosableAnnouncer) {
		var hosts []host.Host
		return func() (ports.PeerID, porttest.ClosableAnnouncer) {
			h := hosttest.New(t)
			a := newAnnouncer(t, h)
			for _, other := range hosts {
				hosttest.Connect(t, h, other)
			}
			hosts = append(hosts, h)
			return ports.PeerID(h.ID().String()), a
		}
	})
}

// TestBurst has four natives announce a thousand PeerIDs at once to a fifth.
func TestBurst(t *testing.T) {
	const natives, each = 4, 250
	h := hosttest.New(t)
	to := newAnnouncer(t, h)
	heard := listen(t, to)
	var from []*Announcer
	for range natives {
		other := hosttest.New(t)
		from = append(from, newAnnouncer(t, other))
		hosttest.Connect(t, other, h)
	}
	porttest.Eventually(t, "all know the listener", func() bool {
		return !slices.ContainsFunc(from, func(a *Announcer) bool { return a.Peers() != 1 })
	})
	var announcing sync.WaitGroup
	for _, a := range from {
		announcing.Go(func() {
			for range each {
				if err := a.Announce(t.Context(), hosttest.PeerID(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	announcing.Wait()
	porttest.Eventually(t, "all are heard", func() bool { return heard.len() == natives*each })
}

// hostileMessages are messages that no announcer may hear or pass on.
func hostileMessages(t testing.TB) map[string][]byte {
	t.Helper()
	canonical := hosttest.PeerID(t)
	id, err := peer.Decode(string(canonical))
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"empty":            {},
		"garbage":          []byte("\x00\xff"),
		"a word":           []byte("indexer-1"),
		"the PeerID bytes": []byte(id),
		"another spelling": []byte(peer.ToCid(id).String()),
		"a newline behind": []byte(canonical + "\n"),
		"a blank before":   []byte(" " + canonical),
		"JSON":             fmt.Appendf(nil, `{"PeerID":%q}`, canonical),
		"two":              []byte(canonical + canonical),
		"cut short":        []byte(canonical[:len(canonical)-1]),
		"long":             []byte(strings.Repeat("1", maxPeerIDBytes+1)),
		"huge":             []byte(strings.Repeat("1", 512<<10)),
	}
}

// TestHostileMessages has a bare peer of the same topic send whatever it likes to one
// native, which another listens behind.
func TestHostileMessages(t *testing.T) {
	bad, first, second := hosttest.New(t), hosttest.New(t), hosttest.New(t)
	near, far := newAnnouncer(t, first), newAnnouncer(t, second)
	heard, heardBehind := listen(t, near), listen(t, far)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	bare, err := pubsub.NewGossipSub(ctx, bad)
	if err != nil {
		t.Fatal(err)
	}
	topic, err := bare.Join("oc-indexer-registry") // the contract's, spelt out
	if err != nil {
		t.Fatal(err)
	}
	// A tap behind the near native: what reaches it was passed on, and it takes anything.
	tap := hosttest.New(t)
	bareTap, err := pubsub.NewGossipSub(ctx, tap)
	if err != nil {
		t.Fatal(err)
	}
	tapTopic, err := bareTap.Join("oc-indexer-registry")
	if err != nil {
		t.Fatal(err)
	}
	tapped, err := tapTopic.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	raw := &notebook{heard: make(map[ports.Announcement]int)}
	go deliver(ctx, tapped, raw.hear)
	hosttest.Connect(t, bad, first)
	hosttest.Connect(t, first, second)
	hosttest.Connect(t, first, tap)
	porttest.Eventually(t, "all know their neighbours", func() bool {
		return len(topic.ListPeers()) == 1 && near.Peers() == 2 && far.Peers() == 1
	})
	// The line stands when an honest message gets to both ends, through the mesh.
	hello := hosttest.PeerID(t)
	porttest.Eventually(t, "a message is passed on", func() bool {
		if err := topic.Publish(ctx, []byte(hello)); err != nil {
			t.Error(err)
		}
		return heard.has(hello, bad.ID()) && heardBehind.has(hello, bad.ID()) && raw.has(hello, bad.ID())
	})

	for name, message := range hostileMessages(t) {
		if err := topic.Publish(ctx, message); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	bye := hosttest.PeerID(t)
	if err := topic.Publish(ctx, []byte(bye)); err != nil {
		t.Error(err)
	}
	porttest.Eventually(t, "the honest message afterwards is passed on", func() bool {
		return heard.has(bye, bad.ID()) && heardBehind.has(bye, bad.ID()) && raw.has(bye, bad.ID())
	})
	if heard.len() != 2 || heardBehind.len() != 2 {
		t.Errorf("heard %v and behind it %v; want the two honest PeerIDs", heard.heard, heardBehind.heard)
	}
	if raw.len() != 2 {
		t.Errorf("%v was passed on; want the two honest PeerIDs", raw.heard)
	}
}

// TestForeignSubscriptions has a peer subscribe to a topic of its own, which is not
// remembered.
func TestForeignSubscriptions(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	h, other := hosttest.New(t), hosttest.New(t)
	ours, err := pubsub.NewGossipSub(ctx, h, options(DefaultTopic, slog.New(slog.DiscardHandler))...)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := pubsub.NewGossipSub(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"foreign", DefaultTopic} {
		topic, err := foreign.Join(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := topic.Subscribe(); err != nil {
			t.Fatal(err)
		}
	}
	hosttest.Connect(t, h, other)
	// Both subscriptions come in one message.
	porttest.Eventually(t, "the registry's subscription is known", func() bool { return len(ours.ListPeers(DefaultTopic)) == 1 })
	if peers := ours.ListPeers("foreign"); len(peers) != 0 {
		t.Errorf("the foreign one is known too: %v", peers)
	}
}

// TestTopic keeps networks apart.
func TestTopic(t *testing.T) {
	h, other := hosttest.New(t), hosttest.New(t)
	a := newAnnouncer(t, h)
	elsewhere, err := New(other, Config{Topic: "another"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = elsewhere.Close() })
	third := hosttest.New(t)
	listen(t, newAnnouncer(t, third))
	listen(t, elsewhere)
	hosttest.Connect(t, other, h)
	hosttest.Connect(t, third, h)
	porttest.Eventually(t, "the node on the same topic is known", func() bool { return a.Peers() > 0 })
	if n := a.Peers(); n != 1 {
		t.Errorf("%d peers; want the one on the same topic", n)
	}
}

// TestFakeTime runs three natives in a line, in a bubble.
func TestFakeTime(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 3)
		var announcers []*Announcer
		for i, h := range hosts {
			announcers = append(announcers, newAnnouncer(t, h))
			if i > 0 {
				hosttest.Connect(t, hosts[i-1], h)
			}
		}
		first, last := announcers[0], announcers[2]
		next, heard := listen(t, announcers[1]), listen(t, last)
		time.Sleep(2 * time.Second) // two of GossipSub's heartbeats, after which the mesh stands
		id, start := hosttest.PeerID(t), time.Now()
		if err := first.Announce(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if !heard.has(id, hosts[0].ID()) {
			t.Errorf("not heard two hops away after %v", time.Since(start))
		}
		if via := heard.cameBy(); via != ports.PeerID(hosts[1].ID().String()) {
			t.Errorf("heard by way of %q, want the neighbour, %s", via, hosts[1].ID())
		}
		if via := next.cameBy(); via != ports.PeerID(hosts[0].ID().String()) {
			t.Errorf("the neighbour heard it by way of %q, want its author, %s", via, hosts[0].ID())
		}
	})
}

func FuzzValidate(f *testing.F) {
	f.Add([]byte(hosttest.PeerID(f)))
	for _, message := range hostileMessages(f) {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !isPeerID(text) {
			return
		}
		id, err := peer.Decode(string(text))
		if err != nil || id.String() != string(text) || len(text) > maxPeerIDBytes || id.Validate() != nil {
			t.Errorf("accepted %q", text)
		}
	})
}

// A stranger's PRUNE has the native dial whatever made-up peers say their addresses are.

// The number of a message is its sender's choice, and the library remembers it for minutes.
func TestALongNumberIsNotRemembered(t *testing.T) {
	numbered := func(size int) *pb.Message { return &pb.Message{Seqno: bytes.Repeat([]byte{1}, size)} }
	rpc := &pubsub.RPC{RPC: pb.RPC{Publish: []*pb.Message{numbered(8), numbered(maxNumberBytes + 1), numbered(maxNumberBytes), numbered(1 << 19)}}}
	if err := slim("evil", rpc); err != nil || len(rpc.Publish) != 2 || len(rpc.Publish[0].Seqno) != 8 || len(rpc.Publish[1].Seqno) != maxNumberBytes {
		t.Errorf("left are %d messages, %v; want those of 8 and %d bytes", len(rpc.Publish), err, maxNumberBytes)
	}
	data := []byte(hosttest.PeerID(t))
	for key, want := range map[int]bool{600: true, maxMessageBytes: false} {
		m := &pubsub.Message{Message: &pb.Message{Data: data, Key: make([]byte, key)}}
		if got := validate(t.Context(), "evil", m); got != want {
			t.Errorf("with a key of %d bytes it is taken: %t, want %t", key, got, want)
		}
	}
}

// What is dropped is so before anybody hears it; what follows is heard.
func TestAMessageWithALongNumberIsNotHeard(t *testing.T) {
	h := hosttest.New(t)
	heard := listen(t, newAnnouncer(t, h))
	evil := hosttest.New(t)
	hosttest.Connect(t, evil, h)
	s, err := evil.NewStream(t.Context(), h.ID(), pubsub.GossipSubID_v11)
	if err != nil {
		t.Fatal(err)
	}
	key := evil.Peerstore().PrivKey(evil.ID())
	topic, data := DefaultTopic, []byte(hosttest.PeerID(t))
	for i, size := range []int{100 << 10, maxNumberBytes + 1, 8} {
		number := bytes.Repeat([]byte{byte(i + 1)}, size)
		m := &pb.Message{From: []byte(evil.ID()), Data: data, Topic: &topic, Seqno: number}
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if m.Signature, err = key.Sign(append([]byte("libp2p-pubsub:"), b...)); err != nil {
			t.Fatal(err)
		}
		if b, err = proto.Marshal(&pb.RPC{Publish: []*pb.Message{m}}); err != nil {
			t.Fatal(err)
		}
		if err := msgio.NewVarintWriter(s).WriteMsg(b); err != nil {
			t.Fatal(err)
		}
	}
	porttest.Eventually(t, "the last of them is heard", func() bool { return heard.len() > 0 })
	if n := heard.len(); n != 1 {
		t.Errorf("%d are heard, want the last alone", n)
	}
}

// The largest RSA key that libp2p takes has 8,192 bits: 1,058 bytes as libp2p marshals it.

func TestAnAuthorWithALargeRSAKeyIsHeard(t *testing.T) {
	const id = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
	topic := DefaultTopic
	m := &pubsub.Message{Message: &pb.Message{
		From: make([]byte, 34), Data: []byte(id), Seqno: make([]byte, 8), Topic: &topic, Key: make([]byte, 1058), Signature: make([]byte, 1024),
	}}
	if !validate(t.Context(), "", m) {
		t.Error("an announcement of an author with an RSA key of 8,192 bits is dropped")
	}
}
