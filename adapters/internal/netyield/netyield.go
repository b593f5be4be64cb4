// Package netyield lets the network in while a long computation keeps all processors busy.
//
// The runtime looks for what came from the network when a processor has nothing else to run, and else
// every 10 ms (sysmon in runtime/proc.go of Go 1.26). A computation that calls runtime.Gosched is run
// again at once: nothing that waits for the network gets a turn in between. Yield waits for a byte of a
// pipe instead. The runtime has to look at the network to find that byte, and finds all else that came.
package netyield

import (
	"os"
	"runtime"
	"time"
)

// Yielder is for one goroutine at a time. Close it when the computation has ended.
type Yielder struct {
	read, write *os.File // nil if the process is out of file descriptors
	one         [1]byte
	last        time.Time // the end of the last yield
	took        time.Duration
}

// New returns a Yielder. It holds two file descriptors, if there are any left.
func New() *Yielder {
	y := new(Yielder)
	if r, w, err := os.Pipe(); err == nil {
		y.read, y.write = r, w
	}
	return y
}

// Yield lets others run, with those that the network has news for. It takes some microseconds if there are
// none. The others get a half of the time at most: a flood from the network would have all of it.
func (y *Yielder) Yield() {
	if y.read == nil {
		runtime.Gosched()
		return
	}
	began := time.Now()
	if began.Sub(y.last) < y.took {
		return
	}
	defer func() { y.last = time.Now(); y.took = y.last.Sub(began) }()
	go func() { _, _ = y.write.Write([]byte{0}) }() // runs once this goroutine waits
	_, _ = y.read.Read(y.one[:])
}

// Close gives the file descriptors back.
func (y *Yielder) Close() {
	if y.read != nil {
		_ = y.read.Close()
		_ = y.write.Close()
	}
}
