package httpapi

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/sites"
)

const (
	// maxConns bounds the connections at once: many scrapers and readers, and a fraction of
	// the open files that the libp2p host leaves to all else.
	maxConns = 256
	// maxProbes bounds the connections beyond those, which get answers to probes alone: some
	// orchestrators and balancers that ask at the same moment.
	maxProbes = 32
	// siteShare is the part of each, and of the watches, that a site may have, one in so many.
	siteShare = 2
)

// conns is a listener that bounds its connections. If there are too many, or too many of a site, a
// new connection takes the place of the idlest. If none of them is idle, it is for probes alone,
// and takes the place of the oldest of those.
type conns struct {
	net.Listener
	siteOf func(netip.Addr) netip.Prefix

	mu           sync.Mutex
	open, probes places
}

func newConns(l net.Listener, siteOf func(netip.Addr) netip.Prefix) *conns {
	return &conns{Listener: l, siteOf: siteOf, open: places{most: maxConns, leaves: idlest}, probes: places{most: maxProbes, leaves: oldest}}
}

// conn is a connection.
type conn struct {
	net.Conn
	all  *conns
	site netip.Prefix // invalid if it is not counted
	// forProbes is whether it gets answers to probes alone.
	forProbes bool
	// idleSince is when the connection was opened, or its last request ended; zero while a
	// request runs. The mutex of all guards it.
	idleSince time.Time
}

// Accept implements net.Listener.
func (all *conns) Accept() (net.Conn, error) {
	accepted, err := all.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, all: all, idleSince: time.Now()}
	if from, err := netip.ParseAddrPort(accepted.RemoteAddr().String()); err == nil {
		c.site = all.siteOf(from.Addr().Unmap())
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if !all.open.take(c) {
		c.forProbes = true
		all.probes.take(c)
	}
	return c, nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.all.mu.Lock()
	c.all.open.leave(c)
	c.all.probes.leave(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// is notes what http.Server says of a connection.
func (c *conn) is(state http.ConnState) {
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	switch state {
	case http.StateActive:
		c.idleSince = time.Time{}
	case http.StateIdle:
		c.idleSince = time.Now()
	}
}

// places are connections, the oldest first. The mutex of their conns guards them.
type places struct {
	most int
	// leaves chooses the connection that makes way, nil for none.
	leaves func([]*conn) *conn
	held   []*conn
}

// take gives c a place, if there is one. A connection that makes way is closed.
func (p *places) take(c *conn) bool {
	rivals := p.held
	if ofSite := slices.DeleteFunc(slices.Clone(p.held), func(o *conn) bool { return o.site != c.site }); c.site.IsValid() && len(ofSite) >= p.most/siteShare {
		rivals = ofSite
	} else if len(p.held) < p.most {
		rivals = nil
	}
	if rivals != nil {
		leaves := p.leaves(rivals)
		if leaves == nil {
			return false
		}
		p.leave(leaves)
		_ = leaves.Conn.Close() // http.Server hears of it as it reads or writes
	}
	p.held = append(p.held, c)
	return true
}

func (p *places) leave(c *conn) {
	p.held = slices.DeleteFunc(p.held, func(o *conn) bool { return o == c })
}

func idlest(held []*conn) (idlest *conn) {
	for _, c := range held {
		if !c.idleSince.IsZero() && (idlest == nil || c.idleSince.Before(idlest.idleSince)) {
			idlest = c
		}
	}
	return idlest
}

func oldest(held []*conn) *conn { return held[0] }

// siteOf returns the site that ip counts for; an invalid one if it is not counted.
func (c Config) siteOf(ip netip.Addr) netip.Prefix {
	if ip.IsLoopback() && c.CountLoopback {
		site, _ := ip.Prefix(ip.BitLen())
		return site
	}
	return sites.Counted(ip)
}

type connKey struct{}

// withConn lets requests know their connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request; an empty one in a test without a listener.
func connOf(r *http.Request) *conn {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c
	}
	return new(conn)
}

// probesFirst refuses what is no probe on a connection that is for probes alone.
func probesFirst(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !connOf(r).forProbes {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		switch r.URL.Path {
		case healthPath, readyPath, metricsPath:
			h.ServeHTTP(w, r)
		default:
			stamp(w)
			busy(w, "this node has %d connections over HTTP, or %d of your address, and a request runs on each; try again in %v, or ask another node",
				maxConns, maxConns/siteShare, retryAfter)
		}
	})
}
