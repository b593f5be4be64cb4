package modules

import (
	"context"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

var nativeModule = Module{
	Name:    "native",
	Summary: "the registry: takes registrations, keeps the live table, answers who is alive",
	About:   "Take registrations, keep the live table, answer who is alive. On for a shared, long-lived node.",
	On:      true,
	Role:    true,
	Wire: func(*Plan) fx.Option {
		return fx.Options(
			fx.Provide(newRegistry, newFollower, fx.Annotate(newScout, fx.ParamTags(``, ``, ``, ``, `group:"discoveries"`))),
			fx.Invoke(startNative),
		)
	},
}

func newRegistry(p *Plan, rules domain.Rules, follower *domain.Follower, store ports.Store, announcer ports.Announcer, observer ports.Observer, host host.Host, env Environment, t *trusted, g *gauges, h *health, followers *domain.Followers) (*domain.Registry, error) {
	limits := Settings[limitsSection](p, "limits")
	settings := domain.Settings{
		Bounds:   domain.Bounds{Entries: entries(limits.Entries, libp2phost.Memory()), Unfound: limits.Unfound, Trusted: ours(p, t)},
		Follower: follower, Followers: followers, Line: libp2phost.NewLine(host, env.Dial),
	}
	r, err := domain.NewRegistry(rules, settings, store, announcer, observer)
	if err != nil {
		return nil, err
	}
	g.registry.Store(r)
	h.doubt("native", func() string {
		switch c := r.Condition(); c {
		case ports.ConditionWarming, ports.ConditionUnheard:
			return string(c)
		}
		return ""
	})
	t.revise(func(*trust) { r.Revise() })
	return r, nil
}

// ours reports of a peer whether the operator has named it as a native: in trust.natives, or in
// host.bootstrap.
func ours(p *Plan, t *trusted) func(ports.PeerID) bool {
	bootstrap := make(map[ports.PeerID]bool)
	for _, addr := range Settings[hostSection](p, "host").Bootstrap {
		bootstrap[nativeAt(addr)] = true
	}
	delete(bootstrap, "") // a name, which does not say
	return func(id ports.PeerID) bool { return bootstrap[id] || t.now.Load().natives[id] }
}

// newFollower returns the follower of the natives that this one is connected to. No native
// comes to a node that knows of no other and that no other can know of, nor to a node whose
// list names no other.
func newFollower(p *Plan, rules domain.Rules, transport ports.Transport, joiner *libp2phost.Joiner, t *trusted, self ports.PeerID, first firstStart, followers *domain.Followers) *domain.Follower {
	natives := p.roster("trust.natives")
	alone := natives != nil && (len(natives) == 0 || len(natives) == 1 && natives[self])
	expected := !alone && (!bool(first) || len(Settings[hostSection](p, "host").Bootstrap) > 0 || p.On("mdns"))
	return domain.NewFollower(rules, transport, domain.FollowerSettings{Expected: expected, Bootstrap: joiner, Listed: t.lists, Followers: followers})
}

func newScout(rules domain.Rules, transport ports.Transport, follower *domain.Follower, joiner *libp2phost.Joiner, discoveries []ports.Discovery) *domain.Scout {
	return domain.NewScout(rules, transport, follower.Followed, joiner, discoveries...)
}

func startNative(r *domain.Registry, f *domain.Follower, s *domain.Scout, transport ports.Transport, t *Tasks) {
	var stop func()
	t.Run("native", func() (err error) {
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
	t.Run("native", nil, func(ctx context.Context) error { return f.Run(ctx, r) })
	t.Run("native", nil, s.Run)
}
