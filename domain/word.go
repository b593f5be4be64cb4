package domain

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// exchange is an indexer's exchange to one native.
type exchange struct {
	x     *Indexer
	id    ports.PeerID
	gave  *issued // what the last registration was proven with, nil if it was plain
	step  uint32  // and at which step
	known int64   // the Seq of the record that the native has
}

// maxRecords bounds how many records in a row a native is given that asks for one again.
const maxRecords = 3

var errInsatiable = errors.New("it asks for the record again, and has been given it; is its clock right?")

// give registers with native, and again with the record if it asks for that.
func (w *exchange) give(ctx context.Context, native ports.Native) (lease ports.Lease, err error) {
	x := w.x
	for given := 0; given < maxRecords; given++ {
		reg := x.describe()
		w.gave = nil
		if x.prover != nil {
			reg.Addrs = x.unshown.without(reg.Addrs)
		}
		question := (*ports.Proof)(nil)
		if x.prover != nil && reg.Addr != "" {
			question = x.prover.question()
		}
		switch {
		case question != nil:
			reg.Proof = question
		case x.prover != nil && reg.Addr != "":
			if w.gave, err = x.prover.issue(reg); err != nil {
				return lease, err
			}
			reg.Proof = w.gave.proof(x.clock.Elapsed(), w.known == w.gave.Seq)
			w.step = reg.Proof.Tick.Step
		}
		lease, err = native.Register(ctx, x.self, reg)
		if err != nil {
			w.known = 0 // it may be another process by the next time
			w.refused(ctx, native, err)
			refusal, ok := errors.AsType[*ports.Refusal](err)
			if ok && w.gave != nil && x.unshown.add(w.gave.Addrs, refusal.Unshown) {
				continue
			}
			return lease, err
		}
		if !lease.Now.IsZero() && w.id != x.self {
			x.clock.Sample(w.id, lease.Now)
		}
		if lease.Rival {
			x.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: x.self, Via: w.id})
		}
		if question != nil {
			if lease.Unconfirmed {
				return lease, nil // a native of the seed took it for a plain one, and says nothing
			}
			if x.prover.answered(lease); lease.NeedRecord {
				given-- // it was none
				continue
			}
		}
		if w.gave == nil {
			return lease, nil
		}
		if w.known = w.gave.Seq; lease.NeedRecord {
			w.known = 0
		}
		again := x.prover.heard(w.gave, lease, reg.Proof.Record != nil)
		if !again && (lease.TTL > 0 || !lease.NeedRecord) {
			return lease, nil
		}
	}
	switch {
	case err != nil, lease.TTL > 0:
		return lease, err
	}
	return ports.Lease{}, errInsatiable
}

// refused ends the indexer if another process has taken its place.
func (w *exchange) refused(ctx context.Context, native ports.Native, err error) {
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok || refusal.Code != ports.CodeSuperseded || !w.rivalled(ctx, native) || w.x.superseded.Swap(true) {
		return
	}
	w.x.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: w.x.self, Via: w.id, Code: refusal.Code, Err: refusal})
	w.x.supersede()
}

// rivalled reports whether native has what another process with this key has signed since: its
// exchange alone is not enough, or one that lies could have an indexer register nowhere.
func (w *exchange) rivalled(ctx context.Context, native ports.Native) bool {
	x := w.x
	if x.proofs == nil || w.gave == nil {
		return x.proofs == nil
	}
	a, err := native.LookUp(ctx, x.self, x.self)
	if err != nil || a.Proof == nil || a.Proof.Record == nil {
		return false
	}
	claim, err := x.proofs.Verify(a.Proof.Record, a.Proof.Tick)
	return err == nil && claim.PeerID == x.self && claim.Start != w.gave.Start && claim.Seq >= w.gave.Seq
}

// next returns how long after it was sent a registration is followed by the next one: with
// the next step of its chain, unless the native wants to hear sooner than those come.
func (w *exchange) next(interval time.Duration, sent time.Time, plain time.Duration) time.Duration {
	switch {
	case w.gave == nil:
		return plain
	case interval < w.gave.Interval:
		w.x.prover.want(interval)
		return plain
	}
	// Another native may want to hear oftener, so steps may come oftener than this one wants them.
	steps := uint32(interval / w.gave.Interval)
	// If the native took that long to answer, at once.
	return time.Since(sent) + w.gave.until(w.step+steps, w.x.clock.Elapsed())
}

// unshown are addresses that a native could not show to be this indexer's: for a while
// records do without them. The first address is never one, so no native can take all.
type unshown struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// add has records of so many addresses do without those that are named, and reports whether
// that changes anything.
func (u *unshown) add(of, named []string) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, addr := range named {
		if i := slices.Index(of, addr); i > 0 {
			if u.until == nil {
				u.until = make(map[string]time.Time)
			}
			u.until[addr] = time.Now().Add(ports.RecordLife)
			changed = true
		}
	}
	return changed
}

// without returns addrs as records have them now.
func (u *unshown) without(addrs []string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(u.until, func(_ string, until time.Time) bool { return !now.Before(until) })
	if len(u.until) == 0 {
		return addrs
	}
	kept := make([]string, 0, len(addrs))
	for i, addr := range addrs {
		if _, ok := u.until[addr]; i == 0 || !ok {
			kept = append(kept, addr)
		}
	}
	return kept
}
