package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencloud/ocnode/modules/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mindUsage has cmd and all below it answer a command line that makes no sense with
// what was probably meant, and none of them with a page of help and success.
func (p *program) mindUsage(cmd *cobra.Command) {
	switch {
	case cmd.HasSubCommands():
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		}
		if !cmd.Runnable() {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return usageError{fmt.Errorf("%s wants one of its commands: %s; see %s --help",
					cmd.CommandPath(), strings.Join(commandNames(cmd), ", "), cmd.CommandPath())}
			}
		}
	case !strings.Contains(cmd.Use, " "): // its line of usage names no argument
		cmd.Args = noArguments
	}
	cmd.SetFlagErrorFunc(flagError)
	cmd.SetUsageFunc(p.usage)
	for _, sub := range cmd.Commands() {
		p.mindUsage(sub)
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments and got %q%s; see %s --help", cmd.CommandPath(), args[0], lostValue(args[0]), cmd.CommandPath())
	}
	return nil
}

// lostValue is a hint for a word that was to be the value of a flag that is on or off.
func lostValue(word string) string {
	if _, err := strconv.ParseBool(word); err != nil {
		return ""
	}
	return "; to turn a flag on or off write it with an equals sign, such as --modules.dht=" + word
}

// unknownCommand is the error of a word that is none of the commands of cmd.
func unknownCommand(cmd *cobra.Command, word string) error {
	of := ""
	if cmd.HasParent() {
		of = " of " + cmd.CommandPath()
	}
	if near := nearestCommand(cmd, word); near != nil {
		return fmt.Errorf("unknown command %q%s; did you mean %s?", word, of, near.CommandPath())
	}
	return fmt.Errorf("unknown command %q%s%s; %s --help lists the commands", word, of, lostValue(word), cmd.CommandPath())
}

// nearestCommand returns the command that was probably meant by word: the one that it
// is another word for, that it alone begins, or that it nearly spells. It returns nil
// if there is none.
func nearestCommand(cmd *cobra.Command, word string) *cobra.Command {
	word = strings.ToLower(word)
	near := config.Nearest(word, commandNames(cmd))
	var spelled *cobra.Command
	var begun []*cobra.Command
	for _, sub := range cmd.Commands() {
		switch {
		case sub.Hidden:
		case slices.Contains(sub.SuggestFor, word):
			return sub
		case len(word) > 1 && strings.HasPrefix(sub.Name(), word):
			begun = append(begun, sub)
		case sub.Name() == near:
			spelled = sub
		}
	}
	if len(begun) == 1 {
		return begun[0]
	}
	return spelled
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// flagError says what is wrong with a flag in our words, and what to do.
func flagError(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return unknownCommand(cmd, words[0]) // whose flags we cannot know
	}
	see := fmt.Sprintf("see %s --help", cmd.CommandPath())
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, unknown, see)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		f := missing.GetFlag()
		_, usage := pflag.UnquoteUsage(f)
		return fmt.Errorf("--%s wants a value: %s; %s", f.Name, usage, see)
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		f := invalid.GetFlag()
		return fmt.Errorf("--%s %q: want %s; %s", f.Name, invalid.GetValue(), wanted(f.Value.Type()), see)
	}
	return fmt.Errorf("%w; %s", err, see)
}

// wanted describes the values of a type of flag.
func wanted(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "int":
		return "a whole number"
	case "duration":
		return "a time such as 30s or 1m30s"
	}
	return "a " + kind
}

func unknownFlag(cmd *cobra.Command, unknown *pflag.NotExistError, see string) error {
	name, given := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); letters != "" {
		name, given = letters, "-"+letters // a long one with one dash, if it is no letter
	}
	root := cmd.Root()
	near := nearestFlags(cmd, name)
	switch command := nearestCommand(root, name); {
	case len(near) > 0:
		return fmt.Errorf("unknown flag: %s; did you mean %s?", given, strings.Join(near, " or "))
	case cmd != root && root.Flags().Lookup(name) != nil:
		return fmt.Errorf("unknown flag: %s is one of ocnode run and not of %s; %s", given, cmd.CommandPath(), see)
	case command != nil && command.Name() == name:
		return fmt.Errorf("unknown flag: %s; did you mean %s?", given, command.CommandPath())
	}
	return fmt.Errorf("unknown flag: %s; %s", given, see)
}

// nearestFlags returns the flags that were probably meant by name, with their dashes:
// the one that it nearly spells, or else those that end in nearly that word, be it
// alone or in the wrong section, or else those of a section of that name.
func nearestFlags(cmd *cobra.Command, name string) []string {
	var known, leaves []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		known = append(known, f.Name)
		if strings.Contains(f.Name, ".") {
			leaves = append(leaves, leaf(f.Name))
		}
	})
	if near := config.Nearest(name, known); near != "" {
		return []string{"--" + near}
	}
	near := config.Nearest(leaf(name), leaves)
	var flags []string
	for _, flag := range known {
		if section, _, ok := strings.Cut(flag, "."); ok && (leaf(flag) == near || near == "" && section == name) {
			flags = append(flags, "--"+flag)
		}
	}
	return flags
}

func leaf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }
