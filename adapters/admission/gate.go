package admission

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultRegistrations is 60 times what an indexer needs, and more than what it sends if
	// every retry, restart and change of address falls into one heartbeat.
	DefaultRegistrations = 100
	// DefaultIdentities has room for a company's 5,000 behind one address, twice.
	DefaultIdentities = 10_000
	// wideSites is how many times what a site may have the block around it may.
	wideSites = 2
	// maxStrangers bounds those without a lease that are remembered; the one not heard for
	// longest is forgotten, and may begin anew. 16 MB.
	maxStrangers = 1 << 16
)

// Config says what a Gate lets pass.
type Config struct {
	// TTL and Heartbeat are the network's: a lease lasts for TTL.
	TTL, Heartbeat time.Duration
	// Registrations is how many one identity may send in a heartbeat; 0 is any number.
	Registrations int
	// Identities is how many may hold a lease from one IPv4 address or IPv6 /56; from one /24
	// or /48 it may be twice as many. 0 is any number.
	Identities int
	// CountLoopback has the limits of a site hold for loopback too.
	CountLoopback bool
	// Leased, if not nil, is told of each lease that is granted, and who holds one no longer.
	// It is called under a lock and must neither block nor call the Gate.
	Leased func(id ports.PeerID, leased bool)
}

// Validate returns what is wrong with c, and what to do.
func (c Config) Validate() error {
	var errs []error
	if c.TTL <= 0 || c.Heartbeat <= 0 {
		errs = append(errs, fmt.Errorf("ttl %v, heartbeat %v: must be more than 0", c.TTL, c.Heartbeat))
	}
	if c.Registrations < 0 || c.Identities < 0 {
		errs = append(errs, fmt.Errorf("registrations %d, identities %d: must not be negative; 0 is any number", c.Registrations, c.Identities))
	}
	return errors.Join(errs...)
}

// Gate counts who registers how often, and who holds a lease from where. All methods may
// be called concurrently; none blocks.
type Gate struct {
	cfg   Config
	epoch time.Time

	mu sync.Mutex
	of map[ports.PeerID]*visitor
	// seated are those that hold a lease, or are about to, and strangers all others. Each
	// stays in its list for the same time, so that the first is the next to go.
	seated, strangers list.List // of *visitor
	sites             map[netip.Prefix]int
}

// visitor is an identity that registers.
type visitor struct {
	id ports.PeerID
	in *list.List
	at *list.Element
	// until is when it is forgotten: on the Gate's clock, as all times here.
	until time.Duration
	// from is where it sits, invalid if that is not counted.
	from netip.Addr
	// leased means that Leased has been told of it, and holding that the native holds a lease
	// or a leave of it, for as long as it is seated.
	leased, holding bool
	// unsettled are the Seats of which it is not said what became of them: while there is one,
	// it stays seated.
	unsettled int
	// spent are the registrations that count against it, as of the time at.
	spent   float64
	spentAt time.Duration
}

// NewGate returns a Gate that nobody has passed yet.
func NewGate(cfg Config) (*Gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Gate{cfg: cfg, epoch: time.Now(), of: make(map[ports.PeerID]*visitor), sites: make(map[netip.Prefix]int)}, nil
}

// Hear counts one more registration of sender, or refuses to hear it with a *ports.Refusal.
func (g *Gate) Hear(sender ports.PeerID) error {
	if g.cfg.Registrations == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.spend(sender, g.now())
}

// Renew is Hear for a heartbeat on an open stream. A sender that holds a lease keeps its seat for another
// TTL, as Seat and Settle would have it; else held is false.
func (g *Gate) Renew(sender ports.PeerID) (held bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.cfg.Registrations != 0 {
		err = g.spend(sender, now)
	}
	v := g.of[sender]
	if err != nil || v == nil || v.in != &g.seated || !v.leased {
		return false, err
	}
	g.move(v, &g.seated, now+g.cfg.TTL)
	return true, nil
}

// spend counts one more registration of sender. The caller holds the lock.
func (g *Gate) spend(sender ports.PeerID, now time.Duration) error {
	v := g.of[sender]
	if v == nil {
		v = &visitor{id: sender, spentAt: now}
		g.of[sender] = v
	}
	if v.in != &g.seated {
		g.estrange(v, now)
	}
	each := g.cfg.Heartbeat / time.Duration(g.cfg.Registrations)
	v.spent = max(0, v.spent-(now-v.spentAt).Seconds()/each.Seconds())
	v.spentAt = now
	if v.spent+1 > float64(g.cfg.Registrations) {
		return ports.Busy(ports.LimitRate, "%s registers more often than %d times in %v; wait, and renew once a heartbeat", sender, g.cfg.Registrations, g.cfg.Heartbeat)
	}
	v.spent++
	return nil
}

