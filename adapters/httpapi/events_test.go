package httpapi

import (
	"slices"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// A browser has been told "partial", and goes on when the native is whole again.
func TestAReaderThatGoesOnHearsHowFarItCanRelyOnTheTable(t *testing.T) {
	joined := []ports.Change{{Kind: ports.ChangeJoined, Listed: threeIndexers()[0]}}
	var n Narrator
	var kinds []string
	for _, b := range []ports.Batch{{}, {Changes: joined}, {Changes: joined, Cursor: "c2", Live: 2}, {Cursor: "c3"}, {Cursor: "c4", Condition: ports.ConditionPartial}} {
		for _, e := range n.Events(b) {
			if kinds = append(kinds, e.Kind); e.Kind == EventSynced && e.Cursor != "c2" && e.Cursor != "c4" {
				t.Errorf("it is synced at %q, want once it has all that it missed", e.Cursor)
			}
		}
	}
	if want := []string{"joined", "joined", EventSynced, "", EventSynced}; !slices.Equal(kinds, want) {
		t.Errorf("told %q, want %q", kinds, want)
	}
}
