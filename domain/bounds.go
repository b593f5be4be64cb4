package domain

import "cmp"

// Bounds is how much a native holds at most, whoever fills it. The zero value of each
// stands for its default.
type Bounds struct {
	// Entries bounds the live table. When it is full, who is in it renews and nobody else
	// comes in.
	Entries int
	// Unfound is how many PeerIDs more than twice the live entries are known and looked up
	// at most; the oldest that was never found gives way.
	Unfound int
}

const (
	// DefaultEntries is some 600 MB at 300 bytes an entry, and twice the million that a
	// native is measured with.
	DefaultEntries = 2 << 20
	// DefaultUnfound is room for a network that is larger than what this native has seen
	// alive, and 2 MB at most for one that is lied to.
	DefaultUnfound = 10_000
)

func (b Bounds) entries() int { return cmp.Or(b.Entries, DefaultEntries) }
func (b Bounds) unfound() int { return cmp.Or(b.Unfound, DefaultUnfound) }
