package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// fakeStore is a Store of the entries that it was given.
type fakeStore struct {
	mu     sync.Mutex
	holds  map[ports.PeerID]ports.Entry
	local  map[ports.PeerID]ports.Entry // on this very node
	slow   time.Duration
	joined chan struct{}
	asked  int
}

func newStore(entries ...ports.Entry) *fakeStore {
	s := &fakeStore{holds: map[ports.PeerID]ports.Entry{}, joined: make(chan struct{})}
	for _, e := range entries {
		s.holds[e.PeerID] = e
	}
	return s
}

func (s *fakeStore) Put(context.Context, ports.Entry) (int, error) { return 0, errDown }
func (s *fakeStore) Get(ctx context.Context, id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	s.mu.Lock()
	s.asked++
	e, ok := s.holds[id]
	slow := s.slow
	s.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return ports.Entry{}, ports.ErrNotFound
	}
	if !ok || !e.NewerThan(newerThan) {
		return ports.Entry{}, ports.ErrNotFound
	}
	return e, nil
}
func (s *fakeStore) Local(id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	e, ok := s.local[id]
	if !ok {
		return ports.Entry{}, ports.ErrNotFound
	}
	return e, nil
}
func (s *fakeStore) Joined() <-chan struct{} { return s.joined }

func (s *fakeStore) gets() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

var testRules = domain.Rules{
	Self: "me", Policy: domain.DefaultTTLPolicy(),
	CheckAddr: func(_ ports.PeerID, addr string) error {
		if addr != "here" {
			return errors.New("nobody could dial it")
		}
		return nil
	},
}

func entryOf(id ports.PeerID, left time.Duration) ports.Entry {
	return ports.Entry{PeerID: id, Addr: "here", ExpiresAt: time.Now().Add(left)}
}

// knows makes every native say that it has an entry of those ids, and of no others.
func (net *network) knows(condition ports.Condition, ids ...ports.PeerID) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.say = func(native, id ports.PeerID) (ports.Answer, error) {
		if !slices.Contains(ids, id) {
			return ports.Answer{Condition: condition}, ports.ErrNotFound
		}
		e := entryOf(id, time.Minute)
		e.Native = native
		return ports.Answer{Listed: ports.Listed{Entry: e, State: ports.StateLive, Source: ports.SourceOwn, Remaining: time.Minute}, Condition: condition}, nil
	}
}

