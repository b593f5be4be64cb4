package domain_test

import (
	"errors"
	"testing"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestAFullTableRenewsAndTakesNobodyElse(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ids := peerIDs(4)
		net := newNetwork(t)
		net.settings.Bounds.Entries = 2
		n := net.native(ids[0], nil)
		defer n.stop()
		register := func(id ports.PeerID) error {
			_, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr})
			return err
		}
		full := func(what string, err error) {
			t.Helper()
			if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy || refusal.Limit != ports.LimitEntries {
				t.Errorf("%s: got %v, want busy, by the limit", what, err)
			}
		}
		for _, id := range ids[1:3] {
			if err := register(id); err != nil {
				t.Errorf("within the bound: %v", err)
			}
		}
		full("a newcomer", register(ids[3]))
		full("the leave of somebody else", n.Leave(t.Context(), ids[3], nil))
		for _, id := range ids[1:3] {
			if err := register(id); err != nil {
				t.Errorf("a renewal: %v", err)
			}
		}
		refused := n.Of(ports.EventRefused)
		if len(refused) != 1 || refused[0].PeerID != ids[3] || refused[0].Err.(*ports.Refusal).Limit != ports.LimitEntries {
			t.Errorf("observed %+v, want one refusal", refused)
		}
	})
}

func TestWhatIsNeverFoundIsBounded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		ids := peerIDs(9)
		net := newNetwork(t)
		net.settings.Bounds.Unfound = 3
		n := net.native(ids[0], nil)
		defer n.stop()
		for i, id := range ids[1:] {
			n.Hear(ports.Announcement{PeerID: id, From: "n", Via: "n"})
			if _, known := n.Counts(); known != min(i+1, 3) {
				t.Errorf("%d are known of %d that were heard of, at most 3 may be", known, i+1)
			}
		}
		if got := n.Count(ports.EventForgotten); got != len(ids)-1-3 {
			t.Errorf("%d are forgotten, want the rest", got)
		}
	})
}
