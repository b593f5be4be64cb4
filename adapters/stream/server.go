package stream

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/turns"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// answerShare reserves the last part of an exchange's time for the answer: 1 s of 5, since
	// an answer is one packet.
	answerShare = 5
	// drainBytes bounds the rest that is read and dropped of an oversized frame. A sender that
	// reads only after its whole write blocks on the window of its stream. Few oversized frames
	// are larger than 1 MiB.
	drainBytes = 1 << 20
)

// server serves a Native until it is stopped.
type server struct {
	transport *Transport
	native    ports.Native
	door      Door
	// turns bounds the pages that are listed and encoded at once.
	turns turns.Turns

	mu sync.Mutex
	// running holds the exchanges that stop hastens; nil after stop.
	running  map[network.Stream]context.CancelFunc
	watchers watchers
	told     encodings
	beaters  beaters
	done     sync.WaitGroup
}

func newServer(t *Transport, n ports.Native) *server {
	srv := &server{
		transport: t, native: n, door: t.guard.Door, turns: turns.New(),
		running: make(map[network.Stream]context.CancelFunc), beaters: make(beaters),
		watchers: watchers{max: cmp.Or(t.guard.Watchers, DefaultWatchers), of: make(map[ports.PeerID]int), sites: make(map[netip.Prefix]int)},
	}
	if srv.door == nil {
		srv.door = openDoor{}
	}
	return srv
}

// offer is a protocol and its handler.
type offer struct {
	protocol protocol.ID
	handle   network.StreamHandler
}

// offers returns the protocols. Registration is last: peers recognise a native by it, and must
// then find the other protocols at once.
func (srv *server) offers() []offer {
	return []offer{
		{ports.FollowProtocol, srv.handleUntimed(srv.follow)},
		{ports.HeartbeatProtocol, srv.handleUntimed(srv.beat)},
		{ports.WatchProtocol, srv.handleUntimed(srv.watch)},
		{ports.LookupProtocol, srv.handleUntimed(srv.lookUp)},
		{ports.LeaveProtocol, srv.handleTimed(srv.leave)},
		{Protocol, srv.handleTimed(srv.register)},
	}
}

// stop cuts off reads, hastens answers, and waits for both.
func (srv *server) stop() {
	srv.mu.Lock()
	now := time.Now()
	for s, cancel := range srv.running {
		cancel()
		_ = s.SetReadDeadline(now)
		_ = s.SetWriteDeadline(now.Add(srv.lastShare()))
	}
	srv.running = nil
	srv.mu.Unlock()
	srv.done.Wait()
}

// lastShare is the time reserved for an answer.
func (srv *server) lastShare() time.Duration { return srv.transport.timeout / answerShare }

// exchange reads a request and answers it. stop cancels ctx. An error means that no peer is left
// to answer.
type exchange func(ctx context.Context, s network.Stream) error

// handleTimed serves exchanges with a total of ports.ExchangeTimeout; their ctx ends when the
// share of the answer begins.
func (srv *server) handleTimed(e exchange) network.StreamHandler {
	return func(s network.Stream) {
		ctx, cancel := context.WithDeadline(context.Background(), srv.deadline(s).Add(-srv.lastShare()))
		defer cancel()
		srv.handle(ctx, cancel, s, e)
	}
}

// handleUntimed serves exchanges with that time for the frame alone; the exchange bounds the
// rest.
func (srv *server) handleUntimed(e exchange) network.StreamHandler {
	return func(s network.Stream) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		srv.handle(ctx, cancel, s, e)
	}
}

func (srv *server) deadline(s network.Stream) time.Time {
	return s.Stat().Opened.Add(srv.transport.timeout)
}

