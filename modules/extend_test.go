package modules_test

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"go.uber.org/fx"
)

// The tally is a module as docs/adapters.md shows it: one that plugs in no port.

type tallySection struct {
	Every time.Duration `koanf:"every" live:"true" help:"how often the tally is logged"`
}

var tallyModule = modules.Module{
	Name:    "tally",
	Summary: "logs now and then how much has happened",
	Section: tallySection{Every: time.Minute},
	Check: func(p *modules.Plan) {
		if every(p) <= 0 {
			p.Mistake("tally.every", "%v is not more than 0s; the default is 1m", every(p))
		}
	},
	Wire: func(*modules.Plan) fx.Option {
		return fx.Options(fx.Supply(&tally{}), modules.Observe[*tally](), fx.Invoke(runTally))
	},
}

func every(p *modules.Plan) time.Duration { return modules.Settings[tallySection](p, "tally").Every }

type tally struct{ events atomic.Int64 }

func (t *tally) Observe(ports.Event) { t.events.Add(1) }

func runTally(t *tally, p *modules.Plan, reloads *modules.Reloads, tasks *modules.Tasks, log *slog.Logger) {
	ticker := time.NewTicker(every(p))
	reloads.Add(func(p *modules.Plan) { ticker.Reset(every(p)) })
	tasks.Run("tally", nil, func(ctx context.Context) error {
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				log.Info("tally", "events", t.events.Load())
			}
		}
	})
}

// awaited is a log that tells when a line of it matches.
type awaited struct {
	line  *regexp.Regexp
	found chan struct{}
	once  sync.Once
}

func await(line string) *awaited {
	return &awaited{line: regexp.MustCompile(line), found: make(chan struct{})}
}

func (a *awaited) Write(line []byte) (int, error) {
	if a.line.Match(line) {
		a.once.Do(func() { close(a.found) })
	}
	return len(line), nil
}

func TestAModuleFromOutsideObservesAndRunsAndReloads(t *testing.T) {
	settings := leastSettings(t)
	settings["modules"], settings["tally.every"] = "native,indexer,tally", "24h"
	plan, err := planOf(t, settings, tallyModule)
	if err != nil {
		t.Fatal(err)
	}
	settings["tally.every"] = "5ms"
	sooner, err := planOf(t, settings, tallyModule)
	if err != nil {
		t.Fatal(err)
	}
	log := await("msg=tally .*events=[1-9]")
	node, err := modules.New(plan, modules.Environment{Log: log, StopTimeout: porttest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer stop(t, node)
	node.Reload(sooner)
	select {
	case <-log.found: // its indexer registered with itself, and 24 h are not over
	case <-time.After(porttest.Patience):
		t.Error("nothing is tallied")
	}
}

func TestGossipWithAStoreThatHasNoNetworkIsWarnedOf(t *testing.T) {
	shelf := modules.Module{
		Name: "shelf", Summary: "a store of the tests", Fills: modules.Store,
		Wire: modules.Provide(func(rules domain.Rules) ports.Store { return memory.NewStore(rules.Acceptable) }),
	}
	for list, warned := range map[string]bool{"native,gossip": true, "native,gossip,shelf": true, "native,gossip,dht": false} {
		settings := leastSettings(t)
		settings["modules"] = list
		plan, err := planOf(t, settings, shelf)
		if err != nil {
			t.Fatal(err)
		}
		log := await("gossip without dht")
		node, err := modules.New(plan, modules.Environment{Log: log, StopTimeout: porttest.Patience})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-log.found:
			if !warned {
				t.Errorf("%s is warned of", list)
			}
		default:
			if warned {
				t.Errorf("%s is not warned of", list)
			}
		}
		stop(t, node)
	}
}

func TestModulesThatDoNotFitTogetherAreToldOf(t *testing.T) {
	newStore := func(rules domain.Rules) ports.Store { return memory.NewStore(rules.Acceptable) }
	for name, c := range map[string]struct {
		module modules.Module
		says   []string
	}{
		"a port is filled in secret": {
			modules.Module{Name: "shelf", Wire: modules.Provide(newStore)},
			[]string{"in Fills", "ports.Store", "already provided"},
		},
		"a port is filled with nothing": {
			modules.Module{Name: "shelf", Fills: modules.Store, Wire: modules.Provide()},
			[]string{"in Fills", "newRegistry", "missing type: ports.Store"},
		},
		"what nobody provides is asked for": {
			modules.Module{Name: "shelf", Fills: modules.Store, Wire: modules.Provide(func(*domain.Rules) ports.Store { return nil })},
			[]string{"extend_test.go", "missing type: *domain.Rules"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			settings := leastSettings(t)
			settings["modules"] = "native,shelf"
			plan, err := planOf(t, settings, c.module)
			if err != nil {
				t.Fatal(err)
			}
			_, err = modules.New(plan, modules.Environment{})
			if err == nil {
				t.Fatal("they fit together")
			}
			for _, want := range append(c.says, "do not fit together") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("it does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestAListThatIsNoneIsABrokenInvariant(t *testing.T) {
	wire := modules.Provide()
	for name, m := range map[string]modules.Module{
		`"" cannot be the name`:        {Wire: wire},
		`"dht" cannot be the name`:     {Name: "dht", Wire: wire},
		`"host" cannot be the name`:    {Name: "host", Wire: wire},
		`"modules" cannot be the name`: {Name: "modules", Wire: wire},
		"shelf has no Wire":            {Name: "shelf"},
		`shelf fills "Transport"`:      {Name: "shelf", Fills: "Transport", Wire: wire},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if said := fmt.Sprint(recover()); !strings.Contains(said, name) {
					t.Errorf("it says %s", said)
				}
			}()
			modules.Schema(append(modules.Builtin(), m))
		})
	}
}
