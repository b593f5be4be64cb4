package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// exchange is an indexer's registrations with one native, and what it knows of their proofs.
type exchange struct {
	x     *Indexer
	id    ports.PeerID
	gave  *issued  // the record that proved the last registration, nil if that was plain
	step  uint32   // of gave
	known int64    // the Seq of the record that the native has
	said  []string // the addresses that the last registration was described with
	// denied is whether the native could not show an address that another takes. So it grants no lease
	// before it has heard of the record from that native.
	denied bool
}

// maxRecords bounds how many records in a row a native gets that asks for its record again.
const maxRecords = 3

var errInsatiable = errors.New("it asks for the record again, and has been given it; is its clock right?")

// register registers with native, and again with the record if native asks for that.
func (e *exchange) register(ctx context.Context, native ports.Native) (ports.Lease, error) {
	var lease ports.Lease
	var err error
	e.denied = false
	e.x.unshown.asks(e.id)
	for given := 0; given < maxRecords; {
		var reg ports.Registration
		var asks bool
		if reg, asks, err = e.compose(); err != nil {
			return lease, err
		}
		lease, err = native.Register(ctx, e.x.self, reg)
		if err == nil {
			e.take(lease)
		}
		switch {
		case err != nil && e.refused(ctx, native, err):
			given++ // with other addresses, or without the record
			continue
		case err != nil:
			return lease, err
		case asks && lease.Unconfirmed:
			e.x.unshown.fails(e.id)
			return lease, nil // a native of the seed took the question for a plain registration
		case asks:
			if e.x.records.answered(lease); !lease.NeedRecord {
				return lease, nil // it answered as if nothing had been asked
			}
			continue // the question brought no record
		case e.gave == nil:
			e.x.unshown.fails(e.id) // it judges none
			return lease, nil
		case reg.Proof.Record != nil && lease.TTL > 0 && !lease.NeedRecord:
			e.x.unshown.takes(e.id, e.gave.Addrs)
		}
		if e.known = e.gave.Seq; lease.NeedRecord {
			e.known = 0
		}
		again := e.x.records.outdated(e.gave, lease, reg.Proof.Record != nil)
		if !again && (lease.TTL > 0 || !lease.NeedRecord) {
			return lease, nil
		}
		given++
	}
	if err != nil || lease.TTL > 0 {
		return lease, err
	}
	return ports.Lease{}, errInsatiable
}

// compose returns what to register now: with a question before the first record, and with a tick
// of the record, and the record itself if the native does not have it, after that.
func (e *exchange) compose() (reg ports.Registration, asks bool, err error) {
	x := e.x
	reg = x.describe()
	e.said = reg.Addrs
	e.gave = nil
	if x.records == nil {
		return reg, false, nil
	}
	reg.Addrs = x.unshown.without(reg.Addrs)
	if reg.Addr == "" {
		return reg, false, nil // the native says what is wrong with it
	}
	if reg.Proof = x.records.question(); reg.Proof != nil {
		return reg, true, nil
	}
	if e.gave, err = x.records.issue(reg); err != nil {
		return reg, false, err
	}
	reg.Proof = e.gave.proof(x.clock.Instant(), e.known == e.gave.Seq)
	e.step = reg.Proof.Tick.Step
	return reg, false, nil
}

// told reports whether the native was told the addresses of reg.
func (e *exchange) told(reg ports.Registration) bool { return slices.Equal(e.said, reg.Addrs) }

// take takes note of what a native answers beside the lease: its clock, and another process with
// this indexer's key.
func (e *exchange) take(lease ports.Lease) {
	if !lease.Now.IsZero() && e.id != e.x.self {
		e.x.clock.Sample(e.id, lease.Now, lease.Clocks)
	}
	if lease.Rival {
		e.x.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: e.x.self, Via: e.id})
	}
}

// refused takes in that a registration failed, and reports whether another one may do better: the
// native has named addresses that it could not show. If another native takes them, this one hears of
// the record there, and a tick may do. If not, a record may do without them. It ends the indexer's
// leases if another process has taken its place.
func (e *exchange) refused(ctx context.Context, native ports.Native, err error) (again bool) {
	e.known = 0 // the native may be another process by the next time
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok || e.gave == nil || refusal.Code != ports.CodeAddrInvalid && refusal.Code != ports.CodeBusy {
		e.x.unshown.fails(e.id)
	}
	if !ok {
		return false
	}
	if refusal.Code == ports.CodeSuperseded && e.rivalled(ctx, native) && !e.x.superseded.Swap(true) {
		e.x.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: e.x.self, Via: e.id, Code: refusal.Code, Err: refusal})
		e.x.supersede()
	}
	if e.gave == nil || refusal.Code != ports.CodeAddrInvalid {
		return false
	}
	left, stay := e.x.unshown.denied(ctx, e.id, e.gave.Addrs, refusal.Unshown)
	if stay {
		e.denied = true
		e.known = e.gave.Seq
		select {
		case <-time.After(e.x.tellTime()):
		case <-ctx.Done():
		}
	}
	return left || stay
}

// rivalled reports whether native has a record that another process with this key has signed
// since. Its word alone is not enough: a native that lies could have an indexer register nowhere.
func (e *exchange) rivalled(ctx context.Context, native ports.Native) bool {
	x := e.x
	if x.proofs == nil || e.gave == nil {
		return x.proofs == nil
	}
	a, err := native.LookUp(ctx, x.self, x.self)
	if err != nil || a.Proof == nil || a.Proof.Record == nil {
		return false
	}
	claim, err := x.proofs.Verify(a.Proof.Record, a.Proof.Tick)
	return err == nil && claim.PeerID == x.self && claim.Start != e.gave.Start && claim.Seq >= e.gave.Seq
}

// next returns how long after sent the next registration follows: with a step of the record's
// chain. It is plain for a registration without a record, and where the native wants to hear
// sooner than the steps come.
func (e *exchange) next(interval time.Duration, sent time.Time, plain time.Duration) time.Duration {
	switch {
	case e.gave == nil:
		return plain
	case interval < e.gave.Interval:
		e.x.records.want(interval)
		return plain
	}
	// Another native may want to hear oftener, so steps may come oftener than this native wants.
	steps := uint32(interval / e.gave.Interval)
	// At once, if the native took that long to answer.
	return time.Since(sent) + e.gave.until(e.step+steps, e.x.clock.Instant())
}
