package proof

import "sync/atomic"

// Counts are the signatures that a Verifier has checked since it was made.
type Counts struct {
	Single, Batched uint64 // each alone, and in batches
	Bad             uint64 // of both
}

type counts struct{ singles, batched, bad atomic.Uint64 }

func (c *counts) single(sound bool) {
	c.singles.Add(1)
	if !sound {
		c.bad.Add(1)
	}
}

func (c *counts) batch(n, bad int) {
	c.batched.Add(uint64(n))
	c.bad.Add(uint64(bad))
}

// Counts returns what v has checked.
func (v *Verifier) Counts() Counts {
	return Counts{v.counts.singles.Load(), v.counts.batched.Load(), v.counts.bad.Load()}
}
