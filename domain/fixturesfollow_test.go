package domain_test

// The fixtures of tests in which natives follow each other, and indexers keep leases at them.

import (
	"context"
	"iter"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// withFollowingNetwork is withNetwork for tests of what natives tell each other.
func withFollowingNetwork(t *testing.T, f func(t *testing.T, net *followingNetwork)) {
	withNetwork(t, func(t *testing.T, net *network) { f(t, newFollowingNetwork(net)) })
}

// withEachWatch runs a test twice: natives follow each other by numbers, and by the JSON watch as natives
// of the version before do.
func withEachWatch(t *testing.T, f func(t *testing.T, net *followingNetwork)) {
	for _, json := range []bool{false, true} {
		withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
			net.json = json
			f(t, net)
		})
		if t.Failed() {
			t.Fatalf("with the JSON watch: %t", json)
		}
	}
}

// withSigningFollowingNetwork is the same with natives that check proofs: the set-up for indexers.
func withSigningFollowingNetwork(t *testing.T, f func(t *testing.T, net *followingNetwork)) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		net.rules.Proofs = proof.NewVerifier()
		net.space = memory.NewSpace(net.rules.Acceptable)
		f(t, net)
	})
}

// followingNetwork is a network whose natives follow each other. Each has a store and a topic of
// its own unless its options say otherwise, so that nothing else tells it of the others.
type followingNetwork struct {
	*network
	transports *memory.Network
	silence    *silentCut
	json       bool // natives follow each other by the JSON watch
}

func newFollowingNetwork(net *network) *followingNetwork {
	return &followingNetwork{network: net, transports: memory.NewNetwork(), silence: &silentCut{changed: make(chan struct{})}}
}

// silentCut takes what natives tell each other, without a word. Connections from before stay open on
// paper, for good, until a native suspects them. While it is on, a new watch is silent too.
type silentCut struct {
	mu        sync.Mutex
	on        bool
	suspected map[[2]ports.PeerID]bool // the connections that are closed until the end of the cut
	changed   chan struct{}
	cut       int // how many cuts there were
}

func (c *silentCut) begin() { c.set(true) }
func (c *silentCut) end()   { c.set(false) }

func (c *silentCut) set(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on = on; on {
		c.cut++
	}
	c.suspected = map[[2]ports.PeerID]bool{}
	close(c.changed)
	c.changed = make(chan struct{})
}

// state returns how many cuts there were, and whether the last is still on.
func (c *silentCut) state() (cuts int, on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut, c.on
}

// silencedTransport is a Transport under a silentCut.
type silencedTransport struct {
	*memory.Transport
	id   ports.PeerID
	cut  *silentCut
	json bool
}

func (t silencedTransport) Neighbours() (natives []ports.Neighbour, changed <-chan struct{}) {
	all, changed := t.Transport.Neighbours()
	t.cut.mu.Lock()
	defer t.cut.mu.Unlock()
	for _, n := range all {
		if !t.cut.suspected[[2]ports.PeerID{t.id, n.PeerID}] {
			natives = append(natives, n)
		}
	}
	if t.cut.cut > 0 {
		changed = t.cut.changed // from the first cut on no native comes or goes
	}
	return natives, changed
}

func (t silencedTransport) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := t.Transport.Native(id, addrs)
	return silencedNative{n, t, id}, err
}

// silencedNative is a native behind a silencedTransport.
type silencedNative struct {
	ports.RemoteNative
	t  silencedTransport
	id ports.PeerID
}

