package domain

// What comes late, out of order, in between, or is a lie.

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
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func startIndexer(t *testing.T, key *prooftest.Signer, clock *Clock, natives map[ports.PeerID]ports.Native) (stop func()) {
	t.Helper()
	clock.Abstain()
	x, err := NewIndexer(Config{Self: key.PeerID, Policy: DefaultTTLPolicy(), Clock: clock, Proofs: proof.NewVerifier()}, key, PinNatives(natives),
		func() ports.Registration { return ports.Registration{PeerID: key.PeerID, Addr: "a"} }, &porttest.Recorder{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = x.Run(ctx) }()
	return func() { cancel(); <-done }
}

func bareRegistry(t *testing.T, self ports.PeerID, change func(*Config)) (*Registry, *porttest.Recorder) {
	t.Helper()
	rec := &porttest.Recorder{}
	cfg := Config{Self: self, Policy: DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil }}
	if change != nil {
		change(&cfg)
	}
	r, err := NewRegistry(cfg, emptyStore{}, nil, rec)
	if err != nil {
		t.Fatal(err)
	}
	return r, rec
}

// One of two natives asks for a heartbeat a second.
func TestOneNativeDoesNotHaveAllOthersBeaten(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		honest, _ := bareRegistry(t, "n1", nil)
		eager, _ := bareRegistry(t, "n2", nil)
		var mu sync.Mutex
		counts := map[string]int{}
		var worst time.Duration
		last := time.Now()
		native := func(name string, r *Registry, heartbeat time.Duration) ports.Native {
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
		stop := startIndexer(t, key, NewClock(nil), map[ports.PeerID]ports.Native{"n1": native("honest", honest, 0), "n2": native("eager", eager, time.Second)})
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
		r, _ := bareRegistry(t, "n1", nil)
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
				return r.Register(ctx, s, reg)
			},
			OnLeave: r.Leave,
		}
		clock := NewClock(func() time.Time { return time.Now().Add(2 * time.Hour) }) // of the indexer
		stop := startIndexer(t, key, clock, map[ports.PeerID]ports.Native{"seed": seed, "n1": real})
		time.Sleep(10 * time.Minute)
		l, ok := r.Get(key.PeerID)
		stop()
		if !ok || l.Proof == nil {
			t.Errorf("after 10 min it is listed %v, with proof %v: what it signs does not count for 2 h", ok, l.Proof != nil)
		}
	})
}

// slowVerifier has something happen while a signature is checked.
type slowVerifier struct {
	ports.Verifier
	meanwhile func()
}

func (v *slowVerifier) Verify(record []byte, tick ports.Tick) (*ports.Claim, error) {
	claim, err := v.Verifier.Verify(record, tick)
	if f := v.meanwhile; f != nil {
		v.meanwhile = nil
		f()
	}
	return claim, err
}

// The leave comes while the registration's signature is checked.
func TestARegistrationThatIsUnderWayDoesNotUndoALeave(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		v := &slowVerifier{Verifier: proof.NewVerifier()}
		r, _ := bareRegistry(t, "n1", func(c *Config) { c.Proofs = v })
		says := key.Says(t, time.Now(), 1, "a")
		leave := key.Leaves(t, time.Now().Add(time.Millisecond), 1)
		v.meanwhile = func() {
			if err := r.Leave(t.Context(), key.PeerID, leave); err != nil {
				t.Error(err)
			}
		}
		lease, err := r.Register(t.Context(), key.PeerID, says.Registration(0))
		if _, ok := r.Get(key.PeerID); ok {
			t.Errorf("it has left, which was signed later than what it is listed for (%+v, %v)", lease, err)
		}
	})
}

