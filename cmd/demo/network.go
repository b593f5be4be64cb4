package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/pflag"
)

// happening is what the demo tells of.
type happening struct {
	at   time.Duration // since the demo began
	mood mood
	text string // one line
}

func (h happening) String() string { return fmt.Sprintf("%7.3fs  %s", h.at.Seconds(), h.text) }

// mood says what a happening means for those who wait to see indexers live.
type mood int

const (
	plainly mood = iota
	gladly
	sadly
)

// network is the nodes of the demo: real ones, over libp2p on loopback. It knows no
// screen. All methods may be called concurrently.
type network struct {
	modules []modules.Module
	schema  *config.Schema
	version string
	leases  int // at how many natives an indexer registers; if it is one, at native-1
	dir     string
	began   time.Time
	// saying is held while tell is called, so that what happens is told in order.
	saying   sync.Mutex
	tell     func(happening)
	watching sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	natives  []*member
	indexers []*member
	names    map[ports.PeerID]string
	// since is when an indexer last registered anew, which all have that ever did.
	since map[ports.PeerID]time.Time
	// failing are the indexers and natives, by name, between which no lease comes about.
	failing map[[2]string]bool
}

// member is a node of the network, running or not. Its identity stays the same.
type member struct {
	name   string
	native bool
	number int
	// switching is held while the node starts or stops, and taken before network.mu.
	switching sync.Mutex

	// The rest is under network.mu.
	node  *modules.Node // nil while it is stopped
	gone  bool          // it was stopped, and not killed, since its last start
	end   func()        // of what watches node
	id    ports.PeerID  // these three are as of its last start
	addrs []string
	http  string
}

// newNetwork returns a network without nodes. tell is called for whatever happens, one
// happening at a time; it must not block for long, nor call the network.
func newNetwork(o Options, leases int, tell func(happening)) (*network, error) {
	dir, err := os.MkdirTemp("", "ocnode-demo-")
	if err != nil {
		return nil, err
	}
	return &network{
		modules: o.Modules, schema: modules.Schema(o.Modules), version: o.Version, leases: leases, dir: dir, began: time.Now(), tell: tell,
		names: make(map[ports.PeerID]string), since: make(map[ports.PeerID]time.Time), failing: make(map[[2]string]bool),
	}, nil
}

// close stops all nodes together, so that it takes no longer than the slowest, and
// removes what they kept. Nothing starts, and nothing is told, any more.
func (n *network) close() error {
	n.mu.Lock()
	n.closed = true
	members := slices.Concat(n.natives, n.indexers)
	n.mu.Unlock()
	errs := make([]error, len(members))
	var stopping sync.WaitGroup
	for i, m := range members {
		stopping.Go(func() { errs[i] = n.stop(m) })
	}
	stopping.Wait()
	n.watching.Wait()
	return errors.Join(append(errs, os.RemoveAll(n.dir))...)
}

