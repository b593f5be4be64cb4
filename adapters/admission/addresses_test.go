package admission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// network is a WayBack of names and of who is where, and how long it takes to find out.
type network struct {
	names map[string][]string
	at    map[string]ports.PeerID // who answers at an address
	takes time.Duration
	only4 bool // there is no route to IPv6

	mu      sync.Mutex
	dialled []string
	running int
	most    int
}

func (n *network) Resolve(_ context.Context, addr string) ([]string, error) {
	if !strings.HasPrefix(addr, "/dns") {
		return []string{addr}, nil
	}
	if to, ok := n.names[addr]; ok {
		return to, nil
	}
	return nil, errors.New("no such name")
}

func (n *network) Dial(ctx context.Context, id ports.PeerID, addr string) error {
	n.mu.Lock()
	n.dialled = append(n.dialled, addr)
	n.running++
	n.most = max(n.most, n.running)
	takes := n.takes
	n.mu.Unlock()
	defer func() { n.mu.Lock(); n.running--; n.mu.Unlock() }()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at[addr] != id {
		return errors.New("secret port is closed")
	}
	return nil
}

func (n *network) Routes(ip netip.Addr) bool { return !n.only4 || ip.Is4() }

func (n *network) times() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.dialled)
}

func newAddresses(t testing.TB, policy Policy, n *network) *Addresses {
	t.Helper()
	a, err := NewAddresses(policy, n, &porttest.Recorder{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// vet registers a's addresses from an IP address, and returns those that are listed.
func vet(t testing.TB, a *Addresses, from string, addrs ...string) ([]string, error) {
	r := ports.Registration{PeerID: "a", Addr: addrs[0]}
	if len(addrs) > 1 {
		r.Addrs = slices.Clone(addrs)
	}
	given := slices.Clone(r.Addrs)
	got, err := a.Vet(t.Context(), "a", netip.MustParseAddr(from), r)
	if !slices.Equal(r.Addrs, given) {
		t.Error("the registration that was handed in is changed")
	}
	if got.Addr != addrs[0] || len(got.Addrs) > 0 && got.Addrs[0] != got.Addr {
		t.Errorf("Addr %s became %s, and Addrs %v", addrs[0], got.Addr, got.Addrs)
	}
	if len(got.Addrs) == 0 {
		return []string{got.Addr}, err
	}
	return got.Addrs, err
}

const (
	me, lan, victim = "8.8.8.8", "192.168.1.2", "/ip4/9.9.9.9/tcp/443"
	own, own6       = "/ip4/8.8.8.8/tcp/4101", "/ip6/2a00:1450::1/tcp/4101"
)

func TestWhichAddressesEachPolicyTakes(t *testing.T) {
	const (
		private, loopback = "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"
		named, elsewhere  = "/dns4/a.example/tcp/1", "/dns4/victim.example/tcp/1"
		inside            = "/dns4/inside.example/tcp/1"
		circuit           = "/ip4/9.9.9.9/tcp/1/p2p/12D3KooWEqwTBN3GE4vT6DWZiKpq24UtSBmhhwM73vg7SfTjYWaF/p2p-circuit"
	)
	const yes, no = true, false
	for _, tt := range []struct {
		policy                                                               Policy
		from                                                                 string
		own, own6, victim, private, loopback, named, elsewhere, inside, circ bool
		says                                                                 string // of the private one
	}{
		{PolicyAuto, me, yes, yes, no, yes, yes, yes, no, no, no, ""},
		{PolicyAuto, lan, yes, yes, yes, yes, yes, yes, yes, yes, yes, ""},
		{PolicyAuto, "127.0.0.1", yes, yes, yes, yes, yes, yes, yes, yes, yes, ""},
		{PolicyLAN, me, yes, yes, no, yes, yes, yes, yes, yes, no, ""},
		{PolicyLAN, lan, no, yes, no, yes, yes, yes, yes, yes, no, ""},
		{PolicyInternet, me, yes, yes, no, no, no, yes, no, no, no, "host.announce"},
		{PolicyInternet, lan, no, yes, no, no, no, no, no, no, no, "host.announce"},
		{PolicyAny, me, yes, yes, yes, yes, yes, yes, yes, yes, yes, ""},
	} {
		t.Run(fmt.Sprintf("%s from %s", tt.policy, tt.from), func(t *testing.T) {
			for addr, want := range map[string]bool{
				own: tt.own, own6: tt.own6, victim: tt.victim, private: tt.private, loopback: tt.loopback,
				named: tt.named, elsewhere: tt.elsewhere, inside: tt.inside, circuit: tt.circ,
			} {
				n := &network{
					names: map[string][]string{named: {own}, elsewhere: {victim}, inside: {private}},
					at:    map[string]ports.PeerID{own6: "a", private: "a", victim: "another"},
				}
				a := newAddresses(t, tt.policy, n)
				_, err := vet(t, a, tt.from, addr)
				if (err == nil) != want {
					t.Errorf("%s: %v", addr, err)
				}
				if err != nil {
					expectLimit(t, addr, err, ports.CodeAddrInvalid, ports.LimitAddress)
					if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), addr) {
						t.Errorf("%s: it says %v", addr, err)
					}
				}
				if addr == private && !want && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: it does not say what to do: %v", addr, err)
				}
				for _, at := range n.dialled {
					if at == private {
						t.Errorf("%s had the native dial within its own network", addr)
					}
				}
			}
		})
	}
}

