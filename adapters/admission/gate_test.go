package admission

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

const ttl, heartbeat = 66 * time.Second, time.Minute

func newGate(t testing.TB, cfg Config) *Gate {
	t.Helper()
	cfg.TTL, cfg.Heartbeat = ttl, heartbeat
	g, err := NewGate(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// lease seats a sender and has it granted its lease.
func lease(g *Gate, sender ports.PeerID, from string) error {
	err := g.Seat(sender, netip.MustParseAddr(from))
	if err == nil {
		g.Settle(sender, true)
	}
	return err
}

func nth(i int) ports.PeerID { return ports.PeerID(fmt.Sprint("peer", i)) }

func TestAnIdentityMayRegisterSoOftenInAHeartbeat(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		g := newGate(t, Config{Registrations: 60})
		for i := range 60 {
			expectLimit(t, fmt.Sprint("registration ", i+1), g.Hear("a"), "", "")
		}
		refused := func(when string) { expectLimit(t, when, g.Hear("a"), ports.CodeBusy, ports.LimitRate) }
		refused("one more at once")
		time.Sleep(time.Second - 1)
		refused("just before a 60th of a heartbeat has passed")
		time.Sleep(time.Nanosecond)
		expectLimit(t, "when it has", g.Hear("a"), "", "")
		refused("and once more")
		expectLimit(t, "another identity", g.Hear("b"), "", "")
		time.Sleep(heartbeat)
		for i := range 60 {
			expectLimit(t, fmt.Sprint("a heartbeat later, registration ", i+1), g.Hear("a"), "", "")
		}
		refused("then")

		free := newGate(t, Config{})
		for range 1000 {
			expectLimit(t, "without a limit", free.Hear("a"), "", "")
		}
	})
}

// A lease must not be the way around the limit.
func TestWhatWasSpentIsRememberedAfterALeave(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		g := newGate(t, Config{Registrations: 3})
		for range 3 {
			expectLimit(t, "a registration", g.Hear("a"), "", "")
			expectLimit(t, "a lease", lease(g, "a", "192.0.2.1"), "", "")
			g.Leave("a")
			time.Sleep(time.Millisecond)
		}
		expectLimit(t, "one more", g.Hear("a"), ports.CodeBusy, ports.LimitRate)
	})
}

func TestASiteHasSoManyIdentities(t *testing.T) {
	for name, tt := range map[string]struct {
		loopback bool
		from     func(i int) string
		want     int
	}{
		"one IPv4 address":              {false, func(int) string { return "192.0.2.1" }, 10},
		"one IPv4 address in IPv6":      {false, func(int) string { return "::ffff:192.0.2.1" }, 10},
		"one IPv4 /24":                  {false, func(i int) string { return fmt.Sprint("192.0.2.", i) }, 20},
		"one IPv6 /56":                  {false, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::%x", i%256, i) }, 10},
		"one IPv6 /48":                  {false, func(i int) string { return fmt.Sprintf("2001:db8:0:%x00::1", i) }, 20},
		"many IPv4 networks":            {false, func(i int) string { return fmt.Sprintf("192.0.%d.1", i) }, 99},
		"loopback":                      {false, func(int) string { return "127.0.0.1" }, 99},
		"loopback of IPv6":              {false, func(int) string { return "::1" }, 99},
		"loopback, which is counted":    {true, func(int) string { return "127.0.0.1" }, 10},
		"loopback's /24, which is too":  {true, func(i int) string { return fmt.Sprint("127.0.0.", i) }, 20},
		"loopback of IPv6, and counted": {true, func(int) string { return "::1" }, 10},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, Config{Identities: 10, CountLoopback: tt.loopback})
			admitted := 0
			for i := range 99 {
				err := lease(g, nth(i), tt.from(i))
				if err == nil {
					admitted++
				} else {
					expectLimit(t, "beyond", err, ports.CodeBusy, ports.LimitSite)
				}
			}
			if seated, _ := g.Counts(); admitted != tt.want || seated != tt.want {
				t.Errorf("%d are admitted and %d seated, want %d", admitted, seated, tt.want)
			}
			for i := range tt.want {
				expectLimit(t, "a renewal at a full site", lease(g, nth(i), tt.from(i)), "", "")
			}
		})
	}
}

