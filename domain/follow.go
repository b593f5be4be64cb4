package domain

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxFollowed bounds the natives that one native follows: each costs a stream and the
	// changes on it. Gossip brings the entries of all other natives, connected or not.
	maxFollowed = 64
	// warmingTimeout is how long a started native waits to reach another native before it
	// takes itself for the first: two of the joiner's attempts.
	warmingTimeout = 10 * time.Second
	// takeoverTimeout is how long a started native waits at most for the table of a reached
	// native: a million entries take some 20 s.
	takeoverTimeout = time.Minute
	// offersPause is the pause before a second try with a native that offers no watch.
	offersPause = time.Minute
	// statusTimeout bounds how long Natives waits for answers. Callers within statusAge get
	// the same answers.
	statusTimeout = 2 * time.Second
	statusAge     = 2 * time.Second
)

// refollow is the pause after a failed watch: two natives follow each other again within 2 s of
// their reconnection.
var refollow = Backoff{First: 100 * time.Millisecond, Max: 5 * time.Second}

// Follower watches the natives that this native is connected to, and hands their leases to a
// Registry as they are granted. So a late or returning native is whole as soon as it is
// connected. Gossip serves natives that are not connected to each other.
type Follower struct {
	self      ports.PeerID
	trusts    Trust
	transport ports.Transport
	expected  bool

	// registry takes the changes; nil until Run.
	registry *Registry

	mu        sync.Mutex
	followed  map[ports.PeerID]*followed
	taken     bool // this native has taken over a table since its start
	warm      bool
	condition ports.Condition // as watchers were told
	// statusesAt is when the neighbours gave the answers in statuses.
	statusesAt time.Time
	statuses   []ports.NativeStatus
	// checking has a value while a caller asks the neighbours. A lock would hold up fake time.
	checking chan struct{}
	revised  chan struct{} // receives a value after a change of the trusted natives
}

// followed is a followed native, or a formerly followed one: its cursor is of use when it
// comes back.
type followed struct {
	id        ports.PeerID
	native    ports.Native
	stop      context.CancelFunc // nil while it is no neighbour
	done      chan struct{}      // closed when the last goroutine that followed it has stopped
	cursor    string             // used by that goroutine alone
	following bool               // its table is taken over, and its changes come
	live      int
	lag       time.Duration
}

// NewFollower returns a follower of the trusted natives that transport is connected to. It
// follows as soon as Run runs. Until then its native is warming if it expects other natives. A
// native that expects no other is whole from the start.
func NewFollower(rules Rules, transport ports.Transport, expected bool) *Follower {
	f := &Follower{
		self: rules.Self, trusts: rules.Natives, transport: transport, expected: expected,
		followed: make(map[ports.PeerID]*followed), warm: !expected, revised: make(chan struct{}, 1),
		checking: make(chan struct{}, 1),
	}
	f.condition = f.Condition()
	return f
}

// Condition implements Following.
func (f *Follower) Condition() ports.Condition {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conditionNow()
}

// conditionNow is Condition for a caller that holds the lock.
func (f *Follower) conditionNow() ports.Condition {
	switch {
	case !f.warm:
		return ports.ConditionWarming
	case f.taken && f.followingNow() == 0:
		return ports.ConditionIsolated
	}
	return ""
}

// say tells watchers of the condition if it has changed. The caller holds the lock.
func (f *Follower) say() {
	if condition := f.conditionNow(); condition != f.condition {
		f.condition = condition
		f.registry.table.changes.add(conditionChanged, "", &word{}, false)
	}
}

// Follows implements Following.
func (f *Follower) Follows(native ports.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.followed[native]
	return n != nil && n.following
}

// Following implements Following.
func (f *Follower) Following() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.followingNow()
}

// Followed implements Following. The order is random.
func (f *Follower) Followed(n int) (natives []ports.PeerID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, native := range f.followed {
		if native.following && len(natives) < n {
			natives = append(natives, id)
		}
	}
	return natives
}

