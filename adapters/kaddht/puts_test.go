package kaddht

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// rawServer is a server of the DHT that does with a put what the test says.
type rawServer struct {
	host.Host
	// put returns the answer to a put, nil for a reset of its stream. It may block.
	put     func(request []byte) []byte
	streams atomic.Int64 // that had a put
	mu      sync.Mutex
	took    map[string]bool // keys of the puts that it answered
}

// serveRaw makes h a server that answers FIND_NODE with no peer. put is nil for an honest server.
func serveRaw(h host.Host, put func(request []byte) []byte) *rawServer {
	s := &rawServer{Host: h, put: put, took: make(map[string]bool)}
	if put == nil {
		s.put = func(request []byte) []byte { return request }
	}
	h.SetStreamHandler(kadProtocol, s.serve)
	return s
}

func (s *rawServer) serve(stream network.Stream) {
	defer stream.Close()
	requests := msgio.NewVarintReaderSize(stream, network.MessageSizeMax)
	counted := false
	for {
		request, err := requests.ReadMsg()
		if err != nil {
			return
		}
		answer, isPut := slices.Clone(request), false
		var m pb.Message
		if proto.Unmarshal(request, &m) != nil {
			return
		}
		if isPut = m.GetType() == pb.Message_PUT_VALUE; isPut {
			if !counted {
				counted = true
				s.streams.Add(1)
			}
			s.mu.Lock()
			put := s.put
			s.mu.Unlock()
			answer = put(answer)
		}
		if answer == nil {
			_ = stream.Reset()
			return
		}
		if isPut {
			s.mu.Lock()
			s.took[string(m.GetKey())] = true
			s.mu.Unlock()
		}
		if _, err := stream.Write(append(binary.AppendUvarint(nil, uint64(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func (s *rawServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

// putAll puts n entries at once, as many workers of an outbox do, and returns how many replicas each
// has and how long it took.
func putAll(t *testing.T, n *native, entries []ports.Entry) (replicas []int, took time.Duration) {
	t.Helper()
	began := time.Now()
	replicas = make([]int, len(entries))
	var putting sync.WaitGroup
	for i, e := range entries {
		putting.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			var err error
			if replicas[i], err = n.Put(ctx, e); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	putting.Wait()
	return replicas, time.Since(began)
}

func entriesFor(t *testing.T, n int) (entries []ports.Entry) {
	for range n {
		entries = append(entries, entryFor(t))
	}
	return entries
}

func TestPutsGoToStrangersAlone(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 4)
		n, follower, foreign := newNative(t, hosts[0]), newNative(t, hosts[1]), newNative(t, hosts[2])
		dhtOnly := newStore(t, hosts[3], rule)
		n.follow(true, hosts[1])
		for _, h := range hosts[1:] {
			hosttest.Connect(t, n.host, h)
		}
		porttest.Eventually(t, "all are known", func() bool { return n.servers.len() == 3 && n.Peers() == 3 })
		held := func(want ...int) {
			t.Helper()
			for i, s := range []*Store{n.Store, follower.Store, foreign.Store, dhtOnly} {
				if s.Records() != want[i] {
					t.Errorf("server %d holds %d records, want %d", i, s.Records(), want[i])
				}
			}
		}
		if replicas, err := n.Put(t.Context(), entryFor(t)); replicas != 2 || err != nil || !n.Strangers() {
			t.Errorf("put: %d replicas, error %v, strangers: %v; want the native that does not follow, and the server that is no native", replicas, err, n.Strangers())
		}
		held(0, 0, 1, 1)
		<-n.Joined()
		n.follow(true, hosts[2])
		if replicas, err := n.Put(t.Context(), entryFor(t)); replicas != 1 || err != nil || !n.Strangers() {
			t.Errorf("put: %d replicas, error %v, strangers: %v; want the server that is no native", replicas, err, n.Strangers())
		}
		held(0, 0, 1, 2)
		_ = n.host.Network().ClosePeer(hosts[3].ID())
		porttest.Eventually(t, "a server that is gone is no stranger", func() bool { return !n.Strangers() })
		if replicas, err := n.Put(t.Context(), entryFor(t)); replicas != 0 || err != nil {
			t.Errorf("put: %d replicas, error %v; want none", replicas, err)
		}
		held(0, 0, 1, 2)
		select {
		case <-n.Joined():
			t.Error("a native that follows is told as news")
		default:
		}
		n.follow(false, hosts[1])
		<-n.Joined() // it follows no more, and may miss entries
		if replicas, _ := n.Put(t.Context(), entryFor(t)); replicas != 1 {
			t.Errorf("put: %d replicas; want the native that follows no more", replicas)
		}
		held(0, 1, 1, 2)
		hosttest.Connect(t, n.host, hosts[3])
		<-n.Joined() // it is back
	})
}

// A native of an earlier version follows, and its DHT answers from what is put there alone.
func TestAFollowerWithoutAViewIsAStranger(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		n := newNative(t, hosts[0])
		serveRaw(hosts[1], nil)
		n.follow(true, hosts[1])
		hosttest.Connect(t, hosts[0], hosts[1])
		porttest.Eventually(t, "it is known", n.Strangers)
		for range 2 { // it is updated, and goes back to the earlier version
			hosts[1].SetStreamHandler(ports.FollowProtocol, func(s network.Stream) { _ = s.Reset() })
			porttest.Eventually(t, "with a view it is no stranger", func() bool { return !n.Strangers() })
			hosts[1].RemoveStreamHandler(ports.FollowProtocol)
			porttest.Eventually(t, "without one it is a stranger", n.Strangers)
		}
	})
}

func TestAnEntryThatIsNotAcceptableIsNotPut(t *testing.T) {
	hosts := []host.Host{hosttest.New(t), hosttest.New(t)}
	n := newNative(t, hosts[0])
	e := entryFor(t)
	e.ExpiresAt = time.Now().Add(-time.Second)
	if replicas, err := n.Put(t.Context(), e); replicas != 0 || err == nil {
		t.Errorf("put of an ended entry: %d replicas, error %v", replicas, err)
	}
}

// roundTrip is that of hosttest.Simulate.
const roundTrip = 20 * time.Millisecond

func TestPutsOfOneMomentAreSentTogether(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		n, server := newNative(t, hosts[0]), serveRaw(hosts[1], nil)
		hosttest.Connect(t, hosts[0], hosts[1])
		porttest.Eventually(t, "it is known", n.Strangers)
		replicas, took := putAll(t, n, entriesFor(t, maxPipelined))
		if slices.Contains(replicas, 0) || took > 10*roundTrip {
			t.Errorf("%v after %v", replicas, took)
		}
		if server.streams.Load() != 1 {
			t.Errorf("%d streams for %d puts", server.streams.Load(), maxPipelined)
		}
		time.Sleep(linger + time.Second)
		l := &n.servers.all[hosts[1].ID()].lane
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.runs || l.stream != nil {
			t.Error("a stream is open although nothing is put")
		}
	})
}

// A server resets the stream at each record that it refuses, and answers are lost with it.
func TestARefusedRecordHoldsUpNoOther(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		entries := entriesFor(t, 3*maxPipelined)
		refused := make(map[string]bool)
		for i, e := range entries {
			if i%50 == 7 {
				refused[keyOf(e.PeerID)] = true
			}
		}
		n := newNative(t, hosts[0])
		server := serveRaw(hosts[1], func(request []byte) []byte {
			var m pb.Message
			if proto.Unmarshal(request, &m) != nil || refused[string(m.GetKey())] {
				return nil
			}
			return request
		})
		hosttest.Connect(t, hosts[0], hosts[1])
		porttest.Eventually(t, "it is known", n.Strangers)
		replicas, took := putAll(t, n, entries)
		for i, e := range entries {
			if taken := replicas[i] == 1; taken == refused[keyOf(e.PeerID)] {
				t.Errorf("put %d was taken: %v", i, taken)
			}
		}
		if streams := server.streams.Load(); streams > int64(10*len(refused)) || took > 2*time.Second {
			t.Errorf("%d streams for %d refused records, after %v", streams, len(refused), took)
		}
		if !n.Strangers() {
			t.Error("a server that refuses some records is given up")
		}
	})
}

