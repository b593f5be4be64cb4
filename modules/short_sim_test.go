package modules_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"go.uber.org/fx"
)

const (
	shortTTL       = 3 * time.Second
	shortHeartbeat = 2 * time.Second
	// shortGrace is how long an indexer has to come back after a hang-up: half of the slack.
	shortGrace = (shortTTL - shortHeartbeat) / 2
)

// short gives members the times of a network in which a death is noticed in seconds.
func short(m *member) *member {
	m.settings["registry.ttl"], m.settings["registry.heartbeat"], m.settings["registry.refresh"] = shortTTL.String(), shortHeartbeat.String(), "1s"
	return m
}

// beatCounter counts the frames on open streams.
type beatCounter struct{ frames, streams, registered atomic.Int64 }

func (c *beatCounter) Observe(e ports.Event) {
	switch e.Kind {
	case ports.EventBeats:
		c.frames.Add(int64(e.Changes))
	case ports.EventBeating:
		c.streams.Add(1)
	case ports.EventRegistered:
		c.registered.Add(1)
	}
}

// A network with a heartbeat of 2 s and a TTL of 3 s: nothing alive is missing over minutes, and a death
// is noticed in seconds.
func TestSimShortLeases(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		var natives []*member
		var counters []*beatCounter
		for i := range 3 {
			m := short(s.member(fmt.Sprintf("native-%d", i), map[string]string{"modules": "native,dht,gossip"}))
			if i > 0 {
				m.settings["host.bootstrap"] = natives[0].addr()
			}
			c := &beatCounter{}
			m.observers = []ports.Observer{c}
			m.start()
			natives, counters = append(natives, m), append(counters, c)
		}
		time.Sleep(3 * time.Second)
		var indexers []*member
		var inside [12]host.Host
		for i := range 12 {
			m := short(s.member(fmt.Sprintf("indexer-%d", i), map[string]string{"modules": "indexer"}))
			m.settings["indexer.natives"] = natives[i%3].addr()
			if i%2 == 0 {
				m.settings["indexer.natives"] += "," + natives[(i+1)%3].addr()
			}
			time.Sleep(time.Duration(s.random.Int64N(int64(200 * time.Millisecond))))
			m.more = []modules.Module{{Name: "inside", Summary: "shows its host", Always: true, Wire: func(*modules.Plan) fx.Option {
				return fx.Invoke(func(h host.Host) { inside[i] = h })
			}}}
			m.start()
			indexers = append(indexers, m)
		}
		s.settle(natives, indexers)

		late := 0
		samples, missing := 0, 0
		for range int(time.Duration(porttest.Scale(10, 1)) * 30 * time.Second / (100 * time.Millisecond)) {
			time.Sleep(100 * time.Millisecond)
			for _, n := range natives {
				for _, x := range indexers {
					samples++
					l, ok := n.node.Registry().Get(x.peerID)
					if !ok {
						missing++
					} else if l.State != ports.StateLive {
						late++
					}
				}
			}
		}
		t.Logf("%d samples at %v one way, %d missing, %d late", samples, s.latency, missing, late)
		if missing > 0 || late > 0 {
			t.Errorf("of %d samples %d are missing and %d late, and all live", samples, missing, late)
		}
		for i, c := range counters {
			frames, registered, streams := c.frames.Load(), c.registered.Load(), c.streams.Load()
			if frames < registered*9/10 || streams > int64(len(indexers)) {
				t.Errorf("%s: %d of %d heartbeats came over %d open streams", natives[i].name, frames, registered, streams)
			}
		}

		dies := func(x *member, how string, noticed, most time.Duration) {
			t.Helper()
			began := time.Now()
			saw := make(map[string]time.Duration)
			if _, ok := until(most+time.Second, func() bool {
				gone := 0
				for _, n := range natives {
					l, listed := n.node.Registry().Get(x.peerID)
					if _, seen := saw[n.name]; !seen && (!listed || l.State != ports.StateLive) {
						saw[n.name] = time.Since(began)
					}
					if !listed {
						gone++
					}
				}
				return gone == len(natives)
			}); !ok {
				t.Errorf("%s: it is not gone everywhere", how)
			}
			took := time.Since(began)
			t.Logf("%s: noticed after %v, gone everywhere after %v", how, saw, took)
			for n, after := range saw {
				if after > noticed {
					t.Errorf("%s: noticed at %s after %v, want %v", how, n, after, noticed)
				}
			}
			if took > most {
				t.Errorf("%s: gone after %v, want %v", how, took, most)
			}
		}
		// Over QUIC nothing tells of a process that is killed. Its heartbeat is overdue.
		indexers[0].crash()
		dies(indexers[0], "killed", shortHeartbeat+200*time.Millisecond, shortTTL+200*time.Millisecond)
		// A connection that ends tells so.
		x := indexers[1]
		for _, c := range inside[1].Network().Conns() { // as the kernel closes those of a process that ends
			_ = c.Close()
		}
		time.Sleep(s.latency + time.Millisecond) // which carries the word of that
		x.crash()
		dies(x, "its connection ends", shortGrace+s.latency*4+200*time.Millisecond, shortTTL+200*time.Millisecond)
		indexers[2].stop()
		dies(indexers[2], "left", 200*time.Millisecond+s.latency*4, 200*time.Millisecond+s.latency*4)
		rest := indexers[3:]
		if !everyone(natives, rest)() {
			t.Error("another is missing")
		}

		// An indexer that roams from one connection to another does not flap.
		x = rest[0]
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		watching := make(chan struct{})
		go func() {
			defer close(watching)
			for b, err := range natives[0].node.Registry().Watch(ctx, "", ports.WatchRequest{}) {
				if err != nil {
					return
				}
				for _, c := range b.Changes {
					if c.PeerID == x.peerID && c.Kind != ports.ChangeSnapshot {
						told = append(told, string(c.Kind))
					}
				}
			}
		}()
		for range 5 {
			time.Sleep(shortHeartbeat + time.Duration(s.random.Int64N(int64(shortHeartbeat))))
			for _, c := range inside[3].Network().Conns() {
				_ = c.Close()
			}
		}
		time.Sleep(2 * shortTTL)
		cancel()
		<-watching
		if len(told) > 0 {
			t.Errorf("of an indexer whose connection ended five times watchers are told %v", told)
		}
		stopAll(rest, slices.Clone(natives))
	})
}
