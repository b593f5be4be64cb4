package client

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// movingNetwork has natives that can move. A native that grants leases knows where the others are.
type movingNetwork struct {
	*network
	at     map[ports.PeerID]string                  // the address of each native
	tells  map[ports.PeerID]map[ports.PeerID]string // the addresses that a native tells instead
	dialed map[ports.PeerID]int                     // the most addresses in one attempt
}

// newMovingNetwork has n natives at old addresses, which the discovery tells for ever.
func newMovingNetwork(n int) (*movingNetwork, []ports.PeerID) {
	net := &movingNetwork{network: newNetwork(), at: map[ports.PeerID]string{}, tells: map[ports.PeerID]map[ports.PeerID]string{}, dialed: map[ports.PeerID]int{}}
	ids := net.natives(n, grants)
	for _, id := range ids {
		net.at[id] = "old-" + string(id)
	}
	net.found = ids
	return net, ids
}

// move has a native stop, and start at another address.
func (net *movingNetwork) move(id ports.PeerID, to string) {
	net.set(down, id)
	net.set(grants, id)
	net.mu.Lock()
	defer net.mu.Unlock()
	net.at[id] = to
}

func (net *movingNetwork) Find(_ context.Context, found func(ports.Found)) error {
	net.mu.Lock()
	net.looks++
	ids := slices.Clone(net.found)
	net.mu.Unlock()
	for _, id := range ids {
		found(ports.Found{PeerID: id, Addrs: []string{"old-" + string(id)}})
	}
	return nil
}

func (net *movingNetwork) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := net.network.Native(id, addrs)
	if err != nil {
		return nil, err
	}
	return movingNative{n.(fakeNative), net, addrs}, nil
}

type movingNative struct {
	fakeNative
	net   *movingNetwork
	addrs []string
}

// there reports whether the native is at an address of the attempt.
func (n movingNative) there() bool {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.dialed[n.id] = max(n.net.dialed[n.id], len(n.addrs))
	return slices.Contains(n.addrs, n.net.at[n.id])
}

func (n movingNative) Reached() string {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.net.at[n.id]
}

func (n movingNative) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if !n.there() {
		return ports.Lease{}, errDown
	}
	return n.fakeNative.Register(ctx, sender, r)
}

func (n movingNative) Leave(ctx context.Context, sender ports.PeerID, record []byte) error {
	if !n.there() {
		return errDown
	}
	return n.fakeNative.Leave(ctx, sender, record)
}

func (n movingNative) Natives(ctx context.Context, _ ports.PeerID) (all []ports.NativeStatus, _ error) {
	if !n.there() {
		return nil, errDown
	}
	if b, err := n.meet(ctx); err != nil || b != grants {
		return nil, errDown
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	for id, addr := range n.net.at {
		if lie := n.net.tells[n.id][id]; lie != "" {
			for i := range maxCandidates { // as many as it can, new ones each time
				n.net.looks++
				all = append(all, ports.NativeStatus{PeerID: id, Addrs: []string{fmt.Sprint(lie, i, n.net.looks)}})
			}
		} else if id != n.id && n.net.does[id] == grants {
			all = append(all, ports.NativeStatus{PeerID: id, Addrs: []string{addr}})
		}
	}
	return all, nil
}

func (net *movingNetwork) holds(ids ...ports.PeerID) bool {
	return slices.Equal(net.holding(), ids)
}

// within waits until the natives hold a lease, and no others, for limit at most.
func (net *movingNetwork) within(limit time.Duration, ids ...ports.PeerID) bool {
	for began := time.Now(); !net.holds(ids...); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > limit {
			return false
		}
	}
	return true
}

// oneRetry is the longest pause between two registrations with a native that fails, and the time
// of an attempt.
const oneRetry = 31 * time.Second

