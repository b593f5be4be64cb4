package admission

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

// Policy says which addresses have to be shown to be the sender's.
type Policy string

const (
	// PolicyAuto asks nothing of who comes from a private or loopback address, and of
	// others that their public addresses and names be shown.
	PolicyAuto Policy = "auto"
	// PolicyLAN asks of everyone that public addresses be shown, and nothing else.
	PolicyLAN Policy = "lan"
	// PolicyInternet asks of everyone that public addresses and names be shown, and takes
	// no others.
	PolicyInternet Policy = "internet"
	// PolicyAny asks nothing.
	PolicyAny Policy = "any"
)

// Policies are all of them.
var Policies = []Policy{PolicyAuto, PolicyLAN, PolicyInternet, PolicyAny}

const (
	// dialTime bounds one dial with the name that is resolved before it: as long as an
	// indexer waits for an answer.
	dialTime = ports.ExchangeTimeout
	// patience is how long a registration waits for it: two round trips around the world
	// and a handshake take less, and the exchange has 4 s. Short leases have less time: see SetSlack.
	patience = 2 * time.Second
	// maxDials bounds the dials at once: a file and 100 KB each.
	maxDials = 64
	// maxDialsEach bounds those for who registers from one IPv4 address or IPv6 /56, and twice
	// as many those from one /24 or /48: what one registration may need, so that nobody alone
	// keeps the others' addresses from being dialled.
	maxDialsEach = ports.MaxAddrs
	// dialsOfSite bounds the dials to one IPv4 /24 or IPv6 /56 in dialsEvery, whoever
	// asks for them: what a victim is made to bear at most.
	dialsOfSite, dialsEvery = 60, time.Minute
	// holdsFor is how long an address that was shown counts as shown, and renewAhead how
	// long before the end it is dialled again: an hour's addresses, ten heartbeats ahead.
	holdsFor, renewAhead = time.Hour, 10 * time.Minute
	// againAfter is when an address that could not be shown is dialled again.
	againAfter = time.Minute
	// maxProofs bounds the addresses that are remembered; the one not asked for longest is
	// forgotten, and dialled again. 16 MB.
	maxProofs = 1 << 16
	// maxResolved bounds the addresses of one name that are dialled.
	maxResolved = 4
)

// WayBack reaches who stands behind an address.
type WayBack interface {
	// Resolve returns the addresses that a name in addr stands for, or addr.
	Resolve(ctx context.Context, addr string) ([]string, error)
	// Dial returns nil if id, as its key proves, answers at addr, which has no name in it.
	Dial(ctx context.Context, id ports.PeerID, addr string) error
	// Routes reports whether this node has a route to ip. It sends nothing.
	Routes(ip netip.Addr) bool
}

// Addresses tells whose addresses those of a registration are. All methods may be called
// concurrently.
type Addresses struct {
	policy   Policy
	back     WayBack
	observer ports.Observer
	patience time.Duration

	life context.Context
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	dialers sync.WaitGroup
	dials   int
	dialFor map[netip.Prefix]int // of these, by who has them made
	of      map[claim]*list.Element
	proofs  list.List                 // of *proof, the one not asked for longest first
	sites   map[netip.Prefix]*dialled // dialled in the last dialsEvery
}

// claim is an address that somebody says is theirs.
type claim struct {
	id   ports.PeerID
	addr string
}

// proof is what is known of a claim.
type proof struct {
	claim
	// shown and refuted are until when it counts as either.
	shown, refuted time.Time
	// untried means that it counts as refuted since this native has no route to it.
	untried bool
	// dial is closed when the dial that is under way has ended; nil if none is.
	dial chan struct{}
}

// dialled counts the dials to a site.
type dialled struct {
	since time.Time
	times int
}

// NewAddresses returns the rule for a policy. observer is told of the dials.
func NewAddresses(policy Policy, back WayBack, observer ports.Observer) (*Addresses, error) {
	if !slices.Contains(Policies, policy) {
		return nil, fmt.Errorf("%q is no policy for addresses; want auto, lan, internet or any", policy)
	}
	if back == nil || observer == nil {
		return nil, errors.New("addresses: a way back and an observer are required")
	}
	life, end := context.WithCancel(context.Background())
	return &Addresses{
		policy: policy, back: back, observer: observer, patience: patience, life: life, end: end,
		of: make(map[claim]*list.Element), dialFor: make(map[netip.Prefix]int), sites: make(map[netip.Prefix]*dialled),
	}, nil
}

