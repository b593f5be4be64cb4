package domain

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// clockWarning is how far this node's own clock may be off before its operator is warned.
	// Beyond clockWrong a node takes its own clock to be wrong: a record's Seq may be ahead
	// by so much.
	clockWarning = 10 * time.Second
	clockWrong   = ports.ClockAllowance
	// maxSetBack is how far back a node without sources follows its own clock at once. The
	// corrections that keep a clock right are smaller, and a second is little beside a lease.
	maxSetBack = time.Second
	// sampledFor is how long the largest offset of a source counts at least: long enough for a
	// message without delay.
	sampledFor = 2 * ports.WatchIdle
	// maxHeldUp is how late a message may be: a silent watch ends after that. Only a process
	// that stood still finds older messages. They come all at once: in less than confirmAfter.
	maxHeldUp    = ports.WatchTimeout
	confirmAfter = time.Second
)

// Clock is the time of day that a node goes by. A node's own clock may be wrong, and may jump.
// So a Clock runs on the monotonic clock from where it began. It is set to the median of this
// node's own clock and its sources: the clocks of natives. While the two middle votes
// differ by more than clockWrong, it runs on as it was set, between the two. Without a source it
// follows the node's own clock, but not back: expired entries would live again. All methods may be
// called concurrently.
type Clock struct {
	system  func() time.Time
	elapsed func() time.Duration
	wall    time.Time // the system's time of day when the Clock was made
	// countsSleep is whether elapsed may count the time that the machine sleeps.
	countsSleep bool

	mu      sync.Mutex
	sources map[ports.PeerID]clockSource
	own     time.Duration // the offset of this node's own clock
	// abstains is the number of heard natives from which on this node's own clock does not count; 0
	// if it always counts.
	abstains int

	agreeing atomic.Int32 // how many votes are near the time of day
	shift    atomic.Int64 // the offset of the time of day
	off      atomic.Int64 // how far this node's own clock is ahead of the time of day
}

// clockSource is a native's clock. An offset is how far a clock is ahead of the monotonic
// clock since this Clock began. A message takes its time, after an outage many seconds. So the
// source's offset is a sample's or more, and the largest sample of a while is next to the truth.
// A source that is set back counts after two or three whiles. A set-back by more than
// maxHeldUp counts as soon as a second sample confirms it.
type clockSource struct {
	offset  time.Duration
	since   Instant       // when the while began
	largest time.Duration // the largest offset since then
	back    Instant       // when a sample first was behind by more than maxHeldUp; zero without one
	clocks  int           // of how many natives' clocks it comes
}

func (s *clockSource) sample(offset time.Duration, at Instant) {
	setBack := offset < s.offset && uint64(s.offset)-uint64(offset) > uint64(maxHeldUp)
	switch {
	case offset >= s.offset, setBack && s.back != (Instant{}) && at.Sub(s.back) >= confirmAfter:
		s.offset, s.since, s.largest, s.back = offset, at, offset, Instant{}
	case setBack:
		if s.back == (Instant{}) {
			s.back = at
		}
	case at.Sub(s.since) >= sampledFor:
		s.offset, s.since, s.largest, s.back = max(s.largest, offset), at, offset, Instant{}
	default:
		s.largest, s.back = max(s.largest, offset), Instant{}
	}
}

// NewClock returns a clock that begins at the time of system; nil is time.Now. elapsed is the
// time since the Clock was made, or since some earlier point; it never runs back. It should count
// the time that the machine sleeps. nil is time.Since, which does not count that on Linux.
func NewClock(system func() time.Time, elapsed func() time.Duration) *Clock {
	if system == nil {
		system = time.Now
	}
	countsSleep := elapsed != nil
	if !countsSleep {
		started := time.Now()
		elapsed = func() time.Duration { return time.Since(started) }
	}
	k := &Clock{system: system, elapsed: elapsed, countsSleep: countsSleep, sources: make(map[ports.PeerID]clockSource)}
	k.wall = system().Round(0).Add(-k.elapsed())
	return k
}

// Now returns the time of day, in UTC and without a monotonic reading.
func (k *Clock) Now() time.Time { return k.At(k.Instant()) }

// Instant reads the monotonic clock. Nothing sets it, and it counts the machine's sleep if the
// Clock's elapsed time does.
func (k *Clock) Instant() Instant { return Instant{k.elapsed()} }

