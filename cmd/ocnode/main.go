// Command ocnode runs a node of a peer-to-peer service registry, and asks running
// nodes what they see.
package main

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
// longer, people do not.
const lastResort = 4900 * time.Millisecond

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process as it is
		time.AfterFunc(lastResort, func() { os.Exit(exitRuntime) })
	})
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// program is what the commands share.
type program struct {
	environ []string
	schema  *config.Schema
	out     io.Writer
	log     io.Writer
	api     string
	output  string
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, args, environ []string, out, errOut io.Writer) int {
	p := &program{environ: environ, schema: modules.Schema(modules.Builtin()), out: out, log: errOut}
	root := p.root()
	root.SetArgs(args)
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
	text := strings.TrimSpace(err.Error())
	if !started { // cobra refused the command line
		fmt.Fprintf(errOut, "ocnode: %s\n", text)
		return exitUsage
	}
	fmt.Fprintf(errOut, "ocnode: %s\n", strings.ReplaceAll(text, "\n", "\nocnode: "))
	return exitCode(err)
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
	root.Args = nil // cobra's own check of the first word suggests commands
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentFlags().StringVar(&p.api, "api", "", "HTTP address of the node to ask (default: http.listen)")
	root.PersistentFlags().StringVarP(&p.output, "output", "o", "table", "how to print: table or json")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			if near := nearestFlag(cmd, unknown.GetSpecifiedName()); near != "" {
				return fmt.Errorf("%w; did you mean --%s?", err, near)
			}
		}
		return fmt.Errorf("%w; see ocnode %s--help", err, strings.TrimPrefix(cmd.CommandPath()+" ", "ocnode "))
	})
	run := p.runCommand()
	run.Use, run.Short = "run", "Run a node until a signal"
	root.AddCommand(run, p.demoCommand(), p.lsCommand(), p.getCommand(), p.statusCommand(), p.idCommand(), p.versionCommand())
	return root
}

func nearestFlag(cmd *cobra.Command, name string) string {
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	return config.Nearest(name, known)
}

func (p *program) checkOutput() error {
	if p.output != "table" && p.output != "json" {
		return usageError{fmt.Errorf("--output %q is not a format; allowed are table and json", p.output)}
	}
	return nil
}

// configure loads the configuration; flags may be nil.
func (p *program) configure(flags *pflag.FlagSet) (*config.Config, error) {
	return p.schema.Load(config.Sources{File: config.DefaultFile, Environ: p.environ, Flags: flags})
}

// plan loads the configuration and chooses the modules.
func (p *program) plan(flags *pflag.FlagSet) (*modules.Plan, error) {
	cfg, err := p.configure(flags)
	if err != nil {
		return nil, err
	}
	return modules.NewPlan(modules.Builtin(), cfg)
}