// Hostile servers stand beside an honest server. Each is given up, and asked again later.
func TestAHostileServerHoldsUpNoPutToAnother(t *testing.T) {
	for name, put := range map[string]func(over <-chan struct{}) func([]byte) []byte{
		"hangs":            func(over <-chan struct{}) func([]byte) []byte { return func([]byte) []byte { <-over; return nil } },
		"resets":           func(<-chan struct{}) func([]byte) []byte { return func([]byte) []byte { return nil } },
		"answers nothing":  func(<-chan struct{}) func([]byte) []byte { return func([]byte) []byte { return []byte{} } },
		"answers nonsense": func(<-chan struct{}) func([]byte) []byte { return func([]byte) []byte { return []byte{0xff, 0xff} } },
		"answers too much": func(<-chan struct{}) func([]byte) []byte {
			return func([]byte) []byte { return make([]byte, maxAnswerBytes+1) }
		},
		"answers another value": func(<-chan struct{}) func([]byte) []byte { return func(r []byte) []byte { r[len(r)-1]++; return r } },
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				refuses := name == "resets" // as a server does whose own records are all newer
				hosts := hosttest.Simulate(t, 3)
				over := make(chan struct{})
				n, honest, bad := newNative(t, hosts[0]), serveRaw(hosts[1], nil), serveRaw(hosts[2], put(over))
				defer close(over)
				hosttest.Connect(t, hosts[0], hosts[1])
				hosttest.Connect(t, hosts[0], hosts[2])
				porttest.Eventually(t, "both are known", func() bool { return n.strangers() == 2 })
				replicas, took := putAll(t, n, entriesFor(t, 2*maxPipelined))
				if slices.ContainsFunc(replicas, func(r int) bool { return r != 1 }) || honest.count() != len(replicas) {
					t.Errorf("replicas %v, and the honest server has %d", replicas, honest.count())
				}
				if took > 3*time.Second {
					t.Errorf("the puts took %v, longer than their time", took)
				}
				if !refuses {
					porttest.Eventually(t, "it is given up", func() bool { return n.strangers() == 1 })
				}
				if _, took = putAll(t, n, entriesFor(t, maxPipelined)); took > 10*roundTrip {
					t.Errorf("once it is given up the puts take %v", took)
				}
				for len(n.Joined()) > 0 {
					<-n.Joined()
				}
				bad.mu.Lock()
				bad.put = func(request []byte) []byte { return request }
				bad.mu.Unlock()
				if refuses {
					porttest.Eventually(t, "it has a put that it takes", func() bool { putAll(t, n, entriesFor(t, 1)); return bad.count() > 0 })
				} else {
					<-n.Joined() // it answers the survey
				}
				if replicas, _ := putAll(t, n, entriesFor(t, 1)); replicas[0] != 2 {
					t.Errorf("once it is well a put has %d replicas", replicas[0])
				}
			})
		})
	}
}

