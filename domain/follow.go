package domain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
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
	// maxStatuses bounds the neighbours that are asked for it: more than fit on a screen.
	maxStatuses = 128
	// missedFor is how long a native stays named that fell silent, or whose connection ended: it may
	// be cut off, and its indexers alive. A native that is gone for good is forgotten by then.
	// missedTTLs is the same, in TTLs, for a native that said that it stops. Its indexers knew, and
	// have had time to register with other natives. It bounds an unheard native, too: it is unheard
	// for a TTL, and shows stale entries for as long.
	missedFor  = time.Hour
	missedTTLs = 2
	// maxStarts bounds the remembered runs of a native.
	maxStarts = 8
)

// errTwin is two processes that answer as one native by turns.
var errTwin = errors.New("it tells by turns of two runs that both go on")

// errMissed ends the watch of a native that missed its beats.
var errMissed = fmt.Errorf("%w: it missed %d beats", ports.ErrSilent, maxMissed)

// errOtherTime ends a watch after the time of day was set.
var errOtherTime = errors.New("its table was taken over by another time of day, and is taken over again")

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
	settings  FollowerSettings

	// registry takes the changes; nil until Run.
	registry *Registry

	mu        sync.Mutex
	followed  map[ports.PeerID]*followed
	bootstrap map[ports.PeerID]bool // the peers of settings.Bootstrap
	began     time.Time             // when Run began
	taken     bool                  // this native has taken over a table since its start
	warm      bool
	condition ports.Condition // as watchers were told
	shifted   time.Duration   // the offset of the time of day when all natives were looked at for another
	// missing and hears are read without the lock. What they point to does not change.
	missing atomic.Pointer[[]ports.PeerID]
	hears   atomic.Pointer[map[ports.PeerID]bool]
	// statusesAt is when the neighbours gave the answers in statuses.
	statusesAt time.Time
	statuses   []ports.NativeStatus
	// checking has a value while a caller asks the neighbours. A lock would hold up fake time.
	checking chan struct{}
	revised  chan struct{} // receives a value after a change of the trusted or missing natives
}

// FollowerSettings are the settings of a Follower beside the Rules.
type FollowerSettings struct {
	// Expected means that there may be other natives. Until then a native is warming. A native that
	// expects no other is whole from the start.
	Expected bool
	// Bootstrap are the peers that this node is configured to join through; nil is none. A native
	// among them is waited for, and named as missing until it is followed.
	Bootstrap ports.Bootstrap
	// Listed reports whether this node has a list of trusted natives that names a native; nil is no
	// list. It must not block.
	Listed func(ports.PeerID) bool
	// Followers takes in the audiences of the followed natives; nil for none.
	Followers *Followers
}

// followed is a followed native, or a formerly followed one: its cursor is of use when it
// comes back.
type followed struct {
	id        ports.PeerID
	native    ports.Native
	stop      context.CancelFunc // nil while it is no neighbour
	done      chan struct{}      // closed when the last goroutine that followed it has stopped
	cursor    string             // used by that goroutine alone
	beats     bool               // it has promised beats; used by that goroutine alone
	starts    []string           // its last runs, the newest last; used by that goroutine alone
	hears     bool               // its batches come
	following bool               // its table is taken over, and its changes come
	taken     bool               // its table has been taken over since this native's start
	by        time.Duration      // the offset of the time of day by which its table was taken over
	// missed is until when this native is named as missing if it is not followed; zero before it
	// was followed.
	missed time.Time
	// deaf is until when it is named as missing though it is followed: it says that it did not hear
	// its indexers, and tells nothing of those whose leases have ended. Zero while it hears them.
	deaf             time.Time
	since            time.Time // when it was chosen last
	accepted, signed int       // how many of its changes counted, and had a proof
	letGo            bool      // another native was chosen in its place
	live             int
	lag              time.Duration
	ledger           *ledger // what it has told by number, at its cursor; used by the goroutine that follows it alone
}

// NewFollower returns a follower of the trusted natives that transport is connected to. It
// follows as soon as Run runs.
func NewFollower(rules Rules, transport ports.Transport, settings FollowerSettings) *Follower {
	f := &Follower{
		self: rules.Self, trusts: rules.Natives, transport: transport, settings: settings,
		followed: make(map[ports.PeerID]*followed), warm: !settings.Expected,
		revised: make(chan struct{}, 1), checking: make(chan struct{}, 1),
	}
	f.missing.Store(new([]ports.PeerID))
	f.hears.Store(new(map[ports.PeerID]bool))
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
	case f.taken && !f.followsAny():
		return ports.ConditionIsolated
	case len(*f.missing.Load()) > 0:
		return ports.ConditionPartial
	}
	return ""
}

// Missing implements Following.
func (f *Follower) Missing() []ports.PeerID { return *f.missing.Load() }

