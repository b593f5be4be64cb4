package main_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

// sampleEvery is how often a watched node is asked.
const sampleEvery = 50 * time.Millisecond

// clockSlack is what two readings of one deadline may differ by, and an answer take
// from the node to the test's clock.
const clockSlack = 100 * time.Millisecond

// sample is what a node listed at some time between from and to.
type sample struct {
	from, to time.Time
	listed   map[string]entry
	err      error
}

// watch samples what n lists until stop is called, which returns the samples.
func watch(t *testing.T, n *node) (stop func() []sample) {
	ctx, cancel := context.WithCancel(context.Background())
	var samples []sample
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			s := sample{from: time.Now()}
			s.listed, s.err = n.list()
			s.to = time.Now()
			samples = append(samples, s)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	stop = func() []sample {
		cancel()
		watching.Wait()
		return samples
	}
	t.Cleanup(func() { stop() })
	return stop
}

// The seed's promise, with processes that die as processes do: whoever renews is
// listed by every native without a gap, whichever native dies; whoever does not is
// gone at its deadline.
func TestEndToEndNativesListWhoRenewsAndNobodyElse(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(*seed, 0))
	upTo := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }
	heartbeat := 2*time.Second + upTo(time.Second)
	ttl := heartbeat + stall + upTo(time.Second)
	t.Logf("-seed %d: TTL %v", *seed, ttl)
	times := []string{"--registry.ttl", ttl.String(), "--registry.heartbeat", heartbeat.String(), "--registry.refresh", (ttl / 3).String()}
	launched := func(dir string, args ...string) *node { return start(t, dir, append(args, times...)...) }

	dirA, port := t.TempDir(), ocnodetest.UnusedPort(t)
	listenA := fmt.Sprintf("--host.listen=/ip4/127.0.0.1/tcp/%d,/ip4/127.0.0.1/udp/%[1]d/quic-v1", port)
	a := launched(dirA, listenA)
	b := launched(t.TempDir(), "--host.bootstrap", a.Addrs[0])
	pinned := launched(t.TempDir(), "--modules=indexer", "--indexer.natives", a.Addrs[0])
	both := launched(t.TempDir(), "--modules=indexer", "--indexer.natives", a.Addrs[0], "--indexer.natives", b.Addrs[0])
	if x := b.lists(pinned.PeerID); x.Via != a.PeerID {
		t.Errorf("B lists the pinned indexer by way of %q, want A, %s", x.Via, a.PeerID)
	}
	b.lists(both.PeerID)
	stop := watch(t, b)

	time.Sleep(heartbeat + upTo(heartbeat)) // it is to renew at least once
	pinned.Kill()
	ocnodetest.Eventually(t, "B lists the pinned indexer as A does, after its last heartbeat", func() bool {
		atA, atB := a.lists(pinned.PeerID), b.lists(pinned.PeerID)
		return atA.ExpiresAt.Sub(atB.ExpiresAt).Abs() < clockSlack
	})
	last := a.lists(pinned.PeerID)
	deadline := last.SeenAt.Add(ttl)
	stoodStill := a.stoodStill()
	if stoodStill {
		// A refused a heartbeat that had waited for it. The indexer sent the same tick again, and by
		// its tick the lease ends earlier.
		deadline = last.ExpiresAt
	}
	if last.ExpiresAt.Sub(deadline).Abs() > clockSlack {
		t.Errorf("it expires at %v, want the last heartbeat and a TTL, %v", last.ExpiresAt, deadline)
	}
	ocnodetest.Eventually(t, "B has dropped the pinned indexer", func() bool {
		listed, err := b.list()
		_, ok := listed[pinned.PeerID]
		return err == nil && !ok
	})
	gone := time.Now()

	a.Kill()
	died := time.Now()
	time.Sleep(ttl + heartbeat + upTo(heartbeat)) // longer than whatever A granted
	if x := b.lists(both.PeerID); x.Via != b.PeerID {
		t.Errorf("B lists by way of %q an indexer that it granted a lease to itself", x.Via)
	}
	a = launched(dirA, listenA)
	ready := time.Now()
	a.lists(both.PeerID)
	if took := time.Since(ready); took > heartbeat+stall {
		t.Errorf("A came back and listed the indexer only %v later, want a heartbeat, %v", took, heartbeat)
	} else {
		t.Logf("A was away for %v and listed the indexer again %v after it was back", ready.Sub(died), took)
	}

	samples := stop()
	for _, s := range samples {
		if s.err != nil {
			t.Fatalf("B did not answer: %v", s.err)
		}
		if _, ok := s.listed[both.PeerID]; !ok {
			t.Errorf("B misses the indexer that has leases at both, %v after A's death", s.to.Sub(died))
		}
		switch x, ok := s.listed[pinned.PeerID]; {
		case !ok && s.to.Before(deadline.Add(-clockSlack)):
			t.Errorf("B misses the pinned indexer %v before its deadline", deadline.Sub(s.to))
		case ok && x.State == "stale" && (stoodStill || b.stoodStill()):
			// The machine stood still, and so nobody can tell whether the indexer is dead.
		case ok && s.from.After(deadline.Add(clockSlack)):
			t.Errorf("B lists the pinned indexer %v after its deadline", s.from.Sub(deadline))
		}
	}
	t.Logf("%d samples in %v; the pinned indexer was gone %v after its deadline", len(samples), samples[len(samples)-1].to.Sub(samples[0].from), gone.Sub(deadline))
}