func TestWhatIsNoAddressIsLeftToTheRegistry(t *testing.T) {
	n := &network{}
	a := newAddresses(t, PolicyInternet, n)
	for name, r := range map[string]ports.Registration{
		"no multiaddr":    {PeerID: "a", Addr: "nonsense"},
		"another's name":  {PeerID: "b", Addr: victim},
		"far too many":    {PeerID: "a", Addr: victim, Addrs: make([]string, ports.MaxAddrs+1)},
		"no address":      {PeerID: "a"},
		"Addrs elsewhere": {PeerID: "a", Addr: own, Addrs: []string{own, "nonsense"}},
	} {
		got, err := a.Vet(t.Context(), "a", netip.MustParseAddr(me), r)
		if err != nil || len(got.Addrs) != len(r.Addrs) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if n.times() != 0 {
		t.Errorf("%v were dialled", n.dialled)
	}
}

func TestShortLeasesWaitForAddressesNoLongerThanTheyLast(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		for slack, want := range map[time.Duration]time.Duration{time.Second: time.Second / 2, 6 * time.Second: patience} {
			n := &network{at: map[string]ports.PeerID{own6: "a"}, takes: 3 * time.Second}
			a := newAddresses(t, PolicyAuto, n)
			a.SetSlack(slack)
			began := time.Now()
			_, err := vet(t, a, me, own6)
			if took := time.Since(began); took != want {
				t.Errorf("with a slack of %v it took %v", slack, took)
			}
			expectLimit(t, "a dial that takes longer", err, ports.CodeBusy, ports.LimitDialBacks)
			began = time.Now()
			err = a.VetSigned(t.Context(), "a", netip.MustParseAddr(me), []string{own, victim})
			if took := time.Since(began); took != want {
				t.Errorf("with a slack of %v a record took %v", slack, took)
			}
			expectLimit(t, "a record", err, ports.CodeAddrInvalid, ports.LimitAddress)
		}
	})
}

func TestTheFirstAddressIsWaitedForAndNotLong(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{at: map[string]ports.PeerID{own6: "a"}, takes: patience}
		a := newAddresses(t, PolicyAuto, n)
		began := time.Now()
		_, err := vet(t, a, me, own6)
		if took := time.Since(began); took != patience {
			t.Errorf("it took %v", took)
		}
		if err != nil { // both are due at once
			expectLimit(t, "a dial that takes as long as is waited", err, ports.CodeBusy, ports.LimitDialBacks)
		}
		time.Sleep(time.Nanosecond)
		began = time.Now()
		if _, err = vet(t, a, me, own6); err != nil || time.Since(began) != 0 {
			t.Errorf("when it has been shown: %v after %v", err, time.Since(began))
		}

		n.takes = patience + 1
		_, err = vet(t, a, me, victim)
		expectLimit(t, "a dial that takes longer", err, ports.CodeBusy, ports.LimitDialBacks)
		time.Sleep(time.Nanosecond)
		_, err = vet(t, a, me, victim)
		expectLimit(t, "when it has failed", err, ports.CodeAddrInvalid, ports.LimitAddress)
		if n.times() != 2 {
			t.Errorf("dialled: %v", n.dialled)
		}

		ended, end := context.WithCancel(t.Context())
		end()
		_, err = a.Vet(ended, "c", netip.MustParseAddr(me), ports.Registration{PeerID: "c", Addr: own6})
		expectLimit(t, "when it is time to answer", err, ports.CodeBusy, ports.LimitDialBacks)
	})
}

