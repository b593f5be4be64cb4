package modules_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// crowd is what TestSimACrowdOfNatives says of one run.
type crowd struct {
	heartbeats, samples, missing, follows int
	cpu                                   time.Duration
}

var crowdLine = regexp.MustCompile(`crowd: (\d+) heartbeats, (\d+) ns of CPU, (\d+) samples, (\d+) missing, (\d+) follows`)

// runCrowd runs it in a process of its own, whose CPU is nobody else's.
func runCrowd(b *testing.B, args ...string) crowd {
	b.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestSimACrowdOfNatives$", "-test.v", "-crowd-natives=20", "-seed=3"}, args...)...)
	cmd.Env = quietGo()
	out, err := cmd.CombinedOutput()
	said := crowdLine.FindSubmatch(out)
	if err != nil || said == nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	var n [5]int
	for i := range n {
		if n[i], err = strconv.Atoi(string(said[i+1])); err != nil {
			b.Fatal(err)
		}
	}
	return crowd{heartbeats: n[0], cpu: time.Duration(n[1]), samples: n[2], missing: n[3], follows: n[4]}
}

// quietGo is an environment in which Go's scheduler and collector add little to a small difference.
func quietGo() []string { return append(os.Environ(), "GOMAXPROCS=1", "GOGC=400") }

// tableOfCrowd says what a heartbeat costs twenty natives, and what of it is the watches'.
func tableOfCrowd(b *testing.B, t *table, _ float64) {
	t.part("Twenty natives that follow each other, a hundred indexers, five minutes: simulated network")
	const indexers = "-crowd-indexers=100"
	each := func(of, less crowd) float64 {
		return float64(of.cpu-less.cpu) / float64(of.heartbeats) / 1e6
	}
	file := filepath.Join(b.TempDir(), "profile")
	whole := runCrowd(b, indexers, "-crowd-profile="+file)
	idle := runCrowd(b, "-crowd-indexers=0")
	still := runCrowd(b, indexers, "-crowd-idle")
	noGossip := runCrowd(b, indexers, "-crowd-modules=native,dht")
	noGossipIdle := runCrowd(b, "-crowd-indexers=0", "-crowd-modules=native,dht")
	alone := runCrowd(b, indexers, "-crowd-modules=native")
	aloneIdle := runCrowd(b, "-crowd-indexers=0", "-crowd-modules=native")
	deaf := runCrowd(b, indexers, "-crowd-modules=native", "-crowd-deaf")
	deafIdle := runCrowd(b, "-crowd-indexers=0", "-crowd-modules=native", "-crowd-deaf")
	seed := runCrowd(b, indexers, "-crowd-deaf")
	seedIdle := runCrowd(b, "-crowd-indexers=0", "-crowd-deaf")

	if whole.missing > 0 || whole.follows != 20*19 {
		b.Fatalf("%d of %d samples are missing, and there are %d follows", whole.missing, whole.samples, whole.follows)
	}
	ms := unit("ms", 2)
	stream, watches := each(deaf, deafIdle), each(alone, aloneIdle)-each(deaf, deafIdle)
	all := each(whole, idle)
	gossip, dht := all-each(noGossip, noGossipIdle), each(noGossip, noGossipIdle)-each(alone, aloneIdle)
	t.row("an entry missing anywhere", fmt.Sprintf("%d of %s samples", whole.missing, thousands(float64(whole.samples))), "")
	t.row("CPU a heartbeat, summed over all natives and their indexers", ms(all), fmt.Sprintf("DHT %.0f %%, gossip %.0f %%, watches %.0f %%, stream and the rest %.0f %%",
		100*dht/all, 100*gossip/all, 100*watches/all, 100*stream/all))
	t.atMost("a renewal, 20 natives, 100 indexers, simulated: CPU of all, less that of the same nodes with rare heartbeats", each(whole, still), 0.5, ms)
	t.ofScale(2, 1)
	t.row("the same, of natives that do not follow each other, as the seed's", ms(each(seed, seedIdle)), fmt.Sprintf("following changes it by %+.2f ms in all: it saves look-ups", all-each(seed, seedIdle)))
	t.atMost("of it, the watches' at a heartbeat every 11 s and native", watches, 0.2, ms)

	const entries, minute = 10_000, "-crowd-time=1m"
	many := runCrowd(b, "-crowd-indexers=0", "-crowd-modules=native", fmt.Sprint("-crowd-entries=", entries), minute)
	manyDeaf := runCrowd(b, "-crowd-indexers=0", "-crowd-modules=native", fmt.Sprint("-crowd-entries=", entries), "-crowd-deaf", minute)
	t.row(fmt.Sprintf("the watches' at %s entries, which are renewed in process", thousands(entries)), ms(float64(many.cpu-manyDeaf.cpu)/float64(many.heartbeats)/1e6), "")
	t.note("All of it by layer, idle nodes included: %s", sharesOf(b, file))
	t.note("The node of an indexer costs something without a heartbeat too: its host, its connection, its timers. So the same network runs with heartbeats so rare that none comes in the five minutes, and a renewal is what that takes less. It is a small difference of two large figures.")
	t.note("All with one latency, 12 ms one way. By ablation: the same crowd without gossip, without the DHT and without watches, each less what it takes without indexers. A native tells the others of its renewals once a second, so the more it has, the less each costs; of a hundred thousand indexers that is measured below, over TCP. The simulated network's own packets are in these figures.")
}

