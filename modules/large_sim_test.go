package modules_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A large network is small where every change is tested, and as large as the bound's where
// BenchmarkTable measures it, in a process of its own with these flags.
var (
	largeNatives = flag.Int("large-natives", porttest.Scale(6, 4), "how many natives TestSimALargeNetwork has")
	largeEntries = flag.Int("large-entries", porttest.Scale(600, 200), "how many indexers, which are renewed in process")
	largeProfile = flag.String("large-profile", "", "a file for a profile of the time that it is watched")
	largeTime    = flag.Duration("large-time", time.Duration(porttest.Scale(60, 15))*time.Second, "for how long it is watched, in fake time")
)

// largeMeet is how many natives meet at a turn. If a hundred did at once, 9,900 tables would travel at the
// same time, in one process: 20 GB.
const largeMeet = 2

// largeSigned is the share of indexers that sign: every tenth.
const largeSigned = 10

// resident is an indexer without a node: it is renewed in process, with real ticks if it signs.
type resident struct {
	id     ports.PeerID
	native *member
	signer *prooftest.Signer // nil for a plain indexer
	word   prooftest.Word
	step   uint32
}

func (x *resident) renew(t *testing.T) {
	if x.signer == nil {
		enter(t, x.native, []ports.PeerID{x.id})
		return
	}
	if x.word.Record == nil {
		x.word = x.signer.Says(t, time.Now(), 1, "/ip4/10.0.0.1/tcp/4001")
	}
	r := x.word.Registration(x.step)
	if x.step > 0 {
		r.Proof.Record = nil // a heartbeat sends the tick alone
	}
	x.step++
	if _, err := x.native.node.Registry().Register(context.Background(), x.id, r); err != nil {
		t.Fatal(err)
	}
}

// A large network's time goes in turns. An indexer is renewed at every largeTurns-th of them.
const (
	largeTurn  = 100 * time.Millisecond
	largeTurns = int(renewEvery / largeTurn)
)

// largeNetwork is natives and their residents.
type largeNetwork struct {
	*simulation
	natives  []*member
	due      [largeTurns][]*resident
	lives    int // how many residents there are
	turn     int
	renewals int
	joining  []*joining
	took     []time.Duration // from each join until all natives listed it
}

// joining is a join that not all natives list yet.
type joining struct {
	id    ports.PeerID
	began time.Time
	lacks []*member
}

// join registers a resident, which is renewed from then on.
func (l *largeNetwork) join(x *resident) {
	x.renew(l.t)
	l.lives++
	l.due[l.turn%largeTurns] = append(l.due[l.turn%largeTurns], x)
	l.joining = append(l.joining, &joining{x.id, time.Now(), l.natives})
}

// pass lets a turn of time go by, then renews the residents of the next turn.
func (l *largeNetwork) pass() {
	const look = 10 * time.Millisecond
	for range largeTurn / look {
		time.Sleep(look)
		l.joining = slices.DeleteFunc(l.joining, func(j *joining) bool {
			lacks := j.lacks[:0:0]
			for _, m := range j.lacks {
				if _, ok := m.node.Registry().Get(j.id); !ok {
					lacks = append(lacks, m)
				}
			}
			if j.lacks = lacks; len(lacks) == 0 {
				l.took = append(l.took, time.Since(j.began))
			}
			return len(lacks) == 0
		})
	}
	l.turn++
	for _, x := range l.due[l.turn%largeTurns] {
		x.renew(l.t)
		l.renewals++
	}
}

// follows is how many natives follow another, counted once each.
func (l *largeNetwork) follows() (n int) {
	for _, m := range l.natives {
		n += m.node.Registry().Following()
	}
	return n
}

// announced is how many entries the natives have announced.
func (l *largeNetwork) announced() (n int64) {
	for _, m := range l.natives {
		n += m.announced.Load()
	}
	return n
}

