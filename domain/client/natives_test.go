package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// offersNothing is a native without an offer, for the tests' natives to build on.
type offersNothing struct{}

func (offersNothing) Register(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
	return ports.Lease{}, ports.ErrNotOffered
}
func (offersNothing) Leave(context.Context, ports.PeerID, []byte) error { return ports.ErrNotOffered }
func (offersNothing) LookUp(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
	return ports.Answer{}, ports.ErrNotOffered
}
func (offersNothing) List(context.Context, ports.PeerID, ports.Query) (ports.Page, error) {
	return ports.Page{}, ports.ErrNotOffered
}
func (offersNothing) Natives(context.Context, ports.PeerID) ([]ports.NativeStatus, error) {
	return nil, ports.ErrNotOffered
}
func (offersNothing) Watch(context.Context, ports.PeerID, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, ports.ErrNotOffered) }
}
func (offersNothing) Disconnected() <-chan struct{} { return nil }
func (offersNothing) Reached() string               { return "" }

var errDown = errors.New("connection refused")

// behaviour is how a native of the tests answers.
type behaviour int

const (
	grants  behaviour = iota
	down              // cannot be dialled
	hangs             // accepts nothing and says nothing until the caller gives up
	mute              // takes registrations and says nothing: a native of the seed
	refuses           // says no for good
)

// network has the natives of a test, and says which of them are connected: a Transport and a
// Discovery.
type network struct {
	mu         sync.Mutex
	does       map[ports.PeerID]behaviour
	leases     map[ports.PeerID]time.Time // until when each native has one
	lost       map[ports.PeerID]chan struct{}
	left       map[ports.PeerID]int
	registered map[ports.PeerID]int
	asked      map[ports.PeerID]int // look-ups
	say        func(native, id ports.PeerID) (ports.Answer, error)

	neighbours []ports.Neighbour
	changed    chan struct{}
	found      []ports.PeerID
	looks      int
}

func newNetwork() *network {
	return &network{
		does: map[ports.PeerID]behaviour{}, leases: map[ports.PeerID]time.Time{}, lost: map[ports.PeerID]chan struct{}{},
		left: map[ports.PeerID]int{}, registered: map[ports.PeerID]int{}, asked: map[ports.PeerID]int{}, changed: make(chan struct{}),
	}
}

// shows returns what a native says of an indexer if all natives tell each other.
func (net *network) shows(of ...ports.PeerID) (ports.Answer, error) {
	net.mu.Lock()
	defer net.mu.Unlock()
	var a ports.Answer
	for _, id := range of {
		if left := time.Until(net.leases[id]); left > 0 {
			a.Native, a.Remaining, a.Natives = id, max(a.Remaining, left), append(a.Natives, id)
		}
	}
	if len(a.Natives) == 0 {
		return a, ports.ErrNotFound
	}
	return a, nil
}

func (net *network) natives(n int, b behaviour) (ids []ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	for range n {
		id := ports.PeerID(fmt.Sprintf("n%d", len(net.does)))
		net.does[id] = b
		ids = append(ids, id)
	}
	return ids
}

func (net *network) set(b behaviour, ids ...ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	for _, id := range ids {
		net.does[id] = b
		if c := net.lost[id]; c != nil && b != grants {
			close(c)
			delete(net.lost, id)
		}
		if b == down {
			delete(net.leases, id)
		}
	}
}

// says has the natives answer look-ups by say from now on.
func (net *network) says(say func(native, id ports.PeerID) (ports.Answer, error)) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.say = say
}

func (net *network) find(ids ...ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.found = ids
}

func (net *network) connect(ids ...ports.PeerID) { net.connectAt("", ids...) }

// connectAt connects natives by connections with the public address at.
func (net *network) connectAt(at string, ids ...ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	for _, id := range ids {
		net.neighbours = append(net.neighbours, ports.Neighbour{PeerID: id, Addrs: []string{"a"}, Watchable: net.does[id] != mute, At: at})
	}
	close(net.changed)
	net.changed = make(chan struct{})
}

