package libp2phost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/redial"
	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

const (
	// redialPause is the pause between two short attempts at a peer that was connected before.
	redialPause = 250 * time.Millisecond
	// dialMargin is how much longer than the last one the next dial of a peer may take.
	dialMargin = 2
	// redialFor is for how long that goes on. Who has been gone for longer is dialled as
	// seldom as who was never met: some packets a second to each of many that are gone for
	// good would be a nuisance to somebody.
	redialFor = 30 * time.Minute
	// resolveTimeout bounds one look-up of a /dnsaddr: what resolvers give a server.
	resolveTimeout = 5 * time.Second
	// retryMin and retryMax bound the pause between attempts, which doubles from one to
	// the other. A native that comes back hears what was announced from when it is
	// connected: 5 s is half of what the registry tells a newcomer once more (a sixth of
	// a heartbeat), and a peer that is gone for long costs a few packets at a time.
	retryMin = time.Second
	retryMax = 5 * time.Second
	// steadyAfter is how long a connection must have lasted for its loss to be mended at
	// once: it bounds the dials to a peer that closes each connection after a while. One
	// that closes it at once is retried like one that is down.
	steadyAfter = 2 * time.Second
	// resolveEvery is how often a /dnsaddr that was resolved is asked again: records
	// change when peers are added, and a minute is a usual lifetime of theirs.
	resolveEvery = time.Minute
	// maxRecords bounds the addresses that a /dnsaddr may yield, records that lead to
	// others included, and maxRedirects how far those may lead.
	maxRecords, maxRedirects = 64, 4
	// lonelyAfter is how long a node that was given nobody to join waits for others before
	// it says what to do about that: time to start the others by hand.
	lonelyAfter = time.Minute
	// rememberedShare bounds the remembered natives of one IPv4 address or IPv6 /56, one in so many, since
	// anybody can make identities; those of loopback are not counted.
	rememberedShare = 8
	// saidPause bounds the pause, which doubles from retryMax on, after which a native that is
	// gone is dialled again where it only said that it is: at IP addresses that no connection
	// with it had. Whoever it has named bears those dials.
	saidPause = time.Minute
	// forgetAfter is how long a remembered native may be gone. Configured ones are
	// never forgotten.
	forgetAfter = time.Hour
	// maxAttempts bounds the attempts under way at once, so that a cut that took all
	// connections does not end in a burst.
	maxAttempts = 16
	// eventBuffer is how many connection events may wait. libp2p blocks when it is full,
	// and a native that restarts meets thousands of indexers at once.
	eventBuffer = 1024
	// protectTag marks the joiner's connections for the connection manager, which then
	// leaves them alone.
	protectTag = "ocnode/join"
)

// JoinerConfig says whom a Joiner connects to.
type JoinerConfig struct {
	// Bootstrap are the peers to keep connected (host.bootstrap).
	Bootstrap []string
	// Natives are the protocols that tell a native: whoever speaks one of them is
	// remembered and, after a cut, dialled again.
	Natives []protocol.ID
	// Remembered bounds the natives remembered beside the configured ones. 0 is ports.MaxFollowed.
	Remembered int
	// Trusts tells which of them are remembered, now; nil is all. It must not block.
	Trusts func(ports.PeerID) bool
	// Lonely is called once, if Bootstrap is empty and no other node has been met in the
	// first minute; nil for a node that needs none.
	Lonely func()
	// Probe makes a host with another key, and the same network; Twin is told that another process at
	// an address of Bootstrap has this node's key. Both may be nil.
	Probe func() (host.Host, error)
	Twin  func(error)
	// Resolver looks /dnsaddr up; nil for the system's.
	Resolver *madns.Resolver
	// Timeout is host.timeout; 0 is DefaultTimeout.
	Timeout time.Duration
	Log     *slog.Logger
}

// Joiner keeps a host connected to the configured peers and to the natives it met.
type Joiner struct {
	host     host.Host
	natives  []protocol.ID
	room     int // for remembered natives
	trusts   func(ports.PeerID) bool
	resolver *madns.Resolver
	timeouts timeouts
	log      *slog.Logger
	own      bool // Bootstrap names this node itself
	moved    chan struct{}
	told     chan hearsay
	twins    twins
	lonely   func()

	mu         sync.Mutex
	configured []ports.Found // what Configured returns
	changed    chan struct{}
	// peers is what Peers returns, and reached is closed with the next peers.
	peers   []ports.BootstrapPeer
	reached chan struct{}

	// The rest belongs to the goroutine of Run.
	targets  map[peer.ID]*target
	avoided  map[avoidance]time.Time // until when
	names    []*name
	attempts int
	tasks    sync.WaitGroup
	done     chan func() // what a finished task has to say
	stopped  <-chan struct{}
}

