package porttest

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// FakeTime is synctest.Test on one processor. Every test in fake time uses it.
//
// In Go 1.26 a due timer fires on the goroutine that looks at its channel next, and all timers
// of a bubble share a context of the race detector. Two timers that fire at once on two
// processors corrupt that context, and the process dies of a SIGSEGV in ThreadSanitizer
// (golang/go#78156; 64 goroutines that each poll a timer which ran out while they slept show it
// in a second). One processor prevents that. The detector sees happens-before edges, which need
// no second processor.
//
// The number of processors is the process's: other goroutines share the processor until the last
// bubble ends.
func FakeTime(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	processors.take()
	defer processors.giveBack()
	synctest.Test(t, f)
}

var processors oneProcessor

// oneProcessor keeps the process on one processor while takers hold it.
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
