package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// wantedNatives is how many natives an indexer takes of those that it finds: enough
	// that two may die at once.
	wantedNatives = 3
	// maxBootstrap bounds the natives of the bootstrap peers that are held beside those: as many as
	// anybody lists by hand. A name may stand for a whole network.
	maxBootstrap = 4
	// maxFailures is how many registrations in a row fail before another native is looked
	// for in a native's place. They take 3 s if it refuses to be dialled, and three timeouts
	// if it is cut off: less than the lease, more than a restart.
	maxFailures = 3
	// lookPause is the pause between two looks around for more natives. It doubles: up to
	// half a heartbeat while an indexer has no native, and up to lookPauses heartbeats once
	// it has some, and only fewer than it wants.
	lookPause  = time.Second
	lookPauses = 5
)

// choice are the natives that an indexer takes of those that it finds. In its network any native
// may die, and some are not there at all. The indexer tries a native by registering with it. It
// gives up a native that fails, or whose lease no other native shows, when another has granted a
// lease in its place, and never before. Natives of the bootstrap peers are held beside those, and
// never given up.
type choice struct {
	x       *Indexer
	running *sync.WaitGroup

	mu      sync.Mutex
	taken   map[ports.PeerID]*taken
	changed chan struct{} // has a value after any of them has
}

// taken is a native that is held, or on trial until it has answered once.
type taken struct {
	cancel    context.CancelFunc
	bootstrap bool // it is held whatever it does
	trial     bool
	doubted   bool // no other native shows the lease
	standing  standing
	failures  int
	since     time.Time
}

func newChoice(x *Indexer, running *sync.WaitGroup) *choice {
	c := &choice{x: x, running: running, taken: make(map[ports.PeerID]*taken), changed: make(chan struct{}, 1)}
	x.witnesses.doubt = c.doubt
	return c
}

// run takes natives until ctx ends. The leases are kept in goroutines counted by running.
func (c *choice) run(ctx context.Context) {
	looked, looking := make(chan struct{}, 1), false
	looks, lookAt := 0, time.Now()
	wake := time.NewTimer(0)
	defer wake.Stop()
	for {
		moved := c.x.moves()
		met, added, named := c.x.natives.meet()
		c.revise()
		c.takeBootstrap(ctx)
		next := c.try(ctx)
		now := time.Now()
		switch missing, held := c.count(); {
		case missing == 0:
			looks = 0 // so that the next look is at once
			lookAt = now
		case looking:
		case !lookAt.After(now):
			looking = true
			c.running.Go(func() { c.x.natives.look(ctx, lookPause, askNativeAgain); looked <- struct{}{} })
			lookAt = now.Add(c.pause(looks, held))
			looks++
		case next.IsZero() || lookAt.Before(next):
			next = lookAt
		}
		wake.Stop()
		if !next.IsZero() {
			wake.Reset(next.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-met:
		case <-added:
		case <-named:
		case <-c.changed:
		case <-moved:
			looks, lookAt = 0, time.Now()
		case <-wake.C:
		case <-looked:
			looking = false
		}
	}
}

// revise gives up the natives that are trusted no more. Their leases lapse, or end when the
// indexer stops.
func (c *choice) revise() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.taken {
		if !c.x.natives.trusts(id) {
			c.drop(id)
		}
	}
}

// end lets go of all natives.
func (c *choice) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.taken {
		c.drop(id)
	}
}

// drop lets go of a native. The caller holds the lock.
func (c *choice) drop(id ports.PeerID) {
	c.taken[id].cancel()
	delete(c.taken, id)
	c.x.natives.hold(id, false)
	c.x.witnesses.forget(id)
}

// pause is how long after a look the next look follows, when looks were made in a row before it.
func (c *choice) pause(looks, held int) time.Duration {
	longest := c.x.heartbeat / 2
	if held > 0 {
		longest = lookPauses * c.x.heartbeat
	}
	return domain.Early(domain.Backoff{First: lookPause, Max: max(lookPause, longest)}.Pause(looks), rand.Float64())
}

// try puts candidates on trial in place of the natives that are missing. It returns when the next
// candidate may be tried; the zero time if no time would help.
func (c *choice) try(ctx context.Context) time.Time {
	for {
		if missing, _ := c.count(); missing == 0 {
			return time.Time{}
		}
		native, next, ok := c.x.natives.due(c.has, time.Now())
		if !ok {
			return next
		}
		c.take(ctx, native, false)
	}
}