func (srv *server) handle(ctx context.Context, cancel context.CancelFunc, s network.Stream, e exchange) {
	end := srv.deadline(s)
	// The deadlines are set before stop sees the stream and moves them.
	err := errors.Join(s.SetReadDeadline(end.Add(-srv.lastShare())), s.SetWriteDeadline(end))
	if err != nil || !srv.begin(s, cancel) {
		_ = s.Reset()
		return
	}
	defer srv.finish(s)

	if err := e(ctx, s); err != nil {
		srv.transport.log.Debug("exchange not answered", "protocol", s.Protocol(), "peerID", s.Conn().RemotePeer(), "error", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
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

func (srv *server) finish(s network.Stream) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.running, s)
	srv.done.Done()
}

// readFrame reads a request. An error that is no *ports.Refusal means that no peer is left to
// answer.
func (srv *server) readFrame(ctx context.Context, s network.Stream) ([]byte, error) {
	frame, err := wire.ReadFrame(s)
	switch {
	case timedOut(err) && errors.Is(ctx.Err(), context.Canceled):
		err = stopping()
	case timedOut(err):
		err = ports.Refuse(ports.CodeMalformed, "the frame had not ended %s after the stream was opened; end it with a newline",
			srv.transport.timeout-srv.lastShare())
	}
	return frame, err
}

func stopping() *ports.Refusal {
	return ports.Refuse(ports.CodeBusy, "this native is stopping; ask another")
}

// refusal returns the refusal for err: a native's other errors become busy.
func (srv *server) refusal(s network.Stream, err error) *ports.Refusal {
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		return refusal
	}
	level := slog.LevelWarn
	if blame.IsTimeout(err) || errors.Is(err, context.Canceled) {
		level = slog.LevelDebug // a caller can cause it at will, by a PeerID that is nowhere
	}
	srv.transport.log.Log(context.Background(), level, "exchange failed", "protocol", s.Protocol(), "peerID", s.Conn().RemotePeer(), "error", err)
	return ports.Refuse(ports.CodeBusy, "the native could not answer; try again later")
}

// answer writes the answer, or the refusal if err is a *ports.Refusal. It returns any other err.
func (srv *server) answer(s network.Stream, answer []byte, err error) error {
	refusal, refused := errors.AsType[*ports.Refusal](err)
	if refused {
		answer, err = wire.EncodeRefusal(refusal)
	}
	if err != nil {
		return err
	}
	return writeAnswer(s, answer, refused && refusal == wire.ErrFrameTooLarge)
}

// writeAnswer writes the answer and, after an oversized frame, reads some of the rest.
func writeAnswer(s network.Stream, answer []byte, tooLarge bool) error {
	if _, err := s.Write(answer); err != nil {
		return err
	}
	if tooLarge {
		_ = s.CloseWrite()
		_, _ = io.CopyN(io.Discard, s, drainBytes)
	}
	return nil
}

// register serves a registration.
func (srv *server) register(ctx context.Context, s network.Stream) error {
	sender, from := srv.transport.sender(s.Conn()), comesFrom(s.Conn())
	err := srv.door.Hear(sender, from)
	var frame []byte
	if err == nil {
		frame, err = srv.readFrame(ctx, s)
	}
	var r ports.Registration
	if err == nil {
		r, err = wire.DecodeRegistration(frame, sender)
	}
	if err == nil {
		r, err = srv.door.Admit(ctx, sender, from, r)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		srv.observeRefusal(sender, refusal)
	}
	if err != nil {
		return srv.answer(s, nil, err)
	}
	lease, err := srv.native.Register(ctx, sender, r)
	srv.door.Settle(sender, err == nil)
	if err != nil {
		return srv.answer(s, nil, srv.refusal(s, err))
	}
	return srv.answer(s, wire.EncodeLease(lease), nil)
}

// observeRefusal reports a registration refused before the Native.
func (srv *server) observeRefusal(sender ports.PeerID, refusal *ports.Refusal) {
	e := ports.Event{Kind: ports.EventRefused, PeerID: sender, Code: refusal.Code}
	switch {
	case refusal.Limit != "":
		e.Err = refusal
	case refusal.Code == ports.CodeBusy: // this native stops
		return
	}
	srv.transport.observer.Observe(e)
}

// leave serves a leave.
func (srv *server) leave(ctx context.Context, s network.Stream) error {
	sender, from := srv.transport.sender(s.Conn()), comesFrom(s.Conn())
	err := srv.door.Hear(sender, from)
	var frame []byte
	if err == nil {
		frame, err = srv.readFrame(ctx, s)
	}
	var id ports.PeerID
	var record []byte
	if err == nil {
		id, record, err = wire.DecodeLeave(frame, sender)
	}
	if err == nil && id != sender {
		err = ports.Refuse(ports.CodePeerMismatch, "PeerID is %s, but the connection is that of %s; an indexer can end only its own lease", id, sender)
	}
	if err == nil {
		err = srv.door.AdmitLeave(sender, from)
	}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok && refusal.Limit != "" {
		srv.transport.observer.Observe(ports.Event{Kind: ports.EventLimited, PeerID: sender, Err: refusal})
	}
	if err != nil {
		return srv.answer(s, nil, err)
	}
	err = srv.native.Leave(ctx, sender, record)
	srv.door.SettleLeave(sender, err == nil)
	if err != nil {
		return srv.answer(s, nil, srv.refusal(s, err))
	}
	return srv.answer(s, wire.EncodeOK(), nil)
}
