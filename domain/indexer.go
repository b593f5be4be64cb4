package domain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// minRenewal is the shortest heartbeat that a native may ask for: what it answers
	// is clamped to it, so that a native cannot make its indexers flood.
	minRenewal = time.Second
	// retryRegistration is the pause after a registration that failed; it doubles, so
	// 1, 2, 4 s, up to half a heartbeat: after an outage of any length everyone is
	// registered again within a heartbeat.
	retryRegistration = time.Second
	// reconnectSpread is over how long a native's indexers spread when it drops them
	// all at once; well under the second in which a lost lease is to be renewed.
	reconnectSpread = 250 * time.Millisecond
)

// Indexer is the indexer's side of a lease: it registers with every native it was
// given, at once and then every heartbeat, each independently of the others, so
// that the death of one leaves the leases at the others untouched.
type Indexer struct {
	self      ports.PeerID
	heartbeat time.Duration
	natives   map[ports.PeerID]ports.Native
	describe  func() ports.Registration
	observer  ports.Observer
}

// NewIndexer returns an indexer that keeps leases at natives as soon as Run runs.
// describe returns what to register, now; it is called for every heartbeat. A
// native that is a ports.RemoteNative is registered with again when its connection ends.
func NewIndexer(self ports.PeerID, heartbeat time.Duration, natives map[ports.PeerID]ports.Native, describe func() ports.Registration, observer ports.Observer) (*Indexer, error) {
	if len(natives) == 0 {
		return nil, errors.New("an indexer needs a native to register with")
	}
	if heartbeat < minInterval {
		return nil, fmt.Errorf("heartbeat %v is shorter than %v", heartbeat, minInterval)
	}
	return &Indexer{self: self, heartbeat: heartbeat, natives: natives, describe: describe, observer: observer}, nil
}

// Run keeps the leases until ctx ends; it returns when all of it has stopped.
func (x *Indexer) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for id, native := range x.natives {
		running.Go(func() { x.keep(ctx, id, native) })
	}
	running.Wait()
	return nil
}

// keep holds the lease at one native.
func (x *Indexer) keep(ctx context.Context, id ports.PeerID, native ports.Native) {
	held := false
	r := renewal{heartbeat: x.heartbeat}
	for {
		sent := time.Now()
		lease, err := native.Register(ctx, x.self, x.describe())
		if ctx.Err() != nil {
			return
		}
		x.tell(id, lease, err, !held, time.Since(sent))
		held = err == nil
		wake := time.NewTimer(time.Until(sent.Add(r.after(lease, err, rand.Float64()))))
		select {
		case <-ctx.Done():
			wake.Stop()
			return
		case <-wake.C:
			r.due(err)
			continue
		case <-lost(native, held):
			wake.Stop()
		}
		x.observer.Observe(ports.Event{Kind: ports.EventLeaseLost, PeerID: x.self, Via: id})
		held = false
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.dropped(rand.Float64())):
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

// renewal decides when to register next, from what became of the registrations so far.
type renewal struct {
	heartbeat time.Duration
	failures  int // registrations that failed, in a row
	drops     int // connections that ended before their lease was due, in a row
}

// after returns how long after it was sent a registration that ended in lease and
// err is to be followed by the next. jitter is uniform in [0, 1).
func (r *renewal) after(lease ports.Lease, err error, jitter float64) time.Duration {
	var refusal *ports.Refusal
	switch {
	case errors.As(err, &refusal) && refusal.Code != ports.CodeBusy:
		return early(r.heartbeat, jitter) // it would say the same in a second
	case err != nil:
		r.failures++
		return early(r.pause(r.failures), jitter)
	}
	r.failures = 0
	return early(r.interval(lease), jitter)
}

// interval returns the heartbeat that lease asks for, clamped to what is sane and
// to what its TTL needs.
func (r *renewal) interval(lease ports.Lease) time.Duration {
	least := min(minRenewal, r.heartbeat)
	interval := r.heartbeat
	if lease.Heartbeat != 0 {
		interval = lease.Heartbeat
	}
	if lease.TTL > 0 && interval >= lease.TTL {
		interval = lease.TTL / 10 * 9
	}
	return min(max(interval, least), r.heartbeat)
}

// due notes that the time of the next registration has come; err is what became of
// the last one. If that was a lease, its connection has lasted.
func (r *renewal) due(err error) {
	if err == nil {
		r.drops = 0
	}
}

// dropped returns how long to wait after the connection of a held lease has ended:
// next to nothing once, and longer from time to time with a native that keeps
// dropping us.
func (r *renewal) dropped(jitter float64) time.Duration {
	r.drops++
	if r.drops == 1 {
		return time.Duration(float64(min(reconnectSpread, r.heartbeat/10)) * jitter)
	}
	return early(r.pause(r.drops-1), jitter)
}

// pause is how long to wait after n failures in a row.
func (r *renewal) pause(n int) time.Duration {
	first := min(retryRegistration, r.heartbeat/10)
	return min(first<<min(n-1, 20), r.heartbeat/2)
}

// early spreads d over its last tenth, so that indexers started together do not
// stay together and a heartbeat is rather early than late.
func early(d time.Duration, jitter float64) time.Duration {
	return d - time.Duration(float64(d)/10*jitter)
}
