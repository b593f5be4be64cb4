package bootclock_test

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/bootclock"
)

func TestElapsedRunsAsFastAsTime(t *testing.T) {
	began, first := time.Now(), bootclock.Elapsed()
	for last := first; time.Since(began) < 20*time.Millisecond; {
		next := bootclock.Elapsed()
		if next < last {
			t.Fatalf("it ran back from %v to %v", last, next)
		}
		last = next
	}
	took, want := bootclock.Elapsed()-first, time.Since(began)
	if took < 19*time.Millisecond || took > want+time.Second {
		t.Errorf("%v went by in %v", took, want)
	}
}

func BenchmarkElapsed(b *testing.B) {
	for b.Loop() {
		bootclock.Elapsed()
	}
}
