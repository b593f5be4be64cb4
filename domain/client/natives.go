package client

import (
	"cmp"
	"context"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxCandidates bounds the natives that are remembered of those found: many times as many
	// as an indexer takes, and few enough that lies cost little.
	maxCandidates = 64
	// lookTimeout bounds one look around: a search in the DHT, the answers of a local network
	// and those of natives, side by side.
	lookTimeout = 5 * time.Second
	// maxNativesAsked bounds the natives that are asked for others at a time: a native that
	// one of them hides another may tell of.
	maxNativesAsked = 3
	// maxToldBy bounds the candidates that one native has told of and that do not answer yet. A
	// native that makes candidates up keeps out no native that is found otherwise.
	maxToldBy = maxCandidates / 8
	// maxWitnesses bounds the natives that are asked in turn for this indexer: a few, so that it
	// connects to few more than it registers with, and more than one, since one may lie.
	maxWitnesses = 4
	// askNativeAgain is the pause before a native is asked for others again: in a network of few
	// natives all indexers look for more, for ever.
	askNativeAgain = 30 * time.Second
	// retrySilent is the pause before a native is tried again that took a registration and said
	// nothing, or told nobody. A native of the seed says nothing rightly, and will do so again.
	retrySilent = 10 * time.Minute
)

// retryNative is the pause before a found native that failed is tried again: up to half of the
// seed's heartbeat, so that a network that comes back has everyone within a heartbeat.
var retryNative = domain.Backoff{First: time.Second, Max: 30 * time.Second}

// Natives are the natives that a node turns to: those that it was given, or those that it finds.
// All methods may be called concurrently.
type Natives struct {
	pinned map[ports.PeerID]ports.Native
	blinds map[ports.PeerID]time.Time // of pinned: until when it counts as blind
	seed   maphash.Seed               // of the order of witnesses, which no native can know

	self        ports.PeerID
	trusts      domain.Trust
	transport   ports.Transport
	discoveries []ports.Discovery
	hints       Hints

	mu         sync.Mutex
	bootstrap  map[ports.PeerID]bool // the peers that the operator named, at the last meet
	candidates map[ports.PeerID]*candidate
	added      chan struct{} // closed when a candidate is added
	looking    chan struct{} // closed when the look under way has ended; nil if none is
	looked     time.Time     // when the last one ended
}

// candidate is a native that was found.
type candidate struct {
	id       ports.PeerID
	native   ports.Native
	standing standing
	failures int       // in a row
	next     time.Time // when it may be tried again
	// connected is whether it was at the last meet.
	connected bool
	teller    ports.PeerID // the native that told of it; "" if it was met, or found otherwise
	asked     time.Time    // for others
	held      bool         // by the indexer, or on trial; it makes way for none
	bootstrap bool         // it is the native of a bootstrap peer
	blinded   time.Time    // until when it counts as blind
	site      string       // "" if its addresses say nothing
}

// blind reports whether it offers no look-up. It is asked again after a while: its operator may have
// updated it.
func (c *candidate) blind() bool { return time.Now().Before(c.blinded) }

// Hints are what a node knows of natives beside what it finds. Each may be nil.
type Hints struct {
	// Bootstrap returns the peers that the operator named, at their addresses of now, and a channel
	// that closes once they change. They need not be natives. It must not block.
	Bootstrap func() (peers []ports.Found, changed <-chan struct{})
	// Site returns the site of an address: whoever has one address of a site may have all. It is ""
	// for addresses that say nothing, as of a private network.
	Site func(addr string) string
}

// Heed has the natives of bootstrap peers held beside those that are found, and natives of different
// sites preferred. Call it before an Indexer runs.
func (n *Natives) Heed(h Hints) { n.hints = h }

// standing is how well a native answers. The best is the least.
type standing int

const (
	answers   standing = iota // when it was asked last
	watchable                 // not asked yet, but connected, and no native of the seed
	untried
	silent  // took a registration, and said nothing
	doubted // granted a lease that no other native shows
	fails
)

// like reports whether natives of either standing are as good: none of both was asked yet.
func (s standing) like(t standing) bool {
	return s == t || min(s, t) == watchable && max(s, t) == untried
}

// PinNatives returns natives that are given once and for all.
func PinNatives(natives map[ports.PeerID]ports.Native) *Natives {
	return &Natives{pinned: natives, blinds: make(map[ports.PeerID]time.Time), seed: maphash.MakeSeed()}
}

