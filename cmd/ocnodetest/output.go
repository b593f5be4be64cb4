package ocnodetest

import (
	"bytes"
	"sync"
)

// Output is what a process wrote so far.
type Output struct {
	mu   sync.Mutex
	b    bytes.Buffer
	next chan struct{} // closed at the next Write; nil if nobody waits for one
}

// Write implements io.Writer. It takes everything.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next != nil {
		close(o.next)
		o.next = nil
	}
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// more returns a channel that is closed at the next Write.
func (o *Output) more() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next == nil {
		o.next = make(chan struct{})
	}
	return o.next
}
