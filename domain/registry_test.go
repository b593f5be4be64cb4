package domain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestARegistrationIsAnsweredListedPutAnnouncedAndListedElsewhere(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		began := time.Now()
		lease := a.register(t, id[2], addr)
		if want := (ports.Lease{ExpiresAt: began.Add(66 * time.Second), TTL: 66 * time.Second, Heartbeat: time.Minute, Now: began}); !cmp.Equal(lease, want) {
			t.Errorf("the lease is %+v, want %+v", lease, want)
		}
		if !a.lists(id[2]) {
			t.Error("not live before it is put")
		}
		synctest.Wait()
		got, ok := b.Get(id[2])
		if !ok || got.Native != id[0] || got.Addr != addr || got.State != ports.StateLive || !got.SeenAt.Equal(began) || !got.ExpiresAt.Equal(lease.ExpiresAt) {
			t.Errorf("the other native lists %+v, %v", got, ok)
		}
		if live, known := b.Counts(); live != 1 || known != 1 {
			t.Errorf("live %d, known %d, want 1 and 1", live, known)
		}
		if time.Since(began) != 0 {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}

func TestWhatIsNotRenewedIsDeadAtItsDeadlineEverywhere(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		lease := a.register(t, id[2], addr)
		for _, c := range []struct {
			at   time.Duration
			want bool
		}{{-1, true}, {0, false}, {1, false}} {
			time.Sleep(time.Until(lease.ExpiresAt.Add(c.at)))
			for name, n := range map[string]*native{"first hand": a, "heard": b} {
				page, _ := n.Page("", 10)
				if got := n.lists(id[2]); got != c.want || len(page) == 1 != c.want {
					t.Errorf("%s, %v from the deadline: listed %v, on a page %d, want %v", name, c.at, got, len(page), c.want)
				}
			}
		}
		time.Sleep(2 * time.Second)
		for name, n := range map[string]*native{"first hand": a, "heard": b} {
			if got := n.Of(ports.EventExpired); len(got) != 1 || got[0].PeerID != id[2] {
				t.Errorf("%s: expired %v", name, got)
			}
		}
		// Both refresh twice, find nothing, and forget it.
		time.Sleep(61 * time.Second)
		for name, n := range map[string]*native{"first hand": a, "heard": b} {
			if live, known := n.Counts(); live+known != 0 || len(n.Of(ports.EventForgotten)) != 1 {
				t.Errorf("%s: live %d, known %d, forgotten %v", name, live, known, n.Of(ports.EventForgotten))
			}
		}
	})
}

func TestHeartbeatsKeepAnEntryListedElsewhereWithoutAGapUnlessLookedUpAtTheTickAlone(t *testing.T) {
	missing := func(tickOnly bool) (missed int) {
		withNetwork(t, func(t *testing.T, net *network) {
			net.tickOnly = tickOnly
			id := peerIDs(3)
			a, b := net.native(id[0], nil), net.native(id[1], nil)
			defer a.stop()
			defer b.stop()
			time.Sleep(29 * time.Second) // the worst phase of the tick
			go func() {
				for range 10 {
					a.register(t, id[2], addr)
					time.Sleep(time.Minute)
				}
			}()
			for range 5000 {
				time.Sleep(100 * time.Millisecond)
				if !b.lists(id[2]) {
					missed++
				}
			}
			time.Sleep(3 * time.Minute)
		})
		return missed
	}
	if n := missing(false); n != 0 {
		t.Errorf("missing in %d of 5000 samples", n)
	}
	if n := missing(true); n == 0 {
		t.Error("with look-ups at the tick alone it was missing in no sample, so this test shows nothing")
	}
}

func TestALeaseAtFirstHandIsNeverDisplaced(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(4)
		a, liar, evil := net.native(id[0], nil), net.topic.Join(id[1]), net.space.Join()
		defer a.stop()
		defer liar.Close()
		lease := a.register(t, id[2], addr)
		// A stranger stores a later deadline and another address, and announces it all the time.
		for time.Until(lease.ExpiresAt) > 0 {
			if got, ok := a.Get(id[2]); !ok || got.Addr != addr || got.Native != id[0] || !got.ExpiresAt.Equal(lease.ExpiresAt) {
				t.Fatalf("%v before the deadline: %+v, %v", time.Until(lease.ExpiresAt), got, ok)
			}
			if _, err := evil.Put(t.Context(), ports.Entry{PeerID: id[2], Addr: "/ip4/6.6.6.6/tcp/6", Native: id[1], ExpiresAt: time.Now().Add(95 * time.Second)}); err != nil {
				t.Fatal(err)
			}
			if err := liar.Announce(t.Context(), id[2]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		a.register(t, id[2], addr)
		if got, ok := a.Get(id[2]); !ok || got.Addr != addr || got.Native != id[0] {
			t.Errorf("after the next registration: %+v, %v", got, ok)
		}
	})
}