// PinAt adds natives that are given by their addresses. A native that fails is sought where the other
// given natives and the discoveries tell of it. self is this node. Call it before an Indexer or a
// Finder runs.
func (n *Natives) PinAt(self ports.PeerID, transport ports.Transport, given map[ports.PeerID][]string, discoveries ...ports.Discovery) error {
	n.self = self
	seek := func(ctx context.Context) {
		n.ask(ctx, discoveries, n.knowing(0), func(by teller, f ports.Found) {
			if r, ok := n.pinned[f.PeerID].(*route); ok {
				_ = r.hear(by, f.Addrs) // addresses that cannot be dialled are no news
			}
		})
	}
	for id, addrs := range given {
		r := &route{id: id, transport: transport, seek: seek}
		if err := r.give(addrs); err != nil {
			return err
		}
		n.pinned[id] = r
	}
	return nil
}

// FindNatives returns natives that are yet to be found: those that transport is connected
// to, those that these know, and those that the discoveries find, as far as trusts has them. self
// is never among them. An Indexer or a Finder does the looking.
func FindNatives(self ports.PeerID, trusts domain.Trust, transport ports.Transport, discoveries ...ports.Discovery) *Natives {
	if trusts == nil {
		trusts = func(ports.PeerID) bool { return true }
	}
	return &Natives{
		self: self, trusts: trusts, transport: transport, discoveries: discoveries,
		candidates: make(map[ports.PeerID]*candidate), added: make(chan struct{}), seed: maphash.MakeSeed(),
	}
}

// meet takes in the natives that this node is connected to, and which of them are bootstrap peers. It
// returns channels that are closed once those may have changed, once there is another candidate, and
// once the bootstrap peers have changed.
func (n *Natives) meet() (changed, added, named <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	neighbours, changed := n.transport.Neighbours()
	for _, c := range n.candidates {
		c.connected = false
	}
	for _, neighbour := range neighbours {
		if c := n.candidates[neighbour.PeerID]; c != nil {
			c.connected = true
		}
	}
	var bootstrap []ports.Found
	if n.hints.Bootstrap != nil {
		bootstrap, named = n.hints.Bootstrap()
	}
	n.bootstrap = make(map[ports.PeerID]bool)
	for _, peer := range bootstrap {
		n.bootstrap[peer.PeerID] = true
	}
	for _, c := range n.candidates {
		c.bootstrap = n.bootstrap[c.id]
	}
	for _, neighbour := range neighbours {
		c := n.add(neighbour.PeerID, neighbour.Addrs, teller{native: neighbour.PeerID}, true)
		if c == nil {
			continue
		}
		if r, ok := c.native.(*route); ok {
			r.meets(neighbour.At)
		}
		if c.standing == untried && neighbour.Watchable {
			c.standing = watchable
		}
	}
	for _, peer := range bootstrap {
		// A bootstrap peer that has not been met need not be a native.
		if c := n.candidates[peer.PeerID]; c != nil {
			if r, ok := c.native.(*route); ok {
				_ = r.give(peer.Addrs) // addresses that cannot be dialled are no news
			}
		}
	}
	return changed, n.added, named
}

