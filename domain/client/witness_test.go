package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// fakingNetwork has natives that take leases and tell nobody but each other. All others tell each
// other of their leases.
type fakingNetwork struct {
	*network
	fakes     []ports.PeerID
	bootstrap []ports.PeerID
	sites     map[string]string // by PeerID, which is the address here
	named     chan struct{}
	condition ports.Condition // of every honest native
	old       bool            // no native names the natives whose leases it holds
}

func newFakingNetwork() *fakingNetwork {
	net := &fakingNetwork{network: newNetwork(), sites: map[string]string{}, named: make(chan struct{})}
	net.say = func(native, _ ports.PeerID) (ports.Answer, error) {
		fake := slices.Contains(net.fakes, native)
		var known []ports.PeerID
		for id := range net.all() {
			if slices.Contains(net.fakes, id) == fake {
				known = append(known, id)
			}
		}
		slices.Sort(known)
		a, err := net.shows(known...)
		if i := slices.Index(a.Natives, native); i >= 0 {
			a.Native = native // its own lease goes before others
		}
		if net.old {
			a.Natives = nil
		}
		if !fake {
			a.Condition = net.condition
		}
		return a, err
	}
	return net
}

// Native has the PeerID as the address of every native.
func (net *fakingNetwork) Native(id ports.PeerID, addrs []string) (ports.RemoteNative, error) {
	n, err := net.network.Native(id, addrs)
	if err != nil {
		return nil, err
	}
	return reachedNative{n.(fakeNative)}, nil
}

func (net *fakingNetwork) Neighbours() ([]ports.Neighbour, <-chan struct{}) {
	natives, changed := net.network.Neighbours()
	for i := range natives {
		natives[i].Addrs = []string{string(natives[i].PeerID)}
	}
	return natives, changed
}

func (net *fakingNetwork) Find(ctx context.Context, found func(ports.Found)) error {
	return net.network.Find(ctx, func(f ports.Found) {
		found(ports.Found{PeerID: f.PeerID, Addrs: []string{string(f.PeerID)}})
	})
}

type reachedNative struct{ fakeNative }

func (n reachedNative) Reached() string { return string(n.id) }

func (net *fakingNetwork) fake(n int) []ports.PeerID {
	ids := net.natives(n, grants)
	net.fakes = append(net.fakes, ids...)
	return ids
}

// restart has a native lose its leases.
func (net *fakingNetwork) restart(id ports.PeerID, away time.Duration) {
	net.set(down, id)
	time.Sleep(away)
	net.set(grants, id)
}

func (net *fakingNetwork) hints() Hints {
	return Hints{
		Bootstrap: func() (peers []ports.Found, changed <-chan struct{}) {
			for _, id := range net.bootstrap {
				peers = append(peers, ports.Found{PeerID: id, Addrs: []string{string(id)}})
			}
			return peers, net.named
		},
		Site: func(addr string) string { return net.sites[addr] },
	}
}

// run runs an indexer in the network.
func (net *fakingNetwork) run(t *testing.T) (x *Indexer, events *porttest.Recorder, stop func()) {
	t.Helper()
	x, events = net.indexer(t)
	return x, events, running(t, x)
}

// indexer returns an indexer in the network that does not run yet.
func (net *fakingNetwork) indexer(t *testing.T) (x *Indexer, events *porttest.Recorder) {
	t.Helper()
	natives := FindNatives("me", nil, net, net)
	natives.Heed(net.hints())
	events = &porttest.Recorder{}
	x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, natives,
		func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, events)
	if err != nil {
		t.Fatal(err)
	}
	return x, events
}

// listed reports whether an honest native has a lease.
func (net *fakingNetwork) listed() bool {
	return slices.ContainsFunc(net.holding(), func(id ports.PeerID) bool { return !slices.Contains(net.fakes, id) })
}

