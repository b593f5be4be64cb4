package sites

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestWhatASiteIs(t *testing.T) {
	for ip, want := range map[string]struct{ around, counted string }{
		"192.0.2.7":         {"[192.0.2.7/32 192.0.2.0/24]", "192.0.2.7/32"},
		"2001:db8:1:2ff::7": {"[2001:db8:1:200::/56 2001:db8:1::/48]", "2001:db8:1:200::/56"},
		"127.0.0.1":         {"[127.0.0.1/32 127.0.0.0/24]", "invalid Prefix"},
		"::1":               {"[::/56 ::/48]", "invalid Prefix"},
		"":                  {"[]", "invalid Prefix"},
	} {
		addr, _ := netip.ParseAddr(ip)
		if around, counted := fmt.Sprint(Around(addr)), Counted(addr).String(); around != want.around || counted != want.counted {
			t.Errorf("%q: %s, counted as %s; want %+v", ip, around, counted, want)
		}
	}
}
