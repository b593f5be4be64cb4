package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/opencloud/ocnode/ports"
)

const (
	// readTimeout bounds a request, from its first byte (or the connection's accept)
	// to its end: requests are a line and a few headers.
	readTimeout = 5 * time.Second
	// writeTimeout bounds the handler and its answer: a full page of a few megabytes
	// over a slow line, or a scrape.
	writeTimeout = 30 * time.Second
	// idleTimeout is how long a kept connection may wait for its next request: longer
	// than the minute of a usual scrape interval.
	idleTimeout = 90 * time.Second
	// maxHeaderBytes is a proxy's forwarding headers with room to spare.
	maxHeaderBytes = 16 << 10
	// maxConns bounds the connections at once: many scrapers and probes, and a fraction of
	// the open files that the libp2p host leaves to all else. One more waits for a place,
	// at most idleTimeout.
	maxConns = 256
	// drainTimeout is how long Close waits for running requests before it cuts them: a
	// clean stop is to be seen by others within 2 s.
	drainTimeout = time.Second
)

// Config is the server's settings.
type Config struct {
	// Listen is host:port; port 0 takes a free one. The key is http.listen.
	Listen string
}

// DefaultConfig binds loopback alone: what the API tells is nobody else's affair
// unless the operator says so.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:4180"} }

// Validate checks the form of Listen; whether it can be bound shows in Start.
func (c Config) Validate() error {
	_, port, err := net.SplitHostPort(c.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("http.listen %q: want host:port with a port from 0 to 65535, such as %s",
			c.Listen, DefaultConfig().Listen)
	}
	return nil
}

// Node is what the server shows. The functions and the Directory are called
// concurrently, for as long as the server runs, and must not block.
type Node struct {
	PeerID  ports.PeerID
	Modules []string
	Started time.Time
	// Addrs returns the node's addresses, each with /p2p/<PeerID>.
	Addrs func() []string
	// Ready returns why each module that is not ready is not; none means ready.
	Ready func() map[string]string
	// Metrics answers /metrics.
	Metrics http.Handler
	// ParsePeerID reads any spelling of a PeerID.
	ParsePeerID func(string) (ports.PeerID, error)
	// Directory is nil on a node that is not a native.
	Directory Directory
}

// Directory is a native's live table, to be read. The entries it returns are
// shared and not modified.
type Directory interface {
	// Get returns the live entry of id.
	Get(id ports.PeerID) (ports.Listed, bool)
	// Page returns up to limit live entries that follow after, sorted by PeerID, and
	// the after of the next page, "" if this is the last.
	Page(after ports.PeerID, limit int) (page []ports.Listed, next ports.PeerID)
	// Counts returns the sizes of the live table and the known set.
	Counts() (live, known int)
}

// Server serves the API. Start returns before Addr and Close are called; Close is
// not called concurrently.
type Server struct {
	listen string
	http   http.Server
	addr   string
	failed chan error
	served chan struct{}  // nil before Start, closed when serving ended
	conns  sync.WaitGroup // goroutines of open connections
}

// New returns a server that does not listen yet. What net/http has to say about
// its connections goes to log.
func New(cfg Config, node Node, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if node.Addrs == nil || node.Ready == nil || node.Metrics == nil || node.ParsePeerID == nil {
		return nil, errors.New("httpapi: Node needs Addrs, Ready, Metrics and ParsePeerID")
	}
	s := &Server{listen: cfg.Listen, failed: make(chan error, 1)}
	s.http = http.Server{
		Handler:           routes(node),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnState:         s.track,
	}
	return s, nil
}

// track counts connections: http.Server ends their goroutines but waits for none
// of those that it cuts.
func (s *Server) track(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed:
		s.conns.Done()
	}
}

// Start binds the address and serves in the background until Close. An error names
// the address, the cause and the mend. ctx bounds the binding alone.
func (s *Server) Start(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.listen)
	if err != nil {
		return s.bindError(err)
	}
	s.addr = l.Addr().String()
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		if err := s.http.Serve(netutil.LimitListener(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("http at %s: %w", l.Addr(), err)
		}
	}()
	return nil
}

func (s *Server) bindError(err error) error {
	mend := "choose an address of this machine"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		mend = "stop the other process or choose another (port 0 takes a free one)"
	case errors.Is(err, syscall.EACCES):
		mend = "choose a port from 1024 up"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address, which stands before it already
	}
	return fmt.Errorf("http.listen %s: %w; %s", s.listen, err, mend)
}

// Addr returns the host:port that was bound, "" before Start.
func (s *Server) Addr() string { return s.addr }

// Failed receives one error if serving ends in any other way than by Close.
func (s *Server) Failed() <-chan error { return s.failed }

// Close stops listening, lets running requests end for up to a second or until ctx
// ends, cuts the others, and returns when the last goroutine has. It may be called
// again, and without Start.
func (s *Server) Close(ctx context.Context) {
	if s.served == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	// Both errors would say only that some connection was cut or closed twice.
	_ = s.http.Shutdown(ctx)
	<-s.served
	_ = s.http.Close() // also of a connection accepted while Shutdown ran
	s.conns.Wait()
}
