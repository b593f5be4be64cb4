package domain_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// Each indexer registers with one native alone, and does not notice that the native was away.
func TestANativeThatWasAwayListsWhatItGrantedBefore(t *testing.T) {
	keys := prooftest.NewSigners(t, 4)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(5)
		natives := net.natives(3, nativeOptions{})
		time.Sleep(time.Second)
		var all []*indexer
		for _, key := range keys {
			all = append(all, net.indexer(key, indexerOptions{addr: addr}, id[0]))
		}
		time.Sleep(70 * time.Second)
		natives[0].register(t, id[4], addr) // without a proof
		time.Sleep(2 * time.Second)
		before := map[ports.PeerID]ports.Listed{}
		for _, x := range all {
			before[x.id], _ = natives[1].Get(x.id)
		}
		natives[0].stop()
		all[0].kill()
		time.Sleep(3 * time.Second)
		if natives[1].lists(all[0].id) != natives[2].lists(all[0].id) {
			t.Fatal("the others differ")
		}
		back := net.native(id[0], nativeOptions{bootstrap: &bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2], Reachable: true}}})
		defer net.stop(back, natives[1], natives[2])
		if c := back.Condition(); c != "" {
			t.Errorf("with the tables of both others it is %q", c)
		}
		for _, x := range all {
			got, ok := back.Get(x.id)
			was := before[x.id]
			if !ok || got.Native != id[0] || got.Remaining > was.Remaining-3*time.Second || got.Proof == nil || got.ExpiresAt.After(was.ExpiresAt) {
				t.Errorf("it lists %s: %v, %+v; before, others listed %+v", x.id, ok, got, was)
			}
		}
		if back.lists(id[4]) {
			t.Error("it takes others' word for a lease that no proof shows")
		}
		for _, e := range back.Of(ports.EventTold) {
			if e.Refused > 0 {
				t.Errorf("it refused %+v", e)
			}
		}
		dead := before[all[0].id].Remaining
		time.Sleep(dead - 3*time.Second - 100*time.Millisecond)
		ends := func() bool { return back.lists(all[0].id) }
		if ends() != natives[1].lists(all[0].id) {
			t.Error("just before the end of a dead indexer they differ")
		}
		time.Sleep(200 * time.Millisecond)
		if ends() {
			t.Error("a dead indexer is listed beyond its proof")
		}
		time.Sleep(2 * time.Minute)
		for _, x := range all[1:] {
			if got, ok := back.Get(x.id); !ok || got.Source != ports.SourceOwn {
				t.Errorf("later it lists %s: %v, %+v", x.id, ok, got)
			}
			x.kill()
		}
	})
}

// A native may claim that this native granted a lease. Without a proof that counts for nothing.
func TestALeaseOfThisNativeThatAnotherTellsMustBeSigned(t *testing.T) {
	key := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		signed := key.Says(t, time.Now(), 1, addr).Entry(0)
		tell := func(native ports.PeerID, e ports.Entry) bool {
			e.Native = native
			a.TakeChanges(id[1], []ports.Change{{Kind: ports.ChangeSnapshot, Listed: ports.Listed{Entry: e, Remaining: time.Hour}}})
			return a.lists(e.PeerID)
		}
		if bare := (ports.Entry{PeerID: id[2], Addr: addr, ExpiresAt: time.Now().Add(time.Minute)}); tell(id[0], bare) {
			t.Error("a bare lease is listed")
		}
		if tell(id[2], signed) {
			t.Error("a third native's lease is listed")
		}
		if !tell(id[0], signed) {
			t.Error("a signed lease is not listed")
		}
		if got, _ := a.Get(key.PeerID); got.Remaining > time.Until(signed.ExpiresAt) {
			t.Errorf("it lasts for %v, and its proof for %v", got.Remaining, time.Until(signed.ExpiresAt))
		}
	})
}