// look takes in the natives that the discoveries find and that natives which answer know. It
// returns when all have been asked or ctx has ended, and at once if the last look ended less than
// again ago. Each native is asked once in askAgain at most. Callers at the same time share a look.
func (n *Natives) look(ctx context.Context, again, askAgain time.Duration) {
	n.mu.Lock()
	if ended := n.looking; ended != nil {
		n.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		return
	}
	if time.Since(n.looked) < again {
		n.mu.Unlock()
		return
	}
	ended := make(chan struct{})
	n.looking = ended
	n.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	n.ask(ctx, n.discoveries, n.knowing(askAgain), func(by teller, f ports.Found) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if by.native != "" {
			n.addToldBy(by.native, f.PeerID, f.Addrs)
		} else {
			n.add(f.PeerID, f.Addrs, by, false)
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking, n.looked = nil, time.Now()
	close(ended)
}

// knowing returns natives to ask for others: a few of those that answer, and were not asked for that
// long.
func (n *Natives) knowing(askAgain time.Duration) (natives []candidate) {
	for _, c := range n.best() {
		if c.standing > watchable || len(natives) == maxNativesAsked {
			break
		}
		if r, ok := c.native.(*route); ok && r.failing() || !n.mayAsk(c.id, askAgain) {
			continue
		}
		natives = append(natives, c)
	}
	return natives
}

// ask asks the discoveries and natives for natives, and returns when all have answered or ctx has
// ended. found is called concurrently.
func (n *Natives) ask(ctx context.Context, discoveries []ports.Discovery, natives []candidate, found func(by teller, f ports.Found)) {
	var asking sync.WaitGroup
	// A discovery that fails has found nothing, and is asked again.
	for i, d := range discoveries {
		asking.Go(func() { _ = d.Find(ctx, func(f ports.Found) { found(teller{discovery: i}, f) }) })
	}
	for _, c := range natives {
		asking.Go(func() {
			known, _ := c.native.Natives(ctx, n.self)
			// Indexers that ask are not to turn to the same few.
			rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
			for _, s := range known[:min(len(known), maxCandidates)] {
				if len(s.Addrs) > 0 {
					found(teller{native: c.id}, ports.Found{PeerID: s.PeerID, Addrs: s.Addrs})
				}
			}
		})
	}
	asking.Wait()
}

// seek asks those that may know where the natives are now. It is look for the sake of a native that
// fails, and as often as the indexer tries that native again.
func (n *Natives) seek(ctx context.Context) { n.look(ctx, 0, 0) }

// add takes in that a teller names addrs of id, and makes id a candidate; the caller holds the
// lock. It returns nil for a native that is not trusted or cannot be dialled, and where there are
// better candidates enough.
func (n *Natives) add(id ports.PeerID, addrs []string, by teller, connected bool) *candidate {
	if id == n.self || !n.trusts(id) {
		return nil
	}
	if c := n.candidates[id]; c != nil {
		if r, ok := c.native.(*route); ok {
			_ = r.hear(by, addrs) // addresses that cannot be dialled are no news
		}
		return c
	}
	r := &route{id: id, transport: n.transport, seek: n.seek}
	c := &candidate{id: id, native: r, standing: untried, connected: connected, bootstrap: n.bootstrap[id]}
	if r.hear(by, addrs) != nil || !n.makeRoom(c) {
		return nil
	}
	n.candidates[id] = c
	close(n.added)
	n.added = make(chan struct{})
	return c
}

// hold keeps the candidate id in its place for as long as the indexer holds or tries it.
func (n *Natives) hold(id ports.PeerID, holds bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.candidates[id]; c != nil {
		c.held = holds
	}
}

// mayAsk reports whether a native may be asked for others now, and notes that it is.
func (n *Natives) mayAsk(id ports.PeerID, again time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.candidates[id]
	if c == nil {
		return n.pinned[id] != nil
	}
	if !c.asked.IsZero() && time.Since(c.asked) < again {
		return false
	}
	c.asked = time.Now()
	return true
}

// addToldBy is add for a native that the native by told of. There are maxToldBy of those that are
// not connected and do not answer. Beyond that a candidate that fails makes way. The caller holds
// the lock.
func (n *Natives) addToldBy(by, id ports.PeerID, addrs []string) {
	told := 0
	var worst *candidate
	for _, c := range n.candidates {
		if c.teller != by || c.connected || c.held || c.bootstrap || c.standing < untried {
			continue
		}
		told++
		if c.standing == fails && (worst == nil || c.failures > worst.failures) {
			worst = c
		}
	}
	known := n.candidates[id] != nil
	switch {
	case known || told < maxToldBy:
	case worst == nil || id == n.self || !n.trusts(id):
		return
	default:
		delete(n.candidates, worst.id)
	}
	if c := n.add(id, addrs, teller{native: by}, false); c != nil && !known {
		c.teller = by
	}
}

// Revise lets go of the natives that the indexer trusts no more, and looks for those that it trusts
// now. Call it after each change of the trust. Natives from the configuration stay.
func (n *Natives) Revise() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.transport == nil {
		return
	}
	maps.DeleteFunc(n.candidates, func(id ports.PeerID, _ *candidate) bool { return !n.trusts(id) })
	close(n.added)
	n.added = make(chan struct{})
}

// retry has natives that failed be tried at once.
func (n *Natives) retry() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.candidates {
		if c.standing == fails {
			c.failures, c.next = 0, time.Time{}
		}
	}
}

// makeRoom reports whether there is room for a new candidate, and makes it if it can. A candidate that
// fails makes way for any. A candidate that was not asked yet makes way for a connected candidate. A
// connected candidate makes way for none but the native of a bootstrap peer: it would be back at once,
// and its failures forgotten. Half the room is for candidates that are not connected, so that peers
// that connect cannot keep them out. Strangers cannot keep out natives of bootstrap peers. The caller
// holds the lock.
func (n *Natives) makeRoom(is *candidate) bool {
	met := 0
	var worst *candidate
	for _, c := range n.candidates {
		if c.connected {
			met++
		}
		if c.held || c.bootstrap || c.connected && !is.bootstrap {
			continue
		}
		if worst == nil || c.standing > worst.standing || c.standing == worst.standing && c.failures > worst.failures {
			worst = c
		}
	}
	switch {
	case is.connected && !is.bootstrap && met >= maxCandidates/2:
		return false
	case len(n.candidates) < maxCandidates:
		return true
	case worst == nil:
		return false
	case is.bootstrap:
	case worst.standing < untried, worst.standing < fails && !is.connected:
		return false
	}
	delete(n.candidates, worst.id)
	return true
}