// comeUp adds and starts the natives, then the indexers. It returns early, without an
// error, when ctx ends.
func (n *network) comeUp(ctx context.Context, natives, indexers int) error {
	var members []*member
	for range natives {
		members = append(members, n.add(true))
	}
	for range indexers {
		members = append(members, n.add(false))
	}
	for i, m := range members {
		if i == natives && natives > 1 && !wait(ctx, meet) || ctx.Err() != nil {
			return nil
		}
		if err := n.start(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// act kills the last indexer, unless begin ends before, lets it expire, has it come back,
// stop, which makes it leave, and come back once more, unless ctx ends before.
func (n *network) act(ctx, begin context.Context) error {
	n.mu.Lock()
	indexers := n.indexers
	n.mu.Unlock()
	if len(indexers) == 0 {
		return nil
	}
	last := indexers[len(indexers)-1]
	for _, end := range []struct {
		how  func(*member) error
		away time.Duration
	}{{n.kill, ttl + pause}, {n.stop, pause / 2}} {
		if !wait(begin, pause) {
			return nil
		}
		if err := end.how(last); err != nil || !wait(ctx, end.away) {
			return err
		}
		if err := n.start(ctx, last); err != nil {
			return err
		}
	}
	return nil
}

// add adds a node, which is stopped.
func (n *network) add(native bool) *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	list, role := &n.indexers, "indexer"
	if native {
		list, role = &n.natives, "native"
	}
	m := &member{native: native, number: len(*list) + 1}
	m.name = fmt.Sprintf("%s-%d", role, m.number)
	*list = append(*list, m)
	return m
}

// member returns the node of that name, nil if there is none.
func (n *network) member(name string) *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range slices.Concat(n.natives, n.indexers) {
		if m.name == name {
			return m
		}
	}
	return nil
}

// start starts a node, under the identity that it had before, and a native where it
// listened before. One that runs is left alone.
func (n *network) start(ctx context.Context, m *member) error {
	m.switching.Lock()
	defer m.switching.Unlock()
	n.mu.Lock()
	settings, idle := n.settings(m), m.node == nil && !n.closed
	n.mu.Unlock()
	if !idle {
		return nil
	}
	node, err := n.compose(m.name, settings)
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	n.mu.Lock()
	n.names[node.PeerID()] = m.name
	n.mu.Unlock()
	if err := node.Start(ctx); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	life, end := context.WithCancel(context.Background())
	n.mu.Lock()
	m.node, m.end, m.gone = node, end, false
	m.id, m.addrs, m.http = node.PeerID(), node.Addrs(), node.HTTP()
	n.mu.Unlock()
	if m.native {
		n.say(gladly, "%s is up, with HTTP at http://%s, as %s", m.name, node.HTTP(), strings.Join(node.Addrs(), " and "))
	}
	n.watching.Go(func() {
		if err := node.Wait(life); err != nil {
			n.say(sadly, "%s failed: %v", m.name, err)
			_ = n.stop(m) // what has failed already may fail to stop, too
		}
	})
	return nil
}

// stop stops a node; an indexer leaves the natives. One that does not run is left alone.
func (n *network) stop(m *member) error { return n.halt(m, true) }

// kill ends a node without a word to the others.
func (n *network) kill(m *member) error { return n.halt(m, false) }

func (n *network) halt(m *member, clean bool) error {
	m.switching.Lock()
	defer m.switching.Unlock()
	n.mu.Lock()
	node, end, id := m.node, m.end, m.id
	m.node = nil
	m.gone = clean && node != nil
	var natives []*modules.Node // the others
	for _, native := range n.natives {
		if native.node != nil {
			natives = append(natives, native.node)
		}
	}
	n.mu.Unlock()
	if node == nil {
		return nil
	}
	end()
	is, halt := "is killed", node.Kill
	if clean {
		is, halt = "is stopped", node.Stop
	}
	listed := slices.ContainsFunc(natives, func(native *modules.Node) bool { _, listed := native.Registry().Get(id); return listed })
	switch {
	case m.native && len(natives) > 0:
		n.say(sadly, "%s %s; what it granted lives on at the others until it runs out", m.name, is)
	case m.native:
		n.say(sadly, "%s %s; no native is left to list what it granted", m.name, is)
	case listed && clean:
		n.say(sadly, "%s %s, and leaves", m.name, is)
	case listed:
		n.say(sadly, "%s %s; its lease runs out in at most %v", m.name, is, ttl)
	default:
		n.say(sadly, "%s %s; no native lists it", m.name, is)
	}
	if err := halt(); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}

// settings returns those in which m differs from other nodes; n.mu is held.
func (n *network) settings(m *member) map[string]string {
	if !m.native {
		return map[string]string{
			"modules": "indexer", "http.listen": "", "indexer.natives": strings.Join(n.homes(m), ","), "indexer.meta": "name=" + m.name,
		}
	}
	s := map[string]string{"modules": "native,dht,gossip", "http.listen": "127.0.0.1:0"}
	var others []string // whoever comes back is met by those it left, and meets them
	for _, other := range n.natives {
		if other != m && len(other.addrs) > 0 {
			others = append(others, other.addrs[0])
		}
	}
	s["host.bootstrap"] = strings.Join(others, ",")
	if len(m.addrs) > 0 {
		listen := make([]string, len(m.addrs))
		for i, addr := range m.addrs {
			listen[i], _, _ = strings.Cut(addr, "/p2p/")
		}
		s["host.listen"], s["http.listen"] = strings.Join(listen, ","), m.http
	}
	return s
}

// homes returns an address of each native that m registers with; n.mu is held.
func (n *network) homes(m *member) []string {
	var homes []string
	for i := range min(n.leases, len(n.natives)) {
		if n.leases > 1 {
			i = (m.number - 1 + i) % len(n.natives) // each native is home to some
		}
		if addrs := n.natives[i].addrs; len(addrs) > 0 {
			homes = append(homes, addrs[0])
		}
	}
	return homes
}

// compose returns a node with these settings, and those that all nodes of the demo have.
func (n *network) compose(name string, settings map[string]string) (*modules.Node, error) {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	n.schema.AddFlags(flags)
	all := map[string]string{
		"data.dir":           filepath.Join(n.dir, name),
		"host.listen":        "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1",
		"registry.heartbeat": heartbeat.String(), "registry.ttl": ttl.String(), "registry.refresh": refresh.String(),
	}
	maps.Copy(all, settings)
	for key, value := range all {
		if err := flags.Set(key, value); err != nil {
			return nil, err
		}
	}
	cfg, err := n.schema.Load(config.Sources{Flags: flags})
	if err != nil {
		return nil, err
	}
	plan, err := modules.NewPlan(n.modules, cfg)
	if err != nil {
		return nil, err
	}
	return modules.New(plan, modules.Environment{
		Version: n.version, Log: io.Discard, Observers: []ports.Observer{teller{n, name}},
	})
}

// say tells one line, until the network is closed.
func (n *network) say(m mood, format string, args ...any) {
	n.saying.Lock()
	defer n.saying.Unlock()
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if !closed {
		n.tell(happening{time.Since(n.began), m, oneLine(fmt.Sprintf(format, args...))})
	}
}

// oneLine makes one line of text, as libp2p's errors are not, without what would move a
// terminal's cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
}

