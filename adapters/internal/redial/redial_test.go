package redial_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/redial"
)

// A peer that could not be dialled a moment ago is dialled again at once.
func TestALostPeerIsDialledAgainAtOnce(t *testing.T) {
	h, lost := hosttest.New(t), hosttest.New(t)
	info := peer.AddrInfo{ID: lost.ID(), Addrs: lost.Addrs()}
	if err := lost.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := redial.Connect(t.Context(), h, info); err == nil || errors.Is(err, swarm.ErrDialBackoff) {
			t.Errorf("a dial to a closed host: %v, want it refused by the host", err)
		}
	}
	if err := h.Connect(t.Context(), info); !errors.Is(err, swarm.ErrDialBackoff) {
		t.Errorf("libp2p does not back off (%v): this shows nothing", err)
	}
}

// A host may be closed at any moment of a dial. With a forced direct dial the process panics here.
func TestAHostIsClosedWhileItDials(t *testing.T) {
	const dials = 20
	var addrs []ma.Multiaddr // many take long to look at
	for port := range 200 {
		addrs = append(addrs, ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port+1)))
	}
	for round := range 40 {
		h := hosttest.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		var dialling sync.WaitGroup
		for range dials {
			other, err := test.RandPeerID()
			if err != nil {
				t.Fatal(err)
			}
			dialling.Go(func() { _ = redial.Connect(ctx, h, peer.AddrInfo{ID: other, Addrs: addrs}) })
		}
		time.Sleep(time.Duration(round) * 50 * time.Microsecond)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		cancel()
		dialling.Wait()
	}
}
