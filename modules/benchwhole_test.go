package modules_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

// What a heartbeat costs in all: three natives, each a process of its own, and a load
// of indexers in this one, which does not count.

const (
	wholeNatives = 3
	// wholeIndexers renew once a second each.
	wholeIndexers = 200
	// newcomersPerSecond are fresh identities, each with a connection of its own.
	newcomersPerSecond = 50
	// wholeHeartbeat makes the shortest time between two puts of an entry 0.8 s, so that
	// each of these renewals is put and announced, as each is at the default of 60 s.
	wholeHeartbeat = 4800 * time.Millisecond
)

// deaf behind the modules of natives has them follow nobody.
const deaf = " alone"

var benchNative = flag.String("bench-native", "", "JSON of the settings that BenchmarkNative runs a native with")

// BenchmarkNative is the other end of a nativeProcess: a native and nothing else, which
// answers each line of its standard input with one on descriptor 3, and ends with its
// standard input.
func BenchmarkNative(b *testing.B) {
	if *benchNative == "" {
		b.Skip("BenchmarkTable runs this, in a process of its own")
	}
	settings := make(map[string]string)
	if err := json.Unmarshal([]byte(*benchNative), &settings); err != nil {
		b.Fatal(err)
	}
	var seen counts
	env := modules.Environment{Log: os.Stderr, Observers: []ports.Observer{&seen}}
	names, alone := strings.CutSuffix(settings["modules"], deaf)
	if settings["modules"] = names; alone {
		env.Options = append(env.Options, followsNobody())
	}
	node := newNode(b, settings, env)
	if err := node.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer stop(b, node)

	answers := json.NewEncoder(os.NewFile(3, "answers"))
	var profiling bytes.Buffer
	asked := bufio.NewScanner(os.Stdin)
	for more := true; more; more = asked.Scan() { // the first answer is to nobody: it is up
		live, _ := node.Registry().Counts()
		state := nativeState{
			Addrs: node.Addrs(), CPU: cpu(), Live: int64(live), Waiting: int64(node.Registry().Waiting()),
			Registered: seen.registered.Load(), Put: seen.put.Load(), Replicas: seen.replicas.Load(),
			Announced: seen.announced.Load(), Heard: seen.heard.Load(), Following: int64(node.Registry().Following()),
			Followed: time.Duration(seen.followed.Load()), Memory: memoryInUse(),
		}
		what, number, _ := strings.Cut(asked.Text(), " ")
		switch what {
		case "fill":
			n, err := strconv.Atoi(number)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, node, n)
			live, _ := node.Registry().Counts()
			state.Live, state.CPU = int64(live), cpu()
		case "burn":
			n, err := strconv.Atoi(number)
			if err != nil {
				b.Fatal(err)
			}
			burn(time.Duration(n) * time.Millisecond)
		case "profile":
			if err := pprof.StartCPUProfile(&profiling); err != nil {
				b.Fatal(err)
			}
		case "profiled":
			pprof.StopCPUProfile()
			state.Profile = base64.StdEncoding.EncodeToString(profiling.Bytes())
		}
		if err := answers.Encode(state); err != nil {
			b.Fatal(err)
		}
	}
}

// burn keeps all processors busy.
func burn(length time.Duration) {
	until := time.Now().Add(length)
	var burning sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		burning.Go(func() {
			for time.Now().Before(until) {
			}
		})
	}
	burning.Wait()
}

// counts counts what a native does.
type counts struct {
	registered, put, replicas, announced, heard atomic.Int64
	followed                                    atomic.Int64 // how long the last takeover took
}

// Observe implements ports.Observer.
func (c *counts) Observe(e ports.Event) {
	switch {
	case e.Kind == ports.EventRegistered:
		c.registered.Add(1)
	case e.Kind == ports.EventPut && e.Err == nil:
		c.put.Add(1)
		c.replicas.Add(int64(e.Replicas))
	case e.Kind == ports.EventAnnounced && e.Err == nil:
		c.announced.Add(1)
	case e.Kind == ports.EventHeard:
		c.heard.Add(1)
	case e.Kind == ports.EventFollowing:
		c.followed.Store(int64(e.Took))
	}
}

// nativeState is what a native says of itself, or the sum of what several say.
type nativeState struct {
	Addrs                                                                 []string
	CPU                                                                   time.Duration
	Live, Waiting, Registered, Put, Replicas, Announced, Heard, Following int64
	Followed                                                              time.Duration // how long its last takeover took
	Memory                                                                int64         // resident, in bytes
	Profile                                                               string        `json:",omitempty"`
}