// Three natives, an indexer with a lease at one of them, and a watcher of another: what
// happens there is told here, and a clean stop is a leave everywhere, within 2 s unless the
// machine stands still.
func TestEndToEndAWatcherOfOneNativeIsToldWhatHappensAtAnother(t *testing.T) {
	t.Parallel()
	a := start(t, t.TempDir())
	b := start(t, t.TempDir(), "--host.bootstrap", a.Addrs[0])
	c := start(t, t.TempDir(), "--host.bootstrap", a.Addrs[0], "--host.bootstrap", b.Addrs[0])
	natives := []*node{a, b, c}
	for _, n := range natives {
		ocnodetest.Eventually(t, "each native follows both others", func() bool {
			s := launch(t, t.TempDir(), nil, "natives", "--api", n.HTTP, "-o", "json")
			s.ExpectExit(0)
			return strings.Count(s.Out.String(), `"following": true`) == 2
		})
	}
	over := launch(t, t.TempDir(), nil, "watch", "--native", c.Addrs[0], "-o", "json")
	over.Prints(`"kind":"synced"`)
	http := launch(t, t.TempDir(), nil, "watch", "--api", b.HTTP, "-o", "json")
	http.Prints(`"kind":"synced"`)

	began := time.Now()
	x := start(t, t.TempDir(), "--modules=indexer", "--indexer.natives", a.Addrs[0])
	for _, w := range []*ocnodetest.Process{over, http} {
		w.Prints(`"kind":"joined","peerID":"` + x.PeerID + `"`)
	}
	joined := time.Since(began)
	for _, n := range natives[1:] {
		if listed := n.lists(x.PeerID); listed.Via != a.PeerID {
			t.Errorf("it is listed by way of %s, want %s", listed.Via, a.PeerID)
		}
	}
	began = time.Now()
	x.Signal(syscall.SIGTERM)
	for _, w := range []*ocnodetest.Process{over, http} {
		w.Prints(`"kind":"left","peerID":"` + x.PeerID + `"`)
	}
	for _, n := range natives {
		ocnodetest.Eventually(t, "nobody lists who left", func() bool {
			listed, err := n.list()
			_, still := listed[x.PeerID]
			return err == nil && !still
		})
	}
	left := time.Since(began)
	t.Logf("told %v after its process was started; gone everywhere %v after its SIGTERM", joined, left)
	if left > 2*time.Second+stall {
		t.Errorf("gone everywhere only %v after its SIGTERM", left)
	}
	x.ExpectExit(0)
	for _, w := range []*ocnodetest.Process{over, http} {
		w.Signal(syscall.SIGINT)
		w.ExpectExit(0)
		if log := w.Log.String(); log != "" {
			t.Errorf("standard error has %q", log)
		}
	}
}

