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

// shortTime is an Instant in whole microseconds, for four years: a slot has no room for more.
type shortTime [6]byte

func (t *shortTime) set(i Instant) {
	us := uint64(i.since / time.Microsecond)
	order8.PutUint32(t[:], uint32(us))
	order8.PutUint16(t[4:], uint16(us>>32))
}

func (t *shortTime) at() Instant {
	us := uint64(order8.Uint32(t[:])) | uint64(order8.Uint16(t[4:]))<<32
	return Instant{time.Duration(int64(us<<16)>>16) * time.Microsecond} // it may be before the clock's start
}

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
