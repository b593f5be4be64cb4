package libp2phost

import (
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
)

const (
	selfID  = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
	otherID = "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
)

var addrCases = []struct{ name, addr, want string }{
	{"IPv4", "/ip4/192.0.2.1/tcp/4101", ""},
	{"loopback", "/ip4/127.0.0.1/tcp/4001", ""},
	{"private", "/ip4/10.0.0.1/tcp/4001", ""},
	{"IPv6", "/ip6/2001:db8::1/tcp/4001", ""},
	{"QUIC", "/ip4/192.0.2.1/udp/4101/quic-v1", ""},
	{"a transport that this host does not have", "/ip4/192.0.2.1/tcp/443/tls/ws", ""},
	{"DNS", "/dns4/indexer.example/tcp/4001", ""},
	{"DNS of any family", "/dns/indexer.example/udp/4001/quic-v1", ""},
	{"DNS records", "/dnsaddr/indexer.example", ""},
	{"DNS records of its own", "/dnsaddr/indexer.example/p2p/" + selfID, ""},
	{"own p2p part", "/ip4/127.0.0.1/tcp/4001/p2p/" + selfID, ""},
	{"through a relay", "/ip4/127.0.0.1/tcp/4001/p2p/" + otherID + "/p2p-circuit/p2p/" + selfID, ""},
	{"highest port", "/ip4/192.0.2.1/tcp/65535", ""},
	{"longest", "/dns4/" + strings.Repeat("a", ports.MaxAddrBytes-len("/dns4//tcp/4001")) + "/tcp/4001", ""},

	{"empty", "", "not a multiaddr"},
	{"does not parse", "not-a-multiaddr", "not a multiaddr"},
	{"bad UTF-8", "/dns4/\xff/tcp/\xff", "printable ASCII"},
	{"an escape for the terminal", "/dns4/a\x1b[31m/tcp/4001", "printable ASCII"},
	{"a line of its own", "/dns4/a\nb/tcp/4001", "printable ASCII"},
	{"over 256 B", "/dns4/" + strings.Repeat("a", 300) + "/tcp/4001", "at most 256"},
	{"a byte over 256 B", "/dns4/" + strings.Repeat("a", ports.MaxAddrBytes+1-len("/dns4//tcp/4001")) + "/tcp/4001", "at most 256"},
	{"unspecified", "/ip4/0.0.0.0/tcp/4001", "no address of one host"},
	{"unspecified IPv6", "/ip6/::/tcp/4001", "no address of one host"},
	{"unspecified IPv4 in IPv6", "/ip6/::ffff:0.0.0.0/tcp/4001", "no address of one host"},
	{"multicast", "/ip4/224.0.0.1/tcp/4001", "no address of one host"},
	{"multicast IPv6", "/ip6/ff02::1/udp/4001/quic-v1", "no address of one host"},
	{"broadcast", "/ip4/255.255.255.255/udp/4001/quic-v1", "no address of one host"},
	{"link-local IPv6", "/ip6/fe80::1/tcp/4001", "no address of one host"},
	{"zone", "/ip6zone/eth0/ip6/fe80::1/tcp/4001", "zone"},
	{"no transport", "/ip4/10.0.0.1", "names no transport"},
	{"no transport but an identity", "/ip4/10.0.0.1/p2p/" + selfID, "names no transport"},
	{"DNS without a transport", "/dns4/indexer.example", "names no transport"},
	{"port 0", "/ip4/10.0.0.1/tcp/0", "port 0"},
	{"no host", "/tcp/4001", "must start with"},
	{"only an identity", "/p2p/" + selfID, "must start with"},
	{"unix socket", "/unix/tmp/socket", "must start with"},
	{"another's p2p part", "/ip4/127.0.0.1/tcp/4001/p2p/" + otherID, "is another's"},
	{"another's through a relay", "/ip4/127.0.0.1/tcp/4001/p2p/" + selfID + "/p2p-circuit/p2p/" + otherID, "is another's"},
	{"a relay and nobody behind it", "/ip4/127.0.0.1/tcp/4001/p2p/" + otherID + "/p2p-circuit", "is another's"},
}