// SetSlack says how much longer a lease lasts than a heartbeat. A registration waits for half of it at
// most: its indexer has a lease that would end meanwhile, and takes a longer silence for a connection that
// has ended. It must be called before any other method.
func (a *Addresses) SetSlack(slack time.Duration) { a.patience = min(patience, slack/2) }

// Close ends the dials that are under way, and waits for that.
func (a *Addresses) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.end()
	a.dialers.Wait()
}

// Vet returns r with those of its addresses that sender may be listed with, or a
// *ports.Refusal if Addr is none. It may take patience, and only the first time: an
// address that holds is asked for again in good time before it does not. What is no
// multiaddr at all passes, as the rule of the contract is the registry's.
func (a *Addresses) Vet(ctx context.Context, sender ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error) {
	if a.policy == PolicyAny || r.PeerID != sender || len(r.Addrs) > ports.MaxAddrs {
		return r, nil // or refused by the registry, for a better reason
	}
	from = from.Unmap().WithZone("")
	if err := a.vetFirst(ctx, sender, from, r.Addr); err != nil {
		return r, err
	}
	if len(r.Addrs) < 2 {
		return r, nil
	}
	kept := make([]string, 1, len(r.Addrs))
	kept[0] = r.Addrs[0]
	for _, addr := range r.Addrs[1:] {
		switch a.rule(from, addr) {
		case taken:
		case toShow:
			if shown, _, _ := a.ask(sender, from, addr); !shown {
				continue
			}
		default:
			continue
		}
		kept = append(kept, addr)
	}
	if len(kept) < len(r.Addrs) {
		r.Addrs = kept
	}
	return r, nil
}

// VetSigned is Vet for the addresses of a record, of which none can be left out: it refuses
// the record if one of them may not be listed, and names those that another record can do
// without. It may take patience for each of them, all at once.
func (a *Addresses) VetSigned(ctx context.Context, sender ports.PeerID, from netip.Addr, addrs []string) error {
	if a.policy == PolicyAny {
		return nil
	}
	from = from.Unmap().WithZone("")
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	var unshown, untried []string
	var dialled []string
	var dials []<-chan struct{}
	for _, addr := range addrs[1:] {
		switch a.rule(from, addr) {
		case taken:
		case toShow:
			shown, refuted, dial := a.ask(sender, from, addr)
			switch {
			case shown:
			case refuted, dial == nil && !a.full():
				unshown = append(unshown, addr)
			case dial == nil:
				untried = append(untried, addr)
			default:
				dialled, dials = append(dialled, addr), append(dials, dial)
			}
		default:
			unshown = append(unshown, addr)
		}
	}
	if err := a.vetFirst(ctx, sender, from, addrs[0]); err != nil {
		return err
	}
	for i, dial := range dials {
		late := false
		select {
		case <-dial:
		case <-ctx.Done():
			late = true
		}
		switch shown, refuted := a.known(sender, dialled[i]); {
		case shown:
		case a.life.Err() != nil && !refuted && !late:
			untried = append(untried, dialled[i])
		default: // or where it leads to has been dialled too often: better listed without it than not
			unshown = append(unshown, dialled[i])
		}
	}
	switch {
	case len(unshown) > 0:
		return &ports.Refusal{
			Code: ports.CodeAddrInvalid, Limit: ports.LimitAddress, Unshown: unshown, Untried: a.untried(sender, unshown),
			Message: fmt.Sprintf("addresses %q are not the one that you come from (%s), and nobody with your key answers there; sign a record without them", unshown, from),
		}
	case len(untried) > 0:
		return notYet(untried[0], from)
	}
	return nil
}

