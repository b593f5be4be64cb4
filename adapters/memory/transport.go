package memory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// Network is what Transports share: each reaches every other by its PeerID.
type Network struct {
	mu    sync.Mutex
	nodes map[ports.PeerID]*Transport
}

// NewNetwork returns a Network without nodes.
func NewNetwork() *Network {
	return &Network{nodes: make(map[ports.PeerID]*Transport)}
}

// Join returns the Transport of the node id; the same one if it has joined before.
func (n *Network) Join(id ports.PeerID) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.nodes[id]
	if !ok {
		t = &Transport{network: n, id: id}
		n.nodes[id] = t
	}
	return t
}

// begin returns what the node id serves, with one more exchange to wait for, or
// nil if it serves nothing.
func (n *Network) begin(id ports.PeerID) *server {
	n.mu.Lock()
	t, ok := n.nodes[id]
	n.mu.Unlock()
	if !ok {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.serving != nil {
		t.serving.exchanges.Add(1)
	}
	return t.serving
}

// Transport carries registrations between the nodes of a Network. An address is
// any text but the empty one: the PeerID alone says where.
type Transport struct {
	network *Network
	id      ports.PeerID

	mu      sync.Mutex
	serving *server // nil while nothing is served
}

var _ ports.Transport = (*Transport)(nil)

// Serve implements ports.Transport.
func (t *Transport) Serve(n ports.Native) (stop func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.serving != nil {
		return nil, errors.New("serve registrations: already serving; stop that first")
	}
	srv := &server{native: n, stopping: make(chan struct{})}
	t.serving = srv
	return func() {
		t.mu.Lock()
		if t.serving == srv {
			t.serving = nil
			close(srv.stopping)
		}
		t.mu.Unlock()
		srv.exchanges.Wait()
	}, nil
}

// Native implements ports.Transport.
func (t *Transport) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	if id == "" {
		return nil, errors.New("a native needs a PeerID")
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("native %s: no address; give at least one", id)
	}
	for _, addr := range addrs {
		if addr == "" {
			return nil, fmt.Errorf("native %s: address %q is empty", id, addr)
		}
	}
	return &remote{t, id}, nil
}

// server is one Native from Serve to stop.
type server struct {
	native    ports.Native
	stopping  chan struct{}
	exchanges sync.WaitGroup
}

// remote is another node's native, or this one's own.
type remote struct {
	t  *Transport
	id ports.PeerID
}

// Disconnected implements ports.RemoteNative: there are no connections here.
func (*remote) Disconnected() <-chan struct{} { return nil }

type result struct {
	lease ports.Lease
	err   error
}

// Register implements ports.Native. It calls the native on a goroutine of its
// own, as the native may outlast the ctx of the caller.
func (n *remote) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if sender != n.t.id {
		return ports.Lease{}, fmt.Errorf("register %q with native %s: this node can prove no identity but its own, %s",
			sender, n.id, n.t.id)
	}
	// What no frame could carry is refused as it would be on the wire.
	if _, err := wire.EncodeRegistration(r); err != nil {
		return ports.Lease{}, err
	}
	if err := ctx.Err(); err != nil {
		return ports.Lease{}, err
	}
	srv := n.t.network.begin(n.id)
	if srv == nil {
		return ports.Lease{}, fmt.Errorf("register with native %s: it does not serve", n.id)
	}
	served, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan result, 1)
	go func() {
		defer srv.exchanges.Done()
		lease, err := srv.native.Register(served, sender, r)
		answered <- result{lease, err}
	}()

	silent := time.NewTimer(ports.ExchangeTimeout)
	defer silent.Stop()
	stopping := srv.stopping
	for {
		select {
		case a := <-answered:
			if _, refused := errors.AsType[*ports.Refusal](a.err); a.err != nil && !refused {
				a.err = ports.Refuse(ports.CodeBusy, "the native could not answer; try again later")
			}
			return a.lease, a.err
		case <-stopping:
			cancel()
			stopping = nil
		case <-ctx.Done():
			return ports.Lease{}, ctx.Err()
		case <-silent.C:
			return ports.Lease{Unconfirmed: true}, nil
		}
	}
}
