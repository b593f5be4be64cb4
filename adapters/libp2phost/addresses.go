package libp2phost

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// lookEvery is how often the interfaces are read. It takes 0.4 ms on a machine with twelve of
// them. A change is told at the look after the look that saw it: a network comes with several
// addresses and a route, within a second. So changes are told every second look at most.
const lookEvery = time.Second

// Addresses knows where others reach a host. libp2p reads the interfaces once a minute; Addresses
// reads them whenever it matters. All methods may be called concurrently.
type Addresses struct {
	announced  []string
	interfaces Interfaces
	log        *slog.Logger
	moved      []func()

	mu     sync.Mutex
	bound  host.Host // nil before New
	locals []Local   // nil before the first successful read
	over   []netip.Addr
	// sources are the local addresses of the connections that libp2p does not tell them of:
	// those that QUIC dialled.
	sources map[network.Conn]netip.Addr
}

// NewAddresses returns the Addresses of the host that New makes with them. announced is
// host.announce. interfaces is nil for ReadInterfaces. log may be nil.
func NewAddresses(announced []string, interfaces Interfaces, log *slog.Logger) *Addresses {
	if interfaces == nil {
		interfaces = ReadInterfaces
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Addresses{announced: announced, interfaces: interfaces, log: log, sources: make(map[network.Conn]netip.Addr)}
}

// Moved has f called after each change of the addresses, once they have settled. f must not
// block. Call it before Watch.
func (a *Addresses) Moved(f func()) { a.moved = append(a.moved, f) }

// All returns every address of the host, the best first, each with /p2p/<PeerID>.
func (a *Addresses) All() []string {
	a.read()
	addrs := a.order().Rank(a.addrs(), math.MaxInt)
	for i, addr := range addrs {
		if !strings.Contains(addr, "/p2p/") {
			addrs[i] = addr + "/p2p/" + a.host().ID().String()
		}
	}
	return addrs
}

// Bound returns the addresses that the host listens on, as Registration has them. Peers on the same
// link reach them, whatever is announced to others.
func (a *Addresses) Bound() []string {
	a.read()
	o := a.order()
	o.Announced = nil
	return o.forOthers(a.resolved())
}

// Registration returns the addresses of an indexer that registers over the connections conns, at
// most ports.MaxAddrs, the best first. The same are registered with every native: natives that
// were told different lists would tell each other the one and then the other.
func (a *Addresses) Registration(conns []network.Conn) []string {
	a.read()
	a.overThese(conns)
	return a.order().forOthers(a.addrs())
}

// addrs returns what others are to dial, in no order.
func (a *Addresses) addrs() []ma.Multiaddr {
	if len(a.announced) > 0 {
		return nil // Rank knows them
	}
	return a.resolved()
}

// told returns what the host tells its peers, in place of what libp2p knows. libp2p asks often, so
// the interfaces are those of the last look.
func (a *Addresses) told(known []ma.Multiaddr) []ma.Multiaddr {
	if a.host() == nil {
		return known
	}
	var addrs []ma.Multiaddr
	for _, text := range a.order().forOthers(a.addrs()) {
		addrs = append(addrs, withoutPeer(ma.StringCast(text)))
	}
	return addrs
}

// resolved returns the addresses that the host listens on, with those of the interfaces in place
// of 0.0.0.0 and ::.
func (a *Addresses) resolved() []ma.Multiaddr {
	listen := a.host().Network().ListenAddresses()
	locals := a.latest()
	if locals == nil {
		locals = a.read()
	}
	if locals == nil {
		addrs, _ := manet.ResolveUnspecifiedAddresses(listen, nil) // an error is that of the read
		return addrs
	}
	var addrs []ma.Multiaddr
	for _, m := range listen {
		if !manet.IsIPUnspecified(m) {
			addrs = append(addrs, m)
			continue
		}
		for _, l := range locals {
			if l.IP.Is4() == ipAt(m).Is4() {
				at, err := manet.FromIP(l.IP.AsSlice())
				if err == nil {
					addrs = append(addrs, at.Encapsulate(m[1:]))
				}
			}
		}
	}
	return addrs
}

func (a *Addresses) bind(h host.Host) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bound = h
}

func (a *Addresses) host() host.Host {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bound
}

func (a *Addresses) order() Order {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Order{Announced: a.announced, Locals: a.locals, Over: a.over}
}