// holding returns the natives that have a lease now, sorted.
func (net *network) holding() (ids []ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	for id, until := range net.leases {
		if time.Now().Before(until) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// looked returns how often the discovery was asked.
func (net *network) looked() int {
	net.mu.Lock()
	defer net.mu.Unlock()
	return net.looks
}

func (net *network) counts(of map[ports.PeerID]int, id ports.PeerID) int {
	net.mu.Lock()
	defer net.mu.Unlock()
	return of[id]
}

// all returns what each native does.
func (net *network) all() map[ports.PeerID]behaviour {
	net.mu.Lock()
	defer net.mu.Unlock()
	return maps.Clone(net.does)
}

func (net *network) Serve(ports.Native) (func(), error) { return nil, errDown }

func (net *network) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address")
	}
	return fakeNative{net: net, id: id}, nil
}

func (net *network) Neighbours() ([]ports.Neighbour, <-chan struct{}) {
	net.mu.Lock()
	defer net.mu.Unlock()
	return slices.Clone(net.neighbours), net.changed
}

func (net *network) Advertise(context.Context) error { return nil }

func (net *network) Find(_ context.Context, found func(ports.Found)) error {
	net.mu.Lock()
	net.looks++
	ids := slices.Clone(net.found)
	net.mu.Unlock()
	for _, id := range ids {
		found(ports.Found{PeerID: id, Addrs: []string{"a"}})
	}
	return nil
}

// fakeNative is a native of a network.
type fakeNative struct {
	offersNothing
	net *network
	id  ports.PeerID
}

// meet returns how the native answers, after the time that it takes.
func (n fakeNative) meet(ctx context.Context) (behaviour, error) {
	n.net.mu.Lock()
	b, ok := n.net.does[n.id]
	n.net.mu.Unlock()
	switch {
	case !ok || b == down:
		return b, errDown
	case b == hangs:
		select {
		case <-ctx.Done():
			return b, ctx.Err()
		case <-time.After(ports.ExchangeTimeout):
			return b, errors.New("timed out")
		}
	}
	return b, ctx.Err()
}

func (n fakeNative) Register(ctx context.Context, sender ports.PeerID, _ ports.Registration) (ports.Lease, error) {
	n.net.mu.Lock()
	n.net.registered[n.id]++
	n.net.mu.Unlock()
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return ports.Lease{}, err
	case b == refuses:
		return ports.Lease{}, ports.Refuse(ports.CodeRefused, "no")
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.leases[n.id] = time.Now().Add(domain.DefaultTTLPolicy().TTL)
	if b == mute {
		return ports.Lease{Unconfirmed: true}, nil
	}
	if n.net.lost[n.id] == nil {
		n.net.lost[n.id] = make(chan struct{})
	}
	return domain.DefaultTTLPolicy().Grant(time.Now()), nil
}

func (n fakeNative) Disconnected() <-chan struct{} {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.net.lost[n.id]
}

func (n fakeNative) Leave(ctx context.Context, sender ports.PeerID, _ []byte) error {
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return err
	case b == mute:
		return fmt.Errorf("leave: %w", ports.ErrNotOffered)
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.left[n.id]++
	delete(n.net.leases, n.id)
	return nil
}

func (n fakeNative) LookUp(ctx context.Context, _, id ports.PeerID) (ports.Answer, error) {
	n.net.mu.Lock()
	n.net.asked[n.id]++
	say := n.net.say
	n.net.mu.Unlock()
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return ports.Answer{}, err
	case b == mute:
		return ports.Answer{}, ports.ErrNotOffered
	case b == refuses:
		return ports.Answer{}, ports.Refuse(ports.CodeBusy, "no")
	}
	if say == nil {
		return n.net.shows(slices.Collect(maps.Keys(n.net.all()))...)
	}
	return say(n.id, id)
}

