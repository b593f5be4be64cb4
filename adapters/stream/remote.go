package stream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/opencloud/ocnode/adapters/internal/blame"
	"github.com/opencloud/ocnode/adapters/internal/redial"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// remote is a native behind a connection.
type remote struct {
	t    *Transport
	info peer.AddrInfo
	// disconnected is what Disconnected returns.
	disconnected atomic.Pointer[<-chan struct{}]
	reached      atomic.Pointer[string] // what Reached returns; nil is ""
	// watched is the connection of the last Watch, nil without one.
	watched atomic.Pointer[network.Conn]
}

// Disconnected implements ports.RemoteNative. If another connection to the native lives on, the
// next Register uses it.
func (n *remote) Disconnected() <-chan struct{} {
	if c := n.disconnected.Load(); c != nil {
		return *c
	}
	return nil
}

// Reached implements ports.RemoteNative.
func (n *remote) Reached() string {
	if addr := n.reached.Load(); addr != nil {
		return *addr
	}
	return ""
}

var _ ports.Suspecter = (*remote)(nil)

// Suspect implements ports.Suspecter.
func (n *remote) Suspect() {
	if c := n.watched.Swap(nil); c != nil {
		_ = (*c).Close() // an error is that of a connection that has ended
	}
}

// Register implements ports.Native. Over one connection it takes at most ports.ExchangeTimeout each
// to connect and open the stream, to write, and to wait for the answer.
func (n *remote) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (lease ports.Lease, err error) {
	if err := n.mayAskAs(sender, "register"); err != nil {
		return ports.Lease{}, err
	}
	frame, err := wire.EncodeRegistration(r)
	if err != nil {
		return ports.Lease{}, err
	}
	if life := ports.OpenStream(ctx); life == nil {
		n.t.open.end(n.info.ID)
	} else {
		if lease, err = n.beat(ctx, life, r, frame); !notOffered(err) && err != errNoStream {
			return lease, n.fault(ctx, "register with", err)
		}
	}
	err = n.insist(ctx, Protocol, frame, func(s network.Stream, writeErr error, wait time.Duration) error {
		var answered bool
		if lease, answered, err = n.answer(s, writeErr, wait); err != nil {
			return err
		}
		lease.Unconfirmed = !answered
		n.registeredOver(s.Conn())
		return nil
	})
	return lease, n.fault(ctx, "register with", err)
}

// registeredOver notes the connection of a successful Register.
func (n *remote) registeredOver(c network.Conn) {
	ended := n.t.ended(c)
	n.disconnected.Store(&ended)
	n.reached.Store(dialledAt(c))
}

// dialledAt returns the address that this node dialled for c, nil if the peer did.
func dialledAt(c network.Conn) *string {
	if c.Stat().Direction != network.DirOutbound {
		return nil
	}
	return new(c.RemoteMultiaddr().String())
}

// Leave implements ports.Native.
func (n *remote) Leave(ctx context.Context, sender ports.PeerID, record []byte) error {
	if err := n.mayAskAs(sender, "leave"); err != nil {
		return err
	}
	frame, err := wire.EncodeLeave(sender, record)
	if err != nil {
		return err
	}
	err = n.insist(ctx, ports.LeaveProtocol, frame, func(s network.Stream, writeErr error, wait time.Duration) error {
		_, answered, err := n.answer(s, writeErr, wait)
		if err == nil && !answered {
			err = errSilent
		}
		return err
	})
	return n.fault(ctx, "leave", err)
}

// insist is exchange for a request that may be sent twice.
func (n *remote) insist(ctx context.Context, of protocol.ID, frame []byte, read func(s network.Stream, writeErr error, wait time.Duration) error) error {
	return n.twice(ctx, func(wait func(network.Conn) time.Duration) (conn network.Conn, err error) {
		err = n.exchange(ctx, of, frame, func(s network.Stream, writeErr error) error {
			conn = s.Conn()
			return read(s, writeErr, wait(conn))
		})
		return conn, err
	})
}

// twice sends a request, and once more if need be. A connection that was there before may be open on
// paper only. If it breaks, or a native that can answer is silent on it, the request is sent over
// another connection. Each older connection is waited for half as long as the one before. send returns
// the connection that it used, nil if there was none, and is told how long to wait over it.
func (n *remote) twice(ctx context.Context, send func(wait func(network.Conn) time.Duration) (network.Conn, error)) error {
	began := time.Now()
	for patience := ports.Patience(ctx, n.t.timeout); ; patience /= 2 {
		old := false
		conn, err := send(func(c network.Conn) time.Duration {
			if old = c.Stat().Opened.Before(began); old {
				return patience
			}
			return n.t.timeout
		})
		silent := errors.Is(err, errSilent)
		if silent {
			_ = conn.Close()
		}
		if !old || ctx.Err() != nil || err == nil || !silent && !conn.IsClosed() {
			return err
		}
	}
}

