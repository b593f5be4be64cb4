package domain

import (
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file bounds what false links cost. A native may tell a link thousands of steps ahead of the known one, in 40
// bytes, and only as many hashes show that the link is false. True links count against nothing: a native whose indexers stood
// still has many at once.

const (
	// wastedRate is how many steps a second are hashed in vain for each followed native: 0.1 ms, a tenth of a core for
	// a thousand of them. wastedAtOnce is one false link: an honest native tells none.
	wastedRate   = 1024
	wastedAtOnce = ports.MaxSteps
)

func newWasted() *allowance {
	return newAllowance(wastedRate, wastedAtOnce*time.Second/wastedRate)
}

// advanceTold is advance for a tick that a followed native told, by its ledger l. A tick far ahead is refused unseen
// while too many hashes were in vain for that native. l is nil for a native that was asked.
func (r *Registry) advanceTold(l *ledger, proof *ports.Proof, tick ports.Tick) (*ports.Proof, error) {
	if l == nil || tick.Step <= proof.Tick.Step || tick.Step-proof.Tick.Step <= hashesLocked || tick.Step > ports.MaxSteps {
		return r.advance(proof, tick)
	}
	at := r.now().at
	if !l.wasted.left(at) {
		return nil, ports.Faulty(ports.FaultTick, "tick's link is of step %d, far ahead, and its native told false links before", tick.Step)
	}
	advanced, err := r.advance(proof, tick)
	if err != nil {
		l.wasted.spend(int(tick.Step-proof.Tick.Step), at)
	}
	return advanced, err
}