var _ ports.Bootstrap = (*Joiner)(nil)

// Peers implements ports.Bootstrap.
func (j *Joiner) Peers() (peers []ports.BootstrapPeer, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.peers, j.reached
}

// publish has Peers return the configured targets as they are now.
func (j *Joiner) publish() {
	var peers []ports.BootstrapPeer
	for _, n := range j.names {
		if n.peers == nil {
			peers = append(peers, ports.BootstrapPeer{Reachable: n.failures == 0})
		}
	}
	for _, t := range j.targets {
		if !t.configured {
			continue
		}
		connected := j.host.Network().Connectedness(t.id) == network.Connected
		if spoken, err := j.host.Peerstore().GetProtocols(t.id); connected && err == nil && len(spoken) > 0 {
			t.other = !slices.Contains(spoken, ports.WatchProtocol) && !slices.Contains(spoken, ports.FollowProtocol)
			t.native = t.native || !t.other
		}
		if t.other && (connected || !t.native) { // a native that stops offers nothing at last
			continue
		}
		peers = append(peers, ports.BootstrapPeer{PeerID: ports.PeerID(t.id.String()), Reachable: connected || !t.met && t.failures == 0})
	}
	slices.SortFunc(peers, func(a, b ports.BootstrapPeer) int { return cmp.Compare(a.PeerID, b.PeerID) })
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.reached != nil && slices.Equal(peers, j.peers) {
		return
	}
	if j.peers = peers; j.reached != nil {
		close(j.reached)
	}
	j.reached = make(chan struct{})
}

// retry is when to try something again.
type retry struct {
	busy     bool
	end      context.CancelFunc // of the attempt under way
	again    bool               // at once, whatever becomes of that
	failures int
	next     time.Time
}

// renew has the next attempt be made now. An attempt under way is given up.
func (r *retry) renew() {
	r.failures, r.next = 0, time.Now()
	if r.busy {
		r.again = true
		r.end()
	}
}

// failed schedules the next attempt after a pause that doubles with each failure.
func (r *retry) failed() {
	pause := min(retryMin<<min(r.failures, 10), retryMax)
	r.failures++
	// The jitter parts those that lost the same peer at the same time.
	r.next = time.Now().Add(pause/2 + rand.N(pause/2))
}

// target is a peer to keep connected.
type target struct {
	retry
	id         peer.ID
	static     []ma.Multiaddr // as host.bootstrap has them
	addrs      []ma.Multiaddr // of the last look-up, or as it told itself
	shown      int            // of addrs, how many have an IP address that it was met at
	site       netip.Prefix   // where it was met; invalid if that is not counted
	told       time.Time      // when all of addrs were dialled last
	pause      time.Duration  // until they are again
	configured bool           // by an address or a name
	meeting    *meeting       // nil once it is met
	warned     bool
	// since is when it was connected or lost last.
	connected bool
	since     time.Time
	met       bool          // it has been connected
	native    bool          // it has been a native to follow
	other     bool          // it was none when it was connected last
	took      time.Duration // how long dials of it take that succeed
	silent    bool          // an attempt since it was lost got no answer
}

// name is a /dnsaddr to keep resolved.
type name struct {
	retry
	addr   ma.Multiaddr
	peers  []peer.ID      // behind it when it was resolved last
	own    []ma.Multiaddr // those of this node's own PeerID
	warned bool
}

