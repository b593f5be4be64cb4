package domain

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// batchInterval is how long after a batch the next one follows at the earliest, so that
	// changes in a row travel together: what happens after a while of nothing is told at
	// once, and all else within a fraction of the 100 ms that the contract has. Where many
	// watch, each is told less often, up to maxBatchInterval from a thousand of them on.
	batchInterval    = 25 * time.Millisecond
	perWatcher       = 75 * time.Microsecond
	maxBatchInterval = 100 * time.Millisecond
	// maxBatch bounds the changes of one batch: 0.1 ms to read, and a few frames to send.
	maxBatch = 1000
	// freshCursor is how many changes may pass by a watcher that wants none of them before
	// it gets a batch without changes: so its cursor stays worth something.
	freshCursor = maxChanges / 8
)

// renewalInterval is how long a native's renewals may wait to travel to another one
// together: a second, a sixth of what a lease has to spare beyond a heartbeat.
func (p TTLPolicy) renewalInterval() time.Duration { return min(time.Second, (p.TTL-p.Heartbeat)/6) }

// Watch implements ports.Native.
func (r *Registry) Watch(ctx context.Context, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		watcher := watcher{Registry: r, WatchRequest: w, yield: yield}
		if err := watcher.run(ctx); err != nil && err != errUnwatched {
			yield(ports.Batch{}, err)
		}
	}
}

// watcher is one reader of the changes.
type watcher struct {
	*Registry
	ports.WatchRequest
	yield func(ports.Batch, error) bool

	next      uint64          // the number of the change to read next
	told      uint64          // the cursor of the last batch
	looked    time.Time       // when it last looked for changes, or handed a batch over
	condition ports.Condition // as told last
}

// errUnwatched ends a watch whose reader wants no more.
var errUnwatched = ports.Refuse(ports.CodeRefused, "nobody reads any more")

// errTooSlow drops a watcher that fell out of what is remembered.
var errTooSlow = ports.Refuse(ports.CodeTooSlow, "more than %d changes behind; watch again from the last cursor for a snapshot, and read faster", maxChanges)

func (w *watcher) run(ctx context.Context) error {
	if err := w.trusted(); err != nil {
		return err
	}
	changes := w.table.changes
	defer changes.watch()()
	if w.Own || w.Renewed {
		w.Renewed = true
		changes.remember()
	}
	from, reset := changes.resume(w.Cursor, w.Renewed)
	w.next = from
	if reset != "" {
		if err := w.snapshot(ctx, reset); err != nil {
			return err
		}
	} else if err := w.send(ports.Batch{Cursor: changes.cursor(w.next)}); err != nil {
		return err // the first batch comes at once: there is a watch
	}
	w.told = w.next
	for {
		// An idle one is told at once, and then no more often than every so often.
		if err := changes.wait(ctx, w.next, false); err != nil {
			return err
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
		if err := w.trusted(); err != nil {
			return err
		}
		w.looked = time.Now()
		for more := true; more; {
			var batch ports.Batch
			var err error
			if batch, more, err = w.take(); err != nil {
				return err
			}
			if len(batch.Changes) == 0 && w.next-w.told < freshCursor && w.Condition() == w.condition {
				continue
			}
			batch.Cursor = changes.cursor(w.next)
			w.told = w.next
			if err := w.send(batch); err != nil {
				return err
			}
		}
	}
}

// trusted refuses a watch that natives alone may have, if it is none of those that this
// native trusts.
func (w *watcher) trusted() error {
	if !w.Own || w.Sender == "" || w.cfg.Natives.in(w.Sender) {
		return nil
	}
	w.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedWatch, PeerID: w.Sender})
	return ports.Refuse(ports.CodeRefused, "this network is closed, and %s is none of its natives: ask whoever runs the native %s to add it to trust.natives there, or watch without Own", w.Sender, w.cfg.Self)
}

// take returns the next changes, and whether there may be more to take now.
func (w *watcher) take() (batch ports.Batch, more bool, err error) {
	if w.Own || w.Proofs { // few enough to be told one by one
		head := w.table.changes.head()
		batch, err = w.read(min(head, w.next+maxBatch))
		return batch, w.next < head, err
	}
	shared, until := w.table.changes.segments.at(w.Registry, w.next, w.interval())
	switch {
	case shared != nil:
		w.next = shared.until
		if batch.Changes = shared.lasting; w.Renewed {
			batch.Changes = shared.all
		}
	case until > w.next:
		if batch, err = w.read(min(until, w.next+maxBatch)); err != nil {
			return batch, false, err
		}
	default:
		return batch, false, nil // the next segment is not due yet
	}
	return batch, true, nil
}

// interval is how long after one batch the next one follows.
func (w *watcher) interval() time.Duration {
	watching := time.Duration(w.table.changes.caller.watching.Load())
	return min(batchInterval+watching*perWatcher, maxBatchInterval)
}

