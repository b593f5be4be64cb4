package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// leaveTimeout bounds how long a stop takes to tell all natives of it: half of the time
	// that a node has to stop, and half of the 2 s in which an indexer is to be gone everywhere.
	leaveTimeout = time.Second
	// maxLeases bounds the leases that are remembered to be ended: at the natives held, and
	// at natives that were given up while their lease lasted.
	maxLeases = 64
)

// Indexer is the indexer's side of a lease. It registers with every native that it was given, or
// with three of those that it finds and those of the bootstrap peers beside: at once, and then every
// heartbeat. Each lease is kept by
// itself, so that the death of a native leaves the others untouched. When an indexer stops, it
// leaves its natives. All methods may be called concurrently.
type Indexer struct {
	self      ports.PeerID
	heartbeat time.Duration
	ttl       time.Duration
	natives   *Natives
	describe  func() ports.Registration
	observer  ports.Observer
	records   *records // nil if registrations are plain
	clock     *domain.Clock
	proofs    ports.Verifier // of records of another process with the same key; nil takes a native's word

	abandoned  atomic.Bool
	superseded atomic.Bool // by another process with the same key
	// KeepStreams has heartbeats go over open streams however long they are apart. Set it before Run.
	KeepStreams bool

	unshown   *unshown
	witnesses *witnesses
	supersede func() // ends hold

	mu     sync.Mutex
	leases map[ports.PeerID]held

	signalMu sync.Mutex    // held for no longer than a signal takes, where mu is held for a whole leave
	moved    chan struct{} // closed and replaced when this node may have moved
	woke     chan struct{} // closed and replaced when the machine has slept
}

// held is a lease that a native may hold.
type held struct {
	native ports.Native
	until  domain.Instant
}

// NewIndexer returns an indexer that keeps leases at natives as soon as Run runs.
// describe returns the registration of now. It is called for every heartbeat, concurrently.
// When the connection of a ports.RemoteNative ends, the indexer registers with it again. signer
// signs the registrations; nil leaves them plain. Of rules it needs Self, Policy, Proofs and Clock,
// which the answers of natives set; nil is this node's own.
func NewIndexer(rules domain.Rules, signer ports.Signer, natives *Natives, describe func() ports.Registration, observer ports.Observer) (*Indexer, error) {
	heartbeat := rules.Policy.Heartbeat
	if natives.transport == nil && len(natives.pinned) == 0 {
		return nil, errors.New("an indexer needs a native to register with")
	}
	if heartbeat < domain.MinInterval {
		return nil, fmt.Errorf("heartbeat %v is shorter than %v", heartbeat, domain.MinInterval)
	}
	x := &Indexer{
		self: rules.Self, heartbeat: heartbeat, ttl: rules.Policy.TTL, natives: natives, describe: describe, observer: observer,
		clock: rules.Clock, proofs: rules.Proofs, leases: make(map[ports.PeerID]held), moved: make(chan struct{}), woke: make(chan struct{}),
	}
	if x.clock == nil {
		x.clock = domain.NewClock(nil, nil)
	}
	x.witnesses = newWitnesses(heartbeat, func(kind ports.EventKind, via ports.PeerID) {
		observer.Observe(ports.Event{Kind: kind, PeerID: x.self, Via: via})
		x.unshown.reconsider() // a native whose lease is doubted does not count there
	})
	x.unshown = newUnshown(x.clock, x.ttl-x.heartbeat, x.witnesses.doubts)
	if signer != nil {
		x.records = newRecords(rules.Self, rules.Policy, signer, x.clock, observer)
	}
	return x, nil
}

// Superseded reports whether another process with the same key has registered since this process
// did. This process does not register until no other lives.
func (x *Indexer) Superseded() bool { return x.superseded.Load() }

// Moved has the indexer register at once with every native that was told something else than what
// describe returns now, and with every native whose last registration failed. Call it when the
// network of this node has changed. It does not block.
func (x *Indexer) Moved() {
	x.natives.retry()
	x.signalMu.Lock()
	defer x.signalMu.Unlock()
	close(x.moved)
	x.moved = make(chan struct{})
}