func (s *nativeState) add(t nativeState, sign int64) {
	s.CPU += t.CPU * time.Duration(sign)
	for _, sum := range []struct{ of, by *int64 }{
		{&s.Live, &t.Live}, {&s.Waiting, &t.Waiting}, {&s.Registered, &t.Registered}, {&s.Put, &t.Put},
		{&s.Replicas, &t.Replicas}, {&s.Announced, &t.Announced}, {&s.Heard, &t.Heard}, {&s.Following, &t.Following},
	} {
		*sum.of += *sum.by * sign
	}
}

// nativeProcess is a native in a process of its own: this test's binary, running
// BenchmarkNative.
type nativeProcess struct {
	b       *testing.B
	in      io.WriteCloser
	answers *json.Decoder
	info    peer.AddrInfo
}

func startNative(b *testing.B, settings map[string]string) *nativeProcess {
	b.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkNative$", "-test.benchtime=1x", "-bench-native="+string(text))
	out, answers, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr, cmd.ExtraFiles = &log, []*os.File{answers}
	p := &nativeProcess{b: b, answers: json.NewDecoder(out)}
	if p.in, err = cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_ = answers.Close()
	b.Cleanup(func() {
		_ = p.in.Close()
		if err := cmd.Wait(); err != nil || b.Failed() {
			b.Errorf("%s: %v\n%s", cmd, err, log.String())
		}
		_ = out.Close()
	})
	info, err := peer.AddrInfoFromString(p.answer().Addrs[0])
	if err != nil {
		b.Fatal(err)
	}
	p.info = *info
	return p
}

func (p *nativeProcess) answer() (state nativeState) {
	p.b.Helper()
	if err := p.answers.Decode(&state); err != nil {
		p.b.Fatalf("a native does not answer: %v", err)
	}
	return state
}

func (p *nativeProcess) ask(what string) nativeState {
	p.b.Helper()
	if _, err := io.WriteString(p.in, what+"\n"); err != nil {
		p.b.Fatal(err)
	}
	return p.answer()
}

// natives are the three, joined.
type natives []*nativeProcess

func startNatives(b *testing.B, on string) natives {
	var all natives
	for range wholeNatives {
		settings := map[string]string{
			"modules": on, "data.dir": b.TempDir(), "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0",
			"registry.heartbeat": wholeHeartbeat.String(),
		}
		if len(all) > 0 {
			addrs, _ := peer.AddrInfoToP2pAddrs(&all[0].info)
			settings["host.bootstrap"] = addrs[0].String()
		}
		all = append(all, startNative(b, settings))
	}
	return all
}

// states is the sum of what all natives say.
func (all natives) states() (sum nativeState) {
	for _, n := range all {
		sum.add(n.ask("state"), 1)
	}
	return sum
}

// quiet waits until nothing waits to be put, and no more is heard of what was announced.
func (all natives) quiet(b *testing.B) nativeState {
	b.Helper()
	const still = 200 * time.Millisecond
	last := all.states()
	for end := time.Now().Add(20 * time.Second); ; {
		time.Sleep(still)
		now := all.states()
		if now.Waiting == 0 && now.Heard == last.Heard && now.Put == last.Put {
			return now
		}
		if time.Now().After(end) {
			b.Fatalf("the natives do not come to rest: %d wait", now.Waiting)
		}
		last = now
	}
}

// paced calls f so often a second, n times in all, each in a goroutine of its own.
func paced(perSecond, n int, f func(i int)) {
	began := time.Now()
	var running sync.WaitGroup
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Second * time.Duration(i) / time.Duration(perSecond))))
		running.Go(func() { f(i) })
	}
	running.Wait()
}

// wholeCost is what the natives' CPU came to under one composition.
type wholeCost struct {
	idle          float64       // of one core
	renewal, join time.Duration // above idle, of all natives
	renewals      nativeState   // what the natives did meanwhile
	renewed       int64
	p50           time.Duration
	layers        string
}

// wholeCostOf measures three natives that run the modules on.
func wholeCostOf(b *testing.B, on string, scale float64, profile bool) (cost wholeCost) {
	b.Helper()
	ok := b.Run(strings.ReplaceAll(on, ",", "+"), func(b *testing.B) { cost = measureWhole(b, on, scale, profile) })
	if !ok {
		b.FailNow()
	}
	return cost
}

