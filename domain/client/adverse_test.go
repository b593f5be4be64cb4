package client

// Natives that answer late, out of order or in between, and natives that lie.

import (
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// startIndexer runs an indexer that signs, on a clock that its natives set, until stop is called.
func startIndexer(t *testing.T, key *prooftest.Signer, clock *domain.Clock, natives map[ports.PeerID]ports.Native) (stop func()) {
	t.Helper()
	clock.Abstain(domain.EnoughNatives)
	x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy(), Clock: clock, Proofs: proof.NewVerifier()}, key, PinNatives(natives),
		func() ports.Registration { return ports.Registration{PeerID: key.PeerID, Addr: "a"} }, &porttest.Recorder{})
	if err != nil {
		t.Fatal(err)
	}
	return running(t, x)
}

// bareRegistry is a native that grants, and passes nothing on.
func bareRegistry(t *testing.T, self ports.PeerID) *domain.Registry {
	t.Helper()
	rules := domain.Rules{Self: self, Policy: domain.DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil }}
	r, err := domain.NewRegistry(rules, domain.Settings{}, memory.NewStore(rules.Acceptable), nil, &porttest.Recorder{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// One of two natives asks for a heartbeat a second.
func TestOneNativeDoesNotHaveAllOthersBeaten(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		honest := bareRegistry(t, "n1")
		eager := bareRegistry(t, "n2")
		var mu sync.Mutex
		counts := map[string]int{}
		var worst time.Duration
		last := time.Now()
		native := func(name string, r *domain.Registry, heartbeat time.Duration) ports.Native {
			return porttest.Native{
				OnRegister: func(ctx context.Context, s ports.PeerID, reg ports.Registration) (ports.Lease, error) {
					mu.Lock()
					counts[name]++
					if name == "honest" {
						worst, last = max(worst, time.Since(last)), time.Now()
						if l, ok := r.Get(s); !ok && counts[name] > 3 {
							t.Errorf("lost at %v", time.Now())
						} else if ok && l.Remaining < 5*time.Second {
							t.Errorf("%v left", l.Remaining)
						}
					}
					mu.Unlock()
					l, err := r.Register(ctx, s, reg)
					if heartbeat > 0 {
						l.Heartbeat = heartbeat
					}
					return l, err
				},
				OnLeave: r.Leave,
			}
		}
		stop := startIndexer(t, key, domain.NewClock(nil, nil), map[ports.PeerID]ports.Native{"n1": native("honest", honest, 0), "n2": native("eager", eager, time.Second)})
		time.Sleep(3 * time.Hour)
		stop()
		if counts["honest"] > 3*70+5 {
			t.Errorf("honest native got %d registrations in 3 h, eager one %d", counts["honest"], counts["eager"])
		}
		if counts["eager"] < 3*3500 {
			t.Errorf("eager got %d", counts["eager"])
		}
		t.Log(counts, worst)
	})
}

// The clock is 2 h ahead, and the first native is one of the seed, which answers nothing.
func TestSilenceDoesNotSayWhatTimeItIs(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r := bareRegistry(t, "n1")
		seed := porttest.Native{
			OnRegister: func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
				return ports.Lease{Unconfirmed: true}, nil
			},
			OnLeave: func(context.Context, ports.PeerID, []byte) error { return ports.ErrNotOffered },
		}
		began := time.Now()
		real := porttest.Native{
			OnRegister: func(ctx context.Context, s ports.PeerID, reg ports.Registration) (ports.Lease, error) {
				if time.Since(began) < 500*time.Millisecond {
					return ports.Lease{}, errDown // it is just starting
				}
				lease, err := r.Register(ctx, s, reg)
				lease.Clocks = domain.EnoughNatives // it hears another
				return lease, err
			},
			OnLeave: r.Leave,
		}
		clock := domain.NewClock(func() time.Time { return time.Now().Add(2 * time.Hour) }, nil) // of the indexer
		stop := startIndexer(t, key, clock, map[ports.PeerID]ports.Native{"seed": seed, "n1": real})
		time.Sleep(10 * time.Minute)
		l, ok := r.Get(key.PeerID)
		stop()
		if !ok || l.Proof == nil {
			t.Errorf("after 10 min it is listed %v, with proof %v: what it signs does not count for 2 h", ok, l.Proof != nil)
		}
	})
}

