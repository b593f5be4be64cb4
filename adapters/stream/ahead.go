package stream

import (
	"slices"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

const (
	// maxAhead bounds how many watches read ahead at once, and aheadFrames what each of them holds then: with
	// the parts that were joined some 2 MB. Other watches read frame by frame.
	maxAhead    = 8
	aheadFrames = 16
	// maxPartChanges bounds the changes of a frame that is held: a native's own have some 400. A liar's frame
	// would have 8,000 without a word in them, and each takes 0.5 KB here: with this bound a watch holds 5 MB.
	maxPartChanges = 512
	// joinedChanges is how many changes are enough to be taken in together: a signature among so many costs
	// two thirds of what it costs among those of a frame.
	joinedChanges = 1024
)

// isPart reports whether b is a part of a table that is told whole, behind its first, and nothing else. A part
// that takes more room than a native's own is left to be read by itself.
func isPart(b *ports.Batch) bool {
	if b.News == nil || b.Cursor != "" || b.Reset != "" || b.Age != 0 || len(b.News.Renewals)+len(b.Sums)+len(b.Told) > 0 {
		return false
	}
	n := len(b.News.Changes)
	return n > 0 && n <= maxPartChanges && !slices.ContainsFunc(b.News.Changes, func(c ports.Change) bool { return len(c.Addrs) > ports.MaxAddrs })
}

// readAhead is readAhead below, unless too many watches read ahead already. Then it returns part.
func (t *Transport) readAhead(part ports.Batch, next func() (ports.Batch, error), stop func(), yield func(ports.Batch) bool) (ports.Batch, error) {
	select {
	case t.ahead <- struct{}{}:
		defer func() { <-t.ahead }()
		return readAhead(part, next, stop, yield)
	default:
		return part, nil
	}
}

// readAhead yields part and the parts that follow it, as many together as have come. It reads on while
// the caller takes them in: next returns the batch of the next frame, and fails after stop. It
// returns the first batch that is no part, or the error of next; errGone if yield stops it.
func readAhead(part ports.Batch, next func() (ports.Batch, error), stop func(), yield func(ports.Batch) bool) (last ports.Batch, err error) {
	parts, done := make(chan ports.Batch, aheadFrames), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(parts)
		for {
			if last, err = next(); err != nil || !isPart(&last) {
				return
			}
			select {
			case parts <- last:
			case <-done:
				return
			}
		}
	})
	for is := true; is; part, is = joined(parts) {
		if !yield(part) {
			close(done)
			stop()
			reading.Wait()
			return ports.Batch{}, errGone
		}
	}
	return last, err
}

// joined waits for a part, and returns it with those that have come behind it. It is not ok if no more
// come.
func joined(parts <-chan ports.Batch) (all ports.Batch, ok bool) {
	all, ok = <-parts
	for ok && len(all.News.Changes) < joinedChanges {
		select {
		case next, more := <-parts:
			if !more {
				return all, true
			}
			next.News.Changes = append(all.News.Changes, next.News.Changes...)
			all = next
		default:
			return all, true
		}
	}
	return all, ok
}