// missing is how many entries the natives lack in all.
func (l *largeNetwork) missing() (n int) {
	for _, m := range l.natives {
		n += max(0, l.lives-count(m))
	}
	return n
}

// The natives of a large network meet after each has had its own indexers. From then on nobody is
// missing anywhere, and an indexer that joins is seen by all at once.
func TestSimALargeNetwork(t *testing.T) {
	ids := strangers(t, *largeEntries)
	profile := newProfiler(t, *largeProfile)
	joins := strangers(t, 2*int(*largeTime/time.Second))
	signers := prooftest.NewSigners(t, *largeEntries/largeSigned)
	simulate(t, func(t *testing.T, s *simulation) {
		l := &largeNetwork{simulation: s}
		var bootstrap []string
		for i := range *largeNatives {
			m := s.member(fmt.Sprintf("large-%02d", i), map[string]string{"modules": "native,dht,gossip", "log.level": "error", "host.bootstrap": strings.Join(bootstrap, ",")})
			m.cutOff()
			m.start()
			if i < 3 {
				bootstrap = append(bootstrap, m.addr())
			}
			l.natives = append(l.natives, m)
		}
		for turn := range largeTurns {
			for i := len(ids) * turn / largeTurns; i < len(ids)*(turn+1)/largeTurns; i++ {
				x := &resident{id: ids[i], native: l.natives[i%len(l.natives)]}
				if n := i / largeSigned; i%largeSigned == 0 && n < len(signers) {
					x.signer, x.id = signers[n], signers[n].PeerID
				}
				l.join(x)
			}
			l.joining = nil
			l.pass()
		}
		announcements := l.announced()
		for i, m := range l.natives {
			m.reconnect()
			if i%largeMeet == largeMeet-1 {
				l.pass()
			}
		}
		met, want := time.Now(), len(l.natives)*(len(l.natives)-1)
		for l.missing() > 0 || l.follows() < want {
			if time.Since(met) > 5*time.Minute {
				t.Fatalf("5 minutes after the natives met, there are %d of %d follows, and of %d entries at each native %d are missing in all", l.follows(), want, l.lives, l.missing())
			}
			l.pass()
		}
		runtime.GC() // so that the peak of that is no figure of what follows
		t.Logf("%d natives were one after %v, at %v one way", len(l.natives), time.Since(met), s.latency)
		for range 10 * time.Second / largeTurn { // they come to rest
			l.pass()
		}
		if announcements = l.announced() - announcements; announcements > int64(l.lives/10) {
			t.Errorf("%d announcements of %d entries as they met, though they follow each other", announcements, l.lives)
		}

		profile.begin()
		samples, missing, renewed, spent := 0, 0, l.renewals, cpu()
		for turn := range int(*largeTime / largeTurn) {
			switch turn % 10 {
			case 0, 5:
				l.join(&resident{id: joins[0], native: l.natives[s.random.IntN(len(l.natives))]})
				joins = joins[1:]
			case 9:
				samples += len(l.natives) * l.lives
				missing += l.missing()
			}
			l.pass()
		}
		spent = cpu() - spent
		profile.end()
		for range 2 * time.Second / largeTurn {
			l.pass()
		}
		if len(l.joining) > 0 || len(l.took) == 0 {
			t.Fatalf("%d indexers that joined are not listed by all", len(l.joining))
		}
		slices.Sort(l.took)
		at := func(percent int) time.Duration { return l.took[len(l.took)*percent/100] }
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("large: %d follows, %d renewals, %d ns of CPU, %d samples, %d missing, joins listed by all after %d ns, p99 %d ns, %d bytes in use",
			l.follows(), l.renewals-renewed, spent, samples, missing, at(50), at(99), m.HeapInuse)
		if missing > 0 {
			t.Errorf("missing in %d of %d samples", missing, samples)
		}
		if at(99) > time.Second {
			t.Errorf("p99 of a join until all list it is %v", at(99))
		}
		stopAll(l.natives)
	})
}