// mayAskAs refuses requests in another identity's name.
func (n *remote) mayAskAs(sender ports.PeerID, what string) error {
	if sender == n.t.id {
		return nil
	}
	return fmt.Errorf("%s as %q at native %s: this node can prove no identity but its own, %s", what, sender, n.info.ID, n.t.id)
}

// fault adds the failed request to err, unless err is a refusal.
func (n *remote) fault(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if _, refused := errors.AsType[*ports.Refusal](err); refused {
		return err
	}
	if notOffered(err) {
		err = fmt.Errorf("%w: %w", ports.ErrNotOffered, err)
	}
	return fmt.Errorf("%s native %s: %w", what, n.info.ID, err)
}

// notOffered reports whether the native does not speak the protocol. libp2p writes at once to a
// native that it remembers speaking it; such a native resets the stream.
func notOffered(err error) bool {
	reset, ok := errors.AsType[*network.StreamError](err)
	return errors.Is(err, multistream.ErrNotSupported[protocol.ID]{}) ||
		ok && reset.Remote && reset.ErrorCode == network.StreamProtocolNegotiationFailed
}

// exchange writes frame on a new stream, and read takes the answer.
func (n *remote) exchange(ctx context.Context, of protocol.ID, frame []byte, read func(s network.Stream, writeErr error) error) error {
	s, err := n.open(ctx, of)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()

	_ = s.SetWriteDeadline(time.Now().Add(n.t.timeout))
	_, writeErr := s.Write(frame)
	if writeErr == nil {
		_ = s.CloseWrite() // over QUIC an error if the native has already closed: the frame is written
	}
	return read(s, writeErr)
}

// open connects and opens a stream for the first of the protocols that the native offers. Each attempt passes the addresses, since the peerstore
// forgets them. It dials at once, however often a dial to the native has failed.
// Without addresses it uses an open connection.
func (n *remote) open(ctx context.Context, of ...protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, n.t.timeout)
	defer cancel()
	if len(n.info.Addrs) > 0 {
		if err := redial.Connect(ctx, n.t.host, n.info); err != nil {
			return nil, fmt.Errorf("connect: %w", blame.Explain(err))
		}
	} else if n.t.host.Network().Connectedness(n.info.ID) != network.Connected {
		return nil, errors.New("not connected, and no address to connect to was given")
	}
	s, err := n.t.host.NewStream(network.WithNoDial(ctx, "connected already"), n.info.ID, of...)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", blame.Explain(err))
	}
	return s, nil
}

// errSilent is the silence of a native that can answer.
var errSilent = errors.New("it did not answer in time")

// answer reads the answer to a frame, for as long as wait. An answer may exist even though the write
// failed: a native refuses a frame before it has read it whole. The silence of a native that can
// answer is errSilent. Any other silence is no error.
func (n *remote) answer(s network.Stream, writeErr error, wait time.Duration) (lease ports.Lease, answered bool, err error) {
	deadline := time.Now().Add(wait)
	_ = s.SetReadDeadline(deadline)
	frame, err := wire.ReadFrame(s)
	// A connection that times out before the deadline is no silence.
	silent := err == nil || timedOut(err) && !time.Now().Before(deadline)
	switch {
	case err == nil && len(frame) > 0:
		n.hasAnswered()
		lease, err = wire.DecodeAnswer(frame)
		return lease, true, err
	case errors.Is(err, wire.ErrFrameTooLarge):
		// The answer is too large, not the frame, so this is no refusal.
		return ports.Lease{}, true, fmt.Errorf("its answer has more than %d bytes", ports.MaxFrameBytes)
	case writeErr != nil && !timedOut(writeErr):
		return ports.Lease{}, false, fmt.Errorf("write: %w", blame.Explain(writeErr))
	case err == nil && n.canAnswer():
		return ports.Lease{}, false, errors.New("it closed the stream without an answer")
	case silent && (n.canAnswer() || writeErr != nil):
		return ports.Lease{}, false, errSilent
	case silent:
		return ports.Lease{}, false, nil
	}
	return ports.Lease{}, false, fmt.Errorf("read the answer: %w", blame.Explain(err))
}

// answersKey marks a native in the peerstore that has answered a registration or a leave, with the
// agent that it was then: its operator may go back to a version that does not answer.
const answersKey = "ocnode/answers"

// hasAnswered notes that the native can answer. The peerstore forgets it a while after the last
// connection, with all that it knows of the native.
func (n *remote) hasAnswered() { _ = n.t.host.Peerstore().Put(n.info.ID, answersKey, n.agent()) }

// agent returns what the native says that it runs, nil if it has not.
func (n *remote) agent() any {
	agent, _ := n.t.host.Peerstore().Get(n.info.ID, "AgentVersion")
	return agent
}

// canAnswer reports whether the native has answered before, or offers more than a native of the seed.
func (n *remote) canAnswer() bool {
	if answered, err := n.t.host.Peerstore().Get(n.info.ID, answersKey); err == nil && answered == n.agent() {
		return true
	}
	more, err := n.t.host.Peerstore().SupportsProtocols(n.info.ID, ports.LookupProtocol)
	return err == nil && len(more) > 0
}