// At returns the time of day at an instant, in UTC. The instant may lie behind or ahead of now. The
// time is as right as what is known of the other clocks by now.
func (k *Clock) At(at Instant) time.Time {
	return k.wall.Add(at.since + time.Duration(k.shift.Load())).UTC()
}

// shifted returns the offset of the time of day. It changes as the clock is set.
func (k *Clock) shifted() time.Duration { return time.Duration(k.shift.Load()) }

// System returns the time of this node's own clock, in UTC. A native tells others this time, not
// Now: so each clock counts once.
func (k *Clock) System() time.Time { return k.system().Round(0).UTC() }

// Offset returns how far this node's own clock is ahead of the time of day.
func (k *Clock) Offset() time.Duration { return time.Duration(k.off.Load()) }

// EnoughNatives is how many natives a node hears before it goes by them and not by its own clock: a
// lone native with a wrong clock sets no other.
const EnoughNatives = 2

// Abstain takes the vote of this node's own clock while it hears so many natives, 1 or more: an
// indexer goes by its natives, and so does a native until it has met others.
func (k *Clock) Abstain(natives int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.abstains = natives
}

// vote gives this node's own clock its vote.
func (k *Clock) vote() {
	k.mu.Lock()
	k.abstains = 0
	k.mu.Unlock()
	k.set()
}

// Sample takes in the time that the clock of native showed a moment ago, and sets this clock by
// it. The native votes from then on, until Drop. clocks is how many natives' clocks that time comes
// of; the native's own is one. It returns how much longer the message was under way
// than the fastest before it, as far as that is known: a process that stood still finds old messages.
func (k *Clock) Sample(native ports.PeerID, showed time.Time, clocks int) (heldUp time.Duration) {
	k.mu.Lock()
	at := k.Instant()
	offset := showed.Sub(k.wall.Add(at.since))
	s, known := k.sources[native]
	if !known || s.clocks != clocks { // it tells another time from now on
		s = clockSource{offset: offset, clocks: clocks}
	}
	if offset < s.offset {
		heldUp = s.offset - offset
	}
	s.sample(offset, at)
	k.sources[native] = s
	k.mu.Unlock()
	k.set()
	return heldUp
}

// Sources returns how many natives vote.
func (k *Clock) Sources() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.sources)
}

// Agreeing returns how many clocks show the time of day, its own included: they differ from it by
// clockWrong at most.
func (k *Clock) Agreeing() int { return int(k.agreeing.Load()) }

// only returns the only native that votes, "" if there are others or none: nothing tells which of two
// clocks is wrong.
func (k *Clock) only() (native ports.PeerID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.sources) == 1 {
		for native = range k.sources {
		}
	}
	return native
}

// heard returns how many natives' clocks this node hears, directly or by way of a native that goes by
// others. The caller holds the lock.
func (k *Clock) heard() int {
	heard := len(k.sources)
	for _, s := range k.sources {
		heard = max(heard, s.clocks)
	}
	return heard
}

// Drop takes the vote of native: this node hears its clock no more.
func (k *Clock) Drop(native ports.PeerID) {
	k.mu.Lock()
	delete(k.sources, native)
	k.mu.Unlock()
	k.set()
}

// set sets the clock by all votes, and returns how far this node's own clock is ahead then.
func (k *Clock) set() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	own := k.System().Sub(k.wall.Add(k.Instant().since))
	shift := time.Duration(k.shift.Load())
	if len(k.sources) == 0 {
		if set := own - k.own; set > -maxSetBack {
			shift += set
		}
	} else {
		votes := make([]time.Duration, 0, len(k.sources)+1)
		for _, s := range k.sources {
			votes = append(votes, s.offset)
		}
		if k.abstains == 0 || k.heard() < k.abstains {
			votes = append(votes, own)
		}
		slices.Sort(votes)
		low, high := votes[(len(votes)-1)/2], votes[len(votes)/2]
		// The difference of two votes may be centuries, more than a Duration can be.
		if uint64(high)-uint64(low) > uint64(clockWrong) {
			shift = min(max(shift, low), high)
		} else {
			shift = low + (high-low)/2
		}
	}
	agreeing := 0
	for _, s := range k.sources {
		if uint64(max(s.offset, shift))-uint64(min(s.offset, shift)) <= uint64(clockWrong) {
			agreeing++
		}
	}
	if (own - shift).Abs() <= clockWrong {
		agreeing++
	}
	k.agreeing.Store(int32(agreeing))
	k.own = own
	k.shift.Store(int64(shift))
	k.off.Store(int64(own - shift))
	return own - shift
}