// read reads the interfaces. If that fails, what is known stays.
func (a *Addresses) read() []Local {
	locals, err := a.interfaces()
	if err != nil {
		a.log.Debug("interfaces not read", "error", err)
		return a.latest()
	}
	locals = append([]Local{}, locals...)
	slices.SortFunc(locals, func(a, b Local) int { return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.IP.Compare(b.IP)) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.locals = locals
	return locals
}

// latest returns what was read last.
func (a *Addresses) latest() []Local {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.locals
}

// overThese has the local addresses of conns go before others, and returns them. Without conns those
// stay that this machine still has: a native that is lost and comes back, or that drops each
// connection, would have the node sign another list each time.
func (a *Addresses) overThese(conns []network.Conn) (over []netip.Addr) {
	for _, c := range conns {
		if ip := a.localOf(c); ip.IsValid() && !slices.Contains(over, ip) {
			over = append(over, ip)
		}
	}
	slices.SortFunc(over, netip.Addr.Compare)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(over) == 0 {
		over = slices.DeleteFunc(slices.Clone(a.over), func(ip netip.Addr) bool {
			return !slices.ContainsFunc(a.locals, func(l Local) bool { return l.IP == ip })
		})
	}
	a.over = over
	return over
}

// localOf returns the local address of c.
func (a *Addresses) localOf(c network.Conn) netip.Addr {
	ip := ipAt(c.LocalMultiaddr())
	if ip.IsValid() && !ip.IsUnspecified() {
		return ip
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if source, known := a.sources[c]; known {
		return source
	}
	return sourceTo(ipAt(c.RemoteMultiaddr()))
}

// Watch looks at the interfaces until ctx ends, and at the connections that over returns, over
// which this node registers. A connection whose local address has gone is closed at once: no
// packet of the other side arrives any more. Peers are told of a change at once, and the functions
// given to Moved are called once it has settled.
func (a *Addresses) Watch(ctx context.Context, over func() []network.Conn) error {
	recompute, err := a.host().EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated))
	if err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer recompute.Close()
	sources := &network.NotifyBundle{ConnectedF: a.connected, DisconnectedF: a.disconnected}
	a.host().Network().Notify(sources)
	defer a.host().Network().StopNotify(sources)
	var closing sync.WaitGroup
	defer closing.Wait()

	look := time.NewTicker(lookEvery)
	defer look.Stop()
	seen, seenOver, said := a.read(), a.overThese(over()), a.All()
	changed := false // at the last look
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		locals, nowOver := a.read(), a.overThese(over())
		news := !slices.Equal(seen, locals) || !slices.Equal(seenOver, nowOver)
		if news {
			// libp2p has no relays here. It takes this as a reason to ask for the addresses again,
			// and tells peers if they have changed.
			if err := recompute.Emit(event.EvtAutoRelayAddrsUpdated{}); err != nil {
				a.log.Debug("peers not told of new addresses", "error", err)
			}
			for _, c := range a.severed(seen, locals) {
				closing.Go(func() { _ = c.Close() })
			}
			seen, seenOver = locals, nowOver
		}
		if !changed {
			changed = news
			continue
		}
		changed = false // what has changed since the last look is told with it
		if now := a.All(); !slices.Equal(said, now) {
			a.log.Info("addresses changed", "addrs", now)
			said = now
		}
		for _, f := range a.moved {
			f()
		}
	}
}

// severed returns the connections whose local address was there before and is there no more.
func (a *Addresses) severed(before, now []Local) (conns []network.Conn) {
	has := func(locals []Local, ip netip.Addr) bool {
		return slices.ContainsFunc(locals, func(l Local) bool { return l.IP == ip })
	}
	if !slices.ContainsFunc(before, func(l Local) bool { return !has(now, l.IP) }) {
		return nil
	}
	for _, c := range a.host().Network().Conns() {
		if ip := a.localOf(c); has(before, ip) && !has(now, ip) {
			conns = append(conns, c)
		}
	}
	return conns
}

// connected notes the local address of a connection while packets still take the way that they
// took when it was dialled.
func (a *Addresses) connected(_ network.Network, c network.Conn) {
	if !ipAt(c.LocalMultiaddr()).IsUnspecified() {
		return
	}
	source := sourceTo(ipAt(c.RemoteMultiaddr()))
	a.mu.Lock()
	defer a.mu.Unlock()
	if !c.IsClosed() { // else disconnected has been called, or is not to come
		a.sources[c] = source
	}
}

func (a *Addresses) disconnected(_ network.Network, c network.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sources, c)
}
