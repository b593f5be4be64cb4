package stream

import "time"

// SetTimeout replaces ports.ExchangeTimeout, for tests over real sockets.
func (t *Transport) SetTimeout(d time.Duration) { t.timeout = d }

// Senders returns of how many connections it is known who is at the other end.
func (t *Transport) Senders() int {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	return len(t.senders)
}

// Running returns how many exchanges are being served.
func (t *Transport) Running() int {
	t.servingMu.Lock()
	srv := t.serving
	t.servingMu.Unlock()
	if srv == nil {
		return 0
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.running)
}

// BestFirst returns the addresses of a neighbour in order.
var BestFirst = bestFirst

// SetWatchers makes it appear that so many watches are served.
func (t *Transport) SetWatchers(n int) {
	t.servingMu.Lock()
	srv := t.serving
	t.servingMu.Unlock()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.watchers.all = n
}
