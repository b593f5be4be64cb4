package stream_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
)

var unconfirmed = ports.Lease{Unconfirmed: true}

// reading returns another implementation's native: it reads the frame, then calls then.
func reading(then func(s network.Stream)) network.StreamHandler {
	return func(s network.Stream) {
		if _, err := wire.ReadFrame(s); err == nil {
			then(s)
		}
	}
}

func saying(text string) network.StreamHandler {
	return reading(func(s network.Stream) { _, _ = io.WriteString(s, text); _ = s.Close() })
}

func TestNativesOfAnotherMake(t *testing.T) {
	const lease = `{"OK":true,"TTLSeconds":66,"HeartbeatSeconds":60}`
	reset := func(s network.Stream) { _ = s.Reset() }
	for name, c := range map[string]struct {
		handler network.StreamHandler
		want    ports.Lease
		code    ports.Code // of the refusal
		fails   bool       // otherwise
	}{
		"answers":                             {saying(lease + "\n"), granted, "", false},
		"answers without a newline":           {saying(lease), granted, "", false},
		"answers and stays open":              {reading(func(s network.Stream) { _, _ = io.WriteString(s, lease+"\n") }), granted, "", false},
		"answers before it has read":          {func(s network.Stream) { _, _ = io.WriteString(s, lease+"\n"); _ = s.Close() }, granted, "", false},
		"answers and says more":               {saying(lease + "\nand more"), granted, "", false},
		"refuses":                             {saying(`{"OK":false,"Error":{"Code":"busy","Message":"m"}}` + "\n"), ports.Lease{}, ports.CodeBusy, false},
		"refuses without a reason":            {saying(`{"OK":false}`), ports.Lease{}, ports.CodeRefused, false},
		"closes without an answer":            {reading(func(s network.Stream) { _ = s.Close() }), unconfirmed, "", false},
		"closes its side only":                {reading(func(s network.Stream) { _ = s.CloseWrite() }), unconfirmed, "", false},
		"resets":                              {reading(reset), ports.Lease{}, "", true},
		"resets without reading":              {reset, ports.Lease{}, "", true},
		"disconnects":                         {reading(func(s network.Stream) { _ = s.Conn().Close() }), ports.Lease{}, "", true},
		"says half and closes":                {saying(lease[:20]), ports.Lease{}, "", true},
		"says something else":                 {saying("220 ready\n"), ports.Lease{}, "", true},
		"says too much":                       {saying(lease + strings.Repeat(" ", ports.MaxFrameBytes)), ports.Lease{}, "", true},
		"says no heartbeat":                   {saying(`{"OK":true,"TTLSeconds":"66"}`), ports.Lease{}, "", false},
		"says an absurd heartbeat":            {saying(`{"OK":true,"HeartbeatSeconds":1e999,"TTLSeconds":-0.5}`), ports.Lease{Heartbeat: math.MaxInt64, TTL: -time.Second / 2}, "", false},
		"says its heartbeat is no number":     {saying(`{"OK":true,"HeartbeatSeconds":"NaN","Now":0}`), ports.Lease{}, "", false},
		"says a heartbeat of a fraction":      {saying(`{"OK":true,"HeartbeatSeconds":0.25}`), ports.Lease{Heartbeat: time.Second / 4}, "", false},
		"says a code of a version to come":    {saying(`{"OK":false,"Error":{"Code":"moved","Message":"m","To":"x"}}`), ports.Lease{}, "moved", false},
		"does not know the protocol any more": {nil, ports.Lease{}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, indexer := newHost(), newHost()
				native.SetStreamHandler(stream.Protocol, c.handler)
				n := remote(t, newTransport(t, indexer), native)
				if c.handler == nil {
					native.SetStreamHandler(stream.Protocol, saying(lease))
					if _, err := register(t.Context(), indexer, n); err != nil {
						t.Fatal(err)
					}
					native.RemoveStreamHandler(stream.Protocol)
				}
				began := time.Now()
				got, err := register(t.Context(), indexer, n)
				if got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
				refusal, refused := errors.AsType[*ports.Refusal](err)
				switch {
				case c.code != "":
					expectRefusal(t, err, c.code)
				case refused, (err != nil) != c.fails:
					t.Errorf("got %v %v, want an error that is no refusal: %v", err, refusal, c.fails)
				}
				if took := time.Since(began); took >= unhurried {
					t.Errorf("took %s", took)
				}
				if live := n.Disconnected() != nil; c.handler != nil && live != (err == nil) {
					t.Errorf("Disconnected is there: %v, after %v", live, err)
				}
			})
		})
	}
}

