package display

import "github.com/opencloud/ocnode/ports"

// The first letters of an identity tell its kind of key, and two identities differ in the
// last ones: ShortTail of them are mostly enough.
const shortHead, ShortTail = 7, 6

// Short is an identity's first letters and its last ones, tail of them.
func Short(id ports.PeerID, tail int) string {
	if len(id) <= shortHead+tail+1 {
		return string(id)
	}
	return string(id[:shortHead]) + Ellipsis + string(id[len(id)-tail:])
}

// Telling returns how many letters of the end tell every one of ids from the others.
func Telling(ids []ports.PeerID) int {
	tail := ShortTail
	for ambiguous(ids, tail) { // ends: whole, they differ
		tail++
	}
	return tail
}

// ambiguous reports whether two of ids look alike with so many letters of the end.
func ambiguous(ids []ports.PeerID, tail int) bool {
	by := make(map[string]ports.PeerID, len(ids))
	for _, id := range ids {
		s := Short(id, tail)
		if other, taken := by[s]; taken && other != id {
			return true
		}
		by[s] = id
	}
	return false
}
