package demo

import (
	"context"
	"fmt"
	"sync"
)

// maxTold is how many of the latest happenings can be scrolled back to.
const maxTold = 1000

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
	full := len(d.network.indexers) >= MaxIndexers
	d.mu.Unlock()
	if full {
		return fmt.Errorf("%d indexers are as many as the demo takes", MaxIndexers)
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