// Between two look-ups of a PeerID, another PeerID is surely not found.
func TestNotFoundKeepsItsOwnDoubt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		ids := net.natives(1, grants)
		net.find(ids...)
		f := NewFinder(testRules, FindNatives("me", nil, net, net), newStore(), &porttest.Recorder{})
		defer running(t, f)()
		net.say = func(_, id ports.PeerID) (ports.Answer, error) {
			if id == "x" {
				return ports.Answer{Condition: ports.ConditionWarming}, ports.ErrNotFound
			}
			return ports.Answer{}, ports.ErrNotFound
		}
		first, _ := f.LookUp(t.Context(), "x")
		_, _ = f.LookUp(t.Context(), "y")
		again, err := f.LookUp(t.Context(), "x")
		if first.Condition != ports.ConditionWarming || again.Condition != first.Condition {
			t.Errorf("x: first %q, then %q (%v)", first.Condition, again.Condition, err)
		}
	})
}

// The finder refuses indexers that do not sign, and the native tells of such an indexer.
func TestAnAnswerThatDoesNotCountHereIsNoFailure(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		net := newNetwork()
		ids := net.natives(1, grants)
		net.find(ids...)
		rules := testRules
		rules.Plain = func() domain.Plain { return domain.PlainRefuse }
		n := FindNatives("me", nil, net, net)
		f := NewFinder(rules, n, newStore(), &porttest.Recorder{})
		defer running(t, f)()
		net.knows("", "x")
		_, _ = f.LookUp(t.Context(), "x")
		if s := n.best()[0].standing; s == fails {
			t.Errorf("it answered, and is held to fail")
		}
		synctest.Wait()
	})
}

// One of four natives says that another process has taken the place of this process.
func TestOneLyingNativeDoesNotStopAnIndexer(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		natives := map[ports.PeerID]ports.Native{"rogue": porttest.Native{
			OnRegister: func(_ context.Context, _ ports.PeerID, reg ports.Registration) (ports.Lease, error) {
				if reg.Proof.Tick.Seq == asks {
					return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
				}
				return ports.Lease{}, ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since")
			},
			OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
			OnLookUp: func(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
				e := key.Says(t, time.Now().Add(-time.Hour), 2, "a").Entry(0) // of before
				return ports.Answer{Listed: ports.Listed{Entry: e, Remaining: time.Minute}}, nil
			},
		}}
		var honest []*domain.Registry
		for _, id := range []ports.PeerID{"n1", "n2", "n3"} {
			r := bareRegistry(t, id)
			honest = append(honest, r)
			natives[id] = r
		}
		stop := startIndexer(t, key, domain.NewClock(nil, nil), natives)
		time.Sleep(5 * time.Minute)
		for i, r := range honest {
			if _, ok := r.Get(key.PeerID); !ok {
				t.Errorf("honest native %d does not list it", i+1)
			}
		}
		stop()
	})
}

