//go:build unix

package libp2phost

import "syscall"

// openFiles returns how many files this process may open, or 0 if that is unknown. Go
// has raised the soft limit to the hard one by the time anything asks.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur) // signed on some systems
}