func measureWhole(b *testing.B, on string, scale float64, profile bool) (cost wholeCost) {
	l := startLoad(b, on)
	idle, took := l.spent(func() { time.Sleep(time.Duration(3 * scale * float64(time.Second))) })
	cost.idle = idle.CPU.Seconds() / took.Seconds()
	above := func(s nativeState, took time.Duration, n int) time.Duration {
		return (s.CPU - time.Duration(cost.idle*float64(took))) / time.Duration(n)
	}

	renewals := scaled(6, scale, 2) * wholeIndexers
	var waited []time.Duration
	cost.renewals, took = l.spent(func() { waited = l.renew(renewals) })
	cost.renewal = above(cost.renewals, took, renewals)
	cost.renewed = int64(renewals)
	slices.Sort(waited)
	cost.p50 = waited[renewals/2]

	newcomers := scaled(4, scale, 2) * newcomersPerSecond
	joined, took := l.spent(func() { paced(newcomersPerSecond, newcomers, func(i int) { l.join(i) }) })
	cost.join = above(joined, took, newcomers)
	if strings.Contains(on, "dht") && strings.Contains(on, "gossip") {
		if live, want := l.states().Live, int64(wholeNatives*(wholeIndexers+newcomers)); live != want {
			b.Fatalf("the natives list %d entries in all, want every indexer at each, %d", live, want)
		}
	}
	if profile {
		for _, n := range l.natives {
			n.ask("profile")
		}
		l.spent(func() { l.renew(renewals) })
		cost.layers = shares(l.profiles())
	}
	return cost
}

// wholeLoad is three natives and the indexers that renew there.
type wholeLoad struct {
	natives
	b        *testing.B
	indexers []host.Host
}

func startLoad(b *testing.B, on string) *wholeLoad {
	l := &wholeLoad{natives: startNatives(b, on), b: b, indexers: make([]host.Host, wholeIndexers)}
	paced(100, wholeIndexers, func(i int) { l.indexers[i] = l.join(i) })
	return l
}

func (l *wholeLoad) register(h host.Host, n *nativeProcess) {
	answer, err := ask(l.b.Context(), h, n.info.ID, ports.SubscribeProtocol, benchFrame(h))
	if err != nil || !strings.HasPrefix(answer, `{"OK":true,`) {
		l.b.Errorf("answer %q: %v", answer, err)
	}
}

// join registers a new indexer with the i-th native, in turns.
func (l *wholeLoad) join(i int) host.Host {
	h := benchClient(l.b)
	ctx, cancel := context.WithTimeout(l.b.Context(), 10*time.Second)
	defer cancel()
	n := l.natives[i%len(l.natives)]
	if err := h.Connect(ctx, n.info); err != nil { // a new host has no back-off
		l.b.Errorf("connect: %v", err)
	}
	l.register(h, n)
	return h
}

// renew has the indexers renew once a second each, n times in all, and returns how long each waited.
func (l *wholeLoad) renew(n int) (waited []time.Duration) {
	waited = make([]time.Duration, n)
	paced(wholeIndexers, n, func(i int) {
		began := time.Now()
		l.register(l.indexers[i%wholeIndexers], l.natives[i%wholeIndexers%len(l.natives)])
		waited[i] = time.Since(began)
	})
	return waited
}

// spent is what f costs the natives, until its consequences have come.
func (l *wholeLoad) spent(f func()) (nativeState, time.Duration) {
	before, began := l.quiet(l.b), time.Now()
	f()
	after, took := l.quiet(l.b), time.Since(began)
	if l.b.Failed() {
		l.b.FailNow()
	}
	after.add(before, -1)
	return after, took
}

// benchRenewals sets a renewal at natives that run all modules beside its stream and table alone. Both
// kinds of natives run at once and have the load in turns, so that whatever else the machine does meets
// both. A ratio is the median of the rounds' ratios.
func benchRenewals(b *testing.B, t *table, scale float64, alone, whole string) {
	loads := []*wholeLoad{startLoad(b, whole), startLoad(b, alone)}
	idle := make([]float64, len(loads)) // of one core
	const pause = 3 * time.Second
	began := make([]nativeState, len(loads))
	for i, l := range loads {
		began[i] = l.quiet(b)
	}
	time.Sleep(pause)
	for i, l := range loads {
		s := l.states()
		s.add(began[i], -1)
		idle[i] = s.CPU.Seconds() / pause.Seconds()
	}
	costs := make([][]float64, len(loads))
	for round := range scaled(7, scale, 3) {
		for turn := range loads {
			i := (round + turn) % len(loads)
			const renewals = 2 * wholeIndexers
			s, took := loads[i].spent(func() { loads[i].renew(renewals) })
			costs[i] = append(costs[i], (s.CPU.Seconds()-idle[i]*took.Seconds())*1e6/renewals)
		}
	}
	ratio := median(ratios(costs[0], costs[1]))
	us := unit("µs", 0)
	t.atMost(fmt.Sprintf("renewal, all modules on, beside its stream and table alone: %s and %s of CPU, in turns", us(median(costs[0])), us(median(costs[1]))),
		ratio, 1.3, unit("x", 2))
	t.ofScale(1, 1)
}

