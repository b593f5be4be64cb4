package domain

import (
	"cmp"

	"github.com/opencloud/ocnode/ports"
)

// Bounds is how much a native holds at most, against any number of hostile peers. The zero value
// of each field stands for its default.
type Bounds struct {
	// Entries bounds the live table. In a full table the listed indexers renew. A new indexer takes
	// the place of an indexer that an untrusted peer told, and is refused if there is none.
	Entries int
	// Trusted says by whose word the whole table may fill; any other peer fills an eighth at most.
	// It is called under locks, and must not block. nil trusts no peer.
	Trusted func(ports.PeerID) bool
	// Unfound bounds the known set: at most so many PeerIDs beyond twice the live entries.
	// Over that the oldest never-found PeerID gives way.
	Unfound int
}

const (
	// DefaultEntries is some 400 MB at 200 bytes an entry, and 700 MB if all are signed: twice the million
	// entries of the measurements.
	DefaultEntries = 2 << 20
	// maxEntries is 134 million: half of what the shards' indexes can tell apart, as no two shards have
	// the same number.
	maxEntries = shardCount * (maxSlots + 1) / 2
	// DefaultUnfound leaves room for indexers that this native has not seen alive yet. Made-up
	// PeerIDs take 2 MB of it at most.
	DefaultUnfound = 10_000
)

func (b Bounds) entries() int { return min(cmp.Or(b.Entries, DefaultEntries), maxEntries) }
func (b Bounds) unfound() int { return cmp.Or(b.Unfound, DefaultUnfound) }
