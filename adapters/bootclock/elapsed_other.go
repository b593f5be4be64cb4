//go:build !linux

package bootclock

import "time"

var started = time.Now()

// Elapsed returns the time since the process started, by Go's monotonic clock.
func Elapsed() time.Duration { return time.Since(started) }
