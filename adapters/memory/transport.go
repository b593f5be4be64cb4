package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// Network connects Transports: each reaches every other by its PeerID.
type Network struct {
	mu    sync.Mutex
	nodes map[ports.PeerID]*Transport
	// changed is closed, and replaced, when a node starts or stops serving.
	changed chan struct{}
}

// NewNetwork returns a Network without nodes.
func NewNetwork() *Network {
	return &Network{nodes: make(map[ports.PeerID]*Transport), changed: make(chan struct{})}
}

// Join returns the Transport of the node id, always the same for an id.
func (n *Network) Join(id ports.PeerID) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.nodes[id]
	if !ok {
		t = &Transport{network: n, id: id, answered: make(map[ports.PeerID]bool)}
		n.nodes[id] = t
	}
	return t
}

// begin returns the server of the node id, with another exchange to wait for, or nil without a
// server.
func (n *Network) begin(id ports.PeerID) *server {
	n.mu.Lock()
	defer n.mu.Unlock()
	t, ok := n.nodes[id]
	if !ok || t.serving == nil {
		return nil
	}
	t.serving.exchanges.Add(1)
	return t.serving
}

// serve replaces the server of t by next's result; nil is no server.
func (n *Network) serve(t *Transport, next func(current *server) *server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := t.serving
	if t.serving = next(before); t.serving != before {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// Transport carries natives' methods between the nodes of a Network. An address is any text but
// the empty string: the PeerID alone is the destination.
type Transport struct {
	network *Network
	id      ports.PeerID
	// The network's mu guards these.
	serving  *server               // nil while nothing is served
	answered map[ports.PeerID]bool // natives that have answered a registration or a leave
}

var _ ports.Transport = (*Transport)(nil)

// Serve implements ports.Transport.
func (t *Transport) Serve(n ports.Native) (stop func(), err error) {
	srv := &server{native: n, stopping: make(chan struct{})}
	t.network.serve(t, func(current *server) *server {
		if current != nil {
			err = errors.New("serve: already serving; stop that first")
			return current
		}
		return srv
	})
	if err != nil {
		return nil, err
	}
	return func() {
		t.network.serve(t, func(current *server) *server {
			if current != srv {
				return current
			}
			close(srv.stopping)
			return nil
		})
		srv.exchanges.Wait()
	}, nil
}

// Native implements ports.Transport.
func (t *Transport) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	if id == "" {
		return nil, errors.New("a native needs a PeerID")
	}
	for _, addr := range addrs {
		if addr == "" {
			return nil, fmt.Errorf("native %s: address %q is empty", id, addr)
		}
	}
	return &remote{t: t, id: id}, nil
}

// Neighbours implements ports.Transport: every other server is connected.
func (t *Transport) Neighbours() (natives []ports.Neighbour, changed <-chan struct{}) {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	for id, other := range t.network.nodes {
		if other != t && other.serving != nil {
			natives = append(natives, ports.Neighbour{PeerID: id, Addrs: []string{string(id)}, Watchable: true})
		}
	}
	slices.SortFunc(natives, func(a, b ports.Neighbour) int { return cmp.Compare(a.PeerID, b.PeerID) })
	return natives, t.network.changed
}

// server is a Native from Serve to stop.
type server struct {
	native    ports.Native
	stopping  chan struct{}
	exchanges sync.WaitGroup
}

// remote is another node's native, or this node's own.
type remote struct {
	t          *Transport
	id         ports.PeerID
	registered atomic.Bool // once
}

// Disconnected implements ports.RemoteNative: there are no connections here.
func (*remote) Disconnected() <-chan struct{} { return nil }

// Reached implements ports.RemoteNative.
func (n *remote) Reached() string {
	if !n.registered.Load() {
		return ""
	}
	return string(n.id)
}

// Register implements ports.Native.
func (n *remote) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if err := n.mayAskAs(sender, "register"); err != nil {
		return ports.Lease{}, err
	}
	// A registration too large for a frame is refused as on the wire.
	if _, err := wire.EncodeRegistration(r); err != nil {
		return ports.Lease{}, err
	}
	lease, err := insist(ctx, n, func(ctx context.Context, native ports.Native) (ports.Lease, error) {
		return native.Register(ctx, sender, r)
	})
	if errors.Is(err, errSilent) && !n.t.hasAnswered(n.id) {
		lease, err = ports.Lease{Unconfirmed: true}, nil
	}
	if err == nil {
		n.registered.Store(true)
	}
	return lease, err
}

