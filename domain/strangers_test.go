package domain_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// meeting is a store and an announcer, with a switch each: they reach strangers, or none. A put finds as
// many replicas as strangers.
type meeting struct {
	stubStore
	joined   chan struct{}
	stranger atomic.Bool

	announcer meetingAnnouncer
}

func (m *meeting) Strangers() bool         { return m.stranger.Load() }
func (m *meeting) Joined() <-chan struct{} { return m.joined }

type meetingAnnouncer struct {
	silentAnnouncer
	stranger atomic.Bool
}

func (a *meetingAnnouncer) Strangers() bool { return a.stranger.Load() }

// withMeeting runs a native whose store and announcer tell of strangers what the test says.
func withMeeting(t *testing.T, f func(t *testing.T, m *meeting, n *native)) {
	withNetwork(t, func(t *testing.T, net *network) {
		m := &meeting{joined: make(chan struct{}, 1)}
		m.put = func(context.Context, ports.Entry) (int, error) {
			if m.stranger.Load() {
				return 1, nil
			}
			return 0, nil
		}
		rules := net.rules
		rules.Self = peerIDs(1)[0]
		net.settings.Followers = new(domain.Followers)
		n := &native{Recorder: &porttest.Recorder{}}
		var err error
		if n.Registry, err = domain.NewRegistry(rules, net.settings, m, &m.announcer, n.Recorder); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = n.Run(ctx) })
		defer running.Wait()
		defer cancel()
		f(t, m, n)
	})
}

// flights says what the native has put and announced since the last question.
func (n *native) flights() string {
	time.Sleep(15 * time.Second) // longer than a flight waits for its turn
	s := fmt.Sprintf("%d put, %d announced", n.Count(ports.EventPut), n.Count(ports.EventAnnounced))
	n.Take()
	return s
}

func TestARenewalIsPutAndAnnouncedOnlyForStrangersAndNewsAlways(t *testing.T) {
	withMeeting(t, func(t *testing.T, m *meeting, n *native) {
		x := peerIDs(2)[1]
		for _, step := range []struct {
			does            string
			store, announce bool // which of them reaches strangers
			act             func()
			want            string
		}{
			{"a join, without a stranger", false, false, func() { n.register(t, x, addr) }, "1 put, 1 announced"},
			{"a renewal, without a stranger", false, false, func() { n.register(t, x, addr) }, "0 put, 0 announced"},
			{"a renewal, with a stranger in the store", true, false, func() { n.register(t, x, addr) }, "1 put, 0 announced"},
			{"a renewal, with a stranger in the topic", false, true, func() { n.register(t, x, addr) }, "0 put, 1 announced"},
			{"a renewal, with strangers in both", true, true, func() { n.register(t, x, addr) }, "1 put, 1 announced"},
			{"a change, without a stranger", false, false, func() { n.register(t, x, addr+"1") }, "1 put, 1 announced"},
			{"a leave, without a stranger", false, false, func() { _ = n.Leave(t.Context(), x, nil) }, "1 put, 1 announced"},
			{"a return, without a stranger", false, false, func() { n.register(t, x, addr) }, "1 put, 1 announced"},
			{"a renewal whose strangers went before its turn", true, true, func() {
				n.register(t, x, addr)
				time.Sleep(3 * time.Second)
				n.register(t, x, addr) // waits
				time.Sleep(time.Second)
				m.stranger.Store(false)
				m.announcer.stranger.Store(false)
			}, "1 put, 1 announced"},
		} {
			m.stranger.Store(step.store)
			m.announcer.stranger.Store(step.announce)
			step.act()
			if got := n.flights(); got != step.want {
				t.Errorf("%s: %s, want %s", step.does, got, step.want)
			}
		}
		// Avoided: the renewal without strangers, and half of two others.
		if puts, announcements := n.Avoided(); puts != 2 || announcements != 2 {
			t.Errorf("avoided %d puts and %d announcements, want 2 and 2", puts, announcements)
		}
	})
}

