package stream

// Senders returns the number of connections whose sender is known.
func (t *Transport) Senders() int {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	return len(t.senders)
}

// Running returns the number of running exchanges.
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

// BestFirst orders the addresses of a neighbour.
var BestFirst = bestFirst

// SetWatchers pretends that n watches are served.
func (t *Transport) SetWatchers(n int) {
	t.servingMu.Lock()
	srv := t.serving
	t.servingMu.Unlock()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.watchers.all = n
}