// profiles is the sum of the natives' profiles.
func (all natives) profiles() *profile.Profile {
	var each []*profile.Profile
	for _, n := range all {
		data, err := base64.StdEncoding.DecodeString(n.ask("profiled").Profile)
		if err != nil {
			n.b.Fatal(err)
		}
		p, err := profile.ParseData(data)
		if err != nil {
			n.b.Fatal(err)
		}
		each = append(each, p)
	}
	sum, err := profile.Merge(each)
	if err != nil {
		all[0].b.Fatal(err)
	}
	return sum
}

// tableOfWhole splits the cost of a heartbeat by leaving modules out.
func tableOfWhole(b *testing.B, t *table, scale float64) {
	const bare, dht, gossip, whole = "native", "native,dht", "native,gossip", "native,dht,gossip"
	costs := make(map[string]wholeCost)
	for _, on := range []string{bare + deaf, bare, dht, gossip, whole, whole + deaf} {
		costs[on] = wholeCostOf(b, on, scale, on == whole)
	}
	t.part("All of a heartbeat: CPU summed over %d natives, a process each; %d renewals and, apart from them, %d new indexers a second",
		wholeNatives, wholeIndexers, newcomersPerSecond)
	us := func(d time.Duration) string { return unit("µs", 0)(float64(d.Nanoseconds()) / 1e3) }
	benchRenewals(b, t, scale, bare+deaf, whole)
	split := func(what string, of func(wholeCost) time.Duration) {
		all := of(costs[whole])
		t.row(what+", in all", us(all), "")
		for _, p := range []struct {
			name string
			cost time.Duration
		}{
			{"stream and table (native alone, which follows nobody)", of(costs[bare+deaf])},
			{"watches (following added to that)", of(costs[bare]) - of(costs[bare+deaf])},
			{"DHT put (dht added to both)", of(costs[dht]) - of(costs[bare])},
			{"gossip (gossip added to all)", all - of(costs[dht])},
			{"gossip alone (added to native without dht)", of(costs[gossip]) - of(costs[bare])},
		} {
			t.row("· "+p.name, us(p.cost), fmt.Sprintf("%.0f %%", 100*float64(p.cost)/float64(all)))
		}
	}
	split("renewal on an open connection", func(c wholeCost) time.Duration { return c.renewal })
	split("new indexer: dial, handshake, registration", func(c wholeCost) time.Duration { return c.join })
	t.row("renewal at natives that follow nobody, as the seed's: put and announced each time", us(costs[whole+deaf].renewal), "")
	const others, of20 = wholeNatives - 1, 19
	watches := float64(costs[bare].renewal-costs[bare+deaf].renewal) / 1e6 * of20 / others
	perNative := wholeIndexers / wholeNatives
	t.atMost(fmt.Sprintf("a renewal's watches if 20 natives followed each other: %d renewals a second and native, as of %s indexers", perNative,
		thousands(float64(perNative)*20*renewEvery.Seconds())), watches, 0.2, unit("ms", 3))
	w := costs[whole]
	per := func(n int64) string { return fmt.Sprintf("%.2f", float64(n)/float64(w.renewed)) }
	t.row("a renewal's puts, copies elsewhere, announcements, hearings",
		per(w.renewals.Put)+", "+per(w.renewals.Replicas)+", "+per(w.renewals.Announced)+", "+per(w.renewals.Heard), "0 each among natives that follow each other; 1, 2, 1, 2 else")
	t.row("answer to a renewal under that load, p50", us(w.p50), "")
	t.row(fmt.Sprintf("the %d natives idle, %d leases held", wholeNatives, wholeIndexers), fmt.Sprintf("%.1f %% of a core", 100*w.idle), "")
	t.note("Split by ablation: the same load with modules left out, idle CPU of the same composition subtracted, so the last line of a split is no part of its sum. registry.heartbeat is %v, so that a renewal a second is put and announced each time.", wholeHeartbeat)
	t.note("A renewal's CPU by layer, all modules on: %s", w.layers)
}
