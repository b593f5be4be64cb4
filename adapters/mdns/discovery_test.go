package mdns

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(hosttest.Settled{M: m})
}

func addrsOf(h host.Host) func() []string {
	return func() (addrs []string) {
		for _, addr := range h.Addrs() {
			addrs = append(addrs, addr.String())
		}
		return addrs
	}
}

func TestNetworksStayApart(t *testing.T) {
	ours, theirs := Service("/opencloud"), Service("/elsewhere")
	if ours != "_ocnode-2c4c9f8d._udp" {
		t.Errorf("the service is %s", ours)
	}
	if ours == theirs {
		t.Error("two networks have one service")
	}
	if label, _, _ := strings.Cut(strings.TrimPrefix(ours, "_"), "."); len(label) > 15 {
		t.Errorf("%q is longer than DNS-SD allows", label)
	}
}

// TestWhatStrangersAnswer reads TXT records that anybody on the link may send.
func TestWhatStrangersAnswer(t *testing.T) {
	h := hosttest.New(t)
	d := New(h, "/opencloud", addrsOf(h), slog.New(slog.DiscardHandler))
	a, b := string(hosttest.PeerID(t)), string(hosttest.PeerID(t))
	var many []string
	for range 3 * maxAddrs {
		many = append(many, "dnsaddr=/ip4/192.0.2.1/tcp/"+strings.Repeat("1", 1+len(many)%4)+"/p2p/"+a)
	}
	for _, test := range []struct {
		name string
		text []string
		want map[string]string // the addresses of each
	}{
		{"one native", []string{"dnsaddr=/ip4/192.0.2.1/tcp/4101/p2p/" + a}, map[string]string{a: "/ip4/192.0.2.1/tcp/4101"}},
		{"two in one record", []string{"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/" + a, "dnsaddr=/ip4/192.0.2.2/tcp/2/p2p/" + b, "dnsaddr=/ip6/2001:db8::1/tcp/1/p2p/" + a},
			map[string]string{a: "/ip4/192.0.2.1/tcp/1 /ip6/2001:db8::1/tcp/1", b: "/ip4/192.0.2.2/tcp/2"}},
		{"this node itself", []string{"dnsaddr=/ip4/192.0.2.1/tcp/4101/p2p/" + h.ID().String()}, nil},
		{"no PeerID", []string{"dnsaddr=/ip4/192.0.2.1/tcp/4101"}, nil},
		{"no address", []string{"dnsaddr=/p2p/" + a}, nil},
		{"no multiaddr", []string{"dnsaddr=", "dnsaddr=x", "dnsaddr=/ip4/1", "", "x=y"}, nil},
		{"another name", []string{"addr=/ip4/192.0.2.1/tcp/4101/p2p/" + a, "/ip4/192.0.2.1/tcp/4101/p2p/" + a}, nil},
		{"what there is no transport for", []string{"dnsaddr=/ip4/192.0.2.1/udp/1/p2p/" + a, "dnsaddr=/ip4/0.0.0.0/tcp/1/p2p/" + a}, nil},
		{"good beside bad", []string{"x", "dnsaddr=/ip4/192.0.2.1/udp/1/p2p/" + a, "dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/" + a}, map[string]string{a: "/ip4/192.0.2.1/tcp/1"}},
		{"repetitions", many, map[string]string{a: "/ip4/192.0.2.1/tcp/1 /ip4/192.0.2.1/tcp/11 /ip4/192.0.2.1/tcp/111 /ip4/192.0.2.1/tcp/1111"}},
		{"nothing", nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := map[string]string{}
			for _, info := range d.read(test.text) {
				if addrs := d.dialable(info); len(addrs) > 0 {
					got[info.ID.String()] = strings.Join(addrs, " ")
				}
			}
			if len(got) != len(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			for id, addrs := range test.want {
				if got[id] != addrs {
					t.Errorf("%s is at %q, want %q", id, got[id], addrs)
				}
			}
		})
	}
}