// NewJoiner returns a Joiner that does nothing until Run.
func NewJoiner(h host.Host, cfg JoinerConfig) (*Joiner, error) {
	addrs, err := ParseBootstrap(cfg.Bootstrap)
	if err != nil {
		return nil, err
	}
	j := &Joiner{
		host:     h,
		natives:  cfg.Natives,
		room:     cmp.Or(cfg.Remembered, ports.MaxFollowed),
		trusts:   cfg.Trusts,
		resolver: cmp.Or(cfg.Resolver, madns.DefaultResolver),
		timeouts: timeoutsOf(cfg.Timeout),
		log:      cfg.Log,
		lonely:   cfg.Lonely,
		twins:    twins{host: h, probe: cfg.Probe, told: cfg.Twin, dial: timeoutsOf(cfg.Timeout).dial},
		targets:  make(map[peer.ID]*target),
		done:     make(chan func()),
		moved:    make(chan struct{}, 1),
		told:     make(chan hearsay, maxMeetings),
		avoided:  make(map[avoidance]time.Time),
		changed:  make(chan struct{}),
	}
	for _, addr := range addrs {
		if isDNSAddr(addr) {
			j.names = append(j.names, &name{addr: addr})
			continue
		}
		info, err := peer.AddrInfoFromP2pAddr(addr)
		if err != nil {
			return nil, fmt.Errorf("host.bootstrap: %q: %w", addr, err)
		}
		if info.ID == h.ID() {
			j.own = true
			j.twins.addrs = append(j.twins.addrs, info.Addrs...)
			continue
		}
		t := j.target(info.ID)
		t.configured = true
		t.static = append(t.static, info.Addrs...)
	}
	j.configure()
	j.publish()
	return j, nil
}

// Configured returns the peers of host.bootstrap, those behind its names as they resolved last, and
// a channel that closes once they change. A peer among them need not be a native. It does not
// block.
func (j *Joiner) Configured() (peers []ports.Found, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.configured, j.changed
}

// configure has Configured return the targets of now.
func (j *Joiner) configure() {
	var peers []ports.Found
	for id, t := range j.targets {
		if !t.configured {
			continue
		}
		found := ports.Found{PeerID: ports.PeerID(id.String())}
		for _, addr := range slices.Concat(t.static, t.addrs) {
			found.Addrs = append(found.Addrs, addr.String())
		}
		peers = append(peers, found)
	}
	slices.SortFunc(peers, func(a, b ports.Found) int { return cmp.Compare(a.PeerID, b.PeerID) })
	j.mu.Lock()
	defer j.mu.Unlock()
	same := slices.EqualFunc(peers, j.configured, func(a, b ports.Found) bool {
		return a.PeerID == b.PeerID && slices.Equal(a.Addrs, b.Addrs)
	})
	if same {
		return
	}
	j.configured = peers
	close(j.changed)
	j.changed = make(chan struct{})
}

// Run connects and reconnects until ctx ends, and returns when all it started has
// ended. It may be called once. A peer that cannot be reached is no error: that is
// logged once, and tried again.
func (j *Joiner) Run(ctx context.Context) error {
	events, err := j.host.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted),
		new(event.EvtPeerProtocolsUpdated),
	}, eventbus.BufSize(eventBuffer), eventbus.Name("libp2phost/joiner"))
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	defer j.tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer events.Close()
	j.stopped = ctx.Done()

	if j.own {
		j.log.Warn("host.bootstrap names this node itself; that address is ignored", "peerID", j.host.ID())
	}
	for _, id := range j.host.Network().Peers() { // met before the subscription
		j.remember(id)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var minute <-chan time.Time
	if j.lonely != nil && len(j.targets) == 0 && len(j.names) == 0 {
		lonely := time.NewTimer(lonelyAfter)
		defer lonely.Stop()
		minute = lonely.C
	}
	for {
		timer.Reset(j.step(ctx))
		j.publish()
		// Most events are about indexers that come and go: no reason for a step.
		for again := true; again; {
			again = false
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			case tell := <-j.done:
				tell()
			case h := <-j.told:
				j.arrange(h)
			case <-j.moved:
				for _, t := range j.targets {
					t.renew()
				}
				for _, n := range j.names {
					n.renew()
				}
			case e := <-events.Out():
				minute = nil // it is about somebody
				again = !j.hear(e)
			case <-minute:
				minute = nil
				if len(j.host.Network().Peers()) == 0 {
					j.lonely()
				}
				again = true
			}
		}
	}
}

// Moved has all peers that are not connected dialled at once, and names resolved again. Call it when the network of this node has changed. It does not block.
func (j *Joiner) Moved() {
	select {
	case j.moved <- struct{}{}:
	default: // it is to come
	}
}