// So does that of a newer process.
func TestARegistrationThatIsUnderWayDoesNotUndoANewerOne(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		v := &slowVerifier{Verifier: proof.NewVerifier()}
		r, _ := bareRegistry(t, "n1", func(c *Config) { c.Proofs = v })
		older := key.Says(t, time.Now(), 1, "a")
		newer := key.Says(t, time.Now().Add(time.Millisecond), 2, "b")
		v.meanwhile = func() {
			if _, err := r.Register(t.Context(), key.PeerID, newer.Registration(0)); err != nil {
				t.Error(err)
			}
		}
		_, err := r.Register(t.Context(), key.PeerID, older.Registration(0))
		if l, _ := r.Get(key.PeerID); l.Addr != "b" || err == nil {
			t.Errorf("listed at %s, and the older process is told %v", l.Addr, err)
		}
	})
}

// It is late by 4 s, in a table that it fills with seven others.
func TestWhoIsRememberedInAFullTableIsLetInAgain(t *testing.T) {
	keys := prooftest.NewSigners(t, 8)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "n1", func(c *Config) { c.Bounds.Entries = 8 })
		x := keys[0].Says(t, time.Now(), 1, "a")
		register := func(reg ports.Registration) error {
			_, err := r.Register(t.Context(), reg.PeerID, reg)
			return err
		}
		plain := func(i int) ports.Registration {
			id := ports.PeerID(fmt.Sprint("p", i))
			return ports.Registration{PeerID: id, Addr: "a"}
		}
		if err := register(x.Registration(0)); err != nil {
			t.Fatal(err)
		}
		for at := range 70 { // x stands still for a little longer than its lease
			if at%30 == 0 {
				for i := range 7 {
					if err := register(plain(i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(time.Second)
			r.sweep()
		}
		if err := register(x.Registration(1)); err != nil {
			t.Errorf("%d of 8 are held, %d listed, and x, who is one of the 8, is told %v", r.table.len(), r.table.listed.Load(), err)
		}
		if _, ok := r.Get(keys[0].PeerID); !ok || r.table.len() > 8 {
			t.Errorf("listed %v, %d records", ok, r.table.len())
		}
	})
}

// The same of what a native tells.
func TestWhoIsRememberedInAFullTableIsToldAgain(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", func(c *Config) { c.Bounds.Entries = 4 })
		x := key.Says(t, time.Now(), 1, "a")
		tell := func(step uint32) {
			e := x.Entry(step)
			e.Native = "n1"
			r.take("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 66 * time.Second}}})
		}
		tell(0)
		for at := range 70 {
			if at%30 == 0 {
				for i := range 3 {
					id := ports.PeerID(fmt.Sprint("p", i))
					if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "a"}); err != nil {
						t.Fatal(err)
					}
				}
			}
			time.Sleep(time.Second)
			r.sweep()
		}
		tell(1)
		if _, ok := r.Get(key.PeerID); !ok {
			t.Errorf("%d records of 4, one of them its own, and it is not listed", r.table.len())
		}
	})
}

// One leaves again and again.
func TestLeavesDoNotFillTheWheel(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		for i := range 500 {
			time.Sleep(10 * time.Millisecond)
			if err := r.Leave(t.Context(), key.PeerID, key.Leaves(t, time.Now().Add(time.Duration(i)*time.Millisecond), 1)); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for _, items := range r.table.shard(key.PeerID).wheel.slots {
			n += len(items)
		}
		if n > 5 {
			t.Errorf("one record is %d times in the wheel, for an hour", n)
		}
		for range 2 * 3600 {
			time.Sleep(time.Second)
			r.sweep()
		}
		if r.table.len() != 0 {
			t.Errorf("%d records after all has ended", r.table.len())
		}
	})
}

// Another native renews with the record before, as it has not heard of the new one.
func TestATickOfTheRecordBeforeIsOlder(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, rec := bareRegistry(t, "me", nil)
		before := key.Says(t, time.Now(), 1, "a")
		time.Sleep(time.Minute)
		after := key.Says(t, time.Now(), 1, "b")
		tell := func(from ports.PeerID, w prooftest.Word, step uint32, whole bool) {
			e := w.Entry(step)
			e.Native = from
			if !whole {
				e.Proof = &ports.Proof{Tick: e.Proof.Tick}
			}
			r.take(from, []ports.Change{{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 60 * time.Second}}})
		}
		tell("n1", before, 0, true)
		tell("n2", before, 0, true)
		tell("n1", after, 0, true)
		tell("n2", before, 1, false) // it has not heard of the new one yet
		for _, e := range rec.Of(ports.EventTold) {
			if e.Refused != 0 {
				t.Errorf("refused: %v", e.Err)
			}
		}
		if n := r.lookups.Len(); n != 0 {
			t.Errorf("%d looked up", n)
		}
	})
}

