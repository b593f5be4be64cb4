package porttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// TTL is the longest life of an entry by the Store suite's rule.
const TTL = 66 * time.Second

// Patience bounds the waits of tests; only a failure takes so long.
const Patience = time.Minute

// peerIDs are real identities with unknown keys.
var peerIDs = []ports.PeerID{
	"12D3KooWLvzNYpiNGTXEchshJ3xyCnJ4H2Cgn7BNyvGrPsGL8utg",
	"12D3KooWFgkAgQgn6NRP6QTSnwsVnJjW8ABodhmr5a8wMJMY82Vu",
	"12D3KooWKFcPiJ3sncMtS3b3VEcwWTDP4NANq8YoNTqvqJTW18cR",
}

// notPeerIDs are texts that an adapter must not take for a PeerID: the third is the first of
// peerIDs in another spelling.
var notPeerIDs = []ports.PeerID{
	"",
	"indexer-1",
	"bafzaajaiaejcbjjc7h6k6zu7l674egk5h3imvqpnqrkzpys4z7ewaifc5vojpzjn",
	ports.PeerID(strings.Repeat("1", 1000)),
}

// ClosableStore is a Store with an end.
type ClosableStore interface {
	ports.Store
	Close() error
}

// Store tests the promises of ports.Store for a store with a network; LocalStore is for a store
// without. network makes an empty network whose nodes all accept entries by the rule accept.
// join adds a node to it, and returns once the node and the earlier nodes know each other. The
// adapter's test closes join's nodes when the test ends.
func Store(t *testing.T, network func(t *testing.T, accept func(*ports.Entry) error) (join func() ClosableStore)) {
	testStore(t, func(t *testing.T, s *storeTest) { s.join = network(t, s.accept) })
}

// LocalStore tests the promises of ports.Store for a store without a network, whose Joined
// returns nil. It runs every test of Store with one node in place of several: no other node
// takes an entry, and the promises to each node hold on this node. open makes an empty store
// that accepts entries by the rule accept. The adapter's test closes it when the test ends.
func LocalStore(t *testing.T, open func(t *testing.T, accept func(*ports.Entry) error) ClosableStore) {
	testStore(t, func(t *testing.T, s *storeTest) {
		s.local = true
		s.join = sync.OnceValue(func() ClosableStore { return open(t, s.accept) })
	})
}

func testStore(t *testing.T, prepare func(*testing.T, *storeTest)) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *storeTest)
	}{
		{"every node gets the whole entry that a node puts", storeGetsWhatWasPut},
		{"a put returns the number of other nodes that took the entry", storeCountsReplicas},
		{"a lone node stores an entry without a replica and without an error", storeAlone},
		{"Joined signals when an entry without a replica can be put again", storeJoined},
		{"an entry may be stored between now and TTL and allowance, and at no other time", storeRefusesUnacceptable},
		{"a text that is no PeerID is refused", storeRefusesPeerID},
		{"an entry is dead at its deadline, not before", storeDeadline},
		{"a get returns only an entry newer than the caller's", storeNewerThan},
		{"a node finds its own entries without a request", storeLocal},
		{"a put that loses to a newer entry is a success and changes nothing", storeOlderLoses},
		{"a put again of the same entry is a success", storePutAgain},
		{"a leave beats the entry that ends when it does, whichever comes first, and nothing later", storeLeave},
		{"to a get, a leave is newer than the entry that ends when it does", storeLeaveIsNewer},
		{"an entry that was never put is not found", storeUnknown},
		{"a store keeps no reference to an entry, and the caller owns the result of a get", storeOwnership},
		{"when the context has ended, a node still stores and answers from its own entries", storeEndedContext},
		{"a closed store returns errors", storeClosed},
		{"all methods may be called concurrently", storeConcurrency},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &storeTest{now: time.Now().UTC().Round(0)}
			prepare(t, s)
			test.run(t, s)
		})
	}
}

