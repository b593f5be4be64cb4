package main_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// TestEndToEndCutsWithoutAReset has natives on machines of their own whose packets are dropped by nft,
// over TCP and over QUIC. An absence is marked once a native can know of the cut, and all is well
// soon after its end.
func TestEndToEndCutsWithoutAReset(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "quic"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			inLab(t, func(t *testing.T) { cutsWithoutAReset(t, transport) })
		})
	}
}

func cutsWithoutAReset(t *testing.T, transport string) {
	const (
		lasts   = 15 * time.Second
		noticed = 2 * time.Second // three beats, with these times 0.3 s each, and a dial
		whole   = 2*time.Second + time.Second
	)
	l := newLab(t)
	a, b := l.machine("a", 1), l.machine("b", 2)
	x, y := l.machine("x", 3), l.machine("y", 4)
	first := a.start(transport)
	natives := []*node{first, b.start(transport, "--host.bootstrap", first.Addrs[0])}
	indexers := []*node{
		x.start(transport, "--modules=indexer", "--indexer.natives", natives[0].Addrs[0]),
		y.start(transport, "--modules=indexer", "--indexer.natives", natives[1].Addrs[0]),
	}
	well := func(all []heard) bool {
		for _, h := range all {
			for _, x := range indexers {
				if _, ok := h.listed[x.PeerID]; !ok || h.marked() {
					return false
				}
			}
		}
		return true
	}
	if _, took := watchFor(t, 20*time.Second, natives, indexers, well); took >= 20*time.Second {
		t.Fatal("not all is well before the cut")
	}
	for _, c := range []struct {
		name string
		cut  func()
	}{
		{"in both directions", func() { a.deafen(b); b.deafen(a) }},
		{"in one direction", func() { b.deafen(a) }},
	} {
		began := time.Now()
		c.cut()
		during, _ := watchFor(t, lasts, natives, indexers, nil)
		a.hear()
		b.hear()
		ended := time.Now()
		after, took := watchFor(t, 60*time.Second, natives, indexers, well)
		fmt.Printf("lab: %s, cut %s for %v: absent %v, unmarked %v; after its end absent %v, unmarked %v, whole after %v\n", transport, c.name, lasts,
			during.absent.Round(time.Millisecond), during.unmarked.Round(time.Millisecond), after.absent.Round(time.Millisecond), after.unmarked.Round(time.Millisecond), took.Round(time.Millisecond))
		if unmarked := during.unmarked + after.unmarked; unmarked > noticed+ocnodetest.Lateness(began) || took > whole+ocnodetest.Lateness(ended) {
			t.Errorf("want at most %v unmarked, and all well after %v; the machine stood still for %v meanwhile, and for %v since the cut's end",
				noticed, whole, ocnodetest.Lateness(began), ocnodetest.Lateness(ended))
		}
	}
}

// TestEndToEndAStoppedNativeSaysSo stops the process of a native for longer than a lease lasts. One
// indexer dies meanwhile, and the others go on. When the process runs again, the native lists the others
// or says that it may miss them. It does not show the dead one as live.
func TestEndToEndAStoppedNativeSaysSo(t *testing.T) {
	t.Parallel()
	const ttl = 6600 * time.Millisecond
	times := []string{"--registry.ttl", ttl.String(), "--registry.heartbeat", "6s", "--registry.refresh", "3s"}
	launched := func(args ...string) *node { return start(t, t.TempDir(), append(args, times...)...) }
	native := launched()
	var indexers []*node
	for range 4 {
		indexers = append(indexers, launched("--modules=indexer", "--indexer.natives", native.Addrs[0]))
	}
	for _, x := range indexers {
		native.lists(x.PeerID)
	}
	native.Signal(syscall.SIGSTOP)
	dead := indexers[3]
	dead.Kill()
	time.Sleep(ttl + 2*time.Second)
	native.Signal(syscall.SIGCONT)
	isLive := func(h heard) bool {
		return h.listed[dead.PeerID].State == "live" || h.listed[dead.PeerID].State == "late"
	}
	shown := 0
	sum, _ := watchFor(t, 2*ttl, []*node{native}, indexers[:3], func(all []heard) bool {
		if isLive(all[0]) {
			shown++
		}
		return false
	})
	t.Logf("after a stop of %v absent %v, unmarked %v; the dead one was shown as live %d times", ttl+2*time.Second, sum.absent, sum.unmarked, shown)
	if sum.unmarked > 0 || shown > 0 {
		t.Errorf("unmarked %v, and the dead one was shown as live %d times", sum.unmarked, shown)
	}
}
