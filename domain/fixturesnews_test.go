package domain

// The fixtures of tests of the News between two registries that do not run.

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// newsReader follows a registry, and writes down what it is told.
type newsReader struct {
	ask     chan []ports.Range
	stop    func() // ends the watch
	mu      sync.Mutex
	batches []ports.Batch // until take
	cursor  string
	err     error
}

// follow follows r from cursor on.
func follow(t *testing.T, r *Registry, cursor string) *newsReader {
	return hearOf(t, r, cursor, func(ports.Batch) {})
}

// hearOf is follow with a reader that hands each batch to hear.
func hearOf(t *testing.T, r *Registry, cursor string, hear func(ports.Batch)) *newsReader {
	ctx, cancel := context.WithCancel(t.Context())
	x := &newsReader{ask: make(chan []ports.Range, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b, err := range r.Watch(ctx, "follower", ports.WatchRequest{Own: true, Numbers: true, Mine: true, Beat: time.Second, Cursor: cursor, Ask: x.ask}) {
			if err != nil {
				x.err = err
				return
			}
			x.mu.Lock()
			if b.Cursor != "" {
				x.cursor = b.Cursor
			}
			x.batches = append(x.batches, b)
			x.mu.Unlock()
			hear(b)
		}
	}()
	x.stop = func() { cancel(); <-done }
	synctest.Wait()
	return x
}

// take returns the batches with anything in them since the last take.
func (x *newsReader) take() (batches []ports.Batch) {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.batches {
		if b.Reset != "" || b.News != nil || len(b.Sums) > 0 {
			batches = append(batches, b)
		}
	}
	x.batches = nil
	return batches
}

// changes returns the changes and the renewals of batches.
func newsOf(batches []ports.Batch) (changes []ports.Change, renewals []ports.Renewal) {
	for _, b := range batches {
		if b.News != nil {
			changes, renewals = append(changes, b.News.Changes...), append(renewals, b.News.Renewals...)
		}
	}
	return changes, renewals
}

// pair is a registry that follows another.
type pair struct {
	teller, hearer *Registry
	events         *porttest.Recorder // of the hearer
	reader         *newsReader

	mu     sync.Mutex // held while a batch is taken in
	ledger *ledger
	// spoil is what becomes of a batch on its way; nil changes nothing.
	spoil func(ports.Batch) []ports.Batch
}

// newPair has a registry follow another.
func newPair(t *testing.T, change func(*Rules, *Settings)) *pair {
	p := &pair{}
	p.teller, _ = bareRegistry(t, "teller", nil)
	p.hearer, p.events = bareRegistry(t, "hearer", change)
	p.ledger = newLedger(p.hearer.settings.Bounds)
	p.begin(t, "")
	return p
}

// begin begins a watch from cursor on.
func (p *pair) begin(t *testing.T, cursor string) {
	first := true
	p.reader = nil
	var x *newsReader
	ready := make(chan struct{})
	x = hearOf(t, p.teller, cursor, func(b ports.Batch) {
		<-ready
		p.mu.Lock()
		defer p.mu.Unlock()
		if first {
			p.ledger.watch(x.ask)
			first = false
		}
		batches := []ports.Batch{b}
		if p.spoil != nil {
			batches = p.spoil(b)
		}
		for _, b := range batches {
			if b.Reset != "" {
				p.ledger.clear()
			}
			p.hearer.takeBatch("teller", p.ledger, &b, 0)
		}
	})
	p.reader = x
	close(ready)
	synctest.Wait()
}

// registers has the teller grant id a plain lease.
func (p *pair) registers(t *testing.T, id ports.PeerID, addr string) {
	t.Helper()
	if _, err := p.teller.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass, and has both sweep once a second.
func (p *pair) pass(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		p.teller.sweep()
		p.hearer.sweep()
		synctest.Wait()
	}
}

// spoiled has spoil be what becomes of batches from now on.
func (p *pair) spoiled(spoil func(ports.Batch) []ports.Batch) { p.between(func() { p.spoil = spoil }) }

// between calls f between two batches.
func (p *pair) between(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// equal reports whether the hearer has all that the teller has told.
func (p *pair) equal() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.teller.table.news.mu.Lock()
	defer p.teller.table.news.mu.Unlock()
	return p.teller.table.news.told.total() == p.ledger.total()
}
