package proof

import "sync/atomic"

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

// Signatures returns how many signatures v has checked alone, how many in batches, and how many of all
// were bad.
func (v *Verifier) Signatures() (alone, batched, bad uint64) {
	return v.counts.singles.Load(), v.counts.batched.Load(), v.counts.bad.Load()
}
