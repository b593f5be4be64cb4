package libp2phost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/marcopolo/simnet"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// machine is a machine that moves.
type machine struct {
	mu     sync.Mutex
	locals []Local
	err    error
	reads  int
}

func (m *machine) interfaces() ([]Local, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return slices.Clone(m.locals), m.err
}

func (m *machine) set(locals ...Local) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locals = locals
}

func (m *machine) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// roaming is a host of a simulated network, at its own address and at all of a machine's.
type roaming struct {
	*machine
	*Addresses
	host.Host
	own Local

	toldMu sync.Mutex
	told   []time.Time // of moves
}

func (r *roaming) moves() []time.Time {
	r.toldMu.Lock()
	defer r.toldMu.Unlock()
	return slices.Clone(r.told)
}

// roam runs f with a host at 1.0.0.1, whose addresses are watched.
func roam(t *testing.T, f func(t *testing.T, r *roaming, sim *simnet.Simnet)) {
	t.Helper()
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		sim.Start()
		t.Cleanup(sim.Close)
		r := &roaming{machine: &machine{}, own: at("sim0", "1.0.0.1")}
		r.set(lo4, r.own, at("eth0", "8.1.1.5", "outward"))
		r.Addresses = NewAddresses(nil, r.machine.interfaces, nil)
		r.Addresses.Moved(func() {
			r.toldMu.Lock()
			defer r.toldMu.Unlock()
			r.told = append(r.told, time.Now())
		})
		r.Host = simulatedWith(t, sim, "1.0.0.1", r.Addresses, "/ip4/0.0.0.0/udp/4102/quic-v1")
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- r.Watch(ctx, r.Network().Conns) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Watch: %v", err)
			}
		})
		synctest.Wait()
		f(t, r, sim)
	})
}

func TestAChangeIsToldASecondOrTwoLaterAndOnce(t *testing.T) {
	roam(t, func(t *testing.T, r *roaming, sim *simnet.Simnet) {
		other := simulated(t, sim, "1.0.0.2")
		if err := other.Connect(t.Context(), infoOf(r.Host)); err != nil {
			t.Fatal(err)
		}
		told, err := r.EventBus().Subscribe(new(event.EvtLocalAddressesUpdated))
		if err != nil {
			t.Fatal(err)
		}
		defer told.Close()
		<-told.Out() // as it is
		time.Sleep(10 * time.Second)
		if moves := r.moves(); len(moves) > 1 { // it is connected now
			t.Fatalf("told of %d moves, and nothing has moved", len(moves))
		}
		before := len(r.moves())

		began := time.Now()
		r.set(lo4, r.own, at("eth0", "8.7.7.7", "outward"))
		time.Sleep(100 * time.Millisecond)
		r.set(lo4, r.own, at("eth0", "8.7.7.7", "outward"), at("eth0", "2a00:7::7"))
		want := "/ip4/8.7.7.7/udp/4102/quic-v1"
		if got := r.Registration(nil); !slices.Contains(got, want) {
			t.Errorf("a registration reads the interfaces: %v", got)
		}
		<-told.Out()
		if took := time.Since(began); took > 2*time.Second+100*time.Millisecond {
			t.Errorf("peers are told after %v", took)
		}
		time.Sleep(10 * time.Second)
		if moves := r.moves()[before:]; len(moves) != 1 || moves[0].Sub(began) > 2*time.Second {
			t.Errorf("told of moves at %v, want one within two seconds of %v", moves, began)
		}
		for _, addr := range other.Peerstore().Addrs(r.ID()) {
			if ipAt(addr).String() == "8.1.1.5" {
				t.Errorf("a peer still has the old address: %v", other.Peerstore().Addrs(r.ID()))
			}
		}
		if got := other.Peerstore().Addrs(r.ID()); !slices.ContainsFunc(got, func(m ma.Multiaddr) bool { return m.String() == want }) {
			t.Errorf("a peer was not told the new address: %v", got)
		}
		if all := r.All(); all[0] != "/ip4/1.0.0.1/udp/4101/quic-v1/p2p/"+r.ID().String() || !slices.Contains(all, want+"/p2p/"+r.ID().String()) {
			t.Errorf("all of them: %v", all)
		}
	})
}

func TestAMachineThatNeverRestsTellsOfItEverySecondLook(t *testing.T) {
	roam(t, func(t *testing.T, r *roaming, _ *simnet.Simnet) {
		time.Sleep(lookEvery / 2)
		for i := range 60 {
			r.set(lo4, r.own, at("eth0", fmt.Sprintf("8.8.1.%d", i)))
			time.Sleep(time.Second)
		}
		if n := len(r.moves()); n < 29 || n > 31 {
			t.Errorf("told of %d moves in a minute, want one in two seconds", n)
		}
	})
}

func TestAConnectionEndsAtOnceWithItsLocalAddressAndNoOtherDoes(t *testing.T) {
	roam(t, func(t *testing.T, r *roaming, sim *simnet.Simnet) {
		other := simulated(t, sim, "1.0.0.2")
		connect := func() {
			t.Helper()
			r.Peerstore().AddAddrs(other.ID(), other.Addrs(), peerstore.PermanentAddrTTL)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := r.Connect(ctx, infoOf(other)); err != nil {
				t.Fatal(err)
			}
		}
		connect()
		time.Sleep(5 * time.Second)
		for _, step := range []struct {
			name   string
			change func()
			ends   bool
		}{
			{"another address goes", func() { r.set(lo4, r.own) }, false},
			{"another address comes", func() { r.set(lo4, r.own, lan4, lan6) }, false},
			{"the interfaces cannot be read", func() { r.set(lo4); r.fail(errors.New("out of files")) }, false},
			{"they can again", func() { r.set(lo4, r.own, lan4); r.fail(nil) }, false},
			{"its own address goes", func() { r.set(lo4, lan4) }, true},
			{"its own address comes back", func() { r.set(lo4, r.own, lan4); connect() }, false},
		} {
			step.change()
			time.Sleep(lookEvery + time.Millisecond)
			if got := !connected(r.Host, other); got != step.ends {
				t.Errorf("%s: the connection has ended: %t", step.name, got)
			}
		}
	})
}

