package cmd

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/opencloud/ocnode/modules"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// runCommand runs a node; it is also the bare command.
func (p *program) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Args: cobra.NoArgs,
		Example: `  ocnode run --modules native,dht,gossip
  OCNODE_REGISTRY__TTL=90s ocnode run --config /etc/ocnode/config.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.output == "json" {
				return usageError{errors.New("a running node prints its log alone; --log.format json makes that JSON")}
			}
			hangUp := make(chan os.Signal, 1)
			signal.Notify(hangUp, syscall.SIGHUP) // before all else: one that comes too early would end the process
			defer signal.Stop(hangUp)

			plan, err := p.plan(cmd.Flags())
			if err != nil {
				return err
			}
			node, err := modules.New(plan, modules.Environment{Version: version(), Log: p.log, Process: true})
			if err != nil {
				return err
			}
			return p.live(cmd.Context(), node, cmd.Flags(), hangUp)
		},
	}
	p.schema.AddFlags(cmd.Flags())
	return cmd
}

// live runs a node until ctx ends or one of its modules fails, and has it read its
// configuration again at each hangUp. A service manager that asked to be told is told.
func (p *program) live(ctx context.Context, node *modules.Node, flags *pflag.FlagSet, hangUp <-chan os.Signal) error {
	if err := node.Start(ctx); err != nil {
		return err
	}
	tell(daemon.SdNotifyReady)
	var rereading sync.WaitGroup
	alive, end := context.WithCancel(ctx)
	rereading.Go(func() {
		for {
			select {
			case <-alive.Done():
				return
			case <-hangUp:
				p.reread(node, flags)
			}
		}
	})
	var watching sync.WaitGroup
	watching.Go(func() { watchdog(alive, node) })
	failure := node.Wait(ctx)
	if failure != nil {
		node.Log().Error("a module failed, so the node stops", "error", failure)
	}
	end()
	watching.Wait()
	rereading.Wait() // which says that it is ready, once it is done
	tell(daemon.SdNotifyStopping)
	unclean := node.Stop()
	if unclean != nil {
		node.Log().Error("the node did not stop cleanly", "error", unclean)
	}
	return logged(errors.Join(failure, unclean))
}

// loggedError is told already, in the log of the node that it ended.
type loggedError struct{ error }

func (e loggedError) Unwrap() error { return e.error }

func logged(err error) error {
	if err == nil {
		return nil
	}
	return loggedError{err}
}

// reread reads the configuration again. A mistake in it changes nothing.
func (p *program) reread(node *modules.Node, flags *pflag.FlagSet) {
	tell(daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
	defer tell(daemon.SdNotifyReady)
	plan, err := p.plan(flags)
	if err != nil {
		node.Log().Error("the configuration has mistakes and was not taken over; mend them and send SIGHUP again", "error", err)
		return
	}
	node.Reload(plan)
}

// tell tells the service manager, if one runs this process and wants to know.
func tell(state ...string) {
	_, _ = daemon.SdNotify(false, strings.Join(state, "\n")) // nothing depends on whether it hears
}

// idCommand prints the identity of the node that would run here.
func (p *program) idCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "id",
		Short:   "Print this node's PeerID",
		Long:    "Print the PeerID of the identity in data.dir. If there is none yet, it is made, so that\nothers can be told of a node before it first runs.",
		Example: "  ocnode id --data.dir /var/lib/ocnode",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.configure(cmd.Flags())
			if err != nil {
				return err
			}
			id, err := modules.Identity(cfg)
			if err != nil {
				return err
			}
			return p.print(struct {
				PeerID string `json:"peerID"`
			}{string(id)}, string(id)+"\n")
		},
	}
	p.schema.AddFlags(cmd.Flags())
	return cmd
}