// Natives that tell nobody are three of five. The two others restart one after the other.
func TestAnIndexerStaysListedAtItsBootstrapNatives(t *testing.T) {
	for i := range 10 {
		t.Run(fmt.Sprint("indexer ", i), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newFakingNetwork()
				honest := net.natives(2, grants)
				net.bootstrap = honest
				net.find(net.fake(3)...)
				net.connect(honest...)
				_, _, stop := net.run(t)
				defer stop()
				time.Sleep(time.Duration(60+i) * time.Second)
				for _, id := range honest {
					go net.restart(id, 20*time.Second)
					for range 120 {
						if time.Sleep(time.Second); !net.listed() {
							t.Fatalf("listed nowhere, with leases at %v", net.holding())
						}
					}
				}
				if held := net.holding(); len(held) != 5 {
					t.Errorf("leases at %v, want all: nobody is there to take the place of one that tells nobody", held)
				}
			})
		})
	}
}

func TestABootstrapNativeIsTriedForEver(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(1, grants)
		others := net.natives(4, grants)
		net.find(others...)
		net.connect(net.bootstrap...)
		_, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Minute)
		for _, how := range []behaviour{down, hangs, refuses, mute} {
			net.set(how, net.bootstrap...)
			time.Sleep(3 * time.Hour)
			if n := len(net.holding()); n < wantedNatives {
				t.Errorf("%d leases beside it, want %d", n, wantedNatives)
			}
			net.set(grants, net.bootstrap...)
			time.Sleep(time.Minute + ports.ExchangeTimeout)
			if held := net.holding(); !slices.Contains(held, net.bootstrap[0]) || len(held) != wantedNatives+1 {
				t.Errorf("a heartbeat after it came back from %v, leases are at %v, want there and at three others", how, held)
			}
		}
	})
}

// A name of host.bootstrap may stand for many natives, for peers that are no natives, and for others
// later.
func TestBootstrapNativesComeAndGo(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		all := net.natives(10, grants)
		net.connect(all...)
		net.bootstrap = append([]ports.PeerID{"a peer that is no native"}, all...)
		_, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Minute)
		if n := len(net.holding()); n != maxBootstrap+wantedNatives {
			t.Errorf("%d leases, want %d and %d", n, maxBootstrap, wantedNatives)
		}
		before := net.named
		net.bootstrap, net.named = all[:1], make(chan struct{})
		close(before)
		time.Sleep(3 * time.Minute)
		if held := net.holding(); !slices.Contains(held, all[0]) || len(held) != 1+wantedNatives {
			t.Errorf("leases at %v, want at %s and three others", held, all[0])
		}
	})
}

func TestANativeThatTellsNobodyIsReplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		bootstrap bool
		sites     bool // the fakes are of one site
		old       bool
	}{
		"a bootstrap native says so":                       {bootstrap: true},
		"natives of other sites say so":                    {sites: true},
		"a native of an earlier version does not find any": {sites: true, old: true},
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newFakingNetwork()
				net.old = tt.old
				fakes := net.fake(3)
				if tt.sites {
					for _, id := range fakes {
						net.sites[string(id)] = "theirs"
					}
				}
				net.connect(fakes...)
				if tt.bootstrap {
					net.bootstrap = net.natives(1, grants)
					net.connect(net.bootstrap...)
				}
				x, events, stop := net.run(t)
				time.Sleep(time.Second)
				if held := net.holding(); len(held) != len(fakes)+len(net.bootstrap) {
					t.Fatalf("leases at %v", held)
				}
				honest := net.natives(3, grants)
				net.find(honest...)
				for range 12 * 60 {
					time.Sleep(time.Second)
					if len(net.holding()) < wantedNatives {
						t.Fatalf("leases at %v: one was given up before another was there", net.holding())
					}
				}
				held := net.holding()
				for _, id := range honest {
					if !slices.Contains(held, id) {
						t.Errorf("leases at %v, want at %v", held, honest)
						break
					}
				}
				if confirmed, doubted, _ := x.Leases(); doubted != 0 || !tt.old && confirmed < wantedNatives || x.Unlisted() != "" {
					t.Errorf("%d leases are confirmed, %d doubted: %q", confirmed, doubted, x.Unlisted())
				}
				told := map[ports.PeerID]int{}
				for _, e := range events.Of(ports.EventLeaseDoubted) {
					told[e.Via]++
				}
				want := map[ports.PeerID]int{fakes[0]: 1, fakes[1]: 1, fakes[2]: 1}
				if !tt.bootstrap { // else that native lists it
					want[""] = 1
				}
				if !tt.old && !maps.Equal(told, want) {
					t.Errorf("doubts were told %v times, want %v", told, want)
				}
				stop()
			})
		})
	}
}

