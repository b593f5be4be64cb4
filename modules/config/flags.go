package config

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

const (
	flagConfig  = "config"
	flagModules = toggles
)

// AddFlags adds a flag for every key, --modules and --config. They accept any text:
// Load reports what is wrong with it, together with all else.
func (s *Schema) AddFlags(fs *pflag.FlagSet) {
	fs.String(flagConfig, "", "the configuration `file`, \"\" for none (default "+DefaultFile+", if it exists)")
	fs.Var(&flagValue{kind: typeList}, flagModules,
		"the modules that are on, all others are off: any of "+strings.Join(s.modules, ","))
	for _, key := range s.keys {
		f := fs.VarPF(&flagValue{kind: key.Type, text: Text(key.Default)}, key.Name, "", key.Help)
		if key.Type == typeBool {
			f.NoOptDefVal = "true"
		}
	}
}

// flagValue keeps the text of a flag; that of a list or a map which is repeated is
// joined by commas.
type flagValue struct {
	kind, text string
	given      bool
}

// String is the default until the flag is given.
func (v *flagValue) String() string { return v.text }

// Type is what the usage shows in place of a value.
func (v *flagValue) Type() string { return v.kind }

// Set takes any text.
func (v *flagValue) Set(text string) error {
	if v.given && (v.kind == typeList || v.kind == typeMap) {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}

// flag takes one flag, if it was given and is one of a key.
func (l *loader) flag(f *pflag.Flag) (key string, value any) {
	from := Origin{Layer: Flag, Name: "--" + f.Name}
	k, ok := l.byName[f.Name]
	switch {
	case !f.Changed:
		return "", nil
	case f.Name == flagModules:
		return l.only(from, f.Value.String())
	case !ok:
		return "", nil
	default:
		return l.set(from, k, f.Value.String())
	}
}

// checkUsage refuses --modules beside a single toggle: which of them should count?
func checkUsage(fs *pflag.FlagSet) error {
	var err error
	orEmpty(fs).Visit(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, toggles+".") && fs.Changed(flagModules) {
			err = usageError(fmt.Sprintf("--%s sets every toggle and cannot go with --%s; give one of them", flagModules, f.Name))
		}
	})
	return err
}

func orEmpty(fs *pflag.FlagSet) *pflag.FlagSet {
	if fs == nil {
		return &pflag.FlagSet{}
	}
	return fs
}
