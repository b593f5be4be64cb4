package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
	// demoAct is when the last indexer is stopped, and how much later it comes back.
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
down (heartbeat 2s, TTL 4s): the indexers register with native-1 and appear at the
others; one of them is stopped, expires everywhere, and comes back.

It is a real network: whoever registers with one of the natives that it prints shows up.`,
		Example: "  ocnode demo --natives 3 --indexers 5 --for 1m",
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
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&d.natives, "natives", 2, "how many natives")
	cmd.Flags().IntVar(&d.indexers, "indexers", 3, "how many indexers")
	cmd.Flags().DurationVar(&d.length, "for", 30*time.Second, "how long, 0 until a signal")
	return cmd
}

// demo is a network in one process.
type demo struct {
	*program
	natives, indexers int
	length            time.Duration

	dir   string
	began time.Time

	mu    sync.Mutex
	names map[ports.PeerID]string
	seen  map[ports.PeerID]time.Time // when an indexer registered anew
}

func (d *demo) run(ctx context.Context) (err error) {
	if d.length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.length)
		defer cancel()
	}
	if d.dir, err = os.MkdirTemp("", "ocnode-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	d.began, d.names, d.seen = time.Now(), make(map[ports.PeerID]string), make(map[ports.PeerID]time.Time)

	var running []*modules.Node
	defer func() { err = errors.Join(err, stopAll(running)) }()
	first := "" // an address of native-1, which everyone joins through
	for i := 0; i < d.natives && ctx.Err() == nil; i++ {
		name := fmt.Sprintf("native-%d", i+1)
		node, err := d.start(ctx, name, map[string]string{
			"modules": "native,dht,gossip", "http.listen": "127.0.0.1:0", "host.bootstrap": first,
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		running = append(running, node)
		d.say("%s is up, with HTTP at http://%s, as %s", name, node.HTTP(), strings.Join(node.Addrs(), " and "))
		if i == 0 {
			first = node.Addrs()[0]
		}
	}
	if d.natives > 1 {
		wait(ctx, demoMeet)
	}
	var last *modules.Node
	for i := 0; i < d.indexers && ctx.Err() == nil; i++ {
		if last, err = d.indexer(ctx, i, first); err != nil {
			return err
		}
		running = append(running, last)
	}
	if last != nil && wait(ctx, demoAct) {
		running = running[:len(running)-1]
		d.say("indexer-%d is stopped; its lease runs out in at most %v", d.indexers, demoTTL)
		if err := last.Stop(); err != nil {
			return err
		}
		if wait(ctx, demoTTL+demoAct) {
			if last, err = d.indexer(ctx, d.indexers-1, first); err != nil {
				return err
			}
			running = append(running, last)
		}
	}
	<-ctx.Done()
	d.say("the demo ends")
	return nil
}

func (d *demo) indexer(ctx context.Context, i int, native string) (*modules.Node, error) {
	name := fmt.Sprintf("indexer-%d", i+1)
	node, err := d.start(ctx, name, map[string]string{
		"modules": "indexer", "http.listen": "", "indexer.natives": native, "indexer.meta": "name=" + name,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return node, nil
}

// start starts a node with these settings, and those that all nodes of the demo have.
func (d *demo) start(ctx context.Context, name string, settings map[string]string) (*modules.Node, error) {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	d.schema.AddFlags(flags)
	for key, value := range map[string]string{
		"config": "", "data.dir": filepath.Join(d.dir, name),
		"host.listen":        "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1",
		"registry.heartbeat": demoHeartbeat.String(), "registry.ttl": demoTTL.String(), "registry.refresh": demoRefresh.String(),
	} {
		if err := flags.Set(key, value); err != nil {
			return nil, err
		}
	}
	for key, value := range settings {
		if err := flags.Set(key, value); err != nil {
			return nil, err
		}
	}
	p := *d.program
	p.environ = nil // the demo is the same everywhere
	plan, err := p.plan(flags)
	if err != nil {
		return nil, err
	}
	node, err := modules.New(plan, modules.Environment{
		Version: version(), Log: io.Discard, Observers: []ports.Observer{teller{d, name}},
	})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.names[node.PeerID()] = name
	d.mu.Unlock()
	return node, node.Start(ctx)
}

// teller tells in the demo's lines what one node observes.
type teller struct {
	*demo
	node string
}

func (t teller) Observe(e ports.Event) {
	switch {
	case e.Kind == ports.EventRegistered && e.Joined:
		t.mu.Lock()
		t.seen[e.PeerID] = time.Now()
		t.mu.Unlock()
		t.say("%s registered with %s", t.name(e.PeerID), t.node)
	case e.Kind == ports.EventLookedUp && e.Joined:
		t.mu.Lock()
		since, ok := t.seen[e.PeerID]
		t.mu.Unlock()
		after := ""
		if ok {
			after = fmt.Sprintf(", %v after it registered", time.Since(since).Round(time.Millisecond))
		}
		t.say("%s appeared at %s, by way of %s%s", t.name(e.PeerID), t.node, t.name(e.Via), after)
	case e.Kind == ports.EventExpired:
		t.say("%s expired at %s", t.name(e.PeerID), t.node)
	case e.Kind == ports.EventRefused:
		t.say("%s was refused by %s: %v", t.name(e.PeerID), t.node, e.Err)
	case e.Kind == ports.EventLeaseFailed:
		t.say("%s could not register with %s: %v", t.node, t.name(e.Via), e.Err)
	}
}

// name returns the demo's name of a node, or a stranger's PeerID.
func (d *demo) name(id ports.PeerID) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := d.names[id]; ok {
		return name
	}
	return string(id)
}

// say prints one line.
func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%7.3fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
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

// stopAll stops the nodes together, so that it takes no longer than the slowest.
func stopAll(nodes []*modules.Node) error {
	errs := make([]error, len(nodes))
	var stopping sync.WaitGroup
	for i, node := range nodes {
		stopping.Go(func() { errs[i] = node.Stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}