// pause waits until the next batch may follow. Where renewals alone wait to travel to
// another native, they wait for more of them.
func (w *watcher) pause(ctx context.Context) error {
	interval := w.interval()
	// Apart from each other, or all would want the processors at once.
	interval -= rand.N(interval / 2)
	timer := time.NewTimer(time.Until(w.looked.Add(interval)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !w.Own {
		return nil
	}
	more, cancel := context.WithDeadline(ctx, w.looked.Add(w.cfg.Policy.renewalInterval()))
	defer cancel()
	if err := w.table.changes.wait(more, w.next, true); err != nil {
		return ctx.Err()
	}
	return nil
}

// read returns what happened from the watcher's place on, up to the change of number until.
func (w *watcher) read(until uint64) (ports.Batch, error) {
	from := w.next
	changes, ok := w.table.changes.read(from, int(until-from))
	if !ok {
		return ports.Batch{}, errTooSlow
	}
	wanted := 0
	for c := range changes {
		w.next++
		if w.wants(c) {
			wanted++
		}
	}
	if wanted == 0 {
		return ports.Batch{}, nil
	}
	batch := ports.Batch{Changes: make([]ports.Change, 0, wanted)}
	now := w.clock().now
	for c := range changes {
		if w.wants(c) {
			batch.Changes = append(batch.Changes, w.change(c, now))
		}
	}
	return batch, nil
}

func (w *watcher) wants(c *change) bool {
	switch {
	case c.kind == conditionChanged:
		return false
	case w.Own && (c.rank != granted || c.kind == ports.ChangeExpired || c.kind == ports.ChangeLate):
		return false // another native ends by itself what it was told of
	case c.kind == ports.ChangeRenewed:
		return w.Renewed
	}
	return true
}

func (w *watcher) change(c *change, now time.Duration) ports.Change {
	switch {
	case !c.kind.Gone():
		change := ports.Change{Kind: c.kind, Listed: w.listed(c.id, &c.lease, now)}
		change.Proof = w.proof(c)
		return change
	case c.kind == ports.ChangeExpired:
		return ports.Change{Kind: c.kind, Listed: ports.Listed{Entry: Entry{PeerID: c.id, Native: c.native.Value()}}}
	}
	left := ports.Listed{
		Entry:     Entry{PeerID: c.id, Native: c.native.Value(), ExpiresAt: time.Unix(0, c.expiresAt).UTC(), Leave: true, Proof: w.proof(c)},
		Remaining: max(c.deadline-now, 0),
	}
	if c.proof != nil && left.Proof == nil {
		// It is remembered for as long as its record counts, which is longer than what that says.
		left.ExpiresAt = w.cfg.now().Add(left.Remaining).Round(time.Millisecond).UTC()
	}
	return ports.Change{Kind: c.kind, Listed: left}
}

// proof is as much of what proves c as the watcher needs.
func (w *watcher) proof(c *change) *ports.Proof {
	switch p := c.proof; {
	case p == nil || !w.Own && !w.Proofs:
		return nil
	case c.kind == ports.ChangeRenewed && !c.fresh || c.kind == ports.ChangeLate:
		return &ports.Proof{Tick: p.Tick}
	default:
		return p
	}
}

// snapshot hands over the table as it is, and what happened meanwhile. Only then is it
// whole, and has a cursor.
func (w *watcher) snapshot(ctx context.Context, reset ports.Reset) error {
	w.next = w.table.changes.head()
	batch := ports.Batch{Reset: reset}
	full := func(limit int) error {
		if len(batch.Changes) < limit {
			return nil
		}
		err := w.send(batch)
		batch = ports.Batch{}
		if err == nil {
			err = ctx.Err()
		}
		return err
	}
	for ids := range w.table.everyone() {
		for _, id := range ids {
			if c, ok := w.present(id); ok {
				batch.Changes = append(batch.Changes, c)
			}
		}
		if err := full(maxBatch); err != nil {
			return err
		}
		// What happens during a long walk must not fall out of what is remembered. All
		// that was seen goes first, or it would undo what happened since.
		for behind := false; w.table.changes.head()-w.next > maxChanges/8; behind = true {
			if !behind {
				if err := full(0); err != nil {
					return err
				}
			}
			changes, err := w.read(w.next + maxBatch)
			if err == nil && len(changes.Changes) > 0 {
				err = w.send(changes)
			}
			if err != nil {
				return err
			}
		}
	}
	if batch.Reset != "" || len(batch.Changes) > 0 {
		if err := full(0); err != nil {
			return err
		}
	}
	for until := w.table.changes.head(); w.next < until; {
		batch, err := w.read(min(until, w.next+maxBatch))
		if err == nil && len(batch.Changes) > 0 {
			err = w.send(batch)
		}
		if err != nil {
			return err
		}
	}
	return w.send(ports.Batch{Cursor: w.table.changes.cursor(w.next)})
}

// present returns what a snapshot says of id, if anything.
func (w *watcher) present(id ports.PeerID) (ports.Change, bool) {
	s := w.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := w.clock().now
	if rec := s.live(id, now); rec != nil && w.Own {
		return w.change(&change{ports.ChangeSnapshot, id, rec.lease}, now), rec.rank == granted
	} else if rec != nil {
		return w.change(&change{ports.ChangeSnapshot, id, *rec.shown(w.cfg.Policy, now)}, now), true
	}
	if rec := s.left(id, now); rec != nil {
		return w.change(&change{ports.ChangeLeft, id, rec.lease}, now), w.Own
	}
	return ports.Change{}, false
}

// send hands a batch over, and waits for as long as the reader takes.
func (w *watcher) send(b ports.Batch) error {
	b.Condition, b.Now = w.Condition(), w.cfg.Clock.System()
	w.condition = b.Condition
	live := &w.table.listed
	if w.Own {
		live = &w.table.owned
	}
	b.Live = int(live.Load())
	if !w.yield(b, nil) {
		return errUnwatched
	}
	return nil
}
