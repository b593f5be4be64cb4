package domain_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"pgregory.net/rapid"
)

func TestWhatANativeGrantsIsListedByThoseThatFollowIt(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		x := peerIDs(10)[9]
		all := net.natives(3, nativeOptions{})
		defer net.stop(all...)
		a := all[0]
		a.register(t, x, addr)
		time.Sleep(30 * time.Millisecond)
		for _, n := range all[1:] {
			got, ok := n.Get(x)
			if !ok || got.Source != ports.SourceNative || got.State != ports.StateLive || got.Addr != addr || n.Count(ports.EventLookedUp) != 0 {
				t.Errorf("listed %v as %+v after %d look-ups, want it from the native and no look-up", ok, got, n.Count(ports.EventLookedUp))
			}
		}
		// Renewals come along, at a second's remove at most, for as long as it lives.
		for range 10 {
			time.Sleep(57 * time.Second)
			a.register(t, x, addr)
		}
		time.Sleep(65 * time.Second)
		for _, n := range all {
			if got, ok := n.Get(x); !ok || got.State != ports.StateLate || got.Remaining != time.Second {
				t.Errorf("65 s after its last heartbeat it is listed %v as %+v", ok, got)
			}
		}
		time.Sleep(3 * time.Second)
		for _, n := range all {
			if n.lists(x) || n.Count(ports.EventExpired) != 1 {
				t.Errorf("68 s after its last heartbeat it is listed: %v, and expired %d times", n.lists(x), n.Count(ports.EventExpired))
			}
		}
	})
}

// An indexer that looks itself up is told which natives' leases are known.
func TestANativeNamesTheNativesWhoseLeasesItHolds(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		x := peerIDs(10)[9]
		all := net.natives(3, nativeOptions{})
		defer net.stop(all...)
		names := func(at *followingNative, sender ports.PeerID, want ...ports.PeerID) {
			t.Helper()
			a, err := at.LookUp(t.Context(), sender, x)
			slices.Sort(want)
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(a.Natives)), want) {
				t.Errorf("it names %v, %v, want %v", a.Natives, err, want)
			}
		}
		grants := func(n *followingNative) ports.PeerID {
			n.register(t, x, addr)
			own, _ := n.Get(x)
			return own.Native
		}
		first := grants(all[0])
		time.Sleep(5 * time.Second)
		second := grants(all[1])
		time.Sleep(2 * time.Second)
		for _, n := range all {
			names(n, x, first, second)
			names(n, peerIDs(10)[8])
		}
		time.Sleep(net.rules.Policy.TTL - 7*time.Second - 1)
		names(all[0], x, first, second)
		time.Sleep(time.Nanosecond)
		for _, n := range all {
			names(n, x, second)
		}
	})
}

// Natives do not tell what they have from each other, or it would go around for ever.
func TestNothingEchoes(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(10)
		all := net.natives(3, nativeOptions{})
		defer net.stop(all...)
		all[0].register(t, id[9], addr)
		all[1].register(t, id[9], addr)
		all[1].register(t, id[8], addr)
		time.Sleep(10 * time.Second)
		for i, want := range []int{3 - 1, 3 - 2, 3} { // all but its own
			told := 0
			for _, e := range all[i].Of(ports.EventTold) {
				told += e.Changes
			}
			if told != want {
				t.Errorf("native %d was told %d changes, want %d", i, told, want)
			}
		}
	})
}

func TestALateNativeIsWholeAtOnce(t *testing.T) {
	many := peerIDs(2500)
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		all := net.natives(2, nativeOptions{})
		defer net.stop(all...)
		for i, x := range many[3:] {
			all[i%2].register(t, x, addr)
		}
		if err := all[0].Leave(t.Context(), many[3], nil); err != nil {
			t.Fatal(err)
		}
		late := net.native(many[2], nativeOptions{})
		defer late.stop()
		time.Sleep(30 * time.Millisecond)
		if live, _ := late.Counts(); live != len(many)-4 || late.lists(many[3]) {
			t.Errorf("the late native lists %d, want %d", live, len(many)-4)
		}
		if c := late.Condition(); c != "" {
			t.Errorf("and is %s", c)
		}
	})
}