// It shows its own lease and no other. No native of a bootstrap peer is there to be asked.
func TestALoneNativeThatLiesHasNoOtherDoubted(t *testing.T) {
	for i := range 5 {
		t.Run(fmt.Sprint("indexer ", i), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newFakingNetwork()
				honest := net.natives(4, grants)
				net.find(append(net.fake(1), honest...)...)
				_, events, stop := net.run(t)
				defer stop()
				time.Sleep(12 * time.Hour)
				for _, e := range events.Of(ports.EventLeaseDoubted) {
					if e.Via != net.fakes[0] {
						t.Errorf("the lease at %q is doubted", e.Via)
					}
				}
			})
		})
	}
}

// Two natives have to miss a lease, or one native twice if no other can be asked.
func TestWhenALeaseIsDoubted(t *testing.T) {
	for name, c := range map[string]struct {
		by      []ports.PeerID // a native that misses it; "" shows it
		sole    bool
		doubted bool
	}{
		"one native once":                      {by: []ports.PeerID{"a"}, sole: true},
		"one native twice":                     {by: []ports.PeerID{"a", "a", "a"}},
		"one native twice, and there is none":  {by: []ports.PeerID{"a", "a"}, sole: true, doubted: true},
		"two natives":                          {by: []ports.PeerID{"a", "b"}, doubted: true},
		"two natives, the first of them twice": {by: []ports.PeerID{"a", "a", "b"}, doubted: true},
		"two natives, and one shows it":        {by: []ports.PeerID{"a", "", "b"}},
		"two natives, and one shows it later":  {by: []ports.PeerID{"a", "b", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWitnesses(time.Minute, func(ports.EventKind, ports.PeerID) {})
			w.registered("n", ports.Lease{}, nil)
			for _, by := range c.by {
				answer, err := ports.Answer{}, ports.ErrNotFound
				if by == "" {
					answer, err = ports.Answer{Listed: ports.Listed{Entry: ports.Entry{Native: "n"}, Remaining: time.Minute}}, nil
				}
				w.heard(map[ports.PeerID]bool{"n": c.sole}, candidate{id: by}, answer, err)
			}
			if w.doubts("n") != c.doubted {
				t.Errorf("doubted %v, want %v", !c.doubted, c.doubted)
			}
		})
	}
}

// A native that lost others lacks their leases alone. Else a stranger that comes and goes would keep
// all natives from being judged.
func TestAPartialNativeMissesLeasesOfTheOthers(t *testing.T) {
	var many []ports.PeerID
	for i := range ports.MaxMissing {
		many = append(many, ports.PeerID(fmt.Sprint("other ", i)))
	}
	for name, c := range map[string]struct {
		condition ports.Condition
		missing   []ports.PeerID
		doubted   bool
	}{
		"no condition":             {doubted: true},
		"it lost another":          {ports.ConditionPartial, []ports.PeerID{"a stranger"}, true},
		"it lost all but one":      {ports.ConditionPartial, many[1:], true},
		"it may have lost more":    {ports.ConditionPartial, many, false},
		"it lost that native":      {ports.ConditionPartial, []ports.PeerID{"a stranger", "n"}, false},
		"it has just started":      {ports.ConditionWarming, []ports.PeerID{"a stranger"}, false},
		"it heard no indexer":      {ports.ConditionUnheard, []ports.PeerID{"a stranger"}, false},
		"it is alone":              {ports.ConditionIsolated, []ports.PeerID{"a stranger"}, false},
		"it is of a later version": {"dreaming", []ports.PeerID{"a stranger"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWitnesses(time.Minute, func(ports.EventKind, ports.PeerID) {})
			w.registered("n", ports.Lease{}, nil)
			for range maxMisses {
				w.heard(map[ports.PeerID]bool{"n": true}, candidate{id: "b"}, ports.Answer{Condition: c.condition, Missing: c.missing}, ports.ErrNotFound)
			}
			if w.doubts("n") != c.doubted {
				t.Errorf("doubted %v, want %v", !c.doubted, c.doubted)
			}
		})
	}
}

