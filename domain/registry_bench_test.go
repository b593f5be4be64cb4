package domain_test

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// These measure the live table with the contract's million entries. The registry is
// whole, its outbox and an observer attached; only what lies behind the ports, which
// has a cost of its own, takes everything and says nothing. `make bench` runs them and
// sets them beside their bounds.

const million = 1_000_000

// endlessPolicy is a policy by which nothing ends during a benchmark unless it is aged.
func endlessPolicy() domain.TTLPolicy {
	return domain.TTLPolicy{TTL: 30 * time.Minute, Heartbeat: 29 * time.Minute, Refresh: 14 * time.Minute}
}

// scattered is the i-th of the million in an order that has nothing to do with theirs.
func scattered(i int) int { return i * 7907 % million }

func register(b *testing.B, r *domain.Registry, i int) {
	reg := registration(i)
	if _, err := r.Register(context.Background(), reg.PeerID, reg); err != nil {
		b.Fatal(err)
	}
}

func fill(b *testing.B, r *domain.Registry) {
	b.Helper()
	for i := range million {
		register(b, r, scattered(i))
	}
	if live, _ := r.Counts(); live != million {
		b.Fatalf("%d entries, want a million", live)
	}
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkHeartbeat renews a million entries over and over while the outbox puts and
// announces each of them once in a sixth of a heartbeat, which is as often as it may.
// The first of these come due so long after the table was filled, so what is measured
// begins then and should take -benchtime 10s or a multiple: one whole round of them.
func BenchmarkHeartbeat(b *testing.B) {
	policy := domain.DefaultTTLPolicy()
	before := heap()
	r := newTable(b, policy, &stubStore{}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })

	warm := time.Now().Add(policy.Heartbeat / 6)
	fill(b, r)
	for r.Waiting() > 0 {
		time.Sleep(time.Millisecond)
	}
	size := (heap() - before) / million
	i := 0
	for ; i%1000 != 0 || time.Now().Before(warm); i++ {
		register(b, r, scattered(i))
	}
	spent := cpu()
	for b.Loop() {
		register(b, r, scattered(i))
		i++
	}
	b.ReportMetric(size, "B/entry")
	// On one core that is a second, of which other processes on the machine take nothing.
	b.ReportMetric(float64(b.N)/(cpu()-spent).Seconds(), "heartbeats/cpu-s")
}

// cpu returns what this process has used so far, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkPageOf1000(b *testing.B) {
	r := newTable(b, endlessPolicy(), &stubStore{}, nil)
	fill(b, r)
	var after ports.PeerID
	for b.Loop() {
		_, after = r.Page(after, 1000)
	}
}

func BenchmarkSweepOfNothing(b *testing.B) {
	r := newTable(b, endlessPolicy(), &stubStore{}, nil)
	fill(b, r)
	r.Age(time.Minute) // whose slots have nothing
	r.Sweep()
	for b.Loop() {
		r.Sweep()
	}
}

// BenchmarkSweepExpiring10000 removes ten thousand entries, which another native let
// die, from among the million.
func BenchmarkSweepExpiring10000(b *testing.B) {
	const dying = 10_000
	store := &stubStore{local: func(id ports.PeerID) (ports.Entry, error) {
		return ports.Entry{PeerID: id, Addr: addr, Native: "other", ExpiresAt: time.Now().Add(time.Second)}, nil
	}}
	r := newTable(b, endlessPolicy(), store, nil)
	fill(b, r)
	for b.Loop() {
		b.StopTimer()
		for i := range dying {
			r.Hear(ports.Announcement{PeerID: registration(million + i*83).PeerID, From: "other"})
		}
		live, _ := r.Counts()
		r.Age(3 * time.Second)
		b.StartTimer()
		r.Sweep()
		if left, _ := r.Counts(); live-left != dying {
			b.Fatalf("swept %d of %d", live-left, dying)
		}
	}
}

