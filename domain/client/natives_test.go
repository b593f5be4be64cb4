package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// unable is a native that offers nothing, for the tests' own to build on.
type unable struct{}

func (unable) Register(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
	return ports.Lease{}, ports.ErrNotOffered
}
func (unable) Leave(context.Context, ports.PeerID, []byte) error { return ports.ErrNotOffered }
func (unable) LookUp(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
	return ports.Answer{}, ports.ErrNotOffered
}
func (unable) List(context.Context, ports.Query) (ports.Page, error) {
	return ports.Page{}, ports.ErrNotOffered
}
func (unable) Natives(context.Context) ([]ports.NativeStatus, error) {
	return nil, ports.ErrNotOffered
}
func (unable) Watch(context.Context, ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) { yield(ports.Batch{}, ports.ErrNotOffered) }
}
func (unable) Disconnected() <-chan struct{} { return nil }

var errDown = errors.New("connection refused")

// behaviour is what a native of the tests does with whatever it is asked.
type behaviour int

const (
	grants  behaviour = iota
	down              // cannot be dialled
	hangs             // accepts nothing and says nothing until who asks gives up
	mute              // takes registrations and says nothing: a native of the seed
	refuses           // says no for good
)

// town is the natives of a test, and who is connected to whom: a Transport and a Discovery.
type town struct {
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

func newTown() *town {
	return &town{
		does: map[ports.PeerID]behaviour{}, leases: map[ports.PeerID]time.Time{}, lost: map[ports.PeerID]chan struct{}{},
		left: map[ports.PeerID]int{}, registered: map[ports.PeerID]int{}, asked: map[ports.PeerID]int{}, changed: make(chan struct{}),
	}
}

func (w *town) natives(n int, b behaviour) (ids []ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range n {
		id := ports.PeerID(fmt.Sprintf("n%d", len(w.does)))
		w.does[id] = b
		ids = append(ids, id)
	}
	return ids
}

func (w *town) set(b behaviour, ids ...ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.does[id] = b
		if c := w.lost[id]; c != nil && b != grants {
			close(c)
			delete(w.lost, id)
		}
		if b == down {
			delete(w.leases, id)
		}
	}
}

func (w *town) find(ids ...ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = ids
}

func (w *town) connect(ids ...ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		w.neighbours = append(w.neighbours, ports.Neighbour{PeerID: id, Addrs: []string{"a"}, Watchable: w.does[id] != mute})
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// holding returns the natives that have a lease now, sorted.
func (w *town) holding() (ids []ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, until := range w.leases {
		if time.Now().Before(until) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// looked returns how often somebody looked around.
func (w *town) looked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.looks
}

func (w *town) counts(of map[ports.PeerID]int, id ports.PeerID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return of[id]
}

func (w *town) Serve(ports.Native) (func(), error) { return nil, errDown }

func (w *town) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address")
	}
	return resident{w: w, id: id}, nil
}

func (w *town) Neighbours() ([]ports.Neighbour, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.neighbours), w.changed
}

func (w *town) Advertise(context.Context) error { return nil }

func (w *town) Find(_ context.Context, found func(ports.Found)) error {
	w.mu.Lock()
	w.looks++
	ids := slices.Clone(w.found)
	w.mu.Unlock()
	for _, id := range ids {
		found(ports.Found{PeerID: id, Addrs: []string{"a"}})
	}
	return nil
}

type resident struct {
	unable
	w  *town
	id ports.PeerID
}

