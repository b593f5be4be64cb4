package libp2phost

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

// CheckAddr is the rule for an address in a registration of id (canonical text): it
// starts with an IP address that another host can dial or a DNS name, names a
// transport, and its last /p2p/ part, if it has one, is id; a relay may stand before
// it. The error says what is wrong. It resolves and dials nothing.
func CheckAddr(id ports.PeerID, addr string) error {
	if len(addr) > ports.MaxAddrBytes {
		return fmt.Errorf("address has %d bytes, at most %d are allowed", len(addr), ports.MaxAddrBytes)
	}
	if strings.ContainsFunc(addr, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("address %q has characters that no address needs: printable ASCII is allowed", addr)
	}
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return fmt.Errorf("address %q is not a multiaddr such as /ip4/192.0.2.1/tcp/4101: %w", addr, err)
	}
	if err := dialable(m); err != nil {
		return fmt.Errorf("address %q %w", addr, err)
	}
	for _, c := range slices.Backward(m) {
		if c.Code() != ma.P_P2P {
			continue
		}
		if last := c.Value(); last != string(id) {
			return fmt.Errorf("address %q is another's: its last /p2p/ part must be %s", addr, id)
		}
		break
	}
	return nil
}

// Site returns the block of addresses, IPv4 /24 or IPv6 /48, that a public address is in: a hoster or
// a larger customer may have all of it. It is "" for names, and for addresses that are not public:
// all natives of a private network may be in one block.
func Site(addr string) string {
	m, err := ma.NewMultiaddr(addr)
	if err != nil || !manet.IsPublicAddr(m) {
		return ""
	}
	ip, ok := ipOf(m)
	if around := sites.Around(ip); ok && len(around) > 0 {
		return around[len(around)-1].String()
	}
	return ""
}

// dialable returns why nobody could dial m from another host, or from this one if m is
// a loopback address. The error continues a sentence that begins with the address.
func dialable(m ma.Multiaddr) error {
	if len(m) == 0 {
		return errors.New("is empty")
	}
	switch host := m[0]; host.Code() {
	case ma.P_IP4, ma.P_IP6:
		ip, ok := netip.AddrFromSlice(host.RawValue())
		if ip = ip.Unmap(); !ok || !dialableIP(ip) {
			return fmt.Errorf("cannot be dialled: %s is no address of one host that others can reach", ip)
		}
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
	case ma.P_DNSADDR: // the transport stands in the record
		return nil
	case ma.P_IP6ZONE:
		return errors.New("cannot be dialled: a zone means something on its own host only")
	default:
		return errors.New("must start with /ip4, /ip6, /dns, /dns4, /dns6 or /dnsaddr")
	}
	if len(m) < 2 || m[1].Code() != ma.P_TCP && m[1].Code() != ma.P_UDP {
		return errors.New("names no transport: /tcp/<port> or /udp/<port>/quic-v1 must follow the host")
	}
	if port := m[1].RawValue(); port[0] == 0 && port[1] == 0 {
		return errors.New("cannot be dialled: port 0 means any")
	}
	return nil
}

// dialableIP leaves out IPv6 link-local addresses too: without a zone nobody can dial
// them, and libp2p does not try.
func dialableIP(ip netip.Addr) bool {
	broadcast := ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !ip.IsUnspecified() && !ip.IsMulticast() && !broadcast && !(ip.Is6() && ip.IsLinkLocalUnicast())
}

func hasProtocol(m ma.Multiaddr, code int) bool {
	return slices.ContainsFunc(m, func(c ma.Component) bool { return c.Code() == code })
}

// withoutPeer returns m without a /p2p/ part at its end, unless that is what a relay
// is asked for.
func withoutPeer(m ma.Multiaddr) ma.Multiaddr {
	if n := len(m); n > 1 && m[n-1].Code() == ma.P_P2P && !hasProtocol(m, ma.P_CIRCUIT) {
		return m[:n-1]
	}
	return m
}

// ParseListen reads host.listen. An address must be one that Listen can bind: an IP
// address with /tcp/<port> or /udp/<port>/quic-v1 and nothing after it.
func ParseListen(addrs []string) ([]ma.Multiaddr, error) {
	return parseAll("host.listen", addrs, func(m ma.Multiaddr) error {
		ip := m[0].Code() == ma.P_IP4 || m[0].Code() == ma.P_IP6
		tcp := len(m) == 2 && m[1].Code() == ma.P_TCP
		quic := len(m) == 3 && m[1].Code() == ma.P_UDP && m[2].Code() == ma.P_QUIC_V1
		if !ip || !tcp && !quic {
			return errors.New("is not an address to listen on: allowed are /ip4/<address>/tcp/<port> and /ip4/<address>/udp/<port>/quic-v1, or the same with /ip6")
		}
		return nil
	})
}

// ParseAnnounce reads host.announce. An address must be one that others can dial, as
// CheckAddr has it; whether its /p2p/ part is this node's, New checks.
func ParseAnnounce(addrs []string) ([]ma.Multiaddr, error) {
	return parseAll("host.announce", addrs, dialable)
}

// ParseBootstrap reads host.bootstrap. An address must be one that can be dialled and
// end in the identity to expect there, but for /dnsaddr, whose records name it.
func ParseBootstrap(addrs []string) ([]ma.Multiaddr, error) {
	return parseAll("host.bootstrap", addrs, func(m ma.Multiaddr) error {
		if err := dialable(m); err != nil {
			return err
		}
		if m[0].Code() != ma.P_DNSADDR && m[len(m)-1].Code() != ma.P_P2P {
			return errors.New("does not say whom to expect: append /p2p/<PeerID> (ocnode id prints it there)")
		}
		return nil
	})
}

// parseAll reads the addresses under a configuration key and names each wrong one.
func parseAll(key string, addrs []string, check func(ma.Multiaddr) error) ([]ma.Multiaddr, error) {
	var parsed []ma.Multiaddr
	var errs []error
	for _, addr := range addrs {
		m, err := ma.NewMultiaddr(addr)
		if err != nil {
			err = fmt.Errorf("is not a multiaddr such as /ip4/192.0.2.1/tcp/4101: %w", err)
		} else {
			err = check(m)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %q %w", key, addr, err))
		}
		parsed = append(parsed, m)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return parsed, nil
}