// The native that listed the indexer is down for good: before, at and after two heartbeats.
func TestTheWordOfALostBootstrapNativeEnds(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(1, grants)
		net.find(net.fake(3)...)
		net.connect(net.bootstrap...)
		x, events, stop := net.run(t)
		defer stop()
		time.Sleep(10 * time.Minute)
		if _, doubted, _ := x.Leases(); doubted != 3 || x.Unlisted() != "" {
			t.Fatalf("%d leases are doubted: %q", doubted, x.Unlisted())
		}
		net.set(down, net.bootstrap...)
		time.Sleep((maxMisses + 3) * time.Minute)
		if x.Unlisted() == "" || events.Count(ports.EventLeaseConfirmed) != 0 {
			t.Errorf("it has leases at %v alone, which tell nobody, and says nothing", net.holding())
		}
		net.set(grants, net.bootstrap...)
		time.Sleep(2 * time.Minute)
		if x.Unlisted() != "" {
			t.Errorf("the native is back: %s", x.Unlisted())
		}
		w := newWitnesses(time.Minute, func(ports.EventKind, ports.PeerID) {})
		w.registered("n", ports.Lease{}, nil)
		shows := ports.Answer{Listed: ports.Listed{Entry: ports.Entry{Native: "me"}, Remaining: time.Minute, Natives: []ports.PeerID{"b"}}}
		for range maxMisses {
			w.heard(map[ports.PeerID]bool{"n": true}, candidate{id: "b", bootstrap: true}, shows, nil)
		}
		said := time.Now()
		for _, c := range []struct {
			at    time.Duration
			alone bool
		}{{maxMisses*time.Minute - 1, false}, {maxMisses * time.Minute, true}, {maxMisses*time.Minute + 1, true}} {
			time.Sleep(c.at - time.Since(said))
			if w.settle(); w.alone != c.alone {
				t.Errorf("after %v it is alone: %v", c.at, w.alone)
			}
		}
	})
}

// Nobody is there to take the place of natives that tell nobody.
func TestAnIndexerSaysThatNobodyConfirmsIt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(1, refuses)
		fakes := net.fake(3)
		net.connect(fakes...)
		net.connect(net.bootstrap...)
		x, events, stop := net.run(t)
		defer stop()
		if synctest.Wait(); x.Unlisted() != "" {
			t.Errorf("unlisted before anybody could be asked: %s", x.Unlisted())
		}
		net.says(func(native, _ ports.PeerID) (ports.Answer, error) { return ports.Answer{}, ports.ErrNotFound })
		net.set(grants, net.bootstrap...) // it takes a registration at the next heartbeat
		time.Sleep(3 * time.Minute)
		if confirmed, doubted, _ := x.Leases(); confirmed != 0 || doubted != 3 || x.Unlisted() == "" {
			t.Errorf("%d leases are confirmed, %d doubted: %q", confirmed, doubted, x.Unlisted())
		}
		time.Sleep(time.Hour)
		if held := net.holding(); len(held) != 4 {
			t.Errorf("leases at %v, want all that there are", held)
		}
		alone := func(kind ports.EventKind) (n int) {
			for _, e := range events.Of(kind) {
				if e.Via == "" {
					n++
				}
			}
			return n
		}
		if alone(ports.EventLeaseDoubted) != 1 || alone(ports.EventLeaseConfirmed) != 0 {
			t.Errorf("told %d times that nobody confirms it, and %d times that somebody does", alone(ports.EventLeaseDoubted), alone(ports.EventLeaseConfirmed))
		}
		net.says(func(ports.PeerID, ports.PeerID) (ports.Answer, error) { return net.shows(fakes...) })
		time.Sleep(time.Minute)
		if confirmed, doubted, _ := x.Leases(); confirmed != 3 || doubted != 0 || x.Unlisted() != "" || alone(ports.EventLeaseConfirmed) != 1 {
			t.Errorf("shown again, %d leases are confirmed, %d doubted: %q", confirmed, doubted, x.Unlisted())
		}
	})
}

