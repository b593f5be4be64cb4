package memory_test

import (
	"context"
	"errors"
	"iter"
	"testing"
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

// silent is a native that does not answer before its ctx ends.
var silent = porttest.Native{OnRegister: func(ctx context.Context, _ ports.PeerID, _ ports.Registration) (ports.Lease, error) {
	<-ctx.Done()
	return ports.Lease{}, ctx.Err()
}}

func TestSilenceIsUnconfirmedAfterTheTimeout(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := memory.NewNetwork()
		stop, err := n.Join("native").Serve(silent)
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

// pair returns n as a remote native.
func pair(t *testing.T, n ports.Native) ports.RemoteNative {
	t.Helper()
	network := memory.NewNetwork()
	stop, err := network.Join("native").Serve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	native, err := network.Join("indexer").Native("native", nil)
	if err != nil {
		t.Fatal(err)
	}
	return native
}

func TestSilenceIsAnErrorForWhateverElseIsAsked(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		native := pair(t, porttest.Native{OnLeave: func(ctx context.Context, _ ports.PeerID, _ []byte) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		began := time.Now()
		if err := native.Leave(t.Context(), "indexer", nil); err == nil || time.Since(began) != ports.ExchangeTimeout {
			t.Errorf("got %v after %s, want an error after %s", err, time.Since(began), ports.ExchangeTimeout)
		}
	})
}

func TestAWatchWithoutChangesSaysThatItLives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		native := pair(t, porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				yield(ports.Batch{Reset: ports.ResetNew, Cursor: "1", Live: 7}, nil)
				<-ctx.Done()
			}
		}})
		began, batches := time.Now(), 0
		for b, err := range native.Watch(t.Context(), "indexer", ports.WatchRequest{}) {
			if err != nil || b.Cursor != "1" || b.Live != 7 || (b.Reset == "") != (batches > 0) || time.Since(began) != time.Duration(batches)*ports.WatchIdle {
				t.Fatalf("batch %d: got %+v and %v after %s", batches, b, err, time.Since(began))
			}
			if batches++; batches == 4 {
				break
			}
		}
	})
}

func TestStopDoesNotWaitForAReader(t *testing.T) {
	network := memory.NewNetwork()
	stop, err := network.Join("native").Serve(porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
		return func(yield func(ports.Batch, error) bool) {
			for yield(ports.Batch{Cursor: "1"}, nil) && ctx.Err() == nil {
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	native, err := network.Join("indexer").Native("native", nil)
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for _, last = range native.Watch(t.Context(), "indexer", ports.WatchRequest{}) {
		stop() // while the reader holds this batch
	}
	if refusal, ok := errors.AsType[*ports.Refusal](last); !ok || refusal.Code != ports.CodeBusy {
		t.Errorf("ended with %v, want busy", last)
	}
}
