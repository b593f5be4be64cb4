package modules_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

// What it costs to ask a native and to follow it.

// benchNode is a native in this process, over TCP on loopback.
func benchNode(b *testing.B, on, bootstrap string, add ...modules.Module) *modules.Node {
	b.Helper()
	settings := map[string]string{
		"modules": on, "data.dir": b.TempDir(), "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0", "host.bootstrap": bootstrap,
		"limits.registrations": "0", // a few clients ask as often as they can
	}
	plan, err := planOf(b, settings, add...)
	if err != nil {
		b.Fatal(err)
	}
	node, err := modules.New(plan, modules.Environment{})
	if err != nil {
		b.Fatal(err)
	}
	if err := node.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stop(b, node) })
	return node
}

// asking is a native as a program sees it that has a host of its own.
func asking(b *testing.B, h host.Host, to peer.AddrInfo) ports.RemoteNative {
	b.Helper()
	t, err := stream.New(h, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(t.Close)
	addrs, err := peer.AddrInfoToP2pAddrs(&to)
	if err != nil {
		b.Fatal(err)
	}
	native, err := t.Native(ports.PeerID(to.ID.String()), []string{addrs[0].String()})
	if err != nil {
		b.Fatal(err)
	}
	return native
}

// tableOfWatches measures look-ups and watches.
func tableOfWatches(b *testing.B, t *table, scale float64) {
	t.part("Asking a native, and watching it")
	benchLookUp(b, t, scale)
	benchSeenElsewhere(b, t, scale)
	benchSnapshot(b, t)
	benchWatchers(b, t, scale)
}

// benchLookUp sets a look-up of who is held beside an echo of the same bytes, in turns.
func benchLookUp(b *testing.B, t *table, scale float64) {
	list := contenders(b)
	held := benchClient(b)
	if err := held.Connect(b.Context(), list[0].at); err != nil {
		b.Fatal(err)
	}
	if _, err := ask(b.Context(), held, list[0].at.ID, ports.SubscribeProtocol, benchFrame(held)); err != nil {
		b.Fatal(err)
	}
	frame := fmt.Sprintf(`{"PeerID":"%s"}`+"\n", held.ID())
	answer, err := ask(b.Context(), held, list[0].at.ID, ports.LookupProtocol, frame)
	if err != nil || !strings.HasPrefix(answer, `{"PeerID":`) {
		b.Fatalf("the look-up is answered %q: %v", answer, err)
	}
	lookUp := list[0]
	lookUp.name, lookUp.protocol, lookUp.frame, lookUp.answer = "look-up", ports.LookupProtocol, frame, `{"PeerID":`
	echo := list[1]
	echo.protocol, echo.frame, echo.answer = "/echo/lookup", frame, answer
	echo.host.SetStreamHandler(echo.protocol, func(s network.Stream) {
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		frame, err := bufio.NewReader(s).ReadSlice('\n')
		if err == nil && len(frame) > 0 {
			_, err = io.WriteString(s, answer)
		}
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})
	two := []contender{lookUp, echo}
	for _, s := range shapes[:2] {
		clients := s.clients(b, two)
		p50s, cpus := make([][]float64, 2), make([][]float64, 2)
		for round := range scaled(15, scale, 3) + 1 { // the first warms up
			for turn := range two {
				i := (round + turn) % 2
				p50, each := s.batch(b, clients, two[i], s.requests)
				if round > 0 {
					p50s[i], cpus[i] = append(p50s[i], float64(p50)), append(cpus[i], float64(each))
				}
			}
		}
		us := func(ns []float64) string { return unit("µs", 1)(median(ns) / 1e3) }
		cpuRatio, p50Ratio := median(ratios(cpus[0], cpus[1])), median(ratios(p50s[0], p50s[1]))
		verdict := "within"
		if max(cpuRatio, p50Ratio) > 1.15 {
			verdict = "OVER"
		}
		t.last().rows = append(t.last().rows, tableRow{
			what:     s.name + " at once: look-up of who is held, beside an echo of the same bytes on the native's own host",
			measured: us(cpus[0]) + " CPU, p50 " + us(p50s[0]), bound: "≤ 1.15x", verdict: fmt.Sprintf("%s (%.2fx CPU, %.2fx p50)", verdict, cpuRatio, p50Ratio),
		})
		for _, h := range clients {
			_ = h.Close()
		}
	}
}

// benchSeenElsewhere has a watcher of one native wait for who joins at another. There are three
// natives, a process each.
func benchSeenElsewhere(b *testing.B, t *table, scale float64) {
	all := startNatives(b, "native,dht,gossip")
	watched, joined := all[2], all[1]
	client := benchClient(b)
	native := asking(b, client, watched.info)
	ctx, cancel := context.WithCancel(b.Context())
	seen := make(chan ports.PeerID, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		for batch, err := range native.Watch(ctx, ports.PeerID(client.ID().String()), ports.WatchRequest{}) {
			if err != nil {
				return
			}
			for _, c := range batch.Changes {
				if c.Kind == ports.ChangeJoined {
					select {
					case seen <- c.PeerID:
					case <-ctx.Done():
						return
					}
				}
			}
		}
	})
	benchUntil(b, "the natives follow each other", func() bool {
		return all.states().Following == wholeNatives*(wholeNatives-1)
	})
	var took []float64
	for i := range scaled(300, scale, 100) + 1 { // the first warms up
		joiner := benchClient(b)
		if err := joiner.Connect(ctx, joined.info); err != nil {
			b.Fatal(err)
		}
		time.Sleep(10*time.Millisecond + time.Duration(rand.Int64N(int64(20*time.Millisecond))))
		began := time.Now()
		answer, err := ask(ctx, joiner, joined.info.ID, ports.SubscribeProtocol, benchFrame(joiner))
		if err != nil || !strings.HasPrefix(answer, `{"OK":true,`) {
			b.Fatalf("answer %q: %v", answer, err)
		}
		select {
		case got := <-seen:
			if want := ports.PeerID(joiner.ID().String()); got != want {
				b.Fatalf("seen is %s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			b.Fatal("a join is not seen")
		}
		if i > 0 {
			took = append(took, time.Since(began).Seconds()*1e3)
		}
		_ = joiner.Close()
	}
	slices.Sort(took)
	t.atMost("a join at one native of three, processes on loopback, seen by a watch of another, p50", median(took), 2, unit("ms", 2))
	t.atMost("the same, p99", took[len(took)*99/100], 8, unit("ms", 2))
	t.ofScale(11, 2)
}

func benchUntil(b *testing.B, what string, ok func() bool) {
	b.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatalf("not within 20 s: %s", what)
		}
	}
}

