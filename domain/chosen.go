package domain

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file says which natives a native follows. Their clocks vote too, so it bounds the votes of
// strangers as well.

const (
	// maxFollowed bounds the natives that one native follows beside the configured ones. Gossip brings
	// the entries of all other natives, connected or not.
	maxFollowed = ports.MaxFollowed
	// siteShare bounds those of them at one public site, one in so many, since anybody can make identities.
	// fewOfSite may be there in any case.
	siteShare, fewOfSite = 8, 8
	// emptyFor is how long a native is followed that told no signed entry, before another native
	// may take its place. So strangers who come in masses cost a stream each such while.
	emptyFor = 10 * time.Second
)

// configured reports whether an operator named the native: in host.bootstrap, or in a list of
// trusted natives.
func (f *Follower) configured(id ports.PeerID) bool { return f.bootstrap[id] || f.listed(id) }

func (f *Follower) listed(id ports.PeerID) bool {
	return f.settings.Listed != nil && f.settings.Listed(id)
}

// candidate is a neighbour that may be followed.
type candidate struct {
	id       ports.PeerID
	site     string
	rank     int
	followed bool
}

// choose returns the neighbours to follow: all configured ones, and of the others those with
// signed entries first. It returns when to choose again since a native has its chance until then,
// zero without one. The caller holds the lock.
func (f *Follower) choose(neighbours []ports.Neighbour) (chosen map[ports.PeerID]bool, again time.Time) {
	var candidates []candidate
	for _, is := range neighbours {
		if is.Watchable && is.PeerID != f.self {
			n := f.followed[is.PeerID]
			candidates = append(candidates, candidate{is.PeerID, is.Site, f.rank(is.PeerID), n != nil && n.stop != nil})
		}
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		switch {
		case a.rank != b.rank || a.followed == b.followed:
			return cmp.Compare(a.rank, b.rank)
		case a.followed:
			return -1 // who is followed already, stays
		}
		return 1
	})
	chosen = make(map[ports.PeerID]bool)
	others, sites, waiting := 0, make(map[string]int), false
	mostOf := siteShares(candidates)
	for _, c := range candidates {
		if c.rank > 0 {
			if others >= maxFollowed || c.site != "" && sites[c.site] >= mostOf(c.site) {
				waiting = waiting || c.rank == 2
				continue
			}
			others++
			sites[c.site]++
		}
		chosen[c.id] = true
	}
	if waiting {
		for _, n := range f.followed {
			if at := n.since.Add(emptyFor); n.stop != nil && n.signed == 0 && at.After(time.Now()) && (again.IsZero() || at.Before(again)) {
				again = at
			}
		}
	}
	return chosen, again
}

// siteShares returns how many natives of a public site may be followed: fewOfSite, or as many as are one in
// siteShare of those with all other sites. Of each other site fewOfSite count, or several sites of a
// stranger would make room for each other.
func siteShares(candidates []candidate) (mostOf func(site string) int) {
	all, sites := 0, make(map[string]int)
	for _, c := range candidates {
		if c.rank == 0 || c.site == "" || sites[c.site] < fewOfSite {
			all++
			if c.rank > 0 {
				sites[c.site]++
			}
		}
	}
	return func(site string) int {
		return min(max(fewOfSite, (all-sites[site])/(siteShare-1)), maxFollowed/siteShare)
	}
}

// rank is the place of a native in the order of choice: 0 is configured, 1 told signed entries, 2
// has its chance, 3 had it.
func (f *Follower) rank(id ports.PeerID) int {
	n := f.followed[id]
	switch {
	case f.configured(id):
		return 0
	case n != nil && n.signed > 0:
		return 1
	case n == nil || time.Since(n.since) < emptyFor:
		return 2
	}
	return 3
}

// makeRoom forgets a formerly followed native, if there are many: first of those that are not
// missing.
func (f *Follower) makeRoom() {
	if len(f.followed) < 2*maxFollowed {
		return
	}
	var oldest *followed
	for _, n := range f.followed {
		if n.stop == nil && n.ended() && !f.configured(n.id) && (oldest == nil || n.missed.Before(oldest.missed)) {
			oldest = n
		}
	}
	if oldest != nil {
		f.registry.drop(oldest.ledger)
		delete(f.followed, oldest.id)
	}
}

// ended reports whether the last goroutine that followed n has stopped.
func (n *followed) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}
