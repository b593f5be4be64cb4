package config

import (
	"fmt"
	"strings"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// DefaultFile is the file that is read unless another is named.
const DefaultFile = "config.yaml"

// Sources are where the layers above the defaults come from. The zero Sources has none.
type Sources struct {
	// File, mostly DefaultFile, is read if it exists, unless --config or OCNODE_CONFIG names another, which
	// must exist, or is empty, which stands for no file.
	File string
	// Environ is as os.Environ returns it.
	Environ []string
	// Flags has the flags of AddFlags, parsed; those that were not given do not count.
	Flags *pflag.FlagSet
}

// Config is a configuration without mistakes of form. What its values mean is checked
// by the modules. It never changes and may be read concurrently.
type Config struct {
	merged  *koanf.Koanf
	schema  *Schema
	origins map[string]Origin
	file    string
}

// Load reads the layers. The error is an *Error with all that is wrong in any of them,
// or wraps ErrUsage.
func (s *Schema) Load(src Sources) (*Config, error) {
	if err := checkUsage(src.Flags); err != nil {
		return nil, err
	}
	l := loader{Schema: s, src: src, origins: map[string]Origin{}}
	defaults := map[string]any{}
	for _, key := range s.keys {
		defaults[key.Name] = key.Default
	}
	file, fromFile := l.file()
	merged := koanf.New(".")
	for _, layer := range []koanf.Provider{
		confmap.Provider(defaults, "."),
		confmap.Provider(fromFile, "."),
		env.Provider(".", env.Opt{
			Prefix:        envPrefix,
			EnvironFunc:   func() []string { return src.Environ },
			TransformFunc: l.variable,
		}),
		posflag.ProviderWithFlag(orEmpty(src.Flags), ".", nil, l.flag),
	} {
		if err := merged.Load(layer, nil); err != nil {
			return nil, fmt.Errorf("merge the configuration: %w", err)
		}
	}
	if err := NewError(l.mistakes); err != nil {
		return nil, err
	}
	return &Config{merged: merged, schema: s, origins: l.origins, file: file}, nil
}

// Get returns a section, in the type of its Section.Default.
func Get[T any](c *Config, section string) (T, error) {
	var into T
	if !c.merged.Exists(section) {
		return into, fmt.Errorf("there is no section %q", section)
	}
	if err := c.merged.Unmarshal(section, &into); err != nil {
		return into, fmt.Errorf("decode section %s: %w", section, err)
	}
	return into, nil
}

// Modules says of every module whether it is on.
func (c *Config) Modules() map[string]bool {
	on := map[string]bool{}
	for _, module := range c.schema.modules {
		on[module] = c.merged.Bool(toggles + "." + module)
	}
	return on
}

// File is the path of the file that was read, "" if none was.
func (c *Config) File() string { return c.file }

// Value returns the value of a key, in the type of its default.
func (c *Config) Value(key string) any { return c.merged.Get(key) }

// Origin says where the value of a key, or what was last said of a section, comes from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// IsSet reports whether anybody set the key, be it to its default.
func (c *Config) IsSet(key string) bool { return c.Origin(key).Layer != Default }

// Mistake makes a mistake of a value that has the right form and is wrong all the same.
func (c *Config) Mistake(key, format string, args ...any) Mistake {
	value := ""
	if _, ok := c.schema.byName[key]; ok {
		value = Text(c.Value(key))
	}
	return Mistake{Origin: c.Origin(key), Key: key, Value: value, Message: fmt.Sprintf(format, args...)}
}

// loader gathers what one Load finds.
type loader struct {
	*Schema
	src      Sources
	origins  map[string]Origin
	mistakes []Mistake
}

func (l *loader) mistake(from Origin, key, value, message string) {
	if len(l.mistakes) < maxMistakes {
		l.mistakes = append(l.mistakes, Mistake{from, key, value, message})
	}
}

// unknown reports a name that is no key.
func (l *loader) unknown(from Origin, name string, spell func(Key) string) {
	if len(l.mistakes) < maxMistakes {
		l.mistake(from, name, "", l.unknownKey(name, spell))
	}
}

// set takes a key's value from a variable or a flag, for koanf's providers: they
// disregard what has no name.
func (l *loader) set(from Origin, key Key, text string) (name string, value any) {
	value, err := key.parse(text)
	if err != nil {
		l.mistake(from, key.Name, text, err.Error())
		return "", nil
	}
	l.came(from, key.Name)
	return key.Name, value
}

// only takes the list of the modules that are on; all others are off.
func (l *loader) only(from Origin, text string) (name string, value any) {
	modules, err := parseList(text)
	if err != nil {
		l.mistake(from, toggles, text, err.Error())
		return "", nil
	}
	on := map[string]any{}
	for _, module := range l.modules {
		on[module] = false
		l.came(from, toggles+"."+module)
	}
	for _, module := range modules {
		if _, ok := on[module]; ok {
			on[module] = true
		} else {
			l.mistake(from, toggles, module, l.unknownModule(module))
		}
	}
	return toggles, on
}

// came notes the origin of a key, and with it that of its section.
func (l *loader) came(from Origin, key string) {
	section, _, _ := strings.Cut(key, ".")
	l.origins[key], l.origins[section] = from, from
}
