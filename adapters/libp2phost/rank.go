package libp2phost

import (
	"cmp"
	"net/netip"
	"slices"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports"
)

// Order is what the order of a node's addresses goes by.
type Order struct {
	// Announced are the addresses that the operator wants told, best first (host.announce).
	Announced []string
	// Locals are the addresses of this machine's interfaces.
	Locals []Local
	// Over are the local addresses of the connections over which this node registers. Each of
	// them is shown to reach as far as a native.
	Over []netip.Addr
}

// Rank returns at most max addresses, best first: those that the operator announces in their
// order, then by tier, then public before private, then TCP before QUIC and IPv4 before IPv6, as
// dialTCPFirst and the world's networks have it. It leaves out what CheckAddr would refuse, and
// repetitions. The result depends on nothing but the sets that it is given, so that a
// registration changes only if an address did.
func (o Order) Rank(addrs []ma.Multiaddr, max int) []string {
	var ranked []string
	seen := make(map[string]bool)
	add := func(text string, m ma.Multiaddr) {
		if key := withoutPeer(m).String(); !seen[key] && len(text) <= ports.MaxAddrBytes && dialable(m) == nil {
			seen[key] = true
			ranked = append(ranked, text)
		}
	}
	for _, text := range o.Announced {
		if m, err := ma.NewMultiaddr(text); err == nil {
			add(text, m)
		}
	}
	tiers := o.tiers(addrs)
	for _, m := range slices.SortedFunc(slices.Values(addrs), func(a, b ma.Multiaddr) int {
		return cmp.Or(
			cmp.Compare(tiers[ipAt(a)], tiers[ipAt(b)]), cmp.Compare(reach(a), reach(b)),
			cmp.Compare(family(a), family(b)), a.Compare(b))
	}) {
		add(m.String(), m)
	}
	return ranked[:min(max, len(ranked))]
}

// forOthers returns what other machines are told of addrs, at most ports.MaxAddrs. Addresses of
// loopback are of use to this machine alone. They are there if this node registers over one, or if
// there are no others.
func (o Order) forOthers(addrs []ma.Multiaddr) []string {
	if !slices.ContainsFunc(o.Over, netip.Addr.IsLoopback) {
		if others := slices.DeleteFunc(slices.Clone(addrs), manet.IsIPLoopback); len(others) > 0 {
			addrs = others
		}
	}
	return o.Rank(addrs, ports.MaxAddrs)
}

// tier says how likely an address is to reach this node from elsewhere, the likeliest first.
type tier int

const (
	// registersOver is a local address of a connection over which this node registers, be it a
	// passing one: a native takes it as shown, and may be unable to dial any other.
	registersOver tier = iota
	// ofFamily is the best address of its family: the source of packets to the outside. Behind
	// a VPN, or without a route to the outside, it is the best address of a plain interface.
	ofFamily
	// throughVPN is the source of packets to the outside, where a VPN takes them.
	throughVPN
	plain
	tunnel
	// bridge is an address of the containers and virtual machines of this machine, which most
	// machines have alike.
	bridge
	// passing is an address that is gone tomorrow, or that a machine gives itself without a
	// network.
	passing
	// loopback is last, be it registered over or not: every reader has such an address itself.
	loopback
)

// tiers returns the tier of each IP address in addrs. An address of no interface counts as plain.
func (o Order) tiers(addrs []ma.Multiaddr) map[netip.Addr]tier {
	of := make(map[netip.Addr]tier)
	best := make(map[bool]ma.Multiaddr) // of the plain, by whether it is IPv4
	outward := make(map[bool]bool)      // whether a plain source is there
	for _, m := range addrs {
		ip := ipAt(m)
		l := o.local(ip)
		of[ip] = o.tier(l)
		switch of[ip] {
		case ofFamily:
			outward[ip.Is4()] = true
		case plain:
			if b := best[ip.Is4()]; b == nil || cmp.Or(cmp.Compare(reach(m), reach(b)), ip.Compare(ipAt(b))) < 0 {
				best[ip.Is4()] = m
			}
		}
	}
	for v4, m := range best {
		if !outward[v4] {
			of[ipAt(m)] = ofFamily
		}
	}
	return of
}

// tier returns the tier of l without regard to the others of its family.
func (o Order) tier(l Local) tier {
	switch {
	case l.IP.IsLoopback():
		return loopback
	case slices.Contains(o.Over, l.IP):
		return registersOver
	case l.Passing || l.IP.IsLinkLocalUnicast():
		return passing
	case l.Outward && l.Kind == Tunnel:
		return throughVPN
	case l.Outward:
		return ofFamily
	case l.Kind == Tunnel:
		return tunnel
	case l.Kind == Bridge:
		return bridge
	}
	return plain
}

// local returns what is known of ip.
func (o Order) local(ip netip.Addr) Local {
	if i := slices.IndexFunc(o.Locals, func(l Local) bool { return l.IP == ip }); i >= 0 {
		return o.Locals[i]
	}
	return Local{IP: ip}
}

// ipAt returns the IP address that m begins with, the zero Addr if it begins with a name.
func ipAt(m ma.Multiaddr) netip.Addr {
	ip, _ := ipOf(m)
	return ip
}

// reach is how far an address carries, the farthest first.
func reach(m ma.Multiaddr) int {
	switch {
	case manet.IsIPLoopback(m):
		return 2
	case manet.IsPublicAddr(m):
		return 0
	default:
		return 1
	}
}

// family orders addresses of the same reach by what is dialled first.
func family(m ma.Multiaddr) int {
	order := 0
	if !hasProtocol(m, ma.P_TCP) {
		order += 2
	}
	if hasProtocol(m, ma.P_IP6) {
		order++
	}
	return order
}
