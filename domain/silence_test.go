package domain_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Until an indexer of a lost native ends here, three beats have been missed: its last renewal may have
// waited to travel when the cut came.
func TestALostNativeIsNamedBeforeAnIndexerOfItEnds(t *testing.T) {
	for _, p := range []domain.TTLPolicy{
		domain.DefaultTTLPolicy(),
		{TTL: 6600 * time.Millisecond, Heartbeat: 6 * time.Second, Refresh: 3 * time.Second},
		{TTL: 2 * time.Minute, Heartbeat: 10 * time.Second, Refresh: time.Second},
		{TTL: 20 * time.Second, Heartbeat: 10 * time.Second, Refresh: time.Second},
	} {
		beat, renewals := domain.Beat(p), domain.RenewalInterval(p)
		if beat > 3*time.Second || beat > p.TTL/30 || 3*beat+renewals > p.TTL-p.Heartbeat {
			t.Errorf("%+v: a beat of %v", p, beat)
		}
	}
	if beat := domain.Beat(domain.TTLPolicy{TTL: 12 * time.Millisecond, Heartbeat: 11 * time.Millisecond}); beat != domain.MinInterval {
		t.Errorf("a network of milliseconds beats every %v", beat)
	}
}

func TestANativeBeatsAsOftenAsItPromises(t *testing.T) {
	for name, c := range map[string]struct{ asks, promises time.Duration }{
		"as its policy": {domain.Beat(domain.DefaultTTLPolicy()), domain.Beat(domain.DefaultTTLPolicy())},
		"seldom":        {5 * time.Second, 5 * time.Second},
		"too often":     {1, domain.Beat(domain.DefaultTTLPolicy())},
		"too seldom":    {time.Hour, ports.WatchIdle},
		"not asked":     {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, net *network) {
				id := peerIDs(2)
				a := net.native(id[0], nil)
				defer a.stop()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				last, batches := time.Now(), 0
				var telling sync.WaitGroup
				defer telling.Wait()
				telling.Go(func() { // changes that no native wants which follows
					for range 500 {
						time.Sleep(300 * time.Millisecond)
						a.TakeChanges("other", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{
							Entry: ports.Entry{PeerID: id[1], Addr: addr, Native: "other", ExpiresAt: time.Now().Add(time.Minute)}, Remaining: time.Minute,
						}}})
					}
				})
				for batch, err := range a.Watch(ctx, "", ports.WatchRequest{Own: true, Beat: c.asks}) {
					if err != nil {
						break
					}
					if batches == 0 && batch.Beat != c.promises || batches > 0 && batch.Beat != 0 {
						t.Errorf("batch %d promises %v, want %v", batches, batch.Beat, c.promises)
					}
					if quiet := time.Since(last); c.promises > 0 && quiet > c.promises+time.Second {
						t.Errorf("%v without a batch", quiet)
					}
					batches++
					last = time.Now()
				}
				want := 1
				if c.promises > 0 {
					want = int(5 * time.Minute / c.promises)
				}
				if batches < want*3/4 || batches > want*5/4+1 {
					t.Errorf("%d batches, want some %d", batches, want)
				}
			})
		})
	}
}

// beatingNative tells one entry, and then beats each second for as long as beating is. It is followed
// once.
func (net *followingNetwork) beatingNative(id, x ports.PeerID, promises, beating time.Duration, ends error) (stop func()) {
	var mu sync.Mutex
	known := map[ports.PeerID]bool{}
	stop, err := net.transports.Join(id).Serve(porttest.Native{
		OnWatch: func(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				mu.Lock()
				again := known[sender]
				known[sender] = true
				mu.Unlock()
				if again {
					yield(ports.Batch{}, errors.New("not connected"))
					return
				}
				left := 10 * time.Minute
				if !yield(ports.Batch{Reset: ports.ResetNew, Cursor: "1", Beat: promises, Changes: []ports.Change{{Kind: ports.ChangeSnapshot, Listed: ports.Listed{
					Entry: ports.Entry{PeerID: x, Addr: addr, Native: id, ExpiresAt: time.Now().Add(left)}, Remaining: min(left, time.Minute),
				}}}}, nil) {
					return
				}
				for began := time.Now(); time.Since(began) < beating; {
					select {
					case <-ctx.Done():
						return
					case <-time.After(time.Second):
					}
					if !yield(ports.Batch{Cursor: "1"}, nil) {
						return
					}
				}
				if ends != nil {
					yield(ports.Batch{}, ends)
					return
				}
				<-ctx.Done()
			}
		},
	})
	if err != nil {
		net.t.Fatal(err)
	}
	synctest.Wait()
	return stop
}

// muteNative is a native that takes watches, and never tells anything.
func (net *followingNetwork) muteNative(id ports.PeerID) (stop func()) {
	stop, err := net.transports.Join(id).Serve(porttest.Native{
		OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(func(ports.Batch, error) bool) { <-ctx.Done() }
		},
	})
	if err != nil {
		net.t.Fatal(err)
	}
	return stop
}

