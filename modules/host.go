package modules

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/adapters/gossip"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

type hostSection struct {
	Listen    []string      `koanf:"listen" help:"multiaddrs to listen on, TCP and QUIC; without native the default is free ports"`
	Announce  []string      `koanf:"announce" help:"multiaddrs to tell others instead of the ones bound"`
	Bootstrap []string      `koanf:"bootstrap" help:"peers to join through: multiaddrs with /p2p/<PeerID>, or /dnsaddr/<name>"`
	Timeout   time.Duration `koanf:"timeout" help:"how long a peer may take to connect, or to answer; more for a slow line"`
	PSK       string        `koanf:"psk" help:"the file of the private network's key: only who has it is spoken with, and over TCP only; \"\" for a public network"`
}

// hostComments are the comments on hostSection in a configuration file.
var hostComments = map[string]Comment{
	"listen": {
		Text: "Multiaddrs to listen on, TCP or QUIC; port 0 takes a free one. Each of them must be bound, or the " +
			"node stops.",
		LeftOut:              "a native takes these, as far as the machine has IPv4 and IPv6, and any other node takes free ports.",
		LeftOutWithoutNative: "these are taken, as far as the machine has IPv4 and IPv6.",
	},
	"announce": {
		Text: "Multiaddrs to tell others instead of those bound: set it behind NAT, in a container, or for a DNS " +
			"name, e.g. [/dns4/native-a.example/tcp/4101].",
		Indexer: "Multiaddrs to tell others instead of those bound: set it behind NAT, in a container, or for a DNS " +
			"name, e.g. [/dns4/indexer-a.example/tcp/4101].",
	},
	"bootstrap": {
		Text: "Peers to join the network through, mostly other natives: multiaddrs that end in /p2p/<PeerID>, or " +
			"/dnsaddr/<name>. With none, a native waits to be joined.",
		Indexer: "Natives to register with and to find others through, if indexer.natives pins none: multiaddrs that end in " +
			"/p2p/<PeerID>, or /dnsaddr/<name>. One is enough, and two that you trust are better: up to four are held for ever, " +
			"and asked whether the others tell of this indexer. With dht on, natives that they do not tell of are found too.",
	},
	"timeout": {Text: "How long this node waits for a peer: to connect, and then for each answer; 5s to 1m. The handshake of a peer that dials it " +
		"may take four fifths of it. A connection takes up to five round trips: raise it on both sides of a line whose round trip takes a second."},
	"psk": {Text: "The file of a private network's key, which `ocnode key psk FILE` makes: the same on every node and for " +
		"nobody else to read. Only who has it is spoken with, and over TCP only. \"\" for a network that is open to all."},
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
		Timeout:   libp2phost.DefaultTimeout,
	},
	Comments: hostComments,
	Check: func(p *Plan) {
		s := Settings[hostSection](p, "host")
		if len(s.Listen) == 0 {
			p.Mistake("host.listen", "must not be empty; /ip4/0.0.0.0/tcp/0 takes any free port")
		}
		p.CheckItems("host.listen", s.Listen, each(libp2phost.ParseListen))
		p.CheckItems("host.announce", s.Announce, each(libp2phost.ParseAnnounce))
		p.CheckItems("host.bootstrap", s.Bootstrap, each(libp2phost.ParseBootstrap))
		p.Check("host.timeout", libp2phost.CheckTimeout(s.Timeout))
		_, err := libp2phost.ReadPSK(s.PSK)
		p.Check("host.psk", err)
		if p.IsSet("host.listen") { // of the built-in list, effective leaves out what is of no use
			p.checkPrivate("host.listen", s.Listen)
		}
		p.checkPrivate("host.announce", s.Announce)
		p.checkPrivate("host.bootstrap", s.Bootstrap)
	},
	Wire: func(p *Plan) fx.Option {
		s := Settings[hostSection](p, "host")
		listen, builtin := effective(p.config, "host.listen")
		s.Listen = listen.([]string)
		return fx.Options(
			fx.Supply(fx.Private, s, builtinListen(builtin)),
			fx.Supply(fx.Private, Settings[dhtSection](p, "dht")), // on or not, it tells natives by
			fx.Provide(newAddresses, newHost, newTransport, newJoiner,
				fx.Annotate(func(a *libp2phost.Addresses, _ host.Host) func() []string { return a.All }, fx.ResultTags(`name:"addrs"`)),
				func(t *stream.Transport) ports.Transport { return t },
			),
			fx.Invoke(startHost),
		)
	},
}

// checkPrivate notes which addresses are of no use in the private network, if there is one.
func (p *Plan) checkPrivate(key string, addrs []string) {
	if Settings[hostSection](p, "host").PSK != "" {
		p.CheckItems(key, addrs, libp2phost.CheckPrivate)
	}
}

// builtinListen marks a list of addresses that nobody chose: of these, a family that
// the machine lacks is passed over.
type builtinListen bool

func newAddresses(s hostSection, env Environment, log *slog.Logger) *libp2phost.Addresses {
	return libp2phost.NewAddresses(s.Announce, env.Interfaces, log.With(loggerKey, loggerHost))
}