// followingNow is Following for a caller that holds the lock.
func (f *Follower) followingNow() (n int) {
	for _, native := range f.followed {
		if native.following {
			n++
		}
	}
	return n
}

// LookUp implements Following.
func (f *Follower) LookUp(ctx context.Context, native, id ports.PeerID) (ports.Answer, error) {
	f.mu.Lock()
	n := f.followed[native]
	f.mu.Unlock()
	if n == nil {
		return ports.Answer{}, ports.ErrNotFound
	}
	return n.native.LookUp(ctx, f.self, id)
}

// Revise implements Following.
func (f *Follower) Revise() {
	select {
	case f.revised <- struct{}{}:
	default:
	}
}

// Run follows the neighbours, and hands their changes to r, until ctx ends. It returns nil when all
// its goroutines have stopped. It may run once.
func (f *Follower) Run(ctx context.Context, r *Registry) error {
	f.mu.Lock()
	f.registry = r
	f.mu.Unlock()
	if f.expected {
		r.rules.Clock.Abstain()
	}
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer running.Wait()
	defer stop()
	patience := time.NewTimer(warmingTimeout)
	defer patience.Stop()
	given := false // true once warmingTimeout is over
	for {
		neighbours, changed := f.neighbours()
		f.meet(ctx, neighbours, &running)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-f.revised:
		case <-patience.C:
			if !given && slices.ContainsFunc(neighbours, func(n ports.Neighbour) bool { return n.Watchable }) {
				given = true
				patience.Reset(takeoverTimeout - warmingTimeout)
				continue
			}
			f.mu.Lock()
			f.warm = true
			f.registry.rules.Clock.vote()
			f.say()
			f.mu.Unlock()
		}
	}
}

// neighbours returns the trusted natives that this native is connected to.
func (f *Follower) neighbours() (natives []ports.Neighbour, changed <-chan struct{}) {
	all, changed := f.transport.Neighbours()
	for _, n := range all {
		if f.trusts.in(n.PeerID) {
			natives = append(natives, n)
		}
	}
	return natives, changed
}

// meet follows new neighbours, and lets go of lost ones.
func (f *Follower) meet(ctx context.Context, neighbours []ports.Neighbour, running *sync.WaitGroup) {
	f.mu.Lock()
	defer f.mu.Unlock()
	still := make(map[ports.PeerID]bool, len(neighbours))
	following := 0
	for _, n := range neighbours {
		still[n.PeerID] = n.Watchable
	}
	for id, n := range f.followed {
		switch {
		case n.stop == nil:
		case still[id]:
			following++
		default:
			n.stop()
			n.stop = nil
		}
	}
	for _, neighbour := range neighbours {
		if !neighbour.Watchable || neighbour.PeerID == f.self {
			continue
		}
		n := f.followed[neighbour.PeerID]
		switch {
		case n != nil && n.stop != nil:
			continue
		case following >= maxFollowed:
			continue
		case n == nil:
			native, err := f.transport.Native(neighbour.PeerID, nil)
			if err != nil {
				continue // no peer can be reached by this PeerID
			}
			f.makeRoom()
			n = &followed{id: neighbour.PeerID, native: native}
			f.followed[neighbour.PeerID] = n
		}
		following++
		life, end := context.WithCancel(ctx)
		before, done := n.done, make(chan struct{})
		n.stop, n.done = end, done
		running.Go(func() {
			defer close(done)
			if before != nil {
				<-before
			}
			f.follow(life, n)
		})
	}
}

// makeRoom forgets a formerly followed native, if there are many.
func (f *Follower) makeRoom() {
	if len(f.followed) < 2*maxFollowed {
		return
	}
	for id, n := range f.followed {
		if n.stop == nil {
			delete(f.followed, id)
			return
		}
	}
}

