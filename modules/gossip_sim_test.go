package modules_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/fx"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// seedNative is a native that was built from the seed's diagram alone. It looks up each PeerID as it
// hears it, and at no tick: so it lists an indexer only as long as each renewal is announced.
type seedNative struct {
	host.Host
	ip    string
	topic *pubsub.Topic
	dht   *dht.IpfsDHT
	end   func()

	mu    sync.Mutex
	heard map[ports.PeerID]int
	live  map[ports.PeerID]time.Time // ExpiresAt
}

// anything is a seed's validator: it believes what it is told.
type anything struct{}

func (anything) Validate(string, []byte) error        { return nil }
func (anything) Select(string, [][]byte) (int, error) { return 0, nil }

// seedNative starts one that is connected to n.
func (s *simulation) seedNative(ip string, n *member) *seedNative {
	s.t.Helper()
	seed := &seedNative{Host: s.bare(ip), ip: ip, heard: map[ports.PeerID]int{}, live: map[ports.PeerID]time.Time{}}
	ctx, cancel := context.WithCancel(s.t.Context())
	ps, err := pubsub.NewGossipSub(ctx, seed.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	if seed.topic, err = ps.Join("oc-indexer-registry"); err != nil {
		s.t.Fatal(err)
	}
	sub, err := seed.topic.Subscribe()
	if err != nil {
		s.t.Fatal(err)
	}
	seed.dht, err = dht.New(seed.Host, dht.Mode(dht.ModeClient), dht.ProtocolPrefix("/opencloud"), dht.Validator(record.NamespacedValidator{"indexer": anything{}}))
	if err != nil {
		s.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			m, err := sub.Next(ctx)
			if err != nil {
				return
			}
			id := ports.PeerID(m.Data)
			seed.mu.Lock()
			seed.heard[id]++
			seed.mu.Unlock()
			running.Go(func() { seed.lookUp(ctx, id) })
		}
	})
	seed.end = func() {
		cancel()
		running.Wait()
		_ = seed.dht.Close()
		_ = seed.Host.Close()
	}
	to, err := peer.AddrInfoFromString(n.addr())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := seed.Connect(ctx, *to); err != nil {
		s.t.Fatal(err)
	}
	return seed
}

// lookUp takes the first value that comes: the other natives may be out of reach.
func (s *seedNative) lookUp(ctx context.Context, id ports.PeerID) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	values, err := s.dht.SearchValue(ctx, "/indexer/"+string(id))
	if err != nil {
		return
	}
	var e struct{ ExpiresAt time.Time }
	for value := range values {
		if json.Unmarshal(value, &e) == nil {
			s.mu.Lock()
			s.live[id] = e.ExpiresAt
			s.mu.Unlock()
		}
	}
}

func (s *seedNative) lists(id ports.PeerID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.live[id])
}

// hears returns how often it has heard of id since the last question.
func (s *seedNative) hears(id ports.PeerID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.heard, id)
	return s.heard[id]
}

// announcing is natives that count what they announce.
type announcing map[*member]*porttest.Recorder

func (a announcing) start(m *member) *member {
	a[m] = &porttest.Recorder{}
	m.observers = append(m.observers, a[m])
	m.start()
	return m
}

// count returns how many PeerIDs were announced, and heard, since the last count.
func (a announcing) count() (announced, heard int) {
	for _, r := range a {
		announced += r.Count(ports.EventAnnounced)
		heard += r.Count(ports.EventHeard)
		r.Take()
	}
	return announced, heard
}

// natives starts n natives that find each other, and are cut off from the seed's but the first.
func (a announcing) natives(s *simulation, n int, seedIP string) (natives []*member) {
	for i := range n {
		m := s.member(fmt.Sprint("speaks-", i), map[string]string{"modules": "native,dht,gossip"})
		if i > 0 {
			m.settings["host.bootstrap"] = natives[0].addr()
			s.faults.lose(m.ip, seedIP, true)
			s.faults.lose(seedIP, m.ip, true)
		}
		natives = append(natives, a.start(m))
	}
	time.Sleep(10 * time.Second)
	return natives
}

func TestSimNativesThatAllFollowEachOtherSendNoMessageForARenewal(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		a := announcing{}
		natives := a.natives(s, 4, "")
		indexers := s.indexers(6, natives, false)
		s.settle(natives, indexers)
		time.Sleep(15 * time.Second) // what joined is announced
		if announced, heard := a.count(); announced < len(indexers) || heard < len(indexers) {
			t.Errorf("of %d joins %d are announced, and %d heard", len(indexers), announced, heard)
		}
		time.Sleep(5 * time.Minute)
		var avoided uint64
		for _, n := range natives {
			_, announcements := n.node.Registry().Avoided()
			avoided += announcements
		}
		if announced, heard := a.count(); announced > 0 || heard > 0 || avoided < uint64(4*len(indexers)) {
			t.Errorf("in five minutes %d renewals are announced, %d heard, and %d avoided", announced, heard, avoided)
		}
		if !everyone(natives, indexers)() {
			t.Error("not everybody is listed by all")
		}
		gone := indexers[0]
		gone.stop()
		time.Sleep(5 * time.Second)
		if announced, _ := a.count(); announced == 0 {
			t.Error("a leave is not announced")
		}
		stopAll(indexers[1:], natives)
	})
}

