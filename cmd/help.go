package cmd

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpCommand is cobra's, but for a command that does not exist: cobra's prints help
// of another one and succeeds.
func (p *program) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Tell about a command",
		Example: "  ocnode help run\n  ocnode help completion bash",
		RunE: func(cmd *cobra.Command, args []string) error {
			about := cmd.Root()
			for _, word := range args {
				next, _, err := about.Find([]string{word})
				if err != nil || next == about {
					return usageError{unknownCommand(about, word)}
				}
				about = next
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			for _, sub := range about.Commands() {
				if !sub.Hidden && strings.HasPrefix(sub.Name(), begun) {
					names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// usage prints how cmd is used: its commands in their groups, its own flags, those of
// all commands and, apart from them, the settings.
func (p *program) usage(cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:\n")
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND\n", cmd.CommandPath())
	}
	if !cmd.HasSubCommands() || !cmd.HasParent() {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if groups := cmd.Groups(); len(groups) > 0 {
		for _, group := range groups {
			writeCommands(&b, cmd, group.Title, group.ID)
		}
	} else if cmd.HasSubCommands() {
		writeCommands(&b, cmd, "Commands:", "")
	}

	isSetting := map[string]bool{}
	if cmd.Flags().Lookup("modules") != nil { // with the flags of all keys, and not of one of them
		for _, key := range p.schema.Keys() {
			isSetting[key.Name] = true
		}
	}
	own, settings := pflag.NewFlagSet("", pflag.ContinueOnError), pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if isSetting[f.Name] {
			settings.AddFlag(f)
		} else {
			own.AddFlag(f)
		}
	})
	p.writeFlags(&b, "Flags:", own)
	p.writeFlags(&b, "Global flags:", cmd.InheritedFlags())
	switch {
	case cmd.Name() == "run":
		p.writeFlags(&b, "Settings (each is a key of config.yaml, and a variable: --registry.ttl is OCNODE_REGISTRY__TTL):", settings)
	case settings.HasFlags():
		b.WriteString("\nSettings:\n  Each key of config.yaml is a flag too, such as --registry.ttl 90s; ocnode run --help lists them.\n")
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more of a command.\n", cmd.CommandPath())
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

func writeCommands(b *strings.Builder, cmd *cobra.Command, title, group string) {
	fmt.Fprintf(b, "\n%s\n", title)
	for _, sub := range cmd.Commands() {
		if sub.GroupID == group && !sub.Hidden {
			fmt.Fprintf(b, "  %-*s %s\n", cmd.NamePadding(), sub.Name(), sub.Short)
		}
	}
}

func (p *program) writeFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	// That a flag which is given is true, and can be false, goes without saying.
	const either = "[=true|false]"
	text := strings.ReplaceAll(flags.FlagUsagesWrapped(width(p.out)), either, strings.Repeat(" ", len(either)))
	fmt.Fprintf(b, "\n%s\n%s", title, text)
}
