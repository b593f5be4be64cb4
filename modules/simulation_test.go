// A simulated handshake without ML-KEM takes two thirds of the time, and is of no use to anybody.
//
//go:debug tlsmlkem=0
package modules_test

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/marcopolo/simnet"

	"go.uber.org/fx"

	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

var logs = flag.Bool("logs", false, "print every node's log")

type prefixed string

func (p prefixed) Write(b []byte) (int, error) {
	fmt.Printf("%s %s", string(p), b)
	return len(b), nil
}

var seed = flag.Uint64("seed", 0, "of the simulated networks' schedules; 0 draws one, which is printed")

// simulation is a network in fake time: real nodes, with the product's own hosts,
// DHT and GossipSub, over simulated QUIC.
type simulation struct {
	t       *testing.T
	net     *simnet.Simnet
	random  *rand.Rand
	dir     string
	began   time.Time
	latency time.Duration // one way, between any two

	away       sync.Map // IP of a node that is cut off -> struct{}
	faults     faults   // the finer ones
	machines   sync.Map // IP of each that has been there -> struct{}
	heartbeats sync.Map // PeerID -> when a native last granted it a lease
}

// simulate runs f in a network of its own, in a bubble of its own.
func simulate(t *testing.T, f func(t *testing.T, s *simulation)) {
	t.Helper()
	drawn := *seed
	if drawn == 0 {
		drawn = rand.Uint64()
	}
	t.Logf("seed %d (again with -args -seed %d)", drawn, drawn)
	simulateSeed(t, drawn, f)
}

func simulateSeed(t *testing.T, seed uint64, f func(t *testing.T, s *simulation)) {
	t.Helper()
	porttest.FakeTime(t, func(t *testing.T) {
		s := &simulation{t: t, random: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), began: time.Now()}
		s.latency = time.Duration(1+s.random.IntN(40)) * time.Millisecond
		s.net = &simnet.Simnet{LatencyFunc: simnet.StaticLatency(s.latency), Logger: slog.New(slog.DiscardHandler)}
		s.net.Start()
		defer s.net.Close()
		f(t, s)
	})
}

// member is a place in the network, where a node may run, stop and run again.
type member struct {
	*simulation
	name     string
	ip       string
	settings map[string]string
	env      modules.Environment
	// observers are told what happens besides, and more are modules besides ocnode's own.
	observers []ports.Observer
	more      []modules.Module
	servers   func() int // of the DHT that it knows, if a probe among more sets it
	clock     machineClock

	up, still  bool // whether it runs, and whether it is stopped or asleep
	started    time.Time
	back       time.Time // when it was last stopped, asleep or cut off
	left       time.Time // when it last stopped
	leftCalmly bool      // without any fault that could hold up its leave
	moves      int
	peerID     ports.PeerID

	mu     sync.Mutex
	leases map[ports.PeerID]time.Time // when it last granted each

	answered atomic.Int64 // the longest that an indexer waited for a lease that it held already

	registered atomic.Int64 // registrations that it took
	announced  atomic.Int64 // announcements that it made
	node       *modules.Node
	granted    atomic.Pointer[time.Time] // when an indexer last got a lease
}

// Observe implements ports.Observer.
func (m *member) Observe(e ports.Event) {
	switch e.Kind {
	case ports.EventLeaseGranted:
		now := time.Now()
		m.granted.Store(&now)
		if !e.Joined {
			m.answered.Store(max(m.answered.Load(), int64(e.Took)))
		}
	case ports.EventRegistered:
		m.registered.Add(1)
		m.heartbeats.Store(e.PeerID, time.Now())
		m.stays(e.PeerID, false)
	case ports.EventAnnounced:
		m.announced.Add(1)
	case ports.EventLeft:
		m.stays(e.PeerID, true)
	}
}

// lastHeartbeat is when any native last heard x, be it that x knows of it or not.
func (s *simulation) lastHeartbeat(x *member) time.Time {
	last, _ := s.heartbeats.Load(x.peerID)
	at, _ := last.(time.Time)
	return at
}