// A slow server takes every put, each shortly before its deadline. A server that hangs takes none. Both
// delay the puts to other servers for the same short time.
func TestASlowServerHoldsUpNoPutToAnother(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 3)
		n, honest := newNative(t, hosts[0]), serveRaw(hosts[1], nil)
		serveRaw(hosts[2], func(request []byte) []byte { time.Sleep(40 * time.Millisecond); return request })
		hosttest.Connect(t, hosts[0], hosts[1])
		hosttest.Connect(t, hosts[0], hosts[2])
		porttest.Eventually(t, "both are known", func() bool { return n.strangers() == 2 })
		putAll(t, n, entriesFor(t, maxPipelined))
		replicas, took := putAll(t, n, entriesFor(t, maxPipelined))
		if slices.Contains(replicas, 0) || honest.count() != 2*maxPipelined || took > 10*roundTrip {
			t.Errorf("beside a slow server puts take %v, with replicas %v", took, replicas)
		}
		time.Sleep(10 * time.Second) // the slow server has answered
	})
}

// A routing table has 20 places for half of all servers. A server that comes gets what it missed, also if there is
// no place for it.
func TestAStrangerIsNewsWithoutAPlaceInTheRoutingTable(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		n := newNative(t, hosts[0])
		serveRaw(hosts[1], nil)
		for table := n.dht.RoutingTable(); table.UsefulNewPeer(hosts[1].ID()); {
			id, _ := peer.Decode(string(hosttest.PeerID(t)))
			_, _ = table.TryAddPeer(id, true, false)
		}
		for range 2 {
			hosttest.Connect(t, hosts[0], hosts[1])
			porttest.Eventually(t, "it is known", n.Strangers)
			synctest.Wait()
			if n.dht.RoutingTable().Find(hosts[1].ID()) != "" {
				t.Fatal("it is in the routing table")
			}
			select {
			case <-n.Joined():
			default:
				t.Error("a stranger that comes is no news")
			}
			_ = hosts[0].Network().ClosePeer(hosts[1].ID())
			porttest.Eventually(t, "it has gone", func() bool { return !n.Strangers() })
		}
	})
}

