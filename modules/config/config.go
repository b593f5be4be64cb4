package config

import (
	"cmp"
	"fmt"
	"slices"
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

// Config is a configuration. What its values mean is checked by the modules. It never
// changes and may be read concurrently.
type Config struct {
	merged   *koanf.Koanf
	schema   *Schema
	origins  map[string]Origin
	items    map[string]map[string]Origin
	file     string
	above    []string
	mistakes []Mistake
}

// Load reads the layers. The error wraps ErrUsage, or it is an *Error with all that is
// wrong in any of them; then there is a Config all the same, without what is wrong, to
// be examined for more mistakes and not to be used.
func (s *Schema) Load(src Sources) (*Config, error) {
	if err := checkUsage(src.Flags); err != nil {
		return nil, err
	}
	l := loader{Schema: s, src: src, origins: map[string]Origin{}, items: map[string]map[string]Origin{}}
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
	if l.untold > 0 {
		l.mistakes = append(l.mistakes, Mistake{Origin: Origin{Layer: beyond}, Message: fmt.Sprintf("and %d more; mend these first", l.untold)})
	}
	return &Config{merged, s, l.origins, l.items, file, l.above, l.mistakes}, NewError(l.mistakes)
}

// Mistakes are what Load found wrong.
func (c *Config) Mistakes() []Mistake { return c.mistakes }

// Malformed reports whether what was given for a key, or for any key of a section, has
// the wrong form: its value here is not what was meant.
func (c *Config) Malformed(name string) bool {
	return slices.ContainsFunc(c.mistakes, func(m Mistake) bool {
		return (m.Key == name || strings.HasPrefix(m.Key, name+".")) && !c.overruled(m)
	})
}

// Lost reports whether a key is malformed as a whole. One that is malformed and not
// lost is a list or a map, and has the items that were meant, without those that are none.
func (c *Config) Lost(key string) bool {
	return slices.ContainsFunc(c.mistakes, func(m Mistake) bool {
		return m.Key == key && m.within == "" && !c.overruled(m)
	})
}

// overruled reports whether the key of a mistake has a value that was meant for all that:
// one of a layer above, or the one that stands where the key belongs.
func (c *Config) overruled(m Mistake) bool {
	key := cmp.Or(m.within, m.Key)
	_, known := c.schema.byName[key]
	return known && (c.Origin(key).Layer > m.Origin.Layer || m.misplaced && c.IsSet(key))
}

// Unclear reports whether a key is malformed, or its section is, or is given twice: it
// may be meant to have a value that is not known here.
func (c *Config) Unclear(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	return c.Malformed(key) || slices.ContainsFunc(c.mistakes, func(m Mistake) bool { return m.Key == section })
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

// Keys are all keys that there are, as Schema.Keys has them.
func (c *Config) Keys() []Key { return c.schema.keys }

// File is the path of the file that was read, "" if none was.
func (c *Config) File() string { return c.file }

// Above are the variables and flags that were read over the file, a later one of which
// may have gone over an earlier one.
func (c *Config) Above() []string { return c.above }

// Value returns the value of a key, in the type of its default.
func (c *Config) Value(key string) any { return c.merged.Get(key) }

// Origin says where the value of a key, or what was last said of a section, comes from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// ItemOrigin says where an item comes from: of a map by its name, and of a list by its
// place there, "0" for the first. What knows no lines gives all items of a key at once.
func (c *Config) ItemOrigin(key, item string) Origin {
	if origin, ok := c.items[key][item]; ok {
		return origin
	}
	return c.Origin(key)
}

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
	items    map[string]map[string]Origin // of those keys whose items have their own
	above    []string
	mistakes []Mistake
	untold   int // mistakes beyond maxMistakes
}

func (l *loader) mistake(from Origin, key, value, message string) {
	l.note(Mistake{Origin: from, Key: key, Value: value, Message: message})
}

func (l *loader) note(m Mistake) {
	if len(l.mistakes) == maxMistakes {
		l.untold++
		return
	}
	l.mistakes = append(l.mistakes, m)
}

// unknown reports a name that is no key.
func (l *loader) unknown(from Origin, name string, spell func(Key) string) {
	message := ""
	if len(l.mistakes) < maxMistakes { // else it would be looked for in vain
		message = l.unknownKey(name, spell)
	}
	l.mistake(from, name, "", message)
}

// set takes a key's value from a variable or a flag, for koanf's providers: they
// disregard what has no name.
func (l *loader) set(from Origin, key Key, text string) (name string, value any) {
	value, err := key.parse(text)
	within := ""
	if value != nil {
		within = key.Name // what is wrong are items of it
	}
	for _, err := range unjoin(err) {
		l.note(Mistake{Origin: from, Key: key.Name, Value: text, Message: err.Error(), within: within})
	}
	if value == nil {
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
	delete(l.items, key)
	if from.Layer > File && !slices.Contains(l.above, from.Name) {
		l.above = append(l.above, from.Name)
	}
}