// benchSnapshot has one watcher take over a large table.
func benchSnapshot(b *testing.B, t *table) {
	const entries = 100_000
	node := benchNode(b, "native", "")
	for i := range entries {
		id := ports.PeerID(fmt.Sprintf("12D3KooWxoi8cQQBRsHz4uAB1B7e5dGE3nDP1Rh1zqt4%08d", i))
		reg := ports.Registration{PeerID: id, Addr: fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", i>>16&255, i>>8&255, i&255)}
		if _, err := node.Registry().Register(b.Context(), id, reg); err != nil {
			b.Fatal(err)
		}
	}
	h := benchClient(b)
	info, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	if err := h.Connect(b.Context(), *info); err != nil {
		b.Fatal(err)
	}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	before := heap()
	began := time.Now()
	s, err := h.NewStream(b.Context(), info.ID, ports.WatchProtocol)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.WriteString(s, "{}\n"); err != nil {
		b.Fatal(err)
	}
	// The reader reads and counts: what a program makes of it is its own affair.
	lines := bufio.NewReaderSize(s, 2*ports.MaxBatchBytes)
	got, most := 0, 0.0
	for frame := 0; ; frame++ {
		line, err := lines.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		got += strings.Count(line, `"Kind":"snapshot"`)
		if frame == 100 || frame == 300 {
			most = max(most, heap())
		}
		if strings.Contains(line, `"Cursor":`) {
			break
		}
	}
	took := time.Since(began)
	_ = s.Reset()
	if got != entries {
		b.Fatalf("the snapshot has %d entries, want %d", got, entries)
	}
	t.atMost("snapshot of 100,000 entries to one watcher over TCP", took.Seconds(), 2, unit("s", 2))
	t.atMost("the same, memory in use half-way beyond that before, both sides", max(most-before, 0), 8, unit("MB", 1))
}

// benchWatchers registers at a steady rate, at first without any watcher and then with
// many, and holds each watcher to have been told of everything.
func benchWatchers(b *testing.B, t *table, scale float64) {
	const inProcess, remote, rate, indexers = 1000, 100, 1000, 200
	node := benchNode(b, "native", "")
	hosts := make([]host.Host, 16)
	for i := range hosts {
		hosts[i] = benchClient(b)
	}
	ids := strangers(b, indexers)
	length := time.Duration(scale * 5 * float64(time.Second))
	info, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	prober := benchClient(b)
	for _, h := range append(hosts, prober) {
		if err := h.Connect(b.Context(), *info); err != nil {
			b.Fatal(err)
		}
	}
	changes := 0
	// load changes an entry at each tick, another address each time, and registers over a
	// stream beside that, a tenth as often. It returns how long each took, in order.
	load := func() (inside, over []float64) {
		ctx, cancel := context.WithTimeout(b.Context(), length)
		defer cancel()
		var probing sync.WaitGroup
		probing.Go(func() {
			for tick := time.NewTicker(10 * time.Second / rate); ctx.Err() == nil; <-tick.C {
				began := time.Now()
				if _, err := ask(b.Context(), prober, info.ID, ports.SubscribeProtocol, benchFrame(prober)); err != nil {
					b.Error(err)
					return
				}
				over = append(over, time.Since(began).Seconds()*1e6)
			}
		})
		for began, n := time.Now(), 1; ctx.Err() == nil; n++ {
			time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / rate)))
			changes++
			id := ids[changes%indexers]
			reg := ports.Registration{PeerID: id, Addr: fmt.Sprintf("/ip4/10.0.%d.%d/tcp/4001", changes>>8&255, changes&255)}
			began := time.Now()
			if _, err := node.Registry().Register(b.Context(), id, reg); err != nil {
				b.Fatal(err)
			}
			inside = append(inside, time.Since(began).Seconds()*1e6)
		}
		probing.Wait()
		slices.Sort(inside)
		slices.Sort(over)
		return inside, over
	}
	load() // warms up
	aloneInside, aloneOver := load()

	ctx, cancel := context.WithCancel(b.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	told := make([]atomic.Int64, inProcess+remote)
	var whole atomic.Int64
	watch := func(i int, native ports.Native) {
		for batch, err := range native.Watch(ctx, "", ports.WatchRequest{}) {
			if err != nil {
				if ctx.Err() == nil {
					b.Errorf("watcher %d: %v", i, err)
				}
				return
			}
			for _, c := range batch.Changes {
				if c.Kind == ports.ChangeUpdated {
					told[i].Add(1)
				}
			}
			if batch.Cursor != "" && whole.Load() < inProcess+remote {
				whole.Add(1)
			}
		}
	}
	for i := range inProcess {
		watching.Go(func() { watch(i, node.Registry()) })
	}
	// Those over TCP count what they read and no more: what they make of it costs somebody
	// else's processor.
	for i := range remote {
		watching.Go(func() {
			s, err := hosts[i%len(hosts)].NewStream(ctx, info.ID, ports.WatchProtocol)
			if err != nil {
				b.Error(err)
				return
			}
			defer s.Reset()
			defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
			_, _ = io.WriteString(s, "{}\n")
			for lines := bufio.NewReaderSize(s, 2*ports.MaxBatchBytes); ; {
				line, err := lines.ReadSlice('\n')
				if err != nil {
					if ctx.Err() == nil {
						b.Errorf("watcher %d: %v", inProcess+i, err)
					}
					return
				}
				told[inProcess+i].Add(int64(bytes.Count(line, []byte(`"Kind":"updated"`))))
				if bytes.Contains(line, []byte(`"Cursor":`)) && whole.Load() < inProcess+remote {
					whole.Add(1)
				}
			}
		})
	}
	benchUntil(b, "all watch", func() bool { return whole.Load() >= inProcess+remote })
	from := changes
	spent := cpu()
	besideInside, besideOver := load()
	spent = cpu() - spent
	want := int64(changes - from)
	benchUntil(b, "all are told of everything", func() bool {
		for i := range told {
			if told[i].Load() < want {
				return false
			}
		}
		return true
	})
	p99 := func(sorted []float64) float64 { return sorted[len(sorted)*99/100] }
	t.row("1,000 watchers in process and 100 over TCP, at 1,000 changes a second", fmt.Sprintf("%s changes, all of them told to each", thousands(float64(want))), fmt.Sprintf("%.2f cores in use, watchers included", spent.Seconds()/length.Seconds()))
	t.row("a registration over a stream beside them, p99, before anybody watched", unit("µs", 0)(p99(aloneOver)), "")
	t.atMost("the same, with all watchers", p99(besideOver), 2*p99(aloneOver), unit("µs", 0))
	t.row("the registry's own part of it, p99, before and with them", unit("µs", 0)(p99(aloneInside))+", "+unit("µs", 0)(p99(besideInside)), "")
}