// follow watches n until ctx ends.
func (f *Follower) follow(ctx context.Context, n *followed) {
	for failures := 0; ; failures++ {
		began := time.Now()
		following, err := f.watch(ctx, n)
		f.registry.rules.Clock.Drop(n.id) // a snapshot that broke off gave a sample too
		if following {
			f.mu.Lock()
			n.following = false
			f.say()
			f.mu.Unlock()
			if ctx.Err() != nil {
				err = nil // n is no neighbour any more, or this native stops
			}
			f.registry.observer.Observe(ports.Event{Kind: ports.EventUnfollowed, Via: n.id, Err: err})
			failures = 0
		}
		if ctx.Err() != nil {
			return
		}
		pause := refollow.Pause(failures)
		if errors.Is(err, ports.ErrNotOffered) {
			pause = offersPause
		}
		timer := time.NewTimer(Early(pause, rand.Float64()) - min(time.Since(began), pause/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// watch takes in the changes of n until its watch ends, and reports whether it took over n's
// table.
func (f *Follower) watch(ctx context.Context, n *followed) (following bool, err error) {
	began := time.Now()
	request := ports.WatchRequest{Cursor: n.cursor, Renewed: true, Own: true}
	for batch, err := range n.native.Watch(ctx, f.self, request) {
		if err != nil {
			return following, err
		}
		var heldUp time.Duration
		if !batch.Now.IsZero() {
			heldUp = f.registry.heldUp(f.registry.rules.Clock.Sample(n.id, batch.Now))
		}
		lag := f.registry.takeOldChanges(n.id, batch.Changes, heldUp)
		f.mu.Lock()
		n.live = batch.Live
		if lag > 0 {
			n.lag = lag
		}
		whole := batch.Cursor != "" && !following
		if batch.Cursor != "" {
			n.cursor = batch.Cursor
		}
		if whole {
			following, n.following, f.taken, f.warm = true, true, true, true
			f.registry.rules.Clock.vote()
			f.say()
		}
		f.mu.Unlock()
		if whole {
			f.registry.observer.Observe(ports.Event{Kind: ports.EventFollowing, Via: n.id, Took: time.Since(began)})
		}
	}
	return following, errors.New("it ended")
}

// Natives implements Following. It asks every neighbour, unless the last answers are fresh.
func (f *Follower) Natives(ctx context.Context) []ports.NativeStatus {
	select {
	case f.checking <- struct{}{}:
		defer func() { <-f.checking }()
	case <-ctx.Done():
		return nil
	}
	if f.statuses != nil && time.Since(f.statusesAt) < statusAge {
		return slices.Clone(f.statuses)
	}
	neighbours, _ := f.neighbours()
	if len(neighbours) > ports.MaxPage {
		neighbours = neighbours[:ports.MaxPage]
	}
	// Later callers get the answers too, so the first caller's cancellation ends no wait.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	statuses := make([]ports.NativeStatus, len(neighbours))
	var asking sync.WaitGroup
	for i, neighbour := range neighbours {
		s := &statuses[i]
		s.PeerID, s.Addrs = neighbour.PeerID, neighbour.Addrs
		f.mu.Lock()
		n := f.followed[neighbour.PeerID]
		if n != nil {
			s.Following, s.Live, s.Lag = n.following, n.live, n.lag
		}
		f.mu.Unlock()
		if n == nil || i >= 2*maxFollowed {
			continue
		}
		asking.Go(func() {
			began := time.Now()
			if _, err := n.native.List(ctx, f.self, ports.Query{Limit: 1}); err == nil {
				s.RoundTrip = time.Since(began)
			}
		})
	}
	asking.Wait()
	slices.SortFunc(statuses, func(a, b ports.NativeStatus) int { return strings.Compare(string(a.PeerID), string(b.PeerID)) })
	f.statuses, f.statusesAt = statuses, time.Now()
	return slices.Clone(statuses)
}