// Seat makes room for sender's lease or leave, or refuses with a *ports.Refusal if its site
// has no more. Who sits already stays, for another TTL. Settle or Leave must be called with
// what became of it; until each of several has ended, the seat is kept.
func (g *Gate) Seat(sender ports.PeerID, from netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	v := g.of[sender]
	if v == nil {
		v = &visitor{id: sender, spentAt: now}
	}
	from = g.counted(from)
	if v.in != &g.seated {
		if site, most, ok := g.full(from); ok {
			return ports.Busy(ports.LimitSite, "%d identities hold a lease from %s, as many as this native takes from there; register with another", most, site)
		}
	}
	g.of[sender] = v
	g.sit(v, from, now)
	v.unsettled++
	return nil
}

// Settle says whether sender was granted what it was seated for. Who was not stays only if
// the native holds something of it from before.
func (g *Gate) Settle(sender ports.PeerID, granted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	v := g.of[sender]
	if v != nil {
		v.unsettled = max(0, v.unsettled-1)
	}
	switch {
	case v == nil || v.in != &g.seated: // forgotten already
	case !granted && !v.holding && v.unsettled == 0:
		g.rise(v, now)
	case granted:
		v.holding = true
		g.lease(v, true)
	}
}

// Leave says that the leave that sender was seated for was taken. It keeps its seat until
// all have heard of that, a TTL long: the native has to remember it for as long.
func (g *Gate) Leave(sender ports.PeerID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now()
	if v := g.of[sender]; v != nil && v.in == &g.seated {
		v.unsettled = max(0, v.unsettled-1)
		v.holding = true
		g.lease(v, false)
	}
}

// Counts returns how many are seated, and how many others are remembered.
func (g *Gate) Counts() (seated, strangers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now()
	return g.seated.Len(), g.strangers.Len()
}

// now returns the time, with all forgotten whose time has come.
func (g *Gate) now() time.Duration {
	now := time.Since(g.epoch)
	for _, in := range []*list.List{&g.seated, &g.strangers} {
		for e := in.Front(); e != nil && e.Value.(*visitor).until <= now; e = in.Front() {
			g.forget(e.Value.(*visitor))
		}
	}
	return now
}

func (g *Gate) move(v *visitor, to *list.List, until time.Duration) {
	v.until = until
	if v.in == to {
		to.MoveToBack(v.at)
		return
	}
	if v.in != nil {
		v.in.Remove(v.at)
	}
	v.in, v.at = to, to.PushBack(v)
}

// sit seats v at a site, and no longer where it sat before, unless there is no room at the
// new one: it counts at the old one then, or who moves would have any number of seats.
func (g *Gate) sit(v *visitor, from netip.Addr, now time.Duration) {
	if _, _, full := g.full(from); v.from != from && !full {
		g.count(v.from, -1)
		g.count(from, 1)
		v.from = from
	}
	g.move(v, &g.seated, now+g.cfg.TTL)
}

// rise frees v's seat. What it has spent is remembered.
func (g *Gate) rise(v *visitor, now time.Duration) {
	g.vacate(v)
	g.estrange(v, now)
}

// estrange remembers v among those without a seat, until it has spent nothing.
func (g *Gate) estrange(v *visitor, now time.Duration) {
	g.move(v, &g.strangers, now+g.cfg.Heartbeat)
	for g.strangers.Len() > maxStrangers {
		g.forget(g.strangers.Front().Value.(*visitor))
	}
}

func (g *Gate) forget(v *visitor) {
	g.vacate(v)
	v.in.Remove(v.at)
	delete(g.of, v.id)
}

func (g *Gate) vacate(v *visitor) {
	g.count(v.from, -1)
	v.from, v.holding = netip.Addr{}, false
	g.lease(v, false)
}

// lease tells whether v holds a lease: that it does each time, and that it does no longer once.
func (g *Gate) lease(v *visitor, leased bool) {
	if g.cfg.Leased != nil && (leased || v.leased) {
		g.cfg.Leased(v.id, leased)
	}
	v.leased = leased
}

// counted returns an address as it is counted: invalid if it is not.
func (g *Gate) counted(from netip.Addr) netip.Addr {
	from = from.Unmap().WithZone("")
	if from.IsLoopback() && !g.cfg.CountLoopback {
		return netip.Addr{}
	}
	return from
}

// full returns a site that from is in and that has as many as it may.
func (g *Gate) full(from netip.Addr) (site netip.Prefix, most int, full bool) {
	if g.cfg.Identities == 0 {
		return site, 0, false
	}
	most = g.cfg.Identities
	for _, site := range sites.Around(from) {
		if g.sites[site] >= most {
			return site, most, true
		}
		most *= wideSites
	}
	return site, 0, false
}

func (g *Gate) count(from netip.Addr, n int) {
	for _, site := range sites.Around(from) {
		if g.sites[site] += n; g.sites[site] == 0 {
			delete(g.sites, site)
		}
	}
}