// A server may be away for longer than its first pause, as it restarts. It is asked again for some minutes.
func TestAServerThatWasAwayIsAskedAgain(t *testing.T) {
	s := newServers(func(peer.ID, ports.PeerID) bool { return false }, time.Minute)
	s.saw("server", true)
	s.gone("server")
	var away time.Duration
	for s.knows("server") && away < time.Hour {
		away += time.Until(s.all["server"].askAt)
		s.silent("server", false)
	}
	if away < time.Minute || away > s.askEvery {
		t.Errorf("a server is forgotten once it was away for %v", away)
	}
}

// A server that fails is asked after a pause that doubles, and no put waits for it meanwhile.
func TestAServerThatFailsAgainRestsLonger(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		n := newNative(t, hosts[0])
		serveRaw(hosts[1], func([]byte) []byte { return []byte{} })
		hosttest.Connect(t, hosts[0], hosts[1])
		porttest.Eventually(t, "it is known", n.Strangers)
		porttest.Eventually(t, "it is in the table", func() bool { return n.Peers() == 1 })
		<-n.Joined()
		var rests []time.Duration
		for range 9 {
			putAll(t, n, entriesFor(t, 1))
			if n.Strangers() {
				t.Fatal("it is not given up")
			}
			began := time.Now()
			<-n.Joined()
			rests = append(rests, time.Since(began))
		}
		for i, rest := range rests {
			if want := min(n.servers.firstPause<<i, n.servers.askEvery); rest < want || rest > want+5*time.Second {
				t.Errorf("the pauses are %v", rests)
				break
			}
		}
	})
}

// Seven servers of twenty are enough for a put to return, and all twenty get it.
func TestAPutReturnsWhenEnoughHaveIt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 10)
		n := newNative(t, hosts[0])
		over := make(chan struct{})
		defer close(over)
		var servers []*rawServer
		for i, h := range hosts[1:] {
			var put func([]byte) []byte
			if i >= enough {
				put = func([]byte) []byte { <-over; return nil }
			}
			servers = append(servers, serveRaw(h, put))
			hosttest.Connect(t, hosts[0], h)
		}
		porttest.Eventually(t, "all are known", func() bool { return n.strangers() == len(servers) })
		replicas, took := putAll(t, n, entriesFor(t, 1))
		if replicas[0] != enough || took > time.Second {
			t.Errorf("%d replicas after %v, while two servers hang", replicas[0], took)
		}
	})
}

func TestTheSurveyFindsServersThatOthersKnow(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 3)
		n := newNative(t, hosts[0])
		newStore(t, hosts[1], rule)
		newStore(t, hosts[2], rule)
		hosttest.Connect(t, hosts[0], hosts[1])
		hosttest.Connect(t, hosts[1], hosts[2])
		time.Sleep(n.servers.firstAsk)
		n.servers.keep(func(p peer.ID) bool { return p != hosts[2].ID() }) // however it came to be known
		if n.servers.len() != 1 {
			t.Fatalf("it knows %d servers", n.servers.len())
		}
		time.Sleep(n.servers.askEvery * 3 / 2)
		if n.servers.len() != 2 {
			t.Errorf("it knows %d servers, and the other two know each other", n.servers.len())
		}
	})
}