func TestTwoNativesThatWereCutOffAreOneAgain(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(10)
		all := net.natives(2, nativeOptions{})
		defer net.stop(all...)
		a, b := all[0], all[1]
		a.register(t, id[5], addr)
		a.register(t, id[6], addr)
		time.Sleep(time.Second)
		a.cut()
		b.cut()
		time.Sleep(20 * time.Second)
		a.register(t, id[5], addr+"1")
		b.register(t, id[7], addr)
		if err := a.Leave(t.Context(), id[6], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(70 * time.Second)
		a.register(t, id[5], addr+"2")
		b.register(t, id[7], addr)
		if b.lists(id[5]) || b.lists(id[6]) || a.lists(id[7]) {
			t.Error("they are not cut off")
		}
		a.heal()
		b.heal()
		time.Sleep(2 * time.Second)
		for _, n := range all {
			if got, ok := n.Get(id[5]); !ok || got.Addr != addr+"2" || n.lists(id[6]) || !n.lists(id[7]) {
				t.Errorf("2 s after the cut's end it lists %+v, %v, %v, want the first and the last", got, n.lists(id[6]), n.lists(id[7]))
			}
		}
		if resets := len(b.Of(ports.EventFollowing)); resets != 2 {
			t.Errorf("followed %d times, want twice", resets)
		}
	})
}

