package modules

import (
	"context"
	"log/slog"
	"math"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type hostSection struct {
	Listen    []string `koanf:"listen" help:"multiaddrs to listen on, TCP and QUIC; without native the default is free ports"`
	Announce  []string `koanf:"announce" help:"multiaddrs to tell others instead of the ones bound"`
	Bootstrap []string `koanf:"bootstrap" help:"peers to join through: multiaddrs with /p2p/<PeerID>, or /dnsaddr/<name>"`
}

// freePorts is where a node listens that nobody needs to find by its port.
var freePorts = []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1"}

var hostModule = Module{
	Name:    "host",
	Summary: "the libp2p host: listening, joining, limits",
	Always:  true,
	Section: hostSection{
		Listen:    []string{"/ip4/0.0.0.0/tcp/4101", "/ip6/::/tcp/4101", "/ip4/0.0.0.0/udp/4101/quic-v1", "/ip6/::/udp/4101/quic-v1"},
		Announce:  []string{},
		Bootstrap: []string{},
	},
	Check: func(p *Plan) {
		s := settings[hostSection](p, "host")
		if len(s.Listen) == 0 {
			p.Mistake("host.listen", "must not be empty; /ip4/0.0.0.0/tcp/0 takes any free port")
		}
		p.check("host.listen", second(libp2phost.ParseListen(s.Listen)))
		p.check("host.announce", second(libp2phost.ParseAnnounce(s.Announce)))
		p.check("host.bootstrap", second(libp2phost.ParseBootstrap(s.Bootstrap)))
	},
	Wire: func(p *Plan) fx.Option {
		s := settings[hostSection](p, "host")
		builtin := !p.IsSet("host.listen")
		if builtin && !p.On("native") {
			s.Listen = freePorts
		}
		return fx.Options(
			fx.Supply(fx.Private, s, builtinListen(builtin)),
			fx.Supply(announced(s.Announce)),
			fx.Provide(newHost, newTransport, newJoiner, fx.Annotate(hostAddrs, fx.ResultTags(`name:"addrs"`))),
			fx.Invoke(startHost),
		)
	},
}

// builtinListen marks a list of addresses that nobody chose: of these, a family that
// the machine lacks is passed over.
type builtinListen bool

// announced are the addresses that the operator wants told.
type announced []string

func newHost(s hostSection, key crypto.PrivKey, env Environment, closers *closers) (host.Host, error) {
	h, err := libp2phost.New(libp2phost.Config{Key: key, Announce: s.Announce, UserAgent: "ocnode/" + env.Version}, env.HostOptions...)
	if err != nil {
		return nil, err
	}
	closers.add(h.Close)
	return h, nil
}

func newTransport(h host.Host, observer ports.Observer, log *slog.Logger, closers *closers) (ports.Transport, error) {
	t, err := stream.New(h, observer, log.With("logger", "stream"))
	if err != nil {
		return nil, err
	}
	closers.add(func() error { t.Close(); return nil })
	return t, nil
}

// newJoiner keeps this node connected to its bootstrap peers, and to the natives
// that it met.
func newJoiner(s hostSection, dht dhtSection, h host.Host, log *slog.Logger) (*libp2phost.Joiner, error) {
	return libp2phost.NewJoiner(h, libp2phost.JoinerConfig{
		Bootstrap: s.Bootstrap,
		Natives:   []protocol.ID{stream.Protocol, kaddht.Protocol(protocol.ID(dht.Prefix))},
		Log:       log.With("logger", "host"),
	})
}

// hostAddrs tells where others can reach this node, the best address first.
func hostAddrs(h host.Host, announce announced) func() []string {
	return func() []string {
		addrs := libp2phost.Rank(h.Addrs(), announce, math.MaxInt)
		for i, addr := range addrs {
			if !strings.Contains(addr, "/p2p/") {
				addrs[i] = addr + "/p2p/" + h.ID().String()
			}
		}
		return addrs
	}
}

func startHost(s hostSection, builtin builtinListen, h host.Host, joiner *libp2phost.Joiner, t *tasks, log *slog.Logger) {
	t.run("host", func() error {
		passedOver, err := libp2phost.Listen(h, s.Listen, bool(builtin))
		if len(passedOver) > 0 && err == nil {
			log.Info("addresses passed over, this machine lacks their family", "addrs", passedOver)
		}
		return err
	}, func(ctx context.Context) error { return joiner.Run(ctx) })
}

func second[T any](_ T, err error) error { return err }