// bare returns a host that is nothing else, for the caller to close.
func (s *simulation) bare(ip string) host.Host {
	s.t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/"+ip+"/udp/4101/quic-v1"), s.quic(), libp2p.DisableIdentifyAddressDiscovery())
	if err != nil {
		s.t.Fatal(err)
	}
	return h
}

func (s *simulation) member(name string, settings map[string]string) *member {
	h := 0
	for _, c := range name {
		h = h*31 + int(c)
	}
	return &member{simulation: s, name: name, ip: fmt.Sprintf("1.%d.%d.1", h>>8&127, h&255), settings: settings, clock: machineClock{on: time.Now()}}
}

// all are its settings, and those that every node of the network has.
func (m *member) all() map[string]string {
	settings := map[string]string{
		"data.dir": filepath.Join(m.dir, m.name), "http.listen": "", "log.level": "debug",
		"host.listen": "/ip4/" + m.ip + "/udp/4101/quic-v1",
	}
	maps.Copy(settings, m.settings)
	return settings
}

func (m *member) start() {
	m.t.Helper()
	env := m.env
	if testing.Verbose() && *logs {
		env.Log = prefixed(m.name)
	}
	env.Observers = append([]ports.Observer{m}, m.observers...)
	env.HostOptions = []libp2p.Option{m.quic()}
	env.Dial = m.dial
	if env.Interfaces == nil { // the machine that the tests run on is none of this network
		env.Interfaces = func() ([]libp2phost.Local, error) {
			return []libp2phost.Local{{IP: netip.MustParseAddr(m.ip), Interface: "sim0", Outward: true}}, nil
		}
	}
	env.StopTimeout = 2 * time.Second // as it comes, since no machine stalls in fake time
	if env.Now == nil {
		env.Now = m.clock.now
	}
	if env.Elapsed == nil {
		env.Elapsed = m.clock.elapsed
	}
	m.faults.silence(m.ip, false)
	m.mu.Lock()
	m.leases = make(map[ports.PeerID]time.Time)
	m.mu.Unlock()
	m.node = newNode(m.t, m.all(), env, m.more...)
	if err := m.node.Start(m.t.Context()); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	m.peerID, m.up, m.started = m.node.PeerID(), true, time.Now()
}

func (m *member) stop() {
	m.t.Helper()
	m.up, m.left = false, time.Now()
	if err := m.node.Stop(); err != nil {
		m.t.Errorf("stop %s: %v", m.name, err)
	}
}

func (m *member) addr() string { return m.node.Addrs()[0] }

func (m *member) lists(x *member) bool {
	_, ok := m.node.Registry().Get(x.node.PeerID())
	return ok
}

// natives starts n natives that join through the first.
func (s *simulation) natives(n int, env modules.Environment) []*member {
	s.t.Helper()
	var natives []*member
	for i := range n {
		m := s.member(fmt.Sprintf("native-%d", i), map[string]string{"modules": "native,dht,gossip"})
		m.env = env
		if i > 0 {
			m.settings["host.bootstrap"] = natives[0].addr()
		}
		m.start()
		natives = append(natives, m)
	}
	time.Sleep(3 * time.Second) // they find each other
	return natives
}

// indexers starts n indexers, spread over a second, each with a lease at one native,
// or at all of them.
func (s *simulation) indexers(n int, natives []*member, all bool) []*member {
	s.t.Helper()
	return s.indexersAt("indexer-", n, natives, all)
}

func (s *simulation) indexersAt(name string, n int, natives []*member, all bool) []*member {
	s.t.Helper()
	var indexers []*member
	for i := range n {
		m := s.member(name+strconv.Itoa(i), map[string]string{"modules": "indexer"})
		m.settings["indexer.natives"] = natives[i%len(natives)].addr()
		if all {
			for _, native := range natives {
				m.settings["indexer.natives"] += "," + native.addr()
			}
		}
		time.Sleep(time.Duration(s.random.Int64N(int64(time.Second) / int64(n))))
		m.start()
		indexers = append(indexers, m)
	}
	return indexers
}