func newHost(p *Plan, s hostSection, addresses *libp2phost.Addresses, self ports.PeerID, key crypto.PrivKey, limits libp2phost.Limits, metrics *prometheus.Registry, env Environment, log *slog.Logger, closers *Closers) (host.Host, error) {
	psk, err := libp2phost.ReadPSK(s.PSK)
	if err != nil {
		return nil, fmt.Errorf("host.psk: %w", err)
	}
	// Only now is it known who this node is.
	p.CheckItems("host.announce", s.Announce, func(addr string) error { return libp2phost.CheckAddr(self, addr) })
	if err := config.NewError(p.mistakes); err != nil {
		return nil, err
	}
	h, err := libp2phost.New(libp2phost.Config{
		Key: key, PSK: psk, Announce: s.Announce, Addresses: addresses, Timeout: s.Timeout, UserAgent: "ocnode/" + env.Version, Limits: limits, Log: log.With(loggerKey, loggerHost), Metrics: metrics,
	}, env.HostOptions...)
	if err != nil {
		return nil, err
	}
	closers.Add(h.Close)
	return h, nil
}

func newTransport(p *Plan, s hostSection, h host.Host, door stream.Door, observer ports.Observer, log *slog.Logger, closers *Closers) (*stream.Transport, error) {
	t, err := stream.New(h, observer, log.With(loggerKey, loggerStream))
	if err != nil {
		return nil, err
	}
	t.SetTimeout(s.Timeout)
	t.Guard(stream.Guard{Door: door, Watchers: Settings[limitsSection](p, "limits").Watchers})
	closers.Add(func() error { t.Close(); return nil })
	return t, nil
}

// newJoiner keeps this node connected to its bootstrap peers, and to the natives
// that it met.
func newJoiner(p *Plan, s hostSection, dht dhtSection, h host.Host, limits libp2phost.Limits, addresses *libp2phost.Addresses, t *trusted, env Environment, observer ports.Observer, log *slog.Logger) (*libp2phost.Joiner, error) {
	log = log.With(loggerKey, loggerHost)
	var lonely func()
	// A native by itself without DHT and gossip shares with nobody, and an indexer is told
	// what becomes of each of its natives.
	if p.On("dht") && (!p.On("indexer") || len(Settings[indexerSection](p, "indexer").Natives) == 0) {
		lonely = func() {
			log.Info("alone so far: no other node has come, and host.bootstrap names none to join",
				"hint", "set host.bootstrap (--host.bootstrap) to an address of another node, as its ready line and `ocnode status` tell it; or start another with one of these",
				"addrs", addresses.All())
		}
	}
	natives := []protocol.ID{stream.Protocol, kaddht.Protocol(protocol.ID(dht.Prefix))}
	peers := slices.Concat(natives, gossip.Protocols) // whoever shares a routing table or a mesh with this node
	t.revise(func(was *trust) {
		if err := libp2phost.Part(h, peers, func(id ports.PeerID) bool { return t.nativeChanged(was, id) }); err != nil {
			log.Warn("trust.natives has changed, and some natives are still connected as they were", "error", err)
		}
	})
	return libp2phost.NewJoiner(h, libp2phost.JoinerConfig{
		Bootstrap:  s.Bootstrap,
		Natives:    natives,
		Remembered: limits.Natives(),
		Trusts:     t.native,
		Lonely:     lonely,
		Probe:      func() (host.Host, error) { return libp2phost.NewProbe(s.PSK, s.Timeout, env.HostOptions...) },
		Twin: func(err error) {
			observer.Observe(ports.Event{Kind: ports.EventTwin, PeerID: ports.PeerID(h.ID().String()), Err: err})
		},
		Timeout: s.Timeout,
		Log:     log,
	})
}

func startHost(s hostSection, builtin builtinListen, h host.Host, addresses *libp2phost.Addresses, transport *stream.Transport, joiner *libp2phost.Joiner, t *Tasks, log *slog.Logger) {
	t.Run("host", func() error {
		passedOver, err := libp2phost.Listen(h, s.Listen, bool(builtin))
		if len(passedOver) > 0 && err == nil {
			log.With(loggerKey, loggerHost).Info("addresses passed over, this machine lacks their family", "addrs", passedOver)
		}
		return err
	}, func(ctx context.Context) error { return joiner.Run(ctx) })
	addresses.Moved(joiner.Moved)
	t.Run("host", nil, func(ctx context.Context) error { return addresses.Watch(ctx, transport.Conns) })
}

// NewPSK returns the text of a file with a new private network key, for host.psk.
func NewPSK() string { return string(libp2phost.NewPSK()) }

// CreatePSK writes such a text to a file, 0600. A file that is there stays as it is; the
// error then matches fs.ErrExist.
func CreatePSK(path string) error { return libp2phost.CreatePSK(path) }

// each is the check of one item by what reads a list of them.
func each[T any](read func([]string) (T, error)) func(string) error {
	return func(item string) error {
		_, err := read([]string{item})
		return err
	}
}
