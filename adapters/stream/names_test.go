package stream_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
)

// zone is a DNS server that changes.
type zone struct {
	mu  sync.Mutex
	ip  string
	txt []string
}

func (z *zone) LookupIPAddr(context.Context, string) ([]net.IPAddr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return []net.IPAddr{{IP: net.ParseIP(z.ip)}}, nil
}

func (z *zone) LookupTXT(context.Context, string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.txt, nil
}

// set has the names lead to h.
func (z *zone) set(h host.Host) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.ip, _ = h.Addrs()[0].ValueForProtocol(ma.P_IP4)
	z.txt = []string{fmt.Sprintf("dnsaddr=%s/p2p/%s", h.Addrs()[0], h.ID())}
}

// The native of indexer.natives moves, and its name with it.
func TestANameIsResolvedAnewAtEachAttempt(t *testing.T) {
	for name, addr := range map[string]func(port string) string{
		"dns4":    func(port string) string { return "/dns4/native.example/tcp/" + port },
		"dns":     func(port string) string { return "/dns/native.example/tcp/" + port },
		"dnsaddr": func(string) string { return "/dnsaddr/native.example" },
	} {
		t.Run(name, func(t *testing.T) {
			var names zone
			resolver, err := madns.NewResolver(madns.WithDefaultResolver(&names))
			if err != nil {
				t.Fatal(err)
			}
			key, _, err := crypto.GenerateEd25519Key(nil)
			if err != nil {
				t.Fatal(err)
			}
			start := func(ip, port string, opts ...libp2p.Option) host.Host {
				h, err := libp2p.New(append(opts,
					libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.DisableRelay(), libp2p.DisableMetrics(),
					libp2p.WithDialTimeout(unhurried), libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(unhurried)),
					libp2p.ListenAddrStrings("/ip4/"+ip+"/tcp/"+port))...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Close() })
				return h
			}
			before := start("127.0.0.1", "0", libp2p.Identity(key))
			port, err := before.Addrs()[0].ValueForProtocol(ma.P_TCP)
			if err != nil {
				t.Fatal(err)
			}
			indexer := start("127.0.0.1", "0", libp2p.MultiaddrResolver(swarm.ResolverFromMaDNS{Resolver: resolver}))
			serve(t, newTransport(t, before), grant)
			names.set(before)
			n, err := newTransport(t, indexer).Native(idOf(before), []string{addr(port)})
			if err != nil {
				t.Fatal(err)
			}
			registered := func(at host.Host) {
				t.Helper()
				if _, err := register(t.Context(), indexer, n); err != nil {
					t.Fatal(err)
				}
				if got, want := n.Reached(), at.Addrs()[0].String(); got != want {
					t.Errorf("reached at %s, want %s", got, want)
				}
			}
			registered(before)
			_ = before.Close()
			<-n.Disconnected()
			if _, err := register(t.Context(), indexer, n); err == nil {
				t.Error("a native that is gone has taken a registration")
			}
			after := start(hosttest.Loopback, port, libp2p.Identity(key))
			serve(t, newTransport(t, after), grant)
			names.set(after)
			registered(after)
		})
	}
}
