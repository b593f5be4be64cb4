package domain

import (
	"fmt"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// An indexer that changes its address and changes it back, as fast as it can, must
// not fill the wheel of what waits for its due time.
func TestOnePeerIDDoesNotFillTheWheel(t *testing.T) {
	r, _ := bareRegistry(t, "self", nil) // Run does not run, so nothing is put
	for i := range 4000 {
		// Two of the same: the first is urgent, the second waits for its due time.
		if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: fmt.Sprint("/", i/2)}); err != nil {
			t.Fatal(err)
		}
		rec := r.table.shard("x").record("x")
		if rec.outbox.phase == ready { // as a worker does
			r.outbox.ready = nil
			rec.outbox = outboxState{waits: rec.outbox.waits}
			rec.outbox.due.set(r.now().at.Add(r.rules.Policy.putInterval()))
		}
	}
	held := 0
	for _, slot := range r.outbox.delayed.slots {
		held += len(slot)
	}
	if held > 2 { // its due time, and the earlier one of a change
		t.Errorf("one PeerID waits in %d places", held)
	}
}

// A record that was urgent and is let go must not count as urgent still: its next change would not
// be due earlier than a renewal.
func TestWhatIsLetGoIsNotUrgentAnyMore(t *testing.T) {
	r, _ := bareRegistry(t, "self", nil) // Run does not run, so nothing is put
	if _, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil {
		t.Fatal(err)
	}
	rec := r.table.shard("x").record("x")
	held := *rec.holding()
	held.first.source = told // another native's now
	rec.hold(&held, view{shown: &held.first}, nil)
	newWorker(r.outbox).fly(rec.ref)
	if rec.outbox.phase != idle || rec.outbox.urgent {
		t.Errorf("what was let go is %+v", rec.outbox)
	}
}