// Hears implements Following.
func (f *Follower) Hears(native ports.PeerID) bool { return (*f.hears.Load())[native] }

// say takes note of a change of the followed natives, and tells watchers if the condition or the
// missing natives are others now. It returns when the next missing native is to be forgotten, zero
// without one. The caller holds the lock.
func (f *Follower) say() (next time.Time) {
	var missing []ports.PeerID
	hears, now := make(map[ports.PeerID]bool), time.Now()
	miss := func(id ports.PeerID, until time.Time) {
		if !now.Before(until) || !f.trusts.in(id) {
			return
		}
		missing = append(missing, id)
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	for id, n := range f.followed {
		if n.hears {
			hears[id] = true
		}
		if n.following {
			miss(id, n.deaf)
		} else {
			miss(id, n.missed)
		}
	}
	for id := range f.bootstrap {
		if n := f.followed[id]; n == nil || !n.following && n.missed.IsZero() {
			miss(id, f.began.Add(missedFor))
		}
	}
	slices.Sort(missing)
	if len(missing) > ports.MaxMissing { // strangers keep no configured native out
		slices.SortStableFunc(missing, func(a, b ports.PeerID) int {
			switch is := f.configured(a); {
			case is == f.configured(b):
				return 0
			case is:
				return -1
			}
			return 1
		})
		missing = missing[:ports.MaxMissing]
		slices.Sort(missing)
	}
	was := f.missing.Swap(&missing)
	f.hears.Store(&hears)
	if condition := f.conditionNow(); condition != f.condition || !slices.Equal(missing, *was) {
		f.condition = condition
		f.registry.table.changes.mark(standing{f.registry.worsened(condition), missing})
	}
	return next
}

// Follows implements Following.
func (f *Follower) Follows(native ports.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.followed[native]
	return n != nil && n.following
}

// Following implements Following.
func (f *Follower) Following() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, native := range f.followed {
		if native.following {
			n++
		}
	}
	return n
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

// followsAny reports whether this native follows another. Each frame asks, and mostly the first native
// answers. The caller holds the lock.
func (f *Follower) followsAny() bool {
	for _, native := range f.followed {
		if native.following {
			return true
		}
	}
	return false
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

// StoodStill implements Following. A missing native may have come back without notice meanwhile. So it
// stays named for missedTTLs more.
func (f *Follower) StoodStill(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.registry == nil {
		return // it has followed nobody yet
	}
	now := time.Now()
	until := now.Add(missedTTLs * f.registry.rules.Policy.TTL)
	for _, n := range f.followed {
		if n.missed.After(now.Add(-d)) && n.missed.Before(until) {
			n.missed = until
		}
	}
	f.say()
	f.Revise() // Run says when that is over
}

// Run follows the neighbours, and hands their changes to r, until ctx ends. It returns nil when all
// its goroutines have stopped. It may run once.
func (f *Follower) Run(ctx context.Context, r *Registry) error {
	f.mu.Lock()
	f.registry, f.began = r, time.Now()
	f.mu.Unlock()
	if f.settings.Expected {
		r.rules.Clock.Abstain(EnoughNatives) // what they prove counts by their clocks
	}
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer running.Wait()
	defer stop()
	patience := time.NewTimer(warmingTimeout)
	defer patience.Stop()
	given := false // true once warmingTimeout is over
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		neighbours, changed := f.neighbours()
		peers, moved := f.peers()
		f.mu.Lock()
		next := f.meet(ctx, neighbours, &running)
		reached, whole := f.tables(neighbours, peers)
		f.warm = f.warm || whole
		if forget := f.say(); next.IsZero() || !forget.IsZero() && forget.Before(next) {
			next = forget
		}
		f.mu.Unlock()
		if !next.IsZero() {
			again.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-moved:
		case <-f.revised:
		case <-again.C:
		case <-patience.C:
			if !given && reached {
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

// peers returns the bootstrap peers that this native may follow, and takes note of them.
func (f *Follower) peers() (peers []ports.BootstrapPeer, changed <-chan struct{}) {
	if f.settings.Bootstrap == nil {
		return nil, nil
	}
	all, changed := f.settings.Bootstrap.Peers()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bootstrap = make(map[ports.PeerID]bool, len(all))
	for _, p := range all {
		switch {
		case p.PeerID == "":
		case p.PeerID == f.self, !f.trusts.in(p.PeerID):
			continue // its table never comes
		default:
			f.bootstrap[p.PeerID] = true
		}
		peers = append(peers, p)
	}
	return peers, changed
}

// tables reports whether a native is reached whose table this native waits for, and whether it has
// all the tables that it waits for: those of the bootstrap natives that can be reached. A found
// native may tell nothing, or lies. Its table counts alone if there are no bootstrap natives, and it
// has accepted entries. The caller holds the lock.
func (f *Follower) tables(neighbours []ports.Neighbour, peers []ports.BootstrapPeer) (reached, whole bool) {
	waits, has := false, false
	watchable := make(map[ports.PeerID]bool)
	for _, is := range neighbours {
		watchable[is.PeerID] = is.Watchable
		n := f.followed[is.PeerID]
		switch {
		case !is.Watchable || len(peers) > 0:
		case n == nil || !n.taken:
			reached = true
		default:
			has = has || n.accepted > 0 || f.listed(is.PeerID)
		}
	}
	for _, p := range peers {
		n := f.followed[p.PeerID]
		switch {
		case n != nil && n.taken:
			has = true
		case watchable[p.PeerID]:
			reached, waits = true, true
		case p.Reachable:
			waits = true
		}
	}
	return reached, has && !waits
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

// meet follows the chosen neighbours, and no others. It returns when to choose again, zero at the
// next change. The caller holds the lock.
func (f *Follower) meet(ctx context.Context, neighbours []ports.Neighbour, running *sync.WaitGroup) (again time.Time) {
	chosen, again := f.choose(neighbours)
	connected := make(map[ports.PeerID]bool, len(neighbours))
	for _, n := range neighbours {
		connected[n.PeerID] = n.Watchable
	}
	for id, n := range f.followed {
		if n.stop != nil && !chosen[id] {
			n.letGo = connected[id]
			n.stop()
			n.stop = nil
		}
	}
	for id := range chosen {
		n := f.followed[id]
		switch {
		case n != nil && n.stop != nil:
			continue
		case n == nil:
			native, err := f.transport.Native(id, nil)
			if err != nil {
				continue // no peer can be reached by this PeerID
			}
			f.makeRoom()
			n = &followed{id: id, native: native}
			f.followed[id] = n
		}
		life, end := context.WithCancel(ctx)
		before, done := n.done, make(chan struct{})
		n.stop, n.done, n.letGo, n.since = end, done, false, time.Now()
		running.Go(func() {
			defer close(done)
			if before != nil {
				<-before
			}
			f.follow(life, n)
		})
	}
	return again
}

// follow watches n until ctx ends.
func (f *Follower) follow(ctx context.Context, n *followed) {
	for failures := 0; ; failures++ {
		began := time.Now()
		following, err := f.watch(ctx, n)
		f.registry.rules.Clock.Drop(n.id) // a snapshot that broke off gave a sample too
		if suspect, ok := n.native.(ports.Suspecter); ok && n.beats && errors.Is(err, ports.ErrSilent) {
			suspect.Suspect() // it is dialled anew
		}
		f.lose(n, following, err)
		if following {
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

// lose takes note that the watch of n ended by err. From then on n is missing if it was followed.
func (f *Follower) lose(n *followed, following bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n.hears, n.following, n.deaf = false, false, time.Time{}
	if n.letGo {
		n.missed = time.Time{}
	} else if following {
		n.missed = time.Now().Add(missedFor)
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok && refusal.Code == ports.CodeBusy {
			n.missed = time.Now().Add(missedTTLs * f.registry.rules.Policy.TTL)
		}
		f.Revise() // Run forgets it then
	}
	f.say()
}

// watch takes in the changes of n until its watch ends, and reports whether it took over n's
// table. The watch ends by errMissed if n has promised beats, and misses maxMissed of them.
func (f *Follower) watch(ctx context.Context, n *followed) (following bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	vigil := newVigil(func() { cancel(errMissed) })
	defer vigil.stop()
	followers := cmp.Or(f.settings.Followers, new(Followers))
	defer followers.hear(n.id, 0)
	began := time.Now()
	ask, full := make(chan []ports.Range, 1), make(chan bool, 1)
	if n.cursor == "" || n.ledger == nil {
		f.registry.drop(n.ledger)
		n.cursor, n.ledger = "", newLedger(f.registry.settings.Bounds)
	}
	request := ports.WatchRequest{Cursor: n.cursor, Renewed: true, Own: true, Mine: true, Beat: f.registry.rules.Policy.beat(), Numbers: true, Ask: ask, Full: full}
	n.ledger.watch(ask)
	n.ledger.fullness.watch(full)
	defer func() {
		if !f.registry.keeps(n.ledger, n.id) {
			f.registry.drop(n.ledger)
			n.ledger = nil
		}
	}()
	for batch, err := range n.native.Watch(ctx, f.self, request) {
		vigil.stop() // the time that this native takes is no silence of n
		if err != nil {
			return following, cmp.Or(missed(ctx), err)
		}
		var heldUp time.Duration
		// A beat sets no clock. An indexer learns of a time that was set back at its next heartbeats, and
		// natives must not go by it long before.
		if beats := len(batch.Changes) == 0 && batch.News == nil && following; !batch.Now.IsZero() && !beats {
			heldUp = f.registry.heldUp(f.registry.rules.Clock.Sample(n.id, batch.Now, 1))
		}
		if f.outdated(n, batch.Reset != "") {
			n.cursor = ""
			return following, errOtherTime
		}
		if n.twin(batch.Start) {
			f.registry.observer.Observe(ports.Event{Kind: ports.EventTwin, PeerID: n.id, Err: errTwin})
		}
		if batch.Audience != 0 {
			followers.hear(n.id, batch.Audience)
		}
		if batch.Beat > 0 {
			n.beats = true
			vigil.promise(min(max(batch.Beat, request.Beat), ports.WatchIdle))
		}
		f.mu.Lock()
		unheard := batch.Condition == ports.ConditionUnheard && n.heard(batch.Condition, f.registry.rules.Policy.TTL)
		if !n.hears || unheard {
			n.hears = true
			f.say()
			f.Revise() // Run says when that is over
		}
		f.mu.Unlock()
		if batch.Reset != "" { // the cursor of before goes with the numbers of before
			n.cursor = ""
			n.ledger.clear()
		}
		took := f.registry.takeBatch(n.id, n.ledger, &batch, heldUp)
		n.ledger.note(took.full, time.Now(), f.registry.rules.Policy.roomAfter())
		if err := f.registry.settle(n.ledger, n.id); err != nil {
			n.cursor = ""
			return following, err
		}
		f.mu.Lock()
		n.live = batch.Live
		if took.lag > 0 {
			n.lag = took.lag
		}
		if n.accepted == 0 && took.accepted > 0 || n.signed == 0 && took.signed > 0 {
			f.Revise() // Run may have waited for that
		}
		n.accepted, n.signed = n.accepted+took.accepted, n.signed+took.signed
		whole := batch.Cursor != "" && !following
		if batch.Cursor != "" {
			n.cursor = batch.Cursor
		}
		// n hears its indexers again once this native knows all that n tells of them.
		if batch.Cursor != "" && n.heard(batch.Condition, f.registry.rules.Policy.TTL) {
			f.say()
			f.Revise()
		}
		if whole {
			following, n.following, n.taken, f.taken = true, true, true, true
			f.registry.rules.Clock.vote()
			f.say()
			f.Revise()
		}
		f.mu.Unlock()
		if whole {
			f.registry.observer.Observe(ports.Event{Kind: ports.EventFollowing, Via: n.id, Took: time.Since(began)})
		}
		vigil.keep(following)
	}
	return following, cmp.Or(missed(ctx), errors.New("it ended"))
}

// heard takes note of the condition that n says, and reports whether n hears its indexers again, or
// does not any more.
func (n *followed) heard(condition ports.Condition, ttl time.Duration) (changed bool) {
	deaf := condition == ports.ConditionUnheard
	if deaf == !n.deaf.IsZero() {
		return false
	}
	n.deaf = time.Time{}
	if deaf {
		n.deaf = time.Now().Add(missedTTLs * ttl)
	}
	return true
}

// outdated reports whether n's table was taken over by another time of day than that of now. Entries
// that had ended or were early then were refused, and others hear of them at the next heartbeat
// alone. Until all such tables are taken over again their natives are missing. anew marks a table
// that is taken over from now on.
func (f *Follower) outdated(n *followed, anew bool) bool {
	by := f.registry.rules.Clock.shifted()
	f.mu.Lock()
	defer f.mu.Unlock()
	if anew {
		n.by = by
	}
	// The difference of two offsets may be centuries, more than a Duration can be.
	other := func(n *followed) bool { return uint64(max(n.by, by))-uint64(min(n.by, by)) > uint64(clockWrong) }
	changed := false
	look := func(o *followed) {
		if o.following && other(o) {
			o.following, o.taken, o.missed, changed = false, false, time.Now().Add(missedFor), true
		}
	}
	look(n)
	if by != f.shifted { // else all others were looked at
		f.shifted = by
		for _, o := range f.followed {
			look(o)
		}
	}
	if changed {
		f.say()
	}
	return !anew && n.cursor != "" && other(n)
}

// twin takes note of a run of n, and reports whether it has told of an earlier run by turns with a
// later one. A native that is started again never is in an earlier run.
func (n *followed) twin(start string) (is bool) {
	last := len(n.starts) - 1
	if start == "" || last >= 0 && n.starts[last] == start {
		return false
	}
	is = slices.Contains(n.starts, start)
	n.starts = append(n.starts[max(0, len(n.starts)+1-maxStarts):], start)
	return is
}

// missed returns errMissed if that is why ctx ended.
func missed(ctx context.Context) error {
	if context.Cause(ctx) == errMissed {
		return errMissed
	}
	return nil
}

// Natives implements Following. It asks maxStatuses neighbours at most, unless the last answers are fresh.
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
		if n == nil || i >= maxStatuses {
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