// Nobody can be asked, or nobody can know.
func TestNoNativeIsDoubtedWithoutAWitness(t *testing.T) {
	for name, tt := range map[string]func(net *fakingNetwork){
		"a lone native":                 func(net *fakingNetwork) { net.connect(net.natives(1, grants)...) },
		"a lone bootstrap native":       func(net *fakingNetwork) { net.bootstrap = net.natives(1, grants); net.connect(net.bootstrap...) },
		"natives of the seed":           func(net *fakingNetwork) { net.connect(net.natives(3, mute)...) },
		"a native, and two of the seed": func(net *fakingNetwork) { net.connect(net.natives(1, grants)...); net.connect(net.natives(2, mute)...) },
		"natives of one site": func(net *fakingNetwork) {
			for _, id := range net.fake(3) {
				net.sites[string(id)] = "theirs"
				net.connect(id)
			}
			net.say = func(ports.PeerID, ports.PeerID) (ports.Answer, error) { return ports.Answer{}, ports.ErrNotFound }
		},
		"natives that have just started": func(net *fakingNetwork) {
			net.connect(net.natives(3, grants)...)
			net.say = func(ports.PeerID, ports.PeerID) (ports.Answer, error) {
				return ports.Answer{Condition: ports.ConditionWarming}, ports.ErrNotFound
			}
		},
		"natives that are too busy": func(net *fakingNetwork) {
			net.connect(net.natives(3, grants)...)
			net.say = func(ports.PeerID, ports.PeerID) (ports.Answer, error) {
				return ports.Answer{}, ports.Refuse(ports.CodeBusy, "busy")
			}
		},
		"natives that only know the DHT": func(net *fakingNetwork) {
			net.connect(net.natives(3, grants)...)
			net.say = func(ports.PeerID, ports.PeerID) (ports.Answer, error) {
				a, err := net.shows("n0")
				a.Source = ports.SourceStore
				return a, err
			}
		},
		"natives that hold as many leases as they can": func(net *fakingNetwork) {
			net.connect(net.natives(3, grants)...)
			net.say = func(native, _ ports.PeerID) (ports.Answer, error) {
				return ports.Answer{Listed: ports.Listed{Remaining: time.Minute, Natives: []ports.PeerID{native, "x", "y", "z"}}}, nil
			}
		},
		"natives of an earlier version, each with a lease of its own": func(net *fakingNetwork) {
			net.old = true
			net.connect(net.natives(3, grants)...)
		},
		"honest natives": func(net *fakingNetwork) { net.connect(net.natives(3, grants)...) },
	} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newFakingNetwork()
				tt(net)
				x, events, stop := net.run(t)
				defer stop()
				time.Sleep(time.Second)
				before := net.holding()
				time.Sleep(time.Hour)
				if n := events.Count(ports.EventLeaseDoubted); n != 0 || x.Unlisted() != "" {
					t.Errorf("%d doubts were told: %q", n, x.Unlisted())
				}
				if after := net.holding(); !slices.Equal(before, after) {
					t.Errorf("leases at %v, and an hour later at %v", before, after)
				}
			})
		})
	}
}

