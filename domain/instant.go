package domain

import "time"

// Instant is a point on this node's monotonic clock: setting the wall clock does not move it. The
// zero Instant is the clock's start. It is a type of its own, so that a deadline plus a deadline
// does not compile.
type Instant struct{ since time.Duration }

// Add returns the point that is d later.
func (i Instant) Add(d time.Duration) Instant { return Instant{i.since + d} }

// Sub returns how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return i.since - j.since }

// Before reports whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i.since < j.since }

// earliest returns the earlier of two points.
func earliest(i, j Instant) Instant {
	if j.Before(i) {
		return j
	}
	return i
}

// latest returns the later of two points.
func latest(i, j Instant) Instant {
	if i.Before(j) {
		return j
	}
	return i
}

// moment is one reading of both clocks. Deadlines are on the monotonic one; entries and records
// name the time of day. A variable now is a moment, at an Instant, and wall a time of day.
type moment struct {
	at   Instant
	wall time.Time
}
