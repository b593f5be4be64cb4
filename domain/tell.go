package domain

import (
	"context"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxSumsInterval is how long a difference between what a native told and what its follower heard
	// may last before it is found: a short while of a lease.
	maxSumsInterval = 10 * time.Second
	// maxWhole bounds the entries that a follower gets for one ask.
	maxWhole = 1024
)

// sumsInterval is how often a native tells its followers the sum of what it has told.
func (p TTLPolicy) sumsInterval() time.Duration {
	return max(p.newsTick(), min(maxSumsInterval, p.TTL/6))
}

// newsWatcher is a native that follows this native, and takes News.
type newsWatcher struct {
	watcher
	news *news

	at      uint64    // the piece to read next
	ticked  uint64    // the tick of the last batch
	missed  uint64    // what it missed ends there; its batches have no cursor until then
	summed  time.Time // when it was told the sum of all numbers, or its watch began
	answers time.Time // when an ask of it may be answered
	shown   time.Time // when the last entries were read for an ask: they may show more than is told
	full    func(bool)
}

// tellNews tells a follower, until ctx ends, what happens to this native's own leases.
func (w watcher) tellNews(ctx context.Context) error {
	if err := w.trusted(); err != nil {
		return err
	}
	full := func(bool) {}
	if followers := w.registry.settings.Followers; followers != nil && w.sender != "" {
		said, stop := followers.add(w.sender)
		defer stop()
		full = said
	}
	if w.request.Beat > 0 {
		w.beat = min(max(w.request.Beat, w.registry.rules.Policy.beat()), ports.WatchIdle)
	}
	n := newsWatcher{watcher: w, news: w.registry.table.news, summed: time.Now(), full: full}
	defer n.news.watch()()
	var reset ports.Reset
	if n.at, n.next, reset = n.news.resume(w.request.Cursor); reset != "" {
		if err := n.snapshot(ctx, reset); err != nil {
			return err
		}
	} else {
		if err := n.news.gatherSoon(ctx); err != nil {
			return err
		}
		n.missed = n.news.end()
		if err := n.send(ports.Batch{}); err != nil { // it comes at once, and confirms the watch
			return err
		}
	}
	for {
		wake, err := n.catchUp(ctx, n.news.end())
		if err != nil {
			return err
		}
		if wake == nil {
			continue
		}
		if err := n.idle(ctx, wake); err != nil {
			return err
		}
		if err := n.trusted(); err != nil {
			return err
		}
	}
}

// catchUp sends the pieces before number until. Once it has sent all there are, wake is not nil.
func (w *newsWatcher) catchUp(ctx context.Context, until uint64) (wake <-chan struct{}, err error) {
	for {
		p, place, wake, ok := w.news.read(w.at)
		switch {
		case !ok:
			return nil, errTooSlow
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case p == nil:
			w.next = place
			return wake, nil
		case w.at >= until:
			return nil, nil
		}
		told, age := p.News, w.registry.now().at.Sub(p.made)
		if w.at < w.missed && len(told.Renewals) > 0 {
			if len(told.Changes) > 0 {
				if err := w.send(ports.Batch{News: &ports.News{Changes: told.Changes}, Age: age}); err != nil {
					return nil, err
				}
			}
			told, age = w.whole(told), 0
		}
		w.next = place
		w.at++
		if err := w.send(ports.Batch{News: told, Age: age}); err != nil {
			return nil, err
		}
	}
}

// whole returns the entries that the follower missed the renewals of, as they are now. Their leases may
// have ended at the follower meanwhile, and a number would not bring them back.
func (w *newsWatcher) whole(missed *ports.News) *ports.News {
	all := &ports.News{}
	for _, x := range missed.Renewals {
		if c, ok := w.entry(x.Number, w.news.stands(x.Number)); ok {
			all.Changes = append(all.Changes, c)
		}
	}
	return all
}

// idle waits until there is more to tell. Meanwhile it tells whatever else is due. The follower knows
// all News.
func (w *newsWatcher) idle(ctx context.Context, wake <-chan struct{}) error {
	interval := w.registry.rules.Policy.sumsInterval()
	sums := w.summed.Add(interval)
	if !w.shown.IsZero() && !w.news.gatheredSince(w.shown) {
		sums = time.Now().Add(interval) // the sum would differ; it is due again once the tick has told those renewals
	}
	due := sums
	if w.beat > 0 && w.said.Add(w.beat).Before(due) {
		due = w.said.Add(w.beat)
	}
	ask := w.request.Ask
	if ask != nil && time.Now().Before(w.answers) {
		ask = nil
		if w.answers.Before(due) {
			due = w.answers
		}
	}
	// A beat goes out at each tick, so renewals cost no frame of their own.
	if w.doubts() || w.beat > 0 && w.ticked != w.news.ticks.Load() {
		return w.send(ports.Batch{})
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
		return nil
	case is := <-w.request.Full:
		w.full(is)
		return nil
	case ranges := <-ask:
		w.answers = time.Now().Add(w.registry.rules.Policy.newsTick())
		return w.answer(ctx, ranges)
	case <-timer.C:
	}
	switch now := time.Now(); {
	case !now.Before(sums):
		w.summed = now
		return w.answer(ctx, []ports.Range{{}})
	case w.due():
		return w.send(ports.Batch{})
	}
	return nil
}

