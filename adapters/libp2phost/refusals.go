package libp2phost

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/flood"
)

// refusalsEvery is how often a limit that refuses is warned of: a flood of refusals is
// a line a minute, which says how many there were.
const refusalsEvery = time.Minute

// What to do about a limit.
const (
	raiseConns = "raise the open-file limit of this process (LimitNOFILE, ulimit -Hn) or the machine's memory, of which connections get their share, or limits.connections if that is set, or add a native"
	raiseMem   = "give the machine more memory (or raise GOMEMLIMIT), of which streams get their share, or raise limits.stream-memory if that is set, or add a native"
	lookAtSite = "if so many indexers stand behind one address, raise limits.connections-per-site, or spread them over several natives"
	lookAtPeer = "no indexer or native of this kind needs as many: look at what that peer runs"
	silentSite = "a site that restarts is in after a few tries; if this goes on, look at what connects from there and never speaks"
	waitForIt  = "many dial at once, as after a restart, and will try again; if it lasts, raise the open-file limit of this process or the machine's memory"
)

// limit is one of the limits, as a refusal is told of.
type limit struct {
	name string
	max  int64
	hint string
}

// refusals tells of what this node refuses because of its limits.
type refusals struct {
	limits     Limits
	log        *slog.Logger
	shares     *shares
	handshakes *handshakes
	// countStream and countHandshake are told of each stream that shares refuses, and of each
	// connection that handshakes refuses. The manager does not know of them.
	countStream, countHandshake func()

	mu    sync.Mutex
	flood map[string]*flood.Limit // by message, limit and direction: a few dozen
}

func newRefusals(l Limits, log *slog.Logger, m *metrics) *refusals {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &refusals{limits: l, log: log, shares: newShares(l), handshakes: newHandshakes(l), flood: make(map[string]*flood.Limit)}
	r.countStream, r.countHandshake = func() {}, func() {}
	if m != nil {
		r.countStream, r.countHandshake = m.siteStreams.Inc, m.siteHandshakes.Inc
	}
	return r
}

// tell warns once in a while, and else leaves it to debug.
func (r *refusals) tell(msg string, l limit, dir network.Direction, attrs ...slog.Attr) {
	key := msg + l.name + dir.String()
	r.mu.Lock()
	lim := r.flood[key]
	if lim == nil {
		lim = &flood.Limit{Lines: 1, Every: refusalsEvery}
		r.flood[key] = lim
	}
	r.mu.Unlock()
	level := slog.LevelWarn
	pass, suppressed := lim.Take(time.Now())
	if !pass {
		level = slog.LevelDebug
	}
	ctx := context.Background()
	if !r.log.Enabled(ctx, level) {
		return
	}
	all := append([]slog.Attr{slog.String("limit", l.name), slog.Int64("max", l.max)}, attrs...)
	if dir != network.DirUnknown {
		all = append(all, slog.String("direction", strings.ToLower(dir.String())))
	}
	if suppressed > 0 {
		all = append(all, slog.Int("suppressed", suppressed))
	}
	r.log.LogAttrs(ctx, level, msg, append(all, slog.String("hint", l.hint))...)
}

func (r *refusals) conn(err error, dir network.Direction, addr ma.Multiaddr, id peer.ID) {
	if l, ok := r.which(err, true, dir); ok {
		r.tell("connection refused by this node", l, dir, who(addr, id)...)
	}
}

func (r *refusals) stream(err error, dir network.Direction, id peer.ID, proto protocol.ID) {
	if l, ok := r.which(err, false, dir); ok {
		attrs := who(nil, id)
		if proto != "" {
			attrs = append(attrs, slog.String("protocol", string(proto)))
		}
		r.tell("stream refused by this node", l, dir, attrs...)
	}
}

func (r *refusals) ofSite(most int, dir network.Direction, id peer.ID, proto protocol.ID) {
	r.countStream()
	l := limit{"streams of one site in their handshake", int64(most), lookAtPeer}
	attrs := who(nil, id)
	if proto != "" {
		l.name = "streams of one site and protocol"
		attrs = append(attrs, slog.String("protocol", string(proto)))
	}
	r.tell("stream refused by this node", l, dir, attrs...)
}

func (r *refusals) handshake(addr ma.Multiaddr) {
	r.countHandshake()
	r.tell("connection refused by this node", limit{"connections of one site in their handshake", int64(r.handshakes.most), silentSite},
		network.DirInbound, who(addr, "")...)
}

