package bootclock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Elapsed returns the time since the machine started, its sleep included. It never runs back. It
// must not be called in a bubble of fake time.
func Elapsed() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(now.Nano())
}
