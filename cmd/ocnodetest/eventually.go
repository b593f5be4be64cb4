package ocnodetest

import (
	"testing"
	"time"
)

// Eventually waits until done, for what no process writes. It asks less often the longer it
// lasts, as every question costs processes and the machine time that they need to get there.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	const soonest, latest = 5 * time.Millisecond, 100 * time.Millisecond
	began := time.Now()
	for !done() {
		took := time.Since(began)
		if took > Patience {
			t.Fatalf("%s: not after %v", what, Patience)
		}
		time.Sleep(min(max(soonest, took/20), latest))
	}
}
