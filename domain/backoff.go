package domain

import "time"

// Backoff is a pause between attempts. It doubles from First up to Max. A Max that is shorter
// than First is every pause.
type Backoff struct{ First, Max time.Duration }

// Pause returns the pause that follows made pauses in a row.
func (b Backoff) Pause(made int) time.Duration {
	n := uint(max(made, 0))
	if b.First <= b.Max>>n { // so that no shift overflows
		return b.First << n
	}
	return b.Max
}

// Early spreads d over its last tenth, by a jitter that is uniform in [0, 1). Nodes that were
// started together drift apart, and a heartbeat is rather early than late.
func Early(d time.Duration, jitter float64) time.Duration {
	return d - time.Duration(float64(d)/10*jitter)
}
