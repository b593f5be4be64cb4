package modules_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

const (
	// shortIndexers are on one native, each with a connection and a stream of its own.
	shortIndexers = 10_000
	// shortInterval is how far apart an indexer's heartbeats are with a heartbeat of 2 s.
	shortInterval = 1650 * time.Millisecond
)

// memoryInUse returns how much resident memory this process has, 0 if the system does not say.
func memoryInUse() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	var size, pages int64
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &pages)
	}
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// shortIndexer is an indexer that beats on an open stream.
type shortIndexer struct {
	signingClient
	h     host.Host
	s     network.Stream
	r     *bufio.Reader
	began time.Time
}

// ask sends a frame, and returns how long its answer took. short says that it was a lease granted anew.
func (x *shortIndexer) ask(frame []byte) (took time.Duration, short bool, err error) {
	sent := time.Now()
	_ = x.s.SetDeadline(sent.Add(10 * time.Second))
	if _, err := x.s.Write(frame); err != nil {
		return 0, false, err
	}
	length, err := binary.ReadUvarint(x.r)
	if err == nil {
		_, err = x.r.Discard(int(length))
	}
	return time.Since(sent), length < 16, err
}

// tableOfShort has ten thousand indexers beat on one native every 1.65 s, over a connection each: a
// network with a heartbeat of 2 s and a TTL of 3 s.
func tableOfShort(b *testing.B, t *table, scale float64) {
	n := min(shortIndexers, scaled(shortIndexers, scale, 500))
	t.part("A native of short leases (heartbeat %v, TTL %v), a process of its own: %s indexers, each over a connection and an open stream of its own", shortHeartbeat, shortTTL, thousands(float64(n)))
	native := startNative(b, map[string]string{
		"modules": "native,dht,gossip", "data.dir": b.TempDir(), "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0", "log.level": "error",
		"registry.ttl": shortTTL.String(), "registry.heartbeat": shortHeartbeat.String(), "registry.refresh": "1s",
		"limits.connections": fmt.Sprint(2 * n), "limits.stream-memory": fmt.Sprint(n),
	})
	empty := native.ask("state")
	indexers := make([]*shortIndexer, n)
	var next atomic.Int64
	var connecting sync.WaitGroup
	for range 8 {
		connecting.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !b.Failed(); i = int(next.Add(1)) - 1 {
				h := bareHost(b, libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics(),
					libp2p.DisableRelay(), libp2p.Ping(false), libp2p.DisableIdentifyAddressDiscovery())
				x, err := connectShort(b, h, native)
				if err != nil {
					b.Error(err)
					return
				}
				indexers[i] = x
			}
		})
	}
	connecting.Wait()
	if b.Failed() {
		b.FailNow()
	}
	connected := native.ask("state")
	const rest = 3 * time.Second
	time.Sleep(rest)
	idle := float64(native.ask("state").CPU-connected.CPU) / float64(rest)

	const warm, rounds = 3, 10 // of heartbeats
	var mu sync.Mutex
	var took []time.Duration
	var long atomic.Int64
	var beating sync.WaitGroup
	start := time.Now()
	for i, x := range indexers {
		beating.Go(func() {
			time.Sleep(time.Until(start.Add(shortInterval * time.Duration(i) / time.Duration(n))))
			seq, _ := x.signer.Seq(time.Now().UnixMilli())
			x.issueAt(b, seq, warm+rounds+2, shortInterval, shortTTL)
			x.began = time.Now()
			err := x.open(b, native)
			if err == nil {
				_, _, err = x.ask(x.registration())
			}
			if err != nil {
				b.Error(err)
				return
			}
			for step := 1; step < warm+rounds; step++ {
				time.Sleep(time.Until(x.began.Add(shortInterval * time.Duration(step))))
				d, short, err := x.ask(x.tick(step))
				if err != nil {
					b.Error(err)
					return
				}
				if !short {
					long.Add(1)
				}
				if step >= warm {
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			}
		})
	}
	time.Sleep(time.Until(start.Add(warm * shortInterval)))
	before, began := native.ask("state"), time.Now()
	least := before.Live
	for time.Since(began) < (rounds-2)*shortInterval {
		time.Sleep(500 * time.Millisecond)
		least = min(least, native.ask("state").Live)
	}
	after, lasted := native.ask("state"), time.Since(began)
	beating.Wait()
	if b.Failed() {
		b.FailNow()
	}
	beats := after.Registered - before.Registered
	used := after.CPU - before.CPU
	slices.Sort(took)
	us := unit("µs", 1)
	t.row("heartbeats a second", thousands(float64(beats)/lasted.Seconds()), "")
	t.row("the native's CPU", fmt.Sprintf("%.1f %% of a core, %.1f %% without a heartbeat", 100*used.Seconds()/lasted.Seconds(), 100*idle), us((used.Seconds()-idle*lasted.Seconds())*1e6/float64(beats))+" a heartbeat")
	t.row("an answer, p50 and p99", fmt.Sprintf("%v, %v", took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond)), "the indexers share the machine")
	t.row("indexers missing at any sample", fmt.Sprint(int64(n)-least), fmt.Sprintf("%.1f %% of heartbeats came a second too late", 100*float64(long.Load())/float64(len(took))))
	t.row("the native's memory, resident", unit("MB", 0)(float64(after.Memory)/1e6), fmt.Sprintf("%s KB an indexer, %s of them its connection", unit("", 0)(float64(after.Memory-empty.Memory)/float64(n)/1e3), unit("KB", 0)(float64(connected.Memory-empty.Memory)/float64(n)/1e3)))
}

// connectShort connects an indexer.
func connectShort(b *testing.B, h host.Host, native *nativeProcess) (*shortIndexer, error) {
	if err := h.Connect(b.Context(), native.info); err != nil {
		return nil, err
	}
	signer, err := proof.NewSigner(h.Peerstore().PrivKey(h.ID()), "")
	if err != nil {
		return nil, err
	}
	return &shortIndexer{signingClient: signingClient{self: ports.PeerID(h.ID().String()), signer: signer}, h: h}, nil
}

// open opens the stream of x, for a frame that follows at once: a native holds few streams whose protocol
// it does not know.
func (x *shortIndexer) open(b *testing.B, native *nativeProcess) (err error) {
	x.s, err = x.h.NewStream(network.WithNoDial(b.Context(), "connected"), native.info.ID, ports.HeartbeatProtocol)
	x.r = bufio.NewReaderSize(x.s, 1024)
	return err
}

// BenchmarkShortLeases is tableOfShort by itself, for so many seconds' part of it.
func BenchmarkShortLeases(b *testing.B) {
	t := &table{}
	tableOfShort(b, t, benchScale(b))
	fmt.Println(t.text())
}
