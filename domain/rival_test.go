package domain_test

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Natives tell each other, so the older one is refused also by one that the newer one has
// never turned to, which cannot tell that.
func TestAttackOfTwoProcessesWithOneKeyTheNewerStartWins(t *testing.T) {
	const addr2 = "/ip4/192.0.2.2/tcp/4002"
	long := time.Duration(porttest.Scale(10, 3)) * time.Minute // for some heartbeats at least
	for _, c := range []struct {
		name         string
		older, newer []int         // natives that they register with
		after        time.Duration // of the older one
		addr         string        // of the newer one
		told         bool          // the newer one too, by a native that has refused the older
	}{
		{"with the same natives", []int{0, 1}, []int{0, 1}, 100 * time.Second, addr2, true},
		{"at once", []int{0}, []int{0}, 10 * time.Millisecond, addr2, true},
		{"at one address", []int{0, 1}, []int{0, 1}, 30 * time.Minute, addr, true},
		{"with none in common", []int{0}, []int{1}, 100 * time.Second, addr2, false},
		{"with none in common, at one address", []int{0}, []int{1}, 30 * time.Minute, addr, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := signersOfOneKey(t)
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				id, all := peerIDs(3), net.natives(3, nativeOptions{shares: true})
				defer net.stop(all...)
				pick := func(at []int) (natives []ports.PeerID) {
					for _, i := range at {
						natives = append(natives, id[i])
					}
					return natives
				}
				older := net.indexer(first, indexerOptions{addr: addr}, pick(c.older)...)
				defer older.kill()
				time.Sleep(c.after)
				newer := net.indexer(second, indexerOptions{addr: c.addr}, pick(c.newer)...)
				defer newer.kill()
				time.Sleep(2 * time.Second)
				samples := 0
				look := func(d time.Duration) {
					t.Helper()
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
						for i, n := range all {
							samples++
							if got, ok := n.Get(newer.id); !ok || got.Addr != c.addr {
								t.Fatalf("native %d lists %v %+v, want the newer one", i, ok, got)
							}
						}
					}
				}
				look(2 * time.Minute)
				atNative := 0
				for _, n := range all {
					atNative += n.Count(ports.EventRival)
				}
				told := older.Of(ports.EventRival)
				if len(told) != 1 || told[0].Code != ports.CodeSuperseded || (newer.Count(ports.EventRival) > 0) != c.told || atNative == 0 {
					t.Errorf("the older one was told %+v, the newer one %d times, and natives tell %d times", told, newer.Count(ports.EventRival), atNative)
				}
				older.Take()
				look(long)
				if events := older.Take(); len(events) != 0 {
					t.Errorf("the older one goes on: %+v", events)
				}
				older.stop()
				look(long)
				t.Logf("%d samples, %d rivals at natives", samples, atNative)
			})
		})
	}
}

// A process that is replaced is stopped, and leaves, maybe before it knows.
func TestAttackTheLeaveOfAnOlderProcessDoesNotEndTheLeaseOfTheNewer(t *testing.T) {
	const addr2 = "/ip4/192.0.2.2/tcp/4002"
	for _, c := range []struct {
		name         string
		older, newer []int
		addr         string
	}{
		{"with the same natives", []int{0, 1}, []int{0, 1}, addr2},
		{"at one address", []int{0, 1}, []int{0, 1}, addr},
		{"with one in common", []int{0, 1}, []int{1, 2}, addr2},
		{"with none in common", []int{0}, []int{1}, addr2},
		{"with none in common, at one address", []int{0}, []int{1}, addr},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := signersOfOneKey(t)
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				id, all := peerIDs(3), net.natives(3, nativeOptions{shares: true})
				defer net.stop(all...)
				pick := func(at []int) (natives []ports.PeerID) {
					for _, i := range at {
						natives = append(natives, id[i])
					}
					return natives
				}
				older := net.indexer(first, indexerOptions{addr: addr}, pick(c.older)...)
				time.Sleep(100 * time.Second)
				newer := net.indexer(second, indexerOptions{addr: c.addr}, pick(c.newer)...)
				defer newer.kill()
				time.Sleep(2 * time.Second)
				older.stop()
				samples := 0
				for range 3000 {
					for i, n := range all {
						samples++
						if got, ok := n.Get(newer.id); !ok || got.Addr != c.addr {
							t.Fatalf("native %d lists %v %+v, want the newer one", i, ok, got)
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
				t.Logf("%d samples", samples)
			})
		})
	}
}

// An indexer that crashed and is back within its lease is no rival of itself.
func TestAttackARestartAfterACrashIsNoRival(t *testing.T) {
	first := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id, all := peerIDs(2), net.natives(2, nativeOptions{shares: true})
		defer net.stop(all...)
		rivals, restarts := 0, 0
		for away := 10 * time.Millisecond; away < 5*time.Minute; away *= 3 {
			x := net.indexer(first, indexerOptions{addr: addr}, id...)
			time.Sleep(away)
			x.kill()
			time.Sleep(away)
			x = net.indexer(first, indexerOptions{addr: addr}, id...)
			time.Sleep(3 * time.Minute)
			for i, n := range all {
				if !n.lists(x.id) {
					t.Errorf("native %d does not list it", i)
				}
				rivals += n.Count(ports.EventRival)
			}
			rivals += x.Count(ports.EventRival)
			restarts++
			x.kill()
		}
		t.Logf("%d restarts, %d rivals", restarts, rivals)
		if rivals != 0 {
			t.Errorf("told of %d rivals", rivals)
		}
	})
}