func TestWhatWasShownHoldsForAnHourAndWhatWasNotForAMinute(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{at: map[string]ports.PeerID{own6: "a"}, takes: time.Millisecond}
		a := newAddresses(t, PolicyAuto, n)
		expect := func(when, addr string, code ports.Code, dials int) {
			t.Helper()
			_, err := vet(t, a, me, addr)
			limit := ports.LimitAddress
			if code == "" {
				limit = ""
			}
			expectLimit(t, when, err, code, limit)
			time.Sleep(2 * time.Millisecond) // for a dial that is not waited for
			if n.times() != dials {
				t.Errorf("%s: %d dials, want %d", when, n.times(), dials)
			}
		}
		expect("at first", own6, "", 1)
		time.Sleep(holdsFor - renewAhead - 2*time.Millisecond)
		expect("ten minutes before the end", own6, "", 1)
		expect("then", own6, "", 2)
		delete(n.at, own6)
		time.Sleep(holdsFor - renewAhead)
		expect("it is not there any more, and its hour has not passed", own6, "", 3)
		time.Sleep(renewAhead)
		expect("its hour has passed", own6, ports.CodeAddrInvalid, 4)
		time.Sleep(againAfter - 5*time.Millisecond)
		expect("within a minute", own6, ports.CodeAddrInvalid, 4)
		n.at[own6] = "a"
		time.Sleep(3 * time.Millisecond)
		expect("after it", own6, "", 5)
	})
}

func TestTheOtherAddressesAreListedOnceTheyAreShown(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{at: map[string]ports.PeerID{own6: "a", "/ip4/8.8.4.4/tcp/1": "another"}, takes: time.Second}
		a := newAddresses(t, PolicyAuto, n)
		all := []string{own, own6, "/ip4/10.0.0.1/tcp/1", "/ip4/8.8.4.4/tcp/1"}
		for i, want := range [][]string{{own, all[2]}, {own, own6, all[2]}, {own, own6, all[2]}} {
			began := time.Now()
			got, err := vet(t, a, me, all...)
			if err != nil || !slices.Equal(got, want) || time.Since(began) != 0 {
				t.Errorf("heartbeat %d: listed %v after %v, %v; want %v at once", i, got, time.Since(began), err, want)
			}
			time.Sleep(heartbeat)
		}
		if got, err := vet(t, newAddresses(t, PolicyInternet, n), me, own, all[2]); err != nil || !slices.Equal(got, []string{own}) {
			t.Errorf("on the internet alone: listed %v, %v", got, err)
		}
	})
}

// A native must not be the one that floods the victim.
func TestDialsAreBounded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{takes: time.Second}
		a := newAddresses(t, PolicyAuto, n)
		flood := func(minute int) {
			var running sync.WaitGroup
			for i := range 1000 {
				running.Go(func() {
					id := ports.PeerID(fmt.Sprint("attacker", minute, "-", i))
					for range 30 {
						_, err := a.Vet(t.Context(), id, netip.MustParseAddr(me), ports.Registration{PeerID: id, Addr: fmt.Sprintf("/ip4/9.9.9.%d/tcp/%d", i%250+1, i+1)})
						if err == nil {
							t.Error("a victim is listed")
						}
						time.Sleep(time.Second)
					}
				})
			}
			running.Wait()
		}
		flood(0)
		if n.times() != dialsOfSite || n.most > maxDials {
			t.Errorf("%d dials to one site, %d at once; want %d and at most %d", n.times(), n.most, dialsOfSite, maxDials)
		}
		time.Sleep(dialsEvery)
		flood(1)
		if n.times() != 2*dialsOfSite {
			t.Errorf("%d dials to one site in two minutes, want %d", n.times(), 2*dialsOfSite)
		}
	})
}