func (r *refusals) trimmed(conn network.Conn) {
	r.tell("connection closed by this node to make room for others", limit{
		"connections held", int64(r.limits.highWater()),
		"these were the idlest; if that goes on, " + raiseConns,
	}, network.DirUnknown, who(conn.RemoteMultiaddr(), conn.RemotePeer())...)
}

func who(addr ma.Multiaddr, id peer.ID) (attrs []slog.Attr) {
	if addr != nil {
		attrs = append(attrs, slog.String("remoteAddr", addr.String()))
	}
	if id != "" {
		attrs = append(attrs, slog.String("peerID", id.String()))
	}
	return attrs
}

// What a resource manager says of the limits of a site: it has no errors of their own.
const (
	tooFast       = "rate limit exceeded"
	tooManyOfSite = "connections per ip limit exceeded"
)

// which reads which limit a resource manager's error is about; ok is false if it is
// about none. The scope's name stands in the error's text alone.
func (r *refusals) which(err error, conn bool, dir network.Direction) (l limit, ok bool) {
	text, lim := err.Error(), r.limits
	switch {
	case text == tooFast:
		return limit{"new connections of one site a minute", int64(lim.perSite()), waitForIt}, true
	case strings.HasPrefix(text, tooManyOfSite):
		return limit{"connections of one site", int64(lim.perSite()), lookAtSite}, true
	case !errors.Is(err, network.ErrResourceLimitExceeded):
		return limit{}, false
	}
	memory := errors.As(err, new(*rcmgr.ErrMemoryLimitExceeded))
	scope, proto := scopeOf(text)
	switch {
	case scope == "peer" && conn:
		return limit{"connections of one peer", peerConns, lookAtPeer}, true
	case scope == "peer":
		return limit{"streams of one peer", peerStreams, lookAtPeer}, true
	case scope == "protocol" && strings.Contains(proto, ".peer:"):
		return limit{"streams of one peer and protocol", peerProtocolStreams, lookAtPeer}, true
	case scope == "service" && strings.Contains(proto, ".peer:"):
		return limit{"streams of one peer and service", peerProtocolStreams, lookAtPeer}, true
	case scope == "protocol" || scope == "service":
		return limit{"streams of " + proto, int64(lim.streams() / 2), raiseMem}, true
	case memory:
		return limit{"memory of streams, in bytes", lim.Memory, raiseMem}, true
	case scope == "transient" && conn:
		return limit{"connections in their handshake", int64(lim.Conns / transientShare), waitForIt}, true
	case scope == "transient":
		return limit{"streams in their handshake", int64(lim.streams() / transientShare), waitForIt}, true
	case conn && dir == network.DirInbound && strings.Contains(text, "inbound"):
		return limit{"inbound connections", int64(lim.inbound()), raiseConns}, true
	case conn:
		return limit{"connections", int64(lim.Conns), raiseConns}, true
	}
	return limit{"streams", int64(lim.streams()), raiseMem}, true
}

// scopeOf finds the innermost scope that "conn-1: transient: cannot reserve…" names,
// and what follows the kind of its name.
func scopeOf(text string) (kind, rest string) {
	for part := range strings.SplitSeq(text, ": ") {
		k, r, _ := strings.Cut(part, ":")
		switch k {
		case "system", "transient", "peer", "protocol", "service":
			kind, rest = k, r
		}
	}
	return kind, rest
}

// watchedResources tells of what a resource manager refuses.
type watchedResources struct {
	network.ResourceManager
	refusals *refusals
}

// GetConnLimit lets libp2p hold the connection manager's marks against the limits.
func (w *watchedResources) GetConnLimit() int { return w.refusals.limits.Conns }

// OpenConnection implements network.ResourceManager.
func (w *watchedResources) OpenConnection(dir network.Direction, usefd bool, addr ma.Multiaddr) (network.ConnManagementScope, error) {
	var site netip.Prefix
	if ip, ok := ipOf(addr); ok && dir == network.DirInbound {
		var err error
		if site, err = w.refusals.handshakes.begin(ip); err != nil {
			w.refusals.handshake(addr)
			return nil, err
		}
	}
	scope, err := w.ResourceManager.OpenConnection(dir, usefd, addr)
	if err != nil {
		w.refusals.handshakes.end(site)
		w.refusals.conn(err, dir, addr, "")
		return nil, err
	}
	return &watchedConnScope{ConnManagementScope: scope, refusals: w.refusals, dir: dir, addr: addr, handshake: site}, nil
}

