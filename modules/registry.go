package modules

import (
	"errors"
	"time"

	"github.com/opencloud/ocnode/adapters/bootclock"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

type registrySection struct {
	TTL       time.Duration `koanf:"ttl" help:"how long an entry lives without a heartbeat; the same in the whole network, longer than heartbeat"`
	Heartbeat time.Duration `koanf:"heartbeat" help:"how often an indexer renews"`
	Refresh   time.Duration `koanf:"refresh" help:"how often a native looks up whom it knows and cannot show alive; shorter than ttl"`
}

// registryComments are the comments on registrySection in a configuration file.
var registryComments = map[string]Comment{
	"":    {Text: "The times of the network, 10ms to 30m each."},
	"ttl": {Text: "How long an entry lives after its indexer's last heartbeat. Longer than heartbeat, and the same on every node of the network."},
	"heartbeat": {Text: "How often an indexer renews, at most; a native tells it to those that it grants a lease. Shorter " +
		"notices a death sooner, at the cost of more heartbeats."},
}

// registryModule holds the rules that every role shares: the times, and what makes
// an entry acceptable.
var registryModule = Module{
	Name:     "registry",
	Summary:  "the times that a network agrees on",
	Always:   true,
	Section:  registrySection(domain.DefaultTTLPolicy()),
	Comments: registryComments,
	Check: func(p *Plan) {
		err := domain.TTLPolicy(Settings[registrySection](p, "registry")).Validate()
		for _, err := range unjoin(err) {
			var setting *domain.PolicyError
			if !errors.As(err, &setting) {
				continue
			}
			var beside []string
			if setting.Beside != "" {
				beside = []string{"registry." + setting.Beside}
			}
			p.mistake("registry."+setting.Setting, beside, "%s", setting.Reason)
		}
	},
	Wire: func(p *Plan) fx.Option {
		return fx.Options(
			fx.Supply(fx.Private, Settings[registrySection](p, "registry")),
			fx.Provide(newRules, newClock, proof.NewVerifier, func() *domain.Followers { return new(domain.Followers) }),
		)
	},
}

func newClock(env Environment) *domain.Clock {
	if env.Elapsed == nil && env.Process {
		env.Elapsed = bootclock.Elapsed
	}
	return domain.NewClock(env.Now, env.Elapsed)
}

func newRules(s registrySection, self ports.PeerID, t *trusted, clock *domain.Clock, verifier *proof.Verifier) domain.Rules {
	return domain.Rules{
		Self: self, Policy: domain.TTLPolicy(s), CheckAddr: libp2phost.CheckAddr,
		Clock: clock, Proofs: verifier, Plain: t.plain, Indexers: t.indexer, Natives: t.native,
	}
}