// TestWhoAsksForAllDialsGetsAShare has one address register what takes its time.
func TestWhoAsksForAllDialsGetsAShare(t *testing.T) {
	const plain, other = "/ip4/9.9.9.9/tcp/1", "/ip4/9.9.9.9/tcp/2"
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{at: map[string]ports.PeerID{plain: "honest", other: "honest"}, takes: 2 * time.Second}
		a := newAddresses(t, PolicyAuto, n)
		for i := range 10 {
			id, addrs := nth(i), []string{own}
			for j := range ports.MaxAddrs - 1 {
				addrs = append(addrs, fmt.Sprintf("/ip4/%d.%d.1.1/tcp/1", 20+i, j))
			}
			if _, err := a.Vet(t.Context(), id, netip.MustParseAddr(me), ports.Registration{PeerID: id, Addr: addrs[0], Addrs: addrs}); err != nil {
				t.Fatal(err)
			}
			if i == 9 {
				// Better listed without them than not at all.
				err := a.VetSigned(t.Context(), id, netip.MustParseAddr(me), addrs)
				expectLimit(t, "a record, when its share is used up", err, ports.CodeAddrInvalid, ports.LimitAddress)
			}
		}
		time.Sleep(time.Nanosecond) // all are under way
		if got := n.times(); got != maxDialsEach {
			t.Errorf("%d dials, want %d", got, maxDialsEach)
		}
		n.mu.Lock()
		n.takes = 0
		n.mu.Unlock()
		const from = "8.8.4.4"
		if _, err := a.Vet(t.Context(), "honest", netip.MustParseAddr(from), ports.Registration{PeerID: "honest", Addr: plain}); err != nil {
			t.Errorf("somebody else, plain: %v", err)
		}
		if err := a.VetSigned(t.Context(), "honest", netip.MustParseAddr(from), []string{"/ip4/" + from + "/tcp/1", other}); err != nil {
			t.Errorf("somebody else, signed: %v", err)
		}
		time.Sleep(dialTime)
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.dialFor) != 0 || a.dials != 0 {
			t.Errorf("when all is done, %d dials are counted, and for %v", a.dials, a.dialFor)
		}
	})
}

func TestProofsAreBounded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{names: map[string][]string{"/dns4/a.example/tcp/1": {own}}}
		a := newAddresses(t, PolicyAuto, n)
		for i := range maxProofs + 10 {
			id := nth(i)
			if _, err := a.Vet(t.Context(), id, netip.MustParseAddr(me), ports.Registration{PeerID: id, Addr: "/dns4/a.example/tcp/1"}); err != nil {
				t.Fatal(err)
			}
		}
		if a.proofs.Len() != maxProofs || len(a.of) != maxProofs {
			t.Errorf("%d proofs are kept, want %d", a.proofs.Len(), maxProofs)
		}
	})
}

func TestCloseEndsDials(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{takes: time.Hour}
		a := newAddresses(t, PolicyAuto, n)
		if got, err := vet(t, a, me, own, own6); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		began := time.Now()
		a.Close()
		if time.Since(began) != 0 {
			t.Errorf("it waits for %v", time.Since(began))
		}
		if _, err := vet(t, a, me, own, "/ip4/8.8.4.4/tcp/1"); err != nil || n.times() > 1 {
			t.Errorf("after Close %d dials, %v", n.times(), err)
		}
	})
}

func TestAPolicyThatIsNone(t *testing.T) {
	if _, err := NewAddresses("all", &network{}, &porttest.Recorder{}); err == nil || !strings.Contains(err.Error(), `"all" is no policy`) {
		t.Error(err)
	}
	if _, err := NewAddresses(PolicyAny, nil, &porttest.Recorder{}); err == nil {
		t.Error("it dials by nothing")
	}
}

