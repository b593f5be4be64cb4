package modules_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/opencloud/ocnode/modules"
)

// BenchmarkRegistration sets a registration with a whole native, DHT and gossip on
// and no other native, beside a bare libp2p echo of the same bytes, both asked by
// the same bare client. CPU is that of the whole process, client included.
func BenchmarkRegistration(b *testing.B) {
	settings := map[string]string{
		"modules": "native,dht,gossip", "data.dir": b.TempDir(), "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0",
	}
	node := newNode(b, settings, modules.Environment{})
	if err := node.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer stop(b, node)
	info, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}

	// bare is a host as libp2p makes it, but for the limits of a client.
	bare := func(opts ...libp2p.Option) host.Host {
		opts = append(opts, libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport))
		h, err := libp2p.New(opts...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.Close() })
		return h
	}
	echo := bare()
	echo.SetStreamHandler("/echo", func(s network.Stream) {
		buf := make([]byte, 1024)
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		n, err := s.Read(buf)
		if err == nil {
			_, err = s.Write(buf[:n])
		}
		if err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	})

	for _, c := range []struct {
		name, protocol string
		to             peer.AddrInfo
	}{
		{"echo", "/echo", peer.AddrInfo{ID: echo.ID(), Addrs: echo.Addrs()}},
		{"registration", "/opencloud/native/subscribe/1.0", *info},
	} {
		for _, concurrency := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", c.name, concurrency), func(b *testing.B) {
				clients := make([]host.Host, concurrency)
				for i := range clients {
					clients[i] = bare(libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics())
					if err := clients[i].Connect(b.Context(), c.to); err != nil {
						b.Fatal(err)
					}
				}
				var mu sync.Mutex
				var took []time.Duration
				var next = make(chan struct{}, 1024)
				go func() {
					for range b.N {
						next <- struct{}{}
					}
					close(next)
				}()
				b.ResetTimer()
				before := cpu()
				var asking sync.WaitGroup
				for _, h := range clients {
					frame := fmt.Sprintf(`{"PeerID":"%s","Addr":"/ip4/127.0.0.1/tcp/4001"}`+"\n", h.ID())
					asking.Go(func() {
						for range next {
							began := time.Now()
							answer, err := ask(b.Context(), h, c.to.ID, c.protocol, frame)
							if err != nil || c.name != "echo" && !strings.Contains(answer, `"OK":true`) {
								b.Errorf("answer %q: %v", answer, err)
								return
							}
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
					})
				}
				asking.Wait()
				b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				for _, h := range clients {
					_ = h.Network().ClosePeer(c.to.ID)
				}
			})
		}
	}
}

func ask(ctx context.Context, h host.Host, to peer.ID, name, frame string) (string, error) {
	s, err := h.NewStream(ctx, to, protocol.ID(name))
	if err != nil {
		return "", err
	}
	defer s.Close()
	if _, err := io.WriteString(s, frame); err != nil {
		return "", err
	}
	if err := s.CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(s)
	return string(answer), err
}

// cpu returns what this process has used so far, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
