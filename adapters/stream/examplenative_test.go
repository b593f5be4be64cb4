package stream_test

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/libp2p/go-libp2p"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// startNative starts a native for the example: a table without deadlines.
func startNative() (id ports.PeerID, addrs []string, stop func()) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	check(err)
	t, err := stream.New(h, nil, nil)
	check(err)
	table := &exampleTable{entries: make(map[ports.PeerID]ports.Listed), changed: make(chan ports.Change, 1)}
	_, err = t.Serve(porttest.Native{OnRegister: table.register, OnLeave: table.leave, OnLookUp: table.lookUp, OnWatch: table.watch})
	check(err)
	return idOf(h), addrsOf(h), func() {
		t.Close()
		check(h.Close())
	}
}

type exampleTable struct {
	mu      sync.Mutex
	entries map[ports.PeerID]ports.Listed
	changed chan ports.Change
}

func (e *exampleTable) register(_ context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.entries[sender] = ports.Listed{
		Entry: ports.Entry{PeerID: sender, Addr: r.Addr, Meta: r.Meta}, State: ports.StateLive, Source: ports.SourceOwn, Remaining: granted.TTL,
	}
	return granted, nil
}

func (e *exampleTable) leave(_ context.Context, sender ports.PeerID, _ []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.entries, sender)
	e.changed <- ports.Change{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: sender, Leave: true}}}
	return nil
}

func (e *exampleTable) lookUp(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l, ok := e.entries[id]
	if !ok {
		return ports.Answer{}, ports.ErrNotFound
	}
	return ports.Answer{Listed: l}, nil
}

func (e *exampleTable) watch(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		b := ports.Batch{Reset: ports.ResetNew, Cursor: "0"}
		e.mu.Lock()
		for _, l := range e.entries {
			b.Changes = append(b.Changes, ports.Change{Kind: ports.ChangeSnapshot, Listed: l})
		}
		b.Live = len(e.entries)
		e.mu.Unlock()
		for i := 1; yield(b, nil); i++ {
			select {
			case c := <-e.changed:
				b = ports.Batch{Changes: []ports.Change{c}, Cursor: fmt.Sprint(i)}
			case <-ctx.Done():
				yield(ports.Batch{}, ctx.Err())
				return
			}
		}
	}
}
