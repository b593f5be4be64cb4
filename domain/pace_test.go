package domain_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

// timed notes when a watcher was told of each joined indexer.
type timed struct {
	joined  map[ports.PeerID]time.Time
	batches int // with changes that are no renewals
}

func (r *timed) watch(t *testing.T, n *domain.Registry, sender ports.PeerID, w ports.WatchRequest) (stop func()) {
	r.joined = make(map[ports.PeerID]time.Time)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for b, err := range n.Watch(ctx, sender, w) {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the watch ended: %v", err)
				}
				return
			}
			before := len(r.joined)
			for _, c := range b.Changes {
				if c.Kind == ports.ChangeJoined {
					r.joined[c.PeerID] = time.Now()
				}
			}
			if len(r.joined) > before {
				r.batches++
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

// readers are all kinds of watchers of one native.
func readers(t *testing.T, a *native, follower ports.PeerID) (all map[string]*timed, stop func()) {
	all = make(map[string]*timed)
	var stops []func()
	for name, request := range map[string]ports.WatchRequest{"a reader": {}, "a reader of renewals": {Renewed: true}, "a reader of proofs": {Proofs: true}, "a follower": {Own: true}} {
		all[name] = new(timed)
		stops = append(stops, all[name].watch(t, a.Registry, follower, request))
	}
	time.Sleep(time.Second)
	return all, func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// Two hundred joins a second are told as they happen, though a thousand renewals a second go on beside
// them.
func TestAChangeIsToldAtOnce(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		const joins, renewed = 400, 50
		id := peerIDs(2 + renewed + joins)
		a := net.native(id[0], nil)
		defer a.stop()
		for _, x := range id[2 : 2+renewed] {
			a.register(t, x, addr)
		}
		all, stop := readers(t, a, id[1])
		defer stop()
		joined := make(map[ports.PeerID]time.Time)
		for i, x := range id[2+renewed:] {
			for k := range 5 {
				time.Sleep(time.Millisecond)
				a.register(t, id[2+(5*i+k)%renewed], addr)
			}
			time.Sleep(time.Microsecond)
			joined[x] = time.Now()
			a.register(t, x, addr)
			synctest.Wait()
		}
		for name, r := range all {
			for x, at := range joined {
				if told := r.joined[x]; !told.Equal(at) {
					t.Errorf("%s was told of a join after %v, want at once", name, told.Sub(at))
					break
				}
			}
		}
	})
}

// A join passes through a native that follows, at once.
func TestAJoinElsewhereIsToldAtOnce(t *testing.T) {
	withFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(60)
		natives := net.natives(2, nativeOptions{})
		defer net.stop(natives...)
		a, b := natives[0], natives[1]
		var r timed
		defer r.watch(t, b.Registry, "", ports.WatchRequest{})()
		time.Sleep(time.Second)
		for _, x := range id[2:] {
			time.Sleep(5 * time.Millisecond)
			began := time.Now()
			a.register(t, x, addr)
			synctest.Wait()
			if told := r.joined[x]; !told.Equal(began) {
				t.Fatalf("a join at another native was told after %v, want at once", told.Sub(began))
			}
		}
	})
}

// A burst is still batches, each an interval after the last at most.
func TestABurstIsBatches(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		const joins = 2000
		id := peerIDs(2 + joins)
		a := net.native(id[0], nil)
		defer a.stop()
		all, stop := readers(t, a, id[1])
		defer stop()
		joined := make(map[ports.PeerID]time.Time)
		for _, x := range id[2:] {
			time.Sleep(500 * time.Microsecond)
			joined[x] = time.Now()
			a.register(t, x, addr)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		for name, r := range all {
			if r.batches > 60 {
				t.Errorf("%s was told of %d joins in a second in %d batches, want 60 at most", name, joins, r.batches)
			}
			for x, at := range joined {
				if took := r.joined[x].Sub(at); took > 40*time.Millisecond {
					t.Errorf("%s was told of a join after %v", name, took)
					break
				}
			}
		}
	})
}
