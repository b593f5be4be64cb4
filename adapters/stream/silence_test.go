package stream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports"
)

// path is a way to a host over TCP, which may die without a word: nothing comes over its
// connections any more, and they stay open. New connections are as good as ever.
type path struct {
	net.Listener
	mu    sync.Mutex
	ends  []net.Conn
	death chan struct{} // of the connections until now
}

func newPath(t *testing.T, to host.Host) *path {
	t.Helper()
	target, err := manet.ToNetAddr(to.Network().ListenAddresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &path{Listener: l, death: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			from, err := p.Accept()
			if err != nil {
				return
			}
			onward, err := net.Dial("tcp", target.String())
			if err != nil {
				_ = from.Close()
				continue
			}
			p.mu.Lock()
			p.ends = append(p.ends, from, onward)
			death := p.death
			p.mu.Unlock()
			running.Go(func() { carry(onward, from, death) })
			running.Go(func() { carry(from, onward, death) })
		}
	})
	t.Cleanup(func() {
		_ = p.Close()
		p.mu.Lock()
		for _, end := range p.ends {
			_ = end.Close()
		}
		p.mu.Unlock()
		running.Wait()
	})
	return p
}

// carry copies until death, and swallows after it.
func carry(to, from net.Conn, death <-chan struct{}) {
	bytes := make([]byte, 4096)
	for {
		n, err := from.Read(bytes)
		select {
		case <-death:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		_, _ = to.Write(bytes[:n])
	}
}

// die kills the connections until now.
func (p *path) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.death)
	p.death = make(chan struct{})
}

func (p *path) addr(t *testing.T) ma.Multiaddr {
	t.Helper()
	addr, err := manet.FromNetAddr(p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// A connection is open on paper for half a minute after its path died. A lease has seconds.
func TestAPathThatDiesWithoutAWordCostsARoundTrip(t *testing.T) {
	newHost := func() host.Host {
		h, err := libp2p.New(
			libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(),
			// There is no way around the path: nothing listens here.
			libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr {
				return []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}
			}),
		)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	native, indexer := newHost(), newHost()
	tr := newTransport(t, indexer)
	serve(t, newTransport(t, native), grant)
	way := newPath(t, native)
	n, err := tr.Native(idOf(native), []string{way.addr(t).String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := ports.WithPatience(t.Context(), 200*time.Millisecond)
	open := ports.WithOpenStream(ctx, t.Context())
	asks := func(ctx context.Context) func() error {
		return func() error {
			lease, err := register(ctx, indexer, n)
			if err == nil && lease != granted {
				t.Errorf("got %+v", lease)
			}
			return err
		}
	}
	for name, ask := range map[string]func() error{
		"a registration":                  asks(ctx),
		"a heartbeat over an open stream": asks(open),
		"a leave": func() error {
			err := n.Leave(ctx, idOf(indexer), nil)
			if refusal, ok := errors.AsType[*ports.Refusal](err); ok && refusal.Code == ports.CodeRefused {
				return nil // this native takes none, and says so
			}
			return err
		},
	} {
		if _, err := register(open, indexer, n); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		ended := n.Disconnected()
		way.die()
		began := time.Now()
		if err := ask(); err != nil {
			t.Errorf("%s over a dead path: %v", name, err)
		}
		if took := time.Since(began); took > unhurried/2 {
			t.Errorf("%s took %s", name, took)
		}
		select {
		case <-ended:
		case <-time.After(unhurried / 2):
			t.Errorf("after %s the dead connection is open", name)
		}
		if conns := indexer.Network().ConnsToPeer(native.ID()); len(conns) != 1 {
			t.Errorf("after %s there are %d connections, want the new one", name, len(conns))
		}
	}
}

// The deadline of the first wait: before, at and after it.
func TestHowLongAnOlderConnectionIsWaitedFor(t *testing.T) {
	const slack = 100 * time.Millisecond
	for _, c := range []struct {
		name            string
		patience, after time.Duration // of the wait; of the native's second answer
		asked           int
		fails           bool
	}{
		{"an answer in time", time.Second, time.Second - slack, 2, false},
		{"an answer too late", time.Second, time.Second + slack, 3, false},
		{"no patience given", 0, ports.ExchangeTimeout - slack, 2, false},
		{"no patience given, too late", 0, ports.ExchangeTimeout + slack, 3, false},
		{"more patience than there is", time.Hour, ports.ExchangeTimeout + slack, 3, false},
		{"silence of the new connection too", time.Second, time.Hour, 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
				var mu sync.Mutex
				asked := 0
				native.SetStreamHandler(ports.SubscribeProtocol, reading(func(s network.Stream) {
					mu.Lock()
					asked++
					nth := asked
					mu.Unlock()
					if nth == 2 || nth > 2 && c.fails {
						time.Sleep(min(c.after, time.Minute))
					}
					_, _ = io.WriteString(s, `{"OK":true,"TTLSeconds":66,"HeartbeatSeconds":60}`+"\n")
					_ = s.Close()
				}))
				n := remote(t, newTransport(t, indexer), native)
				if _, err := register(t.Context(), indexer, n); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				ctx, wait := t.Context(), ports.ExchangeTimeout
				if c.patience > 0 {
					ctx, wait = ports.WithPatience(ctx, c.patience), min(wait, c.patience)
				}
				began := time.Now()
				lease, err := register(ctx, indexer, n)
				took, most := time.Since(began), wait+slack
				if c.fails {
					most += ports.ExchangeTimeout
				}
				mu.Lock()
				defer mu.Unlock()
				if lease.Unconfirmed || (err != nil) != c.fails || asked != c.asked || took > most+slack {
					t.Errorf("got %+v and %v after %s and %d registrations, want %d in %s", lease, err, took, asked, c.asked, most)
				}
				time.Sleep(2 * time.Minute) // for the late answers
			})
		})
	}
}

