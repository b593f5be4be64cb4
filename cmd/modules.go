package cmd

import (
	"time"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/spf13/cobra"
)

// The states of a module.
const (
	stateOn     = "on"
	stateOff    = "off"
	stateAlways = "always"
)

// listedModule is a module as modules prints it in JSON.
type listedModule struct {
	Name string `json:"name"`
	// State is on, off or, of a part that has no toggle, always.
	State string `json:"state"`
	// From is who says so: default, a line of the file, a variable or a flag; "" for always.
	From string `json:"from"`
	// Role is true of what a node can be there for: it has at least one.
	Role bool `json:"role"`
	// Fills is the port that it plugs an adapter into, "" for none.
	Fills   string `json:"fills"`
	Summary string `json:"summary"`
	// Keys are those of its section.
	Keys []listedKey `json:"keys"`
}

type listedKey struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Default has the JSON type of Type; a duration is a string such as 66s.
	Default any    `json:"default"`
	Env     string `json:"env"`
	// Live is true of what can change while a node runs.
	Live bool   `json:"live"`
	Help string `json:"help"`
}

// modulesCommand lists what the program is made of.
func (p *program) modulesCommand() *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "modules",
		Short: "List the modules, and which of them are on",
		Long: `List the modules, and which of them are on in the configuration that holds here: that of
config.yaml, the environment and these flags. FROM says which of them turned it on or off;
FILLS is the port that it plugs an adapter into, for which memory stands in without it.

With -o json, the keys of each module's section are listed too.`,
		Example: `  ocnode modules
  ocnode modules --modules native,dht
  ocnode modules --all -o json`,
		SuggestFor: []string{"plugins"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.configure(cmd.Flags())
			if err != nil {
				return err
			}
			listed := []listedModule{}
			rows := [][]string{{"NAME", stateColumn, "FROM", "FILLS", "SUMMARY"}}
			for _, m := range p.modules {
				if m.Always && !all {
					continue
				}
				l := p.listModule(m, cfg)
				listed = append(listed, l)
				rows = append(rows, []string{l.Name, l.State, orDash(l.From), orDash(l.Fills), l.Summary})
			}
			return p.print(listed, p.list(rows, "SUMMARY"))
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "list also the parts that every node has")
	p.schema.AddFlags(cmd.Flags())
	return cmd
}

func (p *program) listModule(m modules.Module, cfg *config.Config) listedModule {
	l := listedModule{
		Name: m.Name, State: stateAlways, Role: m.Role, Fills: string(m.Fills), Summary: m.Summary, Keys: []listedKey{},
	}
	if !m.Always {
		l.State, l.From = stateOff, cfg.Origin("modules."+m.Name).String()
		if cfg.Modules()[m.Name] {
			l.State = stateOn
		}
	}
	// Its section alone: a schema of one module has no other's.
	if m.Section == nil {
		return l
	}
	for _, key := range config.NewSchema(nil, []config.Section{{Name: m.Name, Default: m.Section}}).Keys() {
		l.Keys = append(l.Keys, listedKey{key.Name, key.Type, jsonValue(key.Default), key.Env(), key.Live, key.Help})
	}
	return l
}

// jsonValue makes the value of a key what JSON has for it.
func jsonValue(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return config.Text(v)
	case []string:
		return append([]string{}, v...) // [], not null
	case map[string]string:
		if v == nil {
			return map[string]string{}
		}
	}
	return value
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