// The store says of the lease that the native told of what no clock here makes sense of.
func TestNativesWhoseClocksDifferByAMinuteShowTheSameTable(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(10)
		// The rule of the space is a third one's, whose clock is right.
		a := net.native(id[0], nativeOptions{skew: -time.Minute, shares: true})
		b := net.native(id[1], nativeOptions{shares: true})
		c := net.native(id[2], nativeOptions{skew: time.Minute, shares: true})
		all := []*followingNative{a, b, c}
		defer net.stop(all...)
		synctest.Wait()
		for i, n := range all {
			n.register(t, id[5+i], addr)
		}
		all[0].register(t, id[8], addr) // with two, in turn
		time.Sleep(time.Second)
		for i := range 3000 {
			if i%550 == 500 {
				for i, n := range all {
					n.register(t, id[5+i], addr)
				}
				all[i/550%3].register(t, id[8], addr)
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait() // all natives hear of a renewal at one instant
			for at, n := range all {
				for _, x := range id[5:9] {
					got, ok := n.Get(x)
					first, _ := b.Get(x)
					same := got.Source == first.Source || got.Source != ports.SourceOwn && first.Source != ports.SourceOwn
					if !ok || got.State != ports.StateLive || same && got.Native == first.Native && (got.Remaining-first.Remaining).Abs() > 1100*time.Millisecond {
						t.Fatalf("after %d00 ms native %d lists %s: %v, %+v; where the clock is right, %+v", i, at, x, ok, got, first)
					}
				}
			}
		}
		for _, n := range all {
			if n.Count(ports.EventExpired) != 0 {
				t.Errorf("%d expired, and came back", n.Count(ports.EventExpired))
			}
		}
		for i, n := range all {
			if err := n.Leave(t.Context(), id[5+i], nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		for range 1000 {
			for _, n := range all {
				if n.lists(id[5]) || n.lists(id[6]) || n.lists(id[7]) {
					t.Fatal("who left is listed")
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func TestNewsThatCameByAWatchIsNotLookedUpAgain(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(10)
		topic := memory.NewTopic()
		asked := 0
		counting := &stubStore{get: func(context.Context, ports.PeerID) (ports.Entry, error) {
			asked++
			return ports.Entry{}, ports.ErrNotFound
		}, put: func(context.Context, ports.Entry) (int, error) { return 1, nil }}
		a, b := net.native(id[0], nativeOptions{topic: topic}), net.native(id[1], nativeOptions{topic: topic, store: counting})
		defer net.stop(a, b)
		synctest.Wait()
		for range 10 {
			a.register(t, id[5], addr)
			time.Sleep(57 * time.Second)
		}
		if asked != 0 || !b.lists(id[5]) || b.Count(ports.EventHeard) != 10 {
			t.Errorf("heard %d times, and asked the store %d times; want 10 and never", b.Count(ports.EventHeard), asked)
		}
	})
}

// A native that is told a leave, by any way, lists nothing that was granted before.
func TestALeaveIsNotUndoneByWhatWasGrantedBefore(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(12)
		x := id[11]
		a, b := net.native(id[0], nativeOptions{shares: true}), net.native(id[1], nativeOptions{shares: true})
		only := net.network.native(id[2], nil) // knows the seed alone: hears by gossip
		defer net.stop(a, b)
		defer only.stop()
		synctest.Wait()
		a.register(t, x, addr)
		b.register(t, x, addr)
		time.Sleep(time.Second)
		old, err := a.store.Local(x, ports.Version{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		for _, n := range []*followingNative{a, b} {
			if err := n.Leave(t.Context(), x, nil); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		late := net.native(id[3], nativeOptions{shares: true})
		defer late.stop()
		time.Sleep(time.Second)
		natives := []*native{a.native, b.native, late.native, only}
		replayer := net.topic.Join(id[4])
		defer replayer.Close()
		for i := range 100 {
			for _, n := range natives {
				if n.lists(x) {
					t.Fatalf("%d s after it left it is listed by %v", 3+i, n)
				}
			}
			_, _ = late.store.Put(t.Context(), old)
			_ = replayer.Announce(t.Context(), x)
			time.Sleep(time.Second)
		}
		for _, n := range natives {
			if got := n.Count(ports.EventLeft); n != late.native && got != 1 {
				t.Errorf("%d leaves, want one", got)
			}
		}
	})
}

func TestALaterRegistrationBeatsALeave(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(12)
		x := id[11]
		a, b := net.native(id[0], nativeOptions{shares: true}), net.native(id[1], nativeOptions{shares: true})
		only := net.network.native(id[2], nil)
		defer net.stop(a, b)
		defer only.stop()
		synctest.Wait()
		for _, at := range []*followingNative{a, b, a} {
			at.register(t, x, addr)
			if err := at.Leave(t.Context(), x, nil); err != nil {
				t.Fatal(err)
			}
			if at.lists(x) {
				t.Error("it is listed after it left")
			}
			time.Sleep(5 * time.Second)
			b.register(t, x, addr)
			time.Sleep(12 * time.Second)
			for _, n := range []*native{a.native, b.native, only} {
				if !n.lists(x) {
					t.Error("it came back and is not listed")
				}
			}
			time.Sleep(5 * time.Second)
		}
	})
}

func TestALeaveIsAnsweredAndToldOnce(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(4)
		a := net.native(id[0], nil)
		defer a.stop()
		a.register(t, id[1], addr)
		for range 3 {
			if err := a.Leave(t.Context(), id[1], nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Leave(t.Context(), id[2], nil); err != nil { // an indexer without a lease here may have a lease elsewhere
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if live, known := a.Counts(); live != 0 || known != 0 {
			t.Errorf("live %d, known %d", live, known)
		}
		if left := a.Of(ports.EventLeft); len(left) != 2 || !left[0].Joined || left[1].Joined {
			t.Errorf("left are %+v, want one that was alive and one that was not", left)
		}
		time.Sleep(70 * time.Second)
		if n := a.Count(ports.EventExpired) + a.Count(ports.EventForgotten); n != 0 || a.Held() != 0 {
			t.Errorf("%d expired or were forgotten and %d are held of those who left", n, a.Held())
		}
	})
}

// A stranger may put a leave into the DHT. An indexer that is registered here stays listed here,
// and where this native tells of it.
func TestALeaveThatTheStoreClaimsEndsNoLeaseThatIsHeldMoreFirmly(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(12)
		x := id[11]
		a, b := net.native(id[0], nativeOptions{shares: true}), net.native(id[1], nativeOptions{shares: true})
		defer net.stop(a, b)
		synctest.Wait()
		a.register(t, x, addr)
		time.Sleep(time.Second)
		stranger, voice := net.space.Join(), net.topic.Join(id[5])
		defer voice.Close()
		for range 200 {
			_, _ = stranger.Put(t.Context(), ports.Entry{PeerID: x, Addr: addr, Leave: true, ExpiresAt: time.Now().Add(90 * time.Second)})
			_ = voice.Announce(t.Context(), x)
			time.Sleep(time.Second)
			if !a.lists(x) || !b.lists(x) {
				t.Fatalf("listed by its native %v, by the other %v", a.lists(x), b.lists(x))
			}
			a.register(t, x, addr)
		}
	})
}

func TestANativeTellsItsOwnLeasesAloneAndNoLongerOnesThanThereAre(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(12)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		a.register(t, id[5], addr)
		at := func(kind ports.ChangeKind, x, native ports.PeerID, addr string, left time.Duration) ports.Change {
			return ports.Change{Kind: kind, Listed: ports.Listed{Entry: ports.Entry{
				PeerID: x, Addr: addr, Native: native, ExpiresAt: time.Now().Add(left), Leave: kind == ports.ChangeLeft,
			}, Remaining: left}}
		}
		const joined, left = ports.ChangeJoined, ports.ChangeLeft
		lies := []ports.Change{
			at(joined, id[6], id[2], addr, time.Minute),    // another native's
			at(joined, id[6], "", addr, time.Minute),       // of no native
			at(joined, id[6], id[1], addr, 67*time.Second), // longer than a lease
			at(joined, id[6], id[1], addr, 1<<62),          //
			at(joined, id[6], id[1], "nowhere", time.Minute),
			at(joined, "", id[1], addr, time.Minute),
			at(ports.ChangeExpired, id[5], id[1], addr, time.Minute),
			at(ports.ChangeLate, id[5], id[1], addr, time.Minute),
			at("promoted", id[6], id[2], addr, time.Minute),
			at(left, id[5], id[1], "", 3*time.Hour),
		}
		harmless := []ports.Change{
			at(left, id[5], id[1], "", time.Minute), // an indexer of this native's own
			at(left, id[5], id[2], "", time.Minute),
			at(joined, id[6], id[1], addr, 0), // over
			at(joined, id[6], id[1], addr, -time.Second),
		}
		truth := at(joined, id[7], id[1], addr, time.Minute)
		serve := porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				if !yield(ports.Batch{Reset: ports.ResetNew, Changes: slices.Concat(lies, harmless, []ports.Change{truth}), Cursor: "c"}, nil) {
					return
				}
				<-ctx.Done()
			}
		}}
		stop, err := net.transports.Join(id[1]).Serve(serve)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		time.Sleep(time.Second)
		told := a.Of(ports.EventTold)
		if len(told) != 1 || told[0].Refused != len(lies) || told[0].Changes != len(lies)+len(harmless)+1 || told[0].Err == nil {
			t.Errorf("told %+v, want %d refused", told, len(lies))
		}
		if !a.lists(id[5]) || a.lists(id[6]) || !a.lists(id[7]) {
			t.Errorf("listed %v %v %v, want its own and what is the other's to tell", a.lists(id[5]), a.lists(id[6]), a.lists(id[7]))
		}
	})
}