func TestAnIndexerThatMovesToAnotherNativeIsMissingNowhere(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		a.register(t, id[2], addr)
		time.Sleep(40 * time.Second)
		b.register(t, id[2], addr)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if !a.lists(id[2]) || !b.lists(id[2]) {
				t.Fatalf("listed by the old native %v, by the new one %v", a.lists(id[2]), b.lists(id[2]))
			}
		}
		if got, _ := a.Get(id[2]); got.Native != id[1] {
			t.Errorf("the old native says it is leased by %s, want %s", got.Native, id[1])
		}
	})
}

func TestWhatTheStoreSaysIsHeldAgainstTheRules(t *testing.T) {
	id := peerIDs(3)
	good := func() ports.Entry {
		return ports.Entry{PeerID: id[2], Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}
	}
	for _, c := range []struct {
		name  string
		bend  func(*ports.Entry)
		lists bool
	}{
		{"as it should be", func(*ports.Entry) {}, true},
		{"another's", func(e *ports.Entry) { e.PeerID = id[1] }, false},
		{"expired", func(e *ports.Entry) { e.ExpiresAt = time.Now() }, false},
		{"in the year 9999", func(e *ports.Entry) { e.ExpiresAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, false},
		{"later than a lease and the clocks allow", func(e *ports.Entry) { e.ExpiresAt = time.Now().Add(96*time.Second + 1) }, false},
		{"at an address nobody can dial", func(e *ports.Entry) { e.Addr = "nowhere" }, false},
		{"at one address and, says its list, at another", func(e *ports.Entry) { e.Addr, e.Addrs = "nowhere", []string{addr} }, false},
		{"at a long address and, says its list, at another", func(e *ports.Entry) { e.Addr, e.Addrs = "/"+strings.Repeat("a", 5000), []string{addr} }, false},
		{"at no address", func(e *ports.Entry) { e.Addr = "" }, false},
		{"at an address nobody can dial, among others", func(e *ports.Entry) { e.Addrs = []string{addr, "nowhere"} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, net *network) {
				a := net.native(id[0], &stubStore{get: func(context.Context, ports.PeerID) (ports.Entry, error) {
					e := good()
					c.bend(&e)
					return e, nil
				}})
				defer a.stop()
				b := net.topic.Join(id[1])
				defer b.Close()
				if err := b.Announce(t.Context(), id[2]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := a.lists(id[2]); got != c.lists {
					t.Errorf("listed: %v, want %v", got, c.lists)
				}
				if n := len(a.Of(ports.EventLookedUp)); n != 1 {
					t.Errorf("looked up %d times", n)
				}
			})
		})
	}
}

func TestAnEntryOfAFastClockIsListedNoLongerThanALease(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		fixed := ports.Entry{PeerID: id[2], Addr: addr, ExpiresAt: time.Now().Add(90 * time.Second)}
		a := net.native(id[0], &stubStore{get: func(_ context.Context, _ ports.PeerID) (ports.Entry, error) { return fixed, nil }})
		defer a.stop()
		b := net.topic.Join(id[1])
		defer b.Close()
		_ = b.Announce(t.Context(), id[2])
		time.Sleep(66*time.Second - 1)
		if !a.lists(id[2]) {
			t.Error("gone before a lease's time")
		}
		time.Sleep(time.Nanosecond)
		if a.lists(id[2]) {
			t.Error("listed longer than a lease")
		}
	})
}