// Natives want to hear of an indexer at different paces, and change their minds.
func TestNoLeaseAndNoProofLapsesWhateverPacesNativesAskFor(t *testing.T) {
	for seed := range uint64(40) {
		porttest.FakeTime(t, func(t *testing.T) {
			rnd := mrand.New(mrand.NewPCG(seed, 1))
			pk, _, _ := crypto.GenerateEd25519Key(rand.Reader)
			pid, _ := peer.IDFromPrivateKey(pk)
			signer, err := proof.NewSigner(pk, "")
			if err != nil {
				t.Fatal(err)
			}
			self := ports.PeerID(pid.String())
			clock := domain.NewClock(nil, nil)
			clock.Abstain(domain.EnoughNatives)
			given := map[ports.PeerID]ports.Native{}
			verifier := proof.NewVerifier()
			var mu sync.Mutex // of rnd and worst: the natives are asked at the same time
			worst := time.Duration(1 << 60)
			for i := range 1 + rnd.IntN(3) {
				var record []byte
				var ends, proven time.Time
				name := ports.PeerID(fmt.Sprint("n", i))
				hb := time.Duration(1+rnd.IntN(60)) * time.Second
				ttl := hb + max(hb/10, 300*time.Millisecond)
				last := time.Now()
				sent := 0
				given[name] = porttest.Native{OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
					mu.Lock()
					defer mu.Unlock()
					if r.Proof.Record == nil && r.Proof.Tick.Seq == asks {
						return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
					}
					now := time.Now()
					if r.Proof.Record != nil {
						record = r.Proof.Record
					}
					claim, err := verifier.Verify(record, r.Proof.Tick)
					if err != nil {
						t.Error(err)
					}
					if sent > 0 {
						worst = min(worst, ends.Sub(now), proven.Sub(now))
						if !now.Before(ends) || !now.Before(proven) {
							t.Errorf("seed %d: %s at heartbeat %v: came %v after the last, the lease %v and the proof %v before its end", seed, name, hb, now.Sub(last), ends.Sub(now), proven.Sub(now))
						}
					}
					sent++
					if sent%50 == 0 {
						hb = time.Duration(1+rnd.IntN(60)) * time.Second
						ttl = hb + max(hb/10, 300*time.Millisecond)
					}
					last, ends, proven = now, now.Add(ttl), claim.ExpiresAt(r.Proof.Tick.Step)
					return ports.Lease{TTL: ttl, Heartbeat: hb, Now: now}, nil
				}, OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil }}
			}
			var events porttest.Recorder
			x, err := NewIndexer(domain.Rules{Self: self, Policy: domain.DefaultTTLPolicy(), Clock: clock}, signer, PinNatives(given),
				func() ports.Registration { return ports.Registration{PeerID: self, Addr: "here"} }, &events)
			if err != nil {
				t.Fatal(err)
			}
			stop := running(t, x)
			time.Sleep(3 * time.Hour)
			stop()
			if seed < 5 {
				t.Logf("seed %d: %d natives, nearest %v", seed, len(given), worst)
			}
		})
	}
}

// Every native says superseded, and has nothing to show for it, or hangs when it is asked.
func TestWhoIsToldOfARivalWithoutProofNeitherStopsNorFloods(t *testing.T) {
	for name, lookUp := range map[string]func(context.Context) (ports.Answer, error){
		"not found":   func(context.Context) (ports.Answer, error) { return ports.Answer{}, ports.ErrNotFound },
		"not offered": func(context.Context) (ports.Answer, error) { return ports.Answer{}, ports.ErrNotOffered },
		"hangs": func(ctx context.Context) (ports.Answer, error) {
			select {
			case <-ctx.Done():
			case <-time.After(ports.ExchangeTimeout):
			}
			return ports.Answer{}, errDown
		},
	} {
		porttest.FakeTime(t, func(t *testing.T) {
			pk, _, _ := crypto.GenerateEd25519Key(rand.Reader)
			pid, _ := peer.IDFromPrivateKey(pk)
			signer, err := proof.NewSigner(pk, "")
			if err != nil {
				t.Fatal(err)
			}
			self := ports.PeerID(pid.String())
			var registered, asked atomic.Int64
			native := porttest.Native{OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
				if r.Proof.Record == nil && r.Proof.Tick.Seq == asks {
					return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
				}
				registered.Add(1)
				return ports.Lease{}, ports.Refuse(ports.CodeSuperseded, "another one")
			}, OnLookUp: func(ctx context.Context, _, _ ports.PeerID) (ports.Answer, error) {
				asked.Add(1)
				return lookUp(ctx)
			}, OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil }}
			clock := domain.NewClock(nil, nil)
			clock.Abstain(domain.EnoughNatives)
			var events porttest.Recorder
			x, err := NewIndexer(domain.Rules{Self: self, Policy: domain.DefaultTTLPolicy(), Clock: clock, Proofs: proof.NewVerifier()}, signer,
				PinNatives(map[ports.PeerID]ports.Native{"n": native}), func() ports.Registration { return ports.Registration{PeerID: self, Addr: "here"} }, &events)
			if err != nil {
				t.Fatal(err)
			}
			stop := running(t, x)
			time.Sleep(time.Hour)
			t.Logf("%s: registered %d times, asked %d times, superseded %v", name, registered.Load(), asked.Load(), x.Superseded())
			if x.Superseded() || registered.Load() < 55 || registered.Load() > 70 {
				t.Errorf("%s: registered %d times in an hour, superseded %v", name, registered.Load(), x.Superseded())
			}
			began := time.Now()
			stop()
			if took := time.Since(began); took > leaveTimeout {
				t.Errorf("%s: it stopped after %v", name, took)
			}
		})
	}
}