func TestANativeIsWarmingUntilItHasTakenOverATable(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(5)
		a := net.native(id[0], nativeOptions{lone: true})
		defer a.stop()
		if c := a.Condition(); c != "" {
			t.Errorf("a native that nobody can know of is %s", c)
		}
		// It hands over its table only after a while.
		whole := make(chan struct{})
		slow := porttest.Native{OnWatch: func(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
			return func(yield func(ports.Batch, error) bool) {
				if yield(ports.Batch{Reset: ports.ResetNew}, nil) {
					<-whole
					yield(ports.Batch{Cursor: "c"}, nil)
				}
			}
		}}
		a.cut()
		stop, err := net.transports.Join(id[1]).Serve(slow)
		if err != nil {
			t.Fatal(err)
		}
		b := net.native(id[2], nativeOptions{})
		defer b.stop()
		time.Sleep(30 * time.Second)
		if c := b.Condition(); c != ports.ConditionWarming {
			t.Errorf("with a table half taken over it is %q", c)
		}
		if _, err := b.LookUp(t.Context(), id[0], id[4]); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("look-up: %v", err)
		}
		close(whole)
		synctest.Wait()
		if c := b.Condition(); c != "" && c != ports.ConditionIsolated {
			t.Errorf("with a table taken over it is %q", c)
		}
		stop()
	})
}

