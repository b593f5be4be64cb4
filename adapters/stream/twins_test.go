package stream_test

import (
	"context"
	"crypto/rand"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// runOf is a native in a run that it names start. It counts the watches that have ended, and those of each
// renewal: a question must not have a native keep these.
func runOf(start string, ended, dear *atomic.Int32) porttest.Native {
	return porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		if !w.Numbers {
			dear.Add(1)
		}
		return func(yield func(ports.Batch, error) bool) {
			defer ended.Add(1)
			if yield(ports.Batch{Reset: ports.ResetNew, Start: start, Cursor: "1"}, nil) {
				<-ctx.Done()
			}
		}
	}}
}

func TestASecondConnectionToAnotherRunIsATwin(t *testing.T) {
	for name, c := range map[string]struct {
		starts [2]string
		twin   bool
	}{
		"two runs":                      {[2]string{"a", "b"}, true},
		"one run, connected twice":      {[2]string{"a", "a"}, false},
		"natives of an earlier version": {[2]string{"", ""}, false},
		"one of an earlier version":     {[2]string{"a", ""}, false},
	} {
		t.Run(name, func(t *testing.T) {
			key, _, err := crypto.GenerateEd25519Key(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			follower := hosttest.New(t)
			tr, seen := observed(t, follower)
			var native host.Host
			var ended, dear atomic.Int32
			for _, start := range c.starts {
				h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
					libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableMetrics(), libp2p.DisableRelay())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = h.Close() })
				serve(t, newTransport(t, h), runOf(start, &ended, &dear))
				if err := h.Connect(t.Context(), peer.AddrInfo{ID: follower.ID(), Addrs: follower.Addrs()}); err != nil {
					t.Fatal(err)
				}
				native = h
			}
			porttest.Eventually(t, "two connections", func() bool { return len(follower.Network().ConnsToPeer(native.ID())) == 2 })
			n, err := tr.Native(idOf(native), nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for _, err := range n.Watch(ctx, idOf(follower), ports.WatchRequest{Own: true, Numbers: true}) {
				if err != nil {
					t.Fatal(err)
				}
				porttest.Eventually(t, "both connections are asked", func() bool { return ended.Load() == 2 })
				cancel()
				break
			}
			if dear.Load() > 0 {
				t.Errorf("%d watches are told each renewal", dear.Load())
			}
			if told := seen.Of(ports.EventTwin); (len(told) == 1) != c.twin || c.twin && told[0].PeerID != idOf(native) {
				t.Errorf("told of %v", told)
			}
		})
	}
}
