package modules_test

import (
	"flag"
	"maps"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A crowd is small where every change is tested, and as large as the contract's where
// BenchmarkTable measures it, in processes of their own with these flags.
var (
	crowdNatives  = flag.Int("crowd-natives", 8, "how many natives TestSimACrowdOfNatives has")
	crowdIndexers = flag.Int("crowd-indexers", 24, "how many indexers")
	crowdEntries  = flag.Int("crowd-entries", 0, "how many entries besides, which are renewed in process")
	crowdModules  = flag.String("crowd-modules", "native,dht,gossip", "the natives' modules")
	crowdDeaf     = flag.Bool("crowd-deaf", false, "have them not follow each other")
	crowdIdle     = flag.Bool("crowd-idle", false, "have heartbeats so rare that none comes while it is watched")
	crowdProfile  = flag.String("crowd-profile", "", "a file for a profile of the time that it is watched")
	crowdTime     = flag.Duration("crowd-time", time.Duration(porttest.Scale(5, 2))*time.Minute, "for how long it is watched, in fake time")
)

// renewEvery is what indexers do on average, which renew at 90 to 100 % of a heartbeat.
const renewEvery = 57 * time.Second

// Natives and indexers, each of these with a lease at one of those: nobody is ever missing
// anywhere.
func TestSimACrowdOfNatives(t *testing.T) {
	ids := strangers(t, *crowdEntries)
	profile := newProfiler(t, *crowdProfile)
	simulate(t, func(t *testing.T, s *simulation) {
		rare := map[string]string{}
		if *crowdIdle {
			rare = map[string]string{"registry.heartbeat": "20m", "registry.ttl": "22m"}
		}
		var natives []*member
		for i := range *crowdNatives {
			m := s.member("crowd-"+string(rune('a'+i)), map[string]string{"modules": *crowdModules, "log.level": "error"})
			if *crowdDeaf {
				m.env = modules.Environment{Options: []fx.Option{followsNobody()}}
			}
			var bootstrap []string
			for _, other := range natives { // without a DHT they would not meet
				bootstrap = append(bootstrap, other.addr())
			}
			m.settings["host.bootstrap"] = strings.Join(bootstrap, ",")
			maps.Copy(m.settings, rare)
			m.start()
			natives = append(natives, m)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(30 * time.Second) // they find each other
		var indexers []*member
		for i := range *crowdIndexers {
			m := s.member("indexer-"+strconv.Itoa(i), map[string]string{"modules": "indexer", "indexer.natives": natives[i%len(natives)].addr()})
			maps.Copy(m.settings, rare)
			time.Sleep(time.Duration(s.random.Int64N(int64(time.Second) / int64(*crowdIndexers))))
			m.start()
			indexers = append(indexers, m)
		}
		share := func(of int) []ports.PeerID {
			return ids[len(ids)*of/len(natives) : len(ids)*(of+1)/len(natives)]
		}
		time.Sleep(10 * time.Second)
		follows := 0
		for _, m := range natives {
			statuses, err := m.node.Registry().Natives(t.Context(), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range statuses {
				if s.Following {
					follows++
				}
			}
		}
		for i, m := range natives {
			enter(t, m, share(i))
		}
		time.Sleep(5 * time.Second)
		heartbeats := func() (n int64) {
			for _, m := range natives {
				n += m.registered.Load()
			}
			return n
		}
		profile.begin()
		before, began := heartbeats(), cpu()
		missing, samples := 0, 0
		const step = 100 * time.Millisecond
		for n := range int(*crowdTime / step) {
			time.Sleep(step)
			for i, m := range natives { // those whose turn it is
				mine, turns := share(i), int(renewEvery/step)
				enter(t, m, mine[len(mine)*(n%turns)/turns:len(mine)*(n%turns+1)/turns])
			}
			if n%10 > 0 {
				continue
			}
			for _, native := range natives { // to look for each would cost more than what is measured
				samples += len(indexers) + len(ids)
				missing += max(0, len(indexers)+len(ids)-count(native))
			}
		}
		spent := cpu() - began
		profile.end()
		t.Logf("crowd: %d heartbeats, %d ns of CPU, %d samples, %d missing, %d follows", heartbeats()-before, spent, samples, missing, follows)
		if reached := *crowdModules == "native,dht,gossip" || !*crowdDeaf; missing > 0 && reached {
			t.Errorf("missing in %d of %d samples", missing, samples)
		}
		if want := len(natives) * (len(natives) - 1); follows != want && !*crowdDeaf {
			t.Errorf("%d follows, want %d", follows, want)
		}
		stopAll(indexers, natives)
	})
}

// profiler profiles a part of a simulation. It works outside of the bubble, where time goes on.
type profiler struct{ begun, ended chan struct{} }

// newProfiler returns a profiler into a file, which does nothing if the name is empty. It is called
// outside of the bubble.
func newProfiler(t *testing.T, name string) *profiler {
	t.Helper()
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &profiler{make(chan struct{}), make(chan struct{})}
	go func() {
		<-p.begun
		if err := pprof.StartCPUProfile(f); err != nil {
			t.Error(err)
		}
		p.begun <- struct{}{}
		<-p.ended
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		p.ended <- struct{}{}
	}()
	return p
}

func (p *profiler) begin() {
	if p != nil {
		p.begun <- struct{}{}
		<-p.begun
	}
}

func (p *profiler) end() {
	if p != nil {
		p.ended <- struct{}{}
		<-p.ended
	}
}
