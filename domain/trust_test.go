package domain_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

func expectClosed(t *testing.T, err error, names ...ports.PeerID) {
	t.Helper()
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if !ok || refusal.Code != ports.CodeRefused || !strings.Contains(refusal.Message, "this network is closed") || !strings.Contains(refusal.Message, "ask whoever runs") {
		t.Fatalf("got %v, want a refusal that says that the network is closed and whom to ask", err)
	}
	for _, name := range names {
		if !strings.Contains(refusal.Message, string(name)) {
			t.Errorf("%q does not name %s", refusal.Message, name)
		}
	}
}

func TestAClosedNativeTakesItsIndexersAlone(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		ids := peerIDs(4)
		self, member, stranger := ids[0], ids[1], ids[2]
		list := &trustList{}
		list.set(self, member)
		net.rules.Indexers = list.trusts
		n := net.native(self, nil)
		defer n.stop()
		n.register(t, member, addr)
		n.register(t, self, addr)

		_, err := n.Register(t.Context(), stranger, ports.Registration{PeerID: stranger, Addr: addr})
		expectClosed(t, err, self, stranger)
		expectClosed(t, n.Leave(t.Context(), stranger, nil), self, stranger)
		if n.Held() != 2 || n.lists(stranger) {
			t.Errorf("%d records are held, want those of the two members", n.Held())
		}
		if got := n.Count(ports.EventRefused); got != 1 {
			t.Errorf("%d refusals were told, want 1", got)
		}
		if err := n.Leave(t.Context(), member, nil); err != nil || n.lists(member) {
			t.Errorf("a member leaves: %v", err)
		}
	})
}

// TestAStrangerCostsNoLookUp has a stranger in the store and an open native that speaks for
// it, to a closed one, beside one on the list.
func TestAStrangerCostsNoLookUp(t *testing.T) {
	const announced = 1000
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		ids := peerIDs(4)
		open, closed, friend, stranger := ids[0], ids[1], ids[2], ids[3]
		var mu sync.Mutex
		asked := map[ports.PeerID]int{}
		store := &stubStore{get: func(_ context.Context, id ports.PeerID) (ports.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[id]++
			return ports.Entry{PeerID: id, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}, nil
		}}
		a := net.native(open, nativeOptions{topic: net.topic})
		list := &trustList{}
		list.set(closed, friend)
		net.rules.Indexers = list.trusts
		b := net.native(closed, nativeOptions{store: store, topic: net.topic})
		defer net.stop(a, b)
		synctest.Wait()

		a.register(t, stranger, addr)
		a.register(t, friend, addr)
		for range announced {
			b.Hear(ports.Announcement{PeerID: stranger, From: open})
		}
		_, err := b.LookUp(t.Context(), open, stranger)
		if !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("asked for a stranger it says %v", err)
		}
		time.Sleep(2 * net.rules.Policy.Refresh)
		synctest.Wait()
		a.register(t, friend, addr)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		_, known := b.Counts()
		t.Logf("%d announcements and a look-up of a stranger: %d look-ups; known %d", announced, asked[stranger], known)
		if asked[stranger] != 0 || b.lists(stranger) || known != 1 {
			t.Errorf("the stranger was looked up %d times, is listed: %t, and %d are known", asked[stranger], b.lists(stranger), known)
		}
		if !b.lists(friend) {
			t.Error("the indexer on the list is not listed")
		}
		if got := countUntrusted(b, ports.UntrustedAnnouncement); got < announced {
			t.Errorf("%d announcements were told to be of strangers, want %d", got, announced)
		}
		if countUntrusted(b, ports.UntrustedChange) == 0 {
			t.Error("it was not told that a change is of a stranger")
		}
	})
}

func TestWhoIsTakenOffTheListIsGoneAtOnce(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		ids := peerIDs(20)
		self, stays, goes, left := ids[0], ids[1:10], ids[10:18], ids[18]
		list := &trustList{}
		list.set(ids...)
		net.rules.Indexers = list.trusts
		n := net.native(self, nil)
		defer n.stop()
		for _, id := range append(append([]ports.PeerID{left}, stays...), goes...) {
			n.register(t, id, addr)
		}
		if err := n.Leave(t.Context(), left, nil); err != nil {
			t.Fatal(err)
		}
		n.Hear(ports.Announcement{PeerID: ids[19], From: ids[1]}) // and nothing is found
		var seen replica
		stop := watchInto(t, n, &seen, ports.WatchRequest{})
		synctest.Wait()

		list.set(append([]ports.PeerID{self}, stays...)...)
		n.Revise()
		for _, id := range goes {
			if n.lists(id) {
				t.Errorf("%s is still listed", id)
			}
			if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err == nil {
				t.Errorf("%s may register again", id)
			}
		}
		if live, known := n.Counts(); live != len(stays) || known != live || n.Held() != live {
			t.Errorf("%d are live, %d known and %d held; want %d", live, known, n.Held(), len(stays))
		}
		if got := n.Count(ports.EventExpired); got != len(goes) {
			t.Errorf("%d entries were told to be gone, want %d", got, len(goes))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		if diff := seen.differs(n.Registry, false); diff != "" {
			t.Errorf("a watcher has another table: %s", diff)
		}
		time.Sleep(2 * net.rules.Policy.TTL) // a look-up that still waited for them finds nothing
		if live, _ := n.Counts(); live != 0 {
			t.Errorf("%d are live after their deadline", live)
		}
	})
}