var largeLine = regexp.MustCompile(`large: (\d+) follows, (\d+) renewals, (\d+) ns of CPU, (\d+) samples, (\d+) missing, joins listed by all after (\d+) ns, p99 (\d+) ns, (\d+) bytes in use`)

// tableOfLarge says what becomes of a hundred natives that follow each other.
func tableOfLarge(b *testing.B, t *table, scale float64) {
	// A hundred thousand for five minutes, as the bound is, take over an hour and 14 GB: docs/benchmarks.md has
	// the command.
	const natives, entries = 100, 10_000
	length := time.Duration(scaled(60, scale, 20)) * time.Second
	t.part("%d natives that follow each other, %s indexers that are renewed in process, %v: simulated network", natives, thousands(entries), length)
	began, file := time.Now(), filepath.Join(b.TempDir(), "profile")
	cmd := exec.Command(os.Args[0], "-test.run=^TestSimALargeNetwork$", "-test.v", "-seed=3", "-test.timeout=30m",
		"-large-profile="+file, fmt.Sprint("-large-natives=", natives), fmt.Sprint("-large-entries=", entries), fmt.Sprint("-large-time=", length))
	out, err := cmd.CombinedOutput()
	said := largeLine.FindSubmatch(out)
	if err != nil || said == nil {
		b.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	var n [8]float64
	for i := range n {
		if n[i], err = strconv.ParseFloat(string(said[i+1]), 64); err != nil {
			b.Fatal(err)
		}
	}
	t.atMost(fmt.Sprintf("%d natives, %s indexers: an entry missing anywhere, of %s samples", natives, thousands(entries), thousands(n[3])), n[4], 0, thousands)
	t.row("the same: a join until all list it, p50", unit("ms", 0)(n[5]/1e6), "")
	t.atMost("the same, p99", n[6]/1e6, 1000, unit("ms", 0))
	t.ofScale(5, 3)
	t.row("CPU a renewal, summed over all natives, with all that they do beside", unit("ms", 2)(n[2]/1e6/n[1]), thousands(n[1])+" renewals")
	t.row("heap in use, all natives", unit("GB", 2)(n[7]/(1<<30)), fmt.Sprintf("%s follows; it took %v", thousands(n[0]), time.Since(began).Round(time.Second)))
	t.note("Its CPU by layer: %s", sharesOf(b, file))
}

// sharesOf is what a profile in a file says of the layers.
func sharesOf(b *testing.B, file string) string {
	b.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	p, err := profile.ParseData(data)
	if err != nil {
		b.Fatal(err)
	}
	return shares(p)
}
