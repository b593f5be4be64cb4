package libp2phost

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
)

func TestWithoutAWordAboutInterfacesPublicAddressesComeFirst(t *testing.T) {
	var addrs []ma.Multiaddr
	for _, text := range []string{
		"/ip4/127.0.0.1/tcp/4101",
		"/ip4/127.0.0.1/tcp/4101/p2p/" + selfID, // again
		"/ip6/::1/tcp/4101",
		"/ip4/10.0.0.7/udp/4101/quic-v1",
		"/ip4/10.0.0.7/tcp/4101",
		"/ip4/0.0.0.0/tcp/4101",
		"/ip6/fe80::7/tcp/4101",
		"/ip6/2a00::7/tcp/4101",
		"/ip4/8.8.8.8/udp/4101/quic-v1",
		"/ip4/8.8.8.8/tcp/4101",
	} {
		addrs = append(addrs, ma.StringCast(text))
	}
	announced := []string{
		"/dns4/indexer.example/tcp/1",
		"/ip4/10.0.0.7/tcp/4101/p2p/" + selfID, // also bound
		"not an address",
		"/dns4/" + strings.Repeat("a", ports.MaxAddrBytes) + "/tcp/1",
	}
	want := []string{
		"/dns4/indexer.example/tcp/1",
		"/ip4/10.0.0.7/tcp/4101/p2p/" + selfID,
		"/ip4/8.8.8.8/tcp/4101",
		"/ip6/2a00::7/tcp/4101",
		"/ip4/8.8.8.8/udp/4101/quic-v1",
		"/ip4/10.0.0.7/udp/4101/quic-v1",
		"/ip4/127.0.0.1/tcp/4101",
		"/ip6/::1/tcp/4101",
	}
	for range 2 {
		if got := (Order{Announced: announced}).Rank(addrs, ports.MaxAddrs); !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		slices.Reverse(addrs) // the order of listeners is random
	}
	if got := (Order{Announced: announced}).Rank(addrs, 3); !slices.Equal(got, want[:3]) {
		t.Errorf("cut to 3: %v", got)
	}
	if got := (Order{}).Rank(nil, 3); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// at returns a local address of an interface, whose kind its name tells.
func at(name, ip string, marks ...string) Local {
	l := Local{IP: netip.MustParseAddr(ip), Interface: name}
	for _, mark := range marks {
		switch mark {
		case "bridge":
			l.Kind = Bridge
		case "tunnel":
			l.Kind = Tunnel
		case "outward":
			l.Outward = true
		case "passing":
			l.Passing = true
		}
	}
	return l
}

var (
	lo4, lo6  = at("lo", "127.0.0.1"), at("lo", "::1")
	lan4      = at("eth0", "192.168.1.5", "outward")
	lan6      = at("eth0", "2a00:1::5", "outward")
	docker    = at("docker0", "172.17.0.1", "bridge")
	vpn       = at("tun0", "10.8.0.2", "tunnel")
	temporary = at("eth0", "2a00:1::dead:beef", "passing")
)

func TestTheAddressThatOthersReachComesFirst(t *testing.T) {
	var nineBridges []Local
	for i := range 9 {
		nineBridges = append(nineBridges, at(fmt.Sprintf("br-%d", i), fmt.Sprintf("172.%d.0.1", 17+i), "bridge"), at(fmt.Sprintf("br-%d", i), fmt.Sprintf("fd00:%d::1", i), "bridge"))
	}
	for _, test := range []struct {
		name   string
		locals []Local
		over   []string
		want   []string // by IP address, of TCP; QUIC follows each tier
	}{
		{"docker", []Local{lo4, docker, lan4}, nil, []string{"192.168.1.5", "172.17.0.1", "127.0.0.1"}},
		{"a VPN", []Local{vpn, lan4}, nil, []string{"192.168.1.5", "10.8.0.2"}},
		{"a VPN that takes all", []Local{at("tun0", "10.8.0.2", "tunnel", "outward"), at("eth0", "192.168.1.5"), docker}, nil, []string{"192.168.1.5", "10.8.0.2", "172.17.0.1"}},
		{"a VPN to the natives", []Local{vpn, lan4, docker}, []string{"10.8.0.2"}, []string{"10.8.0.2", "192.168.1.5", "172.17.0.1"}},
		{"a VPN and nothing else", []Local{lo4, at("tun0", "10.8.0.2", "tunnel", "outward")}, nil, []string{"10.8.0.2", "127.0.0.1"}},
		{"both families, of which the public one carries farther", []Local{docker, lan6, lan4}, nil, []string{"2a00:1::5", "192.168.1.5", "172.17.0.1"}},
		{"IPv6 privacy", []Local{temporary, lan6, lan4}, nil, []string{"2a00:1::5", "192.168.1.5", "2a00:1::dead:beef"}},
		{"IPv6 privacy, registered over the temporary one", []Local{temporary, lan6, lan4}, []string{"2a00:1::dead:beef"}, []string{"2a00:1::dead:beef", "2a00:1::5", "192.168.1.5"}},
		{"nothing but a temporary one", []Local{lo6, temporary}, []string{"2a00:1::dead:beef"}, []string{"2a00:1::dead:beef", "::1"}},
		{"nine bridges", append(slices.Clone(nineBridges), lan6, lan4), nil, []string{"2a00:1::5", "192.168.1.5", "172.17.0.1"}},
		{"the bridge is the way out", []Local{docker, at("br0", "192.168.1.5", "bridge", "outward")}, nil, []string{"192.168.1.5", "172.17.0.1"}},
		{"no route to the outside", []Local{docker, at("eth1", "10.9.0.1"), at("eth0", "10.1.0.1"), at("eth0", "fd01::1")}, nil, []string{"10.1.0.1", "fd01::1", "10.9.0.1", "172.17.0.1"}},
		{"two networks, registered over the other", []Local{lan4, at("eth1", "10.1.0.1")}, []string{"10.1.0.1"}, []string{"10.1.0.1", "192.168.1.5"}},
		{"registered over both", []Local{lan4, at("eth1", "10.1.0.1"), docker}, []string{"192.168.1.5", "10.1.0.1"}, []string{"10.1.0.1", "192.168.1.5", "172.17.0.1"}},
		{"no address but that of a machine without a network", []Local{at("eth1", "169.254.7.7"), docker, lan4}, nil, []string{"192.168.1.5", "172.17.0.1", "169.254.7.7"}},
		{"registered over loopback, which others cannot reach", []Local{lo4, lan4, docker}, []string{"127.0.0.1"}, []string{"192.168.1.5", "172.17.0.1", "127.0.0.1"}},
		{"loopback alone", []Local{lo4, lo6}, nil, []string{"127.0.0.1", "::1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Order{Locals: test.locals}
			for _, ip := range test.over {
				o.Over = append(o.Over, netip.MustParseAddr(ip))
			}
			var addrs []ma.Multiaddr
			for _, l := range test.locals {
				network := "/ip6/"
				if l.IP.Is4() {
					network = "/ip4/"
				}
				addrs = append(addrs, ma.StringCast(network+l.IP.String()+"/udp/4101/quic-v1"), ma.StringCast(network+l.IP.String()+"/tcp/4101"))
			}
			for range 2 {
				ranked := o.Rank(addrs, ports.MaxAddrs)
				var got []string
				for _, addr := range ranked {
					if parts := strings.Split(addr, "/"); parts[3] == "tcp" {
						got = append(got, parts[2])
					}
				}
				if len(got) < len(test.want) || !slices.Equal(got[:len(test.want)], test.want) || len(test.locals) == len(test.want) && len(got) != len(test.want) {
					t.Errorf("got %v, want %v", ranked, test.want)
				}
				slices.Reverse(addrs)
				slices.Reverse(o.Over)
			}
		})
	}
}

func TestTheWayOutIsTheAddressThatLasts(t *testing.T) {
	for _, test := range []struct{ name, of, want string }{
		{"a temporary address", "2a00:1::dead:beef", "2a00:1::5"},
		{"an address that lasts", "2a00:1::5", "2a00:1::5"},
		{"a temporary address of another network", "2a00:2::dead:beef", "2a00:2::dead:beef"},
		{"of another interface", "2a00:3::dead:beef", "2a00:3::dead:beef"},
		{"IPv4", "192.168.1.5", "192.168.1.5"},
		{"none", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			locals := []Local{
				lan4, temporary, at("eth0", "2a00:1::9"), lan6, at("eth0", "2a00:2::dead:beef", "passing"),
				at("eth0", "2a00:3::dead:beef", "passing"), at("eth1", "2a00:3::1"),
			}
			of, _ := netip.ParseAddr(test.of)
			want, _ := netip.ParseAddr(test.want)
			if got := steady(locals, of); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
