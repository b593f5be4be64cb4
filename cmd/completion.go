package cmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/modules"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	// completionPatience is how long a node is asked for PeerIDs while somebody waits at
	// the prompt.
	completionPatience = 500 * time.Millisecond
	// maxCompletions is more than anybody chooses from.
	maxCompletions = 200
)

// completionCommand prints what makes a shell complete command lines of ocnode.
func (p *program) completionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "completion",
		Short: "Print what makes your shell complete ocnode",
		Long: `Print a script that makes a shell complete commands, flags, modules and, from the node
that would be asked, PeerIDs. The help of each shell says where the script goes.`,
		Example: "  source <(ocnode completion bash)\n  ocnode completion zsh --help",
	}
	for _, shell := range []struct {
		name, long, example string
		generate            func(*cobra.Command, io.Writer) error
	}{
		{
			"bash", `Print the completion for bash. It needs the package bash-completion.

For this session:       source <(ocnode completion bash)
For every one of yours: mkdir -p ~/.local/share/bash-completion/completions &&
                        ocnode completion bash > ~/.local/share/bash-completion/completions/ocnode
For everyone on Linux:  ocnode completion bash > /etc/bash_completion.d/ocnode
With Homebrew:          ocnode completion bash > "$(brew --prefix)/etc/bash_completion.d/ocnode"`,
			"  source <(ocnode completion bash)",
			bashCompletion,
		},
		{
			"zsh", `Print the completion for zsh. It needs compinit: if nothing completes, put
autoload -U compinit && compinit into ~/.zshrc once.

For this session:   source <(ocnode completion zsh)
For every one:      ocnode completion zsh > "${fpath[1]}/_ocnode"
With Homebrew:      ocnode completion zsh > "$(brew --prefix)/share/zsh/site-functions/_ocnode"`,
			`  ocnode completion zsh > "${fpath[1]}/_ocnode"`,
			func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) },
		},
		{
			"fish", `Print the completion for fish.

For this session:   ocnode completion fish | source
For every one:      ocnode completion fish > ~/.config/fish/completions/ocnode.fish`,
			"  ocnode completion fish > ~/.config/fish/completions/ocnode.fish",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		},
		{
			"powershell", `Print the completion for PowerShell.

For this session:   ocnode completion powershell | Out-String | Invoke-Expression
For every one:      put that line into the file that $PROFILE names`,
			"  ocnode completion powershell | Out-String | Invoke-Expression",
			func(root *cobra.Command, w io.Writer) error { return root.GenPowerShellCompletionWithDesc(w) },
		},
	} {
		cmd.AddCommand(&cobra.Command{
			Use: shell.name, Short: "Print the completion for " + shell.name, Long: shell.long, Example: shell.example,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if p.output == outputJSON {
					return usageError{errors.New("the completion is a script of the shell, not JSON; leave -o json out")}
				}
				var b bytes.Buffer
				if err := shell.generate(cmd.Root(), &b); err != nil {
					return err
				}
				return p.write(b.String())
			},
		})
	}
	return cmd
}

// bashCompletion generates cobra's completion for bash without its quoting: bash quotes
// a comma too, so that no list of modules would begin as the one that was typed. What we
// complete to has nothing to quote: names of ours and PeerIDs; files are bash's affair.
func bashCompletion(root *cobra.Command, w io.Writer) error {
	var b bytes.Buffer
	if err := root.GenBashCompletionV2(&b, true); err != nil {
		return err
	}
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte("%q"), []byte("%s")))
	return err
}

// addCompletions says how the flags of cmd and of all below it are completed. Nothing
// completes to files that is not said to.
func (p *program) addCompletions(root *cobra.Command) {
	root.CompletionOptions.DisableDefaultCmd = true
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]cobra.Completion{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp)))
	anyFile := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		for _, flag := range []struct {
			name string
			as   func() error
		}{
			{"modules", func() error { return cmd.RegisterFlagCompletionFunc("modules", p.completeModules) }},
			{"config", func() error { return cmd.MarkFlagFilename("config", "yaml", "yml") }},
			{"data.dir", func() error { return cmd.MarkFlagDirname("data.dir") }},
			{pskFlag, func() error { return cmd.RegisterFlagCompletionFunc(pskFlag, anyFile) }},
			{tokenFlag, func() error { return cmd.RegisterFlagCompletionFunc(tokenFlag, anyFile) }},
			{"http.token", func() error { return cmd.RegisterFlagCompletionFunc("http.token", anyFile) }},
		} {
			if cmd.Flags().Lookup(flag.name) != nil {
				must(flag.as())
			}
		}
		for _, sub := range cmd.Commands() {
			add(sub)
		}
	}
	add(root)
}

// unquoteUsage leaves out the backquotes around the name of a flag's value, which only help
// knows: a completion shows the usage of a flag as it is.
func unquoteUsage(cmd *cobra.Command) {
	unquote := func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") }
	cmd.Flags().VisitAll(unquote)
	cmd.PersistentFlags().VisitAll(unquote)
	for _, sub := range cmd.Commands() {
		unquoteUsage(sub)
	}
}

// must is for what only a broken invariant fails.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// completeModules completes the last of a list of modules, with those that are not
// in it yet.
func (p *program) completeModules(_ *cobra.Command, _ []string, begun string) (lists []cobra.Completion, _ cobra.ShellCompDirective) {
	before := strings.Split(begun, ",")
	last := before[len(before)-1]
	before = before[:len(before)-1]
	for _, m := range p.modules {
		if !m.Always && strings.HasPrefix(m.Name, last) && !slices.Contains(before, m.Name) {
			list := strings.Join(append(slices.Clone(before), m.Name), ",")
			lists = append(lists, cobra.CompletionWithDesc(list, m.Summary))
		}
	}
	return lists, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completePeerID completes to who is alive, as far as the node to ask says so in time.
// Of what goes wrong it says nothing: that would end up in the middle of a prompt.
func (p *program) completePeerID(cmd *cobra.Command, args []string, begun string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	native, err := p.reader(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer native.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	for page, err := range pages(ctx, native, nil) {
		if err != nil || len(ids) == maxCompletions {
			break
		}
		for _, x := range page.Indexers {
			// What a node says is put on a command line: it is to be a PeerID and nothing else.
			id, err := modules.ParsePeerID(string(x.PeerID))
			if err == nil && strings.HasPrefix(string(id), begun) && len(ids) < maxCompletions {
				ids = append(ids, cobra.CompletionWithDesc(string(id), describe(x)))
			}
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// describe says in a few words who an indexer is.
func describe(x httpapi.Indexer) string {
	return display.Plain(string(x.State)) + " " + display.Plain(x.Addr)
}
