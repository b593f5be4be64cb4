package modules_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// signingClients are indexers that sign what they send, a tick a heartbeat.
type signingClients struct {
	mu sync.Mutex
	of map[peer.ID]*signingClient
}

type signingClient struct {
	self   ports.PeerID
	signer *proof.Signer
	claim  ports.Claim
	record []byte
	chain  []ports.Link
	step   int
}

// frame is the next heartbeat of h, with the record if that is new.
func (s *signingClients) frame(b *testing.B, h host.Host) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.of[h.ID()]
	if c == nil {
		signer, err := proof.NewSigner(h.Peerstore().PrivKey(h.ID()), "")
		if err != nil {
			b.Fatal(err)
		}
		c = &signingClient{self: ports.PeerID(h.ID().String()), signer: signer}
		s.of[h.ID()] = c
	}
	record := ""
	if c.step++; c.step >= len(c.chain) {
		c.issue(b)
		record = `"Record":"` + base64.StdEncoding.EncodeToString(c.record) + `",`
	}
	return fmt.Sprintf(`{"PeerID":"%s","Addr":"/ip4/127.0.0.1/tcp/4001",%s"Tick":{"Seq":%d,"Step":%d,"Link":"%s"}}`+"\n",
		c.self, record, c.claim.Seq, c.step, base64.StdEncoding.EncodeToString(c.chain[c.step][:]))
}

// issue makes a record, whose chain is as long as one may be.
func (c *signingClient) issue(b *testing.B) {
	seq, _ := c.signer.Seq(time.Now().UnixMilli())
	c.issueAt(b, seq, ports.MaxSteps, ports.RecordLife/ports.MaxSteps, 66*time.Second)
}

func (c *signingClient) issueAt(b *testing.B, seq int64, steps int, interval, ttl time.Duration) {
	c.step, c.chain = 0, c.signer.Chain(steps)
	c.claim = ports.Claim{
		PeerID: c.self, Addrs: []string{"/ip4/127.0.0.1/tcp/4001"}, Seq: seq, Start: rand.Uint64(),
		Interval: interval, TTL: ttl, Anchor: c.chain[0],
	}
	var err error
	if c.record, err = c.signer.Sign(c.claim); err != nil {
		b.Fatal(err)
	}
}

// tableOfSigned sets a signed heartbeat beside a plain one.
func tableOfSigned(b *testing.B, t *table, scale float64) {
	t.part("A signed heartbeat over a stream, beside a plain one")
	plain := contenders(b)[0]
	signed := plain
	clients := &signingClients{of: make(map[peer.ID]*signingClient)}
	signed.name, signed.frames = "signed heartbeat", func(h host.Host) string { return clients.frame(b, h) }
	two := []contender{signed, plain}
	for _, s := range shapes[:2] {
		hosts := [][]host.Host{s.clients(b, two[:1]), s.clients(b, two[1:])}
		p50s, cpus := make([][]float64, 2), make([][]float64, 2)
		for round := range scaled(15, scale, 3) + 1 { // the first warms up
			for turn := range two {
				i := (round + turn) % 2
				p50, each := s.batch(b, hosts[i], two[i], s.requests)
				if round > 0 {
					p50s[i], cpus[i] = append(p50s[i], float64(p50)), append(cpus[i], float64(each))
				}
			}
		}
		us := func(ns []float64) string { return unit("µs", 1)(median(ns) / 1e3) }
		cpuRatio, p50Ratio := median(ratios(cpus[0], cpus[1])), median(ratios(p50s[0], p50s[1]))
		verdict := "within"
		if cpuRatio > 1.05 {
			verdict = "OVER"
		}
		t.last().rows = append(t.last().rows, tableRow{
			what:     s.name + " at once: signed, beside plain, which is " + us(cpus[1]) + " CPU, p50 " + us(p50s[1]),
			measured: us(cpus[0]) + " CPU, p50 " + us(p50s[0]), bound: "≤ 1.05x CPU", verdict: fmt.Sprintf("%s (%.2fx CPU, %.2fx p50)", verdict, cpuRatio, p50Ratio),
		})
		for _, side := range hosts {
			for _, h := range side {
				_ = h.Close()
			}
		}
	}
	firstSight(b, t, scale)
	held := goBench(b, "^BenchmarkSigned$", "1", fmt.Sprintf("%dx", scaled(400_000, scale, 40_000)))["Signed"]
	t.row("a signed heartbeat through the registry, its tick made too", unit("µs", 2)(held["ns/op"]/1e3), "")
	t.row("memory a signed entry, with its record and what is remembered of it", unit("B", 0)(held["B/entry"]), "")
}

// firstSight measures what checking a record costs that nobody has seen, and one more tick.
func firstSight(b *testing.B, t *table, scale float64) {
	h := benchClient(b)
	signer, err := proof.NewSigner(h.Peerstore().PrivKey(h.ID()), "")
	if err != nil {
		b.Fatal(err)
	}
	n := scaled(2000, scale, 200)
	records := make([]*signingClient, n)
	for i := range records {
		records[i] = &signingClient{self: ports.PeerID(h.ID().String()), signer: signer}
		records[i].issue(b)
		records[i].chain = records[i].chain[:2]
	}
	verifier := proof.NewVerifier()
	check := func(step uint32) time.Duration {
		began := cpu()
		for _, r := range records {
			if _, err := verifier.Verify(r.record, ports.Tick{Seq: r.claim.Seq, Step: step, Link: r.chain[step]}); err != nil {
				b.Fatal(err)
			}
		}
		return (cpu() - began) / time.Duration(n)
	}
	first, again := check(0), check(1)
	began := cpu()
	for _, r := range records {
		if !verifier.Follows(r.chain[0], r.chain[1], 1) {
			b.Fatal("a tick is not on its chain")
		}
	}
	tick := (cpu() - began) / time.Duration(n)
	us := func(d time.Duration) string { return unit("µs", 2)(float64(d) / 1e3) }
	t.row("a record at first sight, its signature checked", us(first)+" CPU", "")
	t.row("the same record again, with its next tick, as the DHT has them", us(again)+" CPU", "")
	t.row("a tick alone, as a heartbeat and a watch have them", us(tick)+" CPU", "")
}
