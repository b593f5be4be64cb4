package stream_test

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// listener is a native that hears who hangs up.
type listener struct {
	porttest.Native
	hungUp chan ports.PeerID
}

func (l listener) HungUp(sender ports.PeerID, _ bool) { l.hungUp <- sender }

func TestANativeHearsWhoEndsItsConnection(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native := newHost()
		l := listener{grant, make(chan ports.PeerID, 4)}
		serve(t, newTransport(t, native), l)
		registered := func() host.Host {
			indexer := newHost()
			if _, err := register(t.Context(), indexer, remote(t, newTransport(t, indexer), native)); err != nil {
				t.Fatal(err)
			}
			return indexer
		}

		// The native itself ends the first connection, and the second's end is no news while
		// there is another.
		dropped, leaver := registered(), registered()
		if err := native.Network().ClosePeer(dropped.ID()); err != nil {
			t.Fatal(err)
		}
		porttest.Eventually(t, "the connection is gone", func() bool { return len(native.Network().ConnsToPeer(dropped.ID())) == 0 })
		stranger := newHost()
		hosttest.Connect(t, stranger, native)
		_ = stranger.Close() // it has never registered
		_ = leaver.Close()
		if got := <-l.hungUp; got != idOf(leaver) {
			t.Errorf("%s hung up, want %s", got, idOf(leaver))
		}
		select {
		case got := <-l.hungUp:
			t.Errorf("%s hung up too", got)
		default:
		}
	})
}