func TestAFinderAsksTheNativesAndThenTheStore(t *testing.T) {
	for _, c := range []struct {
		name      string
		natives   []behaviour
		condition ports.Condition
		knows     bool
		stored    *ports.Entry
		left      time.Duration // of its lease; 0 is a minute
		local     bool          // the store has no network
		want      error
		source    ports.Source
		doubt     ports.Condition
		within    time.Duration
		gets      int
	}{
		{name: "a native knows", natives: []behaviour{grants}, knows: true, source: ports.SourceOwn},
		{name: "the first that answers wins", natives: []behaviour{hangs, down, grants}, knows: true, source: ports.SourceOwn},
		{name: "and is reached behind those that cannot", natives: []behaviour{down, refuses, mute, down, refuses, mute, grants}, knows: true, source: ports.SourceOwn},
		{name: "what a native does not know is not found", natives: []behaviour{grants, down}, stored: &ports.Entry{PeerID: "x", Addr: "here"}, want: ports.ErrNotFound},
		{name: "a native that is warming is no last word", natives: []behaviour{grants}, condition: ports.ConditionWarming, stored: &ports.Entry{PeerID: "x", Addr: "here"}, source: ports.SourceStore, doubt: ports.ConditionWarming, gets: 1},
		{name: "nor is one that is isolated", natives: []behaviour{grants}, condition: ports.ConditionIsolated, want: ports.ErrNotFound, doubt: ports.ConditionIsolated, gets: 1},
		{name: "what it has is an answer", natives: []behaviour{grants}, condition: ports.ConditionIsolated, knows: true, source: ports.SourceOwn, doubt: ports.ConditionIsolated},
		{name: "when all are down the store answers", natives: []behaviour{down, down, down}, stored: &ports.Entry{PeerID: "x", Addr: "here"}, source: ports.SourceStore, gets: 1},
		{name: "when all hang the store answers", natives: []behaviour{hangs, hangs, hangs, hangs}, stored: &ports.Entry{PeerID: "x", Addr: "here"}, source: ports.SourceStore, within: askTimeout, gets: 1},
		{name: "natives of the seed offer no look-up", natives: []behaviour{mute, mute}, stored: &ports.Entry{PeerID: "x", Addr: "here"}, source: ports.SourceStore, gets: 1},
		{name: "there is no native at all", stored: &ports.Entry{PeerID: "x", Addr: "here"}, source: ports.SourceStore, gets: 1},
		{name: "the store does not have it", natives: []behaviour{down}, want: ports.ErrNotFound, gets: 1},
		{name: "the store has its leave", natives: []behaviour{down}, stored: &ports.Entry{PeerID: "x", Leave: true}, want: ports.ErrNotFound, gets: 1},
		{name: "the store has another's", natives: []behaviour{down}, stored: &ports.Entry{PeerID: "y", Addr: "here"}, want: ports.ErrNotFound, gets: 1},
		{name: "what the store has nobody could dial", natives: []behaviour{down}, stored: &ports.Entry{PeerID: "x", Addr: "nowhere"}, want: ports.ErrNotFound, gets: 1},
		{name: "what the store has ends later than a lease can", natives: []behaviour{down}, stored: &ports.Entry{PeerID: "x", Addr: "here"}, left: time.Hour, want: ports.ErrNotFound, gets: 1},
		{name: "nobody answers, and the store is this node's own", natives: []behaviour{down}, local: true, want: ErrNoAnswer},
		{name: "nobody is sure, and the store is this node's own", natives: []behaviour{grants}, condition: ports.ConditionWarming, local: true, want: ports.ErrNotFound, doubt: ports.ConditionWarming},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net, s := newNetwork(), newStore()
				if c.stored != nil {
					e := *c.stored
					e.ExpiresAt = time.Now().Add(cmp.Or(c.left, time.Minute))
					s.holds["x"] = e
				}
				if c.local {
					s.joined = nil
				}
				for _, b := range c.natives {
					net.connect(net.natives(1, b)...)
				}
				net.knows(c.condition)
				if c.knows {
					net.knows(c.condition, "x")
				}
				var events porttest.Recorder
				f := NewFinder(testRules, FindNatives("me", nil, net, net), s, &events)
				defer running(t, f)()
				began := time.Now()
				got, err := f.LookUp(t.Context(), "x")
				if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || got.Condition != c.doubt || got.Source != c.source {
					t.Errorf("got %+v, %v; want source %q, condition %q, %v", got, err, c.source, c.doubt, c.want)
				}
				if c.source == ports.SourceStore && (got.Remaining <= 0 || got.Remaining > time.Minute || got.State != ports.StateLive) {
					t.Errorf("it has %v left and is %s", got.Remaining, got.State)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("it took %v, want %v at most", took, c.within)
				}
				if s.gets() != c.gets {
					t.Errorf("the store was asked %d times, want %d", s.gets(), c.gets)
				}
				if asked := events.Of(ports.EventAsked); len(asked) != 1 || asked[0].PeerID != "x" || !errors.Is(asked[0].Err, c.want) {
					t.Errorf("told of %+v", asked)
				}
			})
		})
	}
}

func TestAFinderResolvesUntilTheEntryExpires(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		net.connect(net.natives(2, down)...)
		e := entryOf("x", 66*time.Second)
		f := NewFinder(testRules, FindNatives("me", nil, net), newStore(e), &porttest.Recorder{})
		defer running(t, f)()
		for _, at := range []struct {
			left  time.Duration
			state ports.State
			want  error
		}{{66 * time.Second, ports.StateLive, nil}, {time.Second, ports.StateLate, nil}, {1, ports.StateLate, nil}, {0, "", ports.ErrNotFound}} {
			time.Sleep(time.Until(e.ExpiresAt) - at.left)
			got, err := f.LookUp(t.Context(), "x")
			if !errors.Is(err, at.want) || got.State != at.state || got.Remaining != at.left {
				t.Errorf("%v before its deadline: %v, %s with %v left", at.left, err, got.State, got.Remaining)
			}
		}
	})
}