// vetFirst says whether Addr may be listed.
func (a *Addresses) vetFirst(ctx context.Context, sender ports.PeerID, from netip.Addr, addr string) error {
	refuse := func(format string, args ...any) error {
		return &ports.Refusal{Code: ports.CodeAddrInvalid, Limit: ports.LimitAddress, Message: fmt.Sprintf("address %q "+format, append([]any{addr}, args...)...)}
	}
	switch a.rule(from, addr) {
	case taken:
		return nil
	case private:
		return refuse("is not one of the internet, and this native lists no others (trust.addresses: %s); set host.announce to one that others reach", a.policy)
	case relayed:
		return refuse("leads through a relay, which this native does not dial, so it cannot be shown to be yours (trust.addresses: %s)", a.policy)
	}
	shown, refuted, dial := a.ask(sender, from, addr)
	if !shown && dial != nil {
		timeout := time.NewTimer(a.patience)
		defer timeout.Stop()
		select {
		case <-dial:
		case <-timeout.C:
		case <-ctx.Done():
		}
		shown, refuted = a.known(sender, addr)
	}
	switch {
	case shown:
		return nil
	case refuted:
		// Why is not said: it would tell strangers what this native can reach.
		return refuse("is not the one that you come from (%s), and nobody with your key answers there; announce one that this native can dial", from)
	default:
		return notYet(addr, from)
	}
}

func notYet(addr string, from netip.Addr) error {
	return ports.Busy(ports.LimitDialBacks, "address %q is not the one that you come from (%s), and this native has not found the time to dial it yet; try again", addr, from)
}

// ruling is what a policy says of an address.
type ruling int

const (
	taken ruling = iota
	toShow
	private
	relayed
)

// rule says what the policy asks of an address that comes from there.
func (a *Addresses) rule(from netip.Addr, addr string) ruling {
	m, err := ma.NewMultiaddr(addr)
	if err != nil || len(m) == 0 || a.policy == PolicyAny {
		return taken
	}
	if a.policy == PolicyAuto && !public(from) {
		return taken
	}
	ip, named := hostOf(m)
	switch {
	case named && a.policy == PolicyLAN:
		return taken
	case !named && !public(ip):
		if a.policy == PolicyInternet {
			return private
		}
		return taken // a private address points at nobody beyond the reader's own network
	case !named && ip == from:
		return taken
	case slices.ContainsFunc(m, func(c ma.Component) bool { return c.Code() == ma.P_CIRCUIT }):
		return relayed
	}
	return toShow
}

// hostOf returns the IP address that m begins with; named if it is a name instead.
func hostOf(m ma.Multiaddr) (ip netip.Addr, named bool) {
	switch c := m[0]; c.Code() {
	case ma.P_IP4, ma.P_IP6:
		ip, _ = netip.AddrFromSlice(c.RawValue())
		return ip.Unmap(), false
	default:
		return ip, strings.HasPrefix(c.Protocol().Name, "dns")
	}
}

// public reports whether ip is an address of the internet.
func public(ip netip.Addr) bool {
	if !ip.IsValid() {
		return false
	}
	m, err := manet.FromIP(ip.AsSlice())
	return err == nil && manet.IsPublicAddr(m)
}

// known says whether a claim counts as shown or refuted now.
func (a *Addresses) known(id ports.PeerID, addr string) (shown, refuted bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.of[claim{id, addr}]
	if !ok {
		return false, false
	}
	now := time.Now()
	p := e.Value.(*proof)
	return now.Before(p.shown), now.Before(p.refuted)
}

// untried returns those of addrs that this native has no route to, as far as it knows.
func (a *Addresses) untried(id ports.PeerID, addrs []string) (untried []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, addr := range addrs {
		if e, ok := a.of[claim{id, addr}]; ok && e.Value.(*proof).untried {
			untried = append(untried, addr)
		}
	}
	return untried
}

// ask says whether a claim counts as shown or refuted, and has it looked into if that is
// due: dial is then closed when it is known.
func (a *Addresses) ask(id ports.PeerID, from netip.Addr, addr string) (shown, refuted bool, dial <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, now := claim{id, addr}, time.Now()
	e, ok := a.of[c]
	asker, free := a.dialFree(from)
	switch {
	case ok:
		a.proofs.MoveToBack(e)
	case !free: // what is not looked into pushes nothing out that was
		return false, false, nil
	default:
		if a.proofs.Len() >= maxProofs {
			delete(a.of, a.proofs.Remove(a.proofs.Front()).(*proof).claim)
		}
		e = a.proofs.PushBack(&proof{claim: c})
		a.of[c] = e
	}
	p := e.Value.(*proof)
	shown, refuted = now.Before(p.shown), now.Before(p.refuted)
	if p.dial == nil && !refuted && p.shown.Sub(now) < renewAhead && free {
		a.dials++
		for _, of := range asker {
			a.dialFor[of]++
		}
		p.dial = make(chan struct{})
		a.dialers.Go(func() { a.look(p, from) })
	}
	return shown, refuted, p.dial
}