// A server may name peers that do not exist, as many as it likes.
func TestTheSurveyIsBoundedWhateverServersName(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		n := newNative(t, hosts[0])
		var asked atomic.Int64
		hosts[1].SetStreamHandler(kadProtocol, func(stream network.Stream) {
			defer stream.Close()
			requests := msgio.NewVarintReaderSize(stream, network.MessageSizeMax)
			for {
				if _, err := requests.ReadMsg(); err != nil {
					return
				}
				asked.Add(1)
				var made []peer.AddrInfo
				for range 500 {
					id, _ := peer.Decode(string(hosttest.PeerID(t)))
					made = append(made, peer.AddrInfo{ID: id, Addrs: hosts[1].Addrs()})
				}
				answer, _ := proto.Marshal(&pb.Message{Type: pb.Message_FIND_NODE, CloserPeers: pb.RawPeerInfosToPBPeers(made)})
				if _, err := stream.Write(append(binary.AppendUvarint(nil, uint64(len(answer))), answer...)); err != nil {
					return
				}
			}
		})
		hosttest.Connect(t, hosts[0], hosts[1])
		porttest.Eventually(t, "it is known", n.Strangers)
		time.Sleep(n.servers.firstAsk + 5*time.Minute)
		if asked.Load() == 0 || n.servers.len() != 1 {
			t.Errorf("asked %d times, it believes in %d servers", asked.Load(), n.servers.len())
		}
		if known := len(hosts[0].Peerstore().PeersWithAddrs()); known > 200 {
			t.Errorf("it has the addresses of %d peers", known)
		}
	})
}

// The list names the strangers among the closest servers, as the library's order has them.
func TestNearIsByDistance(t *testing.T) {
	ids := make([]peer.ID, 60)
	for i := range ids {
		ids[i], _ = peer.Decode(string(hosttest.PeerID(t)))
	}
	rapid.Check(t, func(r *rapid.T) {
		known := ids[:rapid.IntRange(0, len(ids)).Draw(r, "known")]
		follows := make(map[ports.PeerID]bool)
		s := newServers(func(_ peer.ID, id ports.PeerID) bool { return follows[id] }, porttest.TTL)
		for _, id := range known {
			s.saw(id, true)
			follows[ports.PeerID(id.String())] = rapid.Bool().Draw(r, "follows")
		}
		s.refresh()
		key := "/indexer/" + rapid.String().Draw(r, "key")
		var want []peer.ID
		sorted := kbucket.SortClosestPeers(known, kbucket.ConvertKey(key))
		for _, id := range sorted[:min(len(sorted), replicas)] {
			if !follows[ports.PeerID(id.String())] {
				want = append(want, id)
			}
		}
		var got []peer.ID
		for _, v := range s.near(key) {
			got = append(got, v.id)
		}
		if !slices.Equal(got, want) {
			r.Fatalf("near are %v, want %v", got, want)
		}
	})
}

func TestTheListOfServersIsBoundedAndKeepsFollowers(t *testing.T) {
	s := newServers(func(id peer.ID, _ ports.PeerID) bool { return id[len(id)-1]%50 == 1 }, porttest.TTL)
	followers := 0
	for i := range maxServers + 500 {
		id := peer.ID(binary.BigEndian.AppendUint64(nil, uint64(i)))
		if s.follows(id, "") {
			followers++
		}
		s.saw(id, false)
	}
	if s.len() != maxServers {
		t.Errorf("it has %d servers", s.len())
	}
	for _, v := range *s.list.Load() {
		if !v.stranger {
			followers--
		}
	}
	if followers != 0 {
		t.Errorf("%d followers gave way", followers)
	}
}
