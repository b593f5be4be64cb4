// Package bootclock reads the machine's clock that goes on while the machine sleeps. A native ends
// leases by it: an indexer may have died meanwhile.
//
// On Linux Go's own monotonic clock stands still during a sleep. A paused virtual machine stops
// both clocks.
package bootclock
