package stream

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/opencloud/ocnode/ports"
)

// twinsEvery is how often a followed native with several connections is asked again which of its
// runs is behind each, if that was not told, or if two processes have its key. Two natives that dial
// each other at once have two connections, so a second connection by itself means nothing.
const twinsEvery = 30 * time.Second

// errTwins is what the observer is told.
var errTwins = errors.New("two of its runs answer at once, each over a connection of its own")

// lookForTwins tells the observer of two processes with the key of n, until ctx ends.
func (n *remote) lookForTwins(ctx context.Context) {
	again := time.NewTicker(twinsEvery)
	defer again.Stop()
	var same []network.Conn // they lead to one run
	for {
		another := n.t.another()
		conns := n.t.host.Network().ConnsToPeer(n.info.ID)
		if len(conns) > 1 && slices.ContainsFunc(conns, func(c network.Conn) bool { return !slices.Contains(same, c) }) {
			answered, runs := n.runs(ctx, conns)
			if same = answered; runs > 1 {
				same = nil
				n.t.observer.Observe(ports.Event{Kind: ports.EventTwin, PeerID: ports.PeerID(n.info.ID.String()), Err: errTwins})
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-another:
		case <-again.C:
		}
	}
}

// another returns a channel that closes once a peer that is connected connects once more.
func (t *Transport) another() <-chan struct{} {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	return t.connected
}

func (t *Transport) connBegan(c network.Conn) {
	if len(t.host.Network().ConnsToPeer(c.RemotePeer())) < 2 {
		return
	}
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	close(t.connected)
	t.connected = make(chan struct{})
}

// runs returns which of conns n answers over, and of how many runs it tells. It asks over the
// newest connection first. If an older connection answers after that, its process still runs. A
// connection without an answer may be open on paper only.
func (n *remote) runs(ctx context.Context, conns []network.Conn) (answered []network.Conn, runs int) {
	starts := make(map[string]bool)
	slices.SortFunc(conns, func(a, b network.Conn) int { return b.Stat().Opened.Compare(a.Stat().Opened) })
	for _, c := range conns {
		start, err := n.start(ctx, c)
		if err != nil {
			continue
		}
		answered = append(answered, c)
		if start != "" { // a native of an earlier version says nothing
			starts[start] = true
		}
	}
	return answered, len(starts)
}

// start returns the Start of the run of n at the other end of c.
func (n *remote) start(ctx context.Context, c network.Conn) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, n.t.timeout)
	defer cancel()
	s, err := c.NewStream(ctx)
	if err != nil {
		return "", err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	_ = s.SetDeadline(time.Now().Add(n.t.timeout))
	of, err := multistream.SelectOneOf([]protocol.ID{ports.FollowProtocol, ports.WatchProtocol}, s)
	if err != nil {
		return "", err
	}
	if err := s.SetProtocol(of); err != nil {
		return "", err
	}
	from, err := n.request(s, ports.WatchRequest{Own: true})
	if err != nil {
		return "", err
	}
	batch, err := from.next()
	return batch.Start, err
}
