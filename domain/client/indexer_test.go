package client

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestWhatTheNextRegistrationWaitsFor(t *testing.T) {
	s := time.Second
	granted := func(heartbeat, ttl time.Duration) ports.Lease { return ports.Lease{Heartbeat: heartbeat, TTL: ttl} }
	down := errors.New("connection refused")
	for _, c := range []struct {
		name      string
		heartbeat time.Duration
		lease     ports.Lease
		err       error
		want      time.Duration // before jitter takes up to a tenth
	}{
		{"a lease as asked", 60 * s, granted(60*s, 66*s), nil, 60 * s},
		{"a native that wants it sooner", 60 * s, granted(20*s, 22*s), nil, 20 * s},
		{"a native that says nothing of it", 60 * s, granted(0, 66*s), nil, 60 * s},
		{"a native that floods", 60 * s, granted(1, 66*s), nil, s},
		{"a negative heartbeat", 60 * s, granted(-5*s, 66*s), nil, s},
		{"a native that would never hear again", 60 * s, granted(math.MaxInt64, math.MaxInt64), nil, 60 * s},
		{"a TTL that ends before the heartbeat", 60 * s, granted(60*s, 20*s), nil, 18 * s},
		{"a TTL of sixty years", 60 * s, granted(math.MaxInt64, 2e9*s), nil, 60 * s},
		{"a TTL of nothing", 60 * s, granted(60*s, 1), nil, s},
		{"less than a second, as configured", 200 * time.Millisecond, granted(1, 0), nil, 200 * time.Millisecond},
		{"no answer", 60 * s, ports.Lease{Unconfirmed: true}, nil, 60 * s},
		{"a refusal that would only be repeated", 60 * s, ports.Lease{}, ports.Refuse(ports.CodeAddrInvalid, "x"), 60 * s},
		{"a busy native", 60 * s, ports.Lease{}, ports.Refuse(ports.CodeBusy, "x"), s},
		{"a failure", 60 * s, ports.Lease{}, down, s},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := renewal{heartbeat: c.heartbeat}
			if got := r.after(c.lease, c.err, 0, 0); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			r = renewal{heartbeat: c.heartbeat}
			if got := r.after(c.lease, c.err, 0, 0.999999); got < c.want*9/10 || got > c.want*91/100 {
				t.Errorf("with full jitter got %v, want 90 %% of %v", got, c.want)
			}
		})
	}
}

func TestFailuresBackOffToHalfAHeartbeatAndNoFurther(t *testing.T) {
	r := renewal{heartbeat: time.Minute}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
		if got := r.after(ports.Lease{}, errors.New("down"), 0, 0); got != want*time.Second {
			t.Errorf("pause %d is %v, want %v", i, got, want*time.Second)
		}
		r.due(errors.New("down"))
	}
	r.after(ports.Lease{}, nil, 0, 0)
	if got := r.dropped(0.999); got >= time.Second {
		t.Errorf("a lease after an outage is lost and waits %v, want less than a second", got)
	}
	if got := r.after(ports.Lease{}, errors.New("down"), 0, 0); got != time.Second {
		t.Errorf("after a lease the first pause is %v, want 1s", got)
	}
}

func TestALostConnectionIsMadeUpForAtOnceButNotForEver(t *testing.T) {
	r := renewal{heartbeat: time.Minute}
	if got := r.dropped(0.999); got >= time.Second/2 {
		t.Errorf("the first time it waits %v, want less than half a second", got)
	}
	for i, want := range []time.Duration{1, 2, 4, 8} {
		r.after(ports.Lease{}, nil, 0, 0) // a lease, and dropped again before it was due
		if got := r.dropped(0); got != want*time.Second {
			t.Errorf("drop %d waits %v, want %v", i+2, got, want*time.Second)
		}
	}
}

// scriptedNative answers as the test says and notes when it was asked.
type scriptedNative struct {
	offersNothing
	mu     sync.Mutex
	asked  []time.Time
	answer func(n int) (ports.Lease, error)
	lost   chan struct{}
}

func (n *scriptedNative) Register(_ context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if sender != "me" || r.PeerID != "me" || r.Addr != "here" {
		panic("not what was described")
	}
	n.asked = append(n.asked, time.Now())
	n.lost = make(chan struct{})
	return n.answer(len(n.asked))
}

func (n *scriptedNative) Disconnected() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

func (n *scriptedNative) times() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]time.Time(nil), n.asked...)
}