// meet is what becomes of whatever is asked.
func (n resident) meet(ctx context.Context) (behaviour, error) {
	n.w.mu.Lock()
	b, ok := n.w.does[n.id]
	n.w.mu.Unlock()
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

func (n resident) Register(ctx context.Context, sender ports.PeerID, _ ports.Registration) (ports.Lease, error) {
	n.w.mu.Lock()
	n.w.registered[n.id]++
	n.w.mu.Unlock()
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return ports.Lease{}, err
	case b == refuses:
		return ports.Lease{}, ports.Refuse(ports.CodeRefused, "no")
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.leases[n.id] = time.Now().Add(domain.DefaultTTLPolicy().TTL)
	if b == mute {
		return ports.Lease{Unconfirmed: true}, nil
	}
	if n.w.lost[n.id] == nil {
		n.w.lost[n.id] = make(chan struct{})
	}
	return domain.DefaultTTLPolicy().Grant(time.Now()), nil
}

func (n resident) Disconnected() <-chan struct{} {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.w.lost[n.id]
}

func (n resident) Leave(ctx context.Context, sender ports.PeerID, _ []byte) error {
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return err
	case b == mute:
		return fmt.Errorf("leave: %w", ports.ErrNotOffered)
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.left[n.id]++
	delete(n.w.leases, n.id)
	return nil
}

func (n resident) LookUp(ctx context.Context, _, id ports.PeerID) (ports.Answer, error) {
	n.w.mu.Lock()
	n.w.asked[n.id]++
	n.w.mu.Unlock()
	b, err := n.meet(ctx)
	switch {
	case err != nil:
		return ports.Answer{}, err
	case b == mute:
		return ports.Answer{}, ports.ErrNotOffered
	case b == refuses:
		return ports.Answer{}, ports.Refuse(ports.CodeBusy, "no")
	}
	return n.w.say(n.id, id)
}

func TestCandidatesAreBoundedAndTheBadMakeWay(t *testing.T) {
	w := newTown()
	n := FindNatives("me", nil, w, w)
	for i := range 3 * maxCandidates {
		w.find(ports.PeerID(fmt.Sprint(i)), "me")
		n.looked = time.Time{}
		n.look(t.Context(), time.Second)
	}
	all := n.best()
	if len(all) != maxCandidates || slices.ContainsFunc(all, func(c candidate) bool { return c.id == "me" }) {
		t.Fatalf("%d candidates, want %d and not this node itself", len(all), maxCandidates)
	}
	bad := all[0].id
	n.note(bad, fails)
	w.find("new")
	n.looked = time.Time{}
	n.look(t.Context(), time.Second)
	has := func(id ports.PeerID) bool {
		return slices.ContainsFunc(n.best(), func(c candidate) bool { return c.id == id })
	}
	if has(bad) || !has("new") {
		t.Error("one that fails does not make way for one that is found")
	}
	w.connect("neighbour")
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
	w := newTown()
	n := FindNatives("me", func(id ports.PeerID) bool { return id != "stranger" }, w)
	asked := 0
	tells := func(known ...ports.PeerID) *candidate {
		id := ports.PeerID(fmt.Sprint("native", len(n.candidates)))
		c := &candidate{id: id, standing: answers, native: porttest.Native{OnNatives: func(context.Context) ([]ports.NativeStatus, error) {
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
	n.look(t.Context(), time.Second)
	if asked != 0 || len(n.candidates) != 1 {
		t.Errorf("one that fails was asked %d times; %d candidates", asked, len(n.candidates))
	}
	first := tells("a", "me", "stranger", "b")
	n.looked = time.Time{}
	n.look(t.Context(), time.Second)
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
		w := newTown()
		n := FindNatives("me", nil, w, w)
		w.find("x")
		n.look(t.Context(), time.Second)
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
		w := newTown()
		slow := slowly{w}
		n := FindNatives("me", nil, w, slow)
		var looking sync.WaitGroup
		began := time.Now()
		for range 10 {
			looking.Go(func() { n.look(t.Context(), time.Second) })
		}
		looking.Wait()
		if w.looked() != 1 || time.Since(began) > lookTimeout {
			t.Errorf("%d looks in %v, want one of %v at most", w.looked(), time.Since(began), lookTimeout)
		}
		n.look(t.Context(), time.Second)
		if w.looked() != 1 {
			t.Error("it looks again at once")
		}
		time.Sleep(time.Second)
		n.look(t.Context(), time.Second)
		if w.looked() != 2 {
			t.Error("it does not look again")
		}
	})
}

// slowly is a discovery that finds what another does, and goes on until it is stopped.
type slowly struct{ ports.Discovery }

func (s slowly) Find(ctx context.Context, found func(ports.Found)) error {
	err := s.Discovery.Find(ctx, found)
	<-ctx.Done()
	return err
}

// lyingTown has its first native tell of natives that it makes up, new ones whenever it is asked.

type lyingTown struct {
	*town
	liar ports.PeerID
	told int
}

func (w *lyingTown) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := w.town.Native(id, addrs)
	if err != nil || id != w.liar {
		return n, err
	}
	return lying{n.(resident), w}, nil
}

type lying struct {
	resident
	t *lyingTown
}

func (n lying) Natives(context.Context) (all []ports.NativeStatus, _ error) {
	w := n.t
	w.mu.Lock()
	defer w.mu.Unlock()
	for range maxCandidates {
		w.told++
		id := ports.PeerID(fmt.Sprintf("made-up-%d", w.told))
		w.does[id] = hangs
		all = append(all, ports.NativeStatus{PeerID: id, Addrs: []string{"a"}})
	}
	return all, nil
}

// later is a search in the DHT, which takes its time.

type later struct {
	*lyingTown
}

func (l later) Find(ctx context.Context, found func(ports.Found)) error {
	time.Sleep(500 * time.Millisecond)
	return l.town.Find(ctx, found)
}

func TestANativeThatMakesUpOthersDoesNotKeepOutThoseThatAreFound(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := &lyingTown{town: newTown()}
		w.liar = w.natives(1, grants)[0]
		honest := w.natives(3, grants)
		w.connect(w.liar)
		w.find(honest...)
		var events porttest.Recorder
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, FindNatives("me", nil, w, later{w}),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, &events)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = x.Run(ctx) }()
		began := time.Now()
		for range 3600 {
			time.Sleep(time.Second)
			if len(w.holding()) >= 3 {
				break
			}
		}
		t.Logf("after %v held by %v", time.Since(began), w.holding())
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("held by %v only after %v", w.holding(), took)
		}
		cancel()
		<-done
	})
}

// Natives that want to hear of an indexer at different paces, and change their minds.

// askedTown counts how often its natives are asked for others.

type askedTown struct {
	*town
	times int
}

func (w *askedTown) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := w.town.Native(id, addrs)
	if err != nil {
		return n, err
	}
	return counted{n.(resident), w}, nil
}

type counted struct {
	resident
	t *askedTown
}

func (n counted) Natives(context.Context) ([]ports.NativeStatus, error) {
	n.t.mu.Lock()
	defer n.t.mu.Unlock()
	n.t.times++
	return nil, nil
}

// With fewer than three natives in the network, all indexers look for more for ever.

func TestALoneNativeIsAskedForOthersNoMoreOftenThanRegisteredWith(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := &askedTown{town: newTown()}
		one := w.natives(1, grants)[0]
		w.connect(one)
		_, stop := indexerOf(t, FindNatives("me", nil, w, w))
		for _, after := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} {
			time.Sleep(after)
			w.mu.Lock()
			t.Logf("after %v more: asked %d times, registered with %d times", after, w.times, w.registered[one])
			if w.times > w.registered[one]+1 {
				t.Errorf("asked %d times, registered with %d times", w.times, w.registered[one])
			}
			w.mu.Unlock()
		}
		stop()
	})
}

// Every native says superseded, and has nothing to show for it, or hangs when it is asked.
