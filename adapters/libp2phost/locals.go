package libp2phost

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Local is an address of an interface of this machine.
type Local struct {
	IP netip.Addr
	// Interface is the name of the interface, such as eth0.
	Interface string
	Kind      Kind
	// Outward marks the source of packets to the outside: the address of the default route.
	Outward bool
	// Passing marks an IPv6 address that is temporary, or used for no new connections.
	Passing bool
}

// Kind is what an interface is for.
type Kind int

const (
	// Plain is an interface to other machines, as far as can be told.
	Plain Kind = iota
	// Tunnel is an interface of a VPN.
	Tunnel
	// Bridge is an interface to the containers and virtual machines of this machine.
	Bridge
)

// Interfaces returns the addresses of this machine's interfaces that are up, as of now. Addresses
// that no other host can dial may be missing, but not those of loopback.
type Interfaces func() ([]Local, error)

// The beginnings of the names that well-known programs give their interfaces. They decide where
// the system does not tell.
var (
	bridges = []string{"docker", "br-", "virbr", "veth", "cni", "podman", "lxcbr", "lxdbr", "incusbr", "vmnet", "vboxnet", "flannel", "cilium", "cali", "kube-", "nodelocaldns"}
	tunnels = []string{"tun", "tap", "utun", "wg", "ppp", "ipsec", "tailscale", "zt", "nordlynx"}
)

// outsideV4 and outsideV6 stand for the outside of this machine's networks: a root server of DNS.
// Nothing is sent there.
const outsideV4, outsideV6 = "198.41.0.4", "2001:503:ba3e::2:30"

// ReadInterfaces is the Interfaces of the system. It asks the kernel, and blocks on nothing else.
func ReadInterfaces() ([]Local, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var locals []Local
	err = eachAddress(interfaces, func(i net.Interface, ip netip.Addr, passing bool) {
		if ip = ip.Unmap().WithZone(""); i.Flags&net.FlagUp == 0 || !dialableIP(ip) {
			return
		}
		locals = append(locals, Local{IP: ip, Interface: i.Name, Kind: kind(i), Passing: passing})
	})
	if err != nil {
		return nil, err
	}
	for _, outside := range []string{outsideV4, outsideV6} {
		source := steady(locals, sourceTo(netip.MustParseAddr(outside)))
		if l := slices.IndexFunc(locals, func(l Local) bool { return l.IP == source }); l >= 0 {
			locals[l].Outward = true
		}
	}
	return locals, nil
}

// kind returns what i is for, by what the system tells of it, and else by its name.
func kind(i net.Interface) Kind {
	named := func(beginnings []string) bool {
		return slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(i.Name, b) })
	}
	switch driven := driver(i.Name); {
	case driven == "bridge" || named(bridges):
		return Bridge
	case driven == "tun" || driven == "wireguard" || i.Flags&net.FlagPointToPoint != 0 || named(tunnels):
		return Tunnel
	}
	return Plain
}

// sourceTo returns the address that packets to ip come from, the zero Addr if there is no way
// there. To connect a UDP socket sends nothing.
func sourceTo(ip netip.Addr) netip.Addr {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")
}

// steady returns the address of locals that lasts in place of ip: ip itself, or, of a passing
// address, another of the same network and interface. The kernel prefers a temporary address for
// what it dials.
func steady(locals []Local, ip netip.Addr) netip.Addr {
	at := slices.IndexFunc(locals, func(l Local) bool { return l.IP == ip })
	if at < 0 || !locals[at].Passing || !ip.Is6() {
		return ip
	}
	network, _ := ip.Prefix(64)
	best := ip
	for _, l := range locals {
		if l.Interface == locals[at].Interface && !l.Passing && network.Contains(l.IP) && (best == ip || l.IP.Less(best)) {
			best = l.IP
		}
	}
	return best
}
