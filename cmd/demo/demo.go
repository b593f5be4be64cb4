// Package demo is a whole network in one process: real nodes over libp2p on loopback, with
// the seed's times scaled down. It is told as lines, or drawn on a terminal on which its
// nodes can be stopped and started.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/opencloud/ocnode/modules"
)

// The most nodes that one process and one terminal can sensibly show.
const (
	MaxNatives  = 10
	MaxIndexers = 50
)

// The times of the demo: the seed's, scaled down so that an expiry is soon seen,
// with more slack than 60 to 66 for a machine that does other things too.
const (
	heartbeat = 2 * time.Second
	ttl       = 4 * time.Second
	refresh   = time.Second
	// meet is what the natives get to find each other before the indexers come:
	// GossipSub's heartbeat is 1 s.
	meet = time.Second
	// pause is when something happens to the last indexer, and how much later it comes back.
	pause = 5 * time.Second
)

// screenLeases is at how many natives an indexer registers where nodes can be stopped
// by hand: so many that any one native may be.
const screenLeases = 2

// Options describe a demo.
type Options struct {
	// Natives are 1 to MaxNatives, Indexers 0 to MaxIndexers.
	Natives, Indexers int
	// Length is 0 for a demo that runs until its context ends.
	Length time.Duration
	// Out gets a line for each event. With Screen, Out and standard input are a terminal, and
	// the network is drawn there.
	Out             io.Writer
	Screen, NoColor bool
	// Environ describes the terminal, as os.Environ returns it. It configures no node: the
	// demo is the same everywhere.
	Environ []string
	// The nodes are composed of Modules, and call themselves Version.
	Modules []modules.Module
	Version string
}

// Run shows a demo until ctx ends or its length is over. It ends earlier if nobody reads
// its lines any more, or if somebody quits its screen. Run takes over SIGHUP and SIGPIPE
// meanwhile, and SIGQUIT with a screen. It returns once all nodes have stopped and their
// folder is removed.
func Run(ctx context.Context, o Options) error {
	if o.Length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Length)
		defer cancel()
	}
	// A terminal that is closed, and a reader that has gone, end the demo as a signal
	// does: with its nodes stopped, and its folder removed. Where a screen is drawn so does
	// SIGQUIT: nobody could read Go's account of all goroutines there.
	var ends []os.Signal
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		ends = append(ends, syscall.SIGHUP)
	}
	if o.Screen {
		ends = append(ends, syscall.SIGQUIT)
	}
	if len(ends) > 0 { // none would stand for all
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, ends...)
		defer stop()
	}
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Reset(syscall.SIGPIPE)
	if o.Screen {
		return o.draw(ctx)
	}
	return o.tell(ctx)
}

// tell shows the network as lines, one an event, until ctx ends or nobody reads them.
func (o Options) tell(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n, err := newNetwork(o, 1, func(h happening) {
		if _, err := io.WriteString(o.Out, h.String()+"\n"); err != nil {
			cancel()
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.comeUp(ctx, o.Natives, o.Indexers); err != nil {
		return err
	}
	if err := n.act(ctx, ctx); err != nil {
		return err
	}
	<-ctx.Done()
	n.say(plainly, "the demo ends")
	return nil
}

// draw shows the network on a screen, until ctx ends or somebody quits. Whatever
// happens, the terminal is as it was before the nodes are stopped, which may take a
// moment.
func (o Options) draw(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := &news{}
	n, err := newNetwork(o, screenLeases, told.add)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	reveal, err := divertStderr(n.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reveal()) }()

	options := []tea.ProgramOption{
		tea.WithOutput(o.Out), tea.WithEnvironment(o.Environ),
		tea.WithoutSignalHandler(), // ctx ends at a signal
	}
	if o.NoColor {
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	direction := &director{network: n, told: told, natives: o.Natives, indexers: o.Indexers, ctx: ctx}
	direction.acting, direction.stopAct = context.WithCancel(ctx)
	direction.beginning, direction.skipAct = context.WithCancel(direction.acting)
	s := newScreen(direction)
	s.length = o.Length
	job := &job{}
	if job.controlled() {
		s.suspend = job
	}
	program := tea.NewProgram(s, options...)
	defer job.watch(program.Send)()
	defer context.AfterFunc(ctx, program.Quit)()
	if _, err := program.Run(); err != nil {
		return fmt.Errorf("the screen: %w", err)
	}
	if s.failure == nil {
		_, _ = fmt.Fprintln(o.Out, happening{at: time.Since(n.began), text: "the demo ends"})
	}
	return s.failure
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