func stopAll(members ...[]*member) {
	for _, m := range slices.Concat(members...) {
		m.stop()
	}
}

// until waits in steps of 10 ms until ok, at most limit, and returns how long it took.
func until(limit time.Duration, ok func() bool) (took time.Duration, reached bool) {
	began := time.Now()
	for !ok() {
		if time.Since(began) >= limit {
			return time.Since(began), false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began), true
}

// settle waits until every indexer is listed by every native.
func (s *simulation) settle(natives, indexers []*member) {
	s.t.Helper()
	if took, ok := until(5*time.Second, everyone(natives, indexers)); !ok {
		s.t.Fatalf("after %v not everyone is listed by all", took)
	}
}

func everyone(natives, indexers []*member) func() bool {
	return func() bool {
		for _, n := range natives {
			for _, x := range indexers {
				if !n.lists(x) {
					return false
				}
			}
		}
		return true
	}
}

// watched is for how long natives and indexers are watched at each phase: ten minutes, or a few
// ticks and heartbeats.
var watched = time.Duration(porttest.Scale(10, 3)) * time.Minute

// watch lets three natives and eight indexers live, the indexers that much after the
// natives' refresh tick, and returns how often one was looked for, how often it was
// missing, and how long the slowest took to appear everywhere.
func watch(t *testing.T, phase time.Duration, env modules.Environment) (samples, missing int, slowest time.Duration) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, env)
		time.Sleep(27*time.Second + phase) // three seconds have passed
		indexers := s.indexers(8, natives, false)
		listed := make([]bool, len(indexers))
		for began := time.Now(); time.Since(began) < watched; time.Sleep(100 * time.Millisecond) {
			for i, x := range indexers {
				first := x.granted.Load()
				if first == nil {
					continue // its first registration is on its way
				}
				for _, n := range natives {
					samples++
					if !n.lists(x) && (listed[i] || time.Since(*first) > time.Second) {
						missing++
					}
				}
				if !listed[i] && everyone(natives, indexers[i:i+1])() {
					listed[i] = true
					slowest = max(slowest, time.Since(*first))
				}
			}
		}
		if slices.Contains(listed, false) {
			slowest = time.Hour
		}
		stopAll(indexers, natives)
	})
	return samples, missing, slowest
}

func TestSimALiveIndexerIsMissingNowhereAtAnyPhaseOfTheRefresh(t *testing.T) {
	for phase := time.Duration(0); phase < 30*time.Second; phase += 5 * time.Second {
		t.Run(phase.String(), func(t *testing.T) {
			samples, missing, slowest := watch(t, phase, modules.Environment{})
			t.Logf("%d samples, %d missing, the slowest was listed by all after %v", samples, missing, slowest)
			if looks := int((watched - 10*time.Second) / (100 * time.Millisecond)); samples < 8*3*looks {
				t.Errorf("%d samples, want 8 indexers at 3 natives every 100 ms of %v", samples, watched)
			}
			if missing != 0 {
				t.Errorf("missing in %d of %d samples", missing, samples)
			}
			if slowest > time.Second {
				t.Errorf("listed by all only after %v", slowest)
			}
		})
	}
}

// Without look-up on receipt, and without following, the test above must fail, or it shows nothing.
func TestSimWithLookUpsAtTheTickAloneLiveIndexersAreMissing(t *testing.T) {
	samples, missing, slowest := watch(t, 10*time.Second, modules.Environment{Options: []fx.Option{looksUpAtTicks(), followsNobody()}})
	t.Logf("%d samples, %d missing, the slowest was listed by all after %v", samples, missing, slowest)
	if missing == 0 || slowest <= time.Second {
		t.Errorf("missing in %d of %d samples, listed by all after %v: the other test proves nothing", missing, samples, slowest)
	}
}

