package libp2phost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// twinEvery is how often the addresses of host.bootstrap with this node's own PeerID are
	// dialled: a handshake a minute is little, and a copied key is noticed soon.
	twinEvery = time.Minute
	// arrivalTimeout is how long after a handshake its other end may notice it: the machine may be
	// busy.
	arrivalTimeout = 2 * time.Second
)

// twins looks for another process with this node's key, at the addresses of host.bootstrap that have
// this node's own PeerID. Such an address may be this node's, and need not look like it: behind NAT,
// or by a name. libp2p does not dial its own PeerID. So a host with a throw-away key dials, and this
// node sees it arrive, or does not.
type twins struct {
	retry
	host  host.Host
	probe func() (host.Host, error)
	told  func(error)
	addrs []ma.Multiaddr // without /p2p/
	dial  time.Duration  // bounds each dial
}

// look dials each address. It tells of those at which another process has this node's key.
func (w *twins) look(ctx context.Context, addrs []ma.Multiaddr) error {
	probe, err := w.probe()
	if err != nil {
		return fmt.Errorf("make a host to dial with: %w", err)
	}
	defer probe.Close()
	arrived := make(chan struct{}, 1)
	arrivals := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == probe.ID() {
			select {
			case arrived <- struct{}{}:
			default:
			}
		}
	}}
	w.host.Network().Notify(arrivals)
	defer w.host.Network().StopNotify(arrivals)
	for _, addr := range addrs {
		if !w.reaches(ctx, probe, addr) {
			continue // nobody is there, or another peer
		}
		select {
		case <-arrived:
		case <-time.After(arrivalTimeout):
			w.told(fmt.Errorf("another process at %s, of host.bootstrap, has this node's key", addr))
		case <-ctx.Done():
			return ctx.Err()
		}
		_ = probe.Network().ClosePeer(w.host.ID())
	}
	return nil
}

// reaches reports whether a peer at addr proves this node's PeerID.
func (w *twins) reaches(ctx context.Context, probe host.Host, addr ma.Multiaddr) bool {
	ctx, cancel := context.WithTimeout(ctx, w.dial)
	defer cancel()
	probe.Peerstore().ClearAddrs(w.host.ID())
	return probe.Connect(ctx, peer.AddrInfo{ID: w.host.ID(), Addrs: []ma.Multiaddr{addr}}) == nil
}

// NewProbe returns a host with a throw-away key, for a Joiner. psk is as host.psk, and timeout as
// host.timeout.
func NewProbe(psk string, timeout time.Duration, extra ...libp2p.Option) (host.Host, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	secret, err := ReadPSK(psk)
	if err != nil {
		return nil, fmt.Errorf("host.psk: %w", err)
	}
	return New(Config{Key: key, PSK: secret, Timeout: timeout}, extra...)
}

// lookForTwins starts to look for another process with this node's key.
func (j *Joiner) lookForTwins(ctx context.Context) {
	addrs := j.twins.addrs
	for _, n := range j.names {
		addrs = append(addrs[:len(addrs):len(addrs)], n.own...)
	}
	j.start(ctx, &j.twins.retry, func(ctx context.Context) func() {
		err := j.twins.look(ctx, addrs)
		return func() {
			j.twins.next = time.Now().Add(twinEvery)
			if err != nil && !errors.Is(err, context.Canceled) {
				j.log.Debug("whether another process has this node's key is not known", "error", err)
			}
		}
	})
}