// Leave implements ports.Native.
func (n *remote) Leave(ctx context.Context, sender ports.PeerID, record []byte) error {
	if err := n.mayAskAs(sender, "leave"); err != nil {
		return err
	}
	_, err := insist(ctx, n, func(ctx context.Context, native ports.Native) (struct{}, error) {
		return struct{}{}, native.Leave(ctx, sender, record)
	})
	return err
}

// insist is ask for a request that is sent twice to a native that can answer, and is silent for the
// patience of ctx. A native can answer here if it has answered such a request before.
func insist[A any](ctx context.Context, n *remote, of func(context.Context, ports.Native) (A, error)) (answer A, err error) {
	answers := n.t.hasAnswered(n.id)
	wait := ports.ExchangeTimeout
	if answers {
		wait = ports.Patience(ctx, wait)
	}
	answer, err = askFor(ctx, n, wait, of)
	if answers && errors.Is(err, errSilent) {
		answer, err = ask(ctx, n, of)
	}
	if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused {
		n.t.network.mu.Lock()
		n.t.answered[n.id] = true
		n.t.network.mu.Unlock()
	}
	return answer, err
}

func (t *Transport) hasAnswered(id ports.PeerID) bool {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	return t.answered[id]
}

// LookUp implements ports.Native.
func (n *remote) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	if err := n.mayAskAs(sender, "look up"); err != nil {
		return ports.Answer{}, err
	}
	if id == "" {
		return ports.Answer{}, ports.Refuse(ports.CodeMalformed, "PeerID is empty; name the indexer to look up")
	}
	return ask(ctx, n, func(ctx context.Context, native ports.Native) (ports.Answer, error) {
		return native.LookUp(ctx, sender, id)
	})
}

// List implements ports.Native.
func (n *remote) List(ctx context.Context, sender ports.PeerID, q ports.Query) (ports.Page, error) {
	if err := n.mayAskAs(sender, "list"); err != nil {
		return ports.Page{}, err
	}
	if _, err := wire.EncodeQuestion(wire.Question{Query: q}); err != nil {
		return ports.Page{}, err
	}
	return ask(ctx, n, func(ctx context.Context, native ports.Native) (ports.Page, error) {
		return native.List(ctx, sender, q)
	})
}

// Natives implements ports.Native.
func (n *remote) Natives(ctx context.Context, sender ports.PeerID) ([]ports.NativeStatus, error) {
	if err := n.mayAskAs(sender, "ask for natives"); err != nil {
		return nil, err
	}
	return ask(ctx, n, func(ctx context.Context, native ports.Native) ([]ports.NativeStatus, error) {
		return native.Natives(ctx, sender)
	})
}

// mayAskAs refuses requests in another identity's name.
func (n *remote) mayAskAs(sender ports.PeerID, what string) error {
	if sender == n.t.id {
		return nil
	}
	return fmt.Errorf("%s as %q at native %s: this node can prove no identity but its own, %s", what, sender, n.id, n.t.id)
}

// errSilent is a native that did not answer in time.
var errSilent = errors.New("the native did not answer in time")

// ask calls the native, and waits for the answer as long as a caller of the protocol does.
func ask[A any](ctx context.Context, n *remote, of func(context.Context, ports.Native) (A, error)) (A, error) {
	return askFor(ctx, n, ports.ExchangeTimeout, of)
}