func TestASeatIsFreeWhenItsLeaseEnds(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		holding := make(map[ports.PeerID]bool)
		g := newGate(t, Config{Identities: 1, Leased: func(id ports.PeerID, leased bool) {
			if !leased && !holding[id] {
				t.Errorf("it is told of %s that it holds a lease no longer, and it held none", id)
			}
			holding[id] = leased
		}})
		expectHolding := func(when string, want ...ports.PeerID) {
			t.Helper()
			maps.DeleteFunc(holding, func(_ ports.PeerID, leased bool) bool { return !leased })
			if got := slices.Sorted(maps.Keys(holding)); !slices.Equal(got, want) {
				t.Errorf("%s: %v hold a lease, want %v", when, got, want)
			}
		}
		const here, there = "192.0.2.1", "198.51.100.1"
		full := func(when string) {
			t.Helper()
			expectLimit(t, when, lease(g, "b", here), ports.CodeBusy, ports.LimitSite)
		}
		expectLimit(t, "the first", lease(g, "a", here), "", "")
		expectHolding("then", "a")
		full("beside it")
		time.Sleep(heartbeat)
		expectLimit(t, "its renewal", lease(g, "a", here), "", "")
		time.Sleep(ttl - 1)
		full("just before the lease ends")
		time.Sleep(time.Nanosecond)
		expectLimit(t, "at its end", lease(g, "b", here), "", "")
		expectHolding("then", "b")

		expectLimit(t, "a leave", g.Seat("b", netip.MustParseAddr(here)), "", "")
		g.Leave("b")
		expectHolding("after the leave")
		expectLimit(t, "a registration after it", g.Seat("b", netip.MustParseAddr(here)), "", "")
		g.Settle("b", false)
		g.Leave("nobody")
		time.Sleep(ttl - 1)
		expectLimit(t, "while the leave is held", lease(g, "c", here), ports.CodeBusy, ports.LimitSite)
		time.Sleep(time.Nanosecond)
		expectLimit(t, "at its end", lease(g, "c", here), "", "")
		expectLimit(t, "who moves, and holds a lease", lease(g, "c", there), "", "")
		expectLimit(t, "where it was", lease(g, "d", here), "", "")
		expectLimit(t, "where it is", lease(g, "e", there), ports.CodeBusy, ports.LimitSite)
		time.Sleep(ttl)

		expectLimit(t, "a seat for a registration that is not granted", g.Seat("f", netip.MustParseAddr(here)), "", "")
		full("while that is not known")
		g.Settle("f", false)
		expectHolding("then")
		expectLimit(t, "when it is", lease(g, "b", here), "", "")
		expectLimit(t, "a renewal that is not granted", g.Seat("b", netip.MustParseAddr(here)), "", "")
		g.Settle("b", false)
		expectHolding("it does not end the lease", "b")
		expectLimit(t, "beside it", lease(g, "c", here), ports.CodeBusy, ports.LimitSite)
		if len(g.sites) != 2 {
			t.Errorf("%d sites are counted, want an address and its /24", len(g.sites))
		}
	})
}

// Of two streams of one identity the one that is refused must not free the seat of the other.
func TestASeatIsKeptWhileARegistrationIsUnderWay(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		from := netip.MustParseAddr(me)
		g := newGate(t, Config{Identities: 1})
		door := Door{Gate: g, Addresses: newAddresses(t, PolicyAny, &network{})}
		others := func(id ports.PeerID) { // a registration for somebody else, which the registry refuses
			t.Helper()
			if _, err := door.Admit(t.Context(), id, from, ports.Registration{PeerID: "somebody", Addr: own}); err != nil {
				t.Fatal(err)
			}
			door.Settle(id, false)
		}
		expectLimit(t, "the first", g.Seat("a", from), "", "")
		others("a")
		expectLimit(t, "another, while the first is under way", g.Seat("b", from), ports.CodeBusy, ports.LimitSite)
		g.Settle("a", true)
		others("a")
		expectLimit(t, "another, when it has its lease", g.Seat("b", from), ports.CodeBusy, ports.LimitSite)
		time.Sleep(ttl)
		expectLimit(t, "another, when that is over", g.Seat("b", from), "", "")
		expectLimit(t, "the same again", g.Seat("b", from), "", "")
		g.Settle("b", false)
		g.Settle("b", false)
		expectLimit(t, "the first, when both have been refused", g.Seat("a", from), "", "")
		if seated, _ := g.Counts(); seated != 1 {
			t.Errorf("%d are seated", seated)
		}
	})
}

