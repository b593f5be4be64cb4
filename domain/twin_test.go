package domain

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A native that is started again is in a new run. Two processes with one key are in two runs by turns.
func TestTwoNativesWithOneKeyAreTold(t *testing.T) {
	for starts, want := range map[string]string{
		"":                    "",
		"a":                   "",
		"a a a":               "",
		"a b c":               "",
		"a  a":                "", // a native of an earlier version says nothing
		"a b a":               "a",
		"a a b b a a":         "a",
		"a b a b":             "a b",
		"a b c d e f g h a":   "a",
		"a b c d e f g h i a": "", // too long ago
	} {
		var n followed
		var got []string
		for start := range strings.SplitSeq(starts, " ") {
			if n.twin(start) {
				got = append(got, start)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: told at %q, want %q", starts, got, want)
		}
	}
}

// Two processes with one key number their indexers each by itself. A table that breaks off is none to go on with.
func TestATableThatBreaksOffLeavesNoCursorOfTheTableBefore(t *testing.T) {
	var cursors []string
	first := true
	native := porttest.Native{OnWatch: func(_ context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			cursors = append(cursors, w.Cursor)
			b := ports.Batch{Reset: ports.ResetUnknown, News: &ports.News{}}
			if first {
				first, b.Cursor = false, "one.1"
			}
			_ = yield(b, nil) && yield(ports.Batch{}, errTwin)
		}
	}}
	r, _ := bareRegistry(t, "me", nil)
	f := NewFollower(r.rules, nil, FollowerSettings{})
	f.registry = r
	n := &followed{id: "twins", native: native}
	for range 3 {
		_, _ = f.watch(t.Context(), n)
	}
	if want := []string{"", "one.1", ""}; !slices.Equal(cursors, want) {
		t.Errorf("it watches from %q, want %q", cursors, want)
	}
}
