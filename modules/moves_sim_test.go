package modules_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports/porttest"
)

// machine is a machine that moves: its interfaces have other addresses after a set.
type machine struct {
	locals atomic.Pointer[[]libp2phost.Local]
}

// set gives the machine loopback, a bridge for containers and these addresses.
func (m *machine) set(ips ...string) {
	locals := []libp2phost.Local{
		{IP: netip.MustParseAddr("127.0.0.1"), Interface: "lo"},
		{IP: netip.MustParseAddr("172.17.0.1"), Interface: "docker0", Kind: libp2phost.Bridge},
	}
	for _, ip := range ips {
		locals = append(locals, libp2phost.Local{IP: netip.MustParseAddr(ip), Interface: "eth0", Outward: true})
	}
	m.locals.Store(&locals)
}

func (m *machine) interfaces() ([]libp2phost.Local, error) { return *m.locals.Load(), nil }

// everywhere reports whether all natives list an indexer, with one address first and another not at
// all.
func everywhere(natives []*member, x *member, want, never string) bool {
	for _, n := range natives {
		e, ok := n.node.Registry().Get(x.node.PeerID())
		if !ok || !strings.Contains(e.Addr, want) || slices.ContainsFunc(e.Addrs, func(a string) bool { return strings.Contains(a, never) }) {
			return false
		}
	}
	return true
}

// The roamer's packets go by an address of the simulated network, and it listens on all addresses
// of a machine that moves.
func TestSimANewAddressIsListedEverywhereWithinFiveSecondsAndTheOldNowhere(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		natives := s.natives(3, modules.Environment{})
		var place machine
		x := s.member("roamer", map[string]string{
			"modules": "indexer", "indexer.natives": natives[0].addr() + "," + natives[1].addr(),
			"host.listen": "/ip4/0.0.0.0/udp/4102/quic-v1",
		})
		x.env.Interfaces = place.interfaces
		place.set() // its network is not there yet
		x.start()
		const slack = 100 * time.Millisecond
		listed := false
		settled := func(want, never string) {
			t.Helper()
			if took, ok := until(5*time.Second, func() bool {
				for _, n := range natives {
					if listed && !n.lists(x) {
						t.Fatalf("on its way to %s it is listed by %s no more", want, n.name)
					}
				}
				return everywhere(natives, x, want, never)
			}); !ok {
				for _, n := range natives {
					e, _ := n.node.Registry().Get(x.node.PeerID())
					t.Errorf("%v after the change %s lists %v, want %s first and %s nowhere", took, n.name, e.Addrs, want, never)
				}
			} else {
				t.Logf("%s is listed everywhere after %v, and the indexer was never missing", want, took)
			}
			listed = true
			for range porttest.Scale(700, 200) {
				time.Sleep(slack)
				if !everywhere(natives, x, want, never) {
					t.Fatalf("%s is not first any more, or %s is back", want, never)
				}
			}
		}
		settled("172.17.0.1", "nothing")
		place.set("10.0.0.5")
		settled("10.0.0.5", "127.0.0.1")
		place.set("10.0.0.6")
		settled("10.0.0.6", "10.0.0.5")
		place.set("10.0.0.5", "10.0.0.6")
		settled("10.0.0.5", "nothing")
		stopAll([]*member{x}, natives)
	})
}
