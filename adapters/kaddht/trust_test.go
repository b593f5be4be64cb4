package kaddht

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/metricstest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// hostile makes h a server that puts and provides without a rule.
func hostile(t *testing.T, h host.Host) *pb.ProtocolMessenger {
	t.Helper()
	bad, err := dht.New(h, dht.ProtocolPrefix(DefaultPrefix), dht.Mode(dht.ModeServer), dht.Validator(anyValue()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bad.Close() })
	send, err := pb.NewProtocolMessenger(bad.MessageSender())
	if err != nil {
		t.Fatal(err)
	}
	return send
}

// disguised are puts that begin like a read: the last type field counts, and only its lower
// half.
func disguised(t *testing.T, put *pb.Message) map[string][]byte {
	t.Helper()
	honest, err := proto.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	kind := func(value uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, typeField, protowire.VarintType), value)
	}
	find := kind(uint64(pb.Message_FIND_NODE))
	return map[string][]byte{
		"as it is":                      honest,
		"a question before it":          append(append([]byte{}, find...), append(honest, kind(0)...)...),
		"a type of more than 32 bits":   append(append([]byte{}, honest...), kind(1<<32)...),
		"an unknown field before it":    append(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 4), honest...),
		"a question that is cut off":    append(append([]byte{}, find...), 0xff),
		"a type that there is not":      kind(17),
		"a provider":                    kind(uint64(pb.Message_ADD_PROVIDER)),
		"a question, and then provides": append(append([]byte{}, find...), kind(uint64(pb.Message_ADD_PROVIDER))...),
	}
}

// sendRaw writes a request to the server at to and reports whether it was answered.
func sendRaw(t *testing.T, from, to host.Host, request []byte) (answered bool) {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), kadProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	_ = s.SetDeadline(time.Now().Add(porttest.Patience))
	_, _ = s.Write(append(binary.AppendUvarint(nil, uint64(len(request))), request...))
	_, err = s.Read(make([]byte, 1))
	return err == nil
}

