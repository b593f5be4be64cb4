package stream

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// maxBeatersOfPeer bounds the streams of heartbeats of a peer: its stream, those of before a cut that
	// have not ended yet, and another process that takes its place.
	maxBeatersOfPeer = 4
	// maxBeatsAtOnce bounds the frames that are read before their answers are written. An indexer has as
	// many without an answer at most.
	maxBeatsAtOnce = ports.MaxHeartbeats
	// idleShare says by which part of its time a stream may be idle for longer: a deadline costs a timer,
	// so neither that of the read nor that of the write is set for each frame.
	idleShare = 8
)

// beater is an open stream of heartbeats.
type beater struct {
	srv    *server
	s      network.Stream
	sender ports.PeerID
	from   netip.Addr
	frames *wire.Frames

	// said is the last registration, without its proof. signed says that it had one, of the record seq.
	said   ports.Registration
	signed bool
	seq    int64
	// granted is the last lease with an answer of its own.
	granted ports.Lease
	idle    time.Duration // how long the stream may be idle
	until   time.Time     // the deadline of the read
	writes  time.Time     // the deadline of the writes: a second for each at least, and two at most
	answers []byte
}

// beat serves an open stream of heartbeats.
func (srv *server) beat(ctx context.Context, s network.Stream) error {
	sender := srv.transport.sender(s.Conn())
	if err := srv.admitBeater(sender); err != nil {
		srv.transport.observer.Observe(ports.Event{Kind: ports.EventLimited, PeerID: sender, Err: err})
		return srv.endBeats(ctx, s, err)
	}
	defer srv.dismissBeater(sender)
	ended := srv.transport.beats(s.Conn())
	srv.transport.observer.Observe(ports.Event{Kind: ports.EventBeating, PeerID: sender})
	b := &beater{
		srv: srv, s: s, sender: sender, from: comesFrom(s.Conn()),
		frames: wire.NewFrames(s, wire.MaxHeartbeatBytes),
	}
	err := b.run(ctx)
	ended(err)
	e := ports.Event{Kind: ports.EventBeaten, PeerID: sender}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		e.Code, e.Err = refusal.Code, err
	} else if timedOut(err) {
		e.Code = ports.CodeTooSlow // it does not read its answers
	}
	srv.transport.observer.Observe(e)
	if err == io.EOF {
		return nil // its indexer closed it
	}
	return srv.endBeats(ctx, s, err)
}

// endBeats writes the last frame of a stream, if err is a *ports.Refusal. It returns any other err.
func (srv *server) endBeats(ctx context.Context, s network.Stream, err error) error {
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok {
		return err
	}
	line, err := wire.EncodeRefusal(refusal)
	if err != nil {
		return err
	}
	last := time.Now().Add(srv.lastShare())
	srv.setWriteDeadline(ctx, s, last)
	_ = s.SetReadDeadline(last) // of what follows a frame that is too large
	return writeAnswer(s, wire.AppendEnded(nil, line), refusal.Code == ports.CodeTooLarge)
}

// run answers frames until the stream ends. The error is the *ports.Refusal to end it with, or says
// that no peer is left to answer; io.EOF is the indexer's own end.
func (b *beater) run(ctx context.Context) error {
	b.until = b.srv.deadline(b.s).Add(-b.srv.lastShare()) // handle has set it
	b.idle = b.srv.transport.timeout
	for {
		frame, err := b.frames.Next()
		if err != nil {
			return b.ended(ctx, err)
		}
		n := 0
		for ok := true; ok && err == nil; {
			n++
			if err = b.answer(ctx, frame); err == nil && n < maxBeatsAtOnce {
				frame, ok, err = b.frames.Ready()
			} else {
				ok = false
			}
		}
		b.srv.transport.observer.Observe(ports.Event{Kind: ports.EventBeats, PeerID: b.sender, Changes: n})
		if writeErr := b.write(ctx); writeErr != nil {
			return writeErr
		}
		if err != nil {
			return err
		}
		if err := b.rest(ctx); err != nil {
			return err
		}
	}
}

// ended returns why the stream ends after an error of its reader.
func (b *beater) ended(ctx context.Context, err error) error {
	switch refusal, ok := errors.AsType[*ports.Refusal](err); {
	case ok:
		b.srv.observeRefusal(b.sender, refusal)
		return refusal
	case ctx.Err() != nil:
		return stopping()
	case timedOut(err):
		return ports.Refuse(ports.CodeMalformed, "no heartbeat came for %v; open a stream when there is another", b.idle)
	case err == io.ErrUnexpectedEOF:
		refusal := ports.Refuse(ports.CodeMalformed, "the stream ended within a frame")
		b.srv.observeRefusal(b.sender, refusal)
		return refusal
	}
	return err
}

