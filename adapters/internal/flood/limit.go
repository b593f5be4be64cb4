// Package flood keeps what others can cause without end from flooding a log.
package flood

import (
	"sync"
	"time"
)

// Limit lets so many lines pass in every period, which begins with its first line. It
// may be used concurrently, and must not be copied.
type Limit struct {
	Lines int
	Every time.Duration

	mu         sync.Mutex
	begun      time.Time
	passed     int
	suppressed int
}

// Take says whether a line may pass now, and how many did not since the last that
// did.
func (l *Limit) Take(now time.Time) (pass bool, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.begun) >= l.Every {
		l.begun, l.passed = now, 0
	}
	if l.passed == l.Lines {
		l.suppressed++
		return false, 0
	}
	l.passed++
	suppressed, l.suppressed = l.suppressed, 0
	return true, suppressed
}
