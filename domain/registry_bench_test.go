package domain_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const million = 1_000_000

type countingObserver struct{ n atomic.Int64 }

func (o *countingObserver) Observe(ports.Event) { o.n.Add(1) }

// fullTable returns a registry with n live entries, whose outbox goes to store, and
// what they hold of memory each.
func fullTable(b *testing.B, n int) (*domain.Registry, []ports.Registration, float64) {
	b.Helper()
	regs := make([]ports.Registration, n)
	for i := range regs {
		regs[i] = ports.Registration{
			PeerID: ports.PeerID(fmt.Sprintf("12D3KooW%044d", i*7919%n)),
			Addr:   fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", i>>16&255, i>>8&255, i&255),
		}
	}
	rules := domain.Config{Self: "self", Policy: domain.DefaultTTLPolicy(), CheckAddr: func(ports.PeerID, string) error { return nil }}
	r, err := domain.NewRegistry(rules, &stubStore{get: nothing}, memory.NewTopic().Join("self"), &countingObserver{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range regs {
		// The registry keeps strings of its own, as it does of a frame.
		reg := ports.Registration{PeerID: ports.PeerID([]byte(regs[i].PeerID)), Addr: string([]byte(regs[i].Addr))}
		if _, err := r.Register(ctx, reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	for r.Waiting() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return r, regs, float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

func BenchmarkHeartbeat(b *testing.B) {
	r, regs, size := fullTable(b, million)
	var i int
	for b.Loop() {
		reg := regs[i%million]
		i += 7907
		if _, err := r.Register(b.Context(), reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(size, "B/entry")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "heartbeats/s")
}

func BenchmarkPageOf1000(b *testing.B) {
	r, _, _ := fullTable(b, million)
	var after ports.PeerID
	for b.Loop() {
		_, after = r.Page(after, 1000)
	}
}

// BenchmarkHeartbeatWhilePaged shows how long a heartbeat waits at most for pages
// and sweeps that run beside it.
func BenchmarkHeartbeatWhilePaged(b *testing.B) {
	r, regs, _ := fullTable(b, million)
	ctx, cancel := context.WithCancel(b.Context())
	paging := make(chan struct{})
	go func() {
		defer close(paging)
		for after := ports.PeerID(""); ctx.Err() == nil; {
			_, after = r.Page(after, 1000)
		}
	}()
	took := make([]time.Duration, 0, million)
	var i int
	for b.Loop() {
		reg := regs[i%million]
		i += 7907
		began := time.Now()
		if _, err := r.Register(b.Context(), reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	cancel()
	<-paging
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*999/1000].Microseconds()), "p99.9-µs")
}
