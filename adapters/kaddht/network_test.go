package kaddht

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"github.com/libp2p/go-msgio/pbio"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

const kadProtocol protocol.ID = "/opencloud/kad/1.0.0" // the contract's, spelt out

func TestConfig(t *testing.T) {
	h := hosttest.New(t)
	for name, cfg := range map[string]Config{
		"no rule":             {TTL: time.Second},
		"no TTL":              {Accept: rule},
		"prefix without /":    {Accept: rule, TTL: time.Second, Prefix: "opencloud"},
		"prefix without name": {Accept: rule, TTL: time.Second, Prefix: "/"},
		"the public network":  {Accept: rule, TTL: time.Second, Prefix: "/ipfs"},
	} {
		if s, err := New(h, cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Close()
		}
	}
}

// TestTableFills connects nodes in the ways they meet, and waits for the connection alone.
func TestTableFills(t *testing.T) {
	for _, test := range []struct {
		name string
		meet func(t *testing.T, a, b host.Host) (*Store, *Store)
	}{
		{"connected before either joins", func(t *testing.T, a, b host.Host) (*Store, *Store) {
			hosttest.Connect(t, a, b)
			return newStore(t, a, rule), newStore(t, b, rule)
		}},
		{"connected after both joined", func(t *testing.T, a, b host.Host) (*Store, *Store) {
			s1, s2 := newStore(t, a, rule), newStore(t, b, rule)
			hosttest.Connect(t, a, b)
			return s1, s2
		}},
		{"both connected to a third", func(t *testing.T, a, b host.Host) (*Store, *Store) {
			third := hosttest.New(t)
			newStore(t, third, rule)
			s1, s2 := newStore(t, a, rule), newStore(t, b, rule)
			hosttest.Connect(t, a, third)
			hosttest.Connect(t, b, third)
			return s1, s2
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := hosttest.New(t), hosttest.New(t)
			s1, s2 := test.meet(t, a, b)
			start := time.Now()
			porttest.Eventually(t, "both know each other", func() bool {
				return s1.dht.RoutingTable().Find(b.ID()) != "" && s2.dht.RoutingTable().Find(a.ID()) != ""
			})
			t.Logf("after %v", time.Since(start))
			for _, s := range []*Store{s1, s2} {
				select {
				case <-s.Joined():
				case <-time.After(porttest.Patience):
					t.Error("Joined did not fire")
				}
			}
		})
	}
}

// TestClient lets an indexer put and get. No node relies on it.
func TestClient(t *testing.T) {
	server := newStore(t, hosttest.New(t), rule)
	client := newStoreOf(t, hosttest.New(t), Config{Accept: rule, TTL: porttest.TTL})
	hosttest.Connect(t, client.host, server.host)
	porttest.Eventually(t, "the client knows the server", func() bool { return client.Peers() == 1 })
	e := entryFor(t)
	if replicas, err := client.Put(t.Context(), e); replicas != 1 || err != nil {
		t.Errorf("the client's put: %d replicas, error %v; want 1 at the server", replicas, err)
	}
	if replicas, err := server.Put(t.Context(), entryFor(t)); replicas != 0 || err != nil {
		t.Errorf("the server's put: %d replicas, error %v; want none", replicas, err)
	}
}

// TestJoinedAgain cuts a connection and restores it before the routing table notices.
func TestJoinedAgain(t *testing.T) {
	a, b := newStore(t, hosttest.New(t), rule), newStore(t, hosttest.New(t), rule)
	for range 3 {
		hosttest.Connect(t, a.host, b.host)
		for _, s := range []*Store{a, b} {
			select {
			case <-s.Joined():
			case <-time.After(porttest.Patience):
				t.Fatal("Joined did not fire")
			}
		}
		// A look-up that failed at the cut may have removed the peer for a moment.
		porttest.Eventually(t, "they know each other", func() bool { return a.Peers() == 1 && b.Peers() == 1 })
		_ = a.host.Network().ClosePeer(b.host.ID())
	}
}