func TestANativeThatReachesNobodyIsWarmingForTenSeconds(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		a := net.native(peerIDs(1)[0], nativeOptions{})
		defer a.stop()
		time.Sleep(10*time.Second - 1)
		if c := a.Condition(); c != ports.ConditionWarming {
			t.Errorf("just before, it is %q", c)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if c := a.Condition(); c != "" {
			t.Errorf("after 10 s it is %q", c)
		}
	})
}

func TestANativeThatHasLostAllOthersIsIsolated(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		all := net.natives(3, nativeOptions{})
		defer net.stop(all...)
		all[1].cut()
		synctest.Wait()
		if c := all[0].Condition(); c != ports.ConditionPartial {
			t.Errorf("with one left it is %q", c)
		}
		all[2].cut()
		synctest.Wait()
		page, err := all[0].List(t.Context(), "", ports.Query{})
		if c := all[0].Condition(); c != ports.ConditionIsolated || page.Condition != c || err != nil {
			t.Errorf("with none left it is %q, and says so in a page: %q", c, page.Condition)
		}
		all[1].heal()
		time.Sleep(5 * time.Second)
		if c := all[0].Condition(); c != ports.ConditionPartial {
			t.Errorf("with one back it is %q", c)
		}
		all[2].heal()
		time.Sleep(5 * time.Second)
		if c := all[0].Condition(); c != "" {
			t.Errorf("with all back it is %q", c)
		}
	})
}

func TestNativesTellOfEachOther(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(10)
		all := net.natives(3, nativeOptions{})
		defer net.stop(all...)
		all[1].register(t, id[8], addr)
		all[1].register(t, id[9], addr)
		time.Sleep(time.Second)
		got, err := all[0].Natives(t.Context(), "")
		if err != nil || len(got) != 2 {
			t.Fatalf("got %+v, %v", got, err)
		}
		for _, s := range got {
			want := 0
			if s.PeerID == id[1] {
				want = 2
			}
			if !s.Following || s.Live != want || want > 0 && s.Lag <= 0 || s.Lag > time.Second {
				t.Errorf("%+v, want %d entries", s, want)
			}
		}
	})
}