func TestCheckAddr(t *testing.T) {
	for _, test := range addrCases {
		t.Run(test.name, func(t *testing.T) {
			err := CheckAddr(selfID, test.addr)
			if test.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func FuzzCheckAddr(f *testing.F) {
	for _, test := range addrCases {
		f.Add(test.addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		if CheckAddr(selfID, addr) != nil {
			return
		}
		m, err := ma.NewMultiaddr(addr)
		if err != nil || len(addr) > ports.MaxAddrBytes {
			t.Fatalf("accepted %q: %v", addr, err)
		}
		if dnsAddr := m[0].Code() == ma.P_DNSADDR; !dnsAddr && !hasProtocol(m, ma.P_TCP) && !hasProtocol(m, ma.P_UDP) {
			t.Errorf("accepted %q without a transport", addr)
		}
		var last string
		ma.ForEach(m, func(c ma.Component) bool {
			if c.Code() == ma.P_P2P {
				last = c.Value()
			}
			return true
		})
		if last != "" && last != selfID {
			t.Errorf("accepted %q of %s", addr, last)
		}
	})
}

func BenchmarkCheckAddr(b *testing.B) {
	for name, addr := range map[string]string{
		"plain": "/ip4/192.0.2.1/tcp/4101",
		"p2p":   "/ip4/192.0.2.1/udp/4101/quic-v1/p2p/" + selfID,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := CheckAddr(selfID, addr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestASiteIsABlockOfPublicAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/198.41.0.4/tcp/4101":                  "198.41.0.0/24",
		"/ip4/198.41.0.250/udp/1/quic-v1":           "198.41.0.0/24",
		"/ip6/2600:1f18:1:2::3/tcp/1/p2p/" + selfID: "2600:1f18:1::/48",
		"/ip4/192.168.1.7/tcp/4101":                 "",
		"/ip4/127.0.0.1/tcp/4101":                   "",
		"/ip6/::1/tcp/4101":                         "",
		"/ip6/fe80::1/tcp/4101":                     "",
		"/dns4/native.example/tcp/4101":             "",
		"/dnsaddr/native.example":                   "",
		"no address":                                "",
		"":                                          "",
	} {
		if got := Site(addr); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

func TestParseConfiguredAddresses(t *testing.T) {
	for name, test := range map[string]struct {
		parse func([]string) ([]ma.Multiaddr, error)
		addr  string
		want  string
	}{
		"listen TCP":                {ParseListen, "/ip4/0.0.0.0/tcp/0", ""},
		"listen QUIC":               {ParseListen, "/ip6/::/udp/4101/quic-v1", ""},
		"listen host:port":          {ParseListen, "0.0.0.0:4101", "host.listen: \"0.0.0.0:4101\" is not a multiaddr"},
		"listen UDP alone":          {ParseListen, "/ip4/0.0.0.0/udp/4101", "allowed are"},
		"listen WebSocket":          {ParseListen, "/ip4/0.0.0.0/tcp/4101/ws", "allowed are"},
		"listen DNS":                {ParseListen, "/dns4/native.example/tcp/4101", "allowed are"},
		"announce":                  {ParseAnnounce, "/dns4/native.example/tcp/4101", ""},
		"announce unspecified":      {ParseAnnounce, "/ip4/0.0.0.0/tcp/4101", "host.announce"},
		"bootstrap":                 {ParseBootstrap, "/ip4/192.0.2.1/tcp/4101/p2p/" + otherID, ""},
		"bootstrap DNS":             {ParseBootstrap, "/dns/native.example/tcp/4101/p2p/" + otherID, ""},
		"bootstrap dnsaddr":         {ParseBootstrap, "/dnsaddr/natives.example", ""},
		"bootstrap dnsaddr of one":  {ParseBootstrap, "/dnsaddr/natives.example/p2p/" + otherID, ""},
		"bootstrap without p2p":     {ParseBootstrap, "/ip4/192.0.2.1/tcp/4101", "append /p2p/<PeerID>"},
		"bootstrap DNS without p2p": {ParseBootstrap, "/dns4/native.example/tcp/4101", "append /p2p/<PeerID>"},
		"bootstrap empty":           {ParseBootstrap, "", "host.bootstrap"},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, err := test.parse([]string{test.addr})
			if test.want == "" && (err != nil || len(parsed) != 1) {
				t.Errorf("refused: %v", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	if _, err := ParseBootstrap([]string{"one", "two"}); err == nil || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "two") {
		t.Errorf("not all wrong addresses are named: %v", err)
	}
}