// takeBootstrap takes the natives of the bootstrap peers, beside those that it finds. A native that
// is none of them any more counts as found.
func (c *choice) takeBootstrap(ctx context.Context) {
	all := c.x.natives.best()
	c.mu.Lock()
	held := 0
	for _, native := range all {
		if t := c.taken[native.id]; t != nil && t.bootstrap {
			if t.bootstrap = native.bootstrap; t.bootstrap {
				held++
			}
		}
	}
	var takes []candidate
	for _, native := range all {
		t := c.taken[native.id]
		if !native.bootstrap || t != nil && t.bootstrap || held == maxBootstrap {
			continue
		}
		if held++; t != nil {
			t.bootstrap = true
		} else {
			takes = append(takes, native)
		}
	}
	c.mu.Unlock()
	for _, native := range takes {
		c.take(ctx, native, true)
	}
}

// count returns how many natives are missing that are neither held and answer nor on
// trial, and how many are held.
func (c *choice) count() (missing, held int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	missing = wantedNatives
	for _, t := range c.taken {
		if !t.bootstrap && (t.trial || t.standing == answers) {
			missing--
		}
		if !t.trial {
			held++
		}
	}
	return max(0, missing), held
}

func (c *choice) has(id ports.PeerID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.taken[id] != nil
}

// take puts a candidate on trial. The native of a bootstrap peer needs none.
func (c *choice) take(ctx context.Context, native candidate, bootstrap bool) {
	ctx, cancel := context.WithCancel(ctx)
	t := &taken{cancel: cancel, bootstrap: bootstrap, trial: !bootstrap, since: time.Now()}
	c.mu.Lock()
	c.taken[native.id] = t
	c.x.unshown.asks(native.id)
	c.mu.Unlock()
	c.x.natives.hold(native.id, true)
	c.running.Go(func() {
		defer cancel()
		c.x.keep(ctx, native.id, native.native, func(lease ports.Lease, err error) bool {
			return c.judge(native.id, t, lease, err)
		})
	})
}

// judge takes in the outcome of a registration with a native, and reports whether the native
// stays.
func (c *choice) judge(id ports.PeerID, t *taken, lease ports.Lease, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken[id] != t {
		return false
	}
	c.x.witnesses.registered(id, lease, err)
	before := t.standing
	var refusal *ports.Refusal
	switch {
	case err == nil && lease.Unconfirmed:
		t.standing, t.failures = silent, 0
	case err == nil && t.doubted:
		t.standing, t.failures = doubted, 0
	case err == nil:
		t.standing, t.failures = answers, 0
	default:
		t.failures++
		final := errors.As(err, &refusal) && refusal.Code != ports.CodeBusy
		if t.trial || final || t.failures >= maxFailures {
			t.standing = fails
		}
	}
	if t.trial || t.standing != before {
		c.note(id, t.standing)
	}
	if t.trial && t.standing == fails && !t.bootstrap {
		c.drop(id)
		return false
	}
	t.trial = false
	c.giveUp()
	return c.taken[id] == t
}

// note remembers how a native stands. The caller holds the lock.
func (c *choice) note(id ports.PeerID, s standing) {
	c.x.natives.note(id, s)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// doubt takes in that no other native shows the lease at id, or that another does again.
func (c *choice) doubt(id ports.PeerID, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.taken[id]
	if t == nil {
		return
	}
	t.doubted = is
	switch {
	case is && t.standing == answers:
		t.standing = doubted
	case !is && t.standing == doubted:
		t.standing = answers
	default:
		return
	}
	c.note(id, t.standing)
}

// giveUp lets go of the worst native, and of equals the newest, while there are too many. Natives of
// bootstrap peers are beside those. The caller holds the lock.
func (c *choice) giveUp() {
	for {
		var worst ports.PeerID
		held := 0
		for id, t := range c.taken {
			if t.trial || t.bootstrap {
				continue
			}
			held++
			w := c.taken[worst]
			if w == nil || t.standing > w.standing || t.standing == w.standing && t.since.After(w.since) {
				worst = id
			}
		}
		if held <= wantedNatives {
			return
		}
		c.drop(worst)
	}
}