func (x *Indexer) moves() <-chan struct{} {
	x.signalMu.Lock()
	defer x.signalMu.Unlock()
	return x.moved
}

// wake has the indexer register at once with every native: the machine has slept, and leases have
// ended meanwhile or are about to.
func (x *Indexer) wake(time.Duration) {
	x.natives.retry()
	x.signalMu.Lock()
	defer x.signalMu.Unlock()
	close(x.woke)
	x.woke = make(chan struct{})
}

func (x *Indexer) wakes() <-chan struct{} {
	x.signalMu.Lock()
	defer x.signalMu.Unlock()
	return x.woke
}

// Abandon has the end of Run leave no native, as if the process had been killed.
func (x *Indexer) Abandon() { x.abandoned.Store(true) }

// Run keeps the leases until ctx ends. Then it leaves the natives, which takes at most a second,
// and returns when all of it has stopped. It may run once. While another process with the same key
// lives, which started later, it keeps no lease.
func (x *Indexer) Run(ctx context.Context) error {
	for x.hold(ctx); x.superseded.Load() && x.outlive(ctx); x.hold(ctx) {
		if x.records != nil {
			x.records.restart()
		}
		x.superseded.Store(false)
		x.observer.Observe(ports.Event{Kind: ports.EventRivalGone, PeerID: x.self})
	}
	if !x.abandoned.Load() && !x.superseded.Load() {
		x.leave(context.WithoutCancel(ctx))
	}
	return nil
}

// hold keeps the leases until ctx ends, or another process takes the place of this one.
func (x *Indexer) hold(ctx context.Context) {
	var running sync.WaitGroup
	life, end := context.WithCancel(ctx)
	defer end()
	x.supersede = end
	var taking *choice
	if x.natives.transport != nil {
		taking = newChoice(x, &running)
	}
	running.Go(func() { x.clock.Sleeps(life, x.wake) })
	running.Go(func() { x.witness(life) })
	if taking != nil {
		taking.run(life)
	}
	for id := range x.natives.pinned {
		x.unshown.asks(id) // all of them, before any judges
	}
	for id, native := range x.natives.pinned {
		running.Go(func() {
			x.keep(life, id, native, func(lease ports.Lease, err error) bool {
				x.witnesses.registered(id, lease, err)
				return true
			})
		})
	}
	running.Wait()
	if taking != nil {
		taking.end()
	}
	for id := range x.natives.pinned {
		x.witnesses.forget(id)
	}
}

// leave tells every native that may hold a lease that it has ended. At a native that does not hear
// it the lease lapses, or the natives that hear it end it.
func (x *Indexer) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	x.mu.Lock()
	leases := x.leases
	x.leases = make(map[ports.PeerID]held)
	x.mu.Unlock() // nothing waits for natives
	var record []byte
	if x.records != nil && len(leases) > 0 {
		var err error
		if record, err = x.records.leave(); err != nil {
			x.observer.Observe(ports.Event{Kind: ports.EventLeaseLeft, PeerID: x.self, Err: err})
		}
	}
	var leaving sync.WaitGroup
	// Half of the time is for the connection there is, and half for another.
	ctx = ports.WithPatience(ctx, leaveTimeout/2)
	for id, lease := range leases {
		if !x.clock.Instant().Before(lease.until) {
			continue
		}
		leaving.Go(func() {
			asked := time.Now()
			err := lease.native.Leave(ctx, x.self, record)
			if errors.Is(err, ports.ErrNotOffered) {
				return // a native of the seed: the lease lapses
			}
			e := ports.Event{Kind: ports.EventLeaseLeft, PeerID: x.self, Via: id, Took: time.Since(asked), Err: err}
			var refusal *ports.Refusal
			if errors.As(err, &refusal) {
				e.Code = refusal.Code
			}
			x.observer.Observe(e)
		})
	}
	leaving.Wait()
}

