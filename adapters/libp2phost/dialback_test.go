package libp2phost

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTheWayBackProvesWhoIsThere(t *testing.T) {
	native, indexer, other := newHost(t, newKey(t), loopbackTCP), newHost(t, newKey(t), loopbackTCP, loopbackQUIC), newHost(t, newKey(t), loopbackTCP)
	ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
	defer cancel()
	// There is a connection already, by the other way, and it must not count.
	if err := indexer.Connect(ctx, infoOf(native)); err != nil {
		t.Fatal(err)
	}
	back, err := NewWayBack(native)
	if err != nil {
		t.Fatal(err)
	}
	id := ports.PeerID(indexer.ID().String())
	for _, addr := range fullAddrs(indexer) {
		if err := back.Dial(ctx, id, addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	gone := newHost(t, newKey(t), ownTCP)
	nowhere := gone.Addrs()[0].String()
	gone.Close()
	for name, addr := range map[string]string{
		"another's address": other.Addrs()[0].String(),
		"nobody's address":  nowhere,
		"no transport":      "/ip4/127.0.0.1/udp/1",
		"a name":            "/dns4/localhost/tcp/1",
		"no address":        "nonsense",
	} {
		if err := back.Dial(ctx, id, addr); err == nil {
			t.Errorf("%s: %s is taken for the indexer's", name, addr)
		}
	}
	if err := back.Dial(ctx, "nonsense", indexer.Addrs()[0].String()); err == nil {
		t.Error("who is no PeerID answers")
	}
	porttest.Eventually(t, "no connection is left of it", func() bool {
		return len(native.Network().ConnsToPeer(indexer.ID())) == 1 && len(indexer.Network().ConnsToPeer(native.ID())) == 1 && !connected(native, other)
	})
}

func TestTheWayBackResolvesNames(t *testing.T) {
	back, err := NewWayBack(newHost(t, newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"/dns4/localhost/tcp/1": "/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1": "/ip4/192.0.2.1/tcp/1"} {
		if got, err := back.Resolve(t.Context(), addr); err != nil || !slices.Contains(got, want) {
			t.Errorf("%s is %v, %v", addr, got, err)
		}
	}
	if got, err := back.Resolve(t.Context(), "nonsense"); err == nil {
		t.Errorf("nonsense is %v", got)
	}
}

func TestWhoHoldsALeaseIsClosedLastToMakeRoom(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) { // connGrace is long
		limits := Limits{Conns: 8, Memory: MinMemory}
		h, err := New(Config{Key: newKey(t), Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		manager := h.ConnManager().(*watchedConns)
		var conns []*idleConn
		for range limits.highWater() + 1 {
			id, err := peer.IDFromPublicKey(newKey(t).GetPublic())
			if err != nil {
				t.Fatal(err)
			}
			c := &idleConn{id: id}
			c.closed = func() { manager.Notifee().Disconnected(nil, c) }
			conns = append(conns, c)
		}
		leased := conns[:limits.lowWater()]
		for _, c := range conns {
			manager.Notifee().Connected(nil, c)
		}
		for _, c := range leased {
			Keep(h, ports.PeerID(c.id.String()), true)
		}
		Keep(h, "nonsense", true)
		time.Sleep(2 * connGrace)
		synctest.Wait()
		for i, c := range conns {
			if closed := c.code.Load() != 0; closed != (i >= len(leased)) {
				t.Errorf("connection %d is closed: %v; the first %d hold a lease", i, closed, len(leased))
			}
		}
		Keep(h, ports.PeerID(leased[0].id.String()), false)
		if manager.GetTagInfo(leased[0].id).Value != 0 || manager.GetTagInfo(leased[1].id).Value == 0 {
			t.Error("it is kept for longer than it holds a lease, or another is not any more")
		}
	})
}

func TestTheWayBackKnowsItsRoutes(t *testing.T) {
	back, err := NewWayBack(newHost(t, newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	if !back.Routes(netip.MustParseAddr("127.0.0.1")) {
		t.Error("there is no route to loopback")
	}
	for _, c := range []struct {
		err  error
		none bool
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, true},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EAFNOSUPPORT)}, true},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)}, true},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, false},
		{errors.New("something else"), false},
	} {
		if got := unrouted(c.err); got != c.none {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
