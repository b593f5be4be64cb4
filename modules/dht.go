package modules

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

type dhtSection struct {
	Prefix string `koanf:"prefix" help:"the prefix of the DHT's protocol, the same on every node; another one is another network"`
}

var dhtModule = Module{
	Name:    "dht",
	Summary: "stores entries in a Kademlia DHT; without it, in memory",
	About:   "Store entries in a Kademlia DHT, so that they outlive their native. Off: in memory, for a native alone.",
	On:      true,
	Role:    true, // for a node that does nothing but hold others' entries
	Fills:   Store,
	Section: dhtSection{Prefix: string(kaddht.DefaultPrefix)},
	Check: func(p *Plan) {
		sample := kaddht.Config{Prefix: protocol.ID(Settings[dhtSection](p, "dht").Prefix), Accept: domain.Rules{}.Acceptable, Read: domain.Rules{}.ReadProof, TTL: 1}
		p.Check("dht.prefix", sample.Validate())
	},
	Wire: func(p *Plan) fx.Option {
		// A native serves the DHT, and so does a node that is nothing else; an indexer
		// comes and goes, and only asks.
		serve := dhtServer(p.On("native") || !p.On("indexer"))
		parts := []fx.Option{
			fx.Supply(fx.Private, Settings[dhtSection](p, "dht"), serve),
			fx.Provide(newDHT, func(s *kaddht.Store) ports.Store { return s }),
			Discover[*kaddht.Store](),
		}
		if p.On("native") {
			parts = append(parts, fx.Invoke(func(s *kaddht.Store, r *domain.Registry, t *Tasks) {
				s.Show(r.Published)
				t.Run("dht", nil, s.Advertise)
			}))
		}
		return fx.Options(parts...)
	},
}

type dhtServer bool

func newDHT(p *Plan, s dhtSection, serve dhtServer, h host.Host, rules domain.Rules, observer ports.Observer, t *trusted, metrics *prometheus.Registry, log *slog.Logger, closers *Closers, followers *domain.Followers) (*kaddht.Store, error) {
	store, err := kaddht.New(h, kaddht.Config{
		Prefix: protocol.ID(s.Prefix), Server: bool(serve), Accept: rules.Watched(observer), Read: rules.ReadProof, TTL: rules.Policy.TTL,
		Natives: t.native, Readers: t.indexer, Follows: followers.Has, MaxBytes: Settings[limitsSection](p, "limits").DHTMemory << 20,
		Metrics: metrics, Log: log.With(loggerKey, loggerDHT),
	})
	if err != nil {
		return nil, err
	}
	closers.Add(store.Close)
	t.revise(func(*trust) { store.Revise() })
	followers.OnChange(store.Refollow)
	return store, nil
}