func storeLocal(t *testing.T, s *storeTest) {
	a, e := s.join(), s.entry(peerIDs[0], TTL)
	s.put(t, a, e)
	got, err := a.Local(e.PeerID, ports.Version{})
	if err != nil || !reflect.DeepEqual(got, e) {
		t.Errorf("got %+v, %v; want %+v", got, err, e)
	}
	for name, err := range map[string]error{
		"an entry that is not newer":  second(a.Local(e.PeerID, e.Version())),
		"an entry that was never put": second(a.Local(peerIDs[1], ports.Version{})),
	} {
		if !errors.Is(err, ports.ErrNotFound) {
			t.Errorf("%s: %v; want ErrNotFound", name, err)
		}
	}
	s.setClock(e.ExpiresAt)
	if _, err := a.Local(e.PeerID, ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
		t.Errorf("an expired entry: %v; want ErrNotFound", err)
	}
}

func second(_ ports.Entry, err error) error { return err }

// storeTest is a network, the clock of its rule, and its join. In a local network, each join
// returns the only store.
type storeTest struct {
	join  func() ClosableStore
	local bool
	mu    sync.Mutex
	now   time.Time
}

// others returns the number of other nodes after n more joins than the first.
func (s *storeTest) others(n int) int {
	if s.local {
		return 0
	}
	return n
}

func (s *storeTest) accept(e *ports.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.now.Before(e.ExpiresAt) {
		return errors.New("expired")
	}
	if e.ExpiresAt.After(s.now.Add(TTL + ports.ClockAllowance)) {
		return errors.New("too far in the future")
	}
	return nil
}

func (s *storeTest) setClock(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

// entry returns an entry with all fields set that expires in remaining.
func (s *storeTest) entry(id ports.PeerID, remaining time.Duration) ports.Entry {
	return ports.Entry{
		PeerID:    id,
		Addr:      "/ip4/192.0.2.1/tcp/4001",
		Addrs:     []string{"/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.2/tcp/4001"},
		Meta:      map[string]string{"zone": "eu-1"},
		Native:    peerIDs[len(peerIDs)-1],
		SeenAt:    s.now,
		ExpiresAt: s.now.Add(remaining),
	}
}

// put puts e, expects success, and returns the number of replicas.
func (s *storeTest) put(t *testing.T, store ports.Store, e ports.Entry) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	replicas, err := store.Put(ctx, e)
	if err != nil {
		t.Fatalf("put of an entry until %v: %v", e.ExpiresAt, err)
	}
	return replicas
}

// expect gets id and expects the entry want, or ErrNotFound if want is nil.
func (s *storeTest) expect(t *testing.T, store ports.Store, id ports.PeerID, newerThan ports.Version, want *ports.Entry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	got, err := store.Get(ctx, id, newerThan)
	switch {
	case want == nil && !errors.Is(err, ports.ErrNotFound):
		t.Errorf("got %+v, error %v; want ErrNotFound", got, err)
	case want != nil && err != nil:
		t.Errorf("got error %v; want %+v", err, *want)
	case want != nil && !sameEntry(got, *want):
		t.Errorf("got  %+v\nwant %+v", got, *want)
	}
}

func sameEntry(a, b ports.Entry) bool {
	if !a.ExpiresAt.Equal(b.ExpiresAt) || !a.SeenAt.Equal(b.SeenAt) {
		return false
	}
	a.ExpiresAt, a.SeenAt = b.ExpiresAt, b.SeenAt
	return reflect.DeepEqual(a, b)
}

func storeGetsWhatWasPut(t *testing.T, s *storeTest) {
	a, b, c := s.join(), s.join(), s.join()
	full := s.entry(peerIDs[0], TTL)
	plain := ports.Entry{PeerID: peerIDs[1], Addr: "/ip4/192.0.2.7/tcp/4001", ExpiresAt: s.now.Add(TTL)}
	s.put(t, a, full)
	s.put(t, b, plain)
	for _, store := range []ports.Store{a, b, c} {
		s.expect(t, store, full.PeerID, ports.Version{}, &full)
		s.expect(t, store, plain.PeerID, ports.Version{}, &plain)
	}
}

