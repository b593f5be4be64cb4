package modules

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type indexerSection struct {
	Natives []string          `koanf:"natives" help:"natives to keep leases at: multiaddrs with /p2p/<PeerID>; with none, three of those that are found"`
	Meta    map[string]string `koanf:"meta" help:"what to tell about this indexer, name=value"`
	Streams bool              `koanf:"keep-streams" help:"send heartbeats over streams that stay open, however long they are apart"`
}

// indexerComments are the comments on indexerSection in a configuration file.
var indexerComments = map[string]Comment{
	"natives": {
		Text: "The natives to register with, two or three for when one dies: multiaddrs that end in /p2p/<PeerID>, " +
			"as a native's log and `ocnode status` print them. With none, it takes the natives of host.bootstrap, and three of " +
			"those that it finds through them, the DHT and mdns, and replaces one that does not answer. A node that is a native too " +
			"registers with itself then.",
		Indexer: "The natives to register with, two or three for when one dies: multiaddrs that end in /p2p/<PeerID>, " +
			"as a native's log and `ocnode status` print them. Or give one of these addresses as host.bootstrap instead: " +
			"then it registers there, and with three natives that are found through it, which are replaced when they die.\n\n" +
			"   natives:\n" +
			"     - /dns4/a.example/tcp/4101/p2p/12D3KooW…\n" +
			"     - /dns4/b.example/tcp/4101/p2p/12D3KooW…",
	},
	"meta": {Text: "What else to publish about this indexer, e.g. {zone: eu-1, version: 1.4.2}. At most 64 names, 1 KiB in all, and for everyone to read."},
	"keep-streams": {Text: "Send heartbeats over streams that stay open, so that natives tell others at once when this node's connection ends. " +
		"A native that wants to hear every 15 s or oftener gets such a stream anyway. Each takes some KiB there."},
}

var indexerModule = Module{
	Name:    "indexer",
	Summary: "registers this node and keeps leases at indexer.natives, or at three natives that it finds",
	About: "Register this node at indexer.natives, or at three natives that it finds, and keep the leases " +
		"there. On for whoever wants to be found.",
	Role:     true,
	Section:  indexerSection{Natives: []string{}, Meta: map[string]string{}},
	Comments: indexerComments,
	Check: func(p *Plan) {
		s := Settings[indexerSection](p, "indexer")
		p.CheckItems("indexer.natives", s.Natives, each(groupNatives))
		p.checkPrivate("indexer.natives", s.Natives)
		// In a DHT that nobody has joined nobody is found, so that is no way by itself.
		findable := p.On("native") || p.On("mdns") || len(Settings[hostSection](p, "host").Bootstrap) > 0
		if p.On("indexer") && len(s.Natives) == 0 && !findable {
			p.mistake("indexer.natives", append(append([]string{"modules.indexer"}, toggles...), "host.bootstrap"), "names no native to register with, and there is no way to find one; give the address of one, as its log and `ocnode status` tell it, here or in host.bootstrap to find more through it; or turn mdns on to find those of the local network, or turn native on to register with this node itself")
		}
		if refusal := ports.CheckMeta(s.Meta); refusal != nil {
			p.Mistake("indexer.meta", "%s", refusal.Message)
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, Settings[indexerSection](p, "indexer")),
			fx.Provide(newIndexer),
			fx.Invoke(func(x *client.Indexer, a *libp2phost.Addresses, t *Tasks, h *health, g *gauges) {
				a.Moved(x.Moved)
				g.leases.Store(x)
				h.doubt("indexer", func() string {
					if x.Superseded() {
						return "superseded: another process with this key has registered since; this one registers again once that has ended"
					}
					return ""
				})
				t.Run("indexer", nil, x.Run)
			}),
		)
	},
}

// groupNatives reads addresses with /p2p/<PeerID> and joins those of one native.
func groupNatives(addrs []string) (map[ports.PeerID][]string, error) {
	natives := make(map[ports.PeerID][]string)
	var errs []error
	for _, addr := range addrs {
		m, err := ma.NewMultiaddr(addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is not a multiaddr: %w", addr, err))
			continue
		}
		info, err := peer.AddrInfoFromP2pAddr(m)
		if err != nil || len(info.Addrs) == 0 {
			errs = append(errs, fmt.Errorf("%q must be an address that ends in /p2p/<PeerID>, such as /dns4/native.example/tcp/4101/p2p/12D3Koo…", addr))
			continue
		}
		id := ports.PeerID(info.ID.String())
		natives[id] = append(natives[id], info.Addrs[0].String())
	}
	return natives, errors.Join(errs...)
}

func newIndexer(p *Plan, s indexerSection, addresses *libp2phost.Addresses, transport *stream.Transport, self ports.PeerID, signer ports.Signer, natives *client.Natives, rules domain.Rules, observer ports.Observer) (*client.Indexer, error) {
	describe := func() ports.Registration {
		addrs := addresses.Registration(transport.Conns())
		r := ports.Registration{PeerID: self, Addrs: addrs, Meta: s.Meta}
		if len(addrs) > 0 {
			r.Addr = addrs[0]
		}
		return r
	}
	if !p.On("native") {
		rules.Clock.Abstain(domain.EnoughNatives)
	}
	x, err := client.NewIndexer(rules, signer, natives, describe, observer)
	if err == nil {
		x.KeepStreams = s.Streams
	}
	return x, err
}