// permissive is a hostile node's validator: it accepts everything.
type permissive struct{}

func (permissive) Validate(string, []byte) error        { return nil }
func (permissive) Select(string, [][]byte) (int, error) { return 0, nil }
func anyValue() record.NamespacedValidator {
	return record.NamespacedValidator{namespace: permissive{}}
}
func plant(t *testing.T, d ds.Datastore, key string, v []byte) { // stores v without validation
	t.Helper()
	store := records.NewValueStore(d, anyValue(), time.Hour)
	if err := store.Put(t.Context(), key, record.MakePutRecord(key, v)); err != nil {
		t.Fatal(err)
	}
}

// TestHostileRecords starts a bare peer of the same network that stores and serves any value,
// and offers it to two honest nodes.
func TestHostileRecords(t *testing.T) {
	a, b := newStore(t, hosttest.New(t), rule), newStore(t, hosttest.New(t), rule)
	loot := dssync.MutexWrap(ds.NewMapDatastore())
	bad := hosttest.New(t)
	hostile, err := dht.New(bad, dht.ProtocolPrefix(DefaultPrefix), dht.Mode(dht.ModeServer),
		dht.Validator(anyValue()), dht.ValueDatastore(loot))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hostile.Close() })
	hosttest.Connect(t, a.host, b.host)
	hosttest.Connect(t, bad, a.host)
	hosttest.Connect(t, bad, b.host)
	porttest.Eventually(t, "all know each other", func() bool { return a.Peers() == 2 && b.Peers() == 2 })
	send, err := pb.NewProtocolMessenger(hostile.MessageSender())
	if err != nil {
		t.Fatal(err)
	}

	for name, value := range hostileValues(t, entryFor(t).PeerID) {
		t.Run(name, func(t *testing.T) {
			e := entryFor(t)
			key := keyOf(e.PeerID)
			value = hostileValues(t, e.PeerID)[name]

			before := a.Records()
			if err := send.PutValue(t.Context(), a.host.ID(), record.MakePutRecord(key, value)); err == nil && len(value) > 0 {
				t.Error("a node stored it")
			}
			if a.Records() != before {
				t.Error("a node holds it")
			}
			plant(t, loot, key, value)
			if got, err := a.Get(t.Context(), e.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("got %+v, %v from the hostile node", got, err)
			}
			plantPast(t, a, key, value)
			if got, err := a.Get(t.Context(), e.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("got %+v, %v from the node's own records", got, err)
			}
			if replicas, err := a.Put(t.Context(), e); replicas < 1 || err != nil {
				t.Errorf("an honest put afterwards: %d replicas, error %v", replicas, err)
			}
			for _, s := range []*Store{a, b} {
				if got, err := s.Get(t.Context(), e.PeerID, ports.Version{}); err != nil || !got.ExpiresAt.Equal(e.ExpiresAt) {
					t.Errorf("got %+v, %v; want the honest entry", got, err)
				}
			}
		})
	}
}

// plantPast stores value in s, past its validator.
func plantPast(t *testing.T, s *Store, key string, value []byte) {
	t.Helper()
	before := s.Records()
	plant(t, s.data, key, value)
	if s.Records() != before+1 {
		t.Fatal("the record was not planted")
	}
}

// hang makes a server stop answering: it only accepts streams and reads.
func hang(t *testing.T, s *Store) (requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	over := make(chan struct{})
	s.host.SetStreamHandler(kadProtocol, func(stream network.Stream) {
		requests.Add(1)
		<-over
		_ = stream.Reset()
	})
	for _, stream := range kadStreams(s.host) {
		_ = stream.Reset()
	}
	t.Cleanup(func() { close(over) })
	return requests
}

func kadStreams(h host.Host) (streams []network.Stream) {
	for _, c := range h.Network().Conns() {
		for _, stream := range c.GetStreams() {
			if stream.Protocol() == kadProtocol {
				streams = append(streams, stream)
			}
		}
	}
	return streams
}