func TestANativeThatMovesIsFoundAgainWithinOneRetry(t *testing.T) {
	for _, away := range []time.Duration{0, 2 * time.Second, time.Minute, time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net, ids := newMovingNetwork(2)
				_, stop := indexerOf(t, FindNatives("me", nil, net, net))
				time.Sleep(90 * time.Second)
				if !net.holds(ids...) {
					t.Fatalf("leases at %v, want both", net.holding())
				}
				moves, dies := ids[0], ids[1]
				net.set(down, moves)
				time.Sleep(away)
				net.move(moves, "new")
				if !net.within(oneRetry, ids...) {
					t.Errorf("a retry after it moved, leases are at %v, want both", net.holding())
				}
				net.set(down, dies)
				time.Sleep(10 * time.Minute)
				if !net.holds(moves) {
					t.Errorf("leases at %v with the other native dead, want at the native that moved", net.holding())
				}
				stop()
				if net.counts(net.left, moves) != 1 {
					t.Error("the leave went to the old address")
				}
			})
		})
	}
}

// The addresses of indexer.natives are those of before.
func TestAGivenNativeThatMovedIsFoundWhereOthersTellOfIt(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint("before the start: ", before), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net, ids := newMovingNetwork(3)
				given := map[ports.PeerID][]string{}
				for _, id := range ids {
					given[id] = []string{"old-" + string(id)}
				}
				natives := PinNatives(map[ports.PeerID]ports.Native{})
				if err := natives.PinAt("me", net, given); err != nil {
					t.Fatal(err)
				}
				stranger := net.natives(1, grants)[0] // of which the natives tell too
				net.at[stranger] = "there"
				if before {
					net.move(ids[0], "new")
				}
				_, stop := indexerOf(t, natives)
				time.Sleep(time.Minute)
				for i := range 3 {
					net.move(ids[0], fmt.Sprint("new", i))
					if !net.within(oneRetry, ids...) {
						t.Fatalf("a retry after it moved, leases are at %v, want %v", net.holding(), ids)
					}
				}
				net.set(down, ids[1:]...)
				time.Sleep(10 * time.Minute)
				net.set(grants, ids[1:]...)
				if !net.within(oneRetry, ids...) {
					t.Errorf("leases at %v, want %v", net.holding(), ids)
				}
				stop()
			})
		})
	}
}

// The indexer stops before it has registered at the new address. The news of it has come.
func TestALeaveGoesWhereTheNativeIsNow(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net, ids := newMovingNetwork(1)
		natives := FindNatives("me", nil, net, net)
		_, stop := indexerOf(t, natives)
		time.Sleep(5 * time.Second)
		net.mu.Lock()
		net.at[ids[0]] = "new" // its lease and its connection last
		net.mu.Unlock()
		natives.mu.Lock()
		natives.add(ids[0], []string{"new"}, teller{native: "other"}, false)
		natives.mu.Unlock()
		stop()
		if net.counts(net.left, ids[0]) != 1 {
			t.Error("the leave went to the old address")
		}
	})
}

// A native tells of wrong addresses of the others, as many as it can, whenever it is asked.
func TestANativeThatLiesMovesNoOther(t *testing.T) {
	for _, moves := range []bool{false, true} {
		t.Run(fmt.Sprint(moves), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net, ids := newMovingNetwork(3)
				honest, lies, tells := ids[0], ids[1], ids[2]
				net.tells[lies] = map[ports.PeerID]string{honest: "wrong", tells: "wrong"}
				_, stop := indexerOf(t, FindNatives("me", nil, net, net))
				defer stop()
				time.Sleep(90 * time.Second)
				for range 5 {
					net.set(down, honest)
					time.Sleep(5 * time.Minute)
					if moves {
						net.move(honest, fmt.Sprint("new", time.Now().Unix()))
					} else {
						net.set(grants, honest)
					}
					// Each of those that tell has its turn.
					if !net.within(3*oneRetry, ids...) {
						t.Fatalf("leases at %v, want all three", net.holding())
					}
				}
				if n := net.dialed[honest]; n > maxProven+maxTold {
					t.Errorf("%d addresses were dialled at once, want %d at most", n, maxProven+maxTold)
				}
			})
		})
	}
}
