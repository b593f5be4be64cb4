package demo

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
)

// snapshot is what there is to see of the network at one time: which nodes run, and
// what each native that does lists, by its own registry.
type snapshot struct {
	at      time.Duration // since the demo began
	natives int
	rows    []row // the natives, the indexers, then the strangers by PeerID
}

// row is what there is to see of one node.
type row struct {
	name, role string
	id         ports.PeerID // "" until it first started
	addrs      []string
	http       string
	running    bool
	gone       bool // it was stopped, and not killed
	// live is how many entries a native has in its live table.
	live int
	// known is whether an indexer ever registered. state and left are those of its entry
	// that expires last; state is "" if no native lists it.
	known bool
	state ports.State
	left  time.Duration
	seen  []mark // by each native
}

// The roles of a row.
const (
	roleNative   = "native"
	roleIndexer  = "indexer"
	roleStranger = "stranger" // an indexer that is none of the demo's
)

// mark says how a native sees an indexer.
type mark int

const (
	markOff   mark = iota // the native is stopped
	markNone              // it does not list the indexer
	markLease             // it granted the lease itself
	markHeard             // it heard what another granted
)

const (
	// pageSize is what the demo asks a native for at a time, and maxListed what it shows
	// at most: strangers may be many.
	pageSize, maxListed = 100, 1000
)

// snapshot asks every native that runs for its live table.
func (n *network) snapshot() snapshot {
	n.mu.Lock()
	s := snapshot{at: time.Since(n.began), natives: len(n.natives)}
	nodes := make([]*modules.Node, len(n.natives))
	byID := make(map[ports.PeerID]int)
	for i, m := range slices.Concat(n.natives, n.indexers) {
		_, known := n.since[m.id]
		r := row{name: m.name, role: roleIndexer, id: m.id, addrs: m.addrs, http: m.http, running: m.node != nil, gone: m.gone, known: known}
		if m.native {
			r.role, nodes[i] = roleNative, m.node
		} else {
			r.seen = make([]mark, len(n.natives))
		}
		if m.id != "" {
			byID[m.id] = i
		}
		s.rows = append(s.rows, r)
	}
	n.mu.Unlock()

	own := len(s.rows)
	for i, node := range nodes {
		if node == nil {
			continue
		}
		now := time.Now()
		listed := list(node)
		s.rows[i].live = len(listed)
		for _, x := range listed {
			at, ok := byID[x.PeerID]
			if !ok {
				at = len(s.rows)
				byID[x.PeerID] = at
				s.rows = append(s.rows, row{
					name: display.Short(x.PeerID, display.ShortTail), role: roleStranger, id: x.PeerID, addrs: []string{x.Addr}, running: true, known: true,
					seen: make([]mark, s.natives),
				})
			}
			r := &s.rows[at]
			if r.seen == nil {
				continue // a native that registered as an indexer, too, has a row already
			}
			r.seen[i] = markHeard
			if x.Native == node.PeerID() {
				r.seen[i] = markLease
			}
			if left := x.ExpiresAt.Sub(now); r.state == "" || left > r.left {
				r.state, r.left = x.State, left
			}
		}
	}
	for _, r := range s.rows {
		for i := range r.seen {
			if nodes[i] != nil && r.seen[i] == markOff {
				r.seen[i] = markNone
			}
		}
	}
	slices.SortFunc(s.rows[own:], func(a, b row) int { return strings.Compare(string(a.id), string(b.id)) })
	return s
}

// list returns what a native lists.
func list(native *modules.Node) []ports.Listed {
	var all []ports.Listed
	for q := (ports.Query{Limit: pageSize}); len(all) < maxListed; {
		page, err := native.Registry().List(context.Background(), "", q)
		all = append(all, page.Entries...)
		if err != nil || page.Next == "" {
			break
		}
		q.After = page.Next
	}
	return all
}