// localConn is a connection from this machine.
type localConn struct {
	network.Conn
	from string
}

func TestARegistrationHasTheAddressesThatOthersReach(t *testing.T) {
	var bridges []Local
	for i := range 9 {
		bridges = append(bridges, at(fmt.Sprintf("br-%d", i), fmt.Sprintf("172.%d.0.1", 17+i), "bridge"))
	}
	for _, test := range []struct {
		name      string
		announced []string
		locals    []Local
		over      string
		want      []string // of the first
		without   string
	}{
		{"among nine bridges", nil, append(bridges, lo4, lan4), "", []string{"/ip4/192.168.1.5/tcp/4101"}, "127.0.0.1"},
		{"over a VPN", nil, []Local{lo4, lan4, vpn}, "10.8.0.2", []string{"/ip4/10.8.0.2/tcp/4101", "/ip4/192.168.1.5/tcp/4101"}, "127.0.0.1"},
		{"over loopback", nil, []Local{lo4, lan4}, "127.0.0.1", []string{"/ip4/192.168.1.5/tcp/4101", "/ip4/127.0.0.1/tcp/4101"}, ""},
		{"over nothing yet", nil, []Local{lo4, lan4}, "", []string{"/ip4/192.168.1.5/tcp/4101"}, "127.0.0.1"},
		{"without a network", nil, []Local{lo4}, "", []string{"/ip4/127.0.0.1/tcp/4101"}, ""},
		{"as announced", []string{"/dns4/here.example/tcp/1"}, []Local{lo4, lan4}, "192.168.1.5", []string{"/dns4/here.example/tcp/1"}, "192.168.1.5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := NewAddresses(test.announced, (&machine{locals: test.locals}).interfaces, nil)
			a.bind(listening{addrs: []string{"/ip4/0.0.0.0/tcp/4101"}})
			var conns []network.Conn
			if test.over != "" {
				conns = append(conns, localConn{from: test.over})
			}
			got := a.Registration(conns)
			if len(got) < len(test.want) || len(got) > ports.MaxAddrs || !slices.Equal(got[:len(test.want)], test.want) {
				t.Errorf("got %v, want %v first", got, test.want)
			}
			if bound := a.Bound(); len(test.announced) == 0 && !slices.Equal(bound, got) {
				t.Errorf("peers on the link are told %v, and natives %v", bound, got)
			}
			if slices.Contains(got, "/ip4/"+test.without+"/tcp/4101") {
				t.Errorf("got %v, want none of %s", got, test.without)
			}
		})
	}
}

// A native that comes and goes moves nothing.
func TestTheOrderOutlastsTheConnectionsThatMadeIt(t *testing.T) {
	m := &machine{locals: []Local{lo4, lan4, vpn}}
	a := NewAddresses(nil, m.interfaces, nil)
	a.bind(listening{addrs: []string{"/ip4/0.0.0.0/tcp/4101"}})
	for _, step := range []struct {
		name   string
		locals []Local
		over   []network.Conn
		first  string
	}{
		{"before it registers", m.locals, nil, "192.168.1.5"},
		{"over a VPN", m.locals, []network.Conn{localConn{from: "10.8.0.2"}}, "10.8.0.2"},
		{"its native is lost", m.locals, nil, "10.8.0.2"},
		{"the VPN ends", []Local{lo4, lan4}, nil, "192.168.1.5"},
		{"the VPN is back", m.locals, nil, "192.168.1.5"},
		{"over the VPN again", m.locals, []network.Conn{localConn{from: "10.8.0.2"}}, "10.8.0.2"},
		{"over the LAN alone", m.locals, []network.Conn{localConn{from: "192.168.1.5"}}, "192.168.1.5"},
	} {
		m.set(step.locals...)
		if got := a.Registration(step.over); got[0] != "/ip4/"+step.first+"/tcp/4101" {
			t.Errorf("%s: got %v, want %s first", step.name, got, step.first)
		}
	}
}

func (c localConn) LocalMultiaddr() ma.Multiaddr {
	return ma.StringCast("/ip4/" + c.from + "/tcp/50000")
}

// listening is a host that listens on addresses, and does nothing else.
type listening struct {
	host.Host
	addrs []string
}

type listeningNetwork struct {
	network.Network
	addrs []string
}

func (l listening) Network() network.Network { return listeningNetwork{addrs: l.addrs} }

func (n listeningNetwork) ListenAddresses() (addrs []ma.Multiaddr) {
	for _, addr := range n.addrs {
		addrs = append(addrs, ma.StringCast(addr))
	}
	return addrs
}

func TestWhatTheSystemTellsOfItsInterfaces(t *testing.T) {
	locals, err := ReadInterfaces()
	if err != nil {
		t.Fatal(err)
	}
	known, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range locals {
		if !slices.ContainsFunc(known, func(a net.Addr) bool { return strings.HasPrefix(a.String(), l.IP.String()+"/") }) {
			t.Errorf("%v is not among %v", l, known)
		}
		if l.Outward && l.IP.IsLoopback() {
			t.Errorf("%v leads to the outside", l)
		}
	}
	if source := sourceTo(lo4.IP); source.IsValid() && source != lo4.IP {
		t.Errorf("packets to loopback come from %v", source)
	}
}
