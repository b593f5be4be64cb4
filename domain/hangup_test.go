package domain_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// grace is how long an indexer of the usual times has to come back after it hung up.
const grace = 500 * time.Millisecond

// tellings has what a watcher of n is told about id, in order.
func tellings(t *testing.T, n *native, id ports.PeerID) (told func() []string) {
	ctx, cancel := context.WithCancel(t.Context())
	var kinds []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b, err := range n.Watch(ctx, "", ports.WatchRequest{Renewed: true}) {
			if err != nil {
				return
			}
			for _, c := range b.Changes {
				if c.PeerID == id {
					kinds = append(kinds, fmt.Sprintf("%s %s", c.Kind, c.State))
				}
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return func() []string {
		time.Sleep(100 * time.Millisecond) // a batch
		synctest.Wait()
		defer func() { kinds = nil }()
		return kinds
	}
}

func TestAnIndexerThatHangsUpIsLateAtOnceAndLivesOnToItsEnd(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(2)
		n := net.native(id[0], nativeOptions{lone: true})
		defer n.stop()
		n.register(t, id[1], addr)
		told := tellings(t, n.native, id[1])
		told()
		time.Sleep(10 * time.Second)
		expect := func(what, state string, want ...string) {
			t.Helper()
			if got := told(); !slices.Equal(got, want) {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
			if got := states(n.native, id[1])[0]; got != state {
				t.Errorf("%s: %s, want %s", what, got, state)
			}
		}

		n.HungUp(id[1], true)
		time.Sleep(grace - 101*time.Millisecond)
		expect("just before the grace is over", "live")
		time.Sleep(time.Millisecond)
		expect("after it", "late", "late late")
		time.Sleep(54 * time.Second)
		expect("when its heartbeat is overdue, which is no news", "late")

		n.register(t, id[1], addr)
		expect("with its next heartbeat", "live", "updated live")
		n.HungUp(id[1], true)
		n.register(t, id[1], addr)
		time.Sleep(2 * grace)
		expect("a heartbeat within the grace", "live", "renewed live")

		n.HungUp(id[1], false)
		time.Sleep(2 * grace)
		expect("a connection without an open stream", "live")

		n.HungUp(id[1], true)
		if err := n.Leave(t.Context(), id[1], nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * grace)
		expect("a leave", "-", "left ")

		n.register(t, id[1], addr)
		began := time.Now()
		n.HungUp(id[1], true)
		time.Sleep(time.Until(began.Add(66*time.Second - 101*time.Millisecond)))
		expect("just before its end", "late", "joined live", "late late")
		time.Sleep(2 * time.Second)
		expect("after its end", "-", "expired ")
	})
}

func TestALeaseIsNotLateByAHangUpAtOneNativeWhileAnotherTellsIt(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(4)
		a, b := net.native(id[0], nativeOptions{}), net.native(id[1], nativeOptions{})
		defer a.stop()
		defer b.stop()
		x := id[3]
		b.register(t, x, addr)
		time.Sleep(10 * time.Second)
		a.register(t, x, addr)
		time.Sleep(2 * time.Second)
		toldA, toldB := tellings(t, a.native, x), tellings(t, b.native, x)
		toldA()
		toldB()
		a.HungUp(x, true)
		time.Sleep(time.Second)
		for name, n := range map[string]*followingNative{"a": a, "b": b} {
			if got := states(n.native, x)[0]; got != "live" {
				t.Errorf("at %s it is %s after a hang-up at a alone", name, got)
			}
		}
		for _, told := range slices.Concat(toldA(), toldB()) {
			if told != "renewed live" {
				t.Errorf("told %s", told)
			}
		}
		b.HungUp(x, true)
		time.Sleep(time.Second)
		for name, n := range map[string]*followingNative{"a": a, "b": b} {
			if got := states(n.native, x)[0]; got != "late" {
				t.Errorf("at %s it is %s after a hang-up at both", name, got)
			}
		}
		a.register(t, x, addr)
		time.Sleep(2 * time.Second)
		for name, n := range map[string]*followingNative{"a": a, "b": b} {
			if got := states(n.native, x)[0]; got != "live" {
				t.Errorf("at %s it is %s after a heartbeat at a", name, got)
			}
		}
	})
}