func storeCountsReplicas(t *testing.T, s *storeTest) {
	a, _, _ := s.join(), s.join(), s.join()
	if got, want := s.put(t, a, s.entry(peerIDs[0], TTL)), s.others(2); got != want {
		t.Errorf("got %d replicas; want %d, one at each other node", got, want)
	}
}

func storeAlone(t *testing.T, s *storeTest) {
	lone := s.join()
	e := s.entry(peerIDs[0], TTL)
	if got := s.put(t, lone, e); got != 0 {
		t.Errorf("got %d replicas; want none", got)
	}
	s.expect(t, lone, e.PeerID, ports.Version{}, &e)
	s.expect(t, lone, peerIDs[1], ports.Version{}, nil)
}

func storeJoined(t *testing.T, s *storeTest) {
	first := s.join()
	e := s.entry(peerIDs[0], TTL)
	s.put(t, first, e)
	if noNetwork := first.Joined() == nil; noNetwork != s.local {
		t.Fatalf("Joined is nil: %v; it is for a store without a network, which LocalStore tests, and for no other", noNetwork)
	}
	select {
	case <-first.Joined():
		t.Error("Joined fired for a lone node")
	default:
	}
	if s.local {
		return
	}
	second := s.join()
	select {
	case _, ok := <-first.Joined():
		if !ok {
			t.Fatal("Joined is closed")
		}
	case <-time.After(Patience):
		t.Fatal("a node joined, and Joined did not fire")
	}
	if got := s.put(t, first, e); got != 1 {
		t.Errorf("put again: got %d replicas; want 1", got)
	}
	s.expect(t, second, e.PeerID, ports.Version{}, &e)
	if joined := first.Joined(); first.Joined() != joined {
		t.Error("Joined returned two channels")
	}
}

func storeRefusesUnacceptable(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	latest := TTL + ports.ClockAllowance
	for _, test := range []struct {
		name       string
		remaining  time.Duration
		acceptable bool
	}{
		{"already expired", -time.Second, false},
		{"expires now", 0, false},
		{"expires in an instant", time.Nanosecond, true},
		{"expires as late as allowed", latest, true},
		{"expires an instant too late", latest + time.Nanosecond, false},
		{"expires in a century", 100 * 365 * 24 * time.Hour, false},
	} {
		id := peerIDs[0]
		if test.acceptable {
			id = peerIDs[1]
		}
		e := s.entry(id, test.remaining)
		_, err := a.Put(t.Context(), e)
		if accepted := err == nil; accepted != test.acceptable {
			t.Errorf("%s: put returned error %v; acceptable: %v", test.name, err, test.acceptable)
		}
		if test.acceptable {
			s.expect(t, a, id, ports.Version{}, &e)
			s.expect(t, b, id, ports.Version{}, &e)
		}
	}
	s.expect(t, a, peerIDs[0], ports.Version{}, nil)
	s.expect(t, b, peerIDs[0], ports.Version{}, nil)
}

func storeRefusesPeerID(t *testing.T, s *storeTest) {
	store := s.join()
	for _, id := range notPeerIDs {
		if _, err := store.Put(t.Context(), s.entry(id, TTL)); err == nil {
			t.Errorf("put of %.80q: no error", id)
		}
		s.expect(t, store, id, ports.Version{}, nil)
	}
}

