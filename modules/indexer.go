package modules

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type indexerSection struct {
	Natives []string          `koanf:"natives" help:"natives to keep leases at: multiaddrs with /p2p/<PeerID>"`
	Meta    map[string]string `koanf:"meta" help:"what to tell about this indexer, name=value"`
}

var indexerModule = Module{
	Name:    "indexer",
	Summary: "registers this node and keeps leases at indexer.natives",
	Section: indexerSection{Natives: []string{}, Meta: map[string]string{}},
	Check: func(p *Plan) {
		s := settings[indexerSection](p, "indexer")
		_, err := groupNatives(s.Natives)
		p.check("indexer.natives", err)
		if p.On("indexer") && len(s.Natives) == 0 && !p.On("native") {
			p.Mistake("indexer.natives", "names no native to register with; give the address of one, as its log and `ocnode status` tell it, or turn native on to register with this node itself")
		}
		size := 0
		for k, v := range s.Meta {
			size += len(k) + len(v)
		}
		if size > ports.MaxMetaBytes {
			p.Mistake("indexer.meta", "has %d bytes, names and values together; at most %d are allowed", size, ports.MaxMetaBytes)
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, settings[indexerSection](p, "indexer")),
			fx.Provide(newIndexer),
			fx.Invoke(func(x *domain.Indexer, t *tasks) { t.run("indexer", nil, x.Run) }),
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

// inProcess is the registry of this very node, if it is a native.
type inProcess struct {
	fx.In

	Registry *domain.Registry `optional:"true"`
}

func newIndexer(s indexerSection, announce announced, h host.Host, self ports.PeerID, here inProcess, rules domain.Config, transport ports.Transport, observer ports.Observer) (*domain.Indexer, error) {
	grouped, err := groupNatives(s.Natives)
	if err != nil {
		return nil, err
	}
	natives := make(map[ports.PeerID]ports.Native)
	for id, addrs := range grouped {
		if id == self && here.Registry != nil {
			continue // in process, below
		}
		native, err := transport.Native(id, addrs)
		if err != nil {
			return nil, fmt.Errorf("indexer.natives: %w", err)
		}
		natives[id] = native
	}
	if _, listed := grouped[self]; here.Registry != nil && (listed || len(grouped) == 0) {
		natives[self] = here.Registry
	}
	describe := func() ports.Registration {
		addrs := libp2phost.Rank(h.Addrs(), announce, ports.MaxAddrs)
		r := ports.Registration{PeerID: self, Addrs: addrs, Meta: s.Meta}
		if len(addrs) > 0 {
			r.Addr = addrs[0]
		}
		return r
	}
	return domain.NewIndexer(self, rules.Policy.Heartbeat, natives, describe, observer)
}
