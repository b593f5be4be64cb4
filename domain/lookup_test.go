package domain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

func TestWhoIsNotHeldIsLookedUpInTheStoreForWhoeverAsks(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		id := peerIDs(6)
		var mu sync.Mutex
		var asked []ports.PeerID
		a := net.native(id[0], &stubStore{get: func(_ context.Context, of ports.PeerID) (ports.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, of)
			if of == id[2] {
				return entryOf(of, id[1]), nil
			}
			return ports.Entry{}, ports.ErrNotFound
		}, put: func(context.Context, ports.Entry) (int, error) { return 1, nil }})
		defer a.stop()
		a.register(t, id[4], addr)
		so := func() []ports.PeerID {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asked)
		}

		for range 3 {
			got, err := a.LookUp(t.Context(), id[5], id[2])
			if err != nil || got.PeerID != id[2] || got.Source != ports.SourceStore || got.Remaining != time.Minute || got.Native != id[1] {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		for range 3 {
			if got, err := a.LookUp(t.Context(), id[5], id[3]); !errors.Is(err, ports.ErrNotFound) {
				t.Errorf("of nobody: %+v, %v", got, err)
			}
		}
		if got, err := a.LookUp(t.Context(), id[5], id[4]); err != nil || got.Source != ports.SourceOwn {
			t.Errorf("who is held: %+v, %v", got, err)
		}
		if !slices.Equal(so(), []ports.PeerID{id[2], id[3]}) {
			t.Errorf("the store was asked for %v, want each once", so())
		}
		// Nobody is remembered as absent for long, nor once there is a registration.
		time.Sleep(5 * time.Second)
		_, _ = a.LookUp(t.Context(), id[5], id[3])
		if n := len(so()); n != 3 {
			t.Errorf("after 5 s the store was asked %d times, want once more", n)
		}
		a.register(t, id[3], addr)
		if _, err := a.LookUp(t.Context(), id[5], id[3]); err != nil {
			t.Errorf("who has just come: %v", err)
		}
		// An indexer that left is not looked up: the store has what was granted before.
		if err := a.Leave(t.Context(), id[3], nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.LookUp(t.Context(), id[5], id[3]); !errors.Is(err, ports.ErrNotFound) || len(so()) != 3 {
			t.Errorf("who left: %v, and the store was asked %d times", err, len(so()))
		}
		// An indexer at its deadline is not found.
		time.Sleep(time.Minute)
		if got, err := a.LookUp(t.Context(), id[5], id[4]); err != nil || got.State != ports.StateLate {
			t.Errorf("who is late: %+v, %v", got, err)
		}
		time.Sleep(time.Second)
		if _, err := a.LookUp(t.Context(), id[5], id[4]); !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("who has expired: %v", err)
		}
	})
}

func TestLookUpsForOthersAreBounded(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		many := peerIDs(80)
		running, most := 0, 0
		var mu sync.Mutex
		a := net.native(many[0], &stubStore{get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			running--
			mu.Unlock()
			return ports.Entry{}, ports.ErrNotFound
		}})
		defer a.stop()
		var asking sync.WaitGroup
		busy := make([]int, 4)
		ask := func(asker int, id ports.PeerID) {
			asking.Go(func() {
				_, err := a.LookUp(t.Context(), many[1+asker], id)
				var refusal *ports.Refusal
				if errors.As(err, &refusal) && refusal.Code == ports.CodeBusy {
					mu.Lock()
					busy[(asker+4)%4]++
					mu.Unlock()
				} else if !errors.Is(err, ports.ErrNotFound) {
					t.Errorf("%v", err)
				}
			})
		}
		for _, id := range many[10:30] {
			ask(0, id) // a stranger with twenty names
		}
		synctest.Wait()
		for range 10 {
			ask(1, many[40]) // ten callers at once, for a single PeerID
		}
		synctest.Wait()
		if busy[0] != 16 || busy[1] != 0 || most != 5 {
			t.Errorf("refused were %v and %d ran at once, want 16 of the first and 5", busy, most)
		}
		for _, id := range many[41:60] {
			ask(2, id)
		}
		asking.Wait()
		if busy[2] != 15 || most > 16 {
			t.Errorf("refused were %v and %d ran at once", busy, most)
		}
		for _, id := range many[60:] {
			ask(-1, id) // this native itself, for HTTP
		}
		asking.Wait()
		if busy[3] != 12 {
			t.Errorf("of its own, refused were %d, want 12", busy[3])
		}
	})
}