// hear takes in an event and says whether it concerns a target.
func (j *Joiner) hear(e any) bool {
	switch e := e.(type) {
	case event.EvtPeerConnectednessChanged:
		return j.targets[e.Peer] != nil
	case event.EvtPeerIdentificationCompleted:
		return j.remember(e.Peer)
	case event.EvtPeerProtocolsUpdated:
		return j.remember(e.Peer)
	}
	return false
}

// step compares what should be connected with what is, starts the attempts that are
// due, and returns when the next one is. It looks at the connections themselves, so
// that no lost or late event leaves a target alone.
func (j *Joiner) step(ctx context.Context) time.Duration {
	now := time.Now()
	next := now.Add(retryMax)
	// due says whether an attempt may start now, and sees to it that its time is met. At
	// the bound, the end of another attempt makes the next step.
	due := func(r *retry) bool {
		if r.busy || j.attempts >= maxAttempts {
			return false
		}
		if r.next.After(now) {
			if r.next.Before(next) {
				next = r.next
			}
			return false
		}
		return true
	}
	for _, n := range j.names {
		if due(&n.retry) {
			j.resolve(ctx, n)
		}
	}
	if j.twins.probe != nil && j.twins.told != nil && j.namesItself() && due(&j.twins.retry) {
		j.lookForTwins(ctx)
	}
	for _, t := range j.targets {
		j.see(t, now)
		switch {
		case t.meeting != nil:
			j.meet(ctx, t, now, due)
		case !t.configured && !j.trusted(t.id):
			j.forget(t)
		case t.connected:
		case !t.configured && now.Sub(t.since) >= forgetAfter:
			j.forget(t)
		case due(&t.retry):
			j.dial(ctx, t)
		}
	}
	return next.Sub(now)
}

// namesItself reports whether an address of Bootstrap has this node's own PeerID.
func (j *Joiner) namesItself() bool {
	return len(j.twins.addrs) > 0 || slices.ContainsFunc(j.names, func(n *name) bool { return len(n.own) > 0 })
}

// see notes whether t is connected.
func (j *Joiner) see(t *target, now time.Time) {
	connected := j.host.Network().Connectedness(t.id) == network.Connected
	if connected == t.connected {
		return
	}
	lasted := now.Sub(t.since)
	t.connected, t.since, t.met = connected, now, t.met || connected
	if connected {
		t.pause, t.silent = 0, false
	}
	switch {
	case connected && t.warned:
		j.log.Info("native reached", "peerID", t.id, "after", lasted.Round(time.Second))
		t.warned = false
	case connected:
		j.log.Debug("native connected", "peerID", t.id)
	case lasted >= steadyAfter:
		j.log.Debug("native lost, dialling again", "peerID", t.id)
		t.failures, t.next = 0, now
	default:
		t.failed()
	}
}

// dial starts an attempt to connect t.
func (j *Joiner) dial(ctx context.Context, t *target) {
	addrs := t.addrs
	if now := time.Now(); t.configured || now.Sub(t.told) >= t.pause {
		t.told, t.pause = now, min(max(2*t.pause, retryMax), saidPause)
	} else if addrs = addrs[:t.shown]; len(addrs) < len(t.addrs) {
		if len(t.static)+len(addrs) == 0 {
			t.next = t.told.Add(t.pause)
			return
		}
		j.host.Peerstore().ClearAddrs(t.id) // or those would be dialled too
	}
	info := peer.AddrInfo{ID: t.id, Addrs: slices.Concat(t.static, addrs)}
	timeout := j.timeouts.dial
	quick := t.met && time.Since(t.since) < redialFor
	if quick {
		timeout = min(max(j.timeouts.redial, dialMargin*t.took), timeout)
	}
	delayed := quick && t.silent && t.took > 0 // it may begin before the end of a cut, and says nothing of how long dials take
	j.start(ctx, &t.retry, func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		// Giving the addresses on every attempt helps when the peerstore has forgotten them.
		began := time.Now()
		err := redial.Connect(ctx, j.host, info)
		took := time.Since(began)
		return func() {
			if err == nil && !delayed {
				t.took = max(took, t.took/dialMargin) // it takes no time if the peer has come meanwhile
			}
			if j.see(t, time.Now()); t.connected {
				return
			}
			if err == nil {
				err = errors.New("it closed the connection at once")
			}
			if quick && blame.IsTimeout(err) {
				t.silent, t.failures, t.next = true, 0, time.Now().Add(redialPause/2+rand.N(redialPause/2))
			} else {
				t.failed()
			}
			j.complain(&t.warned, t.configured, "native cannot be reached; trying on", err,
				"peerID", t.id, "bootstrap", t.configured, "addrs", info.Addrs,
				"hint", "check that it runs, that its name resolves, that address and /p2p/ identity are its own, that no firewall stands between, and that the line is not too slow for host.timeout")
		}
	})
}

