package modules

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/telemetry"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/dig"
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
	// Role marks what a node can be there for: it has at least one.
	Role bool
	// Fills is the port that it plugs an adapter into, "" for none. One module at a time
	// fills a port; where none does, memory stands in.
	Fills Port
	// Section holds the defaults of its section, as config.Section has it; nil for none.
	Section any
	// About is the comment on its toggle in a configuration file, "" for Summary.
	About string
	// Comments are those on its section: on a key by its name there, on the section as a
	// whole by "". The tag `help` is the comment on any other key. It is a line of run --help,
	// too, so a key that needs more words than a line has both.
	Comments map[string]Comment
	// Check adds to the plan what is wrong with its section, be the module on or off:
	// what is wrong now would be so when it is turned on.
	Check func(*Plan)
	// Wire returns what it plugs in. Invoked functions run, and the hooks that they
	// append start, in the order of the list of modules, and stop in reverse. What fills
	// a port need not be invoked.
	Wire func(*Plan) fx.Option
}

// Provide is the Wire of a module that needs no more than constructors. They are called
// if something asks for what they return, and ask for what they need by its type: the
// *Plan, for their Settings; domain.Rules, the rules; ports.PeerID, this node's own;
// DataDir, *Closers, *Tasks, *Reloads, *slog.Logger; and whatever else a module provides.
func Provide(constructors ...any) func(*Plan) fx.Option {
	return func(*Plan) fx.Option { return fx.Provide(constructors...) }
}

// Observe is the part of a Wire that tells the T, which the same Wire provides, what
// happens in the registry and to the leases. What makes the T cannot ask for what tells
// it, such as the *domain.Registry.
func Observe[T ports.Observer]() fx.Option {
	return fx.Provide(fx.Annotate(func(o T) ports.Observer { return o }, fx.ResultTags(`group:"observers"`)))
}

// observed is the observer of the telemetry module, and with it those that modules add.
var observed = fx.Decorate(fx.Annotate(func(own ports.Observer, added []ports.Observer) ports.Observer {
	return append(telemetry.Observers{own}, added...)
}, fx.ParamTags("", `group:"observers"`)))

// Port is one of the ports that a module can fill.
type Port string

// The ports, by the names of their interfaces.
const (
	Store     Port = "Store"
	Announcer Port = "Announcer"
)

// socket has what stands in for a port when no module fills it, and what makes sure
// that the one which does is there, be it used or not.
type socket struct {
	port            Port
	memory, require any
}

var sockets = []socket{
	{
		Store,
		func(rules domain.Rules) ports.Store { return memory.NewStore(rules.Acceptable) },
		func(ports.Store) {},
	},
	{
		Announcer,
		func(self ports.PeerID) ports.Announcer { return memory.NewTopic().Join(self) },
		func(ports.Announcer) {},
	},
}

// Builtin returns the modules of ocnode, in the order in which they start. HTTP
// comes first, so that whoever asks how far the start has come is answered.
func Builtin() []Module {
	return []Module{
		logModule, telemetryModule, httpModule, dataModule, limitsModule, trustModule, hostModule, registryModule,
		finderModule, nativeModule, indexerModule, dhtModule, gossipModule, mdnsModule,
	}
}

// Schema returns what can be configured of a list of modules. It panics if the list
// cannot be one: what Module asks for is missing, or a name is taken.
func Schema(list []Module) *config.Schema {
	checkList(list)
	var switches []config.Module
	var sections []config.Section
	for _, m := range list {
		if !m.Always {
			switches = append(switches, config.Module{Name: m.Name, Default: m.On, Help: m.Summary})
		}
		if m.Section != nil {
			sections = append(sections, config.Section{Name: m.Name, Default: m.Section})
		}
	}
	return config.NewSchema(switches, sections)
}

// checkList panics if list cannot be a list of modules.
func checkList(list []Module) {
	names := map[string]bool{"": true, toggles[0]: true}
	for _, m := range list {
		fillable := m.Fills == "" || slices.ContainsFunc(sockets, func(s socket) bool { return s.port == m.Fills })
		switch {
		case names[m.Name]:
			panic(fmt.Sprintf("modules: %q cannot be the name of one more module", m.Name))
		case m.Wire == nil:
			panic(fmt.Sprintf("modules: %s has no Wire; Provide is the simplest", m.Name))
		case !fillable:
			panic(fmt.Sprintf("modules: %s fills %q, which is no port that a module can fill", m.Name, m.Fills))
		}
		names[m.Name] = true
	}
}

// toggles are beside each key that is held against what is on.
var toggles = []string{"modules"}

// Plan is a composition under examination: which modules are on, with which
// settings, and what is wrong with that.
type Plan struct {
	config   *config.Config
	list     []Module
	on       map[string]bool
	mistakes []config.Mistake
	// contents are what the files hold that live keys name, as of when they were checked.
	contents map[string]any
}

