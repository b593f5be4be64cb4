// Package config loads the configuration in layers: defaults, then the file, then the
// environment, then flags, each over the one before. It is strict: whatever it does
// not know is a mistake that names the nearest thing it knows, and all mistakes are
// reported at once, each with the line, variable or flag it comes from.
//
// It knows no section of its own but the toggles of the modules; the modules hand
// theirs in. koanf merges the layers, but it knows no lines: the file is walked here.
package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// toggles is the section that says which modules are on.
const toggles = "modules"

// Section is one part of the configuration.
type Section struct {
	Name string
	// Default is a struct that holds the defaults. Each of its fields is a string, bool,
	// int, time.Duration, []string or map[string]string, and carries the tags
	// `koanf:"name"` and `help:"what it is for"`, and `live:"true"` if it can change while a
	// node runs.
	Default any
}

// Module is a module that the configuration can turn on and off.
type Module struct {
	Name    string
	Default bool
	Help    string
}

// The types of a key.
const (
	typeString   = "string"
	typeBool     = "bool"
	typeInt      = "int"
	typeDuration = "duration"
	typeList     = "list"
	typeMap      = "map"
)

// Key is one setting. Its flag is "--" and its name.
type Key struct {
	// Name is the section's and its own: "registry.ttl".
	Name string
	// Type is "string", "bool", "int", "duration", "list" or "map".
	Type    string
	Default any
	Help    string
	// Live marks what can change while a node runs.
	Live bool
}

// Env is the variable that sets the key: OCNODE_REGISTRY__TTL.
func (k Key) Env() string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", envSeparator, "-", "_").Replace(k.Name))
}

// leaf is the key's name within its section.
func (k Key) leaf() string { return leaf(k.Name) }

func leaf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// Schema is all that can be configured. It is made once and never changes.
type Schema struct {
	keys     []Key
	byName   map[string]Key
	sections []string
	modules  []string
}

// NewSchema lists the keys of the toggles and of the sections, in that order. It
// panics if a section is not what Section asks for or a name is taken.
func NewSchema(modules []Module, sections []Section) *Schema {
	s := &Schema{byName: map[string]Key{}, sections: []string{toggles}}
	for _, m := range modules {
		s.modules = append(s.modules, m.Name)
		s.add(Key{Name: toggles + "." + m.Name, Default: m.Default, Help: m.Help})
	}
	for _, section := range sections {
		s.sections = append(s.sections, section.Name)
		fields := reflect.ValueOf(section.Default)
		for i := range fields.NumField() {
			tag := fields.Type().Field(i).Tag
			s.add(Key{
				Name:    section.Name + "." + tag.Get("koanf"),
				Default: fields.Field(i).Interface(),
				Help:    tag.Get("help"),
				Live:    tag.Get("live") == "true",
			})
		}
	}
	return s
}

func (s *Schema) add(key Key) {
	switch key.Default.(type) {
	case string:
		key.Type = typeString
	case bool:
		key.Type = typeBool
	case int:
		key.Type = typeInt
	case time.Duration:
		key.Type = typeDuration
	case []string:
		key.Type = typeList
	case map[string]string:
		key.Type = typeMap
	default:
		panic(fmt.Sprintf("config: %s has a type that no key can have: %T", key.Name, key.Default))
	}
	if _, taken := s.byName[key.Name]; taken || key.leaf() == "" {
		panic(fmt.Sprintf("config: %q cannot be the name of another key", key.Name))
	}
	s.keys = append(s.keys, key)
	s.byName[key.Name] = key
}

// Keys are all keys, the toggles first, else in the order in which they were handed in.
func (s *Schema) Keys() []Key { return s.keys }

// section returns the keys of a section; none if there is no such section.
func (s *Schema) section(name string) []Key {
	var keys []Key
	for _, key := range s.keys {
		if strings.HasPrefix(key.Name, name+".") {
			keys = append(keys, key)
		}
	}
	return keys
}

// unknownKey says what a name that is no key may have meant, as spelled by spell.
func (s *Schema) unknownKey(name string, spell func(Key) string) string {
	if module, ok := strings.CutPrefix(name, toggles+"."); ok {
		return s.unknownModule(module)
	}
	if near := s.meant(name, spell); len(near) > 0 {
		return "unknown key; did you mean " + strings.Join(near, " or ") + "?"
	}
	section, _, _ := strings.Cut(name, ".")
	var known []string
	for _, key := range s.section(section) {
		known = append(known, spell(key))
	}
	if len(known) == 0 {
		return "unknown key; the sections are " + strings.Join(s.sections, ", ")
	}
	return "unknown key; the keys here are " + strings.Join(known, ", ")
}

func (s *Schema) unknownModule(name string) string {
	message := "unknown module " + quote(name)
	if near := Nearest(name, s.modules); near != "" {
		message += ", did you mean " + near + "?"
	}
	return message + "; the modules are " + strings.Join(s.modules, ", ")
}

// meant finds what is spelled nearly like name, or else stands by the same or nearly
// the same name in another section.
func (s *Schema) meant(name string, spell func(Key) string) []string {
	var names, leaves []string
	for _, key := range s.keys {
		names, leaves = append(names, key.Name), append(leaves, key.leaf())
	}
	if near := Nearest(name, names); near != "" {
		return []string{spell(s.byName[near])}
	}
	if !strings.Contains(name, ".") && !slices.Contains(leaves, name) {
		if near := Nearest(name, s.sections); near != "" {
			return []string{near}
		}
	}
	near := Nearest(leaf(name), leaves)
	var spelled []string
	for _, key := range s.keys {
		if key.leaf() == near {
			spelled = append(spelled, spell(key))
		}
	}
	return spelled
}
