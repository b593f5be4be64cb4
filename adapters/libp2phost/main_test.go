package libp2phost

import (
	"bytes"
	"context"
	"crypto/rand"
	"flag"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // unless it is given: those that are parallel wait for time to pass
	goleak.VerifyTestMain(hosttest.Settled{M: m})
}

const loopbackTCP, loopbackQUIC = "/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"

// ownTCP and ownQUIC are for ports that are let go and come back, or must stay free.
var ownTCP, ownQUIC = "/ip4/" + hosttest.Loopback + "/tcp/0", "/ip4/" + hosttest.Loopback + "/udp/0/quic-v1"

// testLimits are those of a small server, whatever machine the tests run on.
var testLimits = LimitsFor(8<<30, 16384)

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newHost makes a host that listens on addrs and is closed with the test.
func newHost(t testing.TB, key crypto.PrivKey, addrs ...string) host.Host {
	t.Helper()
	h, err := New(Config{Key: key, UserAgent: "ocnode/test", Limits: testLimits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if _, err := Listen(h, addrs, false); err != nil {
		t.Fatal(err)
	}
	return h
}

// fullAddrs returns h's addresses with its identity.
func fullAddrs(h host.Host) []string {
	var addrs []string
	for _, addr := range h.Addrs() {
		addrs = append(addrs, addr.String()+"/p2p/"+h.ID().String())
	}
	return addrs
}

func connected(a, b host.Host) bool {
	return a.Network().Connectedness(b.ID()) == network.Connected
}

func infoOf(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// logged collects a log.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// count returns how many lines hold all of parts.
func (l *logged) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
line:
	for line := range strings.Lines(l.text.String()) {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue line
			}
		}
		n++
	}
	return n
}

// join runs a Joiner on h until stop or the end of the test.
func join(t testing.TB, h host.Host, cfg JoinerConfig) (stop func()) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	j, err := NewJoiner(h, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, j)
}

// run is join for a Joiner that is made.
func run(t testing.TB, j *Joiner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}
