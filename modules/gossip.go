package modules

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/adapters/gossip"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

type gossipSection struct {
	Topic string `koanf:"topic" help:"the GossipSub topic of the registry, the same on every native"`
}

var gossipModule = Module{
	Name:    "gossip",
	Summary: "tells other natives over GossipSub who is alive, and hears them; without it, nobody is told",
	About:   "Tell the other natives who is alive, and hear them. Only for a native, and of use with dht.",
	On:      true,
	Fills:   Announcer,
	Section: gossipSection{Topic: gossip.DefaultTopic},
	Check: func(p *Plan) {
		if Settings[gossipSection](p, "gossip").Topic == "" {
			p.Mistake("gossip.topic", "must not be empty; the default is %s", gossip.DefaultTopic)
		}
		if p.On("gossip") && !p.On("native") {
			p.mistake("modules.gossip", toggles, "gossip is how natives tell each other who is alive, and this node is no native; turn native on too, or gossip off")
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, Settings[gossipSection](p, "gossip")),
			fx.Provide(newGossip),
			fx.Invoke(func(log *slog.Logger, store ports.Store) {
				if store.Joined() == nil { // it has no network
					log.With(loggerKey, loggerGossip).Warn("gossip without dht: this node hears who is alive elsewhere and cannot look it up; turn dht on to list what other natives hold")
				}
			}),
		)
	},
}

func newGossip(s gossipSection, h host.Host, t *trusted, followers *domain.Followers, metrics *prometheus.Registry, log *slog.Logger, closers *Closers) (ports.Announcer, error) {
	announcer, err := gossip.New(h, gossip.Config{Topic: s.Topic, Natives: t.native, Followers: followers, Metrics: metrics, Log: log.With(loggerKey, loggerPubSub)})
	if err != nil {
		return nil, err
	}
	closers.Add(announcer.Close)
	return announcer, nil
}
