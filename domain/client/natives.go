package client

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxCandidates bounds the natives that are remembered of those found: many times
	// what an indexer takes, and little to be lied to about.
	maxCandidates = 64
	// lookTimeout bounds one look around, all who are asked side by side: a search in the
	// DHT, the answers of a local network and those of natives.
	lookTimeout = 5 * time.Second
	// maxNativesAsked bounds the natives that are asked for others at a time: what one of them hides
	// another may tell.
	maxNativesAsked = 3
	// maxToldBy bounds the candidates that one native has told of and that do not answer yet, or
	// one that makes them up would keep out whoever else finds.
	maxToldBy = maxCandidates / 8
	// askNativeAgain is the pause before a native is asked for others again: where there are few,
	// all indexers look for more, for ever.
	askNativeAgain = 30 * time.Second
	// retrySilent is the pause before one is tried again that took a registration and said
	// nothing: it does as it should, if it knows only the seed, and will do so again.
	retrySilent = 10 * time.Minute
)

// retryNative is the pause before a found native that failed is tried again: up to half of the
// seed's heartbeat, so that a network that comes back has everyone within a heartbeat.
var retryNative = domain.Backoff{First: time.Second, Max: 30 * time.Second}

// Natives are the natives that a node turns to: those that it was given, or whichever it
// finds. All methods may be called concurrently.
type Natives struct {
	pinned map[ports.PeerID]ports.Native

	self        ports.PeerID
	trusts      domain.Trust
	transport   ports.Transport
	discoveries []ports.Discovery

	mu         sync.Mutex
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
	// connected is whether it was when somebody last looked.
	connected bool
	teller    ports.PeerID // who told of it; "" if it was met, or found otherwise
	asked     time.Time    // for others
}

// standing is how well a native answers, the best first.
type standing int

const (
	answers   standing = iota // when it was asked last
	watchable                 // not asked yet, but connected, and no native of the seed
	untried
	silent // took a registration, and said nothing
	fails
)

// PinNatives returns natives that are given once and for all.
func PinNatives(natives map[ports.PeerID]ports.Native) *Natives {
	return &Natives{pinned: natives}
}

// FindNatives returns natives that are yet to be found: those that transport is connected
// to, those that these know, and what the discoveries find, as far as they are trusted. self
// is never one of them.
func FindNatives(self ports.PeerID, trusts domain.Trust, transport ports.Transport, discoveries ...ports.Discovery) *Natives {
	if trusts == nil {
		trusts = func(ports.PeerID) bool { return true }
	}
	return &Natives{
		self: self, trusts: trusts, transport: transport, discoveries: discoveries,
		candidates: make(map[ports.PeerID]*candidate), added: make(chan struct{}),
	}
}

// meet takes in the natives that this node is connected to. The channels are closed once
// those may have changed, and once there is one more candidate.
func (n *Natives) meet() (changed, added <-chan struct{}) {
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
	for _, neighbour := range neighbours {
		c := n.add(neighbour.PeerID, neighbour.Addrs, true)
		if c != nil && c.standing == untried && neighbour.Watchable {
			c.standing = watchable
		}
	}
	return changed, n.added
}

// look takes in what the discoveries find and what natives that answer know, and returns
// when all have been asked, ctx has ended, or at once if they were less than again ago.
// Those who look at the same time share it.
func (n *Natives) look(ctx context.Context, again time.Duration) {
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
	var asking sync.WaitGroup
	found := func(f ports.Found) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.add(f.PeerID, f.Addrs, false)
	}
	// Who could not be asked has found nothing, and is asked again.
	for _, d := range n.discoveries {
		asking.Go(func() { _ = d.Find(ctx, found) })
	}
	asked := 0
	for _, c := range n.best() {
		if c.standing > watchable || asked == maxNativesAsked {
			break
		}
		if !n.mayAsk(c.id) {
			continue
		}
		asked++
		asking.Go(func() {
			known, _ := c.native.Natives(ctx)
			// Those who ask are not to turn to the same few.
			rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, s := range known[:min(len(known), maxCandidates)] {
				if len(s.Addrs) > 0 {
					n.addToldBy(c.id, s.PeerID, s.Addrs)
				}
			}
		})
	}
	asking.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.looking, n.looked = nil, time.Now()
	close(ended)
}