func TestSilence(t *testing.T) {
	const slack = 100 * time.Millisecond
	saysAfter := func(d time.Duration) network.StreamHandler {
		return reading(func(s network.Stream) {
			time.Sleep(d)
			_, _ = io.WriteString(s, `{"OK":true,"TTLSeconds":66,"HeartbeatSeconds":60}`+"\n")
			_ = s.Close()
		})
	}
	for name, c := range map[string]struct {
		handler network.StreamHandler
		want    ports.Lease
		after   time.Duration
	}{
		"an answer just before the timeout": {saysAfter(ports.ExchangeTimeout - slack), granted, ports.ExchangeTimeout - slack},
		"an answer just after the timeout":  {saysAfter(ports.ExchangeTimeout + slack), unconfirmed, ports.ExchangeTimeout},
		"no answer, the stream left open":   {reading(func(network.Stream) {}), unconfirmed, ports.ExchangeTimeout},
		"half an answer":                    {reading(func(s network.Stream) { _, _ = io.WriteString(s, `{"OK"`) }), unconfirmed, ports.ExchangeTimeout},
		"not even the protocol confirmed":   {nil, unconfirmed, ports.ExchangeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
				native.SetStreamHandler(stream.Protocol, c.handler)
				n := remote(t, newTransport(t, indexer), native)
				// Connecting has a time of its own, and is not timed here.
				_ = open(t, indexer, native).Reset()
				if c.handler == nil {
					native.Network().SetStreamHandler(func(network.Stream) {})
				}
				began := time.Now()
				lease, err := register(t.Context(), indexer, n)
				if err != nil || lease != c.want {
					t.Errorf("got %+v and %v, want %+v", lease, err, c.want)
				}
				if took := time.Since(began); took < c.after || took > c.after+slack {
					t.Errorf("took %s, want %s", took, c.after)
				}
				time.Sleep(2 * slack) // for the late answer
			})
		})
	}
}

// A native may stop reading: its process is stopped, or its cable is cut.
func TestAConnectionThatDiesIsNoSilence(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		native.SetStreamHandler(stream.Protocol, reading(func(network.Stream) { go native.Close() }))
		lease, err := register(t.Context(), indexer, remote(t, newTransport(t, indexer), native))
		if err == nil {
			t.Errorf("got %+v, want an error", lease)
		}
	})
}

func TestReconnectsWhenAddressesHaveLapsed(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		serve(t, newTransport(t, native), grant)
		n := remote(t, newTransport(t, indexer), native)
		for range 3 {
			if _, err := register(t.Context(), indexer, n); err != nil {
				t.Fatal(err)
			}
			ended := n.Disconnected()
			if err := indexer.Network().ClosePeer(native.ID()); err != nil {
				t.Fatal(err)
			}
			<-ended
			indexer.Peerstore().ClearAddrs(native.ID())
		}
	})
}

func TestReconnectsAtOnceAfterAnOutage(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		key, _, err := crypto.GenerateEd25519Key(nil)
		if err != nil {
			t.Fatal(err)
		}
		network := "/ip4/" + hosttest.Loopback + "/tcp/0" // no other process takes the port there
		if strings.Contains(t.Name(), "quic") {
			network = "/ip4/" + hosttest.Loopback + "/udp/0/quic-v1"
		}
		native, indexer := newHost(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.ListenAddrStrings(network)), newHost()
		tr := newTransport(t, indexer)
		tr.SetTimeout(300 * time.Millisecond) // a QUIC dial to a closed port waits all of it
		n := remote(t, tr, native)
		addrs := addrsOf(native)
		if err := native.Close(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if lease, err := register(t.Context(), indexer, n); err == nil {
				t.Fatalf("got %+v of a native that is gone", lease)
			}
		}
		native = newHost(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.ListenAddrStrings(addrs...))
		serve(t, newTransport(t, native), grant)
		tr.SetTimeout(unhurried)
		if _, err := register(t.Context(), indexer, n); err != nil {
			t.Error(err)
		}
	})
}

func TestConnectingHasATimeout(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		// A listener that accepts and says nothing, and a socket that takes packets.
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		hole, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer hole.Close()
		indexer := newHost()
		tr := newTransport(t, indexer)
		const timeout = 300 * time.Millisecond
		tr.SetTimeout(timeout)
		_, port, _ := net.SplitHostPort(silent.Addr().String())
		_, udp, _ := net.SplitHostPort(hole.LocalAddr().String())
		n, err := tr.Native("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
			[]string{"/ip4/127.0.0.1/tcp/" + port, "/ip4/127.0.0.1/udp/" + udp + "/quic-v1"})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err = register(t.Context(), indexer, n)
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < timeout || took > unhurried/2 {
			t.Errorf("got %v after %s, want a deadline after %s", err, took, timeout)
		}
	})
}
