package domain_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// country is where a Scout looks: natives that know each other, of which some are connected to it.
type country struct {
	mu        sync.Mutex
	known     map[ports.PeerID][]ports.NativeStatus // what each native tells
	connected map[ports.PeerID]bool
	changed   chan struct{}
	advertise []ports.Found // what the Discovery finds
	lies      map[ports.PeerID]bool

	looks int
	met   map[ports.PeerID]int // by teller
	silly int                  // were told though they are connected, or this native
}

const scoutID ports.PeerID = "scout"

func newCountry() *country {
	return &country{
		known: map[ports.PeerID][]ports.NativeStatus{}, connected: map[ports.PeerID]bool{}, changed: make(chan struct{}),
		lies: map[ports.PeerID]bool{}, met: map[ports.PeerID]int{},
	}
}

// seen returns how often the Scout has looked, and how many natives it was to meet, by teller.
func (c *country) seen() (looks int, met map[ports.PeerID]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.looks, maps.Clone(c.met)
}

func (c *country) connect(id ports.PeerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected[id] = true
	close(c.changed)
	c.changed = make(chan struct{})
}

// Meet implements ports.Joiner: whoever is there is connected.
func (c *country) Meet(f ports.Found, by ports.PeerID) {
	c.mu.Lock()
	c.met[by]++
	if c.connected[f.PeerID] || f.PeerID == scoutID {
		c.silly++
	}
	there := c.known[f.PeerID] != nil && !c.lies[f.PeerID]
	c.mu.Unlock()
	if there {
		c.connect(f.PeerID)
	}
}

func (c *country) Advertise(context.Context) error { return nil }

func (c *country) Find(_ context.Context, found func(ports.Found)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks++
	for _, f := range c.advertise {
		found(f)
	}
	return nil
}

// travels is the Transport of the Scout.
type travels struct {
	ports.Transport
	*country
}

func (t travels) Neighbours() (all []ports.Neighbour, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.connected {
		all = append(all, ports.Neighbour{PeerID: id, Watchable: true})
	}
	return all, t.changed
}

func (t travels) Followed(n int) (natives []ports.PeerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.connected { // in random order
		if len(natives) < n {
			natives = append(natives, id)
		}
	}
	return natives
}

func (t travels) Native(id ports.PeerID, _ []string) (ports.RemoteNative, error) {
	return remoteNative{porttest.Native{OnNatives: func(context.Context, ports.PeerID) ([]ports.NativeStatus, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		return slices.Clone(t.known[id]), nil
	}}}, nil
}

type remoteNative struct{ porttest.Native }

func (remoteNative) Disconnected() <-chan struct{} { return nil }
func (remoteNative) Reached() string               { return "" }

// scout runs a Scout in c until the end of the test.
func (c *country) scout(t *testing.T, discoveries ...ports.Discovery) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	s := domain.NewScout(domain.Rules{Self: scoutID}, travels{country: c}, travels{country: c}.Followed, c, discoveries...)
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func statusesOf(ids ...ports.PeerID) (all []ports.NativeStatus) {
	for _, id := range ids {
		all = append(all, ports.NativeStatus{PeerID: id, Addrs: []string{"/ip4/192.0.2.1/tcp/4101"}})
	}
	return all
}

// A thousand natives, each of which knows a hundred: a newcomer that is connected to one meets all.
func TestAScoutMeetsAllNatives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const natives = 1000
		c := newCountry()
		id := func(i int) ports.PeerID { return ports.PeerID(fmt.Sprint("native", i%natives)) }
		for i := range natives {
			c.known[id(i)] = append(statusesOf(scoutID), ports.NativeStatus{PeerID: "without addresses"})
			for j := range 100 {
				c.known[id(i)] = append(c.known[id(i)], statusesOf(id(i+j*j+1))...)
			}
		}
		c.connect(id(0))
		c.scout(t, c)
		began := time.Now()
		for len(c.connectedNow()) < natives && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		looks, _ := c.seen()
		t.Logf("all met after %v, in %d looks", time.Since(began), looks)
		if n := len(c.connectedNow()); n < natives || time.Since(began) > 20*time.Minute {
			t.Errorf("%d of %d natives are met after %v", n, natives, time.Since(began))
		}
		c.mu.Lock()
		if c.silly > 0 {
			t.Errorf("%d that were connected were to be met again", c.silly)
		}
		c.mu.Unlock()
		// Once it has asked each of them it looks seldom.
		time.Sleep(4 * time.Hour)
		before, _ := c.seen()
		time.Sleep(2 * time.Hour)
		if looks, _ := c.seen(); looks-before < 10 || looks-before > 15 {
			t.Errorf("with nobody left it looks %d times in two hours, want 12", looks-before)
		}
	})
}

func (c *country) connectedNow() []ports.PeerID {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []ports.PeerID
	for id := range c.connected {
		ids = append(ids, id)
	}
	return ids
}

// A native of a discovery is met too, and one that connects by itself is asked soon.
func TestAScoutLooksAroundWhenANativeComes(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		c := newCountry()
		c.known["found"], c.known["behind"] = []ports.NativeStatus{{PeerID: "x"}}, []ports.NativeStatus{{PeerID: "x"}}
		c.advertise = []ports.Found{{PeerID: "found", Addrs: []string{"/ip4/192.0.2.1/tcp/1"}}, {PeerID: scoutID, Addrs: []string{"/ip4/192.0.2.1/tcp/1"}}}
		c.scout(t, c)
		time.Sleep(10 * time.Second)
		if got := c.connectedNow(); len(got) != 1 {
			t.Errorf("met are %v, want what the DHT has", got)
		}
		time.Sleep(3 * time.Hour)
		c.mu.Lock()
		c.known["newcomer"] = statusesOf("behind")
		c.mu.Unlock()
		c.connect("newcomer")
		time.Sleep(31 * time.Second)
		if got := c.connectedNow(); !slices.Contains(got, "behind") {
			t.Errorf("met are %v, want the native behind the newcomer too", got)
		}
	})
}

// Of two that tell of a native, one may lie where it is. Both are heard.
func TestAScoutHearsAllThatTellOfANative(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		c := newCountry()
		for _, teller := range []ports.PeerID{"liar", "honest"} {
			c.known[teller] = statusesOf("native", "native")
			c.connect(teller)
		}
		c.scout(t)
		time.Sleep(3 * time.Second)
		if _, met := c.seen(); met["liar"] != 1 || met["honest"] != 1 {
			t.Errorf("the words that are taken are %v, want one of each", met)
		}
	})
}

// Each teller has a share of what is met at a look. Lies do not make it look more often.
func TestALiarHasAShareOfAScout(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		c := newCountry()
		var lies []ports.PeerID
		for i := range 5000 {
			lies = append(lies, ports.PeerID(fmt.Sprint("made up ", i)))
			c.advertise = append(c.advertise, ports.Found{PeerID: lies[i], Addrs: []string{"/ip4/192.0.2.1/tcp/1"}})
		}
		c.known["liar"] = statusesOf(lies...)
		c.connect("liar")
		c.scout(t, c)
		time.Sleep(12 * time.Hour)
		looks, met := c.seen()
		if met["liar"] != 16*looks || met[""] != 16*looks {
			t.Errorf("in %d looks it meets %v, want 16 of each in a look", looks, met)
		}
		if looks < 70 || looks > 90 {
			t.Errorf("%d looks in 12 hours", looks)
		}
	})
}
