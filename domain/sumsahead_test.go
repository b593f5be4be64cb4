package domain

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Entries that are told for an ask may have renewals that are not told yet by number. No sum comes between both.
func TestSumsBehindAnAskAreThoseOfItsEntries(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer func() { p.reader.stop() }()
		other := follow(t, p.teller, "") // so the ticks do not begin anew with the next watch
		defer other.stop()
		p.registers(t, "x", "/a")
		p.reader.stop()
		time.Sleep(200 * time.Millisecond)
		p.begin(t, "") // a sum is due 0.2 s after a tick
		sums := p.teller.rules.Policy.sumsInterval()
		for range 3 {
			time.Sleep(sums - 100*time.Millisecond)
			p.registers(t, "x", "/a")
			p.between(func() {
				p.ledger.asked = []ports.Range{{From: 1, Until: 2, Whole: true}}
				p.ledger.asking, p.ledger.since = time.Now(), map[uint32]bool{}
			})
			p.reader.ask <- []ports.Range{{From: 1, Until: 2, Whole: true}}
			time.Sleep(100 * time.Millisecond)
		}
		p.pass(3)
		if !p.equal() {
			t.Error("the sums differ")
		}
		if ended := p.events.Of(ports.EventReconciled); len(ended) > 0 {
			t.Errorf("it looked for a difference: %v", ended)
		}
	})
}