// Of a record no address can be left out, so the indexer is told which to do without.
func TestARecordIsToldWhichAddressesItCanDoWithout(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const (
			first  = "/ip4/1.2.3.7/tcp/4001" // where it comes from
			shown  = "/ip4/1.2.3.8/tcp/4001"
			victim = "/ip4/4.5.6.9/tcp/443"
		)
		n := &network{at: map[string]ports.PeerID{shown: "a"}, takes: time.Second}
		door := Door{Addresses: newAddresses(t, PolicyInternet, n), Read: func(record []byte) (*ports.Claim, error) {
			return &ports.Claim{PeerID: "a", Addrs: strings.Split(string(record), " ")}, nil
		}}
		from := netip.MustParseAddr("1.2.3.7")
		admit := func(addrs ...string) error {
			_, err := door.vet(t.Context(), "a", from, ports.Registration{
				PeerID: "a", Addr: first, Proof: &ports.Proof{Record: []byte(strings.Join(addrs, " "))},
			})
			return err
		}
		refusal, ok := errors.AsType[*ports.Refusal](admit(first, shown, victim, "/ip4/10.0.0.1/tcp/1"))
		if !ok || refusal.Code != ports.CodeAddrInvalid || !slices.Equal(refusal.Unshown, []string{"/ip4/10.0.0.1/tcp/1", victim}) {
			t.Fatalf("got %+v", refusal)
		}
		if err := admit(first, shown); err != nil {
			t.Errorf("without them: %v", err)
		}
		refusal, ok = errors.AsType[*ports.Refusal](admit(victim, shown))
		if !ok || refusal.Code != ports.CodeAddrInvalid || refusal.Unshown != nil {
			t.Errorf("the victim first: %+v", refusal)
		}
	})
}

func TestWhoMovesDoesNotOverfillASite(t *testing.T) {
	const here, there = "192.0.2.1", "198.51.100.1"
	g := newGate(t, Config{Identities: 10})
	for i := range 100 {
		if lease(g, nth(i), here) == nil {
			_ = lease(g, nth(i), there)
		}
	}
	if seated, _ := g.Counts(); seated > 20 {
		t.Errorf("%d identities hold a lease from two sites that may have 10 each (counted: %v)", seated, g.sites)
	}
}

// Claims that are not even dialled push out those that were shown.

// Indexers of one company come from one IPv4 address and have IPv6 ones that a firewall shields.

func TestDualStackIndexersBehindOneAddressAreListedSoon(t *testing.T) {
	const indexers = 1000
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{takes: time.Hour}
		a := newAddresses(t, PolicyAuto, n)
		var listed atomic.Int32
		var running sync.WaitGroup
		began := time.Now()
		for i := range indexers {
			running.Go(func() {
				id, addrs := nth(i), []string{own, fmt.Sprintf("/ip6/2a00:1450:1:%x::1/tcp/4101", i)}
				for pause := time.Second; time.Since(began) < 10*time.Minute; pause = min(2*pause, 4*time.Second) {
					err := a.VetSigned(t.Context(), id, netip.MustParseAddr(me), addrs)
					refusal, _ := errors.AsType[*ports.Refusal](err)
					if err == nil {
						listed.Add(1)
						return
					}
					if len(refusal.Unshown) > 0 {
						addrs = addrs[:1]
						continue
					}
					time.Sleep(pause)
				}
			})
		}
		for _, m := range []int{1, 2, 5} {
			time.Sleep(time.Until(began.Add(time.Duration(m) * time.Minute)))
			t.Logf("after %d min %d of %d are listed", m, listed.Load(), indexers)
		}
		if listed.Load() < indexers {
			t.Errorf("after 5 minutes %d of %d are listed", listed.Load(), indexers)
		}
		running.Wait()
		t.Logf("after 10 min %d", listed.Load())
	})
}

// Somebody claims addresses in the /56 of another; the other has its first address proven.

