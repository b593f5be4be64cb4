package modules

import (
	"fmt"

	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

// Discover is the part of a Wire that finds natives by the D, which the same Wire
// provides. What makes the D cannot ask for the *client.Natives.
func Discover[D ports.Discovery]() fx.Option {
	return fx.Provide(fx.Annotate(func(d D) ports.Discovery { return d }, fx.ResultTags(`group:"discoveries"`)))
}

// finderModule holds whom a node turns to for registrations and look-ups: a
// *client.Natives, and on a node that is no native and can ask others a *client.Finder.
var finderModule = Module{
	Name:    "finder",
	Summary: "the natives that this node turns to, given or found",
	Always:  true,
	Wire: func(p *Plan) fx.Option {
		if p.On("native") {
			return fx.Provide(newNatives)
		}
		return fx.Options(
			fx.Provide(newNatives, client.NewFinder),
			fx.Invoke(func(f *client.Finder, t *Tasks) { t.Run("finder", nil, f.Run) }),
		)
	},
}

type nativesDeps struct {
	fx.In

	Self ports.PeerID
	// Registry is that of this very node, if it is a native.
	Registry    *domain.Registry `optional:"true"`
	Transport   ports.Transport
	Trusted     *trusted
	Joiner      *libp2phost.Joiner
	Discoveries []ports.Discovery `group:"discoveries"`
}

func newNatives(p *Plan, d nativesDeps) (*client.Natives, error) {
	var given []string
	if p.On("indexer") {
		given = Settings[indexerSection](p, "indexer").Natives
	}
	grouped, err := groupNatives(given)
	if err != nil {
		return nil, err
	}
	own := make(map[ports.PeerID]ports.Native) // in process
	if _, listed := grouped[d.Self]; d.Registry != nil && (listed || len(grouped) == 0) {
		own[d.Self] = d.Registry
		delete(grouped, d.Self)
	}
	if len(own)+len(grouped) > 0 {
		natives := client.PinNatives(own)
		if err := natives.PinAt(d.Self, d.Transport, grouped, d.Discoveries...); err != nil {
			return nil, fmt.Errorf("indexer.natives: %w", err)
		}
		return natives, nil
	}
	natives := client.FindNatives(d.Self, d.Trusted.native, d.Transport, d.Discoveries...)
	natives.Heed(client.Hints{Bootstrap: d.Joiner.Configured, Site: libp2phost.Site})
	d.Trusted.revise(func(*trust) { natives.Revise() })
	return natives, nil
}