// Natives that follow each other agree once all is over, and none lists an indexer that left.
func TestNativesThatFollowEachOtherAgree(t *testing.T) {
	id := peerIDs(20)
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			op   string
			at   int
			who  int
			wait time.Duration
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				op:   rapid.SampledFrom([]string{"register", "register", "leave", "cut", "heal", "wait"}).Draw(t, "op"),
				at:   rapid.IntRange(0, 2).Draw(t, "at"),
				who:  rapid.IntRange(10, 14).Draw(t, "who"),
				wait: time.Duration(rapid.SampledFrom([]int{0, 5, 200, 3000, 30_000}).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, 40).Draw(rt, "steps")
		wrong := ""
		porttest.FakeTime(t, func(t *testing.T) {
			net := newFollowingNetwork(newNetwork(t))
			var all []*followingNative
			for i := range 3 {
				all = append(all, net.native(id[i], nativeOptions{skew: time.Duration(i-1) * time.Minute}))
			}
			defer net.stop(all...)
			type end struct {
				left bool
				at   time.Time
			}
			last := make(map[ports.PeerID]end)
			for _, s := range steps {
				x := id[s.who]
				switch s.op {
				case "register":
					time.Sleep(time.Millisecond) // in the instant of a leave, the leave wins
					if _, err := all[s.at].Register(t.Context(), x, ports.Registration{PeerID: x, Addr: addr}); err == nil {
						last[x] = end{false, time.Now()}
					}
				case "leave": // of all natives, as indexers do
					for _, n := range all {
						_ = n.Leave(t.Context(), x, nil)
					}
					last[x] = end{true, time.Now()}
				case "cut":
					all[s.at].cut()
				case "heal":
					all[s.at].cut()
					all[s.at].heal()
				}
				time.Sleep(s.wait)
				for x, l := range last {
					for i, n := range all {
						is, listed := n.Get(x)
						over := time.Since(l.at) > 66*time.Second && is.State != ports.StateStale // a native that is cut off cannot tell
						if listed && (l.left && time.Since(l.at) > 0 || over) {
							wrong = fmt.Sprintf("native %d lists one whose end (left %v) was %v ago", i, l.left, time.Since(l.at))
						}
					}
				}
			}
			for _, n := range all {
				n.cut()
				n.heal()
			}
			time.Sleep(6 * time.Second)
			for x, l := range last {
				if l.left || time.Since(l.at) > 65*time.Second {
					continue
				}
				for i, n := range all {
					if !n.lists(x) {
						wrong = fmt.Sprintf("native %d does not list one that registered %v ago", i, time.Since(l.at))
					}
				}
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// A native with more renewals a second than fit in one batch, and nothing else to tell.
func TestRenewalsOfALargeNativeAreToldInTime(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		ids := peerIDs(11)
		a := net.native(ids[0], nil)
		defer a.stop()
		ids = ids[1:]
		for _, id := range ids {
			a.register(t, id, addr)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		var newest time.Time // heartbeat that was told
		go func() {
			for b, err := range a.Watch(ctx, "", ports.WatchRequest{Own: true, Renewed: true}) {
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				for _, c := range b.Changes {
					newest = c.SeenAt
				}
			}
		}()
		const each = 200 // every 100 ms: as 120,000 indexers at the seed's heartbeat
		for range 150 {
			for range each / len(ids) {
				for _, id := range ids {
					a.register(t, id, addr)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if behind := time.Since(newest); behind > 2*time.Second {
			t.Errorf("after 15 s a follower is %v behind", behind)
		}
	})
}

// A watcher hears of the native's condition although nothing else happens.
func TestAWatcherIsToldTheCondition(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		ids := peerIDs(2)
		a := net.native(ids[0], nativeOptions{})
		defer net.stop(a)
		ctx, cancel := context.WithCancel(t.Context())
		defer func() { cancel(); synctest.Wait() }()
		var said []ports.Condition
		go func() {
			for b, err := range a.Watch(ctx, "", ports.WatchRequest{}) {
				if err != nil {
					return
				}
				if n := len(said); n == 0 || said[n-1] != b.Condition {
					said = append(said, b.Condition)
				}
			}
		}()
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if want := []ports.Condition{ports.ConditionWarming, ""}; !slices.Equal(said, want) {
			t.Errorf("alone for 15 s: told %q, want %q", said, want)
		}
		b := net.native(ids[1], nativeOptions{})
		time.Sleep(5 * time.Second)
		net.stop(b)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if want := []ports.Condition{ports.ConditionWarming, "", ports.ConditionIsolated}; !slices.Equal(said, want) {
			t.Errorf("with another one, and without it: told %q, want %q", said, want)
		}
	})
}

// Operators change the TTL of one native after the other.

func TestWhatANativeOfALongerTTLGrantsToWhoSignsIsListedByTheOthers(t *testing.T) {
	first := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(2)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		rules := net.rules
		net.rules.Policy.TTL += 6 * time.Second
		b := net.native(id[1], nativeOptions{})
		net.rules = rules
		defer b.stop()
		time.Sleep(time.Second)
		x := net.indexer(first, indexerOptions{addr: addr}, id[1])
		defer x.kill()
		time.Sleep(2 * time.Second)
		missing := 0
		for range 600 {
			if !b.lists(x.id) {
				t.Fatal("not even the one that granted it lists it")
			}
			if !a.lists(x.id) {
				missing++
			}
			time.Sleep(time.Second)
		}
		if missing > 0 {
			t.Errorf("the other did not list it in %d of 600 samples; told %+v", missing, a.Of(ports.EventTold)[len(a.Of(ports.EventTold))-1])
		}
	})
}

// All natives are set back at once, as on one host whose clock was wrong.

func TestNativesThatAreSetBackTogetherGoOnListingWhoSigns(t *testing.T) {
	for _, back := range []time.Duration{20 * time.Second, 60 * time.Second, 80 * time.Second, 5 * time.Minute} {
		t.Run(back.String(), func(t *testing.T) {
			first := prooftest.NewSigner(t)
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				net.rules.Plain = refusing
				var ahead atomic.Int64
				ahead.Store(int64(back))
				clock := func() time.Duration { return time.Duration(ahead.Load()) }
				id := peerIDs(2)
				a := net.native(id[0], nativeOptions{clock: clock, shares: true})
				defer a.stop()
				b := net.native(id[1], nativeOptions{clock: clock, shares: true})
				defer b.stop()
				time.Sleep(time.Second)
				x := net.indexer(first, indexerOptions{addr: addr}, id[0])
				defer x.kill()
				time.Sleep(10 * time.Minute)
				ahead.Store(0)
				ma, mb := 0, 0
				for range 900 {
					if !a.lists(x.id) {
						ma++
					}
					if !b.lists(x.id) {
						mb++
					}
					time.Sleep(time.Second)
				}
				t.Logf("set back by %v: missing at its native %d s, at the other %d s", back, ma, mb)
				if ma+mb > 0 {
					t.Errorf("missing")
				}
			})
		})
	}
}