func TestANativeThatMissesThreeBeatsIsSuspect(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(5)
		net.rules.Policy = domain.TTLPolicy{TTL: time.Minute, Heartbeat: 55 * time.Second, Refresh: 10 * time.Second}
		stop := net.beatingNative(id[1], id[4], 3*time.Second, 30*time.Second, nil)
		defer stop()
		other := net.native(id[2], nativeOptions{})
		a := net.native(id[0], nativeOptions{})
		defer net.stop(a, other)
		var told atomic.Pointer[ports.Batch]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for batch, err := range a.Watch(ctx, "", ports.WatchRequest{}) {
				if err == nil {
					told.Store(&batch)
				}
			}
		}()
		expect := func(when string, condition ports.Condition, state ports.State, missing ...ports.PeerID) {
			t.Helper()
			synctest.Wait()
			page, err := a.List(t.Context(), "", ports.Query{})
			answer, lookErr := a.LookUp(t.Context(), "", id[4])
			none, noneErr := a.LookUp(t.Context(), "x", id[3])
			if err != nil || lookErr != nil || !errors.Is(noneErr, ports.ErrNotFound) {
				t.Fatalf("%s: %v, %v, %v", when, err, lookErr, noneErr)
			}
			for what, got := range map[string]ports.Answer{
				"a page": {Listed: page.Entries[0], Condition: page.Condition, Missing: page.Missing}, "a look-up": answer,
				"a look-up of nobody": {Listed: answer.Listed, Condition: none.Condition, Missing: none.Missing},
			} {
				if got.Condition != condition || got.State != state || !slices.Equal(got.Missing, missing) {
					t.Errorf("%s %s says %q and misses %v, the entry is %s; want %q, %v and %s", when, what, got.Condition, got.Missing, got.State, condition, missing, state)
				}
			}
			if last := told.Load(); last.Condition != condition || !slices.Equal(last.Missing, missing) {
				t.Errorf("%s a watcher was told %q and %v last", when, last.Condition, last.Missing)
			}
		}
		time.Sleep(39*time.Second - 1)
		expect("just before", "", ports.StateLive)
		time.Sleep(time.Second)
		expect("after three beats", ports.ConditionPartial, ports.StateLate, id[1])
	})
}

// A native of an earlier version sends a batch after 30 s of silence, and promises nothing.
func TestANativeThatPromisesNoBeatsIsNotSuspected(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(5)
		stop := net.beatingNative(id[1], id[4], 0, 0, nil)
		defer stop()
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		time.Sleep(50 * time.Second)
		if c := a.Condition(); c != "" || a.Count(ports.EventUnfollowed) != 0 {
			t.Errorf("it is %q", c)
		}
	})
}

// A lost native is named until it is back, for an hour at most. A native that says that it stops is
// named until its indexers have found others.
func TestALostNativeIsNamedForAnHourAtMost(t *testing.T) {
	for name, c := range map[string]struct {
		ends error
		for_ time.Duration
	}{
		"silent":            {nil, time.Hour},
		"it says good-bye":  {ports.Refuse(ports.CodeBusy, "this native is stopping"), 132 * time.Second},
		"it was restarted":  {ports.Refuse(ports.CodeTooSlow, "read faster"), time.Hour},
		"it trusts no more": {ports.Refuse(ports.CodeRefused, "none of its natives"), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			withEachWatch(t, func(t *testing.T, net *followingNetwork) {
				id := peerIDs(5)
				stop := net.beatingNative(id[1], id[4], 2*time.Second, 10*time.Second, c.ends)
				other := net.native(id[2], nativeOptions{})
				a := net.native(id[0], nativeOptions{})
				defer net.stop(a, other)
				defer stop()
				for range 300 {
					if time.Sleep(100 * time.Millisecond); a.Condition() == ports.ConditionPartial {
						break
					}
				}
				time.Sleep(c.for_ - 200*time.Millisecond)
				synctest.Wait()
				if got := a.Missing(); !slices.Equal(got, []ports.PeerID{id[1]}) || a.Condition() != ports.ConditionPartial {
					t.Errorf("just before %v it misses %v and is %q", c.for_, got, a.Condition())
				}
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if got := a.Missing(); len(got) != 0 || a.Condition() != "" {
					t.Errorf("after %v it misses %v and is %q", c.for_, got, a.Condition())
				}
			})
		})
	}
}