// Silence of a native that offers look-ups is a failure, also when it has never answered. The next
// registration goes over another connection.
func TestSilenceOfANativeThatOffersMoreIsAnError(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
		native.SetStreamHandler(ports.LookupProtocol, func(network.Stream) {})
		native.SetStreamHandler(ports.SubscribeProtocol, reading(func(network.Stream) {}))
		n := remote(t, newTransport(t, indexer), native)
		began := time.Now()
		lease, err := register(t.Context(), indexer, n)
		if took := time.Since(began); err == nil || took > ports.ExchangeTimeout+time.Second {
			t.Errorf("got %+v and %v after %s, want an error after %s", lease, err, took, ports.ExchangeTimeout)
		}
		if _, refused := errors.AsType[*ports.Refusal](err); refused || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if errors.Is(err, ports.ErrNotOffered) {
			t.Errorf("got %v, and it is offered", err)
		}
		if conns := indexer.Network().ConnsToPeer(native.ID()); len(conns) != 0 {
			t.Errorf("%d connections are left, want none", len(conns))
		}
	})
}

// The operator of a native goes back to the seed. Its silence is no failure then: it never answers.
func TestANativeThatGoesBackToTheSeedIsSilentRightly(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
		var answers atomic.Bool
		answers.Store(true)
		native.SetStreamHandler(ports.SubscribeProtocol, reading(func(s network.Stream) {
			if answers.Load() {
				_, _ = io.WriteString(s, `{"OK":true,"TTLSeconds":66,"HeartbeatSeconds":60}`+"\n")
				_ = s.Close()
			}
		}))
		n := remote(t, newTransport(t, indexer), native)
		if lease, err := register(t.Context(), indexer, n); err != nil || lease.Unconfirmed {
			t.Fatalf("got %+v and %v", lease, err)
		}
		answers.Store(false)
		if _, err := register(t.Context(), indexer, n); err == nil {
			t.Error("the same version is silent, and that is no failure")
		}
		if err := indexer.Connect(t.Context(), peer.AddrInfo{ID: native.ID(), Addrs: native.Addrs()}); err != nil {
			t.Fatal(err)
		}
		if err := indexer.Peerstore().Put(native.ID(), "AgentVersion", "seed/1.0"); err != nil { // as identify has it
			t.Fatal(err)
		}
		if lease, err := register(t.Context(), indexer, n); err != nil || !lease.Unconfirmed {
			t.Errorf("got %+v and %v, want a lease that is not confirmed", lease, err)
		}
	})
}
