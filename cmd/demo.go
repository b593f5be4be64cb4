package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// The times of the demo: the seed's, scaled down so that an expiry is soon seen,
// with more slack than 60 to 66 for a machine that does other things too.
const (
	demoHeartbeat = 2 * time.Second
	demoTTL       = 4 * time.Second
	demoRefresh   = time.Second
	// demoMeet is what the natives get to find each other before the indexers come:
	// GossipSub's heartbeat is 1 s.
	demoMeet = time.Second
	// demoAct is when something happens to the last indexer, and how much later it comes back.
	demoAct = 5 * time.Second
	// The most that one process and one terminal can sensibly show.
	maxDemoNatives, maxDemoIndexers = 10, 50
)

func (p *program) demoCommand() *cobra.Command {
	d := &demo{program: p}
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
			case d.natives < 1 || d.natives > maxDemoNatives:
				return usageError{fmt.Errorf("--natives %d: allowed are 1 to %d", d.natives, maxDemoNatives)}
			case d.indexers < 0 || d.indexers > maxDemoIndexers:
				return usageError{fmt.Errorf("--indexers %d: allowed are 0 to %d", d.indexers, maxDemoIndexers)}
			case d.length < 0:
				return usageError{fmt.Errorf("--for %v: allowed are 0, which stands for no end, and more", d.length)}
			}
			screen := p.redraws()
			for name, set := range map[string]func(){
				"natives": func() { d.natives = 3 }, "indexers": func() { d.indexers = 5 }, "for": func() { d.length = 0 },
			} {
				if screen && !cmd.Flags().Changed(name) {
					set()
				}
			}
			return d.run(cmd.Context(), screen)
		},
	}
	cmd.Flags().IntVar(&d.natives, "natives", 2, "how many natives; in a terminal, 3 unless it is given")
	cmd.Flags().IntVar(&d.indexers, "indexers", 3, "how many indexers; in a terminal, 5 unless it is given")
	cmd.Flags().DurationVar(&d.length, "for", 30*time.Second, "how long, 0 until a signal; in a terminal, until q unless it is given")
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

// demo is a network in one process, shown as lines or on a screen.
type demo struct {
	*program
	natives, indexers int
	length            time.Duration
}

func (d *demo) run(ctx context.Context, screen bool) error {
	if d.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	// A terminal that is closed, and a reader that has gone, end the demo as a signal
	// does: with its nodes stopped, and its folder removed. Where a screen is drawn so does
	// SIGQUIT: nobody could read Go's account of all goroutines there.
	var ends []os.Signal
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		ends = append(ends, syscall.SIGHUP)
	}
	if screen {
		ends = append(ends, syscall.SIGQUIT)
	}
	if len(ends) > 0 { // none would stand for all
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, ends...)
		defer stop()
	}
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	if screen {
		return d.draw(ctx)
	}
	return d.tell(ctx)
}

// tell shows the network as lines, one an event, until ctx ends or nobody reads them.
func (d *demo) tell(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := newNetwork(d.program, 1, func(h happening) {
		if _, err := io.WriteString(d.out, h.String()+"\n"); err != nil {
			cancel()
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.comeUp(ctx, d.natives, d.indexers); err != nil {
		return err
	}
	if err := n.act(ctx, ctx); err != nil {
		return err
	}
	<-ctx.Done()
	n.say(plainly, "the demo ends")
	return nil
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