// hungNetwork is three nodes in a bubble; the third no longer answers.
func hungNetwork(t *testing.T) (a, b, hung *Store, requests *atomic.Int64) {
	t.Helper()
	hosts := hosttest.Simulate(t, 3)
	a, b, hung = newStore(t, hosts[0], rule), newStore(t, hosts[1], rule), newStore(t, hosts[2], rule)
	hosttest.Connect(t, a.host, b.host)
	hosttest.Connect(t, a.host, hung.host)
	hosttest.Connect(t, b.host, hung.host)
	porttest.Eventually(t, "all know each other", func() bool { return a.Peers() == 2 && b.Peers() == 2 && hung.Peers() == 2 })
	return a, b, hung, hang(t, hung)
}

func TestHungPeer(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const deadline = time.Second // a get without it takes 10 s
		a, b, _, requests := hungNetwork(t)
		within := func(what string, limit time.Duration, run func(ctx context.Context)) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			start := time.Now()
			run(ctx)
			if took := time.Since(start); took > limit {
				t.Errorf("%s took %v; at most %v are allowed", what, took, limit)
			}
		}
		e := entryFor(t)
		within("a put", deadline, func(ctx context.Context) {
			if replicas, err := a.Put(ctx, e); replicas != 1 || err != nil {
				t.Errorf("put: %d replicas, error %v; want 1 at the healthy node", replicas, err)
			}
		})
		if requests.Load() == 0 {
			t.Fatal("the hung node was never asked")
		}
		if b.Records() != 1 {
			t.Error("the healthy node holds nothing")
		}
		within("a get of nothing", deadline, func(ctx context.Context) {
			if got, err := b.Get(ctx, entryFor(t).PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("got %+v, %v; want ErrNotFound", got, err)
			}
		})

		// A record of the healthy node alone is there as soon as that node answers.
		only := entryFor(t)
		plant(t, b.data, keyOf(only.PeerID), valueOf(t, only))
		within("a get of the healthy node's record", 2*secondThoughts, func(ctx context.Context) {
			if got, err := a.Get(ctx, only.PeerID, ports.Version{}); err != nil || got.PeerID != only.PeerID {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	})
}

// TestCloseEndsWhatRuns closes a Store whose put and get wait for a hung peer.
func TestCloseEndsWhatRuns(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		a, _, _, requests := hungNetwork(t)
		done := make(chan struct{}, 2)
		go func() {
			_, _ = a.Put(context.Background(), entryFor(t))
			done <- struct{}{}
		}()
		go func() {
			_, _ = a.Get(context.Background(), entryFor(t).PeerID, ports.Version{})
			done <- struct{}{}
		}()
		porttest.Eventually(t, "the hung node is asked", func() bool { return requests.Load() > 0 })
		start := time.Now()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		<-done
		<-done
		if took := time.Since(start); took > time.Second {
			t.Errorf("close took %v", took)
		}
		if slices.Contains(a.host.Mux().Protocols(), kadProtocol) {
			t.Error("the node still serves")
		}
		porttest.Eventually(t, "no stream is left", func() bool { return len(kadStreams(a.host)) == 0 })
	})
}

// pairInBubble returns two nodes that know each other.
func pairInBubble(t *testing.T) (a, b *Store) {
	t.Helper()
	hosts := hosttest.Simulate(t, 2)
	a, b = newStore(t, hosts[0], rule), newStore(t, hosts[1], rule)
	start := time.Now()
	hosttest.Connect(t, hosts[0], hosts[1])
	<-a.Joined()
	<-b.Joined()
	if took := time.Since(start); took > time.Second {
		t.Errorf("they took %v to join", took)
	}
	return a, b
}

// TestRecordsAreForgotten waits in fake time until the library has swept.
func TestRecordsAreForgotten(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		a, b := pairInBubble(t)
		e := entryFor(t)
		if replicas, err := a.Put(t.Context(), e); replicas != 1 || err != nil {
			t.Fatalf("put: %d replicas, error %v", replicas, err)
		}
		time.Sleep(time.Until(e.ExpiresAt) - time.Nanosecond)
		if _, err := b.Get(t.Context(), e.PeerID, ports.Version{}); err != nil {
			t.Errorf("the instant before the deadline: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := b.Get(t.Context(), e.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("at the deadline: %v", err)
		}
		time.Sleep(2 * (ports.RecordLife + ports.ClockAllowance))
		if a.Records()+b.Records() != 0 {
			t.Errorf("%d and %d records are still held", a.Records(), b.Records())
		}
	})
}

