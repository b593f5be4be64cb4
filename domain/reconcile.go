package domain

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file mends a difference between what a native has told by number, and what its follower has
// heard. The sums of smaller and smaller ranges of numbers show where it is. Those ranges are told again.

const (
	// splitParts is into how many parts a range is split whose sums differ. wholeCount is how many
	// numbers a range may have to be told whole: a frame of them costs as much as a few more sums.
	splitParts = 16
	wholeCount = 64
	// maxRounds bounds the questions of one reconciliation: a range of a million numbers is split
	// four times. A difference that is left is found by the next.
	maxRounds = 6
	// maxLies bounds how often the pause between two reconciliations doubles, if sums differ and
	// nothing else does: such a native is asked once in ten minutes.
	maxLies = 6
	// maxQuiet is how many sumsIntervals a question may stay without an answer.
	maxQuiet = 3
)

// errLies is a difference of two sums of the same.
var errLies = errors.New("the sums of what it told differ, and nothing else does")

// reconciliation is the search for a difference. Questions for numbers that are missing here go the same
// way.
type reconciliation struct {
	ask    chan<- []ports.Range // of the present watch
	asked  []ports.Range        // and not answered yet
	next   []ports.Range        // to ask then
	since  map[uint32]bool      // numbers told since a Whole range was asked for
	asking time.Time            // when the last question was asked
	on     bool                 // two sums differ
	rounds int
	mended int
	lies   int       // how many reconciliations in a row mended nothing
	again  time.Time // when the next may begin
}

// watch begins with a new watch, which takes questions at ask.
func (l *ledger) watch(ask chan<- []ports.Range) {
	l.reconciliation = reconciliation{ask: ask, lies: l.lies, again: l.again}
}

// compare takes in what b says of the ranges of l, and returns what the reconciliation that ended by
// that came to.
func (l *ledger) compare(b *ports.Batch, interval time.Duration) (ended *ports.Event) {
	for _, r := range b.Told {
		if l.toldWhole(r) {
			l.mended += l.changed
			l.each(r.From, r.Until, func(n uint32, _ *numbered) {
				if !l.since[n] {
					l.free(n)
					l.mended++
				}
			})
		}
	}
	for _, theirs := range b.Sums {
		switch {
		case l.answered(ports.Range{From: theirs.From, Until: theirs.Until}):
			l.next = append(l.next, l.split(theirs)...)
		case l.toldWhole(ports.Range{From: theirs.From, Until: theirs.Until}): // it is too large for now
		case theirs.From <= 1 && theirs.Until == 0 && !l.on:
			l.judge(theirs, interval)
		}
	}
	now := time.Now()
	if len(l.asked) > 0 {
		if now.Sub(l.asking) < maxQuiet*interval {
			return nil
		}
		l.asked, l.next = nil, nil // no answer comes
	}
	if l.on && (len(l.next) == 0 || l.rounds == maxRounds) {
		ended = l.end(now, interval)
	}
	l.question(now)
	return ended
}

// judge compares the sums of all numbers, and begins a reconciliation if they differ.
func (l *ledger) judge(theirs ports.Range, interval time.Duration) {
	switch now := time.Now(); {
	case l.sum == theirs.Sum && l.count == theirs.Count:
		l.lies = 0
	case now.Before(l.again):
	default: // a question for missing numbers may be under way, and after it comes the next
		l.on, l.rounds, l.mended = true, 0, 0
		l.next = l.split(theirs)
	}
}

// split returns the ranges to ask for if the sums of a range differ: its parts, or all of it.
func (l *ledger) split(theirs ports.Range) (parts []ports.Range) {
	mine := l.sums(theirs.From, theirs.Until)
	if mine.Sum == theirs.Sum && mine.Count == theirs.Count {
		return nil
	}
	// The last range has no end. The numbers of an honest native are dense.
	end := uint64(theirs.Until)
	if end == 0 {
		end = min(max(uint64(l.tally.end()), uint64(theirs.From)+uint64(theirs.Count)+1), uint64(l.bound)+1)
	}
	width := (end - min(end, uint64(theirs.From)) + splitParts - 1) / splitParts
	if max(mine.Count, theirs.Count) <= wholeCount || width < 2 {
		return []ports.Range{{From: theirs.From, Until: theirs.Until, Whole: true}}
	}
	from := uint64(theirs.From)
	for ; from+width < end; from += width {
		parts = append(parts, ports.Range{From: uint32(from), Until: uint32(from + width)})
	}
	return append(parts, ports.Range{From: uint32(from), Until: theirs.Until})
}

// toldWhole takes r off the ranges that are asked for whole, and reports whether it was among them. A
// range may be told in parts, in order.
func (l *ledger) toldWhole(r ports.Range) bool {
	for i := range l.asked {
		switch is := &l.asked[i]; {
		case !is.Whole || r.From != is.From:
		case r.Until == is.Until:
			l.asked = slices.Delete(l.asked, i, i+1)
			return true
		case r.Until > r.From && (is.Until == 0 || r.Until < is.Until):
			is.From = r.Until
			return true
		}
	}
	return false
}

// answered takes r off the ranges that are asked for, and reports whether it was among them.
func (l *ledger) answered(r ports.Range) bool {
	i := slices.Index(l.asked, r)
	if i >= 0 {
		l.asked = slices.Delete(l.asked, i, i+1)
	}
	return i >= 0
}

// end ends a reconciliation.
func (l *ledger) end(now time.Time, interval time.Duration) *ports.Event {
	e := &ports.Event{Kind: ports.EventReconciled, Changes: l.mended}
	l.on, l.next = false, nil
	if l.mended > 0 {
		l.lies = 0
	} else {
		l.lies, e.Err = min(l.lies+1, maxLies), errLies
	}
	l.again = now.Add(interval<<l.lies - interval/2)
	return e
}

// question asks for the next ranges, or for the numbers that are missing.
func (l *ledger) question(now time.Time) {
	l.since = nil
	missing := 0
	switch {
	case l.on:
		l.rounds++
	case len(l.missing) > 0:
		if l.next, missing = l.gaps(); missing == 0 {
			return
		}
	default:
		return
	}
	slices.SortFunc(l.next, func(r, o ports.Range) int { return cmp.Compare(r.From, o.From) })
	l.next = l.next[:min(len(l.next), ports.MaxRanges)]
	select {
	case l.ask <- l.next:
		l.missing = slices.Delete(l.missing, 0, missing)
		l.asked, l.next, l.asking, l.since = slices.Clone(l.next), nil, now, make(map[uint32]bool)
	default: // the last question is still under way
	}
}

// gaps returns the first of the missing numbers as ranges, and how many they are: as many as are told
// for one question. The others wait for the next.
func (l *ledger) gaps() (ranges []ports.Range, count int) {
	l.tidy()
	for _, n := range l.missing[:min(len(l.missing), maxWhole)] {
		last := len(ranges) - 1
		switch {
		case last >= 0 && ranges[last].Until == n:
			ranges[last].Until++
		case last+1 == ports.MaxRanges:
			return ranges, count
		default:
			ranges = append(ranges, ports.Range{From: n, Until: n + 1, Whole: true})
		}
		count++
	}
	return ranges, count
}