// Suspect implements ports.Suspecter: the connection is dialled until the end of the cut.
func (n silencedNative) Suspect() {
	c := n.t.cut
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on {
		c.suspected[[2]ports.PeerID{n.t.id, n.id}] = true
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

func (n silencedNative) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	w.Numbers = w.Numbers && !n.t.json
	return func(yield func(ports.Batch, error) bool) {
		cuts, on := n.t.cut.state()
		if on {
			select {
			case <-ctx.Done():
				yield(ports.Batch{}, ctx.Err())
			case <-time.After(ports.ExchangeTimeout):
				yield(ports.Batch{}, ports.ErrSilent)
			}
			return
		}
		for batch, err := range n.RemoteNative.Watch(ctx, sender, w) {
			if now, _ := n.t.cut.state(); now != cuts {
				<-ctx.Done()
				yield(ports.Batch{}, ctx.Err())
				return
			}
			if !yield(batch, err) {
				return
			}
		}
	}
}

// nativeOptions is how a native of a followingNetwork differs from the usual.
type nativeOptions struct {
	store ports.Store
	topic *memory.Topic
	// shares is for a native that has its store and its topic in common with others, if it is given none.
	shares bool
	skew   time.Duration        // how much its clock is ahead
	clock  func() time.Duration // the same, as it is at the moment
	lone   bool                 // no other native can know of it yet
	// sleeps is how long it has slept by now; nil is never.
	sleeps func() time.Duration
	line   ports.Line // nil is a line that is lost, unless other natives answer
	// bootstrap are the peers that it joins through. Without them it trusts every native by name.
	bootstrap *bootstrapPeers
	// followers are its followers, and audience what its announcer says of the nodes that it reaches.
	followers *domain.Followers
	audience  func() uint64
	bounds    domain.Bounds
}

// audible is an Announcer that knows whom it reaches.
type audible struct {
	ports.Announcer
	audience func() uint64
}

func (a audible) Audience() uint64 { return a.audience() }

// bootstrapPeers are the bootstrap peers of a native, which never change.
type bootstrapPeers []ports.BootstrapPeer

func (p *bootstrapPeers) Peers() ([]ports.BootstrapPeer, <-chan struct{}) { return *p, nil }

// followingNative is a native of a followingNetwork. A test may cut it off and heal that.
type followingNative struct {
	*native
	transport *memory.Transport
	cut       func() // from the others, which it is without any warning
	heal      func()
}

func (net *followingNetwork) native(id ports.PeerID, options nativeOptions) *followingNative {
	net.t.Helper()
	rules := net.rules
	rules.Self = id
	if options.clock == nil {
		options.clock = func() time.Duration { return options.skew }
	}
	rules.Clock = domain.NewClock(func() time.Time { return time.Now().Add(options.clock()) }, nil)
	if options.sleeps != nil {
		began := time.Now()
		rules.Clock = domain.NewClock(nil, func() time.Duration { return time.Since(began) + options.sleeps() })
	}
	switch {
	case options.store != nil:
	case options.shares:
		options.store = net.space.Join()
	default:
		options.store = memory.NewStore(rules.Acceptable)
	}
	switch {
	case options.topic != nil:
	case options.shares:
		options.topic = net.topic
	default:
		options.topic = memory.NewTopic()
	}
	f := &followingNative{transport: net.transports.Join(id), native: &native{Recorder: &porttest.Recorder{}, store: options.store, announcer: options.topic.Join(id)}}
	var err error
	settings := domain.FollowerSettings{Expected: !options.lone, Listed: func(ports.PeerID) bool { return true }, Followers: options.followers}
	announcer := ports.Announcer(f.announcer)
	if options.audience != nil {
		announcer = audible{announcer, options.audience}
	}
	if options.bootstrap != nil {
		settings.Bootstrap, settings.Listed = options.bootstrap, nil
	}
	following := domain.NewFollower(rules, silencedTransport{f.transport, id, net.silence, net.json}, settings)
	if f.Registry, err = domain.NewRegistry(rules, domain.Settings{Follower: following, Followers: options.followers, Line: options.line, Bounds: options.bounds}, options.store, announcer, f.Recorder); err != nil {
		net.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(net.t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{f.Run, func(ctx context.Context) error { return following.Run(ctx, f.Registry) }} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				net.t.Errorf("run: %v", err)
			}
		})
	}
	f.heal = func() {
		stop, err := f.transport.Serve(f.Registry)
		if err != nil {
			net.t.Fatal(err)
		}
		f.cut = sync.OnceFunc(stop)
	}
	f.heal()
	f.stop = sync.OnceFunc(func() {
		f.cut()
		cancel()
		running.Wait()
		_ = f.announcer.Close()
	})
	synctest.Wait()
	return f
}

// natives starts n natives, those of peerIDs.
func (net *followingNetwork) natives(n int, options nativeOptions) (all []*followingNative) {
	for _, id := range peerIDs(n) {
		all = append(all, net.native(id, options))
	}
	synctest.Wait()
	return all
}

func (net *followingNetwork) stop(natives ...*followingNative) {
	for _, n := range natives {
		n.stop()
	}
}

// indexerOptions is how an indexer of a followingNetwork differs from the usual.
type indexerOptions struct {
	addr   string
	signer ports.Signer
	clock  *domain.Clock
}

