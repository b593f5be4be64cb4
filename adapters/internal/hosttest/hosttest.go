// Package hosttest makes libp2p hosts for the tests of adapters: real ones on
// loopback, and simulated ones for a testing/synctest bubble.
package hosttest

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	coretest "github.com/libp2p/go-libp2p/core/test"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// latency of a simulated network, one way.
const latency = 10 * time.Millisecond

// Loopback is an IPv4 address of loopback: where all of 127.0.0.0/8 is, one that no other
// process binds. A port that a test has let go is still free there, as the system gives none
// of that address to somebody else meanwhile.
var Loopback = loopback(os.Getpid())

func loopback(pid int) string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return net.IPv4(127, 64|byte(pid>>16)&63, byte(pid>>8), byte(pid)).String() // a PID has 22 bits
}

// Settled runs the tests of m, and then waits until their goroutines have ended, for which
// goleak alone gives them half a second.
type Settled struct{ *testing.M }

// Run implements goleak.TestingM.
func (s Settled) Run() (code int) {
	code = s.M.Run()
	for give := time.Now().Add(porttest.Patience); code == 0 && goleak.Find() != nil && time.Now().Before(give); {
	}
	return code
}

// New returns a host that listens on a free TCP port of loopback, without limits.
// It is closed when the test ends.
func New(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableMetrics(),
		libp2p.DisableRelay(),
		libp2p.WithDialTimeout(porttest.Patience),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(porttest.Patience)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// Simulate returns n hosts of a simulated network, for a bubble. They are closed when
// the test ends.
func Simulate(t testing.TB, n int) []host.Host {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	sim, made, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{
		{LinkSettings: simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}, Count: n},
	}, simnet.StaticLatency(latency), simlibp2p.NetworkSettings{})
	if err != nil {
		t.Fatal(err)
	}
	sim.Start()
	t.Cleanup(sim.Close)
	for _, h := range made.Nodes {
		t.Cleanup(func() { _ = h.Close() })
	}
	return made.Nodes
}

// Connect connects from to to.
func Connect(t testing.TB, from, to host.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), porttest.Patience)
	defer cancel()
	if err := from.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// PeerID returns a random PeerID, which nobody has.
func PeerID(t testing.TB) ports.PeerID {
	t.Helper()
	id, err := coretest.RandPeerID()
	if err != nil {
		t.Fatal(err)
	}
	return ports.PeerID(id.String())
}
