package modules

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"
)

const (
	// startTimeout bounds the start: binding and a first look around, nothing that
	// waits for others.
	startTimeout = 15 * time.Second
	// stopTimeout is the default of Environment.StopTimeout: a signal ends the process within
	// 5 s whatever hangs.
	stopTimeout = 2 * time.Second
)

// Environment is what a node is given besides its configuration.
type Environment struct {
	// Version is the program's, as others see it.
	Version string
	// Log is where the log goes; nil for nowhere.
	Log io.Writer
	// Process marks the only node of its process: what libraries log, which they do for
	// a whole process, goes to its log until it is closed. Without it they are silent.
	Process bool
	// Observers are told what happens, besides the log and the metrics.
	Observers []ports.Observer
	// HostOptions are added to the libp2p host's; tests put a simulated network here.
	HostOptions []libp2p.Option
	// Interfaces are the addresses of the machine; nil for those of the system. Tests put a machine
	// here that moves.
	Interfaces libp2phost.Interfaces
	// Dial dials the machines of peers, to learn whether they answer; nil is a net.Dialer's
	// DialContext. Tests that simulate the network put that here.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the time of day; nil for time.Now. Tests put a clock here that is wrong.
	Now func() time.Time
	// Elapsed is a clock that never runs back. nil is the machine's, which counts its sleep, if
	// Process is set, else Go's own. Tests put a clock here that slept.
	Elapsed func() time.Duration
	// Options are added to the composition's. Tests put a port here that behaves as they need.
	Options []fx.Option
	// StopTimeout bounds each half of the stop, what runs and what is open; 0 is 2 s.
	StopTimeout time.Duration
	// CountLoopback has the limits of a site hold for loopback too, where tests come from.
	CountLoopback bool
}

// Node is a composed node. Start may be called once, Stop at any time after.
type Node struct {
	app     *fx.App
	log     *slog.Logger
	health  *health
	closers *Closers
	reloads *Reloads
	failed  chan error
	patient time.Duration // the Environment's StopTimeout
	face    face
}

// face is what others see of a node.
type face struct {
	fx.In

	PeerID   ports.PeerID
	Addrs    func() []string  `name:"addrs"`
	HTTP     func() string    `name:"http"`
	Registry *domain.Registry `optional:"true"`
	Indexer  *client.Indexer  `optional:"true"`
}

// New composes the node that plan describes. Nothing listens yet. If the error is
// not nil, nothing is left behind.
func New(plan *Plan, env Environment) (*Node, error) {
	if env.Log == nil {
		env.Log = io.Discard
	}
	if env.StopTimeout == 0 {
		env.StopTimeout = stopTimeout
	}
	n := &Node{
		health: newHealth(plan.Modules()), closers: &Closers{}, reloads: newReloads(plan),
		failed: make(chan error, 1), patient: env.StopTimeout,
	}
	n.app = fx.New(
		fx.Supply(plan, env, n.health, n.closers, n.reloads),
		fx.Provide(func(lc fx.Lifecycle) *Tasks { return &Tasks{lc, n.closers, n.fail} }),
		fx.WithLogger(func(log *slog.Logger) fxevent.Logger {
			quiet := &fxevent.SlogLogger{Logger: log.With(loggerKey, loggerFx)}
			quiet.UseLogLevel(slog.LevelDebug)
			quiet.UseErrorLevel(slog.LevelDebug) // told once, by whoever called
			return quiet
		}),
		plan.wiring(),
		fx.Options(env.Options...),
		fx.Populate(&n.face, &n.log),
		fx.StartTimeout(startTimeout),
		fx.StopTimeout(n.patient),
	)
	if err := n.app.Err(); err != nil {
		return nil, errors.Join(cause(err), n.close())
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
		return errors.Join(cause(err), n.close())
	}
	n.log.Info("ready", "peerID", n.PeerID(), "modules", n.health.names, "addrs", n.Addrs(), "http", n.HTTP())
	return nil
}

// Stop stops every module in reverse order, within the Environment's StopTimeout, and what
// does not stop in that time without waiting for it. /readyz says so from its first moment.
func (n *Node) Stop() error {
	n.health.stop()
	n.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), n.patient)
	defer cancel()
	return errors.Join(n.app.Stop(ctx), n.close())
}

// Kill is Stop without a word to others, as far as a process can do that and live: an
// indexer does not leave its natives, which have to find out.
func (n *Node) Kill() error {
	if n.face.Indexer != nil {
		n.face.Indexer.Abandon()
	}
	return n.Stop()
}

// close closes what was made, and waits for that no longer than for a stop.
func (n *Node) close() error {
	done := make(chan error, 1)
	go func() { done <- n.closers.close() }()
	select {
	case err := <-done:
		return err
	case <-time.After(n.patient):
		return fmt.Errorf("some parts did not close within %v", n.patient)
	}
}

// Wait returns when ctx ends, or when a module fails, with its error.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.failed:
		return err
	}
}

// Reload takes over what plan changes of what can change while the node runs, and logs
// what has to wait for a restart. It must not be called concurrently.
func (n *Node) Reload(plan *Plan) { n.reloads.apply(plan, n.log) }

func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default: // the first failure stops the node
	}
}

// Log is the node's log.
func (n *Node) Log() *slog.Logger { return n.log }

// PeerID is the node's identity.
func (n *Node) PeerID() ports.PeerID { return n.face.PeerID }

// Addrs are the addresses that others can reach the node at, each with /p2p/<PeerID>.
func (n *Node) Addrs() []string { return n.face.Addrs() }

// HTTP is the address that HTTP was bound to, "" if there is none.
func (n *Node) HTTP() string { return n.face.HTTP() }

// Registry is what the node holds as a native, nil if it is none.
func (n *Node) Registry() *domain.Registry { return n.face.Registry }

// Tasks runs what a node does for as long as it lives.
type Tasks struct {
	lifecycle fx.Lifecycle
	closers   *Closers
	fail      func(error)
}

// Run has a module's start called, and then its main part in a goroutine that a stop
// cancels and waits for, 2 s at most as a rule; either may be nil. An error of start fails the
// node's start, an error of main stops the node.
func (t *Tasks) Run(module string, start func() error, main func(context.Context) error) {
	var running sync.WaitGroup
	life, end := context.WithCancel(context.Background()) // a hook's own context ends with the start
	t.closers.Add(func() error { end(); return nil })     // a stop that is out of time leaves out the rest
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
	doubts  map[string]func() string // why modules that serve cannot be relied on, "" if they can
	stopped bool
}

func newHealth(names []string) *health {
	h := &health{names: names, waiting: make(map[string]string), doubts: make(map[string]func() string)}
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

// doubt has a module that is ready be unready for as long as why returns a reason.
func (h *health) doubt(module string, why func() string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.doubts[module] = why
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
	for name, why := range h.doubts {
		if reason := why(); reason != "" {
			reasons[name] = reason
		}
	}
	for name, why := range h.waiting {
		reasons[name] = why
	}
	return reasons
}

// Closers are what was made and has to be closed, whether or not the node was ever
// started, the last made first.
type Closers struct {
	mu    sync.Mutex
	funcs []func() error
}

// Add adds what is called once, when the node is closed.
func (c *Closers) Add(f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.funcs = append(c.funcs, f)
}

func (c *Closers) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range slices.Backward(c.funcs) {
		errs = append(errs, f())
	}
	c.funcs = nil
	return errors.Join(errs...)
}
