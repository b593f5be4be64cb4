package porttest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// ClosableAnnouncer is an Announcer with an end.
type ClosableAnnouncer interface {
	ports.Announcer
	Close() error
}

// Announcer tests the promises of ports.Announcer. network makes an empty network; join adds a
// node to it, returns its PeerID, and returns once it is connected to the earlier nodes. The
// adapter's test closes join's nodes when the test ends.
func Announcer(t *testing.T, network func(t *testing.T) (join func() (ports.PeerID, ClosableAnnouncer))) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, func() *announcerNode)
	}{
		{"every other node hears an announcement and its author", announcerHeard},
		{"a node does not hear its own announcements", announcerOwn},
		{"a PeerID announced again is heard again", announcerRepeats},
		{"an announcement without a listener is no error", announcerAlone},
		{"a text that is no PeerID is an error and is not heard", announcerRefuses},
		{"a second Listen is an error until the first was stopped", announcerSecondListen},
		{"after stop nothing is heard, and stop may be called twice", announcerStop},
		{"stop waits for a running hear", announcerStopWaits},
		{"hear is called for one announcement at a time", announcerOneAtATime},
		{"a closed announcer returns errors and hears nothing", announcerClosed},
		{"all methods may be called concurrently", announcerConcurrency},
	} {
		t.Run(test.name, func(t *testing.T) {
			join := network(t)
			test.run(t, func() *announcerNode {
				id, a := join()
				n := &announcerNode{announcer: a, id: id}
				t.Cleanup(func() {
					n.mu.Lock()
					defer n.mu.Unlock()
					if n.own {
						t.Error("an announcement came by way of the node that heard it")
					}
				})
				return n
			})
		})
	}
}

// announcerNode is a node that records the announcements it hears.
type announcerNode struct {
	announcer ClosableAnnouncer
	id        ports.PeerID
	mu        sync.Mutex
	heard     []ports.Announcement
	own       bool // an announcement came through n itself
}

func (n *announcerNode) hear(a ports.Announcement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.Via == n.id {
		n.own = true
	}
	a.Via = "" // the path is up to the network
	n.heard = append(n.heard, a)
}

// count returns the number of times that n heard a.
func (n *announcerNode) count(a ports.Announcement) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, h := range n.heard {
		if h == a {
			count++
		}
	}
	return count
}

// listen makes all nodes listen, and returns when each hears each: a network needs a moment, and
// may lose earlier announcements.
func listen(t *testing.T, nodes ...*announcerNode) (stops []func()) {
	t.Helper()
	for _, n := range nodes {
		stop, err := n.announcer.Listen(n.hear)
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		stops = append(stops, stop)
	}
	for _, from := range nodes {
		hello := ports.Announcement{PeerID: from.id, From: from.id}
		Eventually(t, "all nodes hear "+string(from.id), func() bool {
			from.announce(t, from.id)
			return !slices.ContainsFunc(nodes, func(n *announcerNode) bool { return n != from && n.count(hello) == 0 })
		})
	}
	return stops
}

func (n *announcerNode) announce(t *testing.T, id ports.PeerID) {
	t.Helper()
	if err := n.announcer.Announce(t.Context(), id); err != nil {
		t.Errorf("announce %s: %v", id, err)
	}
}

// expect waits until n has heard id from from, times times. The network may lose announcements,
// so from repeats its own now and then.
func (n *announcerNode) expect(t *testing.T, id ports.PeerID, from *announcerNode, times int) {
	t.Helper()
	said := time.Now()
	Eventually(t, string(id)+" is heard", func() bool {
		if time.Since(said) > time.Second {
			from.announce(t, id)
			said = time.Now()
		}
		return n.count(ports.Announcement{PeerID: id, From: from.id}) >= times
	})
}

// Eventually polls until done, and fails the test if that takes too long.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for give := time.Now().Add(Patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(give) {
			t.Fatalf("after %v still not true: %s", Patience, what)
		}
	}
}

func announcerHeard(t *testing.T, join func() *announcerNode) {
	a, b, c := join(), join(), join()
	listen(t, a, b, c)
	a.announce(t, peerIDs[0])
	b.announce(t, peerIDs[1])
	b.expect(t, peerIDs[0], a, 1)
	c.expect(t, peerIDs[0], a, 1)
	a.expect(t, peerIDs[1], b, 1)
	c.expect(t, peerIDs[1], b, 1)
}

func announcerOwn(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	listen(t, a, b)
	a.announce(t, peerIDs[0])
	b.expect(t, peerIDs[0], a, 1)
	b.announce(t, peerIDs[1])
	a.expect(t, peerIDs[1], b, 1) // its own would have come first
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range a.heard {
		if h.From == a.id {
			t.Errorf("the node heard itself announce %s", h.PeerID)
		}
	}
}

