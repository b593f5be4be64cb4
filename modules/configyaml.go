package modules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/modules/config"
)

// withoutNative are the keys whose default is another one on a node that is no native.
// A file that sets them to their default says something else than one that does not.
var withoutNative = map[string]any{"host.listen": freePorts, "http.listen": freeHTTP}

// order is the order of a file's sections, those that most people set first. The
// sections that are not named here follow.
var order = []string{"modules", "data", "host", "registry", "indexer", "dht", "gossip", "trust", "http", "limits", "log"}

// Comment is a comment on a key or a section in a configuration file.
type Comment struct {
	Text string
	// Indexer takes the place of Text in the file of an indexer.
	Indexer string
	// LeftOut ends the comment on a key of withoutNative that nobody sets. It goes on after
	// "Left out, as here,". LeftOutWithoutNative is for a node that is no native.
	LeftOut, LeftOutWithoutNative string
}

// aboutModules is the comment on the section of the toggles, which no module has.
const aboutModules = "What this node is. --modules native,dht,gossip replaces all of them."

// comments returns the comments of a list of modules, by the name of a toggle, a section
// or a key.
func comments(list []Module) map[string]Comment {
	all := map[string]Comment{"modules": {Text: aboutModules}}
	for _, m := range list {
		if !m.Always {
			all["modules."+m.Name] = Comment{Text: m.About}
		}
		for key, comment := range m.Comments {
			name := m.Name
			if key != "" {
				name += "." + key
			}
			all[name] = comment
		}
	}
	return all
}

// howRead is what every file says of how it is read.
const howRead = "ocnode reads config.yaml in the folder that it is started in, or the file that --config or OCNODE_CONFIG " +
	"names. A variable (OCNODE_REGISTRY__TTL=90s) goes over the file, a flag (--registry.ttl 90s) over both. " +
	"An unknown key is an error. Durations have a unit: 500ms, 66s, 5m. `ocnode config check` tells all that is " +
	"wrong, `ocnode config show --origin` what counts in the end and why."

// role is what a node is there for. The zero role is anything.
type role struct {
	name string
	// on are the toggles of ocnode's own modules; those of others are at their default.
	on map[string]bool
	// first are sections that come before those of order.
	first []string
	// uses are the modules that use a section or key, which is left out if its is off.
	uses  map[string]string
	about string
}

var roles = []role{
	{
		name: "native",
		on:   map[string]bool{"native": true, "indexer": false, "dht": true, "gossip": true, "mdns": false},
	},
	{
		name:  "indexer",
		on:    map[string]bool{"native": false, "indexer": true, "dht": false, "gossip": false, "mdns": false},
		first: []string{"modules", "indexer"},
		uses:  map[string]string{"registry.refresh": "native", "trust.indexers": "native", "trust.addresses": "native", "dht": "dht", "gossip": "gossip", "limits": "native"},
		about: "The settings of an indexer. What only natives have a use for is left out; `ocnode config init --role native -` " +
			"prints that too.",
	},
}

// Roles returns the names of the roles.
func Roles() []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.name
	}
	return names
}

// roleOf returns the role of a node: the one of the roles that is on, and the zero role
// if that is none or more than one.
func roleOf(on map[string]bool) role {
	var of role
	for _, r := range roles {
		switch {
		case !on[r.name]:
		case of.name != "":
			return role{}
		default:
			of = r
		}
	}
	return of
}

// Draft is a file to begin with.
type Draft struct {
	Text string
	// Role is the one that it is for, "" if that is none of Roles, or several.
	Role string
	// Open are the keys that somebody still has to fill in.
	Open []string
}

// NewDraft writes a file for a role, or, if that is "", for what the toggles make of the
// node: every key of use, with what the flags of src say or else its default, and what
// it is for. The error is that of Load, or a *config.Error with what does not add up.
func NewDraft(list []Module, name string, src config.Sources) (Draft, error) {
	var r role
	if name != "" {
		i := slices.IndexFunc(roles, func(r role) bool { return r.name == name })
		if i < 0 {
			return Draft{}, fmt.Errorf("%q is no role; the roles are %s", name, strings.Join(Roles(), " and "))
		}
		r = roles[i]
	}
	schema := Schema(list)
	// As variables, the role's toggles are over the defaults and below the flags.
	for _, key := range schema.Keys() {
		if on, ok := r.on[strings.TrimPrefix(key.Name, "modules.")]; ok && strings.HasPrefix(key.Name, "modules.") {
			src.Environ = append(slices.Clip(src.Environ), fmt.Sprintf("%s=%t", key.Env(), on))
		}
	}
	cfg, err := schema.Load(src)
	if cfg == nil {
		return Draft{}, err
	}
	if name == "" {
		r = roleOf(cfg.Modules())
	}
	draft := Draft{Text: r.document(cfg, comments(list)).String(), Role: r.name}
	_, err = NewPlan(list, cfg)
	var all *config.Error
	if errors.As(err, &all) {
		var wrong []config.Mistake
		for _, m := range all.Mistakes {
			if m.Key == "indexer.natives" && !cfg.IsSet(m.Key) {
				draft.Open = append(draft.Open, m.Key)
			} else {
				wrong = append(wrong, m)
			}
		}
		err = config.NewError(wrong)
	}
	if err != nil {
		return Draft{}, err
	}
	return draft, nil
}