// A native of the seed is connected to one of four natives. It hears of all that any of them has to
// tell, and lists all.
func TestSimANativeOfTheSeedHearsOfAllByWayOfOne(t *testing.T) {
	const seedIP = "1.201.0.1"
	ids := strangers(t, 1)
	simulate(t, func(t *testing.T, s *simulation) {
		a := announcing{}
		natives := a.natives(s, 4, seedIP)
		indexers := s.indexers(6, natives, false)
		s.settle(natives, indexers)
		seed := s.seedNative(seedIP, natives[0])
		time.Sleep(70 * time.Second) // a heartbeat brings all
		for _, x := range indexers {
			seed.hears(x.peerID)
		}
		for range 200 {
			time.Sleep(time.Second)
			for _, x := range indexers {
				if !seed.lists(x.peerID) {
					t.Fatalf("it does not list %s", x.name)
				}
			}
		}
		for _, x := range indexers {
			if n := seed.hears(x.peerID); n < 3 {
				t.Errorf("in 200 s it has heard of %s %d times, want each renewal", x.name, n)
			}
		}
		// A join, a change and a leave at a native that is not connected to it.
		far, id := natives[3], ids[0]
		enter(t, far, ids)
		time.Sleep(2 * time.Second)
		if seed.hears(id) == 0 || !seed.lists(id) {
			t.Error("it has not heard of a join")
		}
		if _, err := far.node.Registry().Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/ip4/10.9.9.9/tcp/4001"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Second)
		if seed.hears(id) == 0 {
			t.Error("it has not heard of a change")
		}
		if err := far.node.Registry().Leave(t.Context(), id, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Second)
		if seed.hears(id) == 0 {
			t.Error("it has not heard of a leave")
		}
		// When it goes, renewals cost no message again.
		seed.end()
		time.Sleep(time.Minute)
		a.count()
		time.Sleep(2 * time.Minute)
		if announced, _ := a.count(); announced > 0 {
			t.Errorf("%d renewals are announced though it has gone", announced)
		}
		stopAll(indexers, natives)
	})
}

// The ends of a line cannot connect. They hear of each other's indexers by gossip, by way of the middle.
func TestSimNativesThatCannotConnectHearByGossip(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		a := announcing{}
		var natives []*member
		for i := range 3 {
			natives = append(natives, s.member(fmt.Sprint("line-", i), map[string]string{"modules": "native,dht,gossip"}))
		}
		cut(natives[0], natives[2])
		a.start(natives[1])
		for _, end := range []*member{natives[0], natives[2]} {
			end.settings["host.bootstrap"] = natives[1].addr()
			a.start(end)
		}
		time.Sleep(10 * time.Second)
		indexers := s.indexers(6, natives, false)
		if took, ok := until(40*time.Second, everyone(natives, indexers)); !ok { // a look-up may miss a put, and the next is at a tick
			t.Fatalf("after %v not everyone is listed by all", took)
		}
		missing, samples := 0, 0
		for range 300 {
			time.Sleep(time.Second)
			for _, n := range natives {
				for _, x := range indexers {
					samples++
					if !n.lists(x) {
						missing++
					}
				}
			}
		}
		if missing > 0 {
			t.Errorf("missing in %d of %d samples", missing, samples)
		}
		mend(natives[0], natives[2])
		if took, ok := until(15*time.Minute, func() bool { return follow(natives...) }); !ok {
			t.Errorf("%v after they could connect they do not follow each other", took)
		}
		stopAll(indexers, natives)
	})
}

// before is the transport of a native of the version before, which knows the watch in JSON alone.
type before struct {
	ports.Transport
	host host.Host
}

func (b before) Serve(n ports.Native) (func(), error) {
	stop, err := b.Transport.Serve(n)
	b.host.RemoveStreamHandler(ports.FollowProtocol)
	return stop, err
}

func (b before) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := b.Transport.Native(id, addrs)
	return nativeBefore{n}, err
}

type nativeBefore struct{ ports.RemoteNative }

func (n nativeBefore) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	w.Numbers = false
	return n.RemoteNative.Watch(ctx, sender, w)
}

// A native of the version before does not say whom its announcements reach: there may be a native of the
// seed behind it.
func TestSimANativeOfBeforeAmongOthers(t *testing.T) {
	const seedIP = "1.201.0.1"
	simulate(t, func(t *testing.T, s *simulation) {
		a := announcing{}
		old := s.member("before", map[string]string{"modules": "native,dht,gossip"})
		old.env = modules.Environment{Options: []fx.Option{fx.Decorate(func(t ports.Transport, h host.Host) ports.Transport { return before{t, h} })}}
		a.start(old)
		natives := []*member{old}
		for i := range 2 {
			m := s.member(fmt.Sprint("later-", i), map[string]string{"modules": "native,dht,gossip", "host.bootstrap": old.addr()})
			s.faults.lose(m.ip, seedIP, true)
			s.faults.lose(seedIP, m.ip, true)
			natives = append(natives, a.start(m))
		}
		time.Sleep(10 * time.Second)
		indexers := s.indexers(4, natives[1:], false)
		s.settle(natives, indexers)
		seed := s.seedNative(seedIP, old)
		time.Sleep(70 * time.Second)
		a.count()
		for range 120 {
			time.Sleep(time.Second)
			for _, x := range indexers {
				if !seed.lists(x.peerID) {
					t.Fatalf("the native of the seed does not list %s", x.name)
				}
			}
		}
		if announced, _ := a.count(); announced < 2*len(indexers) {
			t.Errorf("%d renewals are announced", announced)
		}
		synctest.Wait()
		if !everyone(natives, indexers)() {
			t.Error("not everybody is listed by all")
		}
		seed.end()
		stopAll(indexers, natives)
	})
}
