package modules

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/adapters/gossip"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type gossipSection struct {
	Topic string `koanf:"topic" help:"the GossipSub topic of the registry; the same in the whole network"`
}

var gossipModule = Module{
	Name:    "gossip",
	Summary: "tells other natives over GossipSub who is alive, and hears them; without it, nobody is told",
	On:      true,
	Section: gossipSection{Topic: gossip.DefaultTopic},
	Check: func(p *Plan) {
		if settings[gossipSection](p, "gossip").Topic == "" {
			p.Mistake("gossip.topic", "must not be empty; the default is %s", gossip.DefaultTopic)
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, settings[gossipSection](p, "gossip")),
			fx.Provide(newGossip),
			fx.Invoke(func(t *tasks, log *slog.Logger, _ ports.Announcer) {
				t.run("gossip", nil, nil)
				if !p.On("dht") {
					log.Warn("gossip without dht: this node hears who is alive elsewhere and cannot look it up; turn dht on to list what other natives hold")
				}
			}),
		)
	},
	Instead: func(*Plan) fx.Option {
		return fx.Provide(func(self ports.PeerID) ports.Announcer { return memory.NewTopic().Join(self) })
	},
}

func newGossip(s gossipSection, h host.Host, log *slog.Logger, closers *closers) (ports.Announcer, error) {
	announcer, err := gossip.New(h, gossip.Config{Topic: s.Topic, Log: library(log, "gossip")})
	if err != nil {
		return nil, err
	}
	closers.add(announcer.Close)
	return announcer, nil
}
