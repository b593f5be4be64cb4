package porttest

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"testing"
	"time"
)

// Raced reports whether the test was built with the race detector. A test that builds a program
// asks it, to build the program likewise. A test with large numbers uses Scale.
func Raced() bool { return raced() }

var raced = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// Scale returns the size of a test: n, or few under the race detector, which makes tests ten
// times slower.
func Scale(n, few int) int {
	if Raced() {
		return few
	}
	return n
}

// Held is the memory and the goroutines of a process at a time.
type Held struct {
	Goroutines int
	// InUse is the size of the heap and stacks in use. Mapped is the memory that the process has
	// from the system and has not given back: the most it needed.
	InUse, Mapped int64
}

// Holds measures the process now, without garbage.
func Holds() Held {
	runtime.GC()
	runtime.GC() // the second frees the pools
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	of := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	return Held{Goroutines: runtime.NumGoroutine(), InUse: of(0) + of(1), Mapped: of(2) - of(3)}
}

// ExpectNoMore waits until the process holds no more goroutines than before. It fails the test
// if goroutines remain, or if the process holds more than bytes more. It returns the difference.
func (before Held) ExpectNoMore(t testing.TB, bytes int64) (more Held) {
	t.Helper()
	Eventually(t, "there are no more goroutines than before", func() bool { return runtime.NumGoroutine() <= before.Goroutines })
	held := Holds()
	for give := time.Now().Add(Patience); held.InUse-before.InUse > bytes && time.Now().Before(give); held = Holds() {
		time.Sleep(100 * time.Millisecond)
	}
	more = Held{held.Goroutines - before.Goroutines, held.InUse - before.InUse, held.Mapped - before.Mapped}
	if more.InUse > bytes || more.Mapped > bytes {
		t.Errorf("%d KiB more are in use than before, and %d KiB more mapped; at most %d may be", more.InUse>>10, more.Mapped>>10, bytes>>10)
	}
	return more
}