func (r role) document(cfg *config.Config, comments map[string]Comment) config.Document {
	given := func(key string) bool { return cfg.Origin(key).Layer == config.Flag }
	on := cfg.Modules()
	useless := func(name string) bool {
		module, ok := r.uses[name]
		return ok && !on[module]
	}
	d := config.Document{Comment: r.about}
	if d.Comment == "" {
		d.Comment = "Every setting of ocnode at its default: this file changes nothing until you do."
		if slices.ContainsFunc(cfg.Keys(), func(k config.Key) bool { return given(k.Name) }) {
			d.Comment = "Every setting of ocnode, at its default where `ocnode config init` was told nothing else."
		}
	}
	d.Comment += "\n\n" + howRead
	for _, section := range Effective(cfg, r.first...) {
		part := config.Part{Section: section.Name, Comment: comments[section.Name].Text}
		for _, s := range section.Settings {
			name := s.Key.Name
			if (useless(section.Name) || useless(name)) && !given(name) {
				continue
			}
			comment := comments[name].about(s, r.name == "indexer", on["native"])
			part.Lines = append(part.Lines, config.Line{Key: s.Key, Value: s.Value, Comment: comment, Aside: s.Left})
		}
		if len(part.Lines) > 0 {
			d.Parts = append(d.Parts, part)
		}
	}
	return d
}

// about is the comment on a setting in the file of an indexer or not, and of a native or not.
func (c Comment) about(s Setting, indexer, native bool) string {
	text := c.Text
	switch {
	case indexer && c.Indexer != "":
		text = c.Indexer
	case text == "" && s.Key.Help != "":
		text = strings.ToUpper(s.Key.Help[:1]) + s.Key.Help[1:] + "."
	}
	if s.Left {
		left := c.LeftOut
		if !native {
			left = c.LeftOutWithoutNative
		}
		text += " Left out, as here, " + left
	}
	return text
}

// Setting is a key as a node has it.
type Setting struct {
	Key   config.Key
	Value any
	// Origin is where the value comes from.
	Origin string
	// Left marks a key that is better not set to this value: while nobody sets it, the
	// value depends on what else the node is.
	Left bool
}

// Section is the settings of one section.
type Section struct {
	Name     string
	Settings []Setting
}

// effective returns the value of a key as the node of cfg has it. It depends on what
// else the node is while nobody sets the key.
func effective(cfg *config.Config, key string) (value any, depends bool) {
	value = cfg.Value(key)
	other, depends := withoutNative[key]
	if !depends || cfg.IsSet(key) {
		return value, false
	}
	if !cfg.Modules()["native"] {
		value = other
	}
	if addrs, ok := value.([]string); ok && cfg.Value("host.psk") != "" {
		value = slices.DeleteFunc(slices.Clone(addrs), func(addr string) bool { return libp2phost.CheckPrivate(addr) != nil })
	}
	return value, true
}

// Effective returns every key as the node of cfg has it, in the order of config.yaml,
// with these sections first.
func Effective(cfg *config.Config, first ...string) []Section {
	var sections []Section
	for _, key := range cfg.Keys() {
		name, _, _ := strings.Cut(key.Name, ".")
		s := Setting{Key: key, Origin: cfg.Origin(key.Name).String()}
		if s.Value, s.Left = effective(cfg, key.Name); s.Left && !cfg.Modules()["native"] {
			s.Origin += " without native"
		}
		i := slices.IndexFunc(sections, func(s Section) bool { return s.Name == name })
		if i < 0 {
			i = len(sections)
			sections = append(sections, Section{Name: name})
		}
		sections[i].Settings = append(sections[i].Settings, s)
	}
	rank := func(s Section) int {
		for i, name := range append(slices.Clone(first), order...) {
			if name == s.Name {
				return i
			}
		}
		return len(first) + len(order)
	}
	slices.SortStableFunc(sections, func(a, b Section) int { return rank(a) - rank(b) })
	return sections
}
