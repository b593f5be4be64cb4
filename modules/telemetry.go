package modules

import (
	"log/slog"
	"sync/atomic"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/telemetry"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/fx"
)

// telemetryModule makes log lines and metrics from what happens. The metrics are
// the node's own: several nodes in one process count apart.
var telemetryModule = Module{
	Name:    "telemetry",
	Summary: "log lines and metrics from what happens",
	Always:  true,
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(&gauges{native: p.On("native"), indexer: p.On("indexer"), policy: Settings[registrySection](p, "registry")}),
			fx.Provide(telemetry.NewRegistry, newObserver),
		)
	},
}

// gauges is where scrapes read the sizes of the registry, which is made after the
// observer that it tells what happens.
type gauges struct {
	native   bool
	indexer  bool
	policy   registrySection
	registry atomic.Pointer[domain.Registry]
	leases   atomic.Pointer[client.Indexer]
}

func (g *gauges) leasesSeen() (confirmed, doubted, unasked int) {
	if x := g.leases.Load(); x != nil {
		return x.Leases()
	}
	return 0, 0, 0
}

func (g *gauges) counts() (live, known int) {
	if r := g.registry.Load(); r != nil {
		return r.Counts()
	}
	return 0, 0
}

func (g *gauges) stale() int {
	if r := g.registry.Load(); r != nil {
		return r.Stale()
	}
	return 0
}

func (g *gauges) waiting() int {
	if r := g.registry.Load(); r != nil {
		return r.Waiting()
	}
	return 0
}

func (g *gauges) avoided() (puts, announcements uint64) {
	if r := g.registry.Load(); r != nil {
		return r.Avoided()
	}
	return 0, 0
}

func (g *gauges) heldBack() uint64 {
	if r := g.registry.Load(); r != nil {
		return r.HeldBack()
	}
	return 0
}

func (g *gauges) following() int {
	if r := g.registry.Load(); r != nil {
		return r.Following()
	}
	return 0
}

func (g *gauges) condition() ports.Condition {
	if r := g.registry.Load(); r != nil {
		return r.Condition()
	}
	return ""
}

func newObserver(metrics *prometheus.Registry, g *gauges, h *health, clock *domain.Clock, verifier *proof.Verifier, log *slog.Logger, env Environment) (ports.Observer, error) {
	sources := telemetry.Sources{
		Version: env.Version, TTL: g.policy.TTL, Heartbeat: g.policy.Heartbeat, Indexer: g.indexer,
		Ready: func() bool { return len(h.reasons()) == 0 },
	}
	if g.native {
		sources.Counts, sources.Stale, sources.OutboxWaiting = g.counts, g.stale, g.waiting
		sources.Following, sources.Condition, sources.Avoided = g.following, g.condition, g.avoided
		sources.HeldBack = g.heldBack
	}
	if g.indexer {
		sources.Leases = g.leasesSeen
	}
	sources.ClockOffset, sources.Signatures = clock.Offset, verifier.Signatures
	m, err := telemetry.NewMetrics(metrics, sources)
	if err != nil {
		return nil, err
	}
	return append(telemetry.Observers{m, telemetry.NewLog(log.With(loggerKey, loggerRegistry), log.With(loggerKey, loggerIndexer))}, env.Observers...), nil
}