// A native stops, and may start again while this native sleeps.
func TestALostNativeIsNamedForLongerByANativeThatSlept(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(5)
		stop := net.beatingNative(id[1], id[4], 2*time.Second, 10*time.Second, ports.Refuse(ports.CodeBusy, "this native is stopping"))
		other := net.native(id[2], nativeOptions{})
		var slept atomic.Int64
		a := net.native(id[0], nativeOptions{sleeps: func() time.Duration { return time.Duration(slept.Load()) }})
		defer net.stop(a, other)
		defer stop()
		for range 300 {
			if time.Sleep(100 * time.Millisecond); len(a.Missing()) > 0 {
				break
			}
		}
		misses := func(when string, want ...ports.PeerID) {
			t.Helper()
			synctest.Wait()
			if got := a.Missing(); !slices.Equal(got, want) || (a.Condition() == "") != (len(want) == 0) {
				t.Errorf("%s it misses %v and is %q", when, got, a.Condition())
			}
		}
		const lasts = 132 * time.Second
		time.Sleep(100 * time.Second)
		slept.Add(int64(5 * time.Minute))
		time.Sleep(lasts - time.Second)
		misses("two TTLs after it woke", id[1])
		time.Sleep(5 * time.Second)
		misses("after that")
		time.Sleep(5 * time.Minute)
		slept.Add(int64(4 * time.Minute))
		time.Sleep(5 * time.Second)
		misses("after a sleep later on")
	})
}

// Three natives fall silent for each other, with an indexer at each, for longer and shorter than a TTL.
func TestNoAbsenceGoesUnmarkedWhenPacketsAreDropped(t *testing.T) {
	for _, cut := range []time.Duration{3 * time.Second, 20 * time.Second, 3 * time.Minute} {
		t.Run(cut.String(), func(t *testing.T) {
			keys := prooftest.NewSigners(t, 3)
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				natives := net.natives(3, nativeOptions{})
				defer net.stop(natives...)
				time.Sleep(time.Second)
				var indexers []*indexer
				for i, key := range keys {
					indexers = append(indexers, net.indexer(key, indexerOptions{addr: addr}, peerIDs(3)[i]))
				}
				time.Sleep(100 * time.Second)
				sample := func(d time.Duration) (absent, unmarked, fresh time.Duration) {
					const step = 20 * time.Millisecond
					for began := time.Now(); time.Since(began) < d; time.Sleep(step) {
						for _, n := range natives {
							missing, late := false, true
							for i, x := range indexers {
								got, ok := n.Get(x.id)
								missing = missing || !ok
								late = late && (!ok || got.State == ports.StateLate || !slices.Contains(n.Missing(), peerIDs(3)[i]))
							}
							if missing {
								absent += step
							}
							if missing && n.Condition() == "" {
								unmarked += step
							}
							if n.Condition() != "" && !late {
								fresh += step
							}
						}
					}
					return absent, unmarked, fresh
				}
				net.silence.begin()
				absent, unmarked, fresh := sample(cut)
				net.silence.end()
				more, unmarkedAfter, _ := sample(2 * time.Second)
				t.Logf("absent for %v, of that %v unmarked", absent+more, unmarked+unmarkedAfter)
				if unmarked+unmarkedAfter > 0 || fresh > 0 {
					t.Errorf("absent for %v unmarked, and shown live for %v by a native that hears none", unmarked+unmarkedAfter, fresh)
				}
				if cut > 70*time.Second && absent == 0 {
					t.Error("nothing was cut")
				}
				if absent, _, _ = sample(5 * time.Second); absent > 0 {
					t.Errorf("absent for %v, 2 s after the heal", absent)
				}
				for _, n := range natives {
					if c := n.Condition(); c != "" {
						t.Errorf("2 s after the heal it is %q", c)
					}
				}
				for _, x := range indexers {
					x.kill()
				}
			})
		})
	}
}

// A watcher is told of no change when a lost native is heard again. So it is not told either that the
// entries of that native are late, or they would be late for it until they change.
func TestAWatchThatBeginsWithALostNativeShowsNoEntryAsLateForGood(t *testing.T) {
	key := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		natives := net.natives(2, nativeOptions{})
		defer net.stop(natives...)
		time.Sleep(time.Second)
		x := net.indexer(key, indexerOptions{addr: addr}, peerIDs(2)[1])
		defer x.kill()
		time.Sleep(10 * time.Second)
		net.silence.begin()
		time.Sleep(10 * time.Second)
		if got := states(natives[0].native, x.id); got[0] != string(ports.StateLate) {
			t.Fatalf("listed as %v", got)
		}
		var state ports.State
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for batch, err := range natives[0].Watch(ctx, "", ports.WatchRequest{}) {
				if err != nil {
					return
				}
				for _, c := range batch.Changes {
					state = c.State
				}
			}
		}()
		time.Sleep(time.Second)
		net.silence.end()
		time.Sleep(70 * time.Second) // a renewal
		if got := states(natives[0].native, x.id); got[0] != string(ports.StateLive) || state != ports.StateLive {
			t.Errorf("listed as %v, and to a watcher it is %s", got, state)
		}
	})
}
