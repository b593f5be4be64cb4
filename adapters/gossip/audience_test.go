package gossip

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// following are followers, each with the audience that it tells.
type following struct {
	mu      sync.Mutex
	tell    map[ports.PeerID]func() uint64
	changes uint64
}

func (f *following) set(id host.Host, tells func() uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	if f.tell == nil {
		f.tell = make(map[ports.PeerID]func() uint64)
	}
	f.tell[ports.PeerID(id.ID().String())] = tells
}

func (f *following) Share(audience uint64, natives []ports.PeerID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range natives {
		if tells := f.tell[id]; tells == nil || tells() != audience {
			return false
		}
	}
	return true
}

func (f *following) Revision() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++ // it may have changed
	return f.changes
}

// A native has strangers if any node hears its announcements that does not follow it, by way of
// others too.
func TestStrangers(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		hosts := hosttest.Simulate(t, 4)
		var natives []*Announcer
		var followers [3]*following
		for i, h := range hosts[:3] {
			followers[i] = &following{}
			a, err := New(h, Config{Followers: followers[i]})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = a.Close() })
			listen(t, a)
			natives = append(natives, a)
		}
		follow := func(i, j int) {
			followers[i].set(hosts[j], natives[j].Audience)
			followers[j].set(hosts[i], natives[i].Audience)
		}
		want := func(why string, strangers ...bool) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			for i, a := range natives {
				if a.Strangers() != strangers[i] {
					t.Errorf("%s: native %d has strangers: %v", why, i, !strangers[i])
				}
			}
		}
		want("none knows another", false, false, false)
		hosttest.Connect(t, hosts[0], hosts[1])
		want("a listener does not follow", true, true, false)
		follow(0, 1)
		want("both follow each other", false, false, false)
		hosttest.Connect(t, hosts[1], hosts[2])
		follow(1, 2)
		want("a line, whose ends hear each other by its middle", true, true, true)
		hosttest.Connect(t, hosts[0], hosts[2])
		follow(0, 2)
		want("each follows each", false, false, false)
		if natives[0].Audience() != natives[2].Audience() {
			t.Error("natives that all hear each other have other audiences")
		}

		seed, err := pubsub.NewGossipSub(t.Context(), hosts[3])
		if err != nil {
			t.Fatal(err)
		}
		topic, err := seed.Join(DefaultTopic)
		if err != nil {
			t.Fatal(err)
		}
		subscription, err := topic.Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		hosttest.Connect(t, hosts[3], hosts[2])
		want("a native of the seed is connected to the last", true, true, true)
		subscription.Cancel()
		want("it listens no more", false, false, false)
		if _, err = topic.Subscribe(); err != nil {
			t.Fatal(err)
		}
		want("it listens again", true, true, true)
		_ = hosts[3].Network().ClosePeer(hosts[2].ID())
		want("it has gone", false, false, false)
		followers[0].set(hosts[1], nil)
		want("a native follows no more", true, false, false)
	})
}

// A native of before follows, and tells no audience. Without any word of followers all are strangers.
func TestWithoutFollowersAllAreStrangers(t *testing.T) {
	if a := newAudience("self", nil); !a.strangers() {
		t.Error("without followers there are no strangers")
	}
}

// The answer is made anew after each change of what it is made of, and not else.
func TestStrangersIsAskedForEachRenewal(t *testing.T) {
	f := &counted{}
	a := newAudience("self", f)
	for i := range 2000 {
		a.change(peer.ID(fmt.Sprint(i)), true)
	}
	for range 1000 {
		a.strangers()
	}
	if f.asked != 1 {
		t.Errorf("2000 joins and 1000 renewals: the followers were compared %d times, want once", f.asked)
	}
	f.revision++
	a.strangers()
	a.change("0", false)
	a.strangers()
	a.change("0", false)
	a.strangers()
	if f.asked != 3 {
		t.Errorf("after two changes the followers were compared %d times, want 3", f.asked)
	}
	if allocated := testing.AllocsPerRun(100, func() { a.strangers() }); allocated > 0 {
		t.Errorf("it allocates %v times", allocated)
	}
}

type counted struct {
	asked    int
	revision uint64
}

func (c *counted) Share(uint64, []ports.PeerID) bool { c.asked++; return true }
func (c *counted) Revision() uint64                  { return c.revision }

// The sum is the document's: its vector is in docs/protocol.md too.
func TestTheAudienceOfTheDocument(t *testing.T) {
	var sum uint64
	for _, text := range []string{
		"12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF", "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB",
	} {
		id, err := peer.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		sum += hashOf(id)
	}
	if got := fmt.Sprintf("%016x", sum); got != "be8a15496b737e0b" {
		t.Errorf("the audience is %s", got)
	}
}
