package libp2phost

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// cuttable makes a simulated network that delivers no packet that is sent while cut is true.
func cuttable(t *testing.T) (sim *simnet.Simnet, cut *atomic.Bool) {
	t.Helper()
	const never = 10 * time.Hour
	cut = new(atomic.Bool)
	sim = &simnet.Simnet{LatencyFunc: func(*simnet.Packet) time.Duration {
		if cut.Load() {
			return never
		}
		return 10 * time.Millisecond
	}}
	sim.Start()
	t.Cleanup(sim.Close)
	return sim, cut
}

// simulated makes a host in a simulated network, with the product's own options.
func simulated(t *testing.T, sim *simnet.Simnet, ip string) host.Host {
	t.Helper()
	return simulatedWith(t, sim, ip, nil)
}

// simulatedWith is simulated with addresses of its own, at more places than ip.
func simulatedWith(t *testing.T, sim *simnet.Simnet, ip string, addresses *Addresses, listen ...string) host.Host {
	t.Helper()
	link := simnet.LinkSettings{BitsPerSecond: 20_000_000}
	reuse := []quicreuse.Option{
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return sourceIP(net.ParseIP(ip)), nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			return sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}), nil
		}),
	}
	var manager *quicreuse.ConnManager
	h, err := New(Config{Key: newKey(t), Limits: testLimits, Addresses: addresses}, libp2p.QUICReuse(func(reset quic.StatelessResetKey, token quic.TokenGeneratorKey) (_ *quicreuse.ConnManager, err error) {
		manager, err = quicreuse.NewConnManager(reset, token, reuse...)
		return manager, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); manager.Close() })
	if _, err := Listen(h, append([]string{"/ip4/" + ip + "/udp/4101/quic-v1"}, listen...), false); err != nil {
		t.Fatal(err)
	}
	return h
}

type sourceIP net.IP

func (ip sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.IP(ip), nil
}

// A cut of an hour less a minute: longer than the peerstore keeps addresses, and than
// any back-off; a minute short of being forgotten.
func TestJoinerHealsALongCutInFakeTime(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim, cut := cuttable(t)
		bootstrap, met, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2"), simulated(t, sim, "1.0.0.3")
		met.SetStreamHandler(ports.SubscribeProtocol, func(s network.Stream) { s.Close() })
		log := new(logged)
		stop := join(t, h, JoinerConfig{Bootstrap: fullAddrs(bootstrap), Natives: nativeProtocols, Log: log.logger()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Connect(ctx, infoOf(met)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !connected(h, bootstrap) || !connected(h, met) {
			t.Fatal("not connected")
		}

		cut.Store(true)
		time.Sleep(redialFor - time.Minute)
		cut.Store(false)
		time.Sleep(2 * time.Second)
		if !connected(h, bootstrap) || !connected(h, met) {
			t.Errorf("2 s after a cut of half an hour connected with bootstrap %v, with the one met %v", connected(h, bootstrap), connected(h, met))
		}

		cut.Store(true)
		time.Sleep(forgetAfter - time.Minute)
		if connected(h, bootstrap) || connected(h, met) {
			t.Fatal("the cut is none")
		}
		if n := log.count("level=WARN"); n != 2 {
			t.Errorf("%d warnings, want one for each cut", n)
		}
		cut.Store(false)
		time.Sleep(retryMax + DefaultTimeout)
		if !connected(h, bootstrap) || !connected(h, met) {
			t.Errorf("after the cut connected with bootstrap %v, with the one met %v", connected(h, bootstrap), connected(h, met))
		}

		cut.Store(true)
		time.Sleep(forgetAfter + time.Minute)
		cut.Store(false)
		time.Sleep(time.Minute)
		if !connected(h, bootstrap) {
			t.Error("a configured peer was forgotten")
		}
		if connected(h, met) || h.ConnManager().IsProtected(met.ID(), protectTag) {
			t.Error("a native that was gone for an hour is still remembered")
		}
		stop()
	})
}

// dialling is a host whose dials fail as dial says.
type dialling struct {
	host.Host
	dial func() error
}

func (d dialling) Connect(ctx context.Context, info peer.AddrInfo) error {
	if err := d.dial(); err != nil {
		return err
	}
	return d.Host.Connect(ctx, info)
}

// While a lost peer is silent it is dialled again within redialPause, in whatever words a layer says that
// no answer came. Once it answers that it is closed, as while it starts, the pauses begin with the shortest.
func TestALostPeerIsDialledOftenHoweverItsSilenceIsTold(t *testing.T) {
	for name, silence := range map[string]error{
		"a context":           context.DeadlineExceeded,
		"a socket":            &net.OpError{Op: "dial", Net: "tcp4", Err: os.ErrDeadlineExceeded},
		"a dial of the swarm": &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: []swarm.TransportError{{Cause: &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}}}},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
				sim.Start()
				t.Cleanup(sim.Close)
				native, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
				var mu sync.Mutex
				var answer error
				var dials []time.Time
				become := func(err error) (before []time.Time) {
					mu.Lock()
					defer mu.Unlock()
					before, dials, answer = dials, nil, err
					return before
				}
				stop := join(t, dialling{h, func() error {
					mu.Lock()
					defer mu.Unlock()
					dials = append(dials, time.Now())
					return answer
				}}, JoinerConfig{Bootstrap: fullAddrs(native)})
				time.Sleep(time.Minute)
				if !connected(h, native) {
					t.Fatal("not connected")
				}
				become(silence)
				if err := h.Network().ClosePeer(native.ID()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				silent := become(syscall.ECONNREFUSED)
				for i := 1; i < len(silent); i++ {
					if pause := silent[i].Sub(silent[i-1]); pause > redialPause {
						t.Fatalf("a pause of %v after %d dials, want %v at most", pause, i, redialPause)
					}
				}
				if len(silent) < 200 {
					t.Errorf("dialled %d times in a minute", len(silent))
				}
				time.Sleep(20 * time.Second)
				refused := become(nil)
				if pause := refused[1].Sub(refused[0]); pause > retryMin {
					t.Errorf("dialled again %v after its first answer, want %v at most", pause, retryMin)
				}
				if n := len(refused); n > 10 {
					t.Errorf("a peer that refuses is dialled %d times in 20 s", n)
				}
				time.Sleep(retryMax)
				if !connected(h, native) {
					t.Error("not connected again")
				}
				stop()
			})
		})
	}
}