func TestAStrangerThatJoinsGetsWhatWasNotPut(t *testing.T) {
	withMeeting(t, func(t *testing.T, m *meeting, n *native) {
		ids := peerIDs(4)
		for _, x := range ids[1:] {
			n.register(t, x, addr)
		}
		if got := n.flights(); got != "3 put, 3 announced" {
			t.Errorf("of three joins %s", got)
		}
		m.joined <- struct{}{} // a native that follows by the time that it is welcomed
		if got := n.flights(); got != "0 put, 0 announced" {
			t.Errorf("for a native that follows %s", got)
		}
		m.stranger.Store(true)
		n.register(t, ids[1], addr) // put before the next stranger joins
		time.Sleep(12 * time.Second)
		n.Take()
		m.joined <- struct{}{}
		if got := n.flights(); got != "2 put, 0 announced" {
			t.Errorf("for a stranger %s, want the two that no stranger has", got)
		}
	})
}

// While natives meet, one after the other begins to follow. A stranger among them waits no longer than
// 30 s.
func TestAStrangerIsWelcomedOnceNativesHaveMet(t *testing.T) {
	for name, c := range map[string]struct{ comeFor, early, late time.Duration }{
		"alone":                          {0, 2900 * time.Millisecond, 3100 * time.Millisecond},
		"natives come for three seconds": {3 * time.Second, 5900 * time.Millisecond, 7100 * time.Millisecond},
		"natives come and go for ever":   {time.Minute, 29900 * time.Millisecond, 30100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			withMeeting(t, func(t *testing.T, m *meeting, n *native) {
				n.register(t, peerIDs(2)[1], addr)
				n.flights()
				m.stranger.Store(true)
				ctx, stop := context.WithTimeout(t.Context(), c.comeFor)
				var coming sync.WaitGroup
				coming.Go(func() {
					for ctx.Err() == nil {
						watch, end := context.WithTimeout(ctx, 400*time.Millisecond)
						for range n.Watch(watch, "follower", ports.WatchRequest{Own: true}) {
						}
						end()
					}
				})
				m.joined <- struct{}{}
				for _, step := range []struct {
					at   time.Duration
					puts int
				}{{c.early, 0}, {c.late - c.early, 1}} {
					time.Sleep(step.at)
					if got := n.Count(ports.EventPut); got != step.puts {
						t.Errorf("%d puts, want %d", got, step.puts)
					}
				}
				stop()
				coming.Wait()
			})
		})
	}
}

// A join whose put fails is news until it is put: its announcement names an entry that is there.
func TestNewsStaysNewsUntilItIsPut(t *testing.T) {
	withMeeting(t, func(t *testing.T, m *meeting, n *native) {
		fails := 2
		m.put = func(context.Context, ports.Entry) (int, error) {
			if fails--; fails >= 0 {
				return 0, errors.New("down")
			}
			return 0, nil
		}
		n.register(t, peerIDs(2)[1], addr)
		if got := n.flights(); got != "3 put, 3 announced" {
			t.Errorf("of a join with two failures %s", got)
		}
	})
}

// A stranger in the topic costs no more than a rate. Joins, changes and leaves are never held back.
func TestRenewalsAreAnnouncedAtABoundedRate(t *testing.T) {
	withMeeting(t, func(t *testing.T, m *meeting, n *native) {
		m.announcer.stranger.Store(true)
		ids := peerIDs(2001)[1:]
		all := func() {
			for _, x := range ids {
				n.register(t, x, addr)
			}
			time.Sleep(15 * time.Second)
		}
		announced := func() int { defer n.Take(); return n.Count(ports.EventAnnounced) }
		all()
		if got := announced(); got != len(ids) || n.HeldBack() != 0 {
			t.Errorf("of %d joins %d are announced, and %d held back", len(ids), got, n.HeldBack())
		}
		all()
		first := announced() // a heartbeat's at once, and those of the time until all have had their turn
		if held := int(n.HeldBack()); first < 1200 || first > 1200+15*20 || held != len(ids)-first {
			t.Errorf("of %d renewals at once %d are announced, and %d held back", len(ids), first, held)
		}
		_ = n.Leave(t.Context(), ids[0], nil)
		n.register(t, ids[1], addr+"1")
		time.Sleep(15 * time.Second)
		if got := announced(); got != 2 {
			t.Errorf("of a leave and a change %d are announced", got)
		}
		// Of 1,200 indexers, at any phase, each renewal is announced.
		ids = ids[2:1202]
		time.Sleep(time.Minute)
		held := n.HeldBack()
		for range 3 {
			all()
			if got := announced(); got != len(ids) {
				t.Errorf("of %d renewals %d are announced", len(ids), got)
			}
			time.Sleep(45 * time.Second)
		}
		if n.HeldBack() != held {
			t.Errorf("%d of 1,200 indexers' renewals are held back", n.HeldBack()-held)
		}
	})
}