func TestAFloodOfPeerIDsWithNothingBehindThemIsBoundedAndForgotten(t *testing.T) {
	many := peerIDs(12_000)
	withNetwork(t, func(t *testing.T, net *network) {
		var mu sync.Mutex
		running, most := 0, 0
		a := net.native(many[0], &stubStore{get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			running--
			mu.Unlock()
			return ports.Entry{}, ports.ErrNotFound
		}})
		defer a.stop()
		b := net.topic.Join(many[1])
		defer b.Close()
		a.register(t, many[2], addr)
		for i, id := range many[3:] {
			_ = b.Announce(t.Context(), id)
			if i%1000 == 0 {
				synctest.Wait()
			}
			if _, known := a.Counts(); known > 2*1+10_000 {
				t.Fatalf("%d known after %d announcements", known, i)
			}
		}
		synctest.Wait()
		if most != 8 {
			t.Errorf("one author had %d look-ups under way, want 8", most)
		}
		if n := len(a.Of(ports.EventForgotten)); n != len(many[3:])-10_001 {
			t.Errorf("%d had to go, want %d", n, len(many[3:])-10_001)
		}
		for range 5 { // renewed, so that it stays
			time.Sleep(30 * time.Second)
			a.register(t, many[2], addr)
		}
		if live, known := a.Counts(); live != 1 || known != 1 {
			t.Errorf("after the refreshes: live %d, known %d, want the one that lives", live, known)
		}
	})
}

func TestOneAuthorsFloodDoesNotHoldUpAnothersNews(t *testing.T) {
	many := peerIDs(3000)
	withNetwork(t, func(t *testing.T, net *network) {
		wanted := many[2]
		a := net.native(many[0], &stubStore{get: func(ctx context.Context, id ports.PeerID) (ports.Entry, error) {
			if id == wanted {
				return ports.Entry{PeerID: id, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}, nil
			}
			<-ctx.Done() // a look-up that hangs until its deadline
			return ports.Entry{}, ports.ErrNotFound
		}})
		defer a.stop()
		flooder, honest := net.topic.Join(many[1]), net.topic.Join(many[3])
		defer flooder.Close()
		defer honest.Close()
		for _, id := range many[4:] {
			_ = flooder.Announce(t.Context(), id)
		}
		_ = flooder.Announce(t.Context(), wanted) // it names it too, at the end of its queue
		synctest.Wait()
		_ = honest.Announce(t.Context(), wanted)
		synctest.Wait()
		if !a.lists(wanted) {
			t.Error("the honest author's announcement waits behind the flood")
		}
	})
}

func TestWhatThisNodeHoldsIsFoundAtOnceWhateverWaits(t *testing.T) {
	many := peerIDs(3000)
	withNetwork(t, func(t *testing.T, net *network) {
		wanted := many[2]
		store := &stubStore{
			get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
				<-ctx.Done() // a network that hangs
				return ports.Entry{}, ports.ErrNotFound
			},
			local: func(id ports.PeerID) (ports.Entry, error) {
				if id != wanted {
					return ports.Entry{}, ports.ErrNotFound
				}
				return ports.Entry{PeerID: id, Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}, nil
			},
		}
		a := net.native(many[0], store)
		defer a.stop()
		var authors []*memory.Announcer
		for _, id := range many[3:103] {
			author := net.topic.Join(id)
			defer author.Close()
			authors = append(authors, author)
		}
		for i, id := range many[103:] {
			_ = authors[i%100].Announce(t.Context(), id)
		}
		_ = authors[0].Announce(t.Context(), wanted)
		synctest.Wait()
		if !a.lists(wanted) {
			t.Error("what the node holds itself waits for the network")
		}
	})
}

func TestMadeUpAuthorsBehindOneNeighbourAreOneAsker(t *testing.T) {
	one := domain.Neighbour(ports.Announcement{From: "a", Via: "b"})
	if another := domain.Neighbour(ports.Announcement{From: "c", Via: "b"}); another != one {
		t.Errorf("two authors behind one neighbour are two askers: %q and %q", one, another)
	}
	if itself := domain.Neighbour(ports.Announcement{From: "b", Via: "b"}); itself != "b" || itself == one {
		t.Errorf("a neighbour that says so itself is %q", itself)
	}
}

func TestWhatExpiresWhileItIsLookedUpStaysKnown(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		asked := 0
		a := net.native(id[0], &stubStore{get: func(ctx context.Context, id ports.PeerID) (ports.Entry, error) {
			if asked++; asked == 1 {
				return ports.Entry{PeerID: id, Addr: addr, ExpiresAt: time.Now().Add(66 * time.Second)}, nil
			}
			<-ctx.Done() // cut off: each look-up outlives the entry that it is for
			return ports.Entry{}, ports.ErrNotFound
		}})
		defer a.stop()
		b := net.topic.Join(id[1])
		defer b.Close()
		_ = b.Announce(t.Context(), id[2])
		time.Sleep(69 * time.Second)
		if live, known := a.Counts(); live != 0 || known != 1 {
			t.Errorf("after its deadline: live %d, known %d, want it known, to be looked up at the next ticks", live, known)
		}
		time.Sleep(65 * time.Second)
		if live, known := a.Counts(); live != 0 || known != 0 || len(a.Of(ports.EventForgotten)) != 1 {
			t.Errorf("two refreshes later: live %d, known %d, want it forgotten", live, known)
		}
	})
}

