package modules_test

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Over real connections, and in real time: what natives with wrong clocks tell loses no live
// entry, and keeps no dead one.
func TestClocksThatAreAnHourOffLoseNobodyAndReviveNobody(t *testing.T) {
	t.Parallel()
	const ttl, heartbeat = 14 * time.Second, 2 * time.Second // a busy machine renews late
	var jump atomic.Int64
	clocks := map[string]func() time.Time{
		"right":   nil,
		"jumping": func() time.Time { return time.Now().Add(time.Duration(jump.Load())) },
		"behind":  func() time.Time { return time.Now().Add(-time.Hour) },
	}
	start := func(clock, on, bootstrap, natives string) *modules.Node {
		t.Helper()
		settings := leastSettings(t)
		maps.Copy(settings, map[string]string{
			"modules": on, "host.bootstrap": bootstrap, "http.listen": "", "host.listen": "/ip4/127.0.0.1/tcp/0",
			"registry.ttl": ttl.String(), "registry.heartbeat": heartbeat.String(), "registry.refresh": "1s",
		})
		if natives != "" {
			settings["indexer.natives"] = natives
		}
		node := newNode(t, settings, modules.Environment{Now: clocks[clock]})
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(t, node) })
		return node
	}
	first := start("right", "native,dht,gossip", "", "")
	second := start("right", "native,dht,gossip", first.Addrs()[0], "")
	jumping := start("jumping", "native,dht,gossip", first.Addrs()[0], "")
	behind := start("behind", "native,dht,gossip", first.Addrs()[0], "")
	natives := []*modules.Node{first, second, jumping, behind}
	indexers := []*modules.Node{
		start("right", "indexer", "", strings.Join([]string{first.Addrs()[0], jumping.Addrs()[0]}, ",")),
		start("behind", "indexer", "", jumping.Addrs()[0]),
		start("right", "indexer", "", behind.Addrs()[0]),
	}
	lists := func(native *modules.Node, id ports.PeerID) bool { _, ok := native.Registry().Get(id); return ok }
	everybody := func() bool {
		for _, n := range natives {
			for _, x := range indexers {
				if !lists(n, x.PeerID()) {
					return false
				}
			}
		}
		return true
	}
	until := func(what string, within time.Duration, done func() bool) {
		t.Helper()
		for end := time.Now().Add(within); !done(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not after %v", what, within)
			}
		}
	}
	until("all are listed everywhere", porttest.Patience, everybody)

	missing, samples := 0, 0
	sample := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if samples++; !everybody() {
				missing++
			}
		}
	}
	for _, to := range []time.Duration{time.Hour, -time.Hour, 0} {
		jump.Store(int64(to))
		sample(2 * heartbeat)
	}
	if missing > 0 {
		t.Errorf("somebody was missing somewhere in %d of %d samples", missing, samples)
	}
	dead := indexers[0]
	if err := dead.Kill(); err != nil {
		t.Error(err)
	}
	died := time.Now()
	jump.Store(int64(-time.Hour))
	until("the dead one is gone everywhere", ttl+porttest.Patience, func() bool {
		return !slices.ContainsFunc(natives, func(n *modules.Node) bool { return lists(n, dead.PeerID()) })
	})
	gone := time.Since(died)
	revived := 0
	for end := time.Now().Add(2 * heartbeat); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, n := range natives {
			if lists(n, dead.PeerID()) {
				revived++
			}
		}
	}
	if revived > 0 {
		t.Errorf("it was listed again in %d samples", revived)
	}
	t.Logf("%d samples, %d with somebody missing; a dead one was gone after %v", samples, missing, gone.Round(time.Millisecond))
}
