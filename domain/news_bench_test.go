package domain

import (
	"context"
	"encoding/binary"
	"math/rand"
	"strconv"
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
	*Registry
	regs  []ports.Registration
	ticks [][]ports.Tick
	step  int
	next  int // the indexer that renews next
}

// benchRules are rules by which nothing ends during a benchmark.
func benchRules(self ports.PeerID) Rules {
	return Rules{
		Self: self, Policy: TTLPolicy{TTL: 30 * time.Minute, Heartbeat: 29 * time.Minute, Refresh: 14 * time.Minute},
		CheckAddr: func(ports.PeerID, string) error { return nil }, Proofs: believingVerifier{proof.NewVerifier()},
	}
}

func newBenchTeller(b *testing.B, self ports.PeerID, random *rand.Rand, chain *prooftest.Signer, indexers, steps int) *benchTeller {
	b.Helper()
	rules := benchRules(self)
	r, err := NewRegistry(rules, Settings{}, emptyStore{}, nil, silentObserver{})
	if err != nil {
		b.Fatal(err)
	}
	t := &benchTeller{Registry: r}
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
		t.regs = append(t.regs, ports.Registration{PeerID: claim.PeerID, Addr: addr, Proof: &ports.Proof{Record: record, Tick: ticks[0]}})
		t.ticks = append(t.ticks, ticks)
		if _, err := t.Register(context.Background(), claim.PeerID, t.regs[i]); err != nil {
			b.Fatal(err)
		}
		t.regs[i].Proof = &ports.Proof{}
	}
	t.step = 1
	return t
}

// renew has so many indexers renew their leases, each in its turn, and returns false after the last
// link.
func (t *benchTeller) renew(b *testing.B, n int) bool {
	for range n {
		if t.next == len(t.regs) {
			t.step, t.next = t.step+1, 0
		}
		if t.step == len(t.ticks[0]) {
			return false
		}
		i := t.next * 7919 % len(t.regs) // in an order that has nothing to do with that of their numbers
		t.next++
		reg := t.regs[i]
		reg.Proof = &ports.Proof{Tick: t.ticks[i][t.step]}
		if _, err := t.Register(context.Background(), reg.PeerID, reg); err != nil {
			b.Fatal(err)
		}
	}
	return true
}

// silentObserver hears nothing.
type silentObserver struct{}

func (silentObserver) Observe(ports.Event) {}

// BenchmarkRenewalTold measures what it costs to tell one renewal to one follower: to the native that
// tells it, and to its follower, which checks the tick. The bytes are another matter: see
// adapters/stream. The rows are: a single native, in batches of 100; and a native that follows 99 of
// 10,000 indexers each, which tell their batches once a second.
func BenchmarkRenewalTold(b *testing.B) {
	for _, c := range []struct {
		name                    string
		natives, indexers, each int
	}{
		{"1 native of 20,000 indexers", 1, 20_000, 100},
		{"99 natives of 10,000 indexers", 99, 10_000, 167},
	} {
		b.Run(c.name, func(b *testing.B) {
			random, chain := rand.New(rand.NewSource(1)), prooftest.NewSigner(b)
			hearer, err := NewRegistry(benchRules("hearer"), Settings{Bounds: Bounds{Trusted: func(ports.PeerID) bool { return true }}}, emptyStore{}, nil, silentObserver{})
			if err != nil {
				b.Fatal(err)
			}
			// The senders are simulated: one native is told again under 99 names.
			var sent, taken time.Duration
			renewals := 0
			var ledgers []*ledger
			var tellers []*benchTeller
			for i := range c.natives {
				t := newBenchTeller(b, ports.PeerID("teller"+strconv.Itoa(i)), random, chain, c.indexers, 40/min(c.natives, 10))
				tellers = append(tellers, t)
				ctx, cancel := context.WithCancel(context.Background())
				l := newLedger(Bounds{})
				for batch := range t.Watch(ctx, "hearer", ports.WatchRequest{Own: true, Numbers: true}) {
					hearer.takeBatch(t.rules.Self, l, &batch, 0)
					if batch.Cursor != "" {
						break
					}
				}
				cancel()
				ledgers = append(ledgers, l)
			}
			if live, _ := hearer.Counts(); live != c.natives*c.indexers {
				b.Fatalf("%d are listed, want %d", live, c.natives*c.indexers)
			}
			b.ResetTimer()
			for on := true; on && renewals < 1_000_000; {
				for i, t := range tellers {
					news := t.table.news
					if on = t.renew(b, c.each); !on {
						break
					}
					at := news.end()
					began := time.Now()
					news.gather()
					sent += time.Since(began)
					p, _, _, _ := news.read(at)
					began = time.Now()
					took := hearer.takeNews(t.rules.Self, ledgers[i], p.News, 0)
					taken += time.Since(began)
					if renewals += took.renewals; took.accepted != c.each {
						b.Fatalf("%d of %d count: %v", took.accepted, c.each, took.why)
					}
				}
			}
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(renewals) }
			b.ReportMetric(per(sent), "ns/sent")
			b.ReportMetric(per(taken), "ns/taken")
			b.ReportMetric(per(taken)*float64(c.natives*c.indexers)/60/1e7, "%core")
			b.ReportMetric(0, "ns/op")
		})
	}
}