func TestTheOutboxFliesOnceAPeerIDAndOnlyTheNewest(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		type flight struct {
			at    time.Duration
			entry ports.Entry
		}
		var mu sync.Mutex
		var flights []flight
		began := time.Now()
		a := net.native(id[0], &stubStore{put: func(_ context.Context, e ports.Entry) (int, error) {
			mu.Lock()
			flights = append(flights, flight{time.Since(began), e})
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			return 1, nil
		}})
		defer a.stop()
		heard := make(chan ports.Announcement, 100)
		b := net.topic.Join(id[1])
		defer b.Close()
		if _, err := b.Listen(func(a ports.Announcement) { heard <- a }); err != nil {
			t.Fatal(err)
		}
		a.register(t, id[2], addr) // flies at once
		synctest.Wait()
		for i := range 50 { // while it flies: the newest waits, and follows a second later, for the address changed
			a.register(t, id[2], fmt.Sprintf("%s%d", addr, i))
		}
		time.Sleep(3 * time.Second)
		last := a.register(t, id[2], addr+"49") // unchanged: a sixth of a heartbeat after the flight before
		time.Sleep(20 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		var got []string
		for _, f := range flights {
			got = append(got, fmt.Sprint(f.at.Round(time.Second/10), " ", f.entry.Addr))
		}
		within := func(i int, since, least time.Duration) bool {
			d := flights[i].at - since
			return d >= least && d <= least+2100*time.Millisecond // a slot of the wheel and a sweep
		}
		if len(got) != 3 || got[0] != "0s "+addr || flights[1].entry.Addr != addr+"49" || !within(1, 0, time.Second) || !within(2, flights[1].at, 10*time.Second) {
			t.Errorf("flights are %v, want one at once, the newest address one to three seconds later, and the renewal ten after that", got)
		} else if !flights[2].entry.ExpiresAt.Equal(last.ExpiresAt) {
			t.Errorf("the last flight ends at %v, want that of the last lease, %v", flights[2].entry.ExpiresAt, last.ExpiresAt)
		}
		if len(heard) != 3 {
			t.Errorf("%d announcements, want one a flight", len(heard))
		}
	})
}

func TestAHungStoreDelaysNoAnswerAndNoNews(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(20)
		a := net.native(id[0], &stubStore{put: func(ctx context.Context, _ ports.Entry) (int, error) {
			<-ctx.Done()
			return 0, nil
		}})
		defer a.stop()
		b := net.topic.Join(id[1])
		defer b.Close()
		began := time.Now()
		var mu sync.Mutex
		heard := map[ports.PeerID]time.Duration{}
		if _, err := b.Listen(func(a ports.Announcement) {
			mu.Lock()
			defer mu.Unlock()
			heard[a.PeerID] = time.Since(began)
		}); err != nil {
			t.Fatal(err)
		}
		for _, id := range id[2:] {
			a.register(t, id, addr)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the answers took %v", took)
		}
		time.Sleep(4 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		for _, id := range id[2:] {
			if heard[id] != 250*time.Millisecond {
				t.Errorf("%s was announced after %v, want 250ms", id, heard[id])
			}
		}
		for _, e := range a.Of(ports.EventPut) {
			if e.Took != 3*time.Second {
				t.Errorf("a put took %v, want its deadline, 3s", e.Took)
			}
		}
	})
}

func TestAFailedPutIsTriedAgainWhileTheEntryLives(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(2)
		var tried []time.Duration
		began := time.Now()
		a := net.native(id[0], &stubStore{put: func(context.Context, ports.Entry) (int, error) {
			tried = append(tried, time.Since(began))
			return 0, errors.New("disk full")
		}})
		lease := a.register(t, id[1], addr)
		time.Sleep(5 * time.Minute)
		a.stop()
		if len(tried) < 5 || len(tried) > 10 || began.Add(tried[len(tried)-1]).After(lease.ExpiresAt) {
			t.Errorf("tried at %v, want some five to ten times before %v", tried, lease.TTL)
		}
	})
}