func storeDeadline(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	e := s.entry(peerIDs[0], TTL)
	s.put(t, a, e)
	for _, at := range []struct {
		offset time.Duration
		want   *ports.Entry
	}{{-time.Nanosecond, &e}, {0, nil}, {time.Nanosecond, nil}, {time.Hour, nil}} {
		s.setClock(e.ExpiresAt.Add(at.offset))
		for _, store := range []ports.Store{a, b} {
			s.expect(t, store, e.PeerID, ports.Version{}, at.want)
		}
	}
}

// ending is the version of a bare entry that ends at t.
func ending(t time.Time) ports.Version { return ports.Version{ExpiresAt: t} }

func storeNewerThan(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	old, renewed := s.entry(peerIDs[0], TTL), s.entry(peerIDs[0], TTL+time.Second)
	s.put(t, a, old)
	for _, store := range []ports.Store{a, b} {
		s.expect(t, store, old.PeerID, ending(old.ExpiresAt.Add(-time.Nanosecond)), &old)
		s.expect(t, store, old.PeerID, ending(old.ExpiresAt), nil)
		s.expect(t, store, old.PeerID, ending(old.ExpiresAt.Add(time.Nanosecond)), nil)
	}
	s.put(t, b, renewed)
	for _, store := range []ports.Store{a, b} {
		s.expect(t, store, old.PeerID, ending(old.ExpiresAt), &renewed)
		s.expect(t, store, old.PeerID, ending(renewed.ExpiresAt), nil)
	}
}

func storeOlderLoses(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	older, newer := s.entry(peerIDs[0], TTL-time.Nanosecond), s.entry(peerIDs[0], TTL)
	s.put(t, a, newer)
	for _, store := range []ports.Store{a, b} {
		if got := s.put(t, store, older); got != 0 {
			t.Errorf("%d nodes took an entry in place of a newer one", got)
		}
	}
	for _, store := range []ports.Store{a, b} {
		s.expect(t, store, newer.PeerID, ports.Version{}, &newer)
	}
}

func storePutAgain(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	e := s.entry(peerIDs[0], TTL)
	for range 3 {
		if got, want := s.put(t, a, e), s.others(1); got != want {
			t.Errorf("got %d replicas; want %d", got, want)
		}
	}
	s.expect(t, b, e.PeerID, ports.Version{}, &e)
}

// leave returns the leave of e's indexer, with e's deadline and no address.
func (s *storeTest) leave(e ports.Entry) ports.Entry {
	return ports.Entry{PeerID: e.PeerID, Native: e.Native, SeenAt: e.SeenAt, ExpiresAt: e.ExpiresAt, Leave: true}
}

func storeLeave(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	everywhere := func(want ports.Entry) {
		t.Helper()
		for _, store := range []ports.Store{a, b} {
			s.expect(t, store, want.PeerID, ports.Version{}, &want)
			if got, err := store.Local(want.PeerID, ports.Version{}); err != nil || !sameEntry(got, want) {
				t.Errorf("on its own, a node answers %+v, %v; want %+v", got, err, want)
			}
		}
	}
	first, e := s.entry(peerIDs[1], TTL), s.entry(peerIDs[0], TTL)
	leave := s.leave(e)
	s.put(t, a, e)
	s.put(t, b, leave)
	everywhere(leave)
	for _, store := range []ports.Store{a, b} {
		if got := s.put(t, store, e); got != 0 {
			t.Errorf("%d nodes took an entry in place of its leave", got)
		}
		s.put(t, store, s.entry(e.PeerID, TTL-time.Nanosecond))
	}
	everywhere(leave)
	again := s.entry(e.PeerID, TTL+time.Nanosecond)
	s.put(t, a, again)
	everywhere(again)
	s.put(t, b, leave)
	everywhere(again)

	s.put(t, a, s.leave(first)) // before the entry that it ends
	s.put(t, b, first)
	everywhere(s.leave(first))
}

