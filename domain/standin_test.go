package domain_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A heartbeat of the lease here is overdue, and two natives tell the next tick: both of their
// leases end when that does. Which of them stands in does not hang on who told first.
func TestTwoEqualLeasesStandInAlikeInEitherOrder(t *testing.T) {
	s := prooftest.NewSigner(t)
	id := peerIDs(4)
	var native [2]ports.PeerID
	for i := range 2 {
		tabled(t, settings{self: id[0], proofs: proof.NewVerifier()}, func(t *testing.T, a *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
			w := s.Says(t, time.Now(), 2, addr)
			time.Sleep(100 * time.Millisecond)
			if _, err := a.Register(t.Context(), s.PeerID, w.Registration(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(prooftest.Interval + 500*time.Millisecond)
			e := w.Entry(1)
			for _, by := range [][]ports.PeerID{{id[1], id[2]}, {id[2], id[1]}}[i] {
				of := e
				of.Native, of.Proof = by, &ports.Proof{Record: e.Proof.Record, Tick: e.Proof.Tick}
				a.TakeChanges(by, []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: of, Remaining: 66 * time.Second}}})
			}
			time.Sleep(4 * time.Second)
			l, _ := a.Get(s.PeerID)
			if native[i] = l.Native; native[i] == id[0] {
				t.Fatal("nothing stands in")
			}
		})
	}
	if native[0] != native[1] {
		t.Errorf("shown by way of %s, or of %s", native[0], native[1])
	}
}

// A sweep comes at the instant at which a heartbeat is overdue, and another native has told a longer
// lease of the same address. Watchers are told that it stands in, as it is listed from then on.
func TestWatchersAreToldOfAStandInFromTheInstantThatAHeartbeatIsOverdue(t *testing.T) {
	tabled(t, settings{}, func(t *testing.T, n *domain.Registry, _ ports.Store, _ *porttest.Recorder) {
		id := peerIDs(4)
		got := watches(t, n, ports.WatchRequest{Renewed: true})
		time.Sleep(10 * time.Second) // at a sweep
		registers(t, n, id[3], addr)
		time.Sleep(20*time.Second + 300*time.Millisecond)
		n.TakeChanges(id[1], saysLease(id[1], id[3], addr, 0))
		time.Sleep(42 * time.Second)
		synctest.Wait()
		l, ok := n.Get(id[3])
		last := (*got)[len(*got)-1]
		if !ok || l.Native != last.Native || l.State != last.State {
			t.Errorf("%s of %s is listed, and the last that a watcher was told is %s by %s, %s", l.State, l.Native, last.Kind, last.Native, last.State)
		}
	})
}
