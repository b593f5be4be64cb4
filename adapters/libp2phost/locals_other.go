//go:build !linux

package libp2phost

import (
	"net"
	"net/netip"
)

// eachAddress calls f with each address of interfaces. Which are temporary is not known.
func eachAddress(interfaces []net.Interface, f func(_ net.Interface, _ netip.Addr, passing bool)) error {
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			if prefix, err := netip.ParsePrefix(addr.String()); err == nil {
				f(i, prefix.Addr(), false)
			}
		}
	}
	return nil
}

// driver is not told.
func driver(string) string { return "" }