// resolve starts an attempt to look n up.
func (j *Joiner) resolve(ctx context.Context, n *name) {
	j.start(ctx, &n.retry, func(ctx context.Context) func() {
		infos, err := j.lookUp(ctx, n.addr)
		return func() {
			if err != nil {
				n.failed()
				j.complain(&n.warned, true, "bootstrap name does not resolve; trying on", err,
					"addr", n.addr, "hint", "check the TXT records of _dnsaddr.<name>: dnsaddr=<multiaddr>/p2p/<PeerID>")
				return
			}
			if n.warned {
				j.log.Info("bootstrap name resolved", "addr", n.addr)
			}
			n.warned, n.failures, n.next = false, 0, time.Now().Add(resolveEvery)
			j.named(n, infos)
		}
	})
}

// start runs attempt beside the loop and what it returns in the loop.
func (j *Joiner) start(ctx context.Context, r *retry, attempt func(context.Context) func()) {
	r.busy = true
	j.attempts++
	ctx, r.end = context.WithCancel(ctx)
	j.tasks.Go(func() {
		tell := attempt(ctx)
		select {
		case j.done <- func() { j.ended(r, tell) }:
		case <-j.stopped:
		}
	})
}

func (j *Joiner) ended(r *retry, tell func()) {
	r.busy = false
	r.end()
	j.attempts--
	if r.again {
		r.again = false
		return
	}
	tell()
}

// complain warns about the first failure in a row of what the operator configured; all
// else is for those who search.
func (j *Joiner) complain(warned *bool, configured bool, message string, err error, details ...any) {
	level := slog.LevelDebug
	if configured && !*warned {
		*warned, level = true, slog.LevelWarn
	}
	j.log.Log(context.Background(), level, message, append(details, "error", blame.Explain(err))...)
}

// named makes the peers behind n configured targets. Those that are no longer behind
// it are remembered like any native.
func (j *Joiner) named(n *name, infos []peer.AddrInfo) {
	for _, id := range n.peers {
		if t := j.targets[id]; t != nil {
			t.configured = len(t.static) > 0
		}
	}
	n.peers, n.own = make([]peer.ID, 0, len(infos)), nil // peers is not nil: it is resolved
	for _, info := range infos {
		if info.ID == j.host.ID() { // natives share a name, this one too
			n.own = info.Addrs
			continue
		}
		t := j.target(info.ID)
		t.configured, t.addrs, t.shown = true, info.Addrs, len(info.Addrs)
		n.peers = append(n.peers, info.ID)
	}
	j.configure()
}

// remember makes id a target if it is a native, and says whether it is one. A
// configured target keeps the addresses it was configured with.
func (j *Joiner) remember(id peer.ID) bool {
	if t := j.targets[id]; t != nil && t.configured {
		return true
	}
	if !speaks(j.host, id, j.natives) || !j.trusted(id) {
		return false
	}
	var addrs []ma.Multiaddr
	add := func(a ma.Multiaddr) {
		if !slices.ContainsFunc(addrs, a.Equal) {
			addrs = append(addrs, a)
		}
	}
	met := make(map[netip.Addr]bool)
	var site netip.Prefix
	conns := j.host.Network().ConnsToPeer(id)
	if t := j.targets[id]; t != nil && len(t.addrs) > 0 && len(conns) == 0 {
		return true // an event from before it went: where it was met is known already
	}
	for _, conn := range conns {
		if ip, ok := ipOf(conn.RemoteMultiaddr()); ok {
			met[ip], site = true, sites.Counted(ip)
		}
		if conn.Stat().Direction == network.DirOutbound { // proven to work, so before all others
			add(conn.RemoteMultiaddr())
		}
	}
	said := ma.Unique(j.host.Peerstore().Addrs(id)) // which sorts them
	slices.SortStableFunc(said, func(a, b ma.Multiaddr) int {
		return cmp.Compare(rankOf(met, a), rankOf(met, b))
	})
	for _, a := range said {
		add(a)
	}
	addrs = slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool { return dialable(a) != nil })
	if len(addrs) == 0 {
		return false
	}
	if ip, ok := ipOf(addrs[0]); ok && len(met) == 0 { // it has gone already
		site = sites.Counted(ip)
	}
	if t := j.targets[id]; (t == nil || t.meeting != nil) && !j.makeRoom(site) {
		return false
	}
	t := j.target(id)
	t.addrs, t.site, t.shown = addrs[:min(len(addrs), ports.MaxAddrs)], site, 0
	for t.shown < len(t.addrs) && rankOf(met, t.addrs[t.shown]) == 0 {
		t.shown++
	}
	return true
}

