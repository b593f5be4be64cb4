package modules_test

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// benchNews are News of so many signed renewals, as a native of 10,000 indexers makes them.
func benchNews(renewals int) *ports.News {
	n := &ports.News{}
	for i := range renewals {
		n.Renewals = append(n.Renewals, ports.Renewal{
			Number: uint32(60*i + 1), Step: uint32(1 + i%60), Link: ports.Link{byte(i), byte(i >> 8), 31: 1},
			Remaining: 66*time.Second - time.Duration(37*i%1000)*time.Millisecond,
		})
	}
	return n
}

// followStream is what it costs to tell a renewal to a follower over TCP on loopback, without the tables
// of both.
type followStream struct {
	cpu   time.Duration // of both sides
	bytes float64       // that the follower reads
}

// followBytes counts what is read from binary watches.
type followBytes struct {
	metrics.Reporter // of which libp2p uses the following alone
	atomic.Int64
}

func (*followBytes) LogSentMessage(int64)                             {}
func (*followBytes) LogRecvMessage(int64)                             {}
func (*followBytes) LogSentMessageStream(int64, protocol.ID, peer.ID) {}
func (f *followBytes) LogRecvMessageStream(n int64, of protocol.ID, _ peer.ID) {
	if of == ports.FollowProtocol {
		f.Add(n)
	}
}

// benchFollowStream tells that many batches of so many renewals each to that many followers. All are told
// the same, one batch at a time.
func benchFollowStream(b *testing.B, followers, batches, renewals int) followStream {
	b.Helper()
	transport := func(h host.Host) *stream.Transport {
		t, err := stream.New(h, nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(t.Close)
		return t
	}
	all := make([]*ports.News, batches)
	for i := range all {
		all[i] = benchNews(renewals)
	}
	told := make([]chan struct{}, followers) // receives a value for each batch
	for i := range told {
		told[i] = make(chan struct{})
	}
	teller := bareHost(b, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
	next := make(chan chan struct{}, followers)
	for _, c := range told {
		next <- c
	}
	stop, err := transport(teller).Serve(porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		due := <-next
		return func(yield func(ports.Batch, error) bool) {
			if !yield(ports.Batch{Cursor: "M5XG64TTMV.0"}, nil) {
				return
			}
			for _, n := range all {
				select {
				case <-due:
				case <-ctx.Done():
					return
				}
				if !yield(ports.Batch{Cursor: "M5XG64TTMV.1234567", Live: 10_000, Now: time.Now(), Audience: 1 << 63, News: n}, nil) {
					return
				}
			}
			<-ctx.Done()
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	read := &followBytes{}
	heard := make(chan int, followers)
	for range followers {
		h := bareHost(b, libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics(), libp2p.BandwidthReporter(read))
		native, err := transport(h).Native(ports.PeerID(teller.ID().String()), []string{teller.Addrs()[0].String()})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			for batch, err := range native.Watch(b.Context(), ports.PeerID(h.ID().String()), ports.WatchRequest{Own: true, Numbers: true}) {
				switch {
				case err != nil:
					return
				case batch.News == nil:
					heard <- 0
				default:
					heard <- len(batch.News.Renewals)
				}
			}
		}()
	}
	wait := func(want int) {
		b.Helper()
		for range followers {
			select {
			case n := <-heard:
				if n != want {
					b.Fatalf("a follower was told of %d renewals, want %d", n, want)
				}
			case <-time.After(porttest.Patience):
				b.Fatal("a follower was told nothing")
			}
		}
	}
	wait(0)
	began, before := cpu(), read.Load()
	for range batches {
		for _, due := range told {
			due <- struct{}{}
		}
		wait(renewals)
	}
	spent := cpu() - began
	count := batches * renewals * followers
	return followStream{spent / time.Duration(count), float64(read.Load()-before) / float64(count)}
}

// tableOfFollow measures a renewal that is told to a follower. Its stream's part is measured by itself: the News
// are encoded, written, read and decoded. BenchmarkRenewalTold in package domain has the tables' part.
func tableOfFollow(b *testing.B, t *table, scale float64) {
	t.part("A renewal told to a follower, over TCP on loopback; sender and receiver")
	us := func(d time.Duration) string { return unit("µs", 2)(float64(d.Nanoseconds()) / 1e3) }
	benchFollowStream(b, 1, 100, 100) // warms up
	one := benchFollowStream(b, 1, scaled(5000, scale, 100), 100)
	t.atMost("a renewal told to a follower, in batches of 100: bytes", one.bytes, 48, unit("B", 1))
	t.ofScale(3, 1)
	t.row("CPU of its stream, in batches of 100", us(one.cpu), "")
	t.row("the same to each of 20 followers", us(benchFollowStream(b, 20, scaled(250, scale, 10), 100).cpu), "")
	t.row("in batches of 1,000", us(benchFollowStream(b, 1, scaled(500, scale, 10), 1000).cpu), "")

	tables := goBench(b, "^BenchmarkRenewalTold$", "1", "1x")
	ns := func(v float64) string { return unit("µs", 2)(v / 1e3) }
	told := tables["RenewalTold/one"]
	t.row("CPU of the sender's table, once for all followers", ns(told["ns/sent"]), "")
	t.row("CPU of the receiver's table, the tick checked", ns(told["ns/taken"]), "")
	t.atMost("a renewal told to a follower, in batches of 100: CPU in all, sender and receiver, the tick checked", told["ns/sent"]+told["ns/taken"]+float64(one.cpu.Nanoseconds()), 1000, ns)
	t.ofScale(3, 1)
	const natives, indexers, heartbeat = 99, 10_000, 60
	each := tables["RenewalTold/99"]["ns/taken"] + float64(one.cpu.Nanoseconds())
	t.atMost("a native's CPU with 99 followed natives of 10,000 indexers each, a batch a second", each*natives*indexers/heartbeat/1e7, 15, unit("% of a core", 1))
	t.ofScale(4, 1)
	t.note("The tables' figures are the CPU of the thread that works. The 99 natives are simulated: their News are made beforehand, and the whole of a stream counts for each, its sender's part too.")
}