// An entry that a node holds itself may be older than an entry that it missed.
func TestAFinderHasItsOwnReplicaConfirmed(t *testing.T) {
	for _, c := range []struct {
		name   string
		others func(own ports.Entry) ports.Entry
		slow   time.Duration
		want   time.Duration // what is left; 0 is not found
		within time.Duration
	}{
		{"the others have nothing newer", func(own ports.Entry) ports.Entry { return own }, 0, 30 * time.Second, 0},
		{"the others have a renewal", func(own ports.Entry) ports.Entry { own.ExpiresAt = own.ExpiresAt.Add(time.Second); return own }, 0, 31 * time.Second, 0},
		{"the others have its leave", func(own ports.Entry) ports.Entry { own.Leave = true; return own }, 0, 0, 0},
		{"the others hang", func(own ports.Entry) ports.Entry { own.Leave = true; return own }, time.Hour, 30*time.Second - confirmTimeout, confirmTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				own := entryOf("x", 30*time.Second)
				s := newStore(c.others(own))
				s.local, s.slow = map[ports.PeerID]ports.Entry{"x": own}, c.slow
				f := NewFinder(testRules, FindNatives("me", nil, newNetwork()), s, &porttest.Recorder{})
				defer running(t, f)()
				began := time.Now()
				got, err := f.LookUp(t.Context(), "x")
				if got.Remaining != c.want || (err != nil) != (c.want == 0) {
					t.Errorf("it has %v left, error %v; want %v", got.Remaining, err, c.want)
				}
				if took := time.Since(began); took > c.within {
					t.Errorf("it took %v, want %v at most", took, c.within)
				}
			})
		})
	}
}

func TestAFinderRemembersANotFound(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net, s := newNetwork(), newStore()
		id := net.natives(1, grants)[0]
		net.knows("")
		f := NewFinder(testRules, PinNatives(map[ports.PeerID]ports.Native{id: fakeNative{net: net, id: id}}), s, &porttest.Recorder{})
		defer running(t, f)()
		ask := func(want error) {
			t.Helper()
			if _, err := f.LookUp(t.Context(), "x"); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		for range 10 {
			ask(ports.ErrNotFound)
		}
		if n := net.counts(net.asked, id); n != 1 {
			t.Errorf("the native was asked %d times", n)
		}
		net.knows("", "x")
		time.Sleep(lookup.NotFoundFor - 1)
		ask(ports.ErrNotFound)
		time.Sleep(time.Nanosecond)
		ask(nil)
		net.set(down, id)
		ask(ports.ErrNotFound)
		ask(ports.ErrNotFound)
		if s.gets() != 1 {
			t.Errorf("the store was asked %d times", s.gets())
		}
	})
}

func TestThoseWhoAskForTheSameShareOneSearch(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net, s := newNetwork(), newStore(entryOf("x", time.Minute))
		s.slow = time.Second
		f := NewFinder(testRules, FindNatives("me", nil, net), s, &porttest.Recorder{})
		defer running(t, f)()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		var asking sync.WaitGroup
		asking.Go(func() {
			if _, err := f.LookUp(impatient, "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the caller that was first and went away got %v", err)
			}
		})
		synctest.Wait()
		for range 100 {
			asking.Go(func() {
				if got, err := f.LookUp(t.Context(), "x"); err != nil || got.PeerID != "x" {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		}
		asking.Wait()
		if s.gets() != 1 {
			t.Errorf("the store was asked %d times, want once for all, though the first caller went away", s.gets())
		}
	})
}

func TestLookUpsAreBounded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net, s := newNetwork(), newStore()
		s.slow = time.Second
		f := NewFinder(testRules, FindNatives("me", nil, net), s, &porttest.Recorder{})
		defer running(t, f)()
		var asking sync.WaitGroup
		var mu sync.Mutex
		got := map[ports.Code]int{}
		for i := range 2 * maxSearches {
			asking.Go(func() {
				_, err := f.LookUp(t.Context(), ports.PeerID(fmt.Sprint(i)))
				refusal := &ports.Refusal{}
				_ = errors.As(err, &refusal)
				mu.Lock()
				got[refusal.Code]++
				mu.Unlock()
			})
		}
		asking.Wait()
		if got[ports.CodeBusy] != maxSearches || s.gets() != maxSearches {
			t.Errorf("%v, and the store was asked %d times; want half refused", got, s.gets())
		}
		if _, err := f.LookUp(t.Context(), "later"); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("a look-up afterwards: %v", err)
		}
	})
}

func TestALookUpWaitsForTheStart(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		f := NewFinder(testRules, FindNatives("me", nil, newNetwork()), newStore(entryOf("x", time.Minute)), &porttest.Recorder{})
		impatient, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := f.LookUp(impatient, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before the start, a caller that goes away gets %v", err)
		}
		var asking sync.WaitGroup
		asking.Go(func() {
			if got, err := f.LookUp(t.Context(), "x"); err != nil || got.PeerID != "x" {
				t.Errorf("a caller that came before the start gets %+v, %v", got, err)
			}
		})
		synctest.Wait()
		defer running(t, f)()
		asking.Wait()
	})
}