// rankOf puts addresses at which a peer was met before all others.
func rankOf(met map[netip.Addr]bool, a ma.Multiaddr) int {
	if ip, ok := ipOf(a); ok && met[ip] {
		return 0
	}
	return 1
}

func ipOf(a ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

func (j *Joiner) trusted(id peer.ID) bool {
	return j.trusts == nil || j.trusts(ports.PeerID(id.String()))
}

// speaks reports whether id has told that it speaks any of the protocols.
func speaks(h host.Host, id peer.ID, protocols []protocol.ID) bool {
	spoken, err := h.Peerstore().SupportsProtocols(id, protocols...)
	return err == nil && len(spoken) > 0
}

// makeRoom sees to it that one more native of a site can be remembered: the one gone longest
// makes way, of its own site if that has its share. If none is gone, who was first stays.
func (j *Joiner) makeRoom(site netip.Prefix) bool {
	var remembered, ofSite int
	var longest, longestOfSite *target
	for _, t := range j.targets {
		if t.configured || t.meeting != nil {
			continue
		}
		remembered++
		gone := !t.connected
		if gone && (longest == nil || t.since.Before(longest.since)) {
			longest = t
		}
		if !site.IsValid() || t.site != site {
			continue
		}
		ofSite++
		if gone && (longestOfSite == nil || t.since.Before(longestOfSite.since)) {
			longestOfSite = t
		}
	}
	if ofSite >= max(1, j.room/rememberedShare) {
		longest = longestOfSite
	} else if remembered < j.room {
		return true
	}
	if longest != nil {
		j.forget(longest)
	}
	return longest != nil
}

// target returns the target id, made if need be. It is no meeting any more.
func (j *Joiner) target(id peer.ID) *target {
	t := j.targets[id]
	if t == nil {
		t = &target{id: id, since: time.Now()}
		j.targets[id] = t
	}
	t.meeting = nil
	j.host.ConnManager().Protect(id, protectTag)
	return t
}

func (j *Joiner) forget(t *target) {
	j.log.Debug("native forgotten", "peerID", t.id)
	delete(j.targets, t.id)
	j.host.ConnManager().Unprotect(t.id, protectTag)
}

// lookUp resolves a /dnsaddr, with or without /p2p/, to the peers behind it. A record
// without an identity is skipped: nobody could say whom it leads to.
func (j *Joiner) lookUp(ctx context.Context, addr ma.Multiaddr) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	pending := []ma.Multiaddr{addr}
	for range maxRedirects {
		var resolved []ma.Multiaddr
		for _, a := range pending {
			if !isDNSAddr(a) {
				resolved = append(resolved, a)
				continue
			}
			more, err := j.resolver.Resolve(ctx, a)
			if err != nil {
				return nil, err
			}
			resolved = append(resolved, more...)
		}
		pending = resolved[:min(len(resolved), maxRecords)]
	}
	pending = slices.DeleteFunc(pending, func(a ma.Multiaddr) bool {
		_, id := peer.SplitAddr(a)
		return id == "" || dialable(a) != nil || isDNSAddr(a)
	})
	if len(pending) == 0 {
		return nil, errors.New("no record names an address with /p2p/<PeerID>")
	}
	return peer.AddrInfosFromP2pAddrs(pending...)
}

func isDNSAddr(addr ma.Multiaddr) bool { return addr[0].Code() == ma.P_DNSADDR }
