package blame_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/quic-go/quic-go"

	"github.com/opencloud/ocnode/adapters/internal/blame"
)

// A peer with an IPv6 address, of a node that has no IPv6, is as silent at its other addresses.
func TestSilenceAtOneAddressIsFoundBesideAnother(t *testing.T) {
	noRoute := &net.OpError{Op: "dial", Net: "tcp6", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	for name, silence := range map[string]error{
		"context":        context.DeadlineExceeded,
		"socket":         &net.OpError{Op: "dial", Net: "tcp4", Err: os.ErrDeadlineExceeded},
		"kernel":         &net.OpError{Op: "dial", Net: "tcp4", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)},
		"QUIC":           &quic.IdleTimeoutError{},
		"QUIC handshake": &quic.HandshakeTimeoutError{},
	} {
		for order, errs := range [][]swarm.TransportError{
			{{Cause: silence}, {Cause: noRoute}},
			{{Cause: noRoute}, {Cause: silence}},
		} {
			err := fmt.Errorf("failed to dial: %w", &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: errs})
			if !blame.IsTimeout(err) {
				t.Errorf("%s, order %d: not taken for silence: %v", name, order, blame.Explain(err))
			}
		}
	}
	refused := &swarm.DialError{Cause: swarm.ErrAllDialsFailed, DialErrors: []swarm.TransportError{{Cause: noRoute}, {Cause: syscall.ECONNREFUSED}}}
	if blame.IsTimeout(refused) {
		t.Errorf("taken for silence: %v", refused)
	}
}
