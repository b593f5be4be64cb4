package domain

import (
	"context"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxBatch bounds the changes of one batch: 0.1 ms to read, and a few frames to send.
	maxBatch = 1000
	// freshCursor is how many unwanted changes may pass by a watcher before it gets a batch
	// without changes: so the changelog still has the place of its cursor.
	freshCursor = maxChanges / 8
)

// renewalInterval is how long a native's renewals may wait to travel to another native
// together: a second, or less if a sixth of the lease's slack after its heartbeat is less.
func (p TTLPolicy) renewalInterval() time.Duration { return min(time.Second, (p.TTL-p.Heartbeat)/6) }

// Watch implements ports.Native.
func (r *Registry) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		watcher := watcher{registry: r, changes: r.table.changes, request: w, sender: sender, yield: yield}
		watcher.pace.watching = watcher.changes.waker.watching.Load
		run := watcher.run
		if w.Own && w.Numbers {
			run = watcher.tellNews
		}
		if err := run(ctx); err != nil && err != errUnwatched {
			yield(ports.Batch{}, err)
		}
	}
}

// watcher is one reader of the changes.
type watcher struct {
	registry *Registry
	changes  *changelog
	request  ports.WatchRequest
	sender   ports.PeerID // "" is this process
	yield    func(ports.Batch, error) bool

	next    uint64    // the number of the change to read next
	backlog uint64    // what it missed ends there; its batches have no cursor until then
	sent    uint64    // its place as the last batch was sent
	looked  time.Time // when it last looked for changes, or handed a batch over
	pace    pace      // of a watcher that reads for itself
	told    standing  // that of the last batch
	partial bool      // a snapshot is not whole yet

	beat     time.Duration // the longest silence between two batches; 0 is no promise
	promised bool          // the watcher knows beat
	said     time.Time     // when it handed the last batch over
}

// errUnwatched ends a watch: its reader has stopped.
var errUnwatched = ports.Refuse(ports.CodeRefused, "nobody reads any more")

// errTooSlow drops a watcher: the changelog has forgotten its place.
var errTooSlow = ports.Refuse(ports.CodeTooSlow, "more than %d changes behind; watch again from the last cursor for a snapshot, and read faster", maxChanges)

func (w *watcher) run(ctx context.Context) error {
	if err := w.trusted(); err != nil {
		return err
	}
	changes := w.changes
	defer changes.watch()()
	if followers := w.registry.settings.Followers; followers != nil && w.request.Own && w.sender != "" {
		_, stop := followers.add(w.sender)
		defer stop()
	}
	if w.request.Beat > 0 {
		w.beat = min(max(w.request.Beat, w.registry.rules.Policy.beat()), ports.WatchIdle)
	}
	if w.request.Own || w.request.Renewed {
		w.request.Renewed = true
		defer changes.remember()()
	}
	from, reset := changes.resume(w.request.Cursor, w.request.Renewed)
	w.next = from
	if reset != "" {
		if err := w.snapshot(ctx, reset); err != nil {
			return err
		}
	} else {
		w.backlog = changes.head()
		if err := w.send(ports.Batch{Cursor: w.cursor()}); err != nil {
			return err // the first batch comes at once: it confirms the watch
		}
	}
	w.sent = w.next
	for {
		// An idle watcher gets a change at once, and the next after an interval.
		beats, err := w.wait(ctx)
		if err != nil {
			return err
		}
		if err := w.trusted(); err != nil {
			return err
		}
		if beats {
			if err := w.send(ports.Batch{Cursor: w.cursor()}); err != nil {
				return err
			}
			w.sent = w.next
			continue // a beat puts off no change
		}
		w.looked = time.Now()
		for more := true; more; {
			var batch ports.Batch
			var err error
			if batch, more, err = w.take(); err != nil {
				return err
			}
			caughtUp := w.sent < w.backlog && w.next >= w.backlog
			if len(batch.Changes) == 0 && w.next-w.sent < freshCursor && !caughtUp && !w.doubts() && !w.due() {
				continue
			}
			batch.Cursor = w.cursor()
			w.sent = w.next
			if err := w.send(batch); err != nil {
				return err
			}
		}
	}
}

// cursor returns the cursor of the next batch, "" within the backlog. So the reader's table is the
// native's with the first cursor, as after a snapshot.
func (w *watcher) cursor() string {
	if w.next < w.backlog {
		return ""
	}
	return w.changes.cursor(w.next)
}

// wait returns at a change, as soon as the next batch may follow. Before a change, beats is true
// when a beat is due.
func (w *watcher) wait(ctx context.Context) (beats bool, err error) {
	until, cancel := ctx, context.CancelFunc(func() {})
	if w.beat > 0 {
		until, cancel = context.WithDeadline(ctx, w.said.Add(w.beat))
	}
	err = w.changes.wait(until, w.next, false)
	cancel()
	switch {
	case err == nil:
		return false, w.pause(ctx)
	case ctx.Err() == nil:
		return true, nil
	}
	return false, err
}

