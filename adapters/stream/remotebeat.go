package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// beats is an open stream of heartbeats to a native.
type beats struct {
	s      network.Stream
	frames *wire.Frames
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
	slot := n.t.open.slot(n.info.ID)
	var b *beats
	select {
	case b = <-slot.has:
	case <-ctx.Done():
		n.t.open.leave(slot)
		return lease, ctx.Err()
	}
	defer func() {
		slot.has <- b
		n.t.open.leave(slot)
	}()
	began := time.Now()
	err = n.twice(ctx, func(wait func(network.Conn) time.Duration) (conn network.Conn, err error) {
		for {
			if b == nil {
				if b, err = n.openBeats(ctx, life); err != nil {
					return conn, noRoom(err)
				}
			}
			conn = b.s.Conn()
			lease, err = n.exchangeBeat(ctx, b, r, registration, wait(conn))
			if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused && !errors.Is(err, errStreamEnded) {
				return conn, err
			}
			old := b.opened.Before(began)
			if !old {
				err = noRoom(err)
			}
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

// noRoom returns errNoStream if err is a new stream that the native has reset: its limits have no room for
// another one that stays.
func noRoom(err error) error {
	if reset, ok := errors.AsType[*network.StreamError](err); ok && reset.Remote && !notOffered(err) {
		return errNoStream
	}
	return err
}

// openBeats opens a stream that ends with life.
func (n *remote) openBeats(ctx, life context.Context) (*beats, error) {
	s, err := n.open(ctx, ports.HeartbeatProtocol)
	if err != nil {
		return nil, err
	}
	return &beats{
		s: s, frames: wire.NewFrames(s, wire.MaxHeartbeatBytes), opened: time.Now(),
		letGo: context.AfterFunc(life, func() {
			_ = s.Reset()
			n.t.open.end(n.info.ID)
		}),
	}, nil
}

// openStreams are the open streams of heartbeats of a Transport: one to a native, whichever of its
// remotes registers.
type openStreams struct {
	mu sync.Mutex
	of map[peer.ID]*openSlot // of natives with a stream, or with a Register under way
}

// openSlot has the stream to a native, nil without one. A Register that uses the stream has it instead.
type openSlot struct {
	id    peer.ID
	has   chan *beats
	users int
}

// slot returns the slot of a native, until leave.
func (o *openStreams) slot(id peer.ID) *openSlot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.of[id]
	if s == nil {
		if o.of == nil {
			o.of = make(map[peer.ID]*openSlot)
		}
		s = &openSlot{id: id, has: make(chan *beats, 1)}
		s.has <- nil
		o.of[id] = s
	}
	s.users++
	return s
}

// leave forgets the slot if nobody uses it, and it has no stream.
func (o *openStreams) leave(s *openSlot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	if b := <-s.has; b != nil {
		s.has <- b
	} else {
		delete(o.of, s.id)
	}
}

// end ends the stream to a native, unless a Register uses it.
func (o *openStreams) end(id peer.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.of[id]; s != nil && s.users == 0 {
		(<-s.has).end()
		delete(o.of, id)
	}
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
