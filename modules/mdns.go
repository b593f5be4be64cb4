package modules

import (
	"log/slog"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/mdns"
	"go.uber.org/fx"
)

var mdnsModule = Module{
	Name:    "mdns",
	Summary: "finds natives on the local network, and has a native found there",
	About: "Find natives on the local network by multicast DNS, and have a native found there: no address of " +
		"anybody is needed then.",
	Wire: func(p *Plan) fx.Option {
		parts := []fx.Option{
			fx.Supply(fx.Private, Settings[dhtSection](p, "dht")), // on or not, its prefix names the network
			fx.Provide(newMDNS),
			Discover[*mdns.Discovery](),
		}
		if p.On("native") {
			parts = append(parts, fx.Invoke(func(d *mdns.Discovery, t *Tasks) {
				t.Run("mdns", nil, d.Advertise)
				t.Run("mdns", nil, d.Join)
			}))
		}
		return fx.Options(parts...)
	},
}

func newMDNS(s dhtSection, h host.Host, a *libp2phost.Addresses, log *slog.Logger) *mdns.Discovery {
	d := mdns.New(h, s.Prefix, a.Bound, log.With(loggerKey, loggerMDNS))
	a.Moved(d.Moved)
	return d
}