// bareServer makes h a server of the DHT that answers a get with value after a delay.
func bareServer(h host.Host, value []byte, after time.Duration) {
	h.SetStreamHandler(kadProtocol, func(stream network.Stream) {
		defer stream.Close()
		r, w := pbio.NewDelimitedReader(stream, network.MessageSizeMax), pbio.NewDelimitedWriter(stream)
		for {
			var request pb.Message
			if r.ReadMsg(&request) != nil {
				return
			}
			answer := &pb.Message{Type: request.GetType(), Key: request.GetKey()}
			if request.GetType() == pb.Message_GET_VALUE { // its answer to a put has no record
				time.Sleep(after)
				answer.Record = record.MakePutRecord(string(request.GetKey()), value)
			}
			if w.WriteMsg(answer) != nil {
				return
			}
		}
	})
}

// TestAServerThatAnswersAPutWithoutARecord would end the process if the library saw it.
func TestAServerThatAnswersAPutWithoutARecord(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 6)
		honest, bad, s := newStore(t, hosts[0], rule), hosts[1], newStore(t, hosts[2], rule)
		e := entryFor(t)
		bareServer(bad, valueOf(t, e), 0)
		hosttest.Connect(t, s.host, honest.host)
		hosttest.Connect(t, s.host, bad)
		hosttest.Connect(t, honest.host, bad)
		porttest.Eventually(t, "both are known", func() bool { return s.Peers() == 2 && honest.Peers() == 2 })
		for _, h := range hosts[3:] {
			e.ExpiresAt = e.ExpiresAt.Add(time.Second)
			if replicas, err := s.Put(t.Context(), e); replicas != 1 || err != nil {
				t.Errorf("put: %d replicas, error %v; want 1, at the honest server", replicas, err)
			}
			// The library puts its result to peers with an older record.
			if got, err := clientOn(t, h, s.host, bad).Get(t.Context(), e.PeerID, ports.Version{}); err != nil || !got.ExpiresAt.Equal(e.ExpiresAt) {
				t.Errorf("got %+v, %v", got, err)
			}
		}
	})
}

func TestRecordsInAnswers(t *testing.T) {
	for _, test := range []struct {
		name    string
		message *pb.Message
		raw     []byte
		put     bool
		has     bool
	}{
		{name: "nothing", put: true},
		{name: "a put", message: &pb.Message{Type: pb.Message_PUT_VALUE, Key: []byte("k"), Record: record.MakePutRecord("k", []byte("v"))}, put: true, has: true},
		{name: "a put without a record", message: &pb.Message{Type: pb.Message_PUT_VALUE, Key: []byte("k")}, put: true},
		{name: "a get without a record", message: &pb.Message{Type: pb.Message_GET_VALUE, Key: []byte("k")}},
		{name: "an empty record", message: &pb.Message{Type: pb.Message_GET_VALUE, Record: &recpb.Record{}}, has: true},
		{name: "a record that is a number", raw: []byte{8, 0, 3 << 3, 1}, put: true},
		{name: "a record that is cut off", raw: []byte{8, 0, 3<<3 | 2, 100}, put: true},
		{name: "garbage", raw: []byte{0xff, 0xff, 0xff}, put: true},
	} {
		raw := test.raw
		if test.message != nil {
			var err error
			if raw, err = proto.Marshal(test.message); err != nil {
				t.Fatal(err)
			}
		}
		if got := typeOf(raw) == pb.Message_PUT_VALUE; got != test.put {
			t.Errorf("%s: a put: %v", test.name, got)
		}
		if got := hasRecord(raw); got != test.has {
			t.Errorf("%s: with a record: %v", test.name, got)
		}
	}
}