// pause returns when the next batch may follow. Renewals alone wait for more renewals, and for no
// longer than that. Any other change ends that wait.
func (w *watcher) pause(ctx context.Context) error {
	more, cancel := context.WithDeadline(ctx, w.gathered())
	err := w.changes.wait(more, w.next, true)
	cancel()
	if err != nil {
		return ctx.Err()
	}
	wait := time.Until(w.free())
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait + w.pace.spread(4))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gathered returns until when renewals alone may wait. They put off no beat.
func (w *watcher) gathered() time.Time {
	gather := w.registry.rules.Policy.renewalInterval()
	if !w.request.Own {
		if w.request.Renewed {
			gather = min(gather, w.pace.interval())
		}
		gather -= rand.N(gather / 2) // spread, as the watchers of a burst are
	}
	until := w.looked.Add(gather)
	if beat := w.said.Add(w.beat); w.beat > 0 && beat.Before(until) {
		return beat
	}
	return until
}

// free returns when the next batch may follow that is no renewal.
func (w *watcher) free() time.Time {
	if w.alone() {
		return w.pace.free
	}
	return w.changes.segments.free(w.next)
}

// alone reports whether the watcher reads for itself. Such watchers are few.
func (w *watcher) alone() bool { return w.request.Own || w.request.Proofs }

// due reports whether the watcher is promised a batch by now.
func (w *watcher) due() bool { return w.beat > 0 && time.Since(w.said) >= w.beat }

// standing returns how far the reader can rely on what it was told. The reader has the table of its
// place in the changes. So a better standing counts once it was told all changes before. A worse one
// counts at once.
func (w *watcher) standing() standing {
	return w.changes.standing(w.next).worse(w.registry.standing())
}

// doubts reports whether this native's word is worth more or less than by the last batch.
func (w *watcher) doubts() bool {
	now := w.standing()
	return now.condition != w.told.condition || !slices.Equal(now.missing, w.told.missing)
}

// trusted refuses a watch with Own unless its sender is a native that this native
// trusts.
func (w *watcher) trusted() error {
	if !w.request.Own || w.sender == "" || w.registry.rules.Natives.in(w.sender) {
		return nil
	}
	w.registry.observer.Observe(ports.Event{Kind: ports.EventUntrusted, What: ports.UntrustedWatch, PeerID: w.sender})
	return ports.Refuse(ports.CodeRefused, "this network is closed, and %s is none of its natives: ask whoever runs the native %s to add it to trust.natives there, or watch without Own", w.sender, w.registry.rules.Self)
}

