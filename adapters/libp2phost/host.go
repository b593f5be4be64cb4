package libp2phost

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a host is made of.
type Config struct {
	Key crypto.PrivKey
	// Announce, if not empty, are the addresses that others are told instead of the
	// ones bound (host.announce).
	Announce []string
	// Addresses, if not nil, tell what others are told, instead of libp2p's own list of interfaces.
	Addresses *Addresses
	// PSK, if not nil, is the key of the private network that the host is in, as ReadPSK
	// reads it (host.psk). It then speaks with those alone that have it, over TCP alone.
	PSK pnet.PSK
	// UserAgent is what others see this node run, such as "ocnode/1.2.3".
	UserAgent string
	// Timeout is host.timeout; 0 is DefaultTimeout.
	Timeout time.Duration
	// Limits bounds connections and streams; the zero value stands for DefaultLimits.
	Limits Limits
	// Log is told of what the limits refuse; nil for nobody.
	Log *slog.Logger
	// Metrics takes the host's collectors and libp2p's; nil for none. It must be the
	// registerer of this host alone. libp2p has one set of collectors a process: all hosts
	// count into the same series, whatever their registerers.
	Metrics prometheus.Registerer
}

// New returns a host that does not listen yet and dials nobody by itself. extra is
// applied after the product's own options.
func New(cfg Config, extra ...libp2p.Option) (host.Host, error) {
	opts, err := Options(cfg)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(append(opts, extra...)...)
	if err == nil && cfg.Addresses != nil {
		cfg.Addresses.bind(h)
	}
	return h, err
}

// Options returns what New gives to libp2p. The package comment says why.
func Options(cfg Config) ([]libp2p.Option, error) {
	announce, err := ParseAnnounce(cfg.Announce)
	if err != nil {
		return nil, err
	}
	id, err := PeerIDOf(cfg.Key)
	if err != nil {
		return nil, err
	}
	for i, addr := range cfg.Announce {
		if err := CheckAddr(id, addr); err != nil {
			return nil, fmt.Errorf("host.announce: %w", err)
		}
		announce[i] = withoutPeer(announce[i])
	}
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	m, err := newMetrics(cfg.Metrics, cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("metrics of the host: %w", err)
	}
	timeouts := timeoutsOf(cfg.Timeout)
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Key),
		libp2p.UserAgent(cfg.UserAgent),
		libp2p.NoListenAddrs,
		libp2p.Transport(newTCP(timeouts)),
		libp2p.SwarmOpts(swarm.WithDialRanker(dialTCPFirst), swarm.WithDialTimeoutLocal(timeouts.addr)),
		libp2p.WithDialTimeout(timeouts.addr),
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(),
		libp2p.DisableIdentifyAddressDiscovery(),
		cfg.Limits.apply(newRefusals(cfg.Limits, cfg.Log, m), m),
	}
	if cfg.PSK == nil {
		opts = append(opts, libp2p.Transport(quic.NewTransport))
	} else {
		opts = append(opts, libp2p.PrivateNetwork(cfg.PSK)) // which QUIC has no place for
	}
	switch {
	case len(announce) > 0:
		opts = append(opts, libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return slices.Clone(announce) }))
	case cfg.Addresses != nil:
		opts = append(opts, libp2p.AddrsFactory(cfg.Addresses.told))
	}
	if m == nil {
		return append(opts, libp2p.DisableMetrics()), nil
	}
	return append(opts, libp2p.PrometheusRegisterer(kept{cfg.Metrics})), nil
}

// apply makes the managers when the host is made, since their goroutines end with it.
func (l Limits) apply(told *refusals, m *metrics) libp2p.Option {
	return func(cfg *libp2p.Config) error {
		conns, err := l.connManager()
		if err != nil {
			return err
		}
		resources, err := l.resourceManager(m)
		if err != nil {
			return errors.Join(err, conns.Close())
		}
		return cfg.Apply(
			libp2p.ConnectionManager(&watchedConns{conns, told}),
			libp2p.ResourceManager(&watchedResources{resources, told}),
		)
	}
}

// dialTCPFirst ranks as libp2p does (private, public, relayed; IPv6 a little before
// IPv4), but for QUIC, which it puts behind TCP: an idle TCP connection holds 39 KB
// where QUIC holds 67, and the kernel closes a killed process's TCP connections at
// once where QUIC takes 30 s to miss it. If TCP is refused, QUIC follows without delay.
func dialTCPFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	var first, then []ma.Multiaddr
	for _, addr := range addrs {
		if hasProtocol(addr, ma.P_TCP) {
			first = append(first, addr)
		} else {
			then = append(then, addr)
		}
	}
	ranked := swarm.DefaultDialRanker(first)
	offset := swarm.PublicQUICDelay
	for _, dial := range ranked {
		offset = max(offset, dial.Delay+swarm.PublicQUICDelay)
	}
	if len(first) == 0 {
		offset = 0
	}
	for _, dial := range swarm.DefaultDialRanker(then) {
		dial.Delay += offset
		ranked = append(ranked, dial)
	}
	return ranked
}

// Listen binds every address of host.listen. The error names each that could not be
// bound, why, and what to do; the caller closes h then, which frees the others.
//
// optional is for the built-in list: an IP family that the machine lacks is passed
// over, and returned, unless nothing remains.
func Listen(h host.Host, addrs []string, optional bool) (passedOver []string, err error) {
	parsed, err := ParseListen(addrs)
	if err != nil {
		return nil, err
	}
	// Network.Listen is content if it binds one of them.
	listener, ok := h.Network().(interface{ AddListenAddr(ma.Multiaddr) error })
	if !ok {
		return nil, fmt.Errorf("%T cannot listen on one address at a time", h.Network())
	}
	var errs []error
	for _, addr := range ma.Unique(parsed) {
		err := listener.AddListenAddr(addr)
		switch {
		case err == nil:
		case optional && manet.IsIPUnspecified(addr) && lacksFamily(err):
			passedOver = append(passedOver, addr.String())
		default:
			errs = append(errs, fmt.Errorf("listen on %s: %w: %s", addr, err, mend(err)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return passedOver, err
	}
	if len(addrs) > 0 && len(passedOver) == len(parsed) {
		return passedOver, errors.New("this machine has neither IPv4 nor IPv6: set host.listen")
	}
	return passedOver, nil
}

func lacksFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// mend says what to do about an address that could not be bound.
func mend(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "stop the process that has this port, or choose another in host.listen"
	case lacksFamily(err):
		return "host.listen must name addresses of this machine"
	case errors.Is(err, fs.ErrPermission):
		return "choose a port above 1023 in host.listen, or give the process the right to bind this one"
	default:
		return "choose another address in host.listen"
	}
}