// An indexer that is cut off, or dies, leaves nobody.
func TestSimAnIndexerThatDiesIsGoneEverywhereBetween66And68SecondsAfterItsLastHeartbeat(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		indexers := s.indexers(2, natives, false)
		s.settle(natives, indexers)
		time.Sleep(time.Duration(s.random.Int64N(int64(3 * time.Minute))))
		x := indexers[0]
		x.away.Store(x.ip, struct{}{})
		time.Sleep(time.Second) // a heartbeat that was under way has arrived
		// What it is proven by counts from when it was due, and it was heard after a stream had
		// been opened for it.
		last, early := s.lastHeartbeat(x), 5*s.latency
		if _, gone := until(70*time.Second, func() bool {
			since := time.Since(last)
			for _, n := range natives {
				if listed := n.lists(x); listed && since > 68*time.Second || !listed && since < 66*time.Second-early {
					t.Fatalf("%v after its last heartbeat it is listed by %s: %v", since, n.name, listed)
				}
			}
			return since > 68*time.Second
		}); !gone {
			t.Error("the test ended early")
		}
		if !everyone(natives, indexers[1:])() {
			t.Error("the other indexer is missing somewhere")
		}
		stopAll(indexers, natives)
	})
}

func TestSimANativeThatComesBackIsWarmWithinAHeartbeat(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		indexers := s.indexers(8, natives, false)
		time.Sleep(time.Minute)
		back := natives[s.random.IntN(3)]
		back.stop()
		time.Sleep(time.Duration(1+s.random.IntN(50)) * time.Second)
		back.start()
		took, ok := until(time.Minute, everyone([]*member{back}, indexers))
		t.Logf("%s was warm again after %v", back.name, took)
		if !ok {
			t.Errorf("not warm within a heartbeat: it lists %d of 8", count(back))
		}
		stopAll(indexers, natives)
	})
}

func count(m *member) int {
	live, _ := m.node.Registry().Counts()
	return live
}

func TestSimAfterAllNativesWereAwayForTwentyMinutesEveryoneIsRegisteredWithinAMinute(t *testing.T) {
	for _, away := range []struct {
		name  string
		leave func(*member)
		back  func(*member)
	}{
		{"stopped", (*member).stop, (*member).start},
		{"cut off", func(m *member) { m.away.Store(m.ip, struct{}{}) }, func(m *member) { m.away.Delete(m.ip) }},
	} {
		t.Run(away.name, func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(porttest.Scale(3, 2), modules.Environment{})
				indexers := s.indexers(porttest.Scale(8, 3), natives, false)
				time.Sleep(time.Minute)
				for _, n := range natives {
					away.leave(n)
				}
				time.Sleep(20 * time.Minute)
				for _, n := range natives {
					away.back(n)
				}
				took, ok := until(time.Minute, everyone(natives, indexers))
				t.Logf("everyone was registered again, and listed by all, after %v", took)
				if !ok {
					for _, n := range natives {
						t.Errorf("after a minute %s lists %d of %d", n.name, count(n), len(indexers))
					}
				}
				stopAll(indexers, natives)
			})
		})
	}
}

func TestSimOneOfTwoNativesDiesAndTheOtherNeverMissesTheIndexer(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(2, modules.Environment{})
		indexers := s.indexers(3, natives, true)
		s.settle(natives, indexers)
		time.Sleep(time.Duration(s.random.Int64N(int64(time.Minute))))
		natives[0].away.Store(natives[0].ip, struct{}{}) // a cut: nobody is told
		for range 3000 {
			time.Sleep(100 * time.Millisecond)
			if !everyone(natives[1:], indexers)() {
				t.Fatalf("missing at the native that lives")
			}
		}
		natives[0].away.Delete(natives[0].ip)
		if took, ok := until(time.Minute, everyone(natives, indexers)); !ok {
			t.Errorf("not listed by the native that came back after %v", took)
		}
		stopAll(indexers, natives)
	})
}