// Natives that follow each other publish the same of each indexer, whichever of them it is registered at.
func TestNativesThatFollowEachOtherPublishTheSame(t *testing.T) {
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		natives := net.natives(3, nativeOptions{})
		defer net.stop(natives...)
		time.Sleep(5 * time.Second)
		plain, signer := peerIDs(5)[3:], newSignedIndexer(t)
		signer.issue(t, addr)
		step := uint32(0)
		beat := func() {
			for i, n := range natives {
				n.answer(t, signer.heartbeat(step, true))
				n.register(t, plain[0], addr)
				if i == 0 {
					n.register(t, plain[1], addr)
				}
				time.Sleep(3 * time.Second)
			}
			step++
		}
		same := func(when string, id ports.PeerID, check func(ports.Entry) bool) {
			t.Helper()
			want, ok := natives[0].Published(id)
			if !ok || !check(want) {
				t.Errorf("%s: %s is published as %+v, %v", when, id, want, ok)
			}
			for _, n := range natives[1:] {
				if got, _ := n.Published(id); !cmp.Equal(got, want) {
					t.Errorf("%s: another native publishes (-one +other)\n%s", when, cmp.Diff(want, got))
				}
			}
		}
		all := append([]ports.PeerID{signer.PeerID}, plain...)
		for range 3 {
			beat()
			for _, id := range all {
				same("after a heartbeat", id, func(e ports.Entry) bool { return !e.Leave && e.Addr == addr })
			}
			time.Sleep(prooftest.Interval - 9*time.Second)
		}
		if err := natives[1].Leave(t.Context(), signer.PeerID, signer.leave(t)); err != nil {
			t.Error(err)
		}
		if err := natives[0].Leave(t.Context(), plain[1], nil); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		same("after a signed leave", signer.PeerID, func(e ports.Entry) bool { return e.Leave && e.Native == "" })
		same("after a bare leave", plain[1], func(e ports.Entry) bool { return e.Leave && e.Addr == "" && e.Native == peerIDs(1)[0] })
	})
}

// A native of the seed looks up what it hears, maybe at a native that follows: that has the renewal by then.
func TestARenewalIsAnnouncedWhenFollowersHaveIt(t *testing.T) {
	withMeeting(t, func(t *testing.T, m *meeting, n *native) {
		m.announcer.stranger.Store(true)
		x := peerIDs(2)[1]
		n.register(t, x, addr)
		n.flights()
		n.register(t, x, addr)
		time.Sleep(2*time.Second - 1)
		if got := n.Count(ports.EventAnnounced); got != 0 {
			t.Error("it is announced before")
		}
		time.Sleep(time.Second) // a tick
		if got := n.Count(ports.EventAnnounced); got != 1 {
			t.Errorf("after that it is announced %d times", got)
		}
		n.Take()
		for range 60 { // an indexer that renews all the time
			n.register(t, x, addr)
			time.Sleep(time.Second)
		}
		if got := n.Count(ports.EventAnnounced); got < 5 || got > 6 {
			t.Errorf("in a minute of renewals each second %d are announced, want one in 10 s", got)
		}
	})
}

// A native that follows nobody lists the indexer until its lease ends. The renewal must be heard before.
func TestARenewalInTheLastMomentIsAnnouncedAtOnce(t *testing.T) {
	withNetwork(t, func(t *testing.T, net *network) {
		ids := peerIDs(3)
		a, b := net.native(ids[0], nil), net.native(ids[1], nil)
		defer a.stop()
		defer b.stop()
		a.register(t, ids[2], addr)
		time.Sleep(net.rules.Policy.TTL - 70*time.Millisecond)
		a.register(t, ids[2], addr)
		time.Sleep(100 * time.Millisecond)
		if _, ok := b.Get(ids[2]); !ok {
			t.Error("another native lists it no more, though it renewed before its end")
		}
	})
}