func storeLeaveIsNewer(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	e := s.entry(peerIDs[0], TTL)
	leave := s.leave(e)
	s.put(t, a, leave)
	for _, store := range []ports.Store{a, b} {
		s.expect(t, store, e.PeerID, ending(e.ExpiresAt.Add(-time.Nanosecond)), &leave)
		s.expect(t, store, e.PeerID, ending(e.ExpiresAt), &leave)
		s.expect(t, store, e.PeerID, ending(e.ExpiresAt.Add(time.Nanosecond)), nil)
	}
	s.setClock(e.ExpiresAt)
	s.expect(t, a, e.PeerID, ports.Version{}, nil)
}

func storeUnknown(t *testing.T, s *storeTest) {
	a, _ := s.join(), s.join()
	s.put(t, a, s.entry(peerIDs[0], TTL))
	s.expect(t, a, peerIDs[1], ports.Version{}, nil)
}

func storeOwnership(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	want := s.entry(peerIDs[0], TTL)
	spoil := func(e ports.Entry) {
		e.Addrs[0], e.Meta["zone"] = "spoilt", "spoilt"
	}
	put := s.entry(peerIDs[0], TTL)
	s.put(t, a, put)
	spoil(put)
	for _, store := range []ports.Store{a, b} {
		got, err := store.Get(t.Context(), want.PeerID, ports.Version{})
		if err != nil {
			t.Fatal(err)
		}
		spoil(got)
		s.expect(t, store, want.PeerID, ports.Version{}, &want)
	}
}

func storeEndedContext(t *testing.T, s *storeTest) {
	a, _ := s.join(), s.join()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	e := s.entry(peerIDs[0], TTL)
	if _, err := a.Put(ended, e); err != nil {
		t.Errorf("put: %v", err)
	}
	if got, err := a.Get(ended, e.PeerID, ports.Version{}); err != nil || !sameEntry(got, e) {
		t.Errorf("get of an entry that the node holds: %+v, %v", got, err)
	}
	if got, err := a.Get(ended, peerIDs[1], ports.Version{}); !errors.Is(err, ports.ErrNotFound) {
		t.Errorf("get of an entry that it does not hold: %+v, %v; want ErrNotFound", got, err)
	}
}

func storeClosed(t *testing.T, s *storeTest) {
	a, b := s.join(), s.join()
	e := s.entry(peerIDs[0], TTL)
	s.put(t, a, e)
	if err := a.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if _, err := a.Put(t.Context(), e); err == nil {
		t.Error("put on a closed store: no error")
	}
	if _, err := a.Get(t.Context(), e.PeerID, ports.Version{}); err == nil {
		t.Error("get on a closed store: no error")
	}
	if err := a.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	if !s.local {
		s.expect(t, b, e.PeerID, ports.Version{}, &e)
	}
}

func storeConcurrency(t *testing.T, s *storeTest) {
	const writers, puts = 8, 20
	a, b := s.join(), s.join()
	stores := []ports.Store{a, b}
	ids := peerIDs[:2]

	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			for i := range puts {
				// The writers' entries are interleaved and out of order.
				step := (i*7%puts)*writers + w
				e := s.entry(ids[step%2], TTL+time.Duration(step)*time.Millisecond)
				if _, err := stores[w/2%2].Put(t.Context(), e); err != nil {
					t.Errorf("put: %v", err)
				}
				got, err := stores[i%2].Get(t.Context(), e.PeerID, ports.Version{})
				if err != nil && !errors.Is(err, ports.ErrNotFound) || err == nil && got.PeerID != e.PeerID {
					t.Errorf("get of %s: entry of %q, error %v", e.PeerID, got.PeerID, err)
				}
			}
		})
	}
	running.Wait()
	for i, id := range ids {
		last := s.entry(id, TTL+time.Duration(writers*puts-2+i)*time.Millisecond)
		for n, store := range stores {
			t.Run(fmt.Sprintf("the last entry wins on node %d for PeerID %d", n, i), func(t *testing.T) {
				s.expect(t, store, id, ports.Version{}, &last)
			})
		}
	}
}
