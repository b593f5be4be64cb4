package modules_test

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

// What it costs a native to take over another's table of signed entries.

const (
	// takeoverEntries are taken over at -benchtime 1s. A million are as many times as much.
	takeoverEntries = 100_000
	// takeoverTTL is longer than it takes to fill a table.
	takeoverTTL = 30 * time.Minute
	// takeoverStep is the tick of each entry: half of an hour of heartbeats, since a native that takes an
	// entry over hashes from the anchor to it.
	takeoverStep     = 30
	takeoverInterval = 57 * time.Second
	// besideTakeover is how many heartbeats a second the native answers meanwhile.
	besideTakeover = 100
)

// tableOfTakeover has a native take over another's table, each in a process of its own.
func tableOfTakeover(b *testing.B, t *table, scale float64) {
	t.part("A table of signed entries, taken over from another native over TCP")
	n := scaled(takeoverEntries, scale, 5_000)
	cost := takeoverOf(b, n)
	million := func(d time.Duration) float64 { return d.Seconds() * 1e6 / float64(n) }
	t.atMost(fmt.Sprintf("a million entries, from a takeover of %s in %v", thousands(float64(n)), cost.took.Round(10*time.Millisecond)), million(cost.took), 20, unit("s", 1))
	t.ofScale(9, 1)
	t.row("its CPU: the native that takes it over", unit("s", 1)(million(cost.receiver)), "")
	t.row("its CPU: the native that tells", unit("s", 1)(million(cost.teller)), "")
	beside, after := percentile(cost.beside, 99), percentile(cost.after, 99)
	verdict := "within"
	if beside > 2*after {
		verdict = "OVER"
	}
	t.bounded("heartbeats beside it, p99", unit("ms", 1)(beside), "≤ 2x of those after it", beside/after, verdict)
	t.ofScale(9, 1)
	t.row("the same, p50", unit("ms", 1)(percentile(cost.beside, 50)), "after it: p50 "+unit("ms", 1)(percentile(cost.after, 50))+", p99 "+unit("ms", 1)(after))
	t.row("the same beside a process that keeps all processors busy and asks nothing of the native", "p50 "+unit("ms", 1)(percentile(cost.burnt, 50))+", p99 "+unit("ms", 1)(percentile(cost.burnt, 99)), "what the kernel alone adds")
}

var takeoverProfile = flag.String("takeover-profile", "", "where BenchmarkTakeover writes the CPU profile of the native that takes over, and with .teller behind it that of the other")