func TestEndToEndASignalEndsANodeWhateverIsOpen(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			native := start(t, t.TempDir())
			indexer := start(t, t.TempDir(), "--modules=indexer,dht", "--indexer.natives", native.Addrs[0])
			native.lists(indexer.PeerID)
			for _, n := range []*node{native, indexer} {
				hold(t, n, "GET /healthz HTTP/1.1\r\nHost: idle\r\n\r\n")
				hold(t, n, "GET /healthz HTT")
			}
			s := open(t, newSeed(t), native.Addrs[0])
			if _, err := io.WriteString(s, `{"PeerID":"`); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			native.Signal(sig)
			indexer.Signal(sig)
			// After lastResort, 4.9 s of its own, a process exits 1.
			native.ExpectExit(0)
			indexer.ExpectExit(0)
			t.Logf("both ended %v after the signal", time.Since(began))
		})
	}
}

// hold leaves a connection to n's HTTP open that has sent text. If that is a whole
// request, its answer has come.
func hold(t *testing.T, n *node, text string) {
	t.Helper()
	c, err := net.Dial("tcp", n.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if text[len(text)-1] == '\n' {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEndToEndDemoTellsItsStoryAndTakesInStrangers(t *testing.T) {
	t.Parallel()
	for range 3 {
		if theDemoTellsItsStory(t) {
			return
		}
	}
	t.Error("the machine stood still in each of three demos")
}

// theDemoTellsItsStory reports whether it does. It does not if the machine stands still while a lease runs
// out: then its indexer is back before it has expired.
func theDemoTellsItsStory(t *testing.T) bool {
	t.Helper()
	began := time.Now()
	demo := launch(t, t.TempDir(), nil, "demo", "--for", "0")
	up := func(name string) (api, addr string) {
		m := demo.Prints(name + ` is up, with HTTP at (\S+), as (\S+) and (\S+)\n`)
		return m[1], m[2]
	}
	_, native1 := up("native-1")
	api2, _ := up("native-2")
	for i := range 3 {
		demo.Prints(fmt.Sprintf(`indexer-%d registered with native-1\n`, i+1))
		demo.Prints(fmt.Sprintf(`indexer-%d appeared at native-2, by way of native-1(, \S+ after it registered)?\n`, i+1))
	}

	stranger := newSeed(t)
	ocnodetest.Eventually(t, "native-2 lists the stranger", func() bool {
		register(t, stranger, native1) // again, should its 4 s have passed
		listed, err := list(api2)
		return err == nil && listed[stranger.ID().String()].Addr == seedAddr
	})
	demo.Prints(stranger.ID().String() + ` registered with native-1\n`)
	demo.Prints(stranger.ID().String() + ` appeared at native-2`)

	for _, native := range []string{"native-1", "native-2"} {
		end := demo.Prints(`(?s)indexer-3 is killed.*?indexer-3 (expired at ` + native + `|registered with native-1)\n`)
		if end[1] == "registered with native-1" {
			if ocnodetest.Lateness(began) < time.Second {
				t.Fatalf("indexer-3 did not expire at %s", native)
			}
			demo.Signal(syscall.SIGTERM)
			demo.ExpectExit(0)
			return false
		}
		demo.Prints(stranger.ID().String() + ` expired at ` + native + `\n`)
		demo.Prints(`(?s)indexer-3 is stopped, and leaves.*indexer-3 left ` + native + `\n`)
	}
	demo.Signal(syscall.SIGTERM)
	demo.ExpectExit(0)
	demo.Prints(`the demo ends\n$`)
	if log := demo.Log.String(); log != "" {
		t.Errorf("standard error has %q", log)
	}
	return true
}