// TestAnOutsiderIsKeptOutOfAClosedDHT lets an outsider attack a native in all ways, beside an
// honest native that puts and an indexer that reads.
func TestAnOutsiderIsKeptOutOfAClosedDHT(t *testing.T) {
	const attempts, honest = 1000, 100
	h, friendly, bad, reading := hosttest.New(t), hosttest.New(t), hosttest.New(t), hosttest.New(t)
	natives, readers := &hosttest.Roll{}, &hosttest.Roll{}
	natives.Set(h, friendly)
	readers.Set(reading)
	reg := prometheus.NewRegistry()
	n := newStoreOf(t, h, Config{Server: true, Accept: rule, TTL: porttest.TTL, Natives: natives.Trusts, Readers: readers.Trusts, Metrics: reg})
	friend := newStore(t, friendly, rule) // an open native, which reports the outsider
	reader := newStoreOf(t, reading, Config{Accept: rule, TTL: porttest.TTL, Natives: natives.Trusts})
	send := hostile(t, bad)
	hosttest.Connect(t, friendly, h)
	for _, other := range []host.Host{bad, reading} {
		hosttest.Connect(t, other, h)
		hosttest.Connect(t, other, friendly)
	}
	porttest.Eventually(t, "the honest ones know each other, and the open one the outsider", func() bool {
		return n.dht.RoutingTable().Find(friendly.ID()) != "" && friend.Peers() == 2 && reader.Peers() == 2
	})
	inTable := func() bool { return n.dht.RoutingTable().Find(bad.ID()) != "" }

	stored, took := 0, 0
	for i := range attempts {
		e := entryFor(t)
		value := valueOf(t, e)
		if err := send.PutValue(t.Context(), h.ID(), record.MakePutRecord(keyOf(e.PeerID), value)); err == nil {
			stored++
		}
		if i%(attempts/honest) != 0 {
			continue
		}
		e = entryFor(t)
		if _, err := friend.Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Local(e.PeerID, ports.Version{}); err == nil {
			took++
		}
	}
	e := entryFor(t)
	put := &pb.Message{Type: pb.Message_PUT_VALUE, Key: []byte(keyOf(e.PeerID)), Record: record.MakePutRecord(keyOf(e.PeerID), valueOf(t, e))}
	tricks := disguised(t, put)
	// A listed indexer that puts has an answer all the same: its client may correct what others hold.
	puts := map[string]bool{"as it is": true, "a question before it": true, "a type of more than 32 bits": true, "an unknown field before it": true}
	for _, from := range []host.Host{bad, reading} {
		for name, request := range tricks {
			if got, want := sendRaw(t, from, h, request), from == reading && puts[name]; got != want {
				t.Errorf("%s, sent by %s, is answered: %t, want %t", name, from.ID(), got, want)
			}
		}
	}
	sum, err := multihash.Sum([]byte(nativesNamespace(DefaultPrefix)), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	for range attempts / 10 {
		_ = send.PutProvider(t.Context(), h.ID(), sum, bad)
		if _, err := send.GetClosestPeers(t.Context(), h.ID(), friendly.ID()); err == nil {
			t.Fatal("the outsider learns the natives")
		}
	}
	if stored != 0 || took != honest || n.Records() != honest {
		t.Errorf("%d of the outsider's %d puts and %d of %d honest ones were taken; %d are held", stored, attempts, took, honest, n.Records())
	}
	if n.provided.len() != 0 {
		t.Errorf("%d natives are provided", n.provided.len())
	}

	// The open native reports the outsider in its answers.
	var asked atomic.Int64
	bad.SetStreamHandler(kadProtocol, func(s network.Stream) {
		if s.Conn().RemotePeer() == h.ID() {
			asked.Add(1)
		}
		_ = s.Reset()
	})
	for range 50 {
		e := entryFor(t)
		if replicas, err := n.Put(t.Context(), e); replicas != 1 || err != nil {
			t.Errorf("put: %d replicas, %v; want 1, at the honest native", replicas, err)
		}
		if _, err := n.Get(t.Context(), hosttest.PeerID(t), ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		if got, err := reader.Get(t.Context(), e.PeerID, ports.Version{}); err != nil || got.PeerID != e.PeerID {
			t.Errorf("the indexer gets %+v, %v", got, err)
		}
		if inTable() {
			t.Fatal("the outsider is in the routing table")
		}
	}
	// Nor may the library send it a request, as a look-up does to any peer on its way.
	if _, err := n.messenger.GetClosestPeers(t.Context(), bad.ID(), friendly.ID()); err == nil {
		t.Error("the outsider answers")
	}
	streams, requests := metricstest.Gather(t, reg)[`ocnode_dht_untrusted_total{what="stream"}`], metricstest.Gather(t, reg)[`ocnode_dht_untrusted_total{what="request"}`]
	t.Logf("%d puts, %d provider records and %d disguised requests of an outsider: none stored, %d asked it, in the table: %t; %d of %d honest puts taken; turned away: %v streams, %v requests",
		attempts, attempts/10, 2*len(tricks), asked.Load(), inTable(), took, honest, streams, requests)
	if asked.Load() != 0 {
		t.Errorf("the outsider was asked %d times", asked.Load())
	}
	if streams < attempts || requests < float64(len(tricks)) {
		t.Errorf("%v streams and %v requests are counted", streams, requests)
	}
}

// A reader's client corrects a native that gave it another value than the best.
func TestAReadersPutIsAnsweredAndNotStored(t *testing.T) {
	h, reading := hosttest.New(t), hosttest.New(t)
	natives, readers := &hosttest.Roll{}, &hosttest.Roll{}
	natives.Set(h)
	readers.Set(reading)
	n := newStoreOf(t, h, Config{Server: true, Accept: rule, TTL: porttest.TTL, Natives: natives.Trusts, Readers: readers.Trusts})
	reader, err := dht.New(reading, dht.ProtocolPrefix(DefaultPrefix), dht.Mode(dht.ModeClient), dht.Validator(anyValue()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reader.Close() })
	send, err := pb.NewProtocolMessenger(reader.MessageSender())
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Connect(t, reading, h)
	held := entryFor(t)
	if _, err := n.Put(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	for range 3 { // over one stream, with questions between
		e := entryFor(t)
		if err := send.PutValue(t.Context(), h.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, e))); err != nil {
			t.Errorf("put: %v", err)
		}
		if _, err := n.Local(e.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("the native has what the reader put: %v", err)
		}
		if got, _, err := send.GetValue(t.Context(), h.ID(), keyOf(held.PeerID)); err != nil || len(got.GetValue()) == 0 {
			t.Errorf("get: %v, %v", got, err)
		}
	}
	readers.Set()
	e := entryFor(t)
	if err := send.PutValue(t.Context(), h.ID(), record.MakePutRecord(keyOf(e.PeerID), valueOf(t, e))); err == nil {
		t.Error("the put of a peer on no list is answered")
	}
	if n.Records() != 1 {
		t.Errorf("the native holds %d records, want its own", n.Records())
	}
}

// TestWhoIsTakenOffTheListIsOutOfTheDHTAtOnce takes a native with open streams off another
// native's list.
func TestWhoIsTakenOffTheListIsOutOfTheDHTAtOnce(t *testing.T) {
	h, other := hosttest.New(t), hosttest.New(t)
	natives, readers := &hosttest.Roll{}, &hosttest.Roll{}
	natives.Set(h, other)
	readers.Set()
	n := newStoreOf(t, h, Config{Server: true, Accept: rule, TTL: porttest.TTL, Natives: natives.Trusts, Readers: readers.Trusts})
	taken := newStore(t, other, rule)
	hosttest.Connect(t, h, other)
	both := func(replicas int) error {
		for i, s := range []*Store{n, taken} {
			if got, err := s.Put(t.Context(), entryFor(t)); got != replicas || err != nil {
				return fmt.Errorf("store %d: %d replicas, %w", i, got, err)
			}
		}
		return nil
	}
	porttest.Eventually(t, "they know each other", func() bool { return n.Peers() == 1 && taken.Peers() == 1 })
	if err := both(1); err != nil {
		t.Fatal(err)
	}

	natives.Set(h)
	if _, err := n.messenger.GetClosestPeers(t.Context(), other.ID(), other.ID()); err == nil {
		t.Error("it is asked over a stream that there was already")
	}
	n.Revise()
	if n.Peers() != 0 {
		t.Errorf("%d peers are in the table", n.Peers())
	}
	if err := both(0); err != nil {
		t.Error(err)
	}
	hosttest.Connect(t, other, h)
	if n.Peers() != 0 {
		t.Errorf("%d peers are in the table", n.Peers())
	}

	natives.Set(h, other)
	n.Revise()
	old := other.Network().ConnsToPeer(h.ID())
	_ = h.Network().ClosePeer(other.ID())
	// Until it has seen the end, the other takes itself to be connected, and dials nobody.
	porttest.Eventually(t, "the other has seen the end", func() bool {
		return !slices.ContainsFunc(old, func(c network.Conn) bool { return !c.IsClosed() })
	})
	hosttest.Connect(t, other, h)
	porttest.Eventually(t, "they put to each other again", func() bool { return n.Peers() == 1 && taken.Peers() == 1 && both(1) == nil })
}

// TestALargeRequestIsNotWaitedFor announces a request above the bound.
func TestALargeRequestIsNotWaitedFor(t *testing.T) {
	s := newStore(t, hosttest.New(t), rule)
	from := hosttest.New(t)
	hosttest.Connect(t, from, s.host)
	stream, err := from.NewStream(t.Context(), s.host.ID(), kadProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Reset()
	_ = stream.SetDeadline(time.Now().Add(porttest.Patience))
	if _, err := stream.Write(binary.AppendUvarint(nil, maxRequestBytes+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Read(make([]byte, 1)); !errors.Is(err, network.ErrReset) {
		t.Errorf("it says %v, want a reset", err)
	}
}
