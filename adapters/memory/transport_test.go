package memory_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestTransport(t *testing.T) {
	porttest.Transport(t, func(*testing.T) (native, indexer porttest.TransportNode) {
		n := memory.NewNetwork()
		return porttest.TransportNode{Transport: n.Join("native"), ID: "native", Addrs: []string{"here"}},
			porttest.TransportNode{Transport: n.Join("indexer"), ID: "indexer", Addrs: []string{"there"}}
	})
}

func TestANodeThatJoinsAgainIsTheSameNode(t *testing.T) {
	n := memory.NewNetwork()
	a := n.Join("a")
	if n.Join("a") != a || n.Join("b") == a {
		t.Error("one PeerID, one Transport")
	}
}

// silent is a native that answers nobody before its ctx ends.
type silent struct{}

func (silent) Register(ctx context.Context, _ ports.PeerID, _ ports.Registration) (ports.Lease, error) {
	<-ctx.Done()
	return ports.Lease{}, ctx.Err()
}

func TestSilenceIsUnconfirmedAfterTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memory.NewNetwork()
		stop, err := n.Join("native").Serve(silent{})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		native, err := n.Join("indexer").Native("native", []string{"here"})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		lease, err := native.Register(t.Context(), "indexer", ports.Registration{PeerID: "indexer"})
		if took := time.Since(began); err != nil || lease != (ports.Lease{Unconfirmed: true}) || took != ports.ExchangeTimeout {
			t.Errorf("got %+v and %v after %s, want unconfirmed after %s", lease, err, took, ports.ExchangeTimeout)
		}
	})
}
