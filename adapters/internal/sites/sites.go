// Package sites says what counts as one site: who has one of its addresses can have all.
package sites

import "net/netip"

const (
	// Prefix4 and Prefix6 are the lengths, in bits, of a site: a single IPv4 address, which a
	// whole company may come from, and the IPv6 block that one customer gets.
	Prefix4, Prefix6 = 32, 56
	// Wide4 and Wide6 are those of the block that a site is in, of which a hoster or a larger
	// customer may have all.
	Wide4, Wide6 = 24, 48
)

// Around returns the site of ip and the block that this is in; none if ip is invalid.
func Around(ip netip.Addr) []netip.Prefix {
	bits := [...]int{Prefix6, Wide6}
	switch {
	case !ip.IsValid():
		return nil
	case ip.Is4():
		bits = [...]int{Prefix4, Wide4}
	}
	site, _ := ip.Prefix(bits[0])
	wide, _ := ip.Prefix(bits[1])
	return []netip.Prefix{site, wide}
}

// Counted returns the site of ip, invalid for loopback, where all of a machine come from.
func Counted(ip netip.Addr) netip.Prefix {
	around := Around(ip)
	if around == nil || ip.IsLoopback() {
		return netip.Prefix{}
	}
	return around[0]
}