func TestANativeTellsLateForItsOwnLeaseAlone(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(6)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		liar := net.scriptedNative(id[1], nil)
		own, its, both := id[3], id[4], id[5]
		a.register(t, own, addr)
		a.register(t, both, addr)
		change := func(kind ports.ChangeKind, x, native ports.PeerID) ports.Change {
			return ports.Change{Kind: kind, Listed: ports.Listed{
				Entry:     ports.Entry{PeerID: x, Addr: addr, Native: native, ExpiresAt: time.Now().Add(time.Minute)},
				Remaining: time.Minute, State: ports.StateLive,
			}}
		}
		liar.tell(change(ports.ChangeJoined, its, id[1]), change(ports.ChangeJoined, both, id[1]))
		time.Sleep(time.Second)
		if got := states(a.native, own, its, both); !slices.Equal(got, []string{"live", "live", "live"}) {
			t.Fatalf("at first %v", got)
		}
		late := func(x, native ports.PeerID) ports.Change {
			c := change(ports.ChangeUpdated, x, native)
			c.State = ports.StateLate
			return c
		}
		liar.tell(late(own, id[0]), late(own, id[2]), late(its, id[1]), late(both, id[1]))
		time.Sleep(time.Second)
		if got := states(a.native, own, its, both); !slices.Equal(got, []string{"live", "late", "live"}) {
			t.Errorf("told that all are late: %v", got)
		}
		if told := a.Of(ports.EventTold); told[len(told)-1].Refused != 2 {
			t.Errorf("%d refused, want those of others", told[len(told)-1].Refused)
		}
		liar.tell(change(ports.ChangeRenewed, its, id[1]))
		time.Sleep(time.Second)
		if got := states(a.native, its)[0]; got != "live" {
			t.Errorf("renewed it is %s", got)
		}
	})
}

func TestANativeThatStoodStillTakesNoHangUpForADeath(t *testing.T) {
	withSleeper(t, func(t *testing.T, _ *followingNetwork, n *followingNative, sleep func(time.Duration)) {
		x, y := peerIDs(3)[1], peerIDs(3)[2]
		n.register(t, x, addr)
		n.register(t, y, addr)
		time.Sleep(time.Second)
		n.HungUp(x, true)
		sleep(10 * time.Second)
		n.HungUp(y, true)
		time.Sleep(2 * time.Second)
		if got := states(n.native, x, y); !slices.Equal(got, []string{"live", "live"}) {
			t.Errorf("they hung up on a native that slept, and are %v", got)
		}
	})
}

// An indexer that dials again sends the tick that it sent before, until its next heartbeat is due.
func TestAnIndexerThatIsBackWithTheSameTickIsLiveAgainEverywhere(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(2)
		a, b := net.native(id[0], nativeOptions{}), net.native(id[1], nativeOptions{})
		defer a.stop()
		defer b.stop()
		x := newSignedIndexer(t)
		x.issue(t, addr)
		a.answer(t, x.heartbeat(0, true))
		time.Sleep(2 * time.Second)
		for _, step := range []string{"once", "again"} {
			a.HungUp(x.PeerID, true)
			time.Sleep(2 * grace)
			if got := []string{states(a.native, x.PeerID)[0], states(b.native, x.PeerID)[0]}; !slices.Equal(got, []string{"late", "late"}) {
				t.Errorf("after it hung up %s: %v", step, got)
			}
			a.answer(t, x.heartbeat(0, false))
			time.Sleep(100 * time.Millisecond)
			if got := []string{states(a.native, x.PeerID)[0], states(b.native, x.PeerID)[0]}; !slices.Equal(got, []string{"live", "live"}) {
				t.Errorf("back %s: %v", step, got)
			}
		}
	})
}

func TestEachHangUpHasItsWholeGrace(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(2)
		n := net.native(id[0], nativeOptions{lone: true})
		defer n.stop()
		n.register(t, id[1], addr)
		n.HungUp(id[1], true)
		time.Sleep(grace / 2)
		n.register(t, id[1], addr)
		time.Sleep(grace / 4)
		n.HungUp(id[1], true)
		time.Sleep(grace - time.Millisecond)
		if got := states(n.native, id[1])[0]; got != "live" {
			t.Errorf("within the grace of its second hang-up it is %s", got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := states(n.native, id[1])[0]; got != "late" {
			t.Errorf("after it it is %s", got)
		}
	})
}
