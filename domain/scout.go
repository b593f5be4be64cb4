package domain

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// scoutSoon and scoutSeldom bound the pause between two looks for natives. It doubles from one to the
	// other, and begins anew as long as a look leads to natives. A native that comes looks by itself, so
	// the later looks mend what was missed: natives that could not reach each other.
	scoutSoon   = 2 * time.Second
	scoutSeldom = 10 * time.Minute
	// scoutMet is the pause at most after a new neighbour, and while a native has not been asked yet: it may
	// know natives that no other knew.
	scoutMet = 30 * time.Second
	// scoutTimeout bounds one look: a search in the DHT, and the answers of some natives, side by side.
	scoutTimeout = 10 * time.Second
	// scoutAsks is how many of the followed natives are asked at each look, and scoutTakes how many natives
	// each of them, and a Discovery, may tell of then. A liar has a share.
	scoutAsks, scoutTakes = 3, 16
)

// Scout finds the natives that this native is not connected to, and has them connected. The Follower
// follows them then. So all natives of a network follow each other, up to ports.MaxFollowed.
type Scout struct {
	self        ports.PeerID
	trusts      Trust
	transport   ports.Transport
	followed    func(n int) []ports.PeerID
	joiner      ports.Joiner
	discoveries []ports.Discovery

	asked   map[ports.PeerID]bool // natives that are followed since they were asked
	unasked bool                  // others are followed
}

// NewScout returns a Scout that does nothing until Run. followed returns n of the followed natives at
// most, at random.
func NewScout(rules Rules, transport ports.Transport, followed func(n int) []ports.PeerID, joiner ports.Joiner, discoveries ...ports.Discovery) *Scout {
	return &Scout{self: rules.Self, trusts: rules.Natives, transport: transport, followed: followed, joiner: joiner, discoveries: discoveries}
}

// Run looks for natives until ctx ends. It returns nil.
func (s *Scout) Run(ctx context.Context) error {
	pause := scoutSoon
	var told map[ports.PeerID]bool
	connected, changed := s.neighbours()
	again := time.NewTimer(Early(pause, rand.Float64()))
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			before := connected
			connected, changed = s.neighbours()
			if pause > scoutMet && anyBut(connected, before) {
				pause = scoutMet
				again.Reset(Early(pause, rand.Float64()))
			}
			continue
		case <-again.C:
		}
		connected, changed = s.neighbours()
		if pause = min(2*pause, scoutSeldom); anyOf(connected, told) {
			pause = scoutSoon
		}
		if told = s.look(ctx); s.unasked {
			pause = min(pause, scoutMet)
		}
		again.Reset(Early(pause, rand.Float64()))
	}
}

func (s *Scout) neighbours() (connected map[ports.PeerID]bool, changed <-chan struct{}) {
	natives, changed := s.transport.Neighbours()
	connected = make(map[ports.PeerID]bool, len(natives))
	for _, n := range natives {
		connected[n.PeerID] = true
	}
	return connected, changed
}

// anyOf reports whether any of natives is in of; anyBut whether any is not in but.
func anyOf(natives, of map[ports.PeerID]bool) bool {
	for id := range of {
		if natives[id] {
			return true
		}
	}
	return false
}

func anyBut(natives, but map[ports.PeerID]bool) bool {
	for id := range natives {
		if !but[id] {
			return true
		}
	}
	return false
}

// look has natives met that are not connected. It returns those that it was told of.
func (s *Scout) look(ctx context.Context) (told map[ports.PeerID]bool) {
	ctx, cancel := context.WithTimeout(ctx, scoutTimeout)
	defer cancel()
	told = make(map[ports.PeerID]bool)
	var mu sync.Mutex
	tell := func(found []ports.Found, by ports.PeerID) {
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		mu.Lock()
		defer mu.Unlock()
		connected, _ := s.neighbours() // some may be met by the word of the last teller
		takes, taken := scoutTakes, make(map[ports.PeerID]bool)
		for _, f := range found {
			if takes == 0 {
				break
			}
			// Others may tell of it too, and of its true addresses.
			if connected[f.PeerID] || taken[f.PeerID] || f.PeerID == s.self || len(f.Addrs) == 0 || !s.trusts.in(f.PeerID) {
				continue
			}
			told[f.PeerID], taken[f.PeerID] = true, true
			takes--
			s.joiner.Meet(f, by)
		}
	}
	var asking sync.WaitGroup
	for _, d := range s.discoveries {
		asking.Go(func() {
			var all []ports.Found
			_ = d.Find(ctx, func(f ports.Found) { all = append(all, f) }) // it is asked again
			tell(all, "")
		})
	}
	for _, id := range s.choose() {
		asking.Go(func() {
			native, err := s.transport.Native(id, nil)
			if err != nil {
				return
			}
			known, _ := native.Natives(ctx, s.self)
			all := make([]ports.Found, 0, len(known))
			for _, n := range known {
				all = append(all, ports.Found{PeerID: n.PeerID, Addrs: n.Addrs})
			}
			tell(all, id)
		})
	}
	asking.Wait()
	return told
}

// choose returns the natives to ask: those first that were not asked yet.
func (s *Scout) choose() (natives []ports.PeerID) {
	followed := s.followed(2 * ports.MaxFollowed)
	asked := make(map[ports.PeerID]bool, len(followed))
	for _, id := range followed {
		switch {
		case s.asked[id]:
			asked[id] = true
		case len(natives) < scoutAsks:
			asked[id] = true
			natives = append(natives, id)
		}
	}
	s.unasked = len(asked) < len(followed)
	for _, id := range followed {
		if s.asked[id] && len(natives) < scoutAsks {
			natives = append(natives, id)
		}
	}
	s.asked = asked
	return natives
}