// Between two look-ups of one, another is surely not found.
func TestNotFoundKeepsItsOwnDoubt(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		ids := w.natives(1, grants)
		w.find(ids...)
		f := NewFinder(rulesOfTests, FindNatives("me", nil, w, w), newShelf(), &porttest.Recorder{})
		w.say = func(_, id ports.PeerID) (ports.Answer, error) {
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

// The finder refuses who does not sign, and the native tells of one.
func TestAnAnswerThatDoesNotCountHereIsNoFailure(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		w := newTown()
		ids := w.natives(1, grants)
		w.find(ids...)
		rules := rulesOfTests
		rules.Plain = func() Plain { return PlainRefuse }
		n := FindNatives("me", nil, w, w)
		f := NewFinder(rules, n, newShelf(), &porttest.Recorder{})
		w.knows("", "x")
		_, _ = f.LookUp(t.Context(), "x")
		if s := n.best()[0].standing; s == fails {
			t.Errorf("it answered, and is held to fail")
		}
		synctest.Wait()
	})
}

// Who asked first is gone before the answer.
func TestWhoGoesAwayDoesNotAnswerForTheNatives(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		w := newTown()
		f := NewFollower(r, w, false)
		w.neighbours = []ports.Neighbour{{PeerID: "n1", Watchable: true}}
		f.followed["n1"] = &followed{id: "n1", native: unmoved{w, porttest.Native{OnList: func(ctx context.Context, _ ports.Query) (ports.Page, error) {
			select {
			case <-ctx.Done():
				return ports.Page{}, ctx.Err()
			case <-time.After(10 * time.Millisecond):
				return ports.Page{}, nil
			}
		}}}}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = r.Natives(gone)
		got, _ := r.Natives(t.Context())
		if len(got) != 1 || got[0].RoundTrip == 0 {
			t.Errorf("got %+v", got)
		}
	})
}

type unmoved struct {
	w *town
	porttest.Native
}

func (unmoved) Disconnected() <-chan struct{} { return nil }

// oneEntry is a store that has one entry.
type oneEntry struct {
	emptyStore
	e Entry
}

func (s oneEntry) Get(_ context.Context, id ports.PeerID, than ports.Version) (Entry, error) {
	if id != s.e.PeerID || !s.e.NewerThan(than) {
		return Entry{}, ports.ErrNotFound
	}
	return s.e, nil
}
func (s oneEntry) Joined() <-chan struct{} { return nil }

type noAnnouncer struct{}

func (noAnnouncer) Announce(context.Context, ports.PeerID) error { return nil }
func (noAnnouncer) Listen(func(ports.Announcement)) (func(), error) {
	return func() {}, nil
}

// A native says, without proof, that one who signs has left.
func TestABareLeaveThatIsToldHidesNobodyWhoSigns(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		e := key.Says(t, time.Now(), 1, "a").Entry(0)
		e.Native = "n9" // which this one does not follow
		cfg := Config{Self: "me", Policy: DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil }}
		if err := cfg.ReadProof(&e); err != nil { // as stores do
			t.Fatal(err)
		}
		r, err := NewRegistry(cfg, oneEntry{e: e}, noAnnouncer{}, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		synctest.Wait()
		r.take("rogue", []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{
			Entry: Entry{PeerID: key.PeerID, Native: "rogue", ExpiresAt: time.Now().Add(66 * time.Second), Leave: true}, Remaining: 66 * time.Second}}})
		if _, err := r.LookUp(t.Context(), "somebody", key.PeerID); err != nil {
			t.Errorf("look-up: %v", err)
		}
		cancel()
		<-done
	})
}