func TestBeforeItRunsANativeLooksNobodyUp(t *testing.T) {
	r := newTable(t, domain.DefaultTTLPolicy(), &stubStore{}, nil)
	_, err := r.LookUp(t.Context(), "", "nobody")
	var refusal *ports.Refusal
	if !errors.As(err, &refusal) || refusal.Code != ports.CodeBusy {
		t.Errorf("got %v, want %s", err, ports.CodeBusy)
	}
}

func TestPagesAreFilteredByMetadata(t *testing.T) {
	many := peerIDs(2500)
	withNetwork(t, func(t *testing.T, net *network) {
		a := net.native(many[0], nil)
		defer a.stop()
		var want []ports.PeerID
		for i, id := range many[1:] {
			meta := map[string]string{"zone": fmt.Sprint("eu-", i%3), "n": fmt.Sprint(i)}
			if _, err := a.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr, Meta: meta}); err != nil {
				t.Fatal(err)
			}
			if i%3 == 1 {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		list := func(q ports.Query) (all []ports.PeerID) {
			for {
				page, err := a.List(t.Context(), "", q)
				if err != nil || len(page.Entries) > q.Limit {
					t.Fatalf("a page of %d, limit %d: %v", len(page.Entries), q.Limit, err)
				}
				for _, l := range page.Entries {
					all = append(all, l.PeerID)
				}
				if page.Next == "" {
					return all
				}
				q.After = page.Next
			}
		}
		for _, limit := range []int{1, 7, 1000} {
			if got := list(ports.Query{Limit: limit, Meta: map[string]string{"zone": "eu-1"}}); !slices.Equal(got, want) {
				t.Errorf("limit %d: %d of %d, or not in order", limit, len(got), len(want))
			}
		}
		for name, meta := range map[string]map[string]string{
			"another value": {"zone": "eu-9"}, "no such name": {"zoo": ""}, "both": {"zone": "eu-1", "n": "3"},
		} {
			if got := list(ports.Query{Limit: 100, Meta: meta}); len(got) != 0 {
				t.Errorf("%s: %d are listed", name, len(got))
			}
		}
		for _, limit := range []int{-1, ports.MaxPage + 1} {
			_, err := a.List(t.Context(), "", ports.Query{Limit: limit})
			var refusal *ports.Refusal
			if !errors.As(err, &refusal) || refusal.Code != ports.CodeOutOfRange {
				t.Errorf("limit %d: %v", limit, err)
			}
		}
		if page, err := a.List(t.Context(), "", ports.Query{}); err != nil || len(page.Entries) != ports.DefaultPage || page.Next == "" {
			t.Errorf("without a limit: %d, %v", len(page.Entries), err)
		}
	})
}