// remember notes the lease that a native may hold after a registration that was sent then and
// ended in lease and err. A registration that was broken off may have been granted unheard.
func (x *Indexer) remember(id ports.PeerID, native ports.Native, sent domain.Instant, lease ports.Lease, err error) {
	ttl := min(lease.TTL, domain.MaxTTL)
	if ttl <= 0 {
		ttl = 2 * x.heartbeat // the native did not say; no TTL is that much longer than its heartbeat
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if until := sent.Add(ttl); err == nil || x.leases[id].until.Before(until) {
		x.leases[id] = held{native, until}
	}
	first := id
	for other, lease := range x.leases {
		if !sent.Before(lease.until) {
			delete(x.leases, other)
		} else if lease.until.Before(x.leases[first].until) {
			first = other
		}
	}
	if len(x.leases) > maxLeases {
		delete(x.leases, first)
	}
}

// left returns what is left of the lease that a native may hold; 0 without one.
func (x *Indexer) left(id ports.PeerID) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return max(0, x.leases[id].until.Sub(x.clock.Instant()))
}

// keep holds the lease at a native until ctx ends, or stays says no. It tells stays the outcome of
// each registration.
func (x *Indexer) keep(ctx context.Context, id ports.PeerID, native ports.Native, stays func(ports.Lease, error) bool) {
	held := false
	r := renewal{heartbeat: x.heartbeat}
	open := x.KeepStreams
	e := exchange{x: x, id: id}
	defer x.clock.Drop(id)
	defer x.unshown.forget(id)
	for {
		moved, woke, judged := x.moves(), x.wakes(), x.unshown.judgements()
		sent, at := time.Now(), x.clock.Instant()
		asking := r.patient(ctx, x.left(id))
		if open {
			asking = ports.WithOpenStream(asking, ctx)
		}
		lease, err := e.register(asking, native)
		if err != nil && ctx.Err() != nil {
			err = context.Canceled
		}
		x.remember(id, native, at, lease, err)
		if ctx.Err() != nil {
			return
		}
		took := time.Since(sent)
		x.tell(id, lease, err, !held, took)
		if !stays(lease, err) {
			return
		}
		held = err == nil
		if held && !lease.Unconfirmed {
			r.took = took
			open = x.KeepStreams || r.interval(lease) < shortHeartbeat
		}
		after := r.after(lease, err, x.left(id), rand.Float64())
		if err == nil && !lease.Unconfirmed { // a native that does not answer knows nothing of steps
			after = e.next(r.interval(lease), sent, after)
		}
		wake := time.NewTimer(time.Until(sent.Add(after)))
		if err == nil || !e.denied {
			judged = nil
		}
	waiting:
		for {
			select {
			case <-judged: // the native may have heard of the record now, or another record may do
				wake.Stop()
				select {
				case <-ctx.Done():
					return
				case <-time.After(x.tellTime()):
				}
				break waiting
			case <-ctx.Done():
				wake.Stop()
				return
			case <-wake.C:
				r.due(err)
				break waiting
			case <-moved:
				if moved = x.moves(); held && e.told(x.describe()) {
					continue
				}
				wake.Stop()
				r.suspect()
				break waiting
			case <-woke:
				wake.Stop()
				r.suspect()
				break waiting
			case <-lost(native, held):
				wake.Stop()
				x.observer.Observe(ports.Event{Kind: ports.EventLeaseLost, PeerID: x.self, Via: id})
				held = false
				select {
				case <-ctx.Done():
					return
				case <-woke:
					r.suspect()
				case <-time.After(r.dropped(rand.Float64())):
				}
				break waiting
			}
		}
	}
}

// lost returns the channel that tells of the end of a held lease's connection.
func lost(native ports.Native, held bool) <-chan struct{} {
	if remote, ok := native.(ports.RemoteNative); ok && held {
		return remote.Disconnected()
	}
	return nil
}

func (x *Indexer) tell(id ports.PeerID, lease ports.Lease, err error, joined bool, took time.Duration) {
	e := ports.Event{Kind: ports.EventLeaseGranted, PeerID: x.self, Via: id, Joined: joined, Took: took, Err: err}
	var refusal *ports.Refusal
	switch {
	case errors.As(err, &refusal):
		e.Kind, e.Code, e.Joined = ports.EventLeaseFailed, refusal.Code, false
	case err != nil:
		e.Kind, e.Joined = ports.EventLeaseFailed, false
	case lease.Unconfirmed:
		e.Kind = ports.EventLeaseUnconfirmed
	}
	x.observer.Observe(e)
}