func TestCandidatesAreBoundedAndTheBadMakeWay(t *testing.T) {
	net := newNetwork()
	n := FindNatives("me", nil, net, net)
	for i := range 3 * maxCandidates {
		net.find(ports.PeerID(fmt.Sprint(i)), "me")
		n.looked = time.Time{}
		n.look(t.Context(), time.Second, askNativeAgain)
	}
	all := n.best()
	if len(all) != maxCandidates || slices.ContainsFunc(all, func(c candidate) bool { return c.id == "me" }) {
		t.Fatalf("%d candidates, want %d and not this node itself", len(all), maxCandidates)
	}
	bad := all[0].id
	n.note(bad, fails)
	net.find("new")
	n.looked = time.Time{}
	n.look(t.Context(), time.Second, askNativeAgain)
	has := func(id ports.PeerID) bool {
		return slices.ContainsFunc(n.best(), func(c candidate) bool { return c.id == id })
	}
	if has(bad) || !has("new") {
		t.Error("one that fails does not make way for one that is found")
	}
	net.connect("neighbour")
	n.meet()
	best := n.best()
	if best[0].id != "neighbour" || len(best) != maxCandidates {
		t.Errorf("the first of %d is %s, want the one that is connected", len(best), best[0].id)
	}
	good := best[1].id // "new" may have made way
	n.note(good, answers)
	if best := n.best(); best[0].id != good {
		t.Errorf("the first is %s, want the one that answers", best[0].id)
	}
}

// TestNativesThatAnswerAreAskedForOthers has one that knows as many as a native tells of.
func TestNativesThatAnswerAreAskedForOthers(t *testing.T) {
	net := newNetwork()
	n := FindNatives("me", func(id ports.PeerID) bool { return id != "stranger" }, net)
	asked := 0
	tells := func(known ...ports.PeerID) *candidate {
		id := ports.PeerID(fmt.Sprint("native", len(n.candidates)))
		c := &candidate{id: id, standing: answers, native: porttest.Native{OnNatives: func(context.Context, ports.PeerID) ([]ports.NativeStatus, error) {
			asked++
			statuses := []ports.NativeStatus{{PeerID: "nowhere"}}
			for _, k := range known {
				statuses = append(statuses, ports.NativeStatus{PeerID: k, Addrs: []string{"there"}})
			}
			return statuses, nil
		}}}
		n.candidates[id] = c
		return c
	}
	tells("a", "me", "stranger", "b").standing = fails
	n.look(t.Context(), time.Second, askNativeAgain)
	if asked != 0 || len(n.candidates) != 1 {
		t.Errorf("one that fails was asked %d times; %d candidates", asked, len(n.candidates))
	}
	first := tells("a", "me", "stranger", "b")
	n.looked = time.Time{}
	n.look(t.Context(), time.Second, askNativeAgain)
	for id, want := range map[ports.PeerID]bool{"a": true, "b": true, "me": false, "stranger": false, "nowhere": false} {
		if n.candidates[id] != nil != want {
			t.Errorf("%s is a candidate: %t, want %t", id, !want, want)
		}
	}
	if asked != 1 || n.candidates[first.id].standing != answers || n.candidates["a"].standing != untried {
		t.Errorf("asked %d times; it stands at %d, who it knows at %d", asked, n.candidates[first.id].standing, n.candidates["a"].standing)
	}
}

func TestACandidateThatFailsIsPutOffLongerAndLonger(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		n := FindNatives("me", nil, net, net)
		net.find("x")
		n.look(t.Context(), time.Second, askNativeAgain)
		none := func(ports.PeerID) bool { return false }
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			if _, _, ok := n.due(none, time.Now()); !ok {
				t.Fatalf("it is not due after %d failures and their pauses", i)
			}
			n.note("x", fails)
			_, next, ok := n.due(none, time.Now())
			if pause := time.Until(next); ok || pause > want*time.Second || pause < want*time.Second*9/10 {
				t.Errorf("pause %d is %v, want %v s at most", i, pause, want)
			}
			time.Sleep(time.Until(next))
		}
		n.note("x", answers)
		if _, _, ok := n.due(none, time.Now()); !ok {
			t.Error("one that answers is put off")
		}
		if _, _, ok := n.due(func(ports.PeerID) bool { return true }, time.Now()); ok {
			t.Error("one that is taken is due")
		}
	})
}