// indexer is a client.Indexer of a followingNetwork, with what it told its observer.
type indexer struct {
	*porttest.Recorder
	id   ports.PeerID
	kill func() // without a word
	stop func() // with a leave
}

// indexer starts s with leases at natives.
func (net *followingNetwork) indexer(s *prooftest.Signer, options indexerOptions, natives ...ports.PeerID) *indexer {
	net.t.Helper()
	x := &indexer{Recorder: &porttest.Recorder{}, id: s.PeerID}
	if options.signer == nil {
		options.signer = s
	}
	transport := net.transports.Join(s.PeerID)
	given := map[ports.PeerID]ports.Native{}
	for _, id := range natives {
		native, err := transport.Native(id, nil)
		if err != nil {
			net.t.Fatal(err)
		}
		given[id] = native
	}
	rules := net.rules
	rules.Self = s.PeerID
	if rules.Clock = options.clock; rules.Clock == nil {
		rules.Clock = domain.NewClock(nil, nil)
	}
	rules.Clock.Abstain(domain.EnoughNatives)
	indexer, err := client.NewIndexer(rules, options.signer, client.PinNatives(given), func() ports.Registration {
		return ports.Registration{PeerID: s.PeerID, Addr: options.addr}
	}, x.Recorder)
	if err != nil {
		net.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(net.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := indexer.Run(ctx); err != nil {
			net.t.Errorf("run: %v", err)
		}
	}()
	x.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	x.kill = func() {
		indexer.Abandon()
		x.stop()
	}
	synctest.Wait()
	return x
}

// withSettledNetwork is for tests of clocks: it runs f when the indexers have had their leases for
// minutes. All indexers use the clock indexers. If it is nil, their clock is right.
func withSettledNetwork(t *testing.T, natives int, indexers *settableClock, f func(t *testing.T, net *settledNetwork)) {
	keys := prooftest.NewSigners(t, natives+2)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		s := &settledNetwork{followingNetwork: net}
		ids := peerIDs(natives)
		for _, id := range ids {
			clock := &settableClock{}
			s.clocks = append(s.clocks, clock)
			s.natives = append(s.natives, net.native(id, nativeOptions{store: lyingStore{net.space.Join(), &s.lies}, shares: true, clock: clock.read, lone: natives == 1}))
		}
		if natives > 1 {
			time.Sleep(time.Second)
		}
		dead := net.indexer(keys[0], indexerOptions{addr: addr}, ids...)
		s.dead = dead.id
		for i, key := range keys[1:] {
			at := ids
			if i < natives {
				at = ids[i : i+1]
			}
			options := indexerOptions{addr: addr}
			if indexers != nil {
				options.clock = indexers.clock()
			}
			s.living = append(s.living, net.indexer(key, options, at...))
		}
		time.Sleep(time.Duration(3*60+mathrand.IntN(60)) * time.Second)
		last, err := s.natives[0].store.Local(dead.id, ports.Version{})
		if err != nil || last.Proof == nil {
			t.Fatalf("the store has %+v, %v", last, err)
		}
		dead.kill()
		time.Sleep(70 * time.Second)
		s.lies.Store(dead.id, last)
		f(t, s)
		for _, x := range s.living {
			x.kill()
		}
		net.stop(s.natives...)
	})
}

// settledNetwork is some natives, indexers that live with each and with all of them, and an indexer
// that has died, whose last entry is announced and stored again all the time.
type settledNetwork struct {
	*followingNetwork
	natives []*followingNative
	clocks  []*settableClock // of the natives
	living  []*indexer
	dead    ports.PeerID

	lies    sync.Map
	samples int
}

// watch has the test fail if an indexer that lives is missing anywhere, or the dead one is listed, at
// any tenth of a second.
func (net *settledNetwork) watch(d time.Duration) {
	net.t.Helper()
	voice := net.topic.Join("somebody")
	defer voice.Close()
	for began := time.Now(); time.Since(began) < d; time.Sleep(100 * time.Millisecond) {
		for i, n := range net.natives {
			for j, x := range net.living {
				net.samples++
				if !n.lists(x.id) {
					net.t.Fatalf("after %v native %d does not list indexer %d, which lives", time.Since(began), i, j)
				}
			}
			if got, ok := n.Get(net.dead); ok {
				net.t.Fatalf("after %v native %d lists the dead one: %+v", time.Since(began), i, got)
			}
		}
		if time.Since(began)%(5*time.Second) < 100*time.Millisecond {
			_ = voice.Announce(net.t.Context(), net.dead)
		}
	}
}