func TestANativeIsWarmingUntilItHasTheTablesThatItCanReach(t *testing.T) {
	id := peerIDs(8)
	for name, c := range map[string]struct {
		bootstrap bootstrapPeers
		found     map[ports.PeerID][]ports.Change // natives that are there
		mute      []ports.PeerID                  // natives that never tell their table
		after     time.Duration                   // how long it is warming
		missing   []ports.PeerID                  // the natives that it misses by then
	}{
		"its bootstrap natives are there": {bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2], Reachable: true}}, map[ports.PeerID][]ports.Change{id[1]: nil, id[2]: nil}, nil, 0, nil},
		"a fake comes first":              {bootstrapPeers{{PeerID: id[1], Reachable: true}}, map[ports.PeerID][]ports.Change{id[5]: {lives(id[7], id[5])}}, nil, 10 * time.Second, []ports.PeerID{id[1]}},
		"one cannot be reached":           {bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2]}}, map[ports.PeerID][]ports.Change{id[1]: nil}, nil, 0, []ports.PeerID{id[2]}},
		"one is tried still":              {bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2], Reachable: true}}, map[ports.PeerID][]ports.Change{id[1]: nil}, nil, 10 * time.Second, []ports.PeerID{id[2]}},
		"a name is not resolved yet":      {bootstrapPeers{{PeerID: id[1], Reachable: true}, {Reachable: true}}, map[ports.PeerID][]ports.Change{id[1]: nil}, nil, 10 * time.Second, nil},
		"one tells nothing":               {bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2], Reachable: true}}, map[ports.PeerID][]ports.Change{id[1]: nil}, []ports.PeerID{id[2]}, time.Minute, []ports.PeerID{id[2]}},
		"none can be reached":             {bootstrapPeers{{PeerID: id[1]}}, nil, nil, 10 * time.Second, []ports.PeerID{id[1]}},
		"a found native with entries":     {bootstrapPeers{}, map[ports.PeerID][]ports.Change{id[5]: {lives(id[7], id[5])}}, nil, 0, nil},
		"a found native without entries":  {bootstrapPeers{}, map[ports.PeerID][]ports.Change{id[5]: nil}, nil, 10 * time.Second, nil},
		"a found native that lies":        {bootstrapPeers{}, map[ports.PeerID][]ports.Change{id[5]: {lives(id[7], id[6])}}, nil, 10 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				for id, tells := range c.found {
					n := net.scriptedNative(id, nil)
					defer n.stop()
					for i := range tells {
						tells[i].ExpiresAt = time.Now().Add(time.Minute)
					}
					n.tell(tells...)
				}
				for _, id := range c.mute {
					stop := net.muteNative(id)
					defer stop()
				}
				a := net.native(id[0], nativeOptions{bootstrap: &c.bootstrap})
				defer a.stop()
				if c.after > 0 {
					time.Sleep(c.after - 1)
					if got := a.Condition(); got != ports.ConditionWarming {
						t.Errorf("just before %v it is %q", c.after, got)
					}
					time.Sleep(time.Nanosecond)
					synctest.Wait()
				}
				want := ports.Condition("")
				if len(c.missing) > 0 {
					want = ports.ConditionPartial
				}
				if got := a.Condition(); got != want || !slices.Equal(a.Missing(), c.missing) {
					t.Errorf("after %v it is %q and misses %v, want %q and %v", c.after, got, a.Missing(), want, c.missing)
				}
			})
		})
	}
}

// lives is a snapshot's change about x, a lease of native.
func lives(x, native ports.PeerID) ports.Change {
	return ports.Change{Kind: ports.ChangeSnapshot, Listed: ports.Listed{Entry: ports.Entry{PeerID: x, Addr: addr, Native: native}, Remaining: time.Minute}}
}

// All natives of a network start at once. Each waits for the others.
func TestANetworkThatStartsAtOnceIsWarmAtOnce(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		peers := bootstrapPeers{}
		for _, id := range id {
			peers = append(peers, ports.BootstrapPeer{PeerID: id, Reachable: true})
		}
		var all []*followingNative
		for i, id := range id {
			others := slices.Delete(slices.Clone(peers), i, i+1)
			all = append(all, net.native(id, nativeOptions{bootstrap: &others}))
		}
		defer net.stop(all...)
		time.Sleep(time.Second)
		for i, n := range all {
			if c := n.Condition(); c != "" {
				t.Errorf("native %d is %q", i, c)
			}
		}
	})
}

// A closed network has a peer to join through that is none of its natives.
func TestANativeWaitsForNoTableThatItMayNotTake(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		for _, id := range id[1:] {
			n := net.scriptedNative(id, nil)
			defer n.stop()
		}
		net.rules.Natives = func(p ports.PeerID) bool { return p != id[2] }
		a := net.native(id[0], nativeOptions{bootstrap: &bootstrapPeers{{PeerID: id[1], Reachable: true}, {PeerID: id[2], Reachable: true}}})
		defer a.stop()
		if c := a.Condition(); c != "" || len(a.Missing()) > 0 {
			t.Errorf("with the table of its only native it is %q, and misses %v", c, a.Missing())
		}
	})
}

// Many strangers were followed, and are gone.
func TestStrangersKeepNoConfiguredNativeOutOfMissing(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(20)
		self := id[0]
		others := slices.Sorted(slices.Values(id[1:]))
		mine := others[len(others)-1]
		var stops []func()
		for _, id := range others {
			stops = append(stops, net.scriptedNative(id, nil).stop)
		}
		a := net.native(self, nativeOptions{bootstrap: &bootstrapPeers{{PeerID: mine, Reachable: true}}})
		defer a.stop()
		time.Sleep(time.Second)
		for _, stop := range stops {
			stop()
		}
		time.Sleep(time.Second)
		if got := a.Missing(); len(got) != ports.MaxMissing || !slices.Contains(got, mine) || !slices.IsSorted(got) {
			t.Errorf("it misses %v, want %d in order, with %s", got, ports.MaxMissing, mine)
		}
	})
}