// teller tells what one node observes.
type teller struct {
	*network
	node string
}

func (t teller) Observe(e ports.Event) {
	switch {
	case e.Kind == ports.EventRegistered && e.Joined:
		t.mu.Lock()
		t.since[e.PeerID] = time.Now()
		t.mu.Unlock()
		t.say(gladly, "%s registered with %s", t.name(e.PeerID), t.node)
	case (e.Kind == ports.EventLookedUp || e.Kind == ports.EventJoined) && e.Joined:
		t.mu.Lock()
		since, ok := t.since[e.PeerID]
		t.mu.Unlock()
		after := ""
		if ok {
			after = fmt.Sprintf(", %v after it registered", time.Since(since).Round(time.Millisecond))
		}
		t.say(gladly, "%s appeared at %s, by way of %s%s", t.name(e.PeerID), t.node, t.name(e.Via), after)
	case e.Kind == ports.EventLeft && e.Joined:
		t.say(sadly, "%s left %s", t.name(e.PeerID), t.node)
	case e.Kind == ports.EventExpired:
		t.say(sadly, "%s expired at %s", t.name(e.PeerID), t.node)
	case e.Kind == ports.EventRefused:
		t.say(sadly, "%s was refused by %s: %v", t.name(e.PeerID), t.node, e.Err)
	case e.Kind == ports.EventLeaseGranted:
		t.fails(e.Via, false)
	case e.Kind == ports.EventLeaseLost && t.fails(e.Via, true):
		t.say(sadly, "%s lost %s, and tries on", t.node, t.name(e.Via))
	case e.Kind == ports.EventLeaseFailed && t.fails(e.Via, true):
		t.say(sadly, "%s could not register with %s, and tries on: %v", t.node, t.name(e.Via), e.Err)
	}
}

// fails notes whether this node, an indexer, fails to keep its lease at a native, and
// reports whether that is news.
func (t teller) fails(native ports.PeerID, fails bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := [2]string{t.node, string(native)}
	news := t.failing[pair] != fails
	if fails {
		t.failing[pair] = true
	} else {
		delete(t.failing, pair)
	}
	return news
}

// name returns the demo's name of a node, or a stranger's PeerID.
func (n *network) name(id ports.PeerID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name, ok := n.names[id]; ok {
		return name
	}
	return string(id)
}
