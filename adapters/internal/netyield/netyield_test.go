package netyield_test

import (
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/netyield"
)

// While every processor computes, and yields now and then, an answer over loopback takes a few yields. With
// runtime.Gosched it takes as many as fit into 10 ms: hundreds.
func TestYieldLetsTheNetworkIn(t *testing.T) {
	const n, most = 51, 40
	_, yields := echoes(t, n, yielding)
	if median := yields[n/2]; median > most*runtime.GOMAXPROCS(0) {
		t.Errorf("an answer takes %d yields, want %d for each processor at most", median, most)
	}
}

// A process without a file descriptor to spare computes all the same.
func TestYieldWithoutFileDescriptors(t *testing.T) {
	var y netyield.Yielder
	for range 3 {
		y.Yield()
	}
	y.Close()
}

func yielding() (yield, done func()) {
	y := netyield.New()
	return y.Yield, y.Close
}

func gosched() (yield, done func()) { return runtime.Gosched, func() {} }

// echoes has every processor compute, and yield every 50 µs or so. It measures how long answers over loopback
// take meanwhile, and how many yields, each in order.
func echoes(tb testing.TB, n int, yielder func() (yield, done func())) (took []time.Duration, yields []int) {
	tb.Helper()
	var yielded atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		b := make([]byte, 1)
		for {
			if _, err := conn.Read(b); err != nil {
				return
			}
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	stop, stopped := make(chan struct{}), make(chan int)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			yield, done := yielder()
			defer done()
			sum := 0
			for {
				for i := range 50_000 {
					sum ^= i
				}
				yielded.Add(1)
				select {
				case <-stop:
					stopped <- sum
					return
				default:
					yield()
				}
			}
		}()
	}
	b := []byte{0}
	for range n {
		began, before := time.Now(), yielded.Load()
		if _, err := conn.Write(b); err != nil {
			tb.Fatal(err)
		}
		if _, err := conn.Read(b); err != nil {
			tb.Fatal(err)
		}
		took, yields = append(took, time.Since(began)), append(yields, int(yielded.Load()-before))
	}
	close(stop)
	for range runtime.GOMAXPROCS(0) {
		<-stopped
	}
	slices.Sort(took)
	slices.Sort(yields)
	return took, yields
}

// BenchmarkEcho measures how long an answer takes while every processor computes. The computation calls
// runtime.Gosched first, and then Yield.
func BenchmarkEcho(b *testing.B) {
	const n = 200
	for name, yielder := range map[string]func() (yield, done func()){"gosched": gosched, "yield": yielding} {
		took, _ := echoes(b, n, yielder)
		b.ReportMetric(float64(took[n/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(took[n*99/100].Microseconds()), name+"-p99-µs")
	}
}

func BenchmarkYield(b *testing.B) {
	y := netyield.New()
	defer y.Close()
	for b.Loop() {
		y.Yield()
	}
}
