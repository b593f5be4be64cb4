package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// judges are natives that judge the address "six". A wide native can show it. A narrow native has no
// route to it. A native that is down does not answer.
type judges struct {
	mu      sync.Mutex
	follow  bool             // they tell each other of records
	does    map[string]judge // by name
	told    map[int64]bool   // Seqs of records that a native has taken
	current map[string][]string
	left    map[string]time.Time // the end of the lease at each
}

type judge struct {
	wide, down bool
	slow       time.Duration
}

func (j *judges) native(name string) ports.Native {
	verifier := proof.NewVerifier()
	held := map[int64][]string{}
	return porttest.Native{
		OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
			if r.Proof.Record != nil {
				j.mu.Lock()
				slow := j.does[name].slow
				j.mu.Unlock()
				time.Sleep(slow)
			}
			j.mu.Lock()
			defer j.mu.Unlock()
			is := j.does[name]
			switch seq := r.Proof.Tick.Seq; {
			case is.down:
				return ports.Lease{}, errors.New("down")
			case seq == asks:
				return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
			case r.Proof.Record != nil:
				claim, err := verifier.Read(r.Proof.Record)
				if err != nil {
					return ports.Lease{}, err
				}
				if slices.Contains(claim.Addrs, "six") && !is.wide {
					refusal := ports.Refuse(ports.CodeAddrInvalid, "no route")
					refusal.Unshown = []string{"six"}
					return ports.Lease{}, refusal
				}
				held[seq] = claim.Addrs
				j.told[seq] = true
			case held[seq] == nil && !(j.follow && j.told[seq]):
				return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
			case held[seq] == nil:
				held[seq] = []string{"here", "six"}
			}
			j.current[name] = held[r.Proof.Tick.Seq]
			j.left[name] = time.Now().Add(domain.DefaultTTLPolicy().TTL)
			return domain.DefaultTTLPolicy().Grant(time.Now()), nil
		},
		OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
	}
}

// lists returns the addresses of the lease at a native, nil without a lease.
func (j *judges) lists(name string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !time.Now().Before(j.left[name]) {
		return nil
	}
	return j.current[name]
}

func (j *judges) set(name string, is judge) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.does[name] = is
}

func TestAnAddressIsLeftOutIfNoNativeTakesIt(t *testing.T) {
	with, without := []string{"here", "six"}, []string{"here"}
	wide, narrow, down := judge{wide: true}, judge{}, judge{down: true}
	slowly := judge{wide: true, slow: 2 * time.Second}
	for _, c := range []struct {
		name   string
		does   map[string]judge
		follow bool
		want   map[string][]string
	}{
		{"a narrow native alone", map[string]judge{"a": narrow}, false, map[string][]string{"a": without}},
		{"narrow natives alone", map[string]judge{"a": narrow, "b": narrow}, true, map[string][]string{"a": without, "b": without}},
		{"a wide native beside", map[string]judge{"a": narrow, "b": wide, "c": narrow}, true, map[string][]string{"a": with, "b": with, "c": with}},
		{"a wide native that dials back for long", map[string]judge{"a": narrow, "b": slowly}, true, map[string][]string{"a": with, "b": with}},
		{"a native that is down", map[string]judge{"a": narrow, "b": down}, true, map[string][]string{"a": without}},
		{"natives that do not hear each other", map[string]judge{"a": narrow, "b": wide}, false, map[string][]string{"b": with}},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := prooftest.NewSigner(t)
			porttest.FakeTime(t, func(t *testing.T) {
				j := &judges{follow: c.follow, does: c.does, told: map[int64]bool{}, current: map[string][]string{}, left: map[string]time.Time{}}
				natives := map[ports.PeerID]ports.Native{}
				for name := range c.does {
					natives[ports.PeerID(name)] = j.native(name)
				}
				x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy()}, key, PinNatives(natives),
					func() ports.Registration {
						return ports.Registration{PeerID: key.PeerID, Addr: "here", Addrs: with}
					}, &porttest.Recorder{})
				if err != nil {
					t.Fatal(err)
				}
				stop := running(t, x)
				time.Sleep(15 * time.Second)
				for range 150 * 6 { // two and a half hours: records follow each other
					for name := range c.does {
						if got := j.lists(name); !slices.Equal(got, c.want[name]) {
							t.Fatalf("%s lists %q, want %q", name, got, c.want[name])
						}
					}
					time.Sleep(10 * time.Second)
				}
				stop()
			})
		})
	}
}

