package modules

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/dig"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"
)

const (
	// startTimeout bounds the start: binding and a first look around, nothing that
	// waits for others.
	startTimeout = 15 * time.Second
	// stopTimeout bounds each half of the stop, what runs and what is open, so that a
	// signal ends the process within 5 s whatever hangs.
	stopTimeout = 2 * time.Second
)

// Environment is what a node is given besides its configuration.
type Environment struct {
	// Version is the program's, as others see it.
	Version string
	// Log is where the log goes; nil for nowhere.
	Log io.Writer
	// Observers are told what happens, besides the log and the metrics.
	Observers []ports.Observer
	// HostOptions are added to the libp2p host's; tests put a simulated network here.
	HostOptions []libp2p.Option
	// TickOnly looks up what is heard at the refresh tick alone, as the seed does.
	TickOnly bool
}

// Node is a composed node. Start or Run may be called once, Stop at any time after.
type Node struct {
	app     *fx.App
	log     *slog.Logger
	health  *health
	closers *closers
	failed  chan error
	face    face
}

// face is what others see of a node.
type face struct {
	fx.In

	PeerID   ports.PeerID
	Addrs    func() []string  `name:"addrs"`
	HTTP     func() string    `name:"http"`
	Registry *domain.Registry `optional:"true"`
}

// New composes the node that plan describes. Nothing listens yet. If the error is
// not nil, nothing is left behind.
func New(plan *Plan, env Environment) (*Node, error) {
	if env.Log == nil {
		env.Log = io.Discard
	}
	n := &Node{health: newHealth(plan.Modules()), closers: &closers{}, failed: make(chan error, 1)}
	n.app = fx.New(
		fx.Supply(plan, env, n.health, n.closers),
		fx.Provide(func(lc fx.Lifecycle) *tasks { return &tasks{lc, n.health, n.fail} }),
		fx.WithLogger(func(log *slog.Logger) fxevent.Logger {
			quiet := &fxevent.SlogLogger{Logger: log.With("logger", "fx")}
			quiet.UseLogLevel(slog.LevelDebug)
			quiet.UseErrorLevel(slog.LevelDebug) // told once, by whoever called
			return quiet
		}),
		plan.wiring(),
		fx.Populate(&n.face, &n.log),
		fx.StartTimeout(startTimeout),
		fx.StopTimeout(stopTimeout),
	)
	if err := n.app.Err(); err != nil {
		return nil, errors.Join(dig.RootCause(err), n.close())
	}
	return n, nil
}

// Start starts every module, in order, and returns when all of them serve. If it
// returns an error, what had been started is stopped. A start takes a fraction of a
// second and waits for nobody, so the end of ctx does not break it off half-way.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	if err := n.app.Start(ctx); err != nil {
		n.health.stop()
		return errors.Join(dig.RootCause(err), n.close())
	}
	n.log.Info("ready", "peerID", n.PeerID(), "modules", n.health.names, "addrs", n.Addrs(), "http", n.HTTP())
	return nil
}

// Stop stops every module in reverse order, within stopTimeout. /readyz says so
// from its first moment.
func (n *Node) Stop() error {
	n.health.stop()
	n.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return errors.Join(n.app.Stop(ctx), n.close())
}

// close closes what was made, and waits for that no longer than stopTimeout.
func (n *Node) close() error {
	done := make(chan error, 1)
	go func() { done <- n.closers.close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(stopTimeout):
		return fmt.Errorf("some parts did not close within %v", stopTimeout)
	}
}

// Run starts the node, and stops it when ctx ends or a module fails, whose error it
// returns then.
func (n *Node) Run(ctx context.Context) error {
	if err := n.Start(ctx); err != nil {
		return err
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-n.failed:
	}
	return errors.Join(failure, n.Stop())
}

func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default: // the first failure stops the node
	}
}

// PeerID is the node's identity.
func (n *Node) PeerID() ports.PeerID { return n.face.PeerID }

// Addrs are the addresses that others can reach the node at, each with /p2p/<PeerID>.
func (n *Node) Addrs() []string { return n.face.Addrs() }

// HTTP is the address that HTTP was bound to, "" if there is none.
func (n *Node) HTTP() string { return n.face.HTTP() }

// Registry is what the node holds as a native, nil if it is none.
func (n *Node) Registry() *domain.Registry { return n.face.Registry }

// tasks runs what a node does for as long as it lives.
type tasks struct {
	lifecycle fx.Lifecycle
	health    *health
	fail      func(error)
}

// run has a module's start called, and then its main part in a goroutine that a
// stop cancels and waits for; either may be nil. The module is ready once start has
// returned. An error of main stops the node.
func (t *tasks) run(module string, start func() error, main func(context.Context) error) {
	var running sync.WaitGroup
	life, end := context.WithCancel(context.Background()) // a hook's own context ends with the start
	t.lifecycle.Append(fx.Hook{
		OnStart: func(context.Context) error {
			if start != nil {
				if err := start(); err != nil {
					return err
				}
			}
			if main != nil {
				running.Go(func() {
					if err := main(life); err != nil {
						t.fail(fmt.Errorf("%s: %w", module, err))
					}
				})
			}
			t.health.ready(module)
			return nil
		},
		OnStop: func(ctx context.Context) error {
			end()
			done := make(chan struct{})
			go func() { running.Wait(); close(done) }()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("%s did not stop in time: %w", module, ctx.Err())
			}
		},
	})
}

// health is what /readyz answers.
type health struct {
	names   []string // the modules that are on
	mu      sync.Mutex
	waiting map[string]string
	stopped bool
}

func newHealth(names []string) *health {
	h := &health{names: names, waiting: make(map[string]string)}
	for _, name := range names {
		h.waiting[name] = "starting"
	}
	return h
}

func (h *health) ready(module string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		delete(h.waiting, module)
	}
}

// stop makes every module unready for good.
func (h *health) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for _, name := range h.names {
		h.waiting[name] = "stopping"
	}
}

// reasons returns why each module that is not ready is not.
func (h *health) reasons() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	reasons := make(map[string]string, len(h.waiting))
	for name, why := range h.waiting {
		reasons[name] = why
	}
	return reasons
}

// closers are what was made and has to be closed, whether or not the node was ever
// started, the last made first.
type closers struct{ funcs []func() error }

func (c *closers) add(f func() error) { c.funcs = append(c.funcs, f) }

func (c *closers) close() error {
	var errs []error
	for _, f := range slices.Backward(c.funcs) {
		errs = append(errs, f())
	}
	c.funcs = nil
	return errors.Join(errs...)
}