// How far one page looks is bounded: it may be short, and goes on from there.
func TestAPageLooksOnlySoFar(t *testing.T) {
	r := newTable(t, domain.DefaultTTLPolicy(), &stubStore{}, nil)
	const entries = 25_000
	for i := range entries {
		reg := registration(i)
		if i == entries-1 {
			reg.Meta = map[string]string{"the": "one"}
		}
		if _, err := r.Register(t.Context(), reg.PeerID, reg); err != nil {
			t.Fatal(err)
		}
	}
	pages, found := 0, 0
	for q := (ports.Query{Limit: 10, Meta: map[string]string{"the": "one"}}); ; pages++ {
		page, err := r.List(t.Context(), "", q)
		if err != nil {
			t.Fatal(err)
		}
		found += len(page.Entries)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if found != 1 || pages != 2 {
		t.Errorf("found %d on %d pages and a last one, want 1 on 2", found, pages)
	}
}

// fullNative is a native whose table is full of live leases, and what its store has of x.
type fullNative struct {
	*native
	x     *prooftest.Signer
	space *memory.Store // another native's place in the same space
	plain *plainSetting
	trust atomic.Bool // x is one of the indexers
	owns  []ports.PeerID
}

// fill registers indexers until the table takes no more.
func (n *fullNative) fill(t *testing.T) {
	t.Helper()
	for _, id := range n.owns {
		if _, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr}); err != nil {
			refusal, ok := errors.AsType[*ports.Refusal](err)
			if !ok || refusal.Code != ports.CodeBusy {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the table is not full")
}

// put has another native put e into the store.
func (n *fullNative) put(t *testing.T, e ports.Entry) {
	t.Helper()
	if _, err := n.space.Put(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

// says is an entry that x signs now.
func (n *fullNative) says(t *testing.T, start uint64) ports.Entry {
	e := n.x.Says(t, time.Now(), start, addr).Entry(0)
	e.Native = n.owns[0]
	return e
}

// A full table keeps no indexer from being found.
func TestAFullTableAnswersFromTheStore(t *testing.T) {
	const ttl = 66 * time.Second
	x := prooftest.NewSigner(t)
	for _, c := range []struct {
		name  string
		have  func(t *testing.T, n *fullNative)
		want  time.Duration // what is left; 0 is not found
		state ports.State
	}{
		{"a plain entry", func(t *testing.T, n *fullNative) {
			n.fill(t)
			n.put(t, entryOf(n.x.PeerID, n.owns[0]))
		}, time.Minute, ports.StateLive},
		{"a signed entry", func(t *testing.T, n *fullNative) {
			n.fill(t)
			n.put(t, n.says(t, 1))
		}, ttl, ports.StateLive},
		{"an entry whose heartbeat is overdue", func(t *testing.T, n *fullNative) {
			n.put(t, n.says(t, 1))
			time.Sleep(ttl - time.Second)
			n.fill(t)
		}, time.Second, ports.StateLate},
		{"nothing", func(t *testing.T, n *fullNative) { n.fill(t) }, 0, ""},
		{"a plain leave", func(t *testing.T, n *fullNative) {
			n.fill(t)
			e := entryOf(n.x.PeerID, n.owns[0])
			e.Leave = true
			n.put(t, e)
		}, 0, ""},
		{"a signed leave", func(t *testing.T, n *fullNative) {
			n.fill(t)
			word := n.x.Word(t, ports.Claim{PeerID: n.x.PeerID, Seq: time.Now().UnixMilli(), Start: 1, TTL: ttl}, nil)
			e := (&ports.Proof{Claim: &word.Claim}).Entry()
			e.Proof = &ports.Proof{Record: word.Record}
			n.put(t, e)
		}, 0, ""},
		{"an entry that has expired, whose record counts", func(t *testing.T, n *fullNative) {
			n.put(t, n.says(t, 1))
			time.Sleep(ttl)
			n.fill(t)
		}, 0, ""},
		{"a plain entry, where those are refused", func(t *testing.T, n *fullNative) {
			n.fill(t)
			n.put(t, entryOf(n.x.PeerID, n.owns[0]))
			n.plain.set(domain.PlainRefuse)
		}, 0, ""},
		{"a signed entry, where plain ones are refused", func(t *testing.T, n *fullNative) {
			n.fill(t)
			n.put(t, n.says(t, 1))
			n.plain.set(domain.PlainRefuse)
		}, ttl, ports.StateLive},
		{"an entry of a stranger to a closed network", func(t *testing.T, n *fullNative) {
			n.fill(t)
			n.put(t, n.says(t, 1))
			n.trust.Store(false)
		}, 0, ""},
		{"an older entry than a signed leave", func(t *testing.T, n *fullNative) {
			n.put(t, n.says(t, 1))
			time.Sleep(time.Second)
			if err := n.Leave(t.Context(), n.x.PeerID, n.x.Leaves(t, time.Now(), 1)); err != nil {
				t.Fatal(err)
			}
			n.fill(t)
		}, 0, ""},
		{"a newer entry than a signed leave", func(t *testing.T, n *fullNative) {
			if err := n.Leave(t.Context(), n.x.PeerID, n.x.Leaves(t, time.Now(), 1)); err != nil {
				t.Fatal(err)
			}
			n.fill(t)
			time.Sleep(time.Second)
			n.put(t, n.says(t, 2))
		}, ttl, ports.StateLive},
		{"an older entry than a record that is remembered", func(t *testing.T, n *fullNative) {
			old := n.x.Says(t, time.Now(), 1, addr)
			newer := n.x.Says(t, time.Now().Add(time.Millisecond), 2, addr)
			if _, err := n.Register(t.Context(), n.x.PeerID, newer.Registration(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(ttl + 2*time.Second)
			if n.Held() != 1 {
				t.Fatal("it is not remembered")
			}
			n.fill(t)
			n.put(t, old.Entry(1))
		}, 0, ""},
		{"a plain entry of an indexer that is remembered for its record", func(t *testing.T, n *fullNative) {
			if _, err := n.Register(t.Context(), n.x.PeerID, n.x.Says(t, time.Now(), 1, addr).Registration(0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(ttl + 2*time.Second)
			n.fill(t)
			n.put(t, entryOf(n.x.PeerID, n.owns[0]))
		}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			withNetwork(t, func(t *testing.T, net *network) {
				// The store accepts by the rules of these natives.
				net.rules.Clock, net.rules.Proofs = domain.NewClock(nil, nil), proof.NewVerifier()
				net.space = memory.NewSpace(net.rules.Acceptable)
				n := &fullNative{x: x, plain: &plainSetting{}, space: net.space.Join(), owns: peerIDs(20)[1:10]}
				n.trust.Store(true)
				net.settings.Bounds.Entries = 4
				net.rules.Plain = n.plain.now
				net.rules.Indexers = func(id ports.PeerID) bool { return id != x.PeerID || n.trust.Load() }
				n.native = net.native(peerIDs(1)[0], staleStore{net.space.Join()})
				defer n.stop()
				c.have(t, n)
				for range 2 {
					got, err := n.LookUp(t.Context(), peerIDs(20)[19], x.PeerID)
					if c.want == 0 {
						if !errors.Is(err, ports.ErrNotFound) {
							t.Errorf("got %+v, %v; want %v", got, err, ports.ErrNotFound)
						}
						continue
					}
					if err != nil || got.PeerID != x.PeerID || got.Addr != addr || got.Leave || got.Source != ports.SourceStore ||
						got.State != c.state || got.Remaining != c.want || !slices.Equal(got.Addrs, []string{addr}) {
						t.Errorf("got %+v, %v; want it %s from the store, with %v left", got, err, c.state, c.want)
					}
				}
			})
		})
	}
}

// A PeerID that is announced after it was not found is found at once, also by a native that has no
// room for it.
func TestNewsEndsANotFound(t *testing.T) {
	for _, entries := range []int{1, 4} {
		t.Run(fmt.Sprint("room for ", entries), func(t *testing.T) {
			withNetwork(t, func(t *testing.T, net *network) {
				id := peerIDs(4)
				net.settings.Bounds.Entries = entries
				a, b := net.native(id[0], nil), net.topic.Join(id[1])
				defer a.stop()
				defer b.Close()
				a.register(t, id[2], addr)
				synctest.Wait()
				if got, err := a.LookUp(t.Context(), "", id[3]); !errors.Is(err, ports.ErrNotFound) {
					t.Fatalf("got %+v, %v", got, err)
				}
				if _, err := net.space.Join().Put(t.Context(), entryOf(id[3], id[1])); err != nil {
					t.Fatal(err)
				}
				_ = b.Announce(t.Context(), id[3])
				synctest.Wait()
				if got, err := a.LookUp(t.Context(), "", id[3]); err != nil || got.PeerID != id[3] || got.Source != ports.SourceStore {
					t.Errorf("got %+v, %v", got, err)
				}
				if held := a.lists(id[3]); held != (entries > 1) {
					t.Errorf("the table has it: %v", held)
				}
			})
		})
	}
}

// Announcements of indexers that other natives tell meanwhile, as natives meet, wait for their look-ups. An
// indexer that is listed by then is not looked up.
func TestALookUpThatWaitedUntilItsIndexerIsToldIsNone(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		const announced, atOnce = 60, 8 // look-ups for one asker
		id := peerIDs(2 + announced)
		var asked atomic.Int64
		answer := make(chan struct{})
		store := &stubStore{get: func(ctx context.Context, _ ports.PeerID) (ports.Entry, error) {
			asked.Add(1)
			select {
			case <-answer:
			case <-ctx.Done():
			}
			return ports.Entry{}, ports.ErrNotFound
		}}
		a, b := net.native(id[0], store), net.topic.Join(id[1])
		defer a.stop()
		defer b.Close()
		for _, x := range id[2:] {
			_ = b.Announce(t.Context(), x)
		}
		synctest.Wait()
		if n := asked.Load(); n != atOnce {
			t.Fatalf("%d look-ups are under way, want %d", n, atOnce)
		}
		for _, x := range id[2:] {
			a.register(t, x, addr)
		}
		close(answer)
		time.Sleep(10 * time.Second)
		if n := asked.Load(); n != atOnce {
			t.Errorf("%d look-ups, though all but %d indexers were listed before their turn", n, atOnce)
		}
	})
}