// TestOnlyTrustedNativesFollowAndAreFollowed has three natives of which one takes another
// off its list, and on again.
func TestOnlyTrustedNativesFollowAndAreFollowed(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		ids := peerIDs(6)
		list := &trustList{}
		list.set(ids[0], ids[1])
		outsider, friend := net.native(ids[2], nativeOptions{}), net.native(ids[1], nativeOptions{})
		net.rules.Natives = list.trusts
		n := net.native(ids[0], nativeOptions{})
		defer net.stop(outsider, friend, n)
		n.register(t, ids[3], addr)
		friend.register(t, ids[4], addr)
		outsider.register(t, ids[5], addr)
		time.Sleep(10 * time.Second)
		if n.Following() != 1 || !n.lists(ids[4]) || n.lists(ids[5]) {
			t.Errorf("it follows %d natives, lists its friend's indexer: %t, the outsider's: %t", n.Following(), n.lists(ids[4]), n.lists(ids[5]))
		}
		if !friend.lists(ids[3]) || outsider.lists(ids[3]) || countUntrusted(n, ports.UntrustedWatch) == 0 {
			t.Errorf("its indexer is listed by its friend: %t, by the outsider: %t; %d watches were refused",
				friend.lists(ids[3]), outsider.lists(ids[3]), countUntrusted(n, ports.UntrustedWatch))
		}
		if natives, err := n.Natives(t.Context(), ""); err != nil || len(natives) != 1 || natives[0].PeerID != ids[1] {
			t.Errorf("it tells of %+v, %v", natives, err)
		}
		// A reader may watch.
		remote, err := outsider.transport.Native(ids[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		for batch, err := range remote.Watch(t.Context(), ids[2], ports.WatchRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if batch.Cursor != "" {
				break
			}
		}
		for _, err := range remote.Watch(t.Context(), ids[2], ports.WatchRequest{Own: true}) {
			expectClosed(t, err, ids[0], ids[2])
		}

		list.set(ids[0])
		began := time.Now()
		n.Revise()
		if !eventually(5*time.Second, func() bool { return n.Following() == 0 && friend.Following() == 1 }) { // the outsider
			t.Errorf("it follows %d, and the one taken off the list %d", n.Following(), friend.Following())
		}
		t.Logf("taken off the list, it neither follows nor is followed after %v", time.Since(began))
		list.set(ids[0], ids[1], ids[2])
		began = time.Now()
		n.Revise()
		if !eventually(10*time.Second, func() bool { return n.Following() == 2 && outsider.Following() == 2 && n.lists(ids[5]) }) {
			t.Errorf("with all on the list it follows %d", n.Following())
		}
		t.Logf("on the list, all follow each other after %v", time.Since(began))
	})
}

// x registers plainly, starts anew and signs, with another native; then this one closes.
func TestWhoSignsElsewhereSurvivesTheRevision(t *testing.T) {
	var believing plainSetting
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		net.rules.Plain = believing.now
		all := net.natives(2, nativeOptions{})
		defer net.stop(all...)
		time.Sleep(time.Second)
		x := newSignedIndexer(t)
		all[0].register(t, x.PeerID, addr)
		time.Sleep(10 * time.Second)
		x.issue(t, addr)
		all[1].answer(t, x.heartbeat(0, true))
		time.Sleep(5 * time.Second)
		believing.set(domain.PlainRefuse)
		all[0].Revise()
		if !all[0].lists(x.PeerID) {
			t.Error("what it signed, and the other native told, is gone with the plain lease")
		}
	})
}

func TestALeaseOfOnesOwnSurvivesTheRevision(t *testing.T) {
	withSigningNetwork(t, domain.PlainRefuse, func(t *testing.T, net *network) {
		net.rules.Clock = domain.NewClock(func() time.Time { return time.Now().Add(2 * time.Hour) }, nil)
		a := net.nativeWithKey()
		defer a.stop()
		x := newSignedIndexer(t)
		x.issue(t, addr)
		a.answer(t, x.heartbeat(0, true))
		if !a.lists(x.PeerID) {
			t.Fatal("not listed")
		}
		a.Revise() // and nothing has changed
		if !a.lists(x.PeerID) {
			t.Error("gone")
		}
	})
}

func TestNothingComesInBehindTheRevision(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprint("told ", told), func(t *testing.T) {
			var believing plainSetting
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				var n *followingNative
				var armed atomic.Bool
				check := net.rules.CheckAddr
				net.rules.Plain = believing.now
				net.rules.CheckAddr = func(id ports.PeerID, a string) error {
					if armed.Load() { // it is being parsed when the operator closes
						armed.Store(false)
						believing.set(domain.PlainRefuse)
						n.Revise()
					}
					return check(id, a)
				}
				ids := peerIDs(3)
				n = net.native(ids[0], nativeOptions{})
				defer n.stop()
				other := net.scriptedNative(ids[1], nil)
				defer other.stop()
				time.Sleep(time.Second)
				armed.Store(true)
				if told {
					other.tell(ports.Change{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: ports.Entry{PeerID: ids[2], Addr: addr, Native: ids[1], ExpiresAt: time.Now().Add(time.Minute)}, State: ports.StateLive, Remaining: time.Minute}})
					synctest.Wait()
				} else {
					_, _ = n.Register(t.Context(), ids[2], ports.Registration{PeerID: ids[2], Addr: addr})
				}
				if n.lists(ids[2]) {
					t.Errorf("told %t: a plain lease has come in behind the revision", told)
				}
			})
		})
	}
}