// NewPlan chooses the modules that cfg turns on. The error is a *config.Error with
// all that does not add up, and all that cfg was loaded with.
func NewPlan(list []Module, cfg *config.Config) (*Plan, error) {
	p := &Plan{config: cfg, list: list, on: cfg.Modules(), mistakes: cfg.Mistakes()}
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
	var roles []string
	idle, fills := true, map[Port]string{}
	for _, m := range p.list {
		if m.Role {
			roles = append(roles, m.Name)
			idle = idle && !p.On(m.Name)
		}
		if m.Fills == "" || !p.On(m.Name) {
			continue
		}
		if other, taken := fills[m.Fills]; taken {
			p.Mistake("modules."+m.Name, "%s and %s both plug in the %s; turn one of them off, for example with --modules and the list of those to be on", other, m.Name, m.Fills)
		}
		fills[m.Fills] = m.Name
	}
	if idle {
		p.Mistake("modules", "a node with none of %s does nothing; turn one of them on, for example --modules native,dht,gossip", strings.Join(roles, ", "))
	}
}

// On reports whether a module is on.
func (p *Plan) On(name string) bool { return p.on[name] }

// Filled reports whether a module that is on fills a port; memory does not count.
func (p *Plan) Filled(port Port) bool {
	return slices.ContainsFunc(p.list, func(m Module) bool { return m.Fills == port && p.On(m.Name) })
}

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

// Mistake notes what is wrong with a key. It is left out if the key's form is wrong
// already, or one of those keys that were held against it.
func (p *Plan) Mistake(key, format string, args ...any) { p.mistake(key, nil, format, args...) }

// ItemMistake notes what is wrong with one item of a key, where that stands: of a map by
// its name, and of a list by its place there, "0" for the first. It is left out if the
// key as a whole has the wrong form, and not if other items have.
func (p *Plan) ItemMistake(key, item, format string, args ...any) {
	if p.config.Lost(key) {
		return
	}
	m := p.config.Mistake(key, format, args...)
	m.Origin = p.config.ItemOrigin(key, item)
	p.mistakes = append(p.mistakes, m)
}

func (p *Plan) mistake(key string, beside []string, format string, args ...any) {
	if p.config.Malformed(key) || slices.ContainsFunc(beside, p.config.Unclear) {
		return
	}
	m := p.config.Mistake(key, format, args...)
	if i := slices.IndexFunc(beside, p.IsSet); i >= 0 && !p.IsSet(key) {
		m.Origin = p.config.Origin(beside[i]) // whoever set that has to look there
	}
	p.mistakes = append(p.mistakes, m)
}

// Check notes each of the errors that err joins, of what was given for a key.
func (p *Plan) Check(key string, err error) {
	for _, err := range unjoin(err) {
		p.Mistake(key, "%s", withoutKey(key, err))
	}
}

// CheckItems does the same for every item of a list, with what check says of it alone.
func (p *Plan) CheckItems(key string, items []string, check func(item string) error) {
	for i, item := range items {
		for _, err := range unjoin(check(item)) {
			p.ItemMistake(key, strconv.Itoa(i), "%s", withoutKey(key, err))
		}
	}
}

// withoutKey is the text of an adapter's error, which begins with the key, since it is
// reported at other times too; a mistake says the key anyway.
func withoutKey(key string, err error) string {
	return strings.TrimLeft(strings.TrimPrefix(err.Error(), key), ": ")
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

// Settings returns a module's section, in the type of its defaults. It panics if there
// is no such section, or T is another type.
func Settings[T any](p *Plan, section string) T {
	s, err := config.Get[T](p.config, section)
	if err != nil {
		panic(err) // Load has held every value against this very type
	}
	return s
}

// wiring returns what all modules plug in, and what stands in where they do not.
func (p *Plan) wiring() fx.Option {
	var parts []fx.Option
	for _, m := range p.list {
		if !m.Always && !p.On(m.Name) {
			continue
		}
		part := []fx.Option{m.Wire(p)}
		for _, s := range sockets {
			if s.port == m.Fills {
				part = append(part, fx.Invoke(s.require))
			}
		}
		// After the hooks that its own functions appended.
		part = append(part, fx.Invoke(func(lc fx.Lifecycle, h *health) {
			lc.Append(fx.StartHook(func() { h.ready(m.Name) }))
		}))
		parts = append(parts, fx.Module(m.Name, part...))
	}
	for _, s := range sockets {
		if !p.Filled(s.port) {
			parts = append(parts, fx.Provide(s.memory))
		}
	}
	return fx.Options(append(parts, observed)...)
}

// cause returns the error of the constructor or hook that failed. Of modules that do not
// fit together it returns all that fx says: that is for whoever wrote them.
func cause(err error) error {
	root := dig.RootCause(err)
	var wiring dig.Error
	if errors.As(root, &wiring) {
		return fmt.Errorf("the modules of this program do not fit together (one that plugs in a port provides that very type, and names it in Fills): %w", err)
	}
	return root
}