// answer tells the sums of ranges, and the entries of those that are Whole.
func (w *newsWatcher) answer(ctx context.Context, ranges []ports.Range) error {
	sums, whole, err := w.sums(ctx, ranges)
	if err != nil {
		return err
	}
	if len(sums) > 0 {
		if err := w.send(ports.Batch{Sums: sums}); err != nil {
			return err
		}
	}
	for _, r := range whole {
		told := &ports.News{}
		for i, to := range r.records {
			if c, ok := w.entry(r.numbers[i], to); ok {
				told.Changes = append(told.Changes, c)
			}
		}
		w.shown = time.Now()
		if err := w.send(ports.Batch{News: told, Told: []ports.Range{r.Range}}); err != nil {
			return err
		}
	}
	return nil
}

// entry returns the own lease of a record as in a snapshot, if number still stands for it.
func (w *newsWatcher) entry(number uint32, to pointer) (ports.Change, bool) {
	s := w.registry.table.shardOf(to.ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := w.registry.now().at
	rec := s.of(to)
	own := rec.holding().granted()
	if !rec.known() || rec.number != number || own == nil || !own.live(at) {
		return ports.Change{}, false // the News to come say so
	}
	c := w.news.public(&change{ports.ChangeSnapshot, rec.id(), *own, true}, at)
	c.Number = number
	return c, true
}

// wholeRange is a range that a follower wants whole.
type wholeRange struct {
	ports.Range
	numbers []uint32
	records []pointer
}

// sums returns the sums of ranges, and what is in those that are Whole, at the place of the follower: it
// knows all News then. Ranges that overlap are passed over.
func (w *newsWatcher) sums(ctx context.Context, ranges []ports.Range) (sums []ports.Range, whole []wholeRange, err error) {
	gather := slices.ContainsFunc(ranges, func(r ports.Range) bool { return r.Whole })
	for {
		if gather {
			w.news.gatherAgain() // so the follower hears all that its entries may show
		}
		if wake, err := w.catchUp(ctx, w.news.end()); err != nil {
			return nil, nil, err
		} else if wake != nil {
			if sums, whole, ok := w.news.sums(w.at, ranges); ok {
				return sums, whole, nil
			}
		}
	}
}

// sums returns the sums of ranges, and what is in those that are Whole. It is not ok if a follower at
// that place does not know all News.
func (n *news) sums(at uint64, ranges []ports.Range) (sums []ports.Range, whole []wholeRange, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at != n.endNow() {
		return nil, nil, false
	}
	entries, from := 0, uint32(0)
	for i, r := range ranges[:min(len(ranges), ports.MaxRanges)] {
		if r.From < from || i > 0 && from == 0 || r.Until != 0 && r.Until <= r.From {
			break // not in order, or they overlap
		}
		from = r.Until
		sum := n.told.total()
		if sum.From = r.From; r.From > 1 || r.Until != 0 {
			sum = n.told.sums(r.From, r.Until)
		}
		if entries += int(sum.Count); !r.Whole || entries > maxWhole {
			sums = append(sums, sum)
			continue
		}
		is := wholeRange{Range: ports.Range{From: r.From, Until: r.Until, Whole: true}}
		n.told.each(r.From, r.Until, func(number uint32, stands *numbered) {
			is.numbers, is.records = append(is.numbers, number), append(is.records, stands.pointer)
		})
		whole = append(whole, is)
	}
	return sums, whole, true
}

// send sends b with the follower's place.
func (w *newsWatcher) send(b ports.Batch) error {
	w.ticked = w.news.ticks.Load()
	if w.at >= w.missed && !w.partial {
		b.Cursor = w.news.cursor(w.at)
	}
	return w.watcher.send(b)
}

// snapshot sends the own leases as they are, then the News since it began. Only its last batch has a
// cursor: the snapshot is whole then.
func (w *newsWatcher) snapshot(ctx context.Context, reset ports.Reset) error {
	w.partial = true
	batch := ports.Batch{Reset: reset, News: &ports.News{}}
	flush := func() error {
		if batch.Reset == "" && len(batch.News.Changes) == 0 {
			return ctx.Err()
		}
		err := w.send(batch)
		batch = ports.Batch{News: &ports.News{}}
		if err == nil {
			err = ctx.Err()
		}
		return err
	}
	for ids := range w.registry.table.concerning(w.sender) {
		for _, id := range ids {
			if c, ok := w.present(id); ok {
				batch.News.Changes = append(batch.News.Changes, c)
			}
		}
		if len(batch.News.Changes) < maxBatch {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		// No piece may be forgotten during a long walk.
		if _, err := w.catchUp(ctx, w.news.end()); err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if err := w.news.gatherSoon(ctx); err != nil { // all that the walk saw is told then
		return err
	}
	if _, err := w.catchUp(ctx, w.news.end()); err != nil {
		return err
	}
	w.partial = false
	return w.send(ports.Batch{})
}
