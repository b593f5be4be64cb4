package httpapi

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/turns"
	"github.com/opencloud/ocnode/ports"
)

const (
	// readTimeout bounds a request, from its first byte (or the connection's accept)
	// to its end: requests are a line and a few headers.
	readTimeout = 5 * time.Second
	// writeTimeout bounds the handler and its answer: a full page of a few megabytes
	// over a slow line, or a scrape. What is longer sets deadlines of its own.
	writeTimeout = 30 * time.Second
	// idleTimeout is how long a kept connection may wait for its next request, unless its
	// place is needed: longer than the minute of a usual scrape interval.
	idleTimeout = 90 * time.Second
	// maxHeaderBytes is a proxy's forwarding headers and a token with room to spare, and
	// headerSlop what net/http reads of headers beyond what it is told.
	maxHeaderBytes, headerSlop = 16 << 10, 4 << 10
	// maxWatches bounds the watches, each of which keeps its connection for as long as it
	// likes: half of the connections, so that the others find a place.
	maxWatches = maxConns / 2
	// drainTimeout is how long Close waits for running requests before it cuts them: a
	// clean stop is to be seen by others within 2 s.
	drainTimeout = time.Second
)

// Config is the server's settings.
type Config struct {
	// Listen is host:port; port 0 takes a free one. The key is http.listen.
	Listen string
	// Token is what every request but a probe's must bring, as ReadToken reads it; "" for
	// none, on loopback alone. The key is http.token.
	Token string
	// Hosts are the names that the node goes by, beside those of loopback, that of Listen
	// and its own addresses. The key is http.hosts.
	Hosts []string
	// CountLoopback has the share of a site hold for loopback too, which is exempt else: for
	// tests, which have no other addresses.
	CountLoopback bool
}

// DefaultConfig binds loopback alone: what the API tells is nobody else's affair
// unless the operator says so.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:4180"} }

// Validate checks each field, and that there is a token where there must be one; whether
// Listen can be bound shows in Start.
func (c Config) Validate() error {
	wrong := []error{CheckListen(c.Listen)}
	if c.Token == "" && BeyondLoopback(c.Listen) {
		wrong = append(wrong, NoToken(c.Listen))
	}
	for _, host := range c.Hosts {
		if err := CheckHost(host); err != nil {
			wrong = append(wrong, fmt.Errorf("http.hosts: %w", err))
		}
	}
	return errors.Join(wrong...)
}

// CheckListen returns what is wrong with the form of http.listen.
func CheckListen(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("http.listen %q: want host:port with a port from 0 to 65535, such as %s",
			listen, DefaultConfig().Listen)
	}
	return nil
}

// Node is what the server shows. All of it is called concurrently, for as long as the
// server runs, and the functions must not block.
type Node struct {
	PeerID  ports.PeerID
	Modules []string
	Started time.Time
	// Addrs returns the node's addresses, each with /p2p/<PeerID>.
	Addrs func() []string
	// Ready returns why each module that is not ready is not; none means ready.
	Ready func() map[string]string
	// Unlisted returns why this node's own indexer may be listed nowhere, "" if nothing says so. It
	// is nil on a node that registers nowhere.
	Unlisted func() string
	// Metrics answers /metrics.
	Metrics http.Handler
	// ParsePeerID reads any spelling of a PeerID. Its error names the text and says what is
	// wanted.
	ParsePeerID func(string) (ports.PeerID, error)
	// Directory is nil on a node that is not a native.
	Directory Directory
	// Finder answers for one indexer on a node that is not a native; may be nil.
	Finder Finder

	// turns bounds the pages that are written at once.
	turns turns.Turns
}

// Directory is the part of a ports.Native that only reads, and how much there is of it.
// A caller over HTTP asks in the node's own name.
type Directory interface {
	LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error)
	List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error)
	Natives(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error)
	Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error]
	// Counts returns the sizes of the live table and the known set. It does not block.
	Counts() (live, known int)
}

// Finder looks up an indexer where no native is needed, as Directory does.
type Finder interface {
	LookUp(ctx context.Context, id ports.PeerID) (ports.Answer, error)
}

// Server serves the API. Start returns before Addr and Close are called; Close is
// not called concurrently.
type Server struct {
	listen  string
	siteOf  func(netip.Addr) netip.Prefix
	http    http.Server
	addr    string
	failed  chan error
	served  chan struct{} // nil before Start, closed when serving ended
	closing func()
	conns   sync.WaitGroup // goroutines of open connections
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
	closing := make(chan struct{})
	s := &Server{
		listen: cfg.Listen, siteOf: cfg.siteOf, failed: make(chan error, 1),
		closing: sync.OnceFunc(func() { close(closing) }),
	}
	s.http = http.Server{
		Handler:           probesFirst(guard(cfg, routes(node, closing))),
		ReadTimeout:       readTimeout,
		ReadHeaderTimeout: readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes - headerSlop,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnState:         s.track,
		ConnContext:       withConn,
	}
	return s, nil
}

// track counts connections, and notes the idle ones: http.Server ends their goroutines but waits for none
// of those that it cuts.
func (s *Server) track(c net.Conn, state http.ConnState) {
	c.(*conn).is(state)
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
	s.serve(l)
	return nil
}

func (s *Server) serve(l net.Listener) {
	s.addr = l.Addr().String()
	s.served = make(chan struct{})
	go func() {
		defer close(s.served)
		if err := s.http.Serve(newConns(l, s.siteOf)); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("http at %s: %w", l.Addr(), err)
		}
	}()
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

// Close stops listening, ends the watches, lets running requests end for up to a second
// or until ctx ends, cuts the others, and returns when the last goroutine has. It may be
// called again, and without Start.
func (s *Server) Close(ctx context.Context) {
	if s.served == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	s.closing()
	// Both errors would say only that some connection was cut or closed twice.
	_ = s.http.Shutdown(ctx)
	<-s.served
	_ = s.http.Close() // also of a connection accepted while Shutdown ran
	s.conns.Wait()
}
