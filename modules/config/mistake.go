package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ErrUsage is matched by the error of a command line that contradicts itself, whatever
// the configuration is.
var ErrUsage = errors.New("usage")

type usageError string

func (e usageError) Error() string { return string(e) }

func (usageError) Is(target error) bool { return target == ErrUsage }

// maxMistakes bounds one report: nobody reads more at once, and to look for the
// nearest name of each of a million junk keys would take minutes.
const maxMistakes = 100

// maxShown bounds, in runes, what a message repeats of a value: a whole multiaddr.
const maxShown = 120

// Layer is one of the layers that make up the configuration, the weakest first.
type Layer int

// The layers.
const (
	Default Layer = iota
	File
	Environment
	Flag
	// beyond is no layer: the place of what is told after all others.
	beyond
)

// Origin says where a value comes from. The zero Origin is the built-in default.
type Origin struct {
	Layer Layer
	// Name is the file's path, the variable's name, or the flag with its dashes.
	Name string
	// Line is the line in the file, from 1; 0 if it is the file as a whole.
	Line int
}

// String is "default", "config.yaml:12", "OCNODE_REGISTRY__TTL" or "--registry.ttl".
func (o Origin) String() string {
	switch {
	case o.Layer == Default:
		return "default"
	case o.Line > 0:
		return o.Name + ":" + strconv.Itoa(o.Line)
	default:
		return o.Name
	}
}

// names reports whether the origin is the variable or the flag of a key, or of all toggles.
func (o Origin) names(key string) bool {
	all, _, _ := strings.Cut(key, ".")
	return strings.EqualFold(o.Name, Key{Name: key}.Env()) || o.Name == "--"+key ||
		all == toggles && (o.Name == envModules || o.Name == "--"+flagModules)
}

// Mistake is one thing that is wrong with the configuration.
type Mistake struct {
	Origin Origin
	// Key is the key that is wrong, as far as one is. The origin may be another's, which it
	// does not go with, if nobody set this one.
	Key string
	// Value is what was given, "" if the mistake is not about a value.
	Value string
	// Message says what is wrong with it, what is allowed and what to do.
	Message string

	// within is the list or the map that the mistake is about an item of, "" if none.
	within string
	// misplaced marks a key that stands where no key is, be it also where it belongs.
	misplaced bool
}

// Error is "config.yaml:12: registry.ttl: …"; the key's own variable and flag name it already.
func (m Mistake) Error() string {
	var parts []string
	if m.Origin.Layer != Default && m.Origin.Name != "" {
		parts = append(parts, m.Origin.String())
	}
	if m.Key != "" && !m.Origin.names(m.Key) {
		key := m.Key
		if len(key) > maxShown || strings.ContainsFunc(key, func(r rune) bool { return r == ' ' || !unicode.IsPrint(r) }) {
			key = quote(key)
		}
		parts = append(parts, key)
	}
	return strings.Join(append(parts, m.Message), ": ")
}

// Error is everything that is wrong with the configuration, in the order of the
// layers and, within the file, of its lines. It has at least one Mistake.
type Error struct{ Mistakes []Mistake }

// NewError makes one error, an *Error, of the mistakes; nil of none.
func NewError(mistakes []Mistake) error {
	if len(mistakes) == 0 {
		return nil
	}
	sorted := slices.Clone(mistakes)
	slices.SortStableFunc(sorted, func(a, b Mistake) int {
		return cmp.Or(
			cmp.Compare(a.Origin.Layer, b.Origin.Layer),
			cmp.Compare(a.Origin.Name, b.Origin.Name),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
		)
	})
	return &Error{sorted}
}

// Error has a line for each mistake.
func (e *Error) Error() string {
	lines := make([]string, len(e.Mistakes))
	for i, m := range e.Mistakes {
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// quote makes a given value fit to be shown: in quotes, harmless to a terminal, and short.
func quote(value string) string {
	runes := 0
	for i := range value {
		if runes == maxShown {
			return fmt.Sprintf("%q…", value[:i])
		}
		runes++
	}
	return strconv.Quote(value)
}
