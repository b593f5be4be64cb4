package cmd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

const (
	// demoLeases is at how many natives an indexer registers where nodes can be stopped
	// by hand: so many that any one native may be.
	demoLeases = 2
	// maxTold is how many of the latest happenings can be scrolled back to.
	maxTold = 1000
)

// draw shows the network on a screen, until ctx ends or somebody quits. Whatever
// happens, the terminal is as it was before the nodes are stopped, which may take a
// moment.
func (d *demo) draw(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := &news{}
	n, err := newNetwork(d.program, demoLeases, told.add)
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
		tea.WithOutput(d.out), tea.WithEnvironment(d.environ),
		tea.WithoutSignalHandler(), // ctx ends at a signal
	}
	if d.noColor || d.getenv("NO_COLOR") != "" {
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	direction := &director{network: n, told: told, natives: d.natives, indexers: d.indexers, ctx: ctx}
	direction.acting, direction.stopAct = context.WithCancel(ctx)
	direction.beginning, direction.skipAct = context.WithCancel(direction.acting)
	s := newScreen(direction)
	s.length = d.length
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
		_, _ = fmt.Fprintln(d.out, happening{at: time.Since(n.began), text: "the demo ends"})
	}
	return s.failure
}

// director does with the network what the screen asks for. If nobody touches a key, the
// network plays the story that it plays everywhere.
type director struct {
	*network
	told              *news
	natives, indexers int
	ctx               context.Context // of the demo
	acting, beginning context.Context // of the story's act, and of its first half
	stopAct, skipAct  func()
}

// look returns what there is to see, and what happened since the last look.
func (d *director) look() (snapshot, []happening) { return d.snapshot(), d.told.take() }

// play blocks until the story has come to its end, or to that of ctx.
func (d *director) play() error {
	if err := d.comeUp(d.ctx, d.natives, d.indexers); err != nil {
		return err
	}
	return d.act(d.acting, d.beginning)
}

// takeOver sees to it that nothing is stopped but what somebody stops. What the story
// stopped before still comes back.
func (d *director) takeOver() { d.skipAct() }

// set starts, stops or kills the node of that name, and returns when it has.
func (d *director) set(name string, to state) error {
	d.stopAct()
	m := d.member(name)
	switch {
	case m == nil:
		return fmt.Errorf("%s is none of the demo's nodes, and stays as it is", name)
	case to == running:
		return d.start(d.ctx, m)
	case to == killed:
		return d.kill(m)
	}
	return d.stop(m)
}

// more adds an indexer, and starts it.
func (d *director) more() error {
	d.stopAct()
	d.mu.Lock()
	full := len(d.network.indexers) >= maxDemoIndexers
	d.mu.Unlock()
	if full {
		return fmt.Errorf("%d indexers are as many as the demo takes", maxDemoIndexers)
	}
	return d.start(d.ctx, d.network.add(false))
}

// news holds what happened until somebody takes it, the latest maxTold of it.
type news struct {
	mu    sync.Mutex
	fresh []happening
}

func (n *news) add(h happening) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fresh = latest(append(n.fresh, h))
}

func (n *news) take() []happening {
	n.mu.Lock()
	defer n.mu.Unlock()
	fresh := n.fresh
	n.fresh = nil
	return fresh
}

// latest returns the last maxTold of what was told.
func latest(told []happening) []happening { return told[max(0, len(told)-maxTold):] }
