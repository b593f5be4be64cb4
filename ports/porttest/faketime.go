package porttest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// FakeTime is synctest.Test on one processor. Every test in fake time uses it.
//
// Go 1.26 lets a timer whose time has come fire on whatever goroutine looks at its
// channel next, and all timers of a bubble have one context of the race detector between
// them. Two that fire at once on two processors corrupt it, and the process dies of a
// SIGSEGV in ThreadSanitizer (golang/go#78156; 64 goroutines that each poll a timer which
// ran out while they slept show it in a second). On one processor no two can, and what
// the detector sees are happens-before edges, which need no second one.
//
// The number of processors is the whole process's, so what runs beside the bubble shares
// that one until the last bubble has ended.
func FakeTime(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	processors.take()
	defer processors.giveBack()
	synctest.Test(t, f)
}

var processors oneProcessor

// oneProcessor keeps the process on one processor while anybody has taken it.
type oneProcessor struct {
	mu     sync.Mutex
	takers int
	before int
}

func (p *oneProcessor) take() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takers++; p.takers == 1 {
		p.before = runtime.GOMAXPROCS(1)
	}
}

func (p *oneProcessor) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.takers--; p.takers == 0 {
		runtime.GOMAXPROCS(p.before)
	}
}
