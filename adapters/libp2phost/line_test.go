package libp2phost

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports/porttest"
)

func TestALineWorksIfAnybodyAnswers(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	answers := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			conn, other := net.Pipe()
			_ = other.Close()
			return conn, err
		}
	}
	hangs := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	const far, near = "/ip4/192.0.2.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"
	for _, tc := range []struct {
		name      string
		dial      func(context.Context, string, string) (net.Conn, error)
		addrs     []string
		connected bool
		want      bool
	}{
		{"a machine takes a connection", answers(nil), []string{far}, false, true},
		{"its process has ended", answers(refused), []string{far}, false, true},
		{"it is not reached", answers(errors.New("no route")), []string{far}, false, false},
		{"it does not answer", hangs, []string{far}, false, false},
		{"a name, and nonsense", answers(nil), []string{"/dns4/example.com/tcp/1", "nonsense", "/ip4/192.0.2.1"}, false, false},
		{"there is nobody to ask", answers(nil), nil, false, false},
		{"a peer of this machine answers, and it is about others", hangs, []string{far}, true, false},
		{"a peer of this machine answers, and it is about this machine", hangs, []string{near}, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHost(t, newKey(t), loopbackTCP)
			if tc.connected {
				if err := newHost(t, newKey(t), loopbackTCP).Connect(t.Context(), infoOf(h)); err != nil {
					t.Fatal(err)
				}
				porttest.Eventually(t, "the peer is connected", func() bool { return len(h.Network().Peers()) == 1 })
			}
			limit := porttest.Patience
			if !tc.want {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			l := NewLine(h, nil)
			l.dial = tc.dial
			if got := l.Works(ctx, tc.addrs); got != tc.want {
				t.Errorf("works: %v, want %v", got, tc.want)
			}
		})
	}
}
