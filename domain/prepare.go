package domain

import (
	"bytes"
	"iter"
	"runtime"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// prepared is a change whose proof is checked as far as it goes without the table's lock.
type prepared struct {
	ports.Change
	err error // why it is refused
}

// preparedAtOnce is how many changes are prepared while as many before them are merged: enough that two
// processors check their signatures at the least cost each. With twice as many nothing is faster.
const preparedAtOnce = 512

// giveWayAfter is how many changes are merged before others may run, so that heartbeats do not wait: 0.1 ms.
const giveWayAfter = 16

// prepareAll yields the changes that the native from told, prepared, in their order. It prepares the next
// while the caller merges those before.
func (r *Registry) prepareAll(from ports.PeerID, changes []ports.Change) iter.Seq2[int, prepared] {
	return func(yield func(int, prepared) bool) {
		if len(changes) <= preparedAtOnce {
			for i, c := range r.prepare(from, changes) {
				if !yield(i, c) {
					return
				}
			}
			return
		}
		ready, done := make(chan []prepared), make(chan struct{})
		go func() {
			defer close(ready)
			for some := range slices.Chunk(changes, preparedAtOnce) {
				select {
				case ready <- r.prepare(from, some):
				case <-done:
					return
				}
			}
		}()
		defer func() {
			close(done)
			for range ready {
			}
		}()
		i := 0
		for some := range ready {
			for _, c := range some {
				if i%giveWayAfter == 0 {
					runtime.Gosched()
				}
				if !yield(i, c) {
					return
				}
				i++
			}
		}
	}
}

// prepare copies the changes that the native from told, and checks the records that are new to this
// native, many at a time. Only such a proof has its Claim then: a Claim that comes with a change is not
// this native's own finding.
func (r *Registry) prepare(from ports.PeerID, changes []ports.Change) []prepared {
	all := make([]prepared, len(changes)) // other followers may get the same changes
	var proofs []*ports.Proof
	var places []int
	for i := range changes {
		c := &all[i].Change
		*c = changes[i]
		p := c.Proof
		if p == nil {
			continue
		}
		c.Proof = &ports.Proof{Record: p.Record, Tick: p.Tick}
		if p.Record == nil || r.rules.Proofs == nil || r.tellable(from, c) != nil {
			continue
		}
		if held := r.proofOf(c.PeerID, p.Tick.Seq); held == nil || !bytes.Equal(held.Record, p.Record) {
			proofs, places = append(proofs, c.Proof), append(places, i)
		}
	}
	if len(proofs) == 0 {
		return all
	}
	for i, err := range r.rules.verifyAll(proofs) {
		all[places[i]].err = err
	}
	return all
}

// tellable returns why the native from may not tell c, nil if it may.
func (r *Registry) tellable(from ports.PeerID, c *ports.Change) error {
	switch {
	case c.PeerID == "", c.Kind == ports.ChangeExpired, c.Kind == ports.ChangeLate, c.Kind == ports.ChangeStale:
		return errNoChange
	case c.Native != from && c.Kind != ports.ChangeLeft && (c.Native != r.rules.Self || c.Proof == nil):
		return errNotIts // but for a signed lease that this native granted before it was started
	case c.Remaining > r.rules.Policy.TTL && c.Proof == nil:
		return errNoTime
	case c.Remaining <= 0:
		return ErrExpired
	}
	return nil
}
