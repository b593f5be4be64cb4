package modules

import (
	"strings"

	"github.com/opencloud/ocnode/modules/config"
	"go.uber.org/fx"
)

// Module is one part of a node.
type Module struct {
	// Name is its toggle, and its section if it has one.
	Name string
	// Summary says in a line what it plugs in.
	Summary string
	// Always marks a part that every node has; it has no toggle.
	Always bool
	// On is its toggle's default.
	On bool
	// Section holds the defaults of its section, as config.Section has it; nil for none.
	Section any
	// Check adds to the plan what is wrong with its section, be the module on or off:
	// what is wrong now would be so when it is turned on.
	Check func(*Plan)
	// Wire returns what it plugs in. Invoked functions run, and the hooks that they
	// append start, in the order of the list of modules, and stop in reverse.
	Wire func(*Plan) fx.Option
	// Instead returns what stands in its place if it is off; nil for nothing.
	Instead func(*Plan) fx.Option
}

// Builtin returns the modules of ocnode, in the order in which they start. HTTP
// comes first, so that whoever asks how far the start has come is answered.
func Builtin() []Module {
	return []Module{
		logModule, telemetryModule, httpModule, dataModule, hostModule, registryModule,
		nativeModule, indexerModule, dhtModule, gossipModule,
	}
}

// Schema returns what can be configured of a list of modules.
func Schema(list []Module) *config.Schema {
	var toggles []config.Module
	var sections []config.Section
	for _, m := range list {
		if !m.Always {
			toggles = append(toggles, config.Module{Name: m.Name, Default: m.On, Help: m.Summary})
		}
		if m.Section != nil {
			sections = append(sections, config.Section{Name: m.Name, Default: m.Section})
		}
	}
	return config.NewSchema(toggles, sections)
}

// Plan is a composition under examination: which modules are on, with which
// settings, and what is wrong with that.
type Plan struct {
	config   *config.Config
	list     []Module
	on       map[string]bool
	mistakes []config.Mistake
}

// NewPlan chooses the modules that cfg turns on. The error is a *config.Error with
// all that does not add up.
func NewPlan(list []Module, cfg *config.Config) (*Plan, error) {
	p := &Plan{config: cfg, list: list, on: cfg.Modules()}
	p.checkToggles()
	for _, m := range list {
		if m.Check != nil {
			m.Check(p)
		}
	}
	if err := config.NewError(p.mistakes); err != nil {
		return nil, err
	}
	return p, nil
}

// checkToggles holds the modules that are on against each other.
func (p *Plan) checkToggles() {
	if !p.On("native") && !p.On("indexer") && !p.On("dht") {
		p.Mistake("modules", "a node with none of native, indexer and dht does nothing; turn one of them on, for example --modules native,dht,gossip")
	}
	if p.On("gossip") && !p.On("native") {
		p.Mistake("modules.gossip", "gossip is how natives tell each other who is alive, and this node is no native; turn native on too, or gossip off")
	}
}

// On reports whether a module is on.
func (p *Plan) On(name string) bool { return p.on[name] }

// Modules returns the names of the modules that are on, in the order of the list.
func (p *Plan) Modules() []string {
	var names []string
	for _, m := range p.list {
		if !m.Always && p.On(m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// IsSet reports whether anybody set a key.
func (p *Plan) IsSet(key string) bool { return p.config.IsSet(key) }

// Mistake notes what is wrong with a key.
func (p *Plan) Mistake(key, format string, args ...any) {
	p.mistakes = append(p.mistakes, p.config.Mistake(key, format, args...))
}

// check notes each of the errors that err joins.
func (p *Plan) check(key string, err error) {
	for _, err := range unjoin(err) {
		// An adapter's errors begin with the key, since it reports them at other times
		// too; a mistake says it anyway.
		p.Mistake(key, "%s", strings.TrimLeft(strings.TrimPrefix(err.Error(), key), ": "))
	}
}

// unjoin returns the errors that err joins, all the way down.
func unjoin(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil:
		return nil
	case !ok:
		return []error{err}
	}
	var errs []error
	for _, err := range joined.Unwrap() {
		errs = append(errs, unjoin(err)...)
	}
	return errs
}

// settings returns a module's section, in the type of its defaults.
func settings[T any](p *Plan, section string) T {
	s, err := config.Get[T](p.config, section)
	if err != nil {
		panic(err) // Load has held every value against this very type
	}
	return s
}

// wiring returns what all modules plug in or leave in their place.
func (p *Plan) wiring() fx.Option {
	var parts []fx.Option
	for _, m := range p.list {
		switch {
		case m.Always || p.On(m.Name):
			parts = append(parts, fx.Module(m.Name, m.Wire(p)))
		case m.Instead != nil:
			parts = append(parts, fx.Module("without "+m.Name, m.Instead(p)))
		}
	}
	return fx.Options(parts...)
}