func TestAStopEndsLookUpsWithARefusal(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := newStore()
		s.slow = time.Second
		var events porttest.Recorder
		f := NewFinder(testRules, FindNatives("me", nil, newNetwork()), s, &events)
		stop := running(t, f)
		expectBusy := func(when string) {
			_, err := f.LookUp(t.Context(), "x")
			if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
				t.Errorf("%s the stop a look-up gets %v", when, err)
			}
		}
		var asking sync.WaitGroup
		asking.Go(func() { expectBusy("under way at") })
		synctest.Wait()
		began := time.Now()
		stop()
		asking.Wait()
		expectBusy("after")
		if took := time.Since(began); took != 0 {
			t.Errorf("the stop took %v", took)
		}
		for _, e := range events.Of(ports.EventAsked) {
			if e.Code != ports.CodeBusy {
				t.Errorf("told of %+v", e)
			}
		}
	})
}

func TestTheLongestSearchIsNotCutOff(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net, s := newNetwork(), newStore(entryOf("x", time.Minute))
		net.connect(net.natives(1, hangs)...)
		s.slow = time.Hour
		f := NewFinder(testRules, FindNatives("me", nil, net), s, &porttest.Recorder{})
		defer running(t, f)()
		began := time.Now()
		_, err := f.LookUp(t.Context(), "x")
		if took := time.Since(began); !errors.Is(err, ports.ErrNotFound) || took != askTimeout+domain.StoreTimeout {
			t.Errorf("when all natives hang and the store does: %v, after %v", err, took)
		}
	})
}

func TestALieOfAConditionIsNotRemembered(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		net.connect(net.natives(1, grants)...)
		f := NewFinder(testRules, FindNatives("me", nil, net), newStore(), &porttest.Recorder{})
		defer running(t, f)()
		for said, want := range map[ports.Condition]ports.Condition{
			"of a later version": "of a later version",
			ports.Condition(strings.Repeat("x", maxCondition+1)): ports.ConditionWarming,
		} {
			net.knows(said)
			for range 2 {
				if got, err := f.LookUp(t.Context(), ports.PeerID(said)); !errors.Is(err, ports.ErrNotFound) || got.Condition != want {
					t.Errorf("a native says %q, the finder %q, %v", said, got.Condition, err)
				}
			}
		}
	})
}

func TestAFinderLooksForNativesWhenItHasNone(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		net.knows("", "x")
		f := NewFinder(testRules, FindNatives("me", nil, net, net), newStore(), &porttest.Recorder{})
		defer running(t, f)()
		for i := range 10 {
			_, _ = f.LookUp(t.Context(), ports.PeerID(fmt.Sprint(i)))
		}
		if net.looked() != 1 {
			t.Errorf("ten look-ups looked around %d times", net.looked())
		}
		dead := net.natives(3, down)
		net.find(dead...)
		time.Sleep(findAgain)
		if _, err := f.LookUp(t.Context(), "y"); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		net.find(append(dead, net.natives(1, grants)...)...)
		time.Sleep(findAgain)
		if _, err := f.LookUp(t.Context(), "x"); err != nil {
			t.Errorf("with a native to be found instead of those that are down: %v", err)
		}
	})
}

func TestAFinderThatRefusesTakesNoBareAnswer(t *testing.T) {
	victim := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		rules := testRules
		rules.Proofs = proof.NewVerifier()
		rules.Plain = func() domain.Plain { return domain.PlainRefuse }
		forged := ports.Entry{PeerID: victim.PeerID, Addr: "here", Native: "liar", ExpiresAt: time.Now().Add(time.Minute)}
		liar := porttest.Native{OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
			return ports.Answer{Listed: ports.Listed{Entry: forged, State: ports.StateLive, Source: ports.SourceStore, Remaining: time.Minute}}, nil
		}}
		f := NewFinder(rules, PinNatives(map[ports.PeerID]ports.Native{"liar": liar}), newStore(), &porttest.Recorder{})
		defer running(t, f)()
		if a, err := f.LookUp(t.Context(), victim.PeerID); err == nil {
			t.Errorf("with trust.plain refuse it believes %s, as %s says", a.Addr, a.Native)
		}
	})
}