// The natives of indexer.natives are of two networks that know nothing of each other.
func TestAnIndexerOfTwoNetworksIsListed(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.says(func(native, _ ports.PeerID) (ports.Answer, error) {
			a, err := net.shows(native)
			a.Source = ports.SourceOwn
			return a, err
		})
		given := map[ports.PeerID]ports.Native{}
		for _, id := range net.natives(2, grants) {
			given[id] = fakeNative{net: net.network, id: id}
		}
		events := &porttest.Recorder{}
		x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, PinNatives(given),
			func() ports.Registration { return ports.Registration{PeerID: "me", Addr: "here"} }, events)
		if err != nil {
			t.Fatal(err)
		}
		defer running(t, x)()
		time.Sleep(time.Hour)
		if _, doubted, _ := x.Leases(); doubted != 2 || x.Unlisted() != "" {
			t.Errorf("%d leases are doubted, want both: %q", doubted, x.Unlisted())
		}
		for _, e := range events.Of(ports.EventLeaseDoubted) {
			if e.Via == "" {
				t.Error("it says that it is listed nowhere")
			}
		}
	})
}

// It connects to few natives beside those that it registers with.
func TestAnIndexerAsksFewNativesForItself(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.find(net.natives(40, grants)...)
		x, _, stop := net.run(t)
		defer stop()
		time.Sleep(3 * time.Hour)
		asked := 0
		for id := range net.all() {
			if net.counts(net.asked, id) > 0 {
				asked++
			}
		}
		if asked < 2 || asked > maxWitnesses {
			t.Errorf("it asked %d natives, want a few, and %d at most", asked, maxWitnesses)
		}
		if confirmed, _, _ := x.Leases(); confirmed != wantedNatives {
			t.Errorf("%d leases are confirmed, want %d", confirmed, wantedNatives)
		}
	})
}

// It asks a native for itself once a heartbeat, whatever it holds.
func TestAnIndexerAsksForItselfOnceAHeartbeat(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(2, grants)
		net.connect(net.bootstrap...)
		net.find(net.natives(20, grants)...)
		x, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Hour)
		total := 0
		for id := range net.all() {
			n := net.counts(net.asked, id)
			if total += n; n > 0 && !slices.Contains(net.bootstrap, id) {
				t.Errorf("it asked %s, which is no bootstrap native", id)
			}
		}
		if total < 55 || total > 70 {
			t.Errorf("it asked %d times in an hour, want once a heartbeat", total)
		}
		if confirmed, doubted, unasked := x.Leases(); confirmed != 5 || doubted+unasked != 0 {
			t.Errorf("of five leases, %d are confirmed, %d doubted, %d unasked", confirmed, doubted, unasked)
		}
	})
}

// A fake that refuses every other registration is doubted all the same.
func TestADoubtOutlastsAFailure(t *testing.T) {
	w := newWitnesses(time.Minute, func(ports.EventKind, ports.PeerID) {})
	miss := func() {
		w.heard(map[ports.PeerID]bool{"fake": true}, candidate{bootstrap: true}, ports.Answer{}, ports.ErrNotFound)
	}
	w.registered("fake", ports.Lease{}, nil)
	miss()
	w.registered("fake", ports.Lease{}, errDown)
	w.registered("fake", ports.Lease{}, nil)
	miss()
	if _, doubted, _ := w.count(); doubted != 1 {
		t.Error("it is not doubted")
	}
	w.forget("fake")
	miss()
	if confirmed, doubted, unasked := w.count(); confirmed+doubted+unasked != 0 {
		t.Error("a lease is remembered that the indexer gave up")
	}
}

func TestNativesOfOtherSitesAreTaken(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		crowd := net.natives(20, grants)
		for _, id := range crowd {
			net.sites[string(id)] = "one"
		}
		others := net.natives(2, grants)
		net.connect(others[0])
		net.find(append(crowd, others[1])...)
		net.sites[string(others[0])], net.sites[string(others[1])] = "two", "three"
		_, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Minute)
		if held := net.holding(); len(held) != wantedNatives || !slices.Contains(held, others[0]) || !slices.Contains(held, others[1]) {
			t.Errorf("leases at %v, want one of a site", held)
		}
	})
}

