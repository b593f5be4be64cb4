package stream_test

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
)

// A program with its own libp2p host registers, looks up, watches and leaves. It learns a
// native's address from the native's operator, or from ocnode id.
func Example() {
	nativeID, nativeAddrs, stop := startNative()
	defer stop()

	ctx := context.Background() // each call has a deadline of its own
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	check(err)
	defer h.Close()
	transport, err := stream.New(h, nil, nil)
	check(err)
	defer transport.Close()
	native, err := transport.Native(nativeID, nativeAddrs)
	check(err)

	me := ports.PeerID(h.ID().String())
	lease, err := native.Register(ctx, me, ports.Registration{PeerID: me, Addr: h.Addrs()[0].String(), Meta: map[string]string{"zone": "eu"}})
	check(err)
	fmt.Println("registered for", lease.TTL, "and to renew every", lease.Heartbeat)
	found, err := native.LookUp(ctx, me, me)
	check(err)
	fmt.Println("found", found.State, "in zone", found.Meta["zone"])
	for batch, err := range native.Watch(ctx, me, ports.WatchRequest{}) {
		check(err) // after any error but a *ports.Refusal, watch again from the last Cursor
		for _, change := range batch.Changes {
			fmt.Println(change.Kind, "me:", change.PeerID == me)
			if change.Kind == ports.ChangeSnapshot {
				check(native.Leave(ctx, me, nil))
			}
		}
		if batch.Live == 0 {
			break
		}
	}

	// Output:
	// registered for 1m6s and to renew every 1m0s
	// found live in zone eu
	// snapshot me: true
	// left me: true
}