// write writes the answers.
func (b *beater) write(ctx context.Context) error {
	if len(b.answers) == 0 {
		return nil
	}
	if now, least := time.Now(), b.srv.lastShare(); b.writes.Before(now.Add(least)) {
		b.writes = now.Add(2 * least)
		b.srv.setWriteDeadline(ctx, b.s, b.writes)
	}
	_, err := b.s.Write(b.answers)
	if b.answers = b.answers[:0]; cap(b.answers) > ports.MaxFrameBytes {
		b.answers = nil
	}
	return err
}

// rest gives the stream its time until the next heartbeat.
func (b *beater) rest(ctx context.Context) error {
	now := time.Now()
	if now.Add(b.idle).Before(b.until) {
		return nil
	}
	b.until = now.Add(b.idle + b.idle/idleShare)
	_ = b.s.SetReadDeadline(b.until)
	if ctx.Err() != nil { // stop may have set its deadline in between
		return stopping()
	}
	return nil
}

// answer appends the answer to a frame. The error is the *ports.Refusal to end the stream with.
func (b *beater) answer(ctx context.Context, frame []byte) error {
	var h wire.Heartbeat
	err := wire.DecodeHeartbeat(frame, &h)
	if err == nil && h.Registration == nil && (b.said.PeerID == "" || h.Ticks && !b.signed) {
		err = ports.Refuse(ports.CodeMalformed, "a registration comes first, and with a record or a tick before a tick")
	}
	held := false
	switch {
	case err != nil:
	case h.Ticks:
		held, err = b.srv.door.Renew(b.sender)
	default:
		err = b.srv.door.Hear(b.sender, b.from)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		b.srv.observeRefusal(b.sender, refusal)
		return refusal // a peer that beats too often is not read any more either
	}
	var lease ports.Lease
	if held {
		lease, err = b.srv.native.Register(ctx, b.sender, b.ticked(&h))
	} else {
		lease, err = b.register(ctx, &h)
	}
	switch refusal, ok := errors.AsType[*ports.Refusal](err); {
	case ok && h.Registration != nil && (refusal.Code == ports.CodeMalformed || refusal.Code == ports.CodeTooLarge):
		return refusal
	case err != nil:
		line, err := wire.EncodeRefusal(b.srv.refusal(b.s, err))
		if err != nil {
			return err
		}
		b.answers = wire.AppendAnswered(b.answers, line)
	case b.granted.TTL > 0 && wire.Usual(&lease, &b.granted):
		b.answers = wire.AppendGranted(b.answers, lease.Now, lease.Clocks)
	default:
		if b.granted = lease; lease.TTL > 0 {
			b.idle = lease.TTL
		}
		b.answers = wire.AppendAnswered(b.answers, wire.EncodeLease(lease))
	}
	if b.signed && b.seq == 0 {
		b.seq = lease.Seq // of a record without a tick
	}
	return nil
}

// ticked returns the last registration with the tick of h.
func (b *beater) ticked(h *wire.Heartbeat) ports.Registration {
	r := b.said
	if h.Ticks {
		r.Proof = &ports.Proof{Tick: ports.Tick{Seq: b.seq, Step: h.Step, Link: h.Link}}
	}
	return r
}

// register registers what a frame says, as a stream of its own would.
func (b *beater) register(ctx context.Context, h *wire.Heartbeat) (lease ports.Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.srv.transport.timeout-b.srv.lastShare())
	defer cancel()
	r := b.ticked(h)
	if h.Registration != nil {
		r, err = wire.DecodeRegistration(h.Registration, b.sender)
	}
	if err == nil {
		if h.Registration != nil {
			b.said, b.signed, b.seq = r, r.Proof != nil, 0
			b.said.Proof = nil
			if b.signed {
				b.seq = r.Proof.Tick.Seq
			}
		}
		r, err = b.srv.door.Admit(ctx, b.sender, b.from, r)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		b.srv.observeRefusal(b.sender, refusal)
	}
	if err != nil {
		return lease, err
	}
	lease, err = b.srv.native.Register(ctx, b.sender, r)
	b.srv.door.Settle(b.sender, err == nil)
	return lease, err
}

// beaters counts the open streams of heartbeats of each peer.
type beaters map[ports.PeerID]int

// admitBeater counts another stream, or refuses it.
func (srv *server) admitBeater(sender ports.PeerID) error {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if n := srv.beaters[sender]; n >= maxBeatersOfPeer {
		return ports.Busy(ports.LimitPeerHeartbeats, "%s has %d streams of heartbeats here already, more are not allowed; end one", sender, n)
	}
	srv.beaters[sender]++
	return nil
}

func (srv *server) dismissBeater(sender ports.PeerID) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.beaters[sender]--; srv.beaters[sender] == 0 {
		delete(srv.beaters, sender)
	}
}
