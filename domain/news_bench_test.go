package domain

import (
	"cmp"
	"context"
	"encoding/binary"
	"math/rand"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// believingVerifier takes every signature for true, so that a benchmark need not make a million.
type believingVerifier struct{ *proof.Verifier }

func (v believingVerifier) Verify(record []byte, _ ports.Tick) (*ports.Claim, error) {
	return v.Read(record)
}

func (v believingVerifier) VerifyAll(proofs []*ports.Proof, accept func(*ports.Claim) error) []error {
	errs := make([]error, len(proofs))
	for i, p := range proofs {
		if p.Claim, errs[i] = v.Read(p.Record); errs[i] == nil {
			errs[i] = accept(p.Claim)
		}
	}
	return errs
}

// benchTeller is a native with indexers that signed, and all the links of their chains.
type benchTeller struct {
	*Registry // nil if it is simulated: its News are made of nothing
	entries   []ports.Entry
	ticks     [][]ports.Tick
	step      int
	next      int // the indexer that renews next
}

// benchRules are rules by which nothing ends during a benchmark.
func benchRules(self ports.PeerID) Rules {
	return Rules{
		Self: self, Policy: TTLPolicy{TTL: 30 * time.Minute, Heartbeat: 29 * time.Minute, Refresh: 14 * time.Minute},
		CheckAddr: func(ports.PeerID, string) error { return nil }, Proofs: believingVerifier{proof.NewVerifier()},
	}
}

func newBenchTeller(b *testing.B, self ports.PeerID, random *rand.Rand, chain *prooftest.Signer, indexers, steps int, simulated bool) *benchTeller {
	b.Helper()
	rules := benchRules(self)
	t := &benchTeller{step: 1}
	if !simulated {
		var err error
		if t.Registry, err = NewRegistry(rules, Settings{}, emptyStore{}, nil, silentObserver{}); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now().Add(-10 * time.Minute).Truncate(time.Millisecond)
	key := make([]byte, 32)
	for i := range indexers {
		_, _ = random.Read(key)
		pub, err := crypto.UnmarshalEd25519PublicKey(key)
		if err != nil {
			b.Fatal(err)
		}
		id, err := peer.IDFromPublicKey(pub)
		if err != nil {
			b.Fatal(err)
		}
		links := chain.Chain(steps)
		addr := "/ip4/10.0.0.1/tcp/" + strconv.Itoa(i)
		claim := ports.Claim{PeerID: ports.PeerID(id.String()), Addrs: []string{addr}, Seq: began.UnixMilli(), Start: 1, Interval: time.Second, TTL: 30 * time.Minute, Anchor: links[0]}
		var signature [ports.SignatureBytes]byte
		binary.LittleEndian.PutUint64(signature[:], uint64(i))
		record, err := rules.Proofs.Record(&claim, signature)
		if err != nil {
			b.Fatal(err)
		}
		var ticks []ports.Tick
		for step, link := range links {
			ticks = append(ticks, ports.Tick{Seq: claim.Seq, Step: uint32(step), Link: link})
		}
		e := ports.Entry{PeerID: claim.PeerID, Addr: addr, Native: self, ExpiresAt: claim.ExpiresAt(0), Proof: &ports.Proof{Record: record, Tick: ticks[0]}}
		if !simulated {
			if _, err := t.Register(context.Background(), e.PeerID, ports.Registration{PeerID: e.PeerID, Addr: addr, Proof: e.Proof}); err != nil {
				b.Fatal(err)
			}
		}
		t.entries, t.ticks = append(t.entries, e), append(t.ticks, ticks)
	}
	return t
}

// snapshot has hearer take over the table of t.
func (t *benchTeller) snapshot(hearer *Registry, self ports.PeerID) *ledger {
	l := newLedger(Bounds{})
	if t.Registry == nil {
		for i := range t.entries {
			c := ports.Change{Kind: ports.ChangeSnapshot, Number: uint32(i + 1), Listed: ports.Listed{Entry: t.entries[i], Remaining: 30 * time.Minute}}
			hearer.takeNews(self, l, &ports.News{Changes: []ports.Change{c}}, 0)
			t.entries[i] = ports.Entry{}
		}
		return l
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for batch := range t.Watch(ctx, "hearer", ports.WatchRequest{Own: true, Numbers: true}) {
		hearer.takeBatch(self, l, &batch, 0)
		if batch.Cursor != "" {
			break
		}
	}
	return l
}

// news has n indexers renew, each in its turn, and returns the News of that with how long it took to make
// them; nil after the last link.
func (t *benchTeller) news(b *testing.B, n int) (*ports.News, time.Duration) {
	made := &ports.News{}
	for range n {
		if t.next == len(t.ticks) {
			t.step, t.next = t.step+1, 0
		}
		if t.step == len(t.ticks[0]) {
			return nil, 0
		}
		i := t.next * 7919 % len(t.ticks) // in an order that has nothing to do with that of their numbers
		t.next++
		tick := t.ticks[i][t.step]
		if t.Registry == nil {
			made.Renewals = append(made.Renewals, ports.Renewal{Number: uint32(i + 1), Step: tick.Step, Link: tick.Link, Remaining: 30 * time.Minute})
			continue
		}
		reg := ports.Registration{PeerID: t.entries[i].PeerID, Addr: t.entries[i].Addr, Proof: &ports.Proof{Tick: tick}}
		if _, err := t.Register(context.Background(), reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	if t.Registry == nil {
		slices.SortFunc(made.Renewals, func(x, y ports.Renewal) int { return cmp.Compare(x.Number, y.Number) })
		return made, 0
	}
	at := t.table.news.end()
	began := threadTime()
	t.table.news.gather()
	took := threadTime() - began
	p, _, _, _ := t.table.news.read(at)
	return p.News, took
}

// threadTime is the CPU that this thread has used: other processes of a busy machine take none of it.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	_ = syscall.Getrusage(thread, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// silentObserver hears nothing.
type silentObserver struct{}

func (silentObserver) Observe(ports.Event) {}

// BenchmarkRenewalTold measures what it costs to tell one renewal to one follower: to the native that
// tells it, and to its follower, which checks the tick. What the stream adds is BenchmarkNews of
// adapters/internal/wire. It tells of a native in batches of 100, and of a native that follows 99
// of 10,000 indexers each, which tell their batches once a second. These 99 are simulated.
func BenchmarkRenewalTold(b *testing.B) {
	for _, c := range []struct {
		name                           string
		natives, indexers, each, steps int
	}{
		{"one", 1, 20_000, 100, 40},
		{"99", 99, 10_000, 167, 2},
	} {
		b.Run(c.name, func(b *testing.B) {
			random, chain := rand.New(rand.NewSource(1)), prooftest.NewSigner(b)
			hearer, err := NewRegistry(benchRules("hearer"), Settings{Bounds: Bounds{Trusted: func(ports.PeerID) bool { return true }}}, emptyStore{}, nil, silentObserver{})
			if err != nil {
				b.Fatal(err)
			}
			var ledgers []*ledger
			var tellers []*benchTeller
			for i := range c.natives {
				self := ports.PeerID("teller" + strconv.Itoa(i))
				t := newBenchTeller(b, self, random, chain, c.indexers, c.steps, c.natives > 1)
				tellers, ledgers = append(tellers, t), append(ledgers, t.snapshot(hearer, self))
			}
			if live, _ := hearer.Counts(); live != c.natives*c.indexers {
				b.Fatalf("%d are listed, want %d", live, c.natives*c.indexers)
			}
			runtime.GC()
			var sent, taken time.Duration
			renewals := 0
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for on := true; on && renewals < 1_000_000; {
				for i, t := range tellers {
					told, took := t.news(b, c.each)
					if on = told != nil; !on {
						break
					}
					sent += took
					began := threadTime()
					outcome := hearer.takeNews(ports.PeerID("teller"+strconv.Itoa(i)), ledgers[i], told, 0)
					taken += threadTime() - began
					if renewals += outcome.renewals; outcome.accepted != c.each {
						b.Fatalf("%d of %d count: %v", outcome.accepted, c.each, outcome.why)
					}
				}
			}
			b.ReportMetric(float64(sent.Nanoseconds())/float64(renewals), "ns/sent")
			b.ReportMetric(float64(taken.Nanoseconds())/float64(renewals), "ns/taken")
			b.ReportMetric(0, "ns/op")
		})
	}
}
