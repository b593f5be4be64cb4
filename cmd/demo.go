package cmd

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/opencloud/ocnode/cmd/demo"
	"github.com/spf13/cobra"
)

func (p *program) demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a whole little network in one process",
		Long: `Run a whole network in this process, over real libp2p on loopback, with times scaled
down (heartbeat 2s, TTL 4s). It is a real network: whoever registers with one of its
natives shows up.

In a terminal it is a table of who is seen by whom, redrawn as it changes. Each indexer
keeps leases at two natives. Select a node with the arrows, stop and start it with s, or
kill it with x, and watch what the natives make of that; ? tells the other keys, and q
ends it. If no key is pressed, the last indexer is killed, expires, comes back, leaves,
and comes back.

Elsewhere, and with TERM=dumb, it tells a line for each event: the indexers register with
native-1 and appear at the others; one of them is killed, expires everywhere, comes
back, and leaves.`,
		Example: "  ocnode demo\n  ocnode demo --natives 3 --indexers 5 --for 1m | cat",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case p.output == "json":
				return usageError{errors.New("the demo prints lines for people, not JSON; ask one of its natives with ls --api … -o json")}
			case o.Natives < 1 || o.Natives > demo.MaxNatives:
				return usageError{fmt.Errorf("--natives %d: allowed are 1 to %d", o.Natives, demo.MaxNatives)}
			case o.Indexers < 0 || o.Indexers > demo.MaxIndexers:
				return usageError{fmt.Errorf("--indexers %d: allowed are 0 to %d", o.Indexers, demo.MaxIndexers)}
			case o.Length < 0:
				return usageError{fmt.Errorf("--for %v: allowed are 0, which stands for no end, and more", o.Length)}
			}
			o.Out, o.Environ, o.Modules, o.Version = p.out, p.environ, p.modules, version()
			o.Screen, o.NoColor = p.redraws(), p.noColor || p.getenv("NO_COLOR") != ""
			for name, set := range map[string]func(){
				"natives": func() { o.Natives = 3 }, "indexers": func() { o.Indexers = 5 }, "for": func() { o.Length = 0 },
			} {
				if o.Screen && !cmd.Flags().Changed(name) {
					set()
				}
			}
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().IntVar(&o.Natives, "natives", 2, "how many natives; in a terminal, 3 unless it is given")
	cmd.Flags().IntVar(&o.Indexers, "indexers", 3, "how many indexers; in a terminal, 5 unless it is given")
	cmd.Flags().DurationVar(&o.Length, "for", 30*time.Second, "how long, 0 until a signal; in a terminal, until q unless it is given")
	return cmd
}

// redraws reports whether there is a terminal on both ends that can be drawn on.
func (p *program) redraws() bool {
	term := p.getenv("TERM")
	if term == "dumb" || term == "" && runtime.GOOS != "windows" { // which sets none
		return false
	}
	return terminal(p.out) && terminal(os.Stdin)
}