// A dial that began in a cut, and succeeds after it, says nothing of how long dials take.
func TestADialThatBeganInACutIsNoMeasure(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim, cut := cuttable(t)
		native, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		j, err := NewJoiner(h, JoinerConfig{Bootstrap: fullAddrs(native), Log: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		took := func() time.Duration {
			now := make(chan time.Duration)
			j.done <- func() { now <- j.targets[native.ID()].took }
			return <-now
		}
		stop := run(t, j)
		time.Sleep(time.Minute)
		before := took()
		for i := range 12 {
			cut.Store(true)
			_, _ = h.Network().ClosePeer(native.ID()), native.Network().ClosePeer(h.ID())
			time.Sleep(5*time.Second + time.Duration(i)*137*time.Millisecond)
			cut.Store(false)
			time.Sleep(time.Minute)
			if took := took(); !connected(h, native) || took > 2*before {
				t.Errorf("connected %v; after cut %d a dial is said to take %v, before %v", connected(h, native), i, took, before)
			}
		}
		stop()
	})
}

func TestJoinerDoesNotHammerAPeerThatHangsUp(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		sim.Start()
		t.Cleanup(sim.Close)
		rude, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		var hungUp atomic.Int64
		rude.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
			hungUp.Add(1)
			c.Close()
		}})
		stop := join(t, h, JoinerConfig{Bootstrap: fullAddrs(rude)})
		time.Sleep(5 * time.Minute)
		stop()
		// 1, 2, 4 s, then retryMax, each down to the half.
		if n, least := hungUp.Load(), int64(5*time.Minute/retryMax); n < least || n > 2*least+5 {
			t.Errorf("dialled %d times in five minutes", n)
		}
	})
}

func TestJoinerEndsWhileDialling(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Hour)} // the handshake hangs
		sim.Start()
		t.Cleanup(sim.Close)
		native, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		stop := join(t, h, JoinerConfig{Bootstrap: fullAddrs(native)})
		time.Sleep(timeoutsOf(0).addr / 2)
		start := time.Now()
		stop()
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

func TestJoinerDialsAtOnceWhenASteadyConnectionIsLost(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim := &simnet.Simnet{LatencyFunc: simnet.StaticLatency(10 * time.Millisecond)}
		sim.Start()
		t.Cleanup(sim.Close)
		native, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		stop := join(t, h, JoinerConfig{Bootstrap: fullAddrs(native)})
		time.Sleep(2 * steadyAfter)
		if err := native.Network().ClosePeer(h.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Millisecond) // one way
		if connected(h, native) {
			t.Fatal("the connection was not lost")
		}
		time.Sleep(200 * time.Millisecond) // a few round trips
		if !connected(h, native) {
			t.Error("not connected again")
		}
		stop()
	})
}

func TestAfterAMoveAPeerIsDialledAtOnce(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		sim, cut := cuttable(t)
		bootstrap, h := simulated(t, sim, "1.0.0.1"), simulated(t, sim, "1.0.0.2")
		cut.Store(true)
		log := new(logged)
		j, err := NewJoiner(h, JoinerConfig{Bootstrap: fullAddrs(bootstrap), Log: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- j.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		for i := range 8 { // while it dials, and between
			time.Sleep(30*time.Second + time.Duration(i)*700*time.Millisecond)
			cut.Store(false)
			j.Moved()
			time.Sleep(200 * time.Millisecond)
			if !connected(h, bootstrap) {
				t.Fatalf("move %d: not connected within ten round trips", i)
			}
			cut.Store(true)
			for _, c := range h.Network().ConnsToPeer(bootstrap.ID()) {
				_ = c.Close()
			}
		}
		if log.count("WARN", "context canceled") != 0 {
			t.Error("an attempt that was given up is complained of")
		}
	})
}