func announcerRepeats(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	listen(t, a, b)
	for times := 1; times <= 3; times++ {
		a.announce(t, peerIDs[0])
		b.expect(t, peerIDs[0], a, times)
	}
}

func announcerAlone(t *testing.T, join func() *announcerNode) {
	a := join()
	a.announce(t, peerIDs[0])
	join()
	a.announce(t, peerIDs[0])
}

func announcerRefuses(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	listen(t, a, b)
	for _, id := range notPeerIDs {
		if err := a.announcer.Announce(t.Context(), id); err == nil {
			t.Errorf("announce %.80q: no error", id)
		}
	}
	a.announce(t, peerIDs[0])
	b.expect(t, peerIDs[0], a, 1)
	for _, id := range notPeerIDs {
		if b.count(ports.Announcement{PeerID: id, From: a.id}) != 0 {
			t.Errorf("%.80q was heard", id)
		}
	}
}

func announcerSecondListen(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	stops := listen(t, a, b)
	if _, err := a.announcer.Listen(func(ports.Announcement) {}); err == nil {
		t.Error("second Listen: no error")
	}
	b.announce(t, peerIDs[0])
	a.expect(t, peerIDs[0], b, 1) // the first goes on
	stops[0]()
	stop, err := a.announcer.Listen(a.hear)
	if err != nil {
		t.Fatalf("listen after stop: %v", err)
	}
	stops[0]() // is over, and must not end the new Listen
	Eventually(t, "the second listener hears", func() bool {
		b.announce(t, peerIDs[1])
		return a.count(ports.Announcement{PeerID: peerIDs[1], From: b.id}) > 0
	})
	stop()
}

func announcerStop(t *testing.T, join func() *announcerNode) {
	a, b, c := join(), join(), join()
	stops := listen(t, a, b, c)
	stops[1]()
	stops[1]()
	a.announce(t, peerIDs[0])
	c.expect(t, peerIDs[0], a, 1)
	if b.count(ports.Announcement{PeerID: peerIDs[0], From: a.id}) != 0 {
		t.Error("heard after stop")
	}
}

func announcerStopWaits(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	running, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop, err := b.announcer.Listen(func(ports.Announcement) {
		once.Do(func() {
			close(running)
			<-release
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, "hear runs", func() bool {
		a.announce(t, peerIDs[0])
		select {
		case <-running:
			return true
		default:
			return false
		}
	})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	select {
	case <-stopped:
		t.Error("stop returned while hear was running")
	case <-time.After(50 * time.Millisecond): // a stop without a wait takes microseconds
	}
	close(release)
	<-stopped
}

func announcerOneAtATime(t *testing.T, join func() *announcerNode) {
	a, b, c := join(), join(), join()
	listen(t, b, c)
	var inside, overlaps, heard atomic.Int64
	if _, err := a.announcer.Listen(func(ports.Announcement) {
		if inside.Add(1) > 1 {
			overlaps.Add(1)
		}
		heard.Add(1)
		inside.Add(-1)
	}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "a hundred announcements are heard", func() bool {
		var announcing sync.WaitGroup
		for _, from := range []*announcerNode{b, c} {
			announcing.Go(func() {
				for range 10 {
					from.announce(t, peerIDs[0])
				}
			})
		}
		announcing.Wait()
		return heard.Load() >= 100
	})
	if n := overlaps.Load(); n != 0 {
		t.Errorf("hear was called %d times while it ran", n)
	}
}

func announcerClosed(t *testing.T, join func() *announcerNode) {
	a, b, c := join(), join(), join()
	stops := listen(t, a, b, c)
	if err := a.announcer.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := a.announcer.Announce(t.Context(), peerIDs[0]); err == nil {
		t.Error("announce on a closed announcer: no error")
	}
	if _, err := a.announcer.Listen(a.hear); err == nil {
		t.Error("listen on a closed announcer: no error")
	}
	b.announce(t, peerIDs[1])
	c.expect(t, peerIDs[1], b, 1)
	if a.count(ports.Announcement{PeerID: peerIDs[1], From: b.id}) != 0 {
		t.Error("heard after Close")
	}
	stops[0]() // harmless
	if err := a.announcer.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

func announcerConcurrency(t *testing.T, join func() *announcerNode) {
	a, b := join(), join()
	listen(t, b)
	var running sync.WaitGroup
	for _, n := range []*announcerNode{a, b, a, b} {
		running.Go(func() {
			for i := range 50 {
				n.announce(t, peerIDs[i%len(peerIDs)])
			}
		})
	}
	running.Go(func() {
		for range 20 {
			stop, err := a.announcer.Listen(a.hear)
			if err != nil {
				t.Errorf("listen: %v", err)
				return
			}
			stop()
		}
	})
	running.Wait()
	Eventually(t, "the network still works", func() bool {
		a.announce(t, a.id)
		return b.count(ports.Announcement{PeerID: a.id, From: a.id}) > 0
	})
}