func TestThoseWhoLookAtTheSameTimeShareIt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		slow := endlessDiscovery{net}
		n := FindNatives("me", nil, net, slow)
		var looking sync.WaitGroup
		began := time.Now()
		for range 10 {
			looking.Go(func() { n.look(t.Context(), time.Second, askNativeAgain) })
		}
		looking.Wait()
		if net.looked() != 1 || time.Since(began) > lookTimeout {
			t.Errorf("%d looks in %v, want one of %v at most", net.looked(), time.Since(began), lookTimeout)
		}
		n.look(t.Context(), time.Second, askNativeAgain)
		if net.looked() != 1 {
			t.Error("it looks again at once")
		}
		time.Sleep(time.Second)
		n.look(t.Context(), time.Second, askNativeAgain)
		if net.looked() != 2 {
			t.Error("it does not look again")
		}
	})
}

// endlessDiscovery finds the natives of another discovery, and goes on until it is stopped.
type endlessDiscovery struct{ ports.Discovery }

func (s endlessDiscovery) Find(ctx context.Context, found func(ports.Found)) error {
	err := s.Discovery.Find(ctx, found)
	<-ctx.Done()
	return err
}

// lyingNetwork has a native that tells of natives that it makes up, new ones whenever it is asked.
type lyingNetwork struct {
	*network
	liar ports.PeerID
	told int
}

func (net *lyingNetwork) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := net.network.Native(id, addrs)
	if err != nil || id != net.liar {
		return n, err
	}
	return lyingNative{n.(fakeNative), net}, nil
}

type lyingNative struct {
	fakeNative
	t *lyingNetwork
}

func (n lyingNative) Natives(context.Context, ports.PeerID) (all []ports.NativeStatus, _ error) {
	net := n.t
	net.mu.Lock()
	defer net.mu.Unlock()
	for range maxCandidates {
		net.told++
		id := ports.PeerID(fmt.Sprintf("made-up-%d", net.told))
		net.does[id] = hangs
		all = append(all, ports.NativeStatus{PeerID: id, Addrs: []string{"a"}})
	}
	return all, nil
}

// slowDiscovery is a search in the DHT, which takes its time.
type slowDiscovery struct {
	*lyingNetwork
}

func (l slowDiscovery) Find(ctx context.Context, found func(ports.Found)) error {
	time.Sleep(500 * time.Millisecond)
	return l.network.Find(ctx, found)
}

func TestANativeThatMakesUpOthersDoesNotKeepOutThoseThatAreFound(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := &lyingNetwork{network: newNetwork()}
		net.liar = net.natives(1, grants)[0]
		honest := net.natives(3, grants)
		net.connect(net.liar)
		net.find(honest...)
		var events porttest.Recorder
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, FindNatives("me", nil, net, slowDiscovery{net}),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &events)
		if err != nil {
			t.Fatal(err)
		}
		stop := running(t, x)
		began := time.Now()
		for range 3600 {
			time.Sleep(time.Second)
			if len(net.holding()) >= 3 {
				break
			}
		}
		t.Logf("after %v held by %v", time.Since(began), net.holding())
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("held by %v only after %v", net.holding(), took)
		}
		stop()
	})
}

// countingNetwork counts how often its natives are asked for others.
type countingNetwork struct {
	*network
	times int
}

func (net *countingNetwork) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := net.network.Native(id, addrs)
	if err != nil {
		return n, err
	}
	return countingNative{n.(fakeNative), net}, nil
}

type countingNative struct {
	fakeNative
	t *countingNetwork
}

func (n countingNative) Natives(context.Context, ports.PeerID) ([]ports.NativeStatus, error) {
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	n.t.times++
	return nil, nil
}

// With fewer than three natives in the network, all indexers look for more for ever.
func TestALoneNativeIsAskedForOthersNoMoreOftenThanRegisteredWith(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := &countingNetwork{network: newNetwork()}
		one := net.natives(1, grants)[0]
		net.connect(one)
		_, stop := indexerOf(t, FindNatives("me", nil, net, net))
		for _, after := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} {
			time.Sleep(after)
			net.mu.Lock()
			t.Logf("after %v more: asked %d times, registered with %d times", after, net.times, net.registered[one])
			if net.times > net.registered[one]+1 {
				t.Errorf("asked %d times, registered with %d times", net.times, net.registered[one])
			}
			net.mu.Unlock()
		}
		stop()
	})
}
