package domain

import (
	"sync"
	"time"
)

// announcedRenewals is how many renewals a native announces a second. Each announcement goes to all
// listeners of the topic, and is handed on by most: at 100 natives it costs 35 ms of CPU in all. So any
// node that listens and follows nobody could cost natives more than all else they do. With 20 a second it
// costs a native of 100 at most 70 % of a core, and natives of 1,200 indexers announce each renewal.
const announcedRenewals = 20

// allowance bounds how often something happens: at a rate, and after a quiet while as often at once as in a period.
type allowance struct {
	every time.Duration // from one to the next, at the rate
	most  time.Duration // the period

	mu   sync.Mutex
	full Instant // when the whole period would be free again
}

func newAllowance(rate int, period time.Duration) *allowance {
	return &allowance{every: time.Second / time.Duration(rate), most: max(period, time.Second/time.Duration(rate))}
}

// left reports whether it may happen at an instant.
func (p *allowance) left(at Instant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full.Sub(at) < p.most
}

// spend counts that it happened so often, be it more than it may.
func (p *allowance) spend(times int, at Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.full = latest(p.full, at).Add(time.Duration(times) * p.every)
}

// take reports whether it may happen at an instant, and counts it.
func (p *allowance) take(at Instant) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full.Before(at) {
		p.full = at
	}
	next := p.full.Add(p.every)
	if next.Sub(at) > p.most {
		return false
	}
	p.full = next
	return true
}