// BenchmarkTakeover is that alone, to profile it.
func BenchmarkTakeover(b *testing.B) {
	n := scaled(takeoverEntries, benchScale(b), 5_000)
	cost := takeoverOf(b, n)
	b.Logf("%d entries in %v; CPU %v of the native that takes over, %v of the other; heartbeats p50 %.1f ms, p99 %.1f ms, after it %.1f and %.1f ms, beside a busy process %.1f and %.1f ms", n, cost.took, cost.receiver, cost.teller,
		percentile(cost.beside, 50), percentile(cost.beside, 99), percentile(cost.after, 50), percentile(cost.after, 99),
		percentile(cost.burnt, 50), percentile(cost.burnt, 99))
	if *takeoverProfile != "" {
		for name, profile := range map[string][]byte{*takeoverProfile: cost.profile, *takeoverProfile + ".teller": cost.tellerProfile} {
			if err := os.WriteFile(name, profile, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
}

type takeoverCost struct {
	took, receiver, teller time.Duration
	// How long heartbeats took, in ms: beside the takeover, after it, and beside a process that does
	// nothing for the native but keeps all processors busy.
	beside, after, burnt   []float64
	profile, tellerProfile []byte // of both
}

func takeoverOf(b *testing.B, n int) (cost takeoverCost) {
	b.Helper()
	settings := func(bootstrap string) map[string]string {
		return map[string]string{
			"modules": "native", "data.dir": b.TempDir(), "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0", "host.bootstrap": bootstrap,
			"registry.ttl": takeoverTTL.String(), "registry.heartbeat": (takeoverTTL - time.Minute).String(), "limits.registrations": "0",
		}
	}
	teller := startNative(b, settings(""))
	filled := teller.ask("fill " + strconv.Itoa(n))
	if filled.Live != int64(n) {
		b.Fatalf("%d entries, want %d", filled.Live, n)
	}
	addrs, _ := peer.AddrInfoToP2pAddrs(&teller.info)
	receiver := startNative(b, settings(addrs[0].String()))
	began := receiver.ask("profile")
	filled = teller.ask("profile")
	clients := make([]host.Host, 16)
	for i := range clients {
		clients[i] = benchClient(b)
		if err := clients[i].Connect(b.Context(), receiver.info); err != nil {
			b.Fatal(err)
		}
	}
	var mu sync.Mutex
	beats := func(until func() bool) (took []float64) {
		var beating sync.WaitGroup
		for at := 0; !until(); at++ {
			h := clients[at%len(clients)]
			beating.Go(func() {
				ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				if _, err := ask(ctx, h, receiver.info.ID, ports.SubscribeProtocol, benchFrame(h)); err != nil {
					b.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(began).Seconds()*1e3)
			})
			time.Sleep(time.Second / besideTakeover)
		}
		beating.Wait()
		return took
	}
	var is nativeState
	looked := time.Now()
	end := time.Now().Add(5 * time.Minute)
	cost.beside = beats(func() bool {
		if time.Since(looked) < 100*time.Millisecond {
			return false
		}
		looked, is = time.Now(), receiver.ask("state")
		if time.Now().After(end) {
			b.Fatalf("%d of %d entries are taken over", is.Live, n)
		}
		return is.Followed > 0
	})
	told, profiled := teller.ask("profiled"), receiver.ask("profiled")
	if is.Live < int64(n) {
		b.Fatalf("%d of %d entries are taken over", is.Live, n)
	}
	cost.took, cost.receiver, cost.teller = is.Followed, is.CPU-began.CPU, told.CPU-filled.CPU
	var err error
	if cost.profile, err = base64.StdEncoding.DecodeString(profiled.Profile); err != nil {
		b.Fatal(err)
	}
	if cost.tellerProfile, err = base64.StdEncoding.DecodeString(told.Profile); err != nil {
		b.Fatal(err)
	}
	last := time.Now().Add(3 * time.Second)
	cost.after = beats(func() bool { return time.Now().After(last) })
	var burning sync.WaitGroup
	burning.Go(func() { teller.ask("burn 3000") })
	last = time.Now().Add(2900 * time.Millisecond)
	cost.burnt = beats(func() bool { return time.Now().After(last) })
	burning.Wait()
	return cost
}

func percentile(ms []float64, p int) float64 {
	if len(ms) == 0 {
		return 0
	}
	slices.Sort(ms)
	return ms[len(ms)*p/100]
}

// fill grants n signed entries, as of indexers that have renewed for half an hour.
func fill(b *testing.B, node *modules.Node, n int) {
	var filling sync.WaitGroup
	each := runtime.GOMAXPROCS(0)
	for from := range each {
		filling.Go(func() {
			for i := from; i < n; i += each {
				reg, err := benchSigned(i)
				if err == nil {
					_, err = node.Registry().Register(b.Context(), reg.PeerID, reg)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	filling.Wait()
}

// benchSigned returns the registration of a new indexer, with its tick of takeoverStep.
func benchSigned(i int) (reg ports.Registration, err error) {
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return reg, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return reg, err
	}
	signer, err := proof.NewSigner(key, "")
	if err != nil {
		return reg, err
	}
	chain := signer.Chain(ports.MaxSteps / 57)
	c := ports.Claim{
		PeerID: ports.PeerID(id.String()), Addrs: []string{fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", i>>16&255, i>>8&255, i&255)},
		Seq: time.Now().Add(-takeoverStep * takeoverInterval).UnixMilli(), Start: uint64(i) + 1, Interval: takeoverInterval, TTL: takeoverTTL, Anchor: chain[0],
	}
	record, err := signer.Sign(c)
	return ports.Registration{PeerID: c.PeerID, Addr: c.Addrs[0], Proof: &ports.Proof{Record: record, Tick: ports.Tick{Seq: c.Seq, Step: takeoverStep, Link: chain[takeoverStep]}}}, err
}