// running runs x until stop is called, which returns when x has stopped.
func running(t *testing.T, x interface{ Run(context.Context) error }) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = x.Run(ctx) }()
	return func() { cancel(); <-done }
}

func runIndexer(t *testing.T, heartbeat time.Duration, natives map[ports.PeerID]ports.Native) (*porttest.Recorder, func()) {
	events := &porttest.Recorder{}
	x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.TTLPolicy{TTL: heartbeat * 11 / 10, Heartbeat: heartbeat, Refresh: heartbeat / 2}}, nil, PinNatives(natives), func() ports.Registration {
		return ports.Registration{PeerID: "me", Addr: "here"}
	}, events)
	if err != nil {
		t.Fatal(err)
	}
	return events, running(t, x)
}

func TestAnIndexerRegistersAtOnceAndBeforeEveryDeadline(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		began := time.Now()
		native := &scriptedNative{answer: func(int) (ports.Lease, error) { return domain.DefaultTTLPolicy().Grant(time.Now()), nil }}
		events, stop := runIndexer(t, time.Minute, map[ports.PeerID]ports.Native{"n": native})
		defer stop()
		synctest.Wait()
		if asked := native.times(); len(asked) != 1 || !asked[0].Equal(began) {
			t.Fatalf("registered at %v, want at once", asked)
		}
		time.Sleep(time.Hour)
		asked := native.times()
		for i := 1; i < len(asked); i++ {
			if d := asked[i].Sub(asked[i-1]); d < 54*time.Second || d > time.Minute {
				t.Errorf("heartbeat %d came after %v, want 54 s to 60 s", i, d)
			}
		}
		if n := events.Count(ports.EventLeaseGranted); n != len(asked) || n < 60 {
			t.Errorf("%d leases were told of, %d granted, want at least 60", n, len(asked))
		}
	})
}

// The deadline of a short heartbeat: before, at and after it.
func TestHeartbeatsGoOverAnOpenStreamWhereTheyAreShort(t *testing.T) {
	for _, c := range []struct {
		name      string
		heartbeat time.Duration
		keep      bool
		first     bool // also the first registration
		later     bool
	}{
		{"just short", shortHeartbeat - 1, false, false, true},
		{"just long", shortHeartbeat, false, false, false},
		{"longer", shortHeartbeat + 1, false, false, false},
		{"long, and the operator says so", time.Minute, true, true, true},
	} {
		porttest.FakeTime(t, func(t *testing.T) {
			var lives []context.Context
			native := porttest.Native{
				OnRegister: func(ctx context.Context, _ ports.PeerID, _ ports.Registration) (ports.Lease, error) {
					lives = append(lives, ports.OpenStream(ctx))
					return ports.Lease{TTL: 2 * time.Minute, Heartbeat: c.heartbeat}, nil
				},
				OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
			}
			x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, PinNatives(map[ports.PeerID]ports.Native{"n": native}), func() ports.Registration {
				return ports.Registration{PeerID: "me", Addr: "here"}
			}, &porttest.Recorder{})
			if err != nil {
				t.Fatal(err)
			}
			x.KeepStreams = c.keep
			stop := running(t, x)
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if first, later := lives[0] != nil, lives[2] != nil; first != c.first || later != c.later || lives[2] != lives[1] {
				t.Errorf("%s: an open stream at first %v, later %v", c.name, first, later)
			}
			stop()
			if life := lives[2]; life != nil && life.Err() == nil {
				t.Errorf("%s: the stream outlives the lease", c.name)
			}
		})
	}
}

func TestOneNativesDeathLeavesTheOthersLeaseAloneAndIsTriedAgainWithinASecond(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		grant := func(int) (ports.Lease, error) { return domain.DefaultTTLPolicy().Grant(time.Now()), nil }
		dies, stays := &scriptedNative{answer: grant}, &scriptedNative{answer: grant}
		events, stop := runIndexer(t, time.Minute, map[ports.PeerID]ports.Native{"dies": dies, "stays": stays})
		defer stop()
		time.Sleep(10 * time.Second)
		dies.mu.Lock()
		dies.answer = func(int) (ports.Lease, error) { return ports.Lease{}, errors.New("connection refused") }
		died := time.Now()
		close(dies.lost)
		dies.mu.Unlock()
		time.Sleep(time.Second)
		if asked := dies.times(); len(asked) < 2 || asked[1].Sub(died) >= time.Second {
			t.Errorf("asked %v, want again within a second of %v", asked, died)
		}
		if events.Count(ports.EventLeaseLost) != 1 {
			t.Errorf("%d leases lost were told of, want 1", events.Count(ports.EventLeaseLost))
		}
		time.Sleep(20 * time.Minute)
		dies.mu.Lock()
		dies.answer = grant
		dies.mu.Unlock()
		back := time.Now()
		time.Sleep(time.Minute)
		if asked := dies.times(); asked[len(asked)-1].Before(back) {
			t.Error("not registered within a minute of a native's return")
		}
		asked := stays.times()
		for i := 1; i < len(asked); i++ {
			if d := asked[i].Sub(asked[i-1]); d > time.Minute {
				t.Errorf("the other lease waited %v", d)
			}
		}
	})
}