// One of four natives says that another process has taken the place of this one.
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
		var honest []*Registry
		for _, id := range []ports.PeerID{"n1", "n2", "n3"} {
			r, _ := bareRegistry(t, id, nil)
			honest = append(honest, r)
			natives[id] = r
		}
		stop := startIndexer(t, key, NewClock(nil), natives)
		time.Sleep(5 * time.Minute)
		for i, r := range honest {
			if _, ok := r.Get(key.PeerID); !ok {
				t.Errorf("honest native %d does not list it", i+1)
			}
		}
		stop()
	})
}

// A lease and its heir, which was signed later, end between two sweeps.
func TestTheNewestRecordIsRememberedAlsoOfAnHeir(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		before := key.Says(t, time.Now(), 1, "a")
		if _, err := r.Register(t.Context(), key.PeerID, before.Registration(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		after := key.Says(t, time.Now(), 1, "a") // the next record, which this native was not reached with
		e := after.Entry(0)
		e.Native = "n1"
		r.take("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 66 * time.Second}}})
		time.Sleep(67 * time.Second)
		r.sweep()
		if got := r.seq(key.PeerID); got != after.Claim.Seq {
			t.Errorf("remembers %d, want %d (older %d)", got, after.Claim.Seq, before.Claim.Seq)
		}
	})
}

// A bare lease that is told outlasts both the lease and what its indexer signed elsewhere.
func TestABareHeirDoesNotKeepOutASignedOne(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		x := key.PeerID
		if _, err := r.Register(t.Context(), x, ports.Registration{PeerID: x, Addr: "a"}); err != nil { // a program of before
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		// It is started anew as one that signs, and elsewhere.
		e := key.Says(t, time.Now(), 1, "b").Entry(0)
		e.Native = "n1"
		time.Sleep(time.Second)
		r.take("rogue", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{
			Entry: Entry{PeerID: x, Addr: "evil", Native: "rogue", ExpiresAt: time.Now().Add(66 * time.Second)}, State: ports.StateLive, Remaining: 66 * time.Second}}})
		r.take("n1", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: 65 * time.Second}}})
		time.Sleep(57 * time.Second)
		if l, ok := r.Get(x); !ok || l.Addr != "b" {
			t.Errorf("listed %v at %q", ok, l.Addr)
		}
	})
}

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
			clock := NewClock(nil)
			clock.Abstain()
			given := map[ports.PeerID]ports.Native{}
			verifier := proof.NewVerifier()
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
			x, err := NewIndexer(Config{Self: self, Policy: DefaultTTLPolicy(), Clock: clock}, signer, PinNatives(given),
				func() ports.Registration { return ports.Registration{PeerID: self, Addr: "here"} }, &events)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = x.Run(ctx) }()
			time.Sleep(3 * time.Hour)
			cancel()
			<-done
			if seed < 5 {
				t.Logf("seed %d: %d natives, nearest %v", seed, len(given), worst)
			}
		})
	}
}

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
			clock := NewClock(nil)
			clock.Abstain()
			var events porttest.Recorder
			x, err := NewIndexer(Config{Self: self, Policy: DefaultTTLPolicy(), Clock: clock, Proofs: proof.NewVerifier()}, signer,
				PinNatives(map[ports.PeerID]ports.Native{"n": native}), func() ports.Registration { return ports.Registration{PeerID: self, Addr: "here"} }, &events)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = x.Run(ctx) }()
			time.Sleep(time.Hour)
			t.Logf("%s: registered %d times, asked %d times, superseded %v", name, registered.Load(), asked.Load(), x.Superseded())
			if x.Superseded() || registered.Load() < 55 || registered.Load() > 70 {
				t.Errorf("%s: registered %d times in an hour, superseded %v", name, registered.Load(), x.Superseded())
			}
			began := time.Now()
			cancel()
			<-done
			if took := time.Since(began); took > leaveTimeout {
				t.Errorf("%s: it stopped after %v", name, took)
			}
		})
	}
}