func TestWhatHadNoReplicaIsPutAgainWhenAnotherNodeJoins(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(5)
		a := net.native(id[0], nil)
		defer a.stop()
		for _, id := range id[1:4] {
			a.register(t, id, addr)
		}
		synctest.Wait()
		for _, e := range a.Of(ports.EventPut) {
			if e.Err != nil || e.Replicas != 0 {
				t.Errorf("a lone put is %+v, want no replica and no error", e)
			}
		}
		late := net.native(id[4], nil)
		defer late.stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if got := a.Of(ports.EventPut); len(got) != 6 || got[5].Replicas != 1 {
			t.Errorf("puts are %+v, want three alone and three with a replica", got)
		}
		if live, _ := late.Counts(); live != 3 {
			t.Errorf("the late native lists %d, want 3", live)
		}
	})
}

func TestWhatFlewJustBeforeANodeJoinedFliesOnceMore(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(5)
		a, b := net.native(id[0], nil), net.native(id[1], nil)
		defer a.stop()
		defer b.stop()
		time.Sleep(2 * time.Second) // b is no newcomer any more
		a.register(t, id[2], addr)
		time.Sleep(20 * time.Second)
		a.register(t, id[3], addr)
		time.Sleep(5 * time.Second)
		late := net.native(id[4], nil) // it heard neither
		defer late.stop()
		time.Sleep(9 * time.Second)
		if late.lists(id[2]) || !late.lists(id[3]) {
			t.Errorf("what flew long ago is listed: %v, what flew just now: %v; want only the latter, until the next heartbeat", late.lists(id[2]), late.lists(id[3]))
		}
		time.Sleep(20 * time.Second)
		if n := len(a.Of(ports.EventPut)); n != 3 {
			t.Errorf("%d puts, want one each and one more", n)
		}
	})
}

func TestRefusalsChangeNothing(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(3)
		a := net.native(id[0], nil)
		defer a.stop()
		a.register(t, id[1], addr)
		before, _ := a.Get(id[1])
		long := strings.Repeat("a", 300)
		nine := slices.Repeat([]string{addr}, 9)
		for _, c := range []struct {
			name   string
			sender ports.PeerID
			reg    ports.Registration
			want   ports.Code
		}{
			{"another's identity", id[2], ports.Registration{PeerID: id[1], Addr: addr}, ports.CodePeerMismatch},
			{"no address", id[1], ports.Registration{PeerID: id[1]}, ports.CodeAddrInvalid},
			{"a bad address", id[1], ports.Registration{PeerID: id[1], Addr: "nowhere"}, ports.CodeAddrInvalid},
			{"a long address", id[1], ports.Registration{PeerID: id[1], Addr: "/" + long}, ports.CodeAddrInvalid},
			{"nine addresses", id[1], ports.Registration{PeerID: id[1], Addr: addr, Addrs: nine}, ports.CodeAddrInvalid},
			{"another first address", id[1], ports.Registration{PeerID: id[1], Addr: addr, Addrs: []string{"/ip4/10.0.0.1/tcp/1"}}, ports.CodeAddrInvalid},
			{"a bad second address", id[1], ports.Registration{PeerID: id[1], Addr: addr, Addrs: []string{addr, "nowhere"}}, ports.CodeAddrInvalid},
			{"much metadata", id[1], ports.Registration{PeerID: id[1], Addr: addr, Meta: map[string]string{"k": strings.Repeat("a", 1024)}}, ports.CodeTooLarge},
			{"much metadata and a bad address", id[1], ports.Registration{PeerID: id[1], Addr: "nowhere", Meta: map[string]string{"k": strings.Repeat("a", 1024)}}, ports.CodeTooLarge},
		} {
			_, err := a.Register(t.Context(), c.sender, c.reg)
			var refusal *ports.Refusal
			if !errors.As(err, &refusal) || refusal.Code != c.want {
				t.Errorf("%s: %v, want %s", c.name, err, c.want)
			}
			if after, ok := a.Get(id[1]); !ok || after.Addr != before.Addr || !after.ExpiresAt.Equal(before.ExpiresAt) {
				t.Errorf("%s: what was registered before is now %+v", c.name, after)
			}
		}
		if live, known := a.Counts(); live != 1 || known != 1 || len(a.Of(ports.EventRefused)) != 9 {
			t.Errorf("live %d, known %d, refused %d", live, known, len(a.Of(ports.EventRefused)))
		}
	})
}

