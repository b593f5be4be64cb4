// Package cmd is the command line of ocnode. A program of its own that adds modules
// has the same one: its main is cmd.Main(append(modules.Builtin(), …)).
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes, which scripts rely on.
const (
	exitOK            = 0
	exitRuntime       = 1
	exitUsage         = 2
	exitConfiguration = 3
	exitUnreachable   = 4
	exitNotFound      = 5
)

// lastResort is how long after a signal the process ends whatever hangs, a
// configuration that is a pipe nobody writes into for example: orchestrators wait
// longer, people do not. It passes in steps, so that a process that stands still
// for seconds has the rest of it left to stop in.
const lastResort, lastResortStep = 4900 * time.Millisecond, 100 * time.Millisecond

// Main runs the command line of this process over a list of modules, and ends the
// process with one of the exit codes that README.md lists.
func Main(list []modules.Module) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process as it is
		for range lastResort / lastResortStep {
			time.Sleep(lastResortStep)
		}
		signal.Ignore(syscall.SIGPIPE) // nobody may read standard error any more
		go fmt.Fprintf(os.Stderr, "ocnode: it did not stop within %v of the signal, and is ended\n", lastResort)
		time.Sleep(lastResortStep) // and a reader that stands still keeps no process
		os.Exit(exitRuntime)
	})
	code := run(ctx, list, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// program is what the commands share.
type program struct {
	modules []modules.Module
	schema  *config.Schema
	environ []string
	out     io.Writer
	log     io.Writer
	api     string
	output  string
	noColor bool
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, list []modules.Module, args, environ []string, out, errOut io.Writer) int {
	p := &program{modules: list, schema: modules.Schema(list), environ: environ, out: out, log: errOut}
	root := p.root()
	root.SetArgs(args)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		unquoteUsage(root)
	}
	root.SetOut(out)
	root.SetErr(errOut)
	started := false
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		started = true
		return p.checkOutput()
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.As(err, &loggedError{}) {
		return exitCode(err)
	}
	code := exitUsage // unless a command started, its line is what is wrong
	if started {
		code = exitCode(err)
	}
	fmt.Fprintf(errOut, "ocnode: %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\nocnode: "))
	return code
}

// usageError is a command line that asks for what cannot be.
type usageError struct{ error }

func exitCode(err error) int {
	switch {
	case errors.As(err, &usageError{}), errors.Is(err, config.ErrUsage):
		return exitUsage
	case modules.Misconfigured(err):
		return exitConfiguration
	case errors.Is(err, httpapi.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, httpapi.ErrNotFound):
		return exitNotFound
	}
	return exitRuntime
}

// The values of --output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func (p *program) root() *cobra.Command {
	root := p.runCommand()
	root.Use = "ocnode"
	root.Short = "A peer-to-peer service registry: who is alive, and where?"
	root.Long = `ocnode is a peer-to-peer service registry. Indexers register with shared natives and
keep a short lease alive by heartbeats; natives keep the live table, store every
entry in a Kademlia DHT and gossip who is alive, so that each of them can answer.

Without a command, ocnode runs a node: ocnode is ocnode run.`
	root.Example = `  ocnode                                   a native, alone until others join it
  ocnode --modules native,dht,gossip --host.bootstrap /dns4/a.example/tcp/4101/p2p/12D3Koo…
  ocnode --modules indexer --indexer.natives /dns4/a.example/tcp/4101/p2p/12D3Koo…
  ocnode ls                                who is alive, as the node on this machine sees it
  ocnode demo                              watch a small network find itself`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentFlags().StringVar(&p.api, "api", "", "HTTP address of the node to ask (default: http.listen)")
	root.PersistentFlags().StringVarP(&p.output, "output", "o", outputTable, "how to print: table or json")
	root.PersistentFlags().BoolVar(&p.noColor, "no-color", false, "print without colour, as NO_COLOR=1 does")

	run := p.runCommand()
	run.Use, run.Short = "run", "Run a node until a signal"
	run.SuggestFor = []string{"start", "serve", "daemon", "agent"} // as it is called elsewhere
	help := p.helpCommand()
	root.SetHelpCommand(help)
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Run a node:", []*cobra.Command{run, p.demoCommand()}},
		{"Ask a node:", []*cobra.Command{p.lsCommand(), p.getCommand(), p.watchCommand(), p.nativesCommand(), p.statusCommand()}},
		{"Configure a node:", []*cobra.Command{p.idCommand(), p.keyCommand(), p.configCommand(), p.modulesCommand()}},
		{"Other:", []*cobra.Command{p.completionCommand(), p.versionCommand(), help}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, command := range group.commands {
			command.GroupID = group.title
			root.AddCommand(command)
		}
	}
	p.mindUsage(root)
	p.addCompletions(root)
	return root
}

func (p *program) checkOutput() error {
	if p.output == outputTable || p.output == outputJSON {
		return nil
	}
	meant := ""
	if near := config.Nearest(p.output, []string{outputTable, outputJSON}); near != "" {
		meant = "; did you mean " + near + "?"
	}
	return usageError{fmt.Errorf("--output %q: allowed are table and json%s", p.output, meant)}
}

// configure loads the configuration; flags may be nil.
func (p *program) configure(flags *pflag.FlagSet) (*config.Config, error) {
	return p.schema.Load(config.Sources{File: config.DefaultFile, Environ: p.environ, Flags: flags})
}

// plan loads the configuration and chooses the modules.
func (p *program) plan(flags *pflag.FlagSet) (*modules.Plan, error) {
	cfg, err := p.configure(flags)
	if cfg == nil {
		return nil, err
	}
	return modules.NewPlan(p.modules, cfg) // its error has Load's mistakes too
}