// dialFree says for whom a dial counts that who comes from there asks for, and whether one
// more is allowed. The caller holds mu.
func (a *Addresses) dialFree(from netip.Addr) (asker []netip.Prefix, free bool) {
	if asker = sites.Around(from); asker == nil {
		asker = []netip.Prefix{{}}
	}
	free, most := a.dials < maxDials && !a.closed, maxDialsEach
	for _, of := range asker {
		free = free && a.dialFor[of] < most
		most *= wideSites
	}
	return asker, free
}

// full reports whether no dial is left for anybody. Whose site has its own share under way is
// listed without the address instead: 8 dials of 5 s would take an hour for a thousand indexers.
func (a *Addresses) full() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dials >= maxDials || a.closed
}

// look looks into a claim.
func (a *Addresses) look(p *proof, from netip.Addr) {
	ctx, cancel := context.WithTimeout(a.life, dialTime)
	defer cancel()
	began := time.Now()
	err := a.reach(ctx, p.id, from, p.addr)
	now := time.Now()
	a.mu.Lock()
	a.dials--
	asker, _ := a.dialFree(from)
	for _, of := range asker {
		if a.dialFor[of]--; a.dialFor[of] == 0 {
			delete(a.dialFor, of)
		}
	}
	switch {
	case err == nil:
		p.shown, p.refuted, p.untried = now.Add(holdsFor), time.Time{}, false
	case a.life.Err() == nil && !errors.Is(err, errSiteBusy): // else it has not been tried
		p.refuted, p.untried = now.Add(againAfter), errors.Is(err, errNoRoute)
	}
	close(p.dial)
	p.dial = nil
	a.mu.Unlock()
	a.observer.Observe(ports.Event{Kind: ports.EventDialledBack, PeerID: p.id, Took: now.Sub(began), Err: err})
}

var (
	errSiteBusy = errors.New("its site has been dialled too often")
	errPrivate  = errors.New("it is no address of the internet")
	errNoRoute  = errors.New("this native has no route to it")
)

// reach returns nil if an address stands for from, or id answers there.
func (a *Addresses) reach(ctx context.Context, id ports.PeerID, from netip.Addr, addr string) error {
	resolved, err := a.back.Resolve(ctx, addr)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", addr, err)
	}
	err = fmt.Errorf("%s stands for no address", addr)
	var noRoute error
	tried := false
	for _, at := range resolved[:min(len(resolved), maxResolved)] {
		m, parseErr := ma.NewMultiaddr(at)
		if parseErr != nil || len(m) == 0 {
			continue
		}
		ip, named := hostOf(m)
		switch {
		case !named && ip == from:
			return nil
		case named || !public(ip): // a name must not have this native dial within its own network
			err, tried = errPrivate, true
			continue
		case !a.mayDial(ip):
			err, tried = errSiteBusy, true
			continue
		}
		dialErr := a.back.Dial(ctx, id, at)
		switch {
		case dialErr == nil:
			return nil
		case a.back.Routes(ip):
			err, tried = dialErr, true
		default:
			noRoute = fmt.Errorf("%w: %w", errNoRoute, dialErr)
		}
	}
	if noRoute != nil && !tried {
		return noRoute
	}
	return err
}

// mayDial counts one more dial to the site of ip, if it may be dialled.
func (a *Addresses) mayDial(ip netip.Addr) bool {
	bits := sites.Wide4
	if ip.Is6() {
		bits = sites.Prefix6
	}
	site, _ := ip.Prefix(bits)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	d := a.sites[site]
	if d == nil || now.Sub(d.since) >= dialsEvery {
		if len(a.sites) >= maxProofs {
			a.tidy(now)
		}
		d = &dialled{since: now}
		a.sites[site] = d
	}
	if d.times >= dialsOfSite {
		return false
	}
	d.times++
	return true
}

// tidy forgets the sites that have not been dialled lately.
func (a *Addresses) tidy(now time.Time) {
	for site, d := range a.sites {
		if now.Sub(d.since) >= dialsEvery {
			delete(a.sites, site)
		}
	}
}