func TestANativeThatNeverAnswersIsHeardFromOnceAHeartbeat(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		silent := &scriptedNative{answer: func(int) (ports.Lease, error) {
			time.Sleep(ports.ExchangeTimeout)
			return ports.Lease{Unconfirmed: true}, nil
		}}
		events, stop := runIndexer(t, time.Minute, map[ports.PeerID]ports.Native{"n": silent})
		time.Sleep(10 * time.Minute)
		stop()
		if n := len(silent.times()); n < 10 || n > 12 {
			t.Errorf("registered %d times in ten minutes, want once a heartbeat", n)
		}
		if events.Count(ports.EventLeaseUnconfirmed) == 0 || events.Count(ports.EventLeaseFailed) != 0 {
			t.Error("silence is told of as something else than an unconfirmed lease")
		}
	})
}

func TestANativeThatDropsEveryConnectionIsNotFlooded(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		native := &scriptedNative{}
		native.answer = func(int) (ports.Lease, error) {
			close(native.lost)
			return domain.DefaultTTLPolicy().Grant(time.Now()), nil
		}
		_, stop := runIndexer(t, time.Minute, map[ports.PeerID]ports.Native{"n": native})
		time.Sleep(10 * time.Minute)
		stop()
		if n := len(native.times()); n < 10 || n > 30 {
			t.Errorf("registered %d times in ten minutes, want a few more than ten", n)
		}
	})
}

// moving is an indexer whose address changes.
type moving struct {
	*Indexer
	addr atomic.Value
}

func newMoving(t *testing.T, natives *Natives) *moving {
	m := &moving{}
	m.addr.Store("old")
	x, err := NewIndexer(domain.Rules{Self: "me", Policy: domain.DefaultTTLPolicy()}, nil, natives, func() ports.Registration {
		addr := m.addr.Load().(string)
		return ports.Registration{PeerID: "me", Addr: addr, Addrs: []string{addr}}
	}, &porttest.Recorder{})
	if err != nil {
		t.Fatal(err)
	}
	m.Indexer = x
	return m
}

func TestAMoveRegistersAtOnceWithEveryNativeThatHasOtherAddresses(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		var mu sync.Mutex
		got := make(map[ports.PeerID][]string)
		slow := make(chan struct{})
		native := func(id ports.PeerID, err error) ports.Native {
			return porttest.Native{OnRegister: func(ctx context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
				mu.Lock()
				got[id] = append(got[id], r.Addr)
				first := len(got[id]) == 1
				mu.Unlock()
				if id == "slow" && first {
					<-slow
				}
				return domain.DefaultTTLPolicy().Grant(time.Now()), err
			}}
		}
		m := newMoving(t, PinNatives(map[ports.PeerID]ports.Native{
			"a": native("a", nil), "b": native("b", nil), "slow": native("slow", nil), "fails": native("fails", errors.New("no route to host")),
		}))
		defer running(t, m)()
		expect := func(when string, want map[ports.PeerID][]string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for id, addrs := range want {
				if !slices.Equal(got[id], addrs) {
					t.Errorf("%s %s was told %v, want %v", when, id, got[id], addrs)
				}
			}
			clear(got)
		}
		old, moved := []string{"old"}, []string{"new"}
		expect("at the start", map[ports.PeerID][]string{"a": old, "b": old, "slow": old, "fails": old})
		m.Moved() // and has the addresses that it had
		expect("where nothing changed", map[ports.PeerID][]string{"a": nil, "b": nil, "slow": nil, "fails": old})
		m.addr.Store("new")
		m.Moved()
		expect("at once", map[ports.PeerID][]string{"a": moved, "b": moved, "slow": nil, "fails": moved})
		close(slow) // what it was told had been said before the move
		expect("after its answer", map[ports.PeerID][]string{"slow": moved})
		m.Moved()
		expect("once more", map[ports.PeerID][]string{"a": nil, "b": nil, "slow": nil, "fails": moved})
	})
}

