package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
)

// Protocol is the protocol of a registration.
const Protocol protocol.ID = ports.SubscribeProtocol

// Transport carries natives' methods over the streams of a libp2p host.
type Transport struct {
	host     host.Host
	id       ports.PeerID
	observer ports.Observer
	log      *slog.Logger
	// timeout is ports.ExchangeTimeout, unless SetTimeout changes it.
	timeout  time.Duration
	notifiee *network.NotifyBundle

	servingMu sync.Mutex
	serving   *server // nil while nothing is served
	closed    bool
	guard     Guard

	connsMu sync.Mutex
	// conns holds a channel for each connection with a successful registration, closed with the
	// connection; nil after Close.
	conns map[network.Conn]chan struct{}
	// senders holds the remote PeerID of each connection with a registration to this node. To
	// spell a PeerID takes as long as to decode a frame.
	senders map[network.Conn]ports.PeerID
	// beating counts the open streams of heartbeats of each connection. A stream that ends with its
	// connection stays counted.
	beating map[network.Conn]int
	// connected closes with the next connection of a peer that is connected already.
	connected chan struct{}

	neighbours neighbours
	open       openStreams
	ahead      chan struct{} // has a value for each watch that reads ahead
}

var _ ports.Transport = (*Transport)(nil)

// New returns a Transport over h. The caller closes h, after the Transport. The observer
// receives the registrations that the Transport refuses, since no Native sees a frame that does
// not decode, and the start and end of each watch. observer and log may be nil.
func New(h host.Host, observer ports.Observer, log *slog.Logger) (*Transport, error) {
	if h == nil {
		return nil, errors.New("stream transport: a host is required")
	}
	if observer == nil {
		observer = discard{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Transport{
		host: h, id: ports.PeerID(h.ID().String()), observer: observer, log: log,
		timeout: ports.ExchangeTimeout,
		conns:   make(map[network.Conn]chan struct{}),
		senders: make(map[network.Conn]ports.PeerID), beating: make(map[network.Conn]int), connected: make(chan struct{}),
		ahead: make(chan struct{}, maxAhead),
	}
	t.notifiee = &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { t.connBegan(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { t.connEnded(c) },
	}
	t.neighbours.init(h)
	h.Network().Notify(t.notifiee)
	return t, nil
}

// SetTimeout replaces ports.ExchangeTimeout on both sides of the exchanges of t, for a slow line.
// Peers count on ports.ExchangeTimeout at least. It must not be called after Native or Serve.
func (t *Transport) SetTimeout(timeout time.Duration) { t.timeout = timeout }

// discard is an observer that drops every event.
type discard struct{}

func (discard) Observe(ports.Event) {}

// Close stops serving and closes the channels of Disconnected, since nothing watches their
// connections any more. Natives that the Transport handed out still work: their callers end
// their calls.
func (t *Transport) Close() {
	t.servingMu.Lock()
	t.closed = true
	serving := t.serving
	t.servingMu.Unlock()
	if serving != nil {
		t.stop(serving)
	}
	t.host.Network().StopNotify(t.notifiee)
	t.neighbours.close()

	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	for _, ended := range t.conns {
		close(ended)
	}
	t.conns, t.senders, t.beating = nil, nil, nil
}

// Serve implements ports.Transport. A registration takes at most ports.ExchangeTimeout from the
// opening of its stream. The context of n ends early enough to answer in time.
func (t *Transport) Serve(n ports.Native) (stop func(), err error) {
	t.servingMu.Lock()
	defer t.servingMu.Unlock()
	switch {
	case t.closed:
		return nil, errors.New("serve: the transport is closed")
	case t.serving != nil:
		return nil, errors.New("serve: already serving; stop that first")
	}
	srv := newServer(t, n)
	t.serving = srv
	for _, offer := range srv.offers() {
		t.host.SetStreamHandler(offer.protocol, offer.handle)
	}
	return func() { t.stop(srv) }, nil
}

func (t *Transport) stop(srv *server) {
	t.servingMu.Lock()
	if t.serving == srv {
		for _, offer := range slices.Backward(srv.offers()) {
			t.host.RemoveStreamHandler(offer.protocol)
		}
		t.serving = nil
	}
	t.servingMu.Unlock()
	srv.stop()
}

// Native implements ports.Transport. The addresses are multiaddrs, with or without id's /p2p/
// part.
func (t *Transport) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	pid, err := peer.Decode(string(id))
	if err != nil {
		return nil, fmt.Errorf("native %q: %w", id, err)
	}
	info := peer.AddrInfo{ID: pid}
	for _, a := range addrs {
		addr, err := dialable(pid, a)
		if err != nil {
			return nil, fmt.Errorf("native %s: address %q: %w; want one as in /ip4/192.0.2.1/tcp/4101", id, a, err)
		}
		info.Addrs = append(info.Addrs, addr)
	}
	return &remote{t: t, info: info}, nil
}

// dialable returns the address without its /p2p/ part, which must be id's.
func dialable(id peer.ID, text string) (ma.Multiaddr, error) {
	addr, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, err
	}
	addr, named := peer.SplitAddr(addr)
	switch {
	case named != "" && named != id:
		return nil, fmt.Errorf("it is that of %s", named)
	case len(addr) == 0:
		return nil, errors.New("it has a PeerID and no address")
	}
	return addr, nil
}

// Conns returns the open connections over which natives have answered a registration.
func (t *Transport) Conns() []network.Conn {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	return slices.Collect(maps.Keys(t.conns))
}

// ended returns a channel that closes with c.
func (t *Transport) ended(c network.Conn) <-chan struct{} {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	if ended, ok := t.conns[c]; ok {
		return ended
	}
	ended := make(chan struct{})
	// libp2p marks a connection closed before it notifies: the notification of an open
	// connection is still to come.
	if t.conns == nil || c.IsClosed() {
		close(ended)
	} else {
		t.conns[c] = ended
	}
	return ended
}

func (t *Transport) connEnded(c network.Conn) {
	if sender, beating := t.forget(c); sender != "" && hungUp(c) && !t.handOn(c, sender, beating) {
		t.servingMu.Lock()
		srv := t.serving
		t.servingMu.Unlock()
		if srv == nil {
			return
		}
		if native, ok := srv.native.(ports.Hangups); ok {
			native.HungUp(sender, beating)
		}
	}
}

// forget drops what is kept of c, which has ended. It returns the remote PeerID if c brought a
// registration, and whether it carried an open stream of heartbeats.
func (t *Transport) forget(c network.Conn) (_ ports.PeerID, beating bool) {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	if ended, ok := t.conns[c]; ok {
		close(ended)
		delete(t.conns, c)
	}
	sender, beating := t.senders[c], t.beating[c] > 0
	delete(t.senders, c)
	delete(t.beating, c)
	return sender, beating
}

// handOn has another open connection of sender, if there is one, stand for c, which sender has ended: sender
// has hung up once it ends that one too.
func (t *Transport) handOn(c network.Conn, sender ports.PeerID, beating bool) bool {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	for _, other := range t.host.Network().ConnsToPeer(c.RemotePeer()) {
		if t.senders == nil || other.IsClosed() { // as in ended
			continue
		}
		t.senders[other] = sender
		if beating {
			t.beating[other]++
		}
		return true
	}
	return false
}

// beats counts an open stream of heartbeats of c until it has ended with an error that is not that of
// its connection.
func (t *Transport) beats(c network.Conn) (ended func(error)) {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	if t.senders[c] == "" {
		return func(error) {} // c has ended
	}
	t.beating[c]++
	return func(err error) {
		_, refused := errors.AsType[*ports.Refusal](err)
		_, reset := errors.AsType[*network.StreamError](err)
		t.connsMu.Lock()
		defer t.connsMu.Unlock()
		if t.beating == nil || c.IsClosed() || !(refused || reset || err == io.EOF || timedOut(err)) {
			return
		}
		if t.beating[c]--; t.beating[c] <= 0 {
			delete(t.beating, c)
		}
	}
}

// hungUp reports whether the other side has ended the connection c: by a close of libp2p, or since
// the kernel there has closed the TCP connection of a process that ended. Over QUIC nothing tells of
// such a process. A new stream of an ended connection fails with the reason of its end.
func hungUp(c network.Conn) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // an open connection then opens no stream
	s, err := c.NewStream(ctx)
	if err == nil {
		_ = s.Reset()
		return false
	}
	if closed, ok := errors.AsType[*network.ConnError](err); ok {
		return closed.Remote
	}
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// sender returns the remote PeerID of c.
func (t *Transport) sender(c network.Conn) ports.PeerID {
	t.connsMu.Lock()
	defer t.connsMu.Unlock()
	id, ok := t.senders[c]
	if !ok {
		id = ports.PeerID(c.RemotePeer().String())
		if t.senders != nil && !c.IsClosed() { // as in ended
			t.senders[c] = id
		}
	}
	return id
}

// timedOut reports whether err is a missed deadline of a stream.
func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