// A native of the seed confirms nothing, so others are asked beside it. Then its operator updates it.
func TestABootstrapNativeOfTheSeedKeepsNoOtherFromBeingAsked(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(1, mute)
		net.connect(net.bootstrap...)
		fakes := net.fake(3)
		for _, id := range fakes {
			net.sites[string(id)] = "theirs"
		}
		net.connect(fakes...)
		_, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Minute)
		honest := net.natives(3, grants)
		net.find(honest...)
		net.connect(honest...)
		time.Sleep(30 * time.Minute)
		for _, id := range honest {
			if held := net.holding(); !slices.Contains(held, id) {
				t.Errorf("leases at %v, want at %v, and at none that tells nobody", held, honest)
			}
		}
		net.set(grants, net.bootstrap...)
		time.Sleep(retrySilent + 5*time.Minute)
		if n := net.counts(net.asked, net.bootstrap[0]); n == 0 {
			t.Error("the bootstrap native was updated, and is not asked")
		}
	})
}

// A native offers no look-up until its operator updates it: before, at and after the pause.
func TestANativeWithoutLookUpIsAskedAgain(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		net.bootstrap = net.natives(1, grants)
		net.connect(net.bootstrap...)
		found, given := FindNatives("me", nil, net, net), PinNatives(map[ports.PeerID]ports.Native{net.bootstrap[0]: fakeNative{net: net.network, id: net.bootstrap[0]}})
		found.Heed(net.hints())
		found.meet()
		for name, natives := range map[string]*Natives{"found": found, "given": given} {
			natives.blind(net.bootstrap[0])
			began := time.Now()
			for _, c := range []struct {
				at    time.Duration
				asked bool
			}{{0, false}, {retrySilent - 1, false}, {retrySilent, true}, {retrySilent + 1, true}} {
				time.Sleep(c.at - time.Since(began))
				if _, of := natives.witness([]ports.PeerID{"n"}, ""); (len(of) > 0) != c.asked {
					t.Errorf("%s: after %v it is asked: %v", name, c.at, len(of) > 0)
				}
			}
		}
	})
}

// Natives of one site connect, and name addresses of other sites.
func TestANativeIsOfTheSiteThatItConnectsFrom(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newFakingNetwork()
		crowd := net.natives(20, grants)
		net.sites["/theirs"] = "theirs"
		for i, id := range crowd {
			net.sites[string(id)] = fmt.Sprint("claimed ", i)
		}
		net.connectAt("/theirs", crowd...)
		others := net.natives(2, grants)
		net.sites[string(others[0])], net.sites[string(others[1])] = "two", "three"
		net.find(others...)
		x, _, stop := net.run(t)
		defer stop()
		time.Sleep(time.Minute)
		for _, c := range x.natives.best() {
			if slices.Contains(crowd, c.id) && c.site != "theirs" {
				t.Fatalf("%s is of the site %q, as it says", c.id, c.site)
			}
		}
		for range 20 {
			if w, of := x.natives.witness(crowd, ""); slices.Contains(crowd, w.id) {
				t.Fatalf("%s speaks for %v", w.id, of)
			}
		}
	})
}

// Strangers connect before the natives that the operator named, as many as an indexer remembers.
func TestStrangersKeepNoBootstrapNativeOut(t *testing.T) {
	for name, strangers := range map[string]int{"half of the room": maxCandidates / 2, "all of it": maxCandidates} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				net := newFakingNetwork()
				fakes := net.fake(strangers)
				net.bootstrap = net.natives(2, grants)
				net.connect(fakes...)
				net.find(fakes...)
				_, _, stop := net.run(t)
				defer stop()
				time.Sleep(time.Minute)
				net.connect(net.bootstrap...)
				time.Sleep(time.Minute)
				if held := net.holding(); !slices.Contains(held, net.bootstrap[0]) || !slices.Contains(held, net.bootstrap[1]) {
					t.Errorf("leases at %v, want at %v too", held, net.bootstrap)
				}
			})
		})
	}
}
