package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// beats is an open stream of heartbeats to a native.
type beats struct {
	s      network.Stream
	frames *wire.HeartbeatFrames
	opened time.Time
	letGo  func() bool // the end of the caller's life resets s no more
	// said is the last registration, and granted the last lease with an answer of its own.
	said    ports.Registration
	granted ports.Lease
	buf     []byte
}

// end ends the stream. b may be nil.
func (b *beats) end() {
	if b != nil {
		b.letGo()
		_ = b.s.Reset()
	}
}

// errStreamEnded is an older stream that its native has ended: another one may do.
var errStreamEnded = errors.New("the native has ended the stream")

// errNoStream is a native that takes no open stream of this node now.
var errNoStream = errors.New("the native takes no other stream of heartbeats")

// beat sends a registration over the open stream, or over a new one that ends with life. registration
// is its frame in the registration protocol. The error of a native without such streams is notOffered,
// and errNoStream that of a native that refuses one.
func (n *remote) beat(ctx, life context.Context, r ports.Registration, registration []byte) (lease ports.Lease, err error) {
	var b *beats
	select {
	case b = <-n.beats:
	case <-ctx.Done():
		return lease, ctx.Err()
	}
	defer func() { n.beats <- b }()
	began := time.Now()
	err = n.twice(ctx, func(wait func(network.Conn) time.Duration) (conn network.Conn, err error) {
		for {
			if b == nil {
				if b, err = n.openBeats(ctx, life); err != nil {
					return conn, err
				}
			}
			conn = b.s.Conn()
			lease, err = n.exchangeBeat(ctx, b, r, registration, wait(conn))
			if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused && !errors.Is(err, errStreamEnded) {
				return conn, err
			}
			old := b.opened.Before(began)
			b.end()
			b = nil
			if !old || ctx.Err() != nil || conn.IsClosed() || errors.Is(err, errSilent) {
				return conn, err
			}
			// The connection is well, and the native has ended the stream that was idle.
		}
	})
	if err == nil {
		n.registeredOver(b.s.Conn())
	}
	if refusal, refused := errors.AsType[*ports.Refusal](err); refused {
		if errors.Is(err, errStreamEnded) && refusal.Code == ports.CodeBusy {
			return lease, errNoStream
		}
		return lease, refusal
	}
	return lease, err
}

// endBeats ends the open stream, unless a Register uses it.
func (n *remote) endBeats() {
	select {
	case b := <-n.beats:
		b.end()
		n.beats <- nil
	default:
	}
}

// openBeats opens a stream that ends with life.
func (n *remote) openBeats(ctx, life context.Context) (*beats, error) {
	s, err := n.open(ctx, ports.HeartbeatProtocol)
	if err != nil {
		return nil, err
	}
	return &beats{
		s: s, frames: wire.NewHeartbeatFrames(s, wire.MaxHeartbeatBytes), opened: time.Now(),
		letGo: context.AfterFunc(life, func() { _ = s.Reset() }),
	}, nil
}

// exchangeBeat sends r over b, and waits for the answer for as long as wait. errStreamEnded is joined to
// the refusal that ends a stream.
func (n *remote) exchangeBeat(ctx context.Context, b *beats, r ports.Registration, registration []byte, wait time.Duration) (lease ports.Lease, err error) {
	defer context.AfterFunc(ctx, func() { _ = b.s.Reset() })()
	b.buf = wire.AppendHeartbeat(b.buf[:0], b.compose(r, registration))
	now := time.Now()
	deadline := now.Add(wait)
	_ = b.s.SetWriteDeadline(now.Add(n.t.timeout))
	_, writeErr := b.s.Write(b.buf)
	_ = b.s.SetReadDeadline(deadline)
	// An answer may exist even though the write failed: the native says why it has ended the stream.
	frame, err := b.frames.Next()
	switch {
	case err == nil:
	case writeErr != nil && !timedOut(writeErr):
		return lease, fmt.Errorf("write: %w", blame.Explain(writeErr))
	case timedOut(err) && !time.Now().Before(deadline):
		return lease, errSilent
	case err == io.EOF:
		return lease, errStreamEnded
	default:
		return lease, fmt.Errorf("read the answer: %w", blame.Explain(err))
	}
	n.hasAnswered()
	lease, ended, err := wire.DecodeBeaten(frame, b.granted)
	switch {
	case ended:
		return lease, errors.Join(errStreamEnded, err)
	case err == nil:
		if b.said = r; lease.TTL > 0 {
			b.granted = lease
		}
	default:
		b.said = ports.Registration{}
	}
	return lease, err
}

// compose returns the frame of r: the registration, unless all but the tick of it was said and granted.
func (b *beats) compose(r ports.Registration, registration []byte) *wire.Heartbeat {
	said := &b.said
	again := b.granted.TTL > 0 && r.PeerID == said.PeerID && r.Addr == said.Addr && (r.Proof == nil) == (said.Proof == nil)
	switch {
	case !again:
	case r.Proof == nil && slices.Equal(r.Addrs, said.Addrs) && maps.Equal(r.Meta, said.Meta):
		return &wire.Heartbeat{}
	case r.Proof != nil && r.Proof.Record == nil && r.Proof.Tick.Seq == said.Proof.Tick.Seq:
		return &wire.Heartbeat{Ticks: true, Step: r.Proof.Tick.Step, Link: r.Proof.Tick.Link}
	}
	return &wire.Heartbeat{Registration: registration[:len(registration)-1]}
}