// The only native that takes an address dies. The others are told a record without it at once.
func TestAnAddressIsLeftOutWhenTheOnlyNativeThatTakesItDies(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		j := &judges{does: map[string]judge{"a": {}, "b": {wide: true}}, told: map[int64]bool{}, current: map[string][]string{}, left: map[string]time.Time{}}
		x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy()}, key, PinNatives(map[ports.PeerID]ports.Native{"a": j.native("a"), "b": j.native("b")}),
			func() ports.Registration {
				return ports.Registration{PeerID: key.PeerID, Addr: "here", Addrs: []string{"here", "six"}}
			}, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		stop := running(t, x)
		defer stop()
		time.Sleep(10 * time.Second)
		if got := j.lists("a"); got != nil {
			t.Errorf("the narrow native lists %q", got)
		}
		j.set("b", judge{down: true})
		absent := time.Duration(0)
		for range 1200 {
			time.Sleep(100 * time.Millisecond)
			if j.lists("a") == nil && j.lists("b") == nil {
				absent += 100 * time.Millisecond
			}
		}
		if got := j.lists("a"); !slices.Equal(got, []string{"here"}) || absent > 0 {
			t.Errorf("the narrow native lists %q, after %v without a lease", got, absent)
		}
	})
}

// A native takes every record, and tells nobody of it. The others cannot hear of the record there. So
// they are told a record without the address as soon as they say that they do not know its lease.
func TestANativeThatTellsNobodyKeepsNoIndexerFromTheOthers(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		j := &judges{does: map[string]judge{"a": {}, "b": {}, "fake": {wide: true}}, told: map[int64]bool{}, current: map[string][]string{}, left: map[string]time.Time{}}
		natives := map[ports.PeerID]ports.Native{}
		for name := range j.does {
			n := j.native(name).(porttest.Native)
			n.OnLookUp = func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
				var a ports.Answer
				for _, other := range []string{"a", "b"} {
					if name != "fake" && j.lists(other) != nil {
						a.Native, a.Remaining, a.Natives = ports.PeerID(other), time.Minute, append(a.Natives, ports.PeerID(other))
					}
				}
				if a.Native == "" {
					return a, ports.ErrNotFound
				}
				return a, nil
			}
			natives[ports.PeerID(name)] = n
		}
		x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy()}, key, PinNatives(natives),
			func() ports.Registration {
				return ports.Registration{PeerID: key.PeerID, Addr: "here", Addrs: []string{"here", "six"}}
			}, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		defer running(t, x)()
		began := time.Now()
		for j.lists("a") == nil && j.lists("b") == nil && time.Since(began) < 10*time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if took, most := time.Since(began), maxMisses*2*newsTime+2*tellTime; took > most {
			t.Errorf("after %v it is listed at %q and %q", took, j.lists("a"), j.lists("b"))
		}
	})
}

// A native that does not answer holds up no other for longer than a lease there lasts.
func TestTheWordOfOtherNativesIsWaitedForNoLongerThanALeaseLasts(t *testing.T) {
	for slack, want := range map[time.Duration]time.Duration{time.Second: 750 * time.Millisecond, 6 * time.Second: judgeTime} {
		porttest.FakeTime(t, func(t *testing.T) {
			key := prooftest.NewSigner(t)
			policy := domain.TTLPolicy{TTL: 2*time.Second + slack, Heartbeat: 2 * time.Second, Refresh: time.Second}
			x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: policy}, key, PinNatives(map[ports.PeerID]ports.Native{"a": nil}), nil, &porttest.Recorder{})
			if err != nil {
				t.Fatal(err)
			}
			x.unshown.asks("a")
			x.unshown.asks("down")
			began := time.Now()
			left, _ := x.unshown.denied(t.Context(), "a", []string{"here", "six"}, []string{"six"})
			if took := time.Since(began); !left || took != want {
				t.Errorf("with a slack of %v it left the address out: %v, after %v", slack, left, took)
			}
		})
	}
}