// askFor calls the native on a goroutine, since the call may outlast the caller's ctx.
func askFor[A any](ctx context.Context, n *remote, wait time.Duration, of func(context.Context, ports.Native) (A, error)) (none A, _ error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	srv := n.t.network.begin(n.id)
	if srv == nil {
		return none, fmt.Errorf("native %s does not serve", n.id)
	}
	served, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer A
		err    error
	}
	answered := make(chan result, 1)
	go func() {
		defer srv.exchanges.Done()
		answer, err := of(served, srv.native)
		answered <- result{answer, err}
	}()

	silent := time.NewTimer(wait)
	defer silent.Stop()
	stopping := srv.stopping
	for {
		select {
		case a := <-answered:
			if errors.Is(a.err, ports.ErrNotFound) {
				return a.answer, a.err
			}
			return a.answer, refusal(a.err)
		case <-stopping:
			cancel()
			stopping = nil
		case <-ctx.Done():
			return none, ctx.Err()
		case <-silent.C:
			return none, errSilent
		}
	}
}

// refusal returns a native's err as others see it.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	if refusal, refused := errors.AsType[*ports.Refusal](err); refused {
		return refusal
	}
	return ports.Refuse(ports.CodeBusy, "the native could not answer; try again later")
}

type delivery struct {
	batch ports.Batch
	err   error
}

// Watch implements ports.Native. The native runs on its own goroutine, and waits until the
// reader takes the last batch.
func (n *remote) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		if err := n.mayAskAs(sender, "watch"); err != nil {
			yield(ports.Batch{}, err)
			return
		}
		if _, err := wire.EncodeWatch(w); err != nil {
			yield(ports.Batch{}, err)
			return
		}
		if err := ctx.Err(); err != nil {
			yield(ports.Batch{}, err)
			return
		}
		srv := n.t.network.begin(n.id)
		if srv == nil {
			yield(ports.Batch{}, fmt.Errorf("watch native %s: it does not serve", n.id))
			return
		}
		served, cancel := context.WithCancel(ctx)
		defer cancel()
		batches := make(chan delivery)
		go func() {
			defer srv.exchanges.Done()
			defer close(batches)
			srv.relay(served, sender, w, batches)
		}()

		idle := time.NewTimer(ports.WatchIdle)
		defer idle.Stop()
		var last ports.Batch
		for {
			next, more := delivery{batch: ports.Batch{Cursor: last.Cursor, Live: last.Live, Condition: last.Condition, Missing: last.Missing}}, true
			select {
			case next, more = <-batches:
			case <-idle.C:
			case <-srv.stopping:
				next.err = srv.ended()
			case <-ctx.Done():
			}
			switch {
			case ctx.Err() != nil:
				next.err = ctx.Err()
			case !more && next.err == nil:
				next.err = srv.ended()
			}
			if next.err != nil {
				yield(ports.Batch{}, next.err)
				return
			}
			if last = next.batch; !yield(next.batch, nil) {
				return
			}
			idle.Reset(ports.WatchIdle)
		}
	}
}

// ended returns the reason for a watch without an error of its own.
func (srv *server) ended() error {
	select {
	case <-srv.stopping:
		return ports.Refuse(ports.CodeBusy, "this native is stopping; watch another")
	default:
		return errors.New("the native ended the watch without a reason")
	}
}

// relay sends the native's batches until ctx or srv ends.
func (srv *server) relay(ctx context.Context, sender ports.PeerID, w ports.WatchRequest, batches chan<- delivery) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-srv.stopping:
			cancel()
		case <-stopped:
		}
	}()
	for batch, err := range srv.native.Watch(ctx, sender, w) {
		batch.Changes = slices.Clone(batch.Changes) // the native may reuse its slice
		select {
		case batches <- delivery{batch, refusal(err)}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}
