package domain

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// clockWarning is how far this node's clock may be from that of the natives that it knows
	// before its operator should hear of it, and clockWrong before it takes itself to be
	// wrong: as much as a record's Seq may be ahead.
	clockWarning = 10 * time.Second
	clockWrong   = ports.ClockAllowance
	// maxSetBack is how far back a node that hears from nobody follows its own clock at once:
	// what keeps a clock right, and little beside a lease.
	maxSetBack = time.Second
	// heardFor is how long what was heard of another clock counts at least: long enough that
	// something has come meanwhile that was not held up.
	heardFor = 2 * ports.WatchIdle
	// maxHeldUp is how late a message may be: a watch on which nothing comes for so long ends.
	// Only a process that stood still finds older ones, all at once: in less than confirmAfter.
	maxHeldUp    = ports.WatchTimeout
	confirmAfter = time.Second
)

// Clock is the time of day that a node goes by. Its own clock may be wrong, and may jump: so
// it goes on by the monotonic clock from where it began, and is set by the median of this
// node's clock and those of the natives that it hears from. While they cannot agree, two of
// them an hour apart, it goes on as it did; so it does when it hears from nobody any more,
// but that it follows its own clock then: not back, or what has expired would live again.
// All methods may be called concurrently.
type Clock struct {
	system  func() time.Time
	started time.Time // with a monotonic reading
	wall    time.Time // what the system said then

	mu     sync.Mutex
	others map[ports.PeerID]voice
	own    time.Duration // how far this node's own clock is ahead of what it would show if it only went on
	votes  bool          // and whether it has a vote

	shift atomic.Int64 // how far the time of day is ahead of that
	off   atomic.Int64 // how far the system's clock is ahead of the time of day
}

// voice is what is heard of another clock. A message takes its time, and after an outage
// many seconds, so a clock shows what the message says or more: the most in a while is next
// to the truth. One that is set back is believed after two or three of these, and by more
// than a message may be late as soon as a second message says so.
type voice struct {
	ahead time.Duration // how far it is ahead of what this one would show if it only went on
	since time.Duration // when the while began, by elapsed
	next  time.Duration // the most since then
	back  time.Duration // when it was first said to be set back by more than maxHeldUp; 0 if not
}

func (v *voice) hear(ahead, elapsed time.Duration) {
	setBack := ahead < v.ahead && uint64(v.ahead)-uint64(ahead) > uint64(maxHeldUp)
	switch {
	case ahead >= v.ahead, setBack && v.back != 0 && elapsed-v.back >= confirmAfter:
		*v = voice{ahead: ahead, since: elapsed, next: ahead}
	case setBack:
		if v.back == 0 {
			v.back = elapsed
		}
	case elapsed-v.since >= heardFor:
		*v = voice{ahead: max(v.next, ahead), since: elapsed, next: ahead}
	default:
		v.next, v.back = max(v.next, ahead), 0
	}
}

// NewClock returns a clock that begins as system, nil for time.Now, shows.
func NewClock(system func() time.Time) *Clock {
	if system == nil {
		system = time.Now
	}
	return &Clock{
		system: system, started: time.Now(), wall: system().Round(0),
		others: make(map[ports.PeerID]voice), votes: true,
	}
}

// Now returns the time of day, in UTC and without a monotonic reading.
func (k *Clock) Now() time.Time { return k.At(k.Elapsed()) }

// Elapsed is how long the clock has been going. It runs on the monotonic clock, so nothing
// sets it.
func (k *Clock) Elapsed() time.Duration { return time.Since(k.started) }

// At is the time of day at which the clock has been going for elapsed, which may lie behind or
// ahead of now. It is as right as what is known of the other clocks by now.
func (k *Clock) At(elapsed time.Duration) time.Time {
	return k.wall.Add(elapsed + time.Duration(k.shift.Load())).UTC()
}

// System returns what this node's own clock shows, which is what it tells other natives:
// so each counts once, whatever it makes of the others.
func (k *Clock) System() time.Time { return k.system().Round(0).UTC() }

// Offset is how far this node's own clock is ahead of the time of day.
func (k *Clock) Offset() time.Duration { return time.Duration(k.off.Load()) }

// Wrong reports whether that is too far for anybody to go by.
func (k *Clock) Wrong() bool { return k.Offset().Abs() > clockWrong }

// Abstain takes this node's vote, for as long as others are heard: an indexer goes by its
// natives, and so does a native until it has met others.
func (k *Clock) Abstain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.votes = false
}

// settle gives this node its vote.
func (k *Clock) settle() {
	k.mu.Lock()
	k.votes = true
	k.mu.Unlock()
	k.look()
}

// Sample takes in what the clock of native showed a moment ago, and sets this one by it. The
// native votes from then on, until it is dropped.
func (k *Clock) Sample(native ports.PeerID, showed time.Time) {
	k.mu.Lock()
	elapsed := k.Elapsed()
	ahead := showed.Sub(k.wall.Add(elapsed))
	v, known := k.others[native]
	if !known {
		v = voice{ahead: ahead}
	}
	v.hear(ahead, elapsed)
	k.others[native] = v
	k.mu.Unlock()
	k.look()
}

// Sources is how many natives vote.
func (k *Clock) Sources() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.others)
}

// Drop takes the vote of native, from which nothing is heard any more.
func (k *Clock) Drop(native ports.PeerID) {
	k.mu.Lock()
	delete(k.others, native)
	k.mu.Unlock()
	k.look()
}

// look sets the clock by all that is known, and returns how far the system's is ahead then.
func (k *Clock) look() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	own := k.System().Sub(k.wall.Add(k.Elapsed()))
	shift := time.Duration(k.shift.Load())
	if len(k.others) == 0 {
		if set := own - k.own; set > -maxSetBack {
			shift += set
		}
	} else {
		votes := make([]time.Duration, 0, len(k.others)+1)
		for _, o := range k.others {
			votes = append(votes, o.ahead)
		}
		if k.votes {
			votes = append(votes, own)
		}
		slices.Sort(votes)
		low, high := votes[(len(votes)-1)/2], votes[len(votes)/2]
		// The difference of two that are centuries apart is more than a Duration can be.
		if uint64(high)-uint64(low) > uint64(clockWrong) {
			shift = min(max(shift, low), high)
		} else {
			shift = low + (high-low)/2
		}
	}
	k.own = own
	k.shift.Store(int64(shift))
	k.off.Store(int64(own - shift))
	return own - shift
}