// TestTheFirstAnswerIsNotTheLastWord has three servers: the first answers at once with an old
// entry, the second a little later with its replacement, and the third never.
func TestTheFirstAnswerIsNotTheLastWord(t *testing.T) {
	for _, test := range []struct {
		name  string
		newer func(ports.Entry) ports.Entry
	}{
		{"a later entry", func(e ports.Entry) ports.Entry { e.ExpiresAt = e.ExpiresAt.Add(time.Second); return e }},
		{"a leave", leaveOf},
	} {
		t.Run(test.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				hosts := hosttest.Simulate(t, 5)
				old := entryFor(t)
				newer := test.newer(old)
				bareServer(hosts[1], valueOf(t, old), 0)
				bareServer(hosts[2], valueOf(t, newer), secondThoughts/2)
				bareServer(hosts[3], nil, 2*operationTimeout) // after the get's end: never
				for i, server := range []bool{true, false} {
					s := newStoreOf(t, hosts[4*i], Config{Server: server, Accept: rule, TTL: porttest.TTL})
					for _, h := range hosts[1:4] {
						hosttest.Connect(t, s.host, h)
					}
					time.Sleep(time.Second)
					if s.Peers() < 3 {
						t.Fatalf("it knows %d servers", s.Peers())
					}
					start := time.Now()
					got, err := s.Get(t.Context(), old.PeerID, ports.Version{})
					if err != nil || got.Leave != newer.Leave || !got.ExpiresAt.Equal(newer.ExpiresAt) {
						t.Errorf("got %+v, %v; want %+v", got, err, newer)
					}
					if took := time.Since(start); took > 2*secondThoughts {
						t.Errorf("it took %v", took)
					}
					if kept := s.Records() > 0; kept != server {
						t.Errorf("the result of a get is kept: %v, by a server: %v", kept, server)
					}
				}
				time.Sleep(2 * operationTimeout) // until the last server has answered
			})
		})
	}
}

// TestPatientCaller puts and gets without a deadline while a peer hangs.
func TestPatientCaller(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		a, b := pairInBubble(t)
		hang(t, b)
		start := time.Now()
		if replicas, err := a.Put(context.Background(), entryFor(t)); replicas != 0 || err != nil {
			t.Errorf("put: %d replicas, error %v", replicas, err)
		}
		if took := time.Since(start); took > operationTimeout {
			t.Errorf("put took %v; at most %v are allowed", took, operationTimeout)
		}
		start = time.Now()
		if got, err := a.Get(context.Background(), hosttest.PeerID(t), ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("got %+v, %v; want ErrNotFound", got, err)
		}
		if took := time.Since(start); took > operationTimeout {
			t.Errorf("get took %v; at most %v are allowed", took, operationTimeout)
		}
	})
}

// silent is a server that sends the length of its answer and nothing more.
type silent struct {
	network.Stream
	says *bytes.Buffer
}

func (s silent) Read(b []byte) (int, error) { return s.says.Read(b) }

// TestAnAnswerIsBounded lets a server announce an answer that would take much memory.
func TestAnAnswerIsBounded(t *testing.T) {
	for kind, long := range map[pb.Message_MessageType]bool{
		pb.Message_GET_VALUE: false, pb.Message_FIND_NODE: false, pb.Message_PUT_VALUE: false, pb.Message_GET_PROVIDERS: true,
	} {
		for _, length := range []uint64{maxAnswerBytes, maxAnswerBytes + 1, network.MessageSizeMax} {
			server := silent{says: bytes.NewBuffer(binary.AppendUvarint(nil, length))}
			s := &guardedStream{Stream: server, requestType: kind, answers: msgio.NewVarintReaderSize(server, network.MessageSizeMax)}
			_, err := s.Read(make([]byte, 1))
			if refused := err != nil && strings.Contains(err.Error(), "at most"); refused != (length > maxAnswerBytes && !long) {
				t.Errorf("%s, an answer of %d bytes: %v", kind, length, err)
			}
		}
	}
}