// due returns the best candidate that is not taken and may be tried at now, of equals one of a site
// where none is taken. Without such a candidate it returns when the next may be tried; the zero time
// if there is none.
func (n *Natives) due(taken func(ports.PeerID) bool, now time.Time) (_ candidate, next time.Time, ok bool) {
	all := n.best()
	sites := make(map[string]bool)
	for _, c := range all {
		if c.site != "" && taken(c.id) {
			sites[c.site] = true
		}
	}
	var best *candidate
	for i, c := range all {
		switch {
		case taken(c.id):
		case c.next.After(now):
			if next.IsZero() || c.next.Before(next) {
				next = c.next
			}
		case best == nil, sites[best.site] && !sites[c.site] && c.standing.like(best.standing):
			best = &all[i]
		}
	}
	if best == nil {
		return candidate{}, next, false
	}
	return *best, now, true
}

// witness returns a native that can say whether it knows the leases of this indexer at the natives
// of. Those are none without such a native, and have the value true if no other native can say it.
// Only natives of bootstrap peers are asked if any of them can answer: the operator named them. Else a native
// speaks for the leases of other sites alone, since the natives of a site may belong together. A site
// has one native among those that are asked, however many natives it has. Of several it is not last.
func (n *Natives) witness(leases []ports.PeerID, last ports.PeerID) (_ candidate, of map[ports.PeerID]bool) {
	all := n.best()
	sites := make(map[ports.PeerID]string)
	named := false
	for _, c := range all {
		sites[c.id] = c.site
		named = named || c.bootstrap && !c.blind() && c.standing != silent
	}
	rank := func(c candidate) uint64 { return maphash.String(n.seed, string(c.id)) }
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(rank(a), rank(b)) })
	var witnesses []candidate
	met := make(map[string]bool)
	speaks := func(c candidate, id ports.PeerID) bool {
		return id != c.id && (named || c.site == "" || c.site != sites[id])
	}
	for _, c := range all {
		if c.blind() || named != c.bootstrap || c.standing > untried && !(named && c.standing == doubted) {
			continue
		}
		able := slices.ContainsFunc(leases, func(id ports.PeerID) bool { return speaks(c, id) })
		if site := cmp.Or(c.site, string(c.id)); able && !met[site] && len(witnesses) < maxWitnesses {
			met[site] = true
			witnesses = append(witnesses, c)
		}
	}
	if len(witnesses) == 0 {
		return candidate{}, nil
	}
	asked := witnesses
	if others := slices.DeleteFunc(slices.Clone(witnesses), func(c candidate) bool { return c.id == last }); len(others) > 0 {
		asked = others
	}
	w := asked[rand.IntN(len(asked))]
	of = make(map[ports.PeerID]bool)
	for _, id := range leases {
		if speaks(w, id) {
			of[id] = !slices.ContainsFunc(witnesses, func(c candidate) bool { return c.id != w.id && speaks(c, id) })
		}
	}
	return w, of
}

// blind remembers for a while that a native offers no look-up.
func (n *Natives) blind(id ports.PeerID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	until := time.Now().Add(retrySilent)
	if c := n.candidates[id]; c != nil {
		c.blinded = until
	} else if n.pinned[id] != nil {
		n.blinds[id] = until
	}
}

// siteOf returns the site of a native, "" if its addresses say nothing. The caller holds the lock.
func (n *Natives) siteOf(native ports.Native) string {
	r, ok := native.(*route)
	if !ok || n.hints.Site == nil {
		return ""
	}
	return r.siteBy(n.hints.Site)
}

// best returns all candidates by their standing, in random order among equals.
func (n *Natives) best() []candidate {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []candidate
	for id, native := range n.pinned {
		all = append(all, candidate{id: id, native: native, bootstrap: true, blinded: n.blinds[id]})
	}
	for _, c := range n.candidates {
		c.site = n.siteOf(c.native)
		all = append(all, *c)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.standing, b.standing) })
	return all
}

// noteLookUp remembers how id stood when it was asked for another peer. An answer says nothing of
// its leases.
func (n *Natives) noteLookUp(id ports.PeerID, s standing) {
	n.mu.Lock()
	c := n.candidates[id]
	keeps := c != nil && c.standing == doubted && s == answers
	n.mu.Unlock()
	if !keeps {
		n.note(id, s)
	}
}

// note remembers how id stood when it was tried, and when it may be tried again.
func (n *Natives) note(id ports.PeerID, s standing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.candidates[id]
	if c == nil {
		return
	}
	c.standing = s
	switch s {
	case fails:
		c.next = time.Now().Add(domain.Early(retryNative.Pause(c.failures), rand.Float64()))
		c.failures++
	case silent, doubted:
		c.failures, c.next = 0, time.Now().Add(domain.Early(retrySilent, rand.Float64()))
	default:
		c.failures, c.next = 0, time.Time{}
	}
}
