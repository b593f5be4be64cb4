package stream_test

import (
	"context"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// A connection that is open on paper alone would be used again by a dial.
func TestASuspectsConnectionIsClosedAndNoOther(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, watcher := newHost(), newHost()
		native.SetStreamHandler(ports.WatchProtocol, reading(func(s network.Stream) {
			_, _ = io.WriteString(s, `{"Cursor":"1","BeatSeconds":1}`+"\n")
			_, _ = io.Copy(io.Discard, s)
		}))
		n := remote(t, newTransport(t, watcher), native)
		n.(ports.Suspecter).Suspect() // without a watch there is nothing to close
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var suspect network.Conn
		for batch, err := range n.Watch(ctx, idOf(watcher), ports.WatchRequest{Own: true, Beat: 1}) {
			if suspect != nil {
				break // the watch ended with its connection
			}
			if err != nil || batch.Beat == 0 {
				t.Fatalf("got %+v and %v", batch, err)
			}
			suspect = watcher.Network().ConnsToPeer(native.ID())[0]
			hosttest.Connect(t, native, watcher)
			n.(ports.Suspecter).Suspect()
		}
		porttest.Eventually(t, "the suspect's connection is closed", suspect.IsClosed)
		if _, err := n.LookUp(t.Context(), idOf(watcher), anID); err == nil {
			t.Error("the native answers a look-up, which it does not offer")
		}
		if conns := watcher.Network().ConnsToPeer(native.ID()); len(conns) != 1 || conns[0] == suspect {
			t.Errorf("after the next request there are %d connections", len(conns))
		}
		n.(ports.Suspecter).Suspect() // the same again closes nothing more
		if conns := watcher.Network().ConnsToPeer(native.ID()); len(conns) != 1 {
			t.Errorf("%d connections are left", len(conns))
		}
	})
}
