package domain

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// While a snapshot is sent, an indexer renews by a tick, and then signs another record. A watcher
// gets no tick of a record that it was not given.
func TestASnapshotTellsNoTickWithoutItsRecord(t *testing.T) {
	s := prooftest.NewSigner(t)
	r, _ := bareRegistry(t, "me", nil)
	for i := range maxBatch + 200 { // they sort before the signer
		id := ports.PeerID(fmt.Sprintf("0%05d", i))
		if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/a"}); err != nil {
			t.Fatal(err)
		}
	}
	registers := func(w prooftest.Word, step uint32) {
		reg := w.Registration(step)
		if step > 0 {
			reg.Proof = &ports.Proof{Tick: reg.Proof.Tick}
		}
		if _, err := r.Register(t.Context(), s.PeerID, reg); err != nil {
			t.Fatal(err)
		}
	}
	first, second := s.Says(t, time.Now().Add(-2*time.Second), 1, "/b"), s.Says(t, time.Now().Add(-time.Second), 1, "/c")
	registers(first, 0)
	records := map[int64]bool{}
	begun := false
	for b, err := range r.Watch(t.Context(), "", ports.WatchRequest{Own: true, Renewed: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if !begun {
			begun = true
			registers(first, 1)
			registers(second, 0)
		}
		for _, c := range b.Changes {
			switch {
			case c.Proof == nil:
			case c.Proof.Record != nil:
				records[c.Proof.Tick.Seq] = true
			case !records[c.Proof.Tick.Seq]:
				t.Errorf("a %s of step %d without its record", c.Kind, c.Proof.Tick.Step)
			}
		}
		if b.Cursor != "" {
			break
		}
	}
}