// BenchmarkHeartbeatBesidePagesAndSweeps shows how long a heartbeat is held up while
// half of the million expire and the other half are looked at once more, with pages of
// a thousand in between; and how long without any of it. The collector is off meanwhile: it
// holds up all that allocates, with or without a sweep beside it.
func BenchmarkHeartbeatBesidePagesAndSweeps(b *testing.B) {
	policy := endlessPolicy()
	r := newTable(b, policy, &stubStore{}, nil)
	var alone, beside, batches []time.Duration
	for b.Loop() {
		b.StopTimer()
		fill(b, r)
		// A minute is left, since to renew half of them takes some of it.
		r.Age(policy.TTL - time.Minute)
		r.Sweep()                            // finds nothing in any second until now
		renew := func(i int) time.Duration { // the even half
			began := time.Now()
			register(b, r, scattered(i)&^1)
			return time.Since(began)
		}
		for i := range million {
			renew(i)
		}
		for i := range million {
			alone = append(alone, renew(i))
		}
		if live, _ := r.Counts(); live != million {
			b.Fatalf("%d live before the sweep, want all", live)
		}
		r.Age(time.Minute)
		runtime.GC()
		collector := debug.SetGCPercent(-1)
		b.StartTimer()

		swept := make(chan struct{})
		go func() {
			defer close(swept)
			var after ports.PeerID
			for more := true; more; { // as Sweep does
				more = false
				for shard := range domain.Shards {
					began := time.Now()
					more = r.SweepShard(shard) || more
					batches = append(batches, time.Since(began))
				}
				_, after = r.Page(after, 1000)
			}
		}()
		for i := 0; ; i++ {
			beside = append(beside, renew(i))
			select {
			case <-swept:
			default:
				continue
			}
			break
		}
		debug.SetGCPercent(collector)
		if live, _ := r.Counts(); live != million/2 {
			b.Fatalf("%d live after the sweep, want the half that was renewed", live)
		}
	}
	slices.Sort(alone)
	slices.Sort(beside)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	b.ReportMetric(us(beside[len(beside)*999/1000]), "p99.9-µs")
	b.ReportMetric(us(beside[len(beside)-1]), "max-µs")
	b.ReportMetric(us(alone[len(alone)*999/1000]), "alone-p99.9-µs")
	b.ReportMetric(us(alone[len(alone)-1]), "alone-max-µs")
	slices.Sort(batches)
	b.ReportMetric(us(batches[len(batches)*99/100]), "batch-p99-µs")
	b.ReportMetric(us(batches[len(batches)-1]), "batch-max-µs")
}

// BenchmarkSigned renews entries that their indexers sign, and says what one takes, with its
// record and what is remembered of it. Their chains last for a million heartbeats and more.
func BenchmarkSigned(b *testing.B) {
	const entries, steps = 20_000, 60
	r := newTable(b, domain.DefaultTTLPolicy(), nil, func(rules *domain.Rules) { rules.Proofs = proof.NewVerifier() })
	all := make([]*signedIndexer, entries)
	for i := range all {
		all[i] = newSignedIndexer(b)
		all[i].issue(b, "/ip4/10.1.2.3/tcp/4001")
	}
	give := func(x *signedIndexer, step uint32, record bool) {
		reg := x.heartbeat(step, record)
		reg.Proof.Record = bytes.Clone(reg.Proof.Record) // as if it came over the wire
		if _, err := r.Register(context.Background(), x.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	before := heap()
	for _, x := range all {
		give(x, 0, true)
	}
	took := (heap() - before) / entries
	done := 0
	for b.Loop() {
		if done == entries*steps {
			b.Fatalf("the chains are over after %d heartbeats", done)
		}
		give(all[done%entries], uint32(1+done/entries), false)
		done++
	}
	b.ReportMetric(took, "B/entry")
}

// BenchmarkRenewal renews a hundred thousand leases, of indexers that this native alone has, and of
// indexers that two natives tell of too; and a round of those, in which all three renew.
func BenchmarkRenewal(b *testing.B) {
	const n = 100_000
	ctx := context.Background()
	natives := [...]ports.PeerID{"n0", "n1", "n2", "n3", "n4"}
	heartbeat := func(b *testing.B, r *domain.Registry, i int) {
		reg := registration(i)
		if _, err := r.Register(ctx, reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	tell := func(r *domain.Registry, i, k int) {
		reg, native := registration(i), natives[(i+k)%len(natives)]
		r.TakeChanges(native, []ports.Change{{Kind: ports.ChangeRenewed, Listed: ports.Listed{
			Entry:     ports.Entry{PeerID: reg.PeerID, Addr: reg.Addr, Native: native, ExpiresAt: time.Now().Add(66 * time.Second)},
			Remaining: 66 * time.Second,
		}}})
	}
	for _, c := range []struct {
		name  string
		told  int  // natives that tell of each
		round bool // and renew with it
	}{{"alone", 0, false}, {"told", 2, false}, {"round", 2, true}} {
		b.Run(c.name, func(b *testing.B) {
			before := heap()
			r := newTable(b, domain.DefaultTTLPolicy(), &stubStore{}, nil)
			for i := range n {
				heartbeat(b, r, i)
				for k := range c.told {
					tell(r, i, k)
				}
			}
			size := (heap() - before) / n
			i := 0
			spent := cpu()
			for b.Loop() {
				heartbeat(b, r, i%n)
				for k := range c.told {
					if c.round {
						tell(r, i%n, k)
					}
				}
				i++
			}
			b.ReportMetric(size, "B/entry")
			b.ReportMetric(float64(b.N)/(cpu()-spent).Seconds(), "rounds/cpu-s")
		})
	}
}
