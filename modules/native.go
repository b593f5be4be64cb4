package modules

import (
	"context"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

var nativeModule = Module{
	Name:    "native",
	Summary: "the registry: takes registrations, keeps the live table, answers who is alive",
	On:      true,
	Wire: func(*Plan) fx.Option {
		return fx.Options(
			fx.Provide(newRegistry),
			fx.Invoke(startNative),
		)
	},
}

func newRegistry(rules domain.Config, store ports.Store, announcer ports.Announcer, observer ports.Observer, g *gauges) (*domain.Registry, error) {
	r, err := domain.NewRegistry(rules, store, announcer, observer)
	g.registry.Store(r)
	return r, err
}

func startNative(r *domain.Registry, transport ports.Transport, t *tasks) {
	var stop func()
	t.run("native", func() (err error) {
		stop, err = transport.Serve(r)
		return err
	}, func(ctx context.Context) error {
		life, end := context.WithCancel(context.WithoutCancel(ctx))
		defer end()
		defer stop()
		// Nothing is served any more when the registry ends, so nothing that was answered is lost on it.
		defer context.AfterFunc(ctx, func() { stop(); end() })()
		return r.Run(life)
	})
}
