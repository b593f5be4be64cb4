package config

import (
	"slices"
	"strings"
)

const (
	envPrefix = "OCNODE_"
	// envSeparator stands between section and key. Names without it are left alone:
	// orchestrators inject the like of OCNODE_PORT_4101_TCP.
	envSeparator = "__"
	envConfig    = envPrefix + "CONFIG"
	envModules   = envPrefix + "MODULES"
)

// variable takes one variable of ours.
func (l *loader) variable(name, text string) (key string, value any) {
	from := Origin{Layer: Environment, Name: name}
	if name == envModules {
		return l.only(from, text)
	}
	if !strings.Contains(name, envSeparator) {
		return "", nil
	}
	i := slices.IndexFunc(l.keys, func(k Key) bool { return k.Env() == name })
	if i < 0 {
		path := strings.ToLower(strings.TrimPrefix(name, envPrefix))
		l.unknown(from, strings.ReplaceAll(path, envSeparator, "."), Key.Env)
		return "", nil
	}
	if _, all := lookup(l.src.Environ, envModules); all && strings.HasPrefix(l.keys[i].Name, toggles+".") {
		l.mistake(from, l.keys[i].Name, text, envModules+" sets every toggle and cannot go with it; set one of them")
		return "", nil
	}
	return l.set(from, l.keys[i], text)
}

// lookup returns the last value of a variable in environ.
func lookup(environ []string, name string) (value string, ok bool) {
	for _, variable := range environ {
		if v, found := strings.CutPrefix(variable, name+"="); found {
			value, ok = v, true
		}
	}
	return value, ok
}