func TestTheRegistryAgreesWithAModel(t *testing.T) {
	id := peerIDs(20)
	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			wait  time.Duration
			who   int
			addr  string
			heard bool
		}
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				wait:  time.Duration(rapid.IntRange(0, 40_000).Draw(t, "ms")) * time.Millisecond,
				who:   rapid.IntRange(2, 9).Draw(t, "who"),
				addr:  rapid.SampledFrom([]string{addr, addr + "1", "nowhere"}).Draw(t, "addr"),
				heard: rapid.Bool().Draw(t, "heard"),
			}
		}), 1, 40).Draw(rt, "steps")
		wrong := "" // rapid's own failing panics in a bubble
		porttest.FakeTime(t, func(t *testing.T) {
			net := newNetwork(t)
			a, b := net.native(id[0], nil), net.native(id[1], nil)
			defer a.stop()
			defer b.stop()
			type lease struct {
				addr     string
				deadline time.Time
			}
			model := map[ports.PeerID]lease{}
			for _, s := range steps {
				time.Sleep(s.wait)
				at := a
				if s.heard {
					at = b
				}
				granted, err := at.Register(t.Context(), id[s.who], ports.Registration{PeerID: id[s.who], Addr: s.addr})
				if (err == nil) != (s.addr != "nowhere") {
					wrong = fmt.Sprintf("register at %s: %v", s.addr, err)
				}
				if err == nil {
					model[id[s.who]] = lease{s.addr, granted.ExpiresAt}
				}
				synctest.Wait()
				var want []ports.PeerID
				for id, l := range model {
					if time.Now().Before(l.deadline) {
						want = append(want, id)
					}
				}
				slices.Sort(want)
				if page, _ := at.Page("", 100); !slices.EqualFunc(page, want, func(l ports.Listed, id ports.PeerID) bool { return l.PeerID == id }) {
					wrong = fmt.Sprintf("listed %v, want %v", page, want)
				}
				if got, ok := at.Get(id[s.who]); err == nil && (!ok || got.Addr != s.addr) {
					wrong = fmt.Sprintf("listed %+v, want %s", got, s.addr)
				}
				if wrong != "" {
					return
				}
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func TestPagesCoverTheTableOnceInOrder(t *testing.T) {
	many := peerIDs(2500)
	withNetwork(t, func(t *testing.T, net *network) {
		a := net.native(many[0], nil)
		defer a.stop()
		for _, id := range many[1:] {
			a.register(t, id, addr)
		}
		want := slices.Sorted(slices.Values(many[1:]))
		for _, limit := range []int{1, 100, 833, ports.MaxPage} {
			var got []ports.PeerID
			for after, more := ports.PeerID(""), true; more; more = after != "" {
				var page []ports.Listed
				page, after = a.Page(after, limit)
				if len(page) > limit || after != "" && len(page) != limit {
					t.Fatalf("a page of %d, limit %d, next %q", len(page), limit, after)
				}
				for _, l := range page {
					got = append(got, l.PeerID)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("limit %d: %d entries, want %d in order", limit, len(got), len(want))
			}
		}
	})
}

func TestRegistrationsWhileItStopsAreAnswered(t *testing.T) {
	ids := peerIDs(200)
	net := newNetwork(t)
	for range 20 {
		n := net.start(ids[0], nil)
		var hammers sync.WaitGroup
		for h := range 4 {
			hammers.Go(func() {
				for i := range 100 {
					id := ids[1+(i+h*50)%199]
					if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err != nil {
						t.Error(err)
					}
					if i == 50 && h == 0 {
						go n.stop()
					}
				}
			})
		}
		hammers.Wait()
		n.stop()
	}
}

func TestHammeredConcurrentlyNothingIsLost(t *testing.T) {
	ids := peerIDs(200)
	net := newNetwork(t)
	n := net.start(ids[0], nil)
	defer n.stop()
	var hammers sync.WaitGroup
	for h := range 8 {
		hammers.Go(func() {
			for i := range 500 {
				id := ids[1+(i*7+h)%199]
				if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: fmt.Sprintf("%s%d", addr, i%3)}); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					n.Page("", 50)
					n.Counts()
					n.Sweep()
				}
			}
		})
	}
	hammers.Wait()
	if live, _ := n.Counts(); live != 199 {
		t.Errorf("%d live, want 199", live)
	}
}
