package stream_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(hosttest.Settled{M: m}) }

var log = slog.New(slog.DiscardHandler)

// unhurried bounds an exchange over real sockets, on a machine that may stall.
const unhurried = porttest.Patience

// overTCPAndQUIC runs a test over both: they differ in the fate of bytes in flight when a stream
// ends.
func overTCPAndQUIC(t *testing.T, test func(t *testing.T, newHost func(...libp2p.Option) host.Host)) {
	for name, opts := range map[string]libp2p.Option{
		"tcp":  libp2p.ChainOptions(libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0")),
		"quic": libp2p.ChainOptions(libp2p.Transport(quic.NewTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1")),
	} {
		t.Run(name, func(t *testing.T) {
			test(t, func(more ...libp2p.Option) host.Host {
				h, err := libp2p.New(append([]libp2p.Option{
					opts, libp2p.DisableRelay(),
					libp2p.WithDialTimeout(unhurried), libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(unhurried)),
				}, more...)...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Close() })
				return h
			})
		})
	}
}

// inFakeTime runs a test with two hosts in fake time.
func inFakeTime(t *testing.T, test func(t *testing.T, native, indexer host.Host)) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 2)
		test(t, hosts[0], hosts[1])
	})
}

// newTransport returns a Transport over h, with the product's time-out in fake time only.
func newTransport(t *testing.T, h host.Host) *stream.Transport {
	t.Helper()
	tr, _ := observed(t, h)
	return tr
}

// observed returns a Transport over h and its observer.
func observed(t *testing.T, h host.Host) (*stream.Transport, *porttest.Recorder) {
	t.Helper()
	seen := &porttest.Recorder{}
	tr, err := stream.New(h, seen, log)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(addrsOf(h)[0], "/ip4/127.") {
		tr.SetTimeout(unhurried)
	}
	t.Cleanup(tr.Close)
	return tr, seen
}

var granted = ports.Lease{TTL: 66 * time.Second, Heartbeat: time.Minute}

var grant = porttest.Native{OnRegister: func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) { return granted, nil }}

func serve(t *testing.T, tr *stream.Transport, n ports.Native) (stop func()) {
	t.Helper()
	stop, err := tr.Serve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

// remote returns the native on h as tr sees it.
func remote(t *testing.T, tr *stream.Transport, h host.Host) ports.RemoteNative {
	t.Helper()
	n, err := tr.Native(idOf(h), addrsOf(h))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func idOf(h host.Host) ports.PeerID { return ports.PeerID(h.ID().String()) }

func addrsOf(h host.Host) (addrs []string) {
	for _, a := range h.Addrs() {
		addrs = append(addrs, a.String())
	}
	return addrs
}

func register(ctx context.Context, h host.Host, n ports.Native) (ports.Lease, error) {
	return n.Register(ctx, idOf(h), ports.Registration{PeerID: idOf(h), Addr: "/ip4/127.0.0.1/tcp/4001"})
}

func plainFrame(h host.Host) string {
	return fmt.Sprintf(`{"PeerID":%q,"Addr":"/ip4/127.0.0.1/tcp/4001"}`+"\n", h.ID())
}

// open opens a bare stream for a registration from one host to another.
func open(t *testing.T, from, to host.Host) network.Stream {
	t.Helper()
	return openFor(t, from, to, stream.Protocol)
}

func openFor(t *testing.T, from, to host.Host, p protocol.ID) network.Stream {
	t.Helper()
	hosttest.Connect(t, from, to)
	s, err := from.NewStream(t.Context(), to.ID(), p)
	if err != nil {
		t.Fatal(err)
	}
	// The deadline ends a hanging test; Reset closes the test's stream.
	_ = s.SetDeadline(time.Now().Add(porttest.Patience))
	t.Cleanup(func() { _ = s.Reset() })
	return s
}

// send writes text, which may be more than the native reads.
func send(t *testing.T, s network.Stream, text string) {
	t.Helper()
	if _, err := io.WriteString(s, text); err != nil {
		t.Fatal(err)
	}
}

// readCode reads to the end of the stream and returns the Code of the answer, or
// "" for a lease. A stream that was reset fails the test.
func readCode(t *testing.T, s network.Stream) ports.Code {
	t.Helper()
	text, err := io.ReadAll(s)
	if err != nil {
		t.Fatalf("after %q: %v", text, err)
	}
	var answer struct {
		OK    bool
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(text, &answer); err != nil || !strings.HasSuffix(string(text), "\n") || answer.OK != (answer.Error.Code == "") {
		t.Fatalf("answer %q: %v", text, err)
	}
	return ports.Code(answer.Error.Code)
}

func expectCode(t *testing.T, s network.Stream, want ports.Code) {
	t.Helper()
	if got := readCode(t, s); got != want {
		t.Errorf("answer has code %q, want %q", got, want)
	}
}

func expectRefusal(t *testing.T, err error, want ports.Code) {
	t.Helper()
	if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != want {
		t.Errorf("got %v, want a refusal with code %s", err, want)
	}
}