// A DHT server that takes every question and answers none, connected to all.
func TestSimAHungDHTServerDelaysNeitherAnswersNorNews(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		hung := s.bare("1.200.0.1")
		defer hung.Close()
		var asked atomic.Int64
		hung.SetStreamHandler("/opencloud/kad/1.0.0", func(network.Stream) { asked.Add(1) })
		for _, n := range natives {
			info, err := peer.AddrInfoFromString(n.addr())
			if err != nil {
				t.Fatal(err)
			}
			if err := hung.Connect(t.Context(), *info); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		indexers := s.indexers(8, natives, false)
		took, ok := until(2*time.Second, everyone(natives, indexers))
		if !ok {
			t.Errorf("not listed by all after %v", took)
		}
		for range 3000 {
			time.Sleep(100 * time.Millisecond)
			if !everyone(natives, indexers)() {
				t.Fatal("a live indexer is missing")
			}
		}
		longest := time.Duration(0)
		for _, x := range indexers {
			longest = max(longest, time.Duration(x.answered.Load()))
		}
		t.Logf("asked %d times, the hung server answered none; the longest wait for a renewal was %v, at %v one way", asked.Load(), longest, s.latency)
		if asked.Load() == 0 || longest == 0 || longest > 50*time.Millisecond+4*s.latency {
			t.Errorf("asked %d times, the longest wait was %v", asked.Load(), longest)
		}
		stopAll(indexers, natives)
	})
}

// Whatever stops, is cut off and comes back: the dead are listed nowhere, and once
// the faults are over everyone is listed by all.
func TestSimThroughRandomFaultsTheDeadAreListedNowhereAndTheLivingComeBack(t *testing.T) {
	for run := range porttest.Scale(3, 1) {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(3, modules.Environment{})
				indexers := append(s.indexers(4, natives, false), s.indexersAt("both-", 4, natives[:2], true)...)
				all := slices.Concat(natives, indexers)
				stopped := map[*member]bool{}
				stale := map[[2]*member]time.Time{} // since when a native shows an indexer as stale
				samples := 0
				watch := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
						synctest.Wait() // or a heartbeat is listed and not noted yet
						for _, n := range natives {
							if stopped[n] {
								continue
							}
							for _, x := range indexers {
								samples++
								shown, ok := n.node.Registry().Get(x.node.PeerID())
								at := [2]*member{n, x}
								switch since := time.Since(s.lastHeartbeat(x)); {
								case !ok:
									delete(stale, at)
								case shown.State == ports.StateStale: // by a native that was cut off from all
									if stale[at].IsZero() {
										stale[at] = time.Now()
									}
									if is := time.Since(stale[at]); is > 67*time.Second {
										t.Fatalf("%s shows %s as stale for %v", n.name, x.name, is)
									}
								case since > 68*time.Second:
									t.Fatalf("%s shows %s as %s %v after its last heartbeat", n.name, x.name, shown.State, since)
								default:
									delete(stale, at)
								}
							}
						}
					}
				}
				heal := func(m *member) {
					m.away.Delete(m.ip)
					if stopped[m] {
						m.start()
						delete(stopped, m)
					}
				}
				for range 40 {
					m := all[s.random.IntN(len(all))]
					_, away := s.away.Load(m.ip)
					switch {
					case away || stopped[m]:
						heal(m)
					case s.random.IntN(2) == 0:
						m.stop()
						stopped[m] = true
					default:
						s.away.Store(m.ip, struct{}{})
					}
					watch(time.Duration(1+s.random.IntN(40)) * time.Second)
				}
				for _, m := range all {
					heal(m)
				}
				took, ok := until(2*time.Minute, everyone(natives, indexers))
				t.Logf("%d samples; after the last fault everyone was listed by all within %v", samples, took)
				if !ok {
					t.Errorf("two minutes after the last fault the natives list %d, %d and %d of %d", count(natives[0]), count(natives[1]), count(natives[2]), len(indexers))
				}
				stopAll(indexers, natives)
			})
		})
	}
}
