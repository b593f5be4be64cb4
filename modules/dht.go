package modules

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type dhtSection struct {
	Prefix string `koanf:"prefix" help:"prefix of the DHT's protocol ID; the same in the whole network"`
}

var dhtModule = Module{
	Name:    "dht",
	Summary: "stores entries in a Kademlia DHT; without it, in memory",
	On:      true,
	Section: dhtSection{Prefix: string(kaddht.DefaultPrefix)},
	Check: func(p *Plan) {
		sample := kaddht.Config{Prefix: protocol.ID(settings[dhtSection](p, "dht").Prefix), Accept: domain.Config{}.Acceptable, TTL: 1}
		p.check("dht.prefix", sample.Validate())
	},
	Wire: func(p *Plan) fx.Option {
		// A native serves the DHT, and so does a node that is nothing else; an indexer
		// comes and goes, and only asks.
		serve := dhtServer(p.On("native") || !p.On("indexer"))
		return fx.Options(
			fx.Supply(settings[dhtSection](p, "dht"), serve),
			fx.Provide(newDHT),
			fx.Invoke(func(t *tasks, _ ports.Store) { t.run("dht", nil, nil) }),
		)
	},
	Instead: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(settings[dhtSection](p, "dht")),
			fx.Provide(func(rules domain.Config) ports.Store { return memory.NewStore(rules.Acceptable) }),
		)
	},
}

type dhtServer bool

func newDHT(s dhtSection, serve dhtServer, h host.Host, rules domain.Config, log *slog.Logger, closers *closers) (ports.Store, error) {
	store, err := kaddht.New(h, kaddht.Config{
		Prefix: protocol.ID(s.Prefix), Server: bool(serve), Accept: rules.Acceptable, TTL: rules.Policy.TTL, Log: log.With("logger", "dht"),
	})
	if err != nil {
		return nil, err
	}
	closers.add(store.Close)
	return store, nil
}
