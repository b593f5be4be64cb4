package stream_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTransport(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		porttest.Transport(t, func(t *testing.T) (native, indexer porttest.TransportNode) {
			node := func() porttest.TransportNode {
				h := newHost()
				return porttest.TransportNode{Transport: newTransport(t, h), ID: idOf(h), Addrs: addrsOf(h)}
			}
			return node(), node()
		})
	})
}

// opener registers over streams that stay open until its test ends.
type opener struct {
	*stream.Transport
	t *testing.T
}

func (o opener) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := o.Transport.Native(id, addrs)
	return opened{n, o.t}, err
}

type opened struct {
	ports.RemoteNative
	t *testing.T
}

func (o opened) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	return o.RemoteNative.Register(ports.WithOpenStream(ctx, o.t.Context()), sender, r)
}

func TestATransportKeepsItsPromisesOverOpenStreams(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		porttest.Transport(t, func(t *testing.T) (native, indexer porttest.TransportNode) {
			node := func() porttest.TransportNode {
				h := newHost()
				return porttest.TransportNode{Transport: opener{newTransport(t, h), t}, ID: idOf(h), Addrs: addrsOf(h)}
			}
			return node(), node()
		})
	})
}

func TestNewWantsWhatItNeeds(t *testing.T) {
	if _, err := stream.New(nil, &porttest.Recorder{}, log); err == nil {
		t.Error("no error without a host")
	}
}

func TestAddressesOfANative(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		h := newHost()
		tr := newTransport(t, h)
		const id, other = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5", "12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"
		for addr, wrong := range map[string]string{
			"/ip4/192.0.2.1/tcp/4101":                "",
			"/ip4/192.0.2.1/tcp/4101/p2p/" + id:      "",
			"/dns4/native.example/udp/4101/quic-v1":  "",
			"/dnsaddr/native.example/p2p/" + id:      "",
			"/ip4/192.0.2.1/tcp/4101/p2p/" + other:   other,
			"/p2p/" + id:                             "no address",
			"192.0.2.1:4101":                         "192.0.2.1:4101",
			"/ip4/192.0.2.1/tcp/4101/p2p/not-a-peer": "not-a-peer",
		} {
			_, err := tr.Native(id, []string{"/ip4/192.0.2.9/tcp/1", addr})
			if wrong == "" && err != nil {
				t.Errorf("%s: %v", addr, err)
			}
			if wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), addr)) {
				t.Errorf("%s: got %v, want an error that says %q", addr, err, wrong)
			}
		}
		if _, err := tr.Native("native-1", addrsOf(h)); err == nil || !strings.Contains(err.Error(), "native-1") {
			t.Errorf("got %v, want an error that names the PeerID", err)
		}
	})
}

func TestCloseEndsServingAndWatching(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		server, client := newTransport(t, native), newTransport(t, indexer)
		serve(t, server, grant)
		n := remote(t, client, native)
		if _, err := register(t.Context(), indexer, n); err != nil {
			t.Fatal(err)
		}
		client.Close()
		<-n.Disconnected()
		client.Close()

		server.Close()
		if slices.Contains(native.Mux().Protocols(), stream.Protocol) {
			t.Error("a closed transport still offers its protocol")
		}
		if _, err := server.Serve(grant); err == nil {
			t.Error("a closed transport serves")
		}
		// The caller owns the hosts, and they live on.
		if len(indexer.Network().ConnsToPeer(native.ID())) == 0 {
			t.Error("the connection ended with the transports")
		}
	})
}

func TestConnectionsOfRegistrationsAreTold(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, other, indexer := newHost(), newHost(), newHost()
		serve(t, newTransport(t, native), grant)
		client := newTransport(t, indexer)
		hosttest.Connect(t, indexer, other)
		if conns := client.Conns(); len(conns) != 0 {
			t.Errorf("before a registration there are %v", conns)
		}
		n := remote(t, client, native)
		for range 2 {
			if _, err := register(t.Context(), indexer, n); err != nil {
				t.Fatal(err)
			}
			if conns := client.Conns(); len(conns) != 1 || conns[0].RemotePeer() != native.ID() {
				t.Errorf("after a registration there are %v, want the one with the native", conns)
			}
		}
		ended := n.Disconnected()
		if err := native.Close(); err != nil {
			t.Fatal(err)
		}
		<-ended
		if conns := client.Conns(); len(conns) != 0 {
			t.Errorf("after its end there are %v", conns)
		}
	})
}

func TestSendersAreForgottenWithTheirConnections(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		server := newTransport(t, native)
		serve(t, server, grant)
		n := remote(t, newTransport(t, indexer), native)
		for range 2 {
			for range 3 {
				if _, err := register(t.Context(), indexer, n); err != nil {
					t.Fatal(err)
				}
			}
			if known := server.Senders(); known != 1 {
				t.Errorf("%d senders known after three registrations over one connection", known)
			}
			if err := indexer.Network().ClosePeer(native.ID()); err != nil {
				t.Fatal(err)
			}
			porttest.Eventually(t, "the sender is forgotten when its connection has ended", func() bool { return server.Senders() == 0 })
		}
	})
}

func TestDisconnectedFollowsTheConnectionInUse(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		serve(t, newTransport(t, native), grant)
		n := remote(t, newTransport(t, indexer), native)
		for _, end := range []func() error{
			func() error { return indexer.Network().ClosePeer(native.ID()) },
			func() error { return native.Network().ClosePeer(indexer.ID()) },
			native.Close,
		} {
			if _, err := register(t.Context(), indexer, n); err != nil {
				t.Fatal(err)
			}
			ended := n.Disconnected()
			if _, err := register(t.Context(), indexer, n); err != nil || n.Disconnected() != ended {
				t.Fatalf("another channel for the same connection, or %v", err)
			}
			select {
			case <-ended:
				t.Fatal("closed while connected")
			default:
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
			<-ended
		}
	})
}
