package domain_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// BenchmarkTableBytes fills a table and says what an entry takes, with all that the table needs to find,
// sort and sweep it: of plain entries, of signed entries, and of a mix. A table that is watched has its
// changelog beside it.
func BenchmarkTableBytes(b *testing.B) {
	for _, kind := range []struct {
		name string
		n    int
		give func(b *testing.B, r *domain.Registry, i int)
	}{
		{"plain", million, register},
		{"labels", million, func(b *testing.B, r *domain.Registry, i int) {
			reg := registration(i)
			reg.Meta = map[string]string{"region": fmt.Sprint("eu-", i%7), "version": "v1.4.2"}
			giveTo(b, r, reg)
		}},
		{"told", million, func(b *testing.B, r *domain.Registry, i int) {
			register(b, r, i)
			for k := range 2 {
				reg, native := registration(i), ports.PeerID(fmt.Sprint("n", (i+k)%20))
				r.TakeChanges(native, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{
					Entry: ports.Entry{PeerID: reg.PeerID, Addr: reg.Addr, Native: native, ExpiresAt: time.Now().Add(66 * time.Second)}, Remaining: 66 * time.Second,
				}}})
			}
		}},
	} {
		b.Run(kind.name, func(b *testing.B) {
			for b.Loop() {
				r := newTable(b, endlessPolicy(), &stubStore{}, nil)
				before := heap()
				for i := range kind.n {
					kind.give(b, r, scattered(i))
				}
				measure(b, r, kind.n, before)
				runtime.KeepAlive(r)
			}
		})
	}
	for name, watched := range map[string]bool{"signed": false, "watched": true} {
		b.Run(name, func(b *testing.B) {
			const n = million / 10 // a tenth of the signatures
			for b.Loop() {
				r := newTable(b, domain.DefaultTTLPolicy(), &stubStore{}, func(rules *domain.Rules) { rules.Proofs = forgetful{proof.NewVerifier()} })
				if watched {
					watchOnce(r) // all changes are remembered from now on
				}
				before := heap()
				for i := range n {
					x := newSignedIndexer(b)
					x.issue(b, registration(scattered(i)).Addr)
					reg := x.heartbeat(0, true)
					reg.Proof.Record = bytes.Clone(reg.Proof.Record)
					giveTo(b, r, reg)
				}
				measure(b, r, n, before)
				runtime.KeepAlive(r)
			}
		})
	}
}

// watchOnce watches r with renewals, until the first batch.
func watchOnce(r *domain.Registry) {
	for range r.Watch(context.Background(), "", ports.WatchRequest{Renewed: true}) {
		return
	}
}

// forgetful is a Verifier that remembers nothing: what it would remember has a bound of its own.
type forgetful struct{ *proof.Verifier }

func (f forgetful) Verify(record []byte, tick ports.Tick) (*ports.Claim, error) {
	return proof.NewVerifier().Verify(record, tick)
}

func giveTo(b *testing.B, r *domain.Registry, reg ports.Registration) {
	if _, err := r.Register(context.Background(), reg.PeerID, reg); err != nil {
		b.Fatal(err)
	}
}

// measure says what each of n entries takes, without the queue of puts: the outbox does not run here.
func measure(b *testing.B, r *domain.Registry, n int, before float64) {
	r.ForgetPuts()
	b.ReportMetric((heap()-before)/float64(n), "B/entry")
	collect(b)
}

// collect runs a full collection, and says how long the world stood still, and how long it marked.
func collect(b *testing.B) {
	marked := func() float64 {
		s := []metrics.Sample{{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/assist:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
		metrics.Read(s)
		return s[0].Value.Float64() + s[1].Value.Float64() + s[2].Value.Float64()
	}
	runtime.GC()
	before := marked()
	var stats debug.GCStats
	runtime.GC()
	debug.ReadGCStats(&stats)
	b.ReportMetric((marked()-before)*1e3, "mark-ms")
	b.ReportMetric(float64(stats.Pause[0].Nanoseconds())/1e3, "pause-µs")
}

// followed is a Store and an Announcer without strangers: all natives follow this one.
type followed struct {
	stubStore
	silentAnnouncer
}

func (*followed) Strangers() bool { return false }

// BenchmarkHeartbeatFollowed renews a million plain leases over and over, at a native that all others follow, so
// that a renewal is neither put nor announced.
func BenchmarkHeartbeatFollowed(b *testing.B) {
	all := &followed{}
	rules := domain.Rules{Self: "self", Policy: domain.DefaultTTLPolicy(), CheckAddr: func(ports.PeerID, string) error { return nil }}
	r, err := domain.NewRegistry(rules, domain.Settings{}, all, all, &countingObserver{})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, r)
	runtime.GC()
	i, spent := 0, cpu()
	for b.Loop() {
		register(b, r, scattered(i))
		i++
	}
	b.ReportMetric(float64(b.N)/(cpu()-spent).Seconds(), "heartbeats/cpu-s")
}
