package stream

import "time"

// SetTimeout replaces ports.ExchangeTimeout, for tests over real sockets.
func (t *Transport) SetTimeout(d time.Duration) { t.timeout = d }

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