func refusing() domain.Plain { return domain.PlainRefuse }

// A native whose clock is an hour ahead refuses what the first native tells, since all of it has
// ended by that clock. A second native outvotes the clock. What was refused is not missing until it
// is told again.
func TestATableThatWasTakenByAnotherTimeIsTakenAgain(t *testing.T) {
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		first := net.native(id[0], nativeOptions{})
		x := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[0])
		time.Sleep(10 * time.Second)
		ahead := net.native(id[2], nativeOptions{skew: time.Hour})
		time.Sleep(2 * time.Second)
		if ahead.lists(x.id) {
			t.Fatal("a record that has ended by the native's clock is taken: the test shows nothing")
		}
		second := net.native(id[1], nativeOptions{})
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if ahead.Following() == 2 && !ahead.lists(x.id) {
				t.Fatal("it follows both, and misses the indexer of one")
			}
		}
		if !ahead.lists(x.id) {
			t.Error("5 s after the second native came the indexer is missing")
		}
		x.kill()
		net.stop(first, second, ahead)
	})
}

// Natives tell each other whom their announcements reach.
func TestFollowersShareAnAudience(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		const x, y = 7, 8
		var reaches atomic.Uint64
		reaches.Store(x)
		ids, followers := peerIDs(3), &domain.Followers{}
		a := net.native(ids[0], nativeOptions{followers: followers})
		b := net.native(ids[1], nativeOptions{audience: reaches.Load})
		c := net.native(ids[2], nativeOptions{}) // it says nothing of its audience
		defer net.stop(a, c)
		want := func(why string, audience uint64, natives []ports.PeerID, share bool) {
			t.Helper()
			if followers.Share(audience, natives) != share {
				t.Errorf("%s: they share it: %v", why, !share)
			}
		}
		time.Sleep(time.Second)
		want("no native", x, nil, true)
		want("a native with this audience", x, ids[1:2], true)
		want("another audience", y, ids[1:2], false)
		want("and a native that does not say", x, ids[1:], false)
		reaches.Store(y)
		was := followers.Revision()
		time.Sleep(3 * time.Second) // more than a beat
		want("its audience is another now", x, ids[1:2], false)
		want("as here", y, ids[1:2], true)
		if followers.Revision() == was {
			t.Error("nothing says that it is another")
		}
		was = followers.Revision()
		time.Sleep(time.Minute)
		if followers.Revision() != was {
			t.Error("it is another, without a change")
		}
		b.stop()
		time.Sleep(time.Second)
		want("it has stopped", y, ids[1:2], false)
	})
}
