package domain

import "time"

// fullness is what a native is told of this native's room for its entries. Of a follower that is full the
// native does not expect that it answers for them, and has the DHT know them.
type fullness struct {
	tell    chan<- bool // of the present watch
	told    bool        // on it
	refused time.Time   // when an entry last found no room, zero for never
}

// roomAfter is how long all entries must find room until a native is told so. By then all that were refused
// are told again: a number without an entry here is asked for, and a number that is missing is found by the sums.
func (p TTLPolicy) roomAfter() time.Duration {
	return 2 * max(rarely*p.Heartbeat, p.sumsInterval()<<maxLies)
}

// watch begins with a new watch, on which nothing is told yet.
func (f *fullness) watch(tell chan<- bool) { f.tell, f.told = tell, false }

// note takes note of whether an entry just found no room, and tells what is new.
func (f *fullness) note(refused bool, now time.Time, roomAfter time.Duration) {
	if refused {
		f.refused = now
	}
	is := !f.refused.IsZero() && now.Sub(f.refused) < roomAfter
	if is == f.told {
		return
	}
	select {
	case f.tell <- is:
		f.told = is
	default: // the last word is still under way
	}
}