func TestAStrangerDoesNotKeepOthersOut(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		n := &network{takes: 50 * time.Millisecond}
		a := newAddresses(t, PolicyAuto, n)
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
				_ = a.VetSigned(t.Context(), nth(i), netip.MustParseAddr("5.5.5.5"), []string{"/ip4/5.5.5.5/tcp/1", fmt.Sprintf("/ip6/2a00:1450:0:1::%x/tcp/1", i+10)})
			}
		})
		time.Sleep(10 * time.Second)
		began, refused := time.Now(), 0
		var err error
		for time.Since(began) < 10*time.Minute {
			err = a.VetSigned(t.Context(), "honest", netip.MustParseAddr(me), []string{own, "/ip6/2a00:1450:0:2::1/tcp/1"})
			if r, _ := errors.AsType[*ports.Refusal](err); err == nil || len(r.Unshown) > 0 {
				break
			}
			time.Sleep([]time.Duration{1, 2, 4, 53}[refused%4] * time.Second) // as an indexer does
			refused++
		}
		close(stop)
		running.Wait()
		t.Logf("%d times busy, for %v, then %v", refused, time.Since(began), err)
		if time.Since(began) > time.Minute {
			t.Error("kept out for longer than a lease")
		}
	})
}

// A native without a route to a family has not tried. It takes no such address for shown, and says
// that others may.
func TestANativeWithoutARouteSaysThatItHasNotTried(t *testing.T) {
	const (
		own     = "/ip4/5.5.5.5/tcp/1"
		six     = "/ip6/2a00:1450::1/tcp/1"
		victim  = "/ip4/4.5.6.9/tcp/443"
		both    = "/dns/both.example/tcp/1"    // a name of both families, and nobody answers at either
		only6   = "/dns/six.example/tcp/1"     // of IPv6 alone
		reached = "/dns/reached.example/tcp/1" // of both, reached over IPv4
		own4    = "/ip4/6.6.6.6/tcp/1"
	)
	for _, c := range []struct {
		name             string
		only4            bool
		addrs            []string // beside own
		unshown, untried []string
	}{
		{"a route to both", false, []string{six}, nil, nil},
		{"no route to IPv6", true, []string{six}, []string{six}, []string{six}},
		{"that, and an address of another", true, []string{victim, six}, []string{victim, six}, []string{six}},
		{"a name of both families that nobody answers at", true, []string{both}, []string{both}, nil},
		{"a name of IPv6 alone", true, []string{only6}, []string{only6}, []string{only6}},
		{"a name of both families that is reached", true, []string{reached}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				n := &network{only4: c.only4, at: map[string]ports.PeerID{own4: "a"}, names: map[string][]string{
					both: {victim, six}, only6: {six}, reached: {six, own4},
				}}
				if !c.only4 {
					n.at[six] = "a"
				}
				a := newAddresses(t, PolicyAuto, n)
				all := append([]string{own}, c.addrs...)
				ask := func() {
					t.Helper()
					err := a.VetSigned(t.Context(), "a", netip.MustParseAddr("5.5.5.5"), all)
					refusal, _ := errors.AsType[*ports.Refusal](err)
					if refusal == nil {
						refusal = &ports.Refusal{}
					}
					if !slices.Equal(refusal.Unshown, c.unshown) || !slices.Equal(refusal.Untried, c.untried) {
						t.Errorf("got %v, unshown %q, untried %q", err, refusal.Unshown, refusal.Untried)
					}
				}
				ask()
				dialled := n.times()
				ask()
				if n.times() != dialled {
					t.Errorf("it dialled %d times again", n.times()-dialled)
				}
				// Of a registration without a record it leaves the same addresses out.
				kept, err := vet(t, a, "5.5.5.5", all...)
				if err != nil || len(kept) != len(all)-len(c.unshown) {
					t.Errorf("of %q it keeps %q (%v)", all, kept, err)
				}
				// The route comes back: before, at and after a minute.
				if c.only4 && slices.Equal(c.untried, []string{six}) && len(c.addrs) == 1 {
					n.mu.Lock()
					n.only4, n.at[six] = false, "a"
					n.mu.Unlock()
					time.Sleep(againAfter - 1)
					ask()
					time.Sleep(time.Nanosecond)
					c.unshown, c.untried = nil, nil
					ask()
				}
			})
		})
	}
}

func TestAFirstAddressWithoutARouteIsRefused(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		a := newAddresses(t, PolicyAuto, &network{only4: true})
		_, err := vet(t, a, "5.5.5.5", "/ip6/2a00:1450::1/tcp/1")
		if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeAddrInvalid {
			t.Errorf("got %v", err)
		}
	})
}
