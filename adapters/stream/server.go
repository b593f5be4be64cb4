package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// answerShare is the part of an exchange's time, its last, that is kept for the
	// answer: 1 s of 5, since an answer is one packet.
	answerShare = 5
	// drainBytes is how much more is read and dropped of a frame that is too large.
	// A sender that writes everything before it reads blocks on the window of its
	// stream; few that are too large are larger than 1 MiB.
	drainBytes = 1 << 20
)

// server hands what arrives to one Native until it is stopped.
type server struct {
	*Transport
	native ports.Native

	mu sync.Mutex
	// running has the exchanges that stop hastens; nil once stopped.
	running map[network.Stream]context.CancelFunc
	done    sync.WaitGroup
}

// stop cuts off what is still being read, hastens what is being answered, and waits.
func (srv *server) stop() {
	srv.mu.Lock()
	now := time.Now()
	for s, cancel := range srv.running {
		cancel()
		_ = s.SetReadDeadline(now)
		_ = s.SetWriteDeadline(now.Add(srv.timeout / answerShare))
	}
	srv.running = nil
	srv.mu.Unlock()
	srv.done.Wait()
}

// handle is one exchange.
func (srv *server) handle(s network.Stream) {
	end := s.Stat().Opened.Add(srv.timeout)
	answerFrom := end.Add(-srv.timeout / answerShare)
	ctx, cancel := context.WithDeadline(context.Background(), answerFrom)
	defer cancel()
	// The deadlines stand before stop can see the stream and move them.
	err := errors.Join(s.SetReadDeadline(answerFrom), s.SetWriteDeadline(end))
	if err != nil || !srv.begin(s, cancel) {
		_ = s.Reset()
		return
	}
	defer srv.end(s)

	if err := srv.exchange(ctx, s); err != nil {
		srv.log.Debug("registration not answered", "peerID", s.Conn().RemotePeer(), "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// exchange reads a frame and answers it. An error means that there was nobody
// left to answer.
func (srv *server) exchange(ctx context.Context, s network.Stream) error {
	sender := ports.PeerID(s.Conn().RemotePeer().String())
	frame, err := wire.ReadFrame(s)
	tooLarge := errors.Is(err, wire.ErrFrameTooLarge)
	var lease ports.Lease
	switch {
	case err == nil:
		lease, err = srv.register(ctx, sender, frame)
	case tooLarge:
		srv.refused(sender, ports.CodeTooLarge)
	case timedOut(err) && errors.Is(ctx.Err(), context.Canceled):
		err = ports.Refuse(ports.CodeBusy, "this native is stopping; register with another")
	case timedOut(err):
		err = ports.Refuse(ports.CodeMalformed, "the frame had not ended %s after the stream was opened; end it with a newline",
			srv.timeout-srv.timeout/answerShare)
		srv.refused(sender, ports.CodeMalformed)
	}

	var answer []byte
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		answer, err = wire.EncodeRefusal(refusal)
	} else if err == nil {
		answer, err = wire.EncodeLease(lease)
	}
	if err != nil {
		return err
	}
	if _, err := s.Write(answer); err != nil {
		return err
	}
	if tooLarge {
		_ = s.CloseWrite()
		_, _ = io.CopyN(io.Discard, s, drainBytes)
	}
	return nil
}

// register decodes frame and asks the native. The error is a *ports.Refusal.
func (srv *server) register(ctx context.Context, sender ports.PeerID, frame []byte) (ports.Lease, error) {
	r, err := wire.DecodeRegistration(frame)
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		srv.refused(sender, refusal.Code)
		return ports.Lease{}, refusal
	}
	lease, err := srv.native.Register(ctx, sender, r)
	if err == nil {
		return lease, nil
	}
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok {
		srv.log.Warn("registration failed", "peerID", sender, "err", err)
		refusal = ports.Refuse(ports.CodeBusy, "the native could not answer; try again later")
	}
	return ports.Lease{}, refusal
}

// refused tells of what no Native hears of.
func (srv *server) refused(sender ports.PeerID, code ports.Code) {
	srv.observer.Observe(ports.Event{Kind: ports.EventRefused, PeerID: sender, Code: code})
}

func (srv *server) begin(s network.Stream, cancel context.CancelFunc) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.running == nil {
		return false
	}
	srv.running[s] = cancel
	srv.done.Add(1)
	return true
}

func (srv *server) end(s network.Stream) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.running, s)
	srv.done.Done()
}