func TestAMoveHasFoundNativesThatFailedTriedAtOnce(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		ids := net.natives(2, down)
		net.find(ids...)
		m := newMoving(t, FindNatives("me", nil, net, net))
		defer running(t, m)()
		time.Sleep(time.Hour + 100*time.Millisecond)
		net.set(grants, ids...)
		net.find(append(net.natives(1, grants), ids...)...)
		m.Moved()
		synctest.Wait()
		if got := net.holding(); !slices.Contains(got, ids[0]) || !slices.Contains(got, ids[1]) {
			t.Errorf("right after the move it has leases at %v, want those at %v", got, ids)
		}
		time.Sleep(2 * lookPause)
		if got := net.holding(); len(got) != 3 {
			t.Errorf("soon after the move it has leases at %v, want one at the native that is found now, too", got)
		}
	})
}

func TestHowLongAnIndexerIsPatient(t *testing.T) {
	s := time.Second
	for _, c := range []struct {
		name             string
		left, took, want time.Duration
	}{
		{"no lease to lose", 0, s, ports.ExchangeTimeout},
		{"plenty of time", 60 * s, s, ports.ExchangeTimeout},
		{"a heartbeat on time", 6 * s, s / 10, 3 * s},
		{"a native far away", 6 * s, 2 * s, 4 * s},
		{"a native that takes very long", 6 * s, 4 * s, 4500 * time.Millisecond},
		{"a lease that has almost ended", 100 * time.Millisecond, s, 75 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := renewal{heartbeat: time.Minute, took: c.took}
			if got := ports.Patience(r.patient(t.Context(), c.left), ports.ExchangeTimeout); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestRetriesComeSoonerWhileALeaseLasts(t *testing.T) {
	r := renewal{heartbeat: time.Minute, failures: 9}
	for _, c := range []struct{ left, want time.Duration }{{0, 30 * time.Second}, {1, time.Second}, {30 * time.Second, 10 * time.Second}, {time.Hour, 30 * time.Second}} {
		if got := r.after(ports.Lease{}, errDown, c.left, 0); got != c.want {
			t.Errorf("with %v left it waits %v, want %v", c.left, got, c.want)
		}
	}
}

// deadPaths is a native whose path dies before each registration. It gets the registration over
// another connection, which takes a while.
type deadPaths struct {
	offersNothing
	mu    sync.Mutex
	until time.Time
	least time.Duration // what was left of the lease before a registration
}

const redials = 2 * time.Second

func (n *deadPaths) Register(ctx context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
	n.mu.Lock()
	first := n.until.IsZero()
	n.mu.Unlock()
	if !first {
		time.Sleep(ports.Patience(ctx, ports.ExchangeTimeout) + redials)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if left := time.Until(n.until); !first && left < n.least {
		n.least = left
	}
	lease := domain.DefaultTTLPolicy().Grant(time.Now())
	n.until = time.Now().Add(lease.TTL)
	return lease, nil
}

func TestPathsThatDieWithoutAWordCostNoLease(t *testing.T) {
	key := prooftest.NewSigner(t)
	for name, signer := range map[string]ports.Signer{"plain": nil, "signed": key} {
		t.Run(name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				native := &deadPaths{least: time.Hour}
				x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy()}, signer, PinNatives(map[ports.PeerID]ports.Native{"n": native}),
					func() ports.Registration { return ports.Registration{PeerID: key.PeerID, Addr: "here"} }, &porttest.Recorder{})
				if err != nil {
					t.Fatal(err)
				}
				stop := running(t, x)
				time.Sleep(3 * time.Hour)
				stop()
				if native.least <= 0 {
					t.Errorf("a registration came %v after the lease had ended", -native.least)
				}
				t.Logf("at least %v was left", native.least)
			})
		})
	}
}

func TestAMoveDuringALeaveWaitsForNobody(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		m := newMoving(t, PinNatives(map[ports.PeerID]ports.Native{"n": porttest.Native{
			OnRegister: func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
				return domain.DefaultTTLPolicy().Grant(time.Now()), nil
			},
			OnLeave: func(ctx context.Context, _ ports.PeerID, _ []byte) error { <-ctx.Done(); return ctx.Err() },
		}}))
		stop := running(t, m)
		synctest.Wait()
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		time.Sleep(leaveTimeout / 2)
		began := time.Now()
		m.Moved()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		<-stopped
	})
}
