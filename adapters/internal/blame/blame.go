// Package blame tells which side refused or closed a libp2p connection or stream, and
// for which of its limits, as far as an error says.
package blame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multistream"
	"github.com/quic-go/quic-go"
)

// What a side says of itself in its own log when it refuses.
const (
	itsLog = "its log says which limit"
	ourLog = "the log of this node says which limit"
)

// silent is what may be the matter where no answer came in time.
const silent = "no answer came in time: the line may be slow (host.timeout), or a firewall drops what is sent"

// otherKeys is what else may be the matter with a connection that fails while it is
// secured: to each side, what the other writes is noise, and the first bytes of noise
// decide whether that is an error, or a length of something that never comes.
const otherKeys = "; if the addresses are right, the two may have different private network keys (host.psk), or only one of them has one"

// connCodes are what the other side may say as it closes a connection.
var connCodes = map[network.ConnErrorCode]string{
	network.ConnResourceLimitExceeded: "the other side refused the connection: a limit of its own is reached; " + itsLog,
	network.ConnRateLimited:           "the other side refused the connection: it is given too many at a time; try later",
	network.ConnGarbageCollected:      "the other side closed the connection, idle as it was, to make room for others",
	network.ConnShutdown:              "the other side is shutting down",
	network.ConnGated:                 "the other side refused the connection: it does not want this node",
	network.ConnNoError:               "the other side closed the connection",
}

// streamCodes are what the other side may say as it resets a stream.
var streamCodes = map[network.StreamErrorCode]string{
	network.StreamResourceLimitExceeded: "the other side refused the stream: a limit of its own is reached; " + itsLog,
	network.StreamRateLimited:           "the other side refused the stream: it is given too many at a time; try later",
	network.StreamGarbageCollected:      "the other side closed the stream, idle as it was, to make room for others",
	network.StreamShutdown:              "the other side is shutting down",
	network.StreamGated:                 "the other side refused the stream: it does not want this node",
	network.StreamNoError:               "the other side reset the stream",
}

// Explain returns err with a text that says first whom it blames and why, if that can
// be known, and has libp2p's list of what each address answered on one line.
func Explain(err error) error {
	text := oneLine(err)
	if by := Of(err); by != "" {
		text = by + ": " + text
	}
	return &explained{err, text}
}

type explained struct {
	err  error
	text string
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

func oneLine(err error) string {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return err.Error()
	}
	var causes []string
	if len(dial.DialErrors) == 0 {
		causes = append(causes, fmt.Sprint(dial.Cause))
	}
	for _, e := range dial.DialErrors {
		causes = append(causes, fmt.Sprintf("%s: %v", e.Address, e.Cause))
	}
	return strings.Join(causes, "; ")
}

// Of says whom err blames and why, "" if that cannot be known. Of several addresses'
// errors the one that says most counts.
func Of(err error) string {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		by, _ := of(err)
		return by
	}
	best, most := of(dial.Cause)
	for i := range dial.DialErrors {
		if by, says := of(dial.DialErrors[i].Cause); says > most {
			best, most = by, says
		}
	}
	return best
}

// of also returns how much an error says: a code says more than a connection that
// ended.
func of(err error) (by string, says int) {
	if err == nil {
		return "", 0
	}
	const nothing, late, ended, coded, own = 0, 1, 2, 3, 4
	if errors.Is(err, network.ErrResourceLimitExceeded) { // never comes from afar
		return "this node refused it itself: a limit of its own is reached; " + ourLog, own
	}
	if stream, ok := errors.AsType[*network.StreamError](err); ok && stream.Remote {
		if by, ok := streamCodes[stream.ErrorCode]; ok {
			return by, coded
		}
	}
	if conn, ok := errors.AsType[*network.ConnError](err); ok && conn.Remote {
		if by, ok := connCodes[conn.ErrorCode]; ok {
			return by, coded
		}
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
		if by, ok := connCodes[network.ConnErrorCode(app.ErrorCode)]; ok {
			return by, coded
		}
	}
	if transport, ok := errors.AsType[*quic.TransportError](err); ok && transport.Remote && transport.ErrorCode == quic.ConnectionRefused {
		return "the other side refused the connection, as it does if a limit of its own is reached; " + itsLog, coded
	}
	securing := strings.Contains(err.Error(), "failed to negotiate security protocol")
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", nothing // the error says it
	case !IsTimeout(err):
	case securing:
		return "the other side took the connection, and its handshake did not end in time: the line may be slow (host.timeout), " +
			"a firewall drops what is sent, or the other side is overloaded or out of open files" + otherKeys, ended
	default:
		return silent, late
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.HasSuffix(err.Error(), ": EOF") || strings.HasSuffix(err.Error(), syscall.ECONNRESET.Error()) {
		const early = "the other side closed the connection before it was set up, as it does if a limit of its own is reached; " + itsLog
		switch {
		case securing:
			return early + otherKeys, ended
		case strings.Contains(err.Error(), "failed to negotiate"): // in the handshake, before it could say why
			return early, ended
		}
		return "the other side closed the connection", ended
	}
	// Who is understood has the same key: TLS and Noise say so if it is somebody else, and
	// multistream if it offers neither of them.
	_, stranger := errors.AsType[sec.ErrPeerIDMismatch](err)
	understood := stranger || errors.Is(err, multistream.ErrNotSupported[protocol.ID]{})
	if securing && !understood && !errors.Is(err, context.Canceled) {
		return "the other side speaks no libp2p that this node understands" + otherKeys, ended
	}
	return "", nothing
}

// IsTimeout reports whether err says that no answer came in time. Each layer says it in its own way: a
// context that ends, the deadline of a socket, QUIC. Of several addresses one is enough.
func IsTimeout(err error) bool {
	if dial, ok := errors.AsType[*swarm.DialError](err); ok {
		return IsTimeout(dial.Cause) || slices.ContainsFunc(dial.DialErrors, func(e swarm.TransportError) bool { return IsTimeout(e.Cause) })
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}