func TestWhoIsRefusedASeatIsForgotten(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		g := newGate(t, Config{})
		for i := range maxStrangers + 10 {
			expectLimit(t, "a stranger", g.Seat(nth(i), netip.MustParseAddr(me)), "", "")
			g.Settle(nth(i), false)
		}
		if _, strangers := g.Counts(); strangers != maxStrangers || len(g.of) != maxStrangers {
			t.Errorf("%d strangers are remembered, %d in all; want %d", strangers, len(g.of), maxStrangers)
		}
	})
}

func TestStrangersAreForgotten(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		g := newGate(t, Config{Registrations: 1})
		expectLimit(t, "a stranger", g.Hear("first"), "", "")
		for i := range maxStrangers - 1 {
			expectLimit(t, "a stranger", g.Hear(nth(i)), "", "")
		}
		expectLimit(t, "the first, while there is room", g.Hear("first"), ports.CodeBusy, ports.LimitRate)
		expectLimit(t, "one too many", g.Hear("last"), "", "")
		if _, strangers := g.Counts(); strangers != maxStrangers {
			t.Errorf("%d strangers are remembered, want %d", strangers, maxStrangers)
		}
		expectLimit(t, "the first was heard again, and stays", g.Hear("first"), ports.CodeBusy, ports.LimitRate)
		expectLimit(t, "the second was forgotten", g.Hear(nth(0)), "", "")
		time.Sleep(heartbeat)
		if _, strangers := g.Counts(); strangers != 0 || len(g.of) != 0 {
			t.Errorf("a heartbeat later %d strangers are remembered", strangers)
		}
	})
}

func TestAGateIsForMany(t *testing.T) {
	g := newGate(t, Config{Registrations: 1000, Identities: 50})
	want := make(map[netip.Prefix]int)
	var running sync.WaitGroup
	for w := range 8 {
		running.Go(func() {
			for i := range 500 {
				id := nth((w + i) % 100)
				_ = g.Hear(id)
				if lease(g, id, fmt.Sprint("192.0.2.", i%3)) == nil && i%7 == 0 {
					g.Leave(id)
				}
			}
		})
	}
	running.Wait()
	for e := g.seated.Front(); e != nil; e = e.Next() {
		for _, site := range sites.Around(e.Value.(*visitor).from) {
			want[site]++
		}
	}
	if !maps.Equal(g.sites, want) || len(want) == 0 {
		t.Errorf("counted are %v, and there sit %v", g.sites, want)
	}
}

func TestAGateOfNonsenseIsRefused(t *testing.T) {
	for _, cfg := range []Config{{TTL: 1}, {Heartbeat: 1}, {TTL: 1, Heartbeat: 1, Registrations: -1}, {TTL: 1, Heartbeat: 1, Identities: -1}} {
		if _, err := NewGate(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

// What looks like an attack may be a company that leaves by one address, or by a few.
func TestAttackLimitsAdmitFiveThousand(t *testing.T) {
	const indexers = 5000
	for name, from := range map[string]func(i int) string{
		"one address":                   func(int) string { return "8.8.8.8" },
		"250 addresses of a network":    func(i int) string { return fmt.Sprintf("8.8.8.%d", i%250+1) },
		"250 addresses of 250 networks": func(i int) string { return fmt.Sprintf("8.8.%d.1", i%250) },
		"one IPv6 site":                 func(i int) string { return fmt.Sprintf("2a00:0:0:1::%x", i) },
	} {
		g := newGate(t, Config{Registrations: DefaultRegistrations, Identities: DefaultIdentities})
		admitted := 0
		for i := range indexers {
			if g.Hear(nth(i)) == nil && lease(g, nth(i), from(i)) == nil {
				admitted++
			}
		}
		t.Logf("%s: %d of %d identities admitted", name, admitted, indexers)
		if admitted != indexers {
			t.Errorf("%s: %d of %d identities are admitted", name, admitted, indexers)
		}
	}
}

// Who has two addresses registers at one, moves to the other, and so has any number there.
