package domain

import (
	"strings"
	"testing"
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
