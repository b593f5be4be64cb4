package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// remote is a native at the other end of a connection.
type remote struct {
	t    *Transport
	info peer.AddrInfo
	// disconnected is what Disconnected returns.
	disconnected atomic.Pointer[<-chan struct{}]
}

// Disconnected implements ports.RemoteNative. Another connection to the same
// native may live on; the next Register then uses that.
func (n *remote) Disconnected() <-chan struct{} {
	if c := n.disconnected.Load(); c != nil {
		return *c
	}
	return nil
}

// Register implements ports.Native. Connecting, with the opening of the stream,
// takes at most ports.ExchangeTimeout, as do writing and waiting for the answer.
func (n *remote) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if sender != n.t.id {
		return ports.Lease{}, fmt.Errorf("register %q with native %s: this node can prove no identity but its own, %s",
			sender, n.info.ID, n.t.id)
	}
	frame, err := wire.EncodeRegistration(r)
	if err != nil {
		return ports.Lease{}, err
	}
	lease, err := n.exchange(ctx, frame)
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if _, refused := errors.AsType[*ports.Refusal](err); err != nil && !refused {
		err = fmt.Errorf("register with native %s: %w", n.info.ID, err)
	}
	return lease, err
}

func (n *remote) exchange(ctx context.Context, frame []byte) (ports.Lease, error) {
	s, err := n.open(ctx)
	if err != nil {
		return ports.Lease{}, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()

	_ = s.SetWriteDeadline(time.Now().Add(n.t.timeout))
	_, writeErr := s.Write(frame)
	if writeErr == nil {
		_ = s.CloseWrite() // over QUIC an error if the native has closed already: the frame is written
	}
	lease, err := n.answer(s, writeErr)
	if err == nil {
		ended := n.t.ended(s.Conn())
		n.disconnected.Store(&ended)
	}
	return lease, err
}

// open connects and opens a stream. The addresses are given with every attempt,
// as the peerstore forgets them, and the dial is forced, as a peer that was away
// is under back-off for up to 5 minutes.
func (n *remote) open(ctx context.Context) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, n.t.timeout)
	defer cancel()
	ctx = network.WithForceDirectDial(ctx, "registration")
	if err := n.t.host.Connect(ctx, n.info); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s, err := n.t.host.NewStream(network.WithNoDial(ctx, "connected already"), n.info.ID, Protocol)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return s, nil
}

// answer reads the answer, which may be there even though the write failed: a
// native refuses a frame before it has read all of it.
func (n *remote) answer(s network.Stream, writeErr error) (ports.Lease, error) {
	deadline := time.Now().Add(n.t.timeout)
	_ = s.SetReadDeadline(deadline)
	frame, err := wire.ReadFrame(s)
	switch {
	case err == nil && len(frame) > 0:
		return wire.DecodeAnswer(frame)
	case errors.Is(err, wire.ErrFrameTooLarge):
		// The answer is what is too large, so this is no refusal.
		return ports.Lease{}, fmt.Errorf("its answer has more than %d bytes", ports.MaxFrameBytes)
	case writeErr != nil:
		return ports.Lease{}, fmt.Errorf("write: %w", writeErr)
	// A connection may time out too, before the deadline: that is no silence.
	case err == nil, timedOut(err) && !time.Now().Before(deadline):
		return ports.Lease{Unconfirmed: true}, nil
	}
	return ports.Lease{}, fmt.Errorf("read the answer: %w", err)
}