// take returns the next changes, and whether there may be more to take now.
func (w *watcher) take() (batch ports.Batch, more bool, err error) {
	if w.alone() {
		head := w.changes.head()
		batch, err = w.read(min(head, w.next+maxBatch))
		w.pace.spend(w.looked, lasting(batch.Changes))
		return batch, w.next < head, err
	}
	shared, until := w.changes.segments.at(w.registry, w.next)
	switch {
	case shared != nil:
		w.next = shared.until
		if batch.Changes = shared.lasting; w.request.Renewed {
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

// read returns the changes from the watcher's place on, up to number until.
func (w *watcher) read(until uint64) (ports.Batch, error) {
	from := w.next
	changes, ok := w.changes.read(from, int(until-from))
	if !ok {
		return ports.Batch{}, errTooSlow
	}
	wanted := 0
	for m := range changes {
		w.next++
		if w.wants(m.kind(), m.source()) {
			wanted++
		}
	}
	if wanted == 0 {
		return ports.Batch{}, nil
	}
	batch := ports.Batch{Changes: make([]ports.Change, 0, wanted)}
	at := w.registry.now().at
	var c change
	for m := range changes {
		if w.wants(m.kind(), m.source()) {
			w.registry.table.recall(m, &c, w.alone())
			batch.Changes = append(batch.Changes, w.public(&c, at))
		}
	}
	return batch, nil
}

func (w *watcher) wants(kind ports.ChangeKind, from source) bool {
	switch {
	case kind == conditionChanged:
		return false
	case w.request.Own && (from != granted || kind == ports.ChangeExpired || kind == ports.ChangeLate || kind == ports.ChangeStale):
		return false // another native ends told leases by its own clock
	case kind == ports.ChangeRenewed:
		return w.request.Renewed
	}
	return true
}

func (w *watcher) public(c *change, at Instant) ports.Change {
	switch {
	case !c.kind.Gone():
		is := view{shown: &c.word, stale: c.kind == ports.ChangeStale}
		change := ports.Change{Kind: c.kind, Listed: w.registry.present(c.id, is, at)}
		change.Proof = w.proof(c)
		if p := c.word.early; p != nil && w.request.Own {
			change.Proof, change.ExpiresAt = p, p.Claim.ExpiresAt(p.Tick.Step)
		}
		return change
	case c.kind == ports.ChangeExpired:
		return ports.Change{Kind: c.kind, Listed: ports.Listed{Entry: Entry{PeerID: c.id, Native: c.word.native.Value()}}}
	}
	leave := ports.Listed{
		Entry:     Entry{PeerID: c.id, Native: c.word.native.Value(), ExpiresAt: time.Unix(0, c.word.expiresAt).UTC(), Leave: true, Proof: w.proof(c)},
		Remaining: max(c.word.deadline.Sub(at), 0),
	}
	if c.word.proof != nil && leave.Proof == nil {
		// A signed leave lasts for as long as its record counts, longer than its expiresAt.
		leave.ExpiresAt = w.registry.rules.wall().Add(leave.Remaining).Round(time.Millisecond).UTC()
	}
	return ports.Change{Kind: c.kind, Listed: leave}
}

// proof returns as much of c's proof as the watcher needs.
func (w *watcher) proof(c *change) *ports.Proof {
	switch p := c.word.proof; {
	case p == nil || !w.request.Own && !w.request.Proofs:
		return nil
	case !w.partial && (c.kind == ports.ChangeRenewed && !c.fresh || c.kind == ports.ChangeLate):
		return &ports.Proof{Tick: p.Tick}
	default:
		return p
	}
}

// snapshot sends the table as it is, then the changes since it began. Only its last batch
// has a cursor: the snapshot is whole then.
func (w *watcher) snapshot(ctx context.Context, reset ports.Reset) error {
	w.next, w.partial = w.changes.head(), true
	defer func() { w.partial = false }()
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
	for ids := range w.registry.table.everyone() {
		for _, id := range ids {
			if c, ok := w.present(id); ok {
				batch.Changes = append(batch.Changes, c)
			}
		}
		if err := full(maxBatch); err != nil {
			return err
		}
		// The changelog must not forget the changes during a long walk. The entries
		// walked so far go first, or they would undo those changes.
		for behind := false; w.changes.head()-w.next > maxChanges/8; behind = true {
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
	for until := w.changes.head(); w.next < until; {
		batch, err := w.read(min(until, w.next+maxBatch))
		if err == nil && len(batch.Changes) > 0 {
			err = w.send(batch)
		}
		if err != nil {
			return err
		}
	}
	return w.send(ports.Batch{Cursor: w.changes.cursor(w.next)})
}

// present returns the snapshot's change for id, if there is one.
func (w *watcher) present(id ports.PeerID) (ports.Change, bool) {
	s := w.registry.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := w.registry.now().at
	rec := s.record(id)
	unpack := record.glance
	if w.alone() {
		unpack = record.holding
	}
	held := unpack(rec)
	is := s.presentOf(rec, held, at)
	shown := is.shown
	if w.request.Own && shown != nil {
		shown = held.lease(at) // nil for a stale entry: other natives end it by themselves
	}
	c := change{kind: ports.ChangeSnapshot, id: id, fresh: true}
	if w.request.Own && shown != nil && shown.source != granted {
		mine := w.mine(held, at)
		if mine == nil {
			return ports.Change{}, false
		}
		c.word = *mine
		return w.public(&c, at), true
	}
	switch leave := held.leave(at); {
	case shown != nil:
		c.word = *shown
		change := w.public(&c, at)
		if w.request.Numbers {
			change.Number = rec.number
		}
		if is.stale {
			change.State, change.Remaining = ports.StateStale, 0
		}
		return change, true
	case leave != nil && w.request.Own:
		c.kind, c.word = ports.ChangeLeft, *leave
		return w.public(&c, at), true
	}
	return ports.Change{}, false
}

// mine returns the signed lease that the watcher granted before, if it asked for those.
func (w *watcher) mine(held *holding, at Instant) (mine *word) {
	if !w.request.Mine {
		return nil
	}
	held.leases(func(l *word) bool {
		if l.source != granted && l.proof != nil && l.live(at) && l.native.Value() == w.sender {
			mine = l
		}
		return mine == nil
	})
	return mine
}

// send hands a batch over, and waits until the reader has taken it.
func (w *watcher) send(b ports.Batch) error {
	w.told = w.standing()
	b.Condition, b.Missing = w.told.condition, w.told.missing
	b.Now = w.registry.rules.Clock.System()
	if !w.promised {
		b.Beat, w.promised = w.beat, true
		if w.request.Own {
			b.Start = w.changes.instance
		}
	}
	b.Live, _ = w.registry.Counts()
	if w.request.Own {
		b.Live = int(w.registry.table.owned.Load())
		b.Audience = w.registry.audience()
	}
	if !w.yield(b, nil) {
		return errUnwatched
	}
	w.said = time.Now()
	return nil
}