// OpenStream implements network.ResourceManager.
func (w *watchedResources) OpenStream(id peer.ID, dir network.Direction) (network.StreamManagementScope, error) {
	scope, err := w.ResourceManager.OpenStream(id, dir)
	if err != nil {
		w.refusals.stream(err, dir, id, "")
		return nil, err
	}
	held, err := w.refusals.shares.open(id, dir)
	if err != nil {
		scope.Done()
		w.refusals.ofSite(w.refusals.shares.most[""], dir, id, "")
		return nil, err
	}
	return &watchedStreamScope{scope, w.refusals, held, dir, id}, nil
}

type watchedConnScope struct {
	network.ConnManagementScope
	refusals *refusals
	dir      network.Direction
	addr     ma.Multiaddr

	mu sync.Mutex
	of peer.ID // whom shares has been told of
	// handshake is the site that the connection is counted for until it has a peer.
	handshake netip.Prefix
}

// proven ends the count of s among the handshakes. The caller holds mu.
func (s *watchedConnScope) proven() {
	s.refusals.handshakes.end(s.handshake)
	s.handshake = netip.Prefix{}
}

// SetPeer implements network.ConnManagementScope.
func (s *watchedConnScope) SetPeer(id peer.ID) error {
	err := s.ConnManagementScope.SetPeer(id)
	if err != nil {
		s.refusals.conn(err, s.dir, s.addr, id)
		return err
	}
	if ip, ok := ipOf(s.addr); ok && s.dir == network.DirInbound {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.proven()
		if s.of == "" {
			s.of = id
			s.refusals.shares.connected(id, ip)
		}
	}
	return nil
}

// Done implements network.ConnManagementScope.
func (s *watchedConnScope) Done() {
	s.ConnManagementScope.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proven()
	if s.of != "" {
		ip, _ := ipOf(s.addr)
		s.refusals.shares.disconnected(s.of, ip)
		s.of = ""
	}
}

type watchedStreamScope struct {
	network.StreamManagementScope
	refusals *refusals
	held     *held
	dir      network.Direction
	id       peer.ID
}

// SetProtocol implements network.StreamManagementScope.
func (s *watchedStreamScope) SetProtocol(proto protocol.ID) error {
	err := s.StreamManagementScope.SetProtocol(proto)
	if err != nil {
		s.refusals.stream(err, s.dir, s.id, proto)
		return err
	}
	if err := s.held.says(proto); err != nil {
		s.refusals.ofSite(s.held.shares.most[proto], s.dir, s.id, proto)
		return err
	}
	return nil
}

// Done implements network.StreamManagementScope.
func (s *watchedStreamScope) Done() {
	s.StreamManagementScope.Done()
	s.held.done()
}

// SetService implements network.StreamManagementScope.
func (s *watchedStreamScope) SetService(name string) error {
	err := s.StreamManagementScope.SetService(name)
	if err != nil {
		s.refusals.stream(err, s.dir, s.id, "")
	}
	return err
}

// watchedConns tells of what a connection manager closes.
type watchedConns struct {
	*connmgr.BasicConnMgr
	refusals *refusals
}

// Notifee hands the manager connections that tell when it closes them.
func (w *watchedConns) Notifee() network.Notifiee {
	return &watchedNotifiee{w.BasicConnMgr.Notifee(), w.refusals}
}

type watchedNotifiee struct {
	network.Notifiee
	refusals *refusals
}

func (n *watchedNotifiee) Connected(net network.Network, c network.Conn) {
	n.Notifiee.Connected(net, watchedConn{c, n.refusals})
}

func (n *watchedNotifiee) Disconnected(net network.Network, c network.Conn) {
	n.Notifiee.Disconnected(net, watchedConn{c, n.refusals})
}

// watchedConn is a value, for the manager finds a connection again by it.
type watchedConn struct {
	network.Conn
	refusals *refusals
}

func (c watchedConn) CloseWithError(code network.ConnErrorCode) error {
	if code == network.ConnGarbageCollected {
		c.refusals.trimmed(c.Conn)
	}
	return c.Conn.CloseWithError(code)
}