// add makes id a candidate that is reached at addrs; the caller holds the lock. It returns
// nil if that cannot be: nobody could dial it, or there are better ones enough.
func (n *Natives) add(id ports.PeerID, addrs []string, connected bool) *candidate {
	if !n.trusts(id) {
		return nil
	}
	c := n.candidates[id]
	if id == n.self || c != nil && c.standing < silent {
		return c // what has not failed is not moved to where somebody says that it is
	}
	native, err := n.transport.Native(id, addrs)
	if err != nil {
		return c
	}
	if c != nil {
		c.native = native
		return c
	}
	if !n.makeRoom(connected) {
		return nil
	}
	c = &candidate{id: id, native: native, standing: untried, connected: connected}
	n.candidates[id] = c
	close(n.added)
	n.added = make(chan struct{})
	return c
}

// mayAsk reports whether a native may be asked for others now, and notes that it is.
func (n *Natives) mayAsk(id ports.PeerID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.candidates[id]
	if c == nil || !c.asked.IsZero() && time.Since(c.asked) < askNativeAgain {
		return false
	}
	c.asked = time.Now()
	return true
}

// addToldBy is add for whom the native by told of. Of those that it told of and that are not
// connected and do not answer, one that fails makes way for one more.
func (n *Natives) addToldBy(by, id ports.PeerID, addrs []string) {
	told := 0
	var worst *candidate
	for _, c := range n.candidates {
		if c.teller != by || c.connected || c.standing < untried {
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
	if c := n.add(id, addrs, false); c != nil && !known {
		c.teller = by
	}
}

// Revise lets go of the natives that are trusted no more, and has those looked for that are
// now. Those that were given stay.
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

// makeRoom sees to it that there is room for one more candidate. One that fails makes way
// for any, one that was not asked yet only for one that is connected. One that is connected
// makes way for none, or it would be back at once and forgotten how it failed; half the
// room is for those that are not, so that whoever connects cannot keep them out.
func (n *Natives) makeRoom(connected bool) bool {
	met := 0
	var worst *candidate
	for _, c := range n.candidates {
		if c.connected {
			met++
			continue
		}
		if worst == nil || c.standing > worst.standing || c.standing == worst.standing && c.failures > worst.failures {
			worst = c
		}
	}
	switch {
	case connected && met >= maxCandidates/2:
		return false
	case len(n.candidates) < maxCandidates:
		return true
	case worst == nil, worst.standing < untried, worst.standing < fails && !connected:
		return false
	}
	delete(n.candidates, worst.id)
	return true
}

// due returns the best candidate that may be tried at now and is not taken, or else when
// the next one may be; the zero time if there is none.
func (n *Natives) due(taken func(ports.PeerID) bool, now time.Time) (_ candidate, next time.Time, ok bool) {
	for _, c := range n.best() {
		switch {
		case taken(c.id):
		case !c.next.After(now):
			return c, now, true
		case next.IsZero() || c.next.Before(next):
			next = c.next
		}
	}
	return candidate{}, next, false
}

// best returns all candidates, those that answer first, in no order among equals.
func (n *Natives) best() []candidate {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []candidate
	for id, native := range n.pinned {
		all = append(all, candidate{id: id, native: native})
	}
	for _, c := range n.candidates {
		all = append(all, *c)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.standing, b.standing) })
	return all
}

// note remembers how id stood when it was tried, and until when not to try it again.
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
	case silent:
		c.failures, c.next = 0, time.Now().Add(domain.Early(retrySilent, rand.Float64()))
	default:
		c.failures, c.next = 0, time.Time{}
	}
}
