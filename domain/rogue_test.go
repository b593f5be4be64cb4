package domain_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/client"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// teller is a native that tells whatever it is made to, to all who follow it.
type scriptedNative struct {
	id   ports.PeerID
	stop func()
	now  func() time.Time // what its clock shows; nil for none
	find func(id ports.PeerID) (ports.Answer, error)
	asks int // how often somebody was to be found

	mu      sync.Mutex
	changes []ports.Change
	more    chan struct{} // closed when there are more
	ended   chan struct{} // closed to have everybody begin anew
}

func (net *followingNetwork) scriptedNative(id ports.PeerID, register func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error)) *scriptedNative {
	net.t.Helper()
	n := &scriptedNative{id: id, more: make(chan struct{}), ended: make(chan struct{})}
	stop, err := net.transports.Join(id).Serve(porttest.Native{
		OnWatch: n.watch, OnRegister: register, OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
		OnLookUp: func(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.asks++; n.find == nil {
				return ports.Answer{}, ports.ErrNotFound
			}
			return n.find(id)
		},
	})
	if err != nil {
		net.t.Fatal(err)
	}
	n.stop = stop
	synctest.Wait()
	return n
}

func (n *scriptedNative) tell(changes ...ports.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = append(n.changes, changes...)
	close(n.more)
	n.more = make(chan struct{})
}

// again has those who watch begin anew, and be told the last changes once more, as they were.
func (n *scriptedNative) again(last int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = slices.Clone(n.changes[max(0, len(n.changes)-last):])
	close(n.ended)
	n.ended = make(chan struct{})
}

func (n *scriptedNative) watch(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		n.mu.Lock()
		ended := n.ended
		n.mu.Unlock()
		batch := ports.Batch{Reset: ports.ResetNew}
		for told := 0; ; {
			batch.Cursor = "1"
			if n.now != nil {
				batch.Now = n.now()
			}
			if !yield(batch, nil) {
				return
			}
			n.mu.Lock()
			more := n.more
			batch = ports.Batch{Changes: slices.Clone(n.changes[min(told, len(n.changes)):])}
			told = len(n.changes)
			n.mu.Unlock()
			if len(batch.Changes) > 0 {
				continue
			}
			select {
			case <-more:
			case <-ended:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// poisoned is a store in which somebody else answers, whatever that is worth.
type lyingStore struct {
	*memory.Store
	lies *sync.Map
}

func (s lyingStore) Local(id ports.PeerID, than ports.Version) (ports.Entry, error) {
	if e, err := plantedEntry(s.lies, id); err == nil {
		return e, nil
	}
	return s.Store.Local(id, than)
}

func (s lyingStore) Get(ctx context.Context, id ports.PeerID, than ports.Version) (ports.Entry, error) {
	if e, err := plantedEntry(s.lies, id); err == nil {
		return e, nil
	}
	return s.Store.Get(ctx, id, than)
}

// source is an indexer of a mesh.
type indexer struct {
	*porttest.Recorder
	id   ports.PeerID
	kill func() // without a word
	stop func() // with a leave
}

// how differs an indexer from the usual.
type indexerOptions struct {
	addr   string
	signer ports.Signer
	clock  *domain.Clock
}

// indexer starts s with leases at natives.
func (net *followingNetwork) indexer(s *prooftest.Signer, options indexerOptions, natives ...ports.PeerID) *indexer {
	net.t.Helper()
	x := &indexer{Recorder: &porttest.Recorder{}, id: s.PeerID}
	if options.signer == nil {
		options.signer = s
	}
	transport := net.transports.Join(s.PeerID)
	given := map[ports.PeerID]ports.Native{}
	for _, id := range natives {
		native, err := transport.Native(id, nil)
		if err != nil {
			net.t.Fatal(err)
		}
		given[id] = native
	}
	rules := net.rules
	rules.Self = s.PeerID
	if rules.Clock = options.clock; rules.Clock == nil {
		rules.Clock = domain.NewClock(nil)
	}
	rules.Clock.Abstain()
	indexer, err := client.NewIndexer(rules, options.signer, client.PinNatives(given), func() ports.Registration {
		return ports.Registration{PeerID: s.PeerID, Addr: options.addr}
	}, x.Recorder)
	if err != nil {
		net.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(net.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := indexer.Run(ctx); err != nil {
			net.t.Errorf("run: %v", err)
		}
	}()
	x.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	x.kill = func() {
		indexer.Abandon()
		x.stop()
	}
	synctest.Wait()
	return x
}

// rogue is a native, and all that it has a hand in: DHT servers, the topic, its clock.
type rogueNative struct {
	*scriptedNative
	*prooftest.Signer
	m       *followingNetwork
	natives []ports.PeerID // the honest ones
	lies    sync.Map
	store   *memory.Store
	voice   *memory.Announcer // that of somebody nobody follows

	heard struct {
		sync.Mutex
		proofs []ports.Proof // what indexers proved to it, in order
	}
	withholds bool // what it hears from now on
	alone     bool // knows somebody whom nobody else does, and so can hide it
	said      int
}

const rogueAddr = "/ip4/203.0.113.66/tcp/666"

// infested starts a mesh of so many honest natives and a rogue.
func withRogueNative(t *testing.T, natives int, plain domain.Plain, f func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative)) {
	key := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		net.rules.Plain = func() domain.Plain { return plain }
		r := &rogueNative{Signer: key, m: net, natives: peerIDs(natives), store: net.space.Join(), voice: net.topic.Join("somebody")}
		var honest []*followingNative
		for _, id := range r.natives {
			honest = append(honest, net.native(id, nativeOptions{store: lyingStore{net.space.Join(), &r.lies}, topic: net.topic}))
		}
		r.scriptedNative = net.scriptedNative(key.PeerID, r.register)
		time.Sleep(time.Second)
		f(t, net, r, honest)
		net.stop(honest...)
		r.stop()
		_ = r.voice.Close()
	})
}

// register is a lease that the rogue grants as any native would, and what it learns by that.
func (r *rogueNative) register(_ context.Context, _ ports.PeerID, reg ports.Registration) (ports.Lease, error) {
	r.heard.Lock()
	defer r.heard.Unlock()
	p := *reg.Proof
	switch {
	case p.Record == nil && len(r.heard.proofs) == 0: // it is asked what time it is
		return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
	case p.Record == nil:
		p.Record = r.heard.proofs[len(r.heard.proofs)-1].Record
	}
	r.heard.proofs = append(r.heard.proofs, p)
	if !r.withholds {
		r.release(p)
	}
	return ports.Lease{TTL: prooftest.TTL, Heartbeat: time.Minute, ExpiresAt: time.Now().Add(prooftest.TTL), Now: time.Now()}, nil
}

// release tells what was proven to it, as a native should.
func (r *rogueNative) release(p ports.Proof) {
	e := r.proves(p)
	e.Native = r.PeerID
	r.tell(ports.Change{Kind: ports.ChangeUpdated, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
}

// proves returns the entry that p, which is sound, does.
func (r *rogueNative) proves(p ports.Proof) ports.Entry {
	claim, err := r.m.rules.Proofs.Read(p.Record)
	if err != nil {
		panic(err)
	}
	p.Claim = claim
	return p.Entry()
}

// lastWord is when what was proven to it last runs out.
func (r *rogueNative) lastWord(t *testing.T) time.Time {
	t.Helper()
	r.heard.Lock()
	defer r.heard.Unlock()
	return r.proves(r.heard.proofs[len(r.heard.proofs)-1]).ExpiresAt
}

// entries returns entries of x that say it is at addr, by all that r ever heard and can make of it.
func (r *rogueNative) entries(t *testing.T, x ports.PeerID, addr string) (all []ports.Entry) {
	r.heard.Lock()
	defer r.heard.Unlock()
	later := time.Now().Add(prooftest.TTL)
	all = append(all,
		ports.Entry{PeerID: x, Addr: addr, ExpiresAt: later},
		ports.Entry{PeerID: x, Addr: addr, ExpiresAt: later.Add(29 * time.Second), SeenAt: time.Now()},
	)
	for i := max(0, len(r.heard.proofs)-3); i < len(r.heard.proofs); i++ {
		p := r.heard.proofs[i]
		held := r.proves(p)
		claim, w := held.Proof.Claim, prooftest.Word{Claim: *held.Proof.Claim, Record: p.Record}
		guess := w.Entry(p.Tick.Step + 1)
		_, _ = rand.Read(guess.Proof.Tick.Link[:])
		ahead := w.Entry(p.Tick.Step + 1)
		ahead.Proof.Tick.Link = p.Tick.Link
		late := held // with another end than it proves
		late.ExpiresAt = later
		all = append(all, held, guess, ahead, late)
		if addr == rogueAddr {
			moved := *claim
			moved.Addrs = []string{addr}
			mine := r.Word(t, moved, nil).Entry(p.Tick.Step)
			mine.Proof.Tick = p.Tick
			beside := held
			beside.Addr, beside.Addrs = addr, nil
			all = append(all, mine, beside)
		}
	}
	return all
}

// strike says all that r can, once, of x: that it is at addr, as long as that may be.
func (r *rogueNative) lieOf(t *testing.T, x ports.PeerID, addr string) {
	t.Helper()
	entries := r.entries(t, x, addr)
	kinds := []ports.ChangeKind{ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed}
	kind := kinds[r.said%len(kinds)]
	var changes []ports.Change
	for _, e := range entries {
		if r.said%5 == 0 { // undone at once
			changes = append(changes, ports.Change{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: x, Native: r.PeerID, ExpiresAt: time.Now(), Leave: true}, Remaining: time.Millisecond}})
		}
		for _, native := range []ports.PeerID{r.PeerID, r.natives[r.said%len(r.natives)]} {
			e.Native = native
			changes = append(changes, ports.Change{Kind: kind, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
			if p := e.Proof; p != nil { // the tick alone
				e.Proof = &ports.Proof{Tick: p.Tick}
				changes = append(changes, ports.Change{Kind: ports.ChangeRenewed, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
				e.Proof = p
			}
		}
	}
	for _, e := range entries { // and as if it were over
		if e.Proof != nil && !r.alone {
			e.Native = r.PeerID
			changes = append(changes, ports.Change{Kind: kind, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: time.Millisecond}})
		}
	}
	r.tell(changes...)
	// Most of what a DHT server says is checked before it is believed, as this is by the space.
	for _, e := range entries {
		_, _ = r.store.Put(t.Context(), e)
	}
	r.lies.Store(x, entries[r.said%len(entries)])
	if r.said%3 == 0 {
		r.lies.Delete(x)
	}
	_ = r.voice.Announce(t.Context(), x)
	if r.said%20 == 19 {
		r.again(2 * len(entries))
	}
	r.said++
}

func TestAttackARogueNativeNeitherMovesALiveIndexerNorKeepsADeadOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		plain  domain.Plain
		leaves bool
		lone   bool          // has its lease with the rogue alone
		off    time.Duration // how far the rogue says that the clock is ahead
		after  time.Duration
	}{
		{"killed", domain.PlainAccept, false, false, 0, 50 * time.Minute},
		{"killed, and the rogue's clock is an hour late", domain.PlainAccept, false, false, -time.Hour, 50 * time.Minute},
		{"killed, and its record ends", domain.PlainRefuse, false, false, time.Hour, 80 * time.Minute},
		{"killed, known to the rogue alone", domain.PlainAccept, false, true, -time.Hour, 50 * time.Minute},
		{"left", domain.PlainAccept, true, false, -time.Hour, 50 * time.Minute},
		{"left, and its record ends", domain.PlainRefuse, true, false, 0, 80 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys, samples := prooftest.NewSigners(t, 2), 0
			withRogueNative(t, 3, c.plain, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
				r.now = func() time.Time { return time.Now().Add(c.off) }
				at := []ports.PeerID{r.natives[0], r.PeerID}
				if r.alone = c.lone; c.lone {
					at = at[1:]
				}
				beside := net.indexer(keys[1], indexerOptions{addr: addr}, r.natives[1])
				x := net.indexer(keys[0], indexerOptions{addr: addr}, at...)
				time.Sleep(2 * time.Second)
				look := func(x ports.PeerID, lists bool, why string) {
					t.Helper()
					for i, n := range honest {
						samples++
						if got, ok := n.Get(x); ok != lists || ok && got.Addr != addr {
							t.Fatalf("%s: native %d lists %v, %+v", why, i, ok, got)
						}
					}
				}
				pause := func(until time.Time, every time.Duration, check func()) {
					for next := time.Now(); time.Now().Before(until); time.Sleep(250 * time.Millisecond) {
						if !time.Now().Before(next) {
							r.lieOf(t, x.id, []string{addr, rogueAddr}[r.said%2])
							synctest.Wait()
							next = time.Now().Add(every)
						}
						check()
						look(beside.id, true, "an honest indexer beside")
					}
				}
				pause(time.Now().Add(prooftest.Brief(150*time.Second)+time.Duration(mathrand.IntN(60))*time.Second), time.Second, func() { look(x.id, true, "alive") })

				ends := time.Now().Add(2 * time.Second)
				if c.leaves {
					x.stop()
					pause(ends, time.Second, func() {})
				} else {
					x.kill()
					ends = r.lastWord(t)
					pause(ends, time.Second, func() { look(x.id, true, "until its last tick runs out") })
				}
				time.Sleep(time.Until(ends))
				gone := func() { look(x.id, false, "gone") }
				gone()
				pause(time.Now().Add(prooftest.Brief(2*time.Minute)), time.Second, gone)
				pause(time.Now().Add(prooftest.Brief(c.after)), 10*time.Second, gone)
				t.Logf("%d times all that it can say; %d samples", r.said, samples)

				// Who comes back is there again.
				x = net.indexer(keys[0], indexerOptions{addr: addr}, r.natives[2])
				time.Sleep(2 * time.Second)
				look(x.id, true, "it came back")
				x.kill()
				beside.kill()
			})
		})
	}
}

// A tick that a native held back says when its indexer was alive, and no more, whenever it is
// told.
func TestAttackATickThatWasWithheldListsNobodyForLongerThanItSays(t *testing.T) {
	key := prooftest.NewSigner(t)
	withRogueNative(t, 3, domain.PlainAccept, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
		x := net.indexer(key, indexerOptions{addr: addr}, r.PeerID)
		time.Sleep(3*time.Minute + time.Second)
		known := r.lastWord(t)
		r.heard.Lock()
		r.withholds = true
		from := len(r.heard.proofs)
		r.heard.Unlock()
		samples := 0
		look := func(lists bool) {
			t.Helper()
			for _, n := range honest {
				samples++
				if n.lists(x.id) != lists {
					t.Fatalf("listed: %v", !lists)
				}
			}
		}
		during := func(until time.Time, lists bool) {
			t.Helper()
			for ; time.Now().Before(until); time.Sleep(min(100*time.Millisecond, time.Until(until))) {
				look(lists)
			}
		}
		during(known, true)
		during(known.Add(4*time.Minute), false)
		x.kill()
		r.heard.Lock()
		late := slices.Clone(r.heard.proofs[from:])
		r.heard.Unlock()
		if len(late) < 4 {
			t.Fatalf("%d ticks were withheld", len(late))
		}
		// The last one proves that it was alive just now, and all before it nothing any more.
		for _, p := range late[:len(late)-1] {
			r.release(p)
			if !time.Now().Before(r.proves(p).ExpiresAt) {
				during(time.Now().Add(time.Second), false)
			}
		}
		r.release(late[len(late)-1])
		synctest.Wait()
		during(r.lastWord(t), true)
		for _, p := range append(late, late...) {
			during(time.Now().Add(time.Minute), false)
			r.release(p)
			r.again(len(late))
		}
		t.Logf("%d ticks withheld, %d samples", len(late), samples)
	})
}

func TestAttackWhoLeftIsNotListedWithinTheHourWhateverIsSaidAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		plain domain.Plain
		off   time.Duration // how far the rogue says that the clock is ahead
	}{
		{"in an open network", domain.PlainAccept, 0},
		{"and the rogue's clock is an hour late", domain.PlainAccept, -time.Hour},
		{"and all have to sign", domain.PlainRefuse, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := prooftest.NewSigners(t, 2)
			withRogueNative(t, 3, c.plain, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
				r.now = func() time.Time { return time.Now().Add(c.off) }
				beside := net.indexer(keys[1], indexerOptions{addr: addr}, r.natives[1])
				x := net.indexer(keys[0], indexerOptions{addr: addr}, r.natives[0], r.natives[1], r.PeerID)
				time.Sleep(4*time.Minute + 10*time.Second)
				old, err := honest[2].store.Local(x.id, ports.Version{})
				if err != nil || old.Proof == nil {
					t.Fatalf("the store has %+v, %v", old, err)
				}
				x.stop()
				time.Sleep(2 * time.Second)
				samples, step := 0, 100*time.Millisecond
				if prooftest.Race {
					step = time.Second
				}
				natives := slices.Clone(honest)
				for began := time.Now(); time.Since(began) < time.Hour; time.Sleep(step) {
					for i, n := range natives {
						if n == nil {
							continue
						}
						samples++
						if got, ok := n.Get(x.id); ok {
							t.Fatalf("%v after it left, native %d lists %+v", time.Since(began), i, got)
						}
						if !n.lists(beside.id) && time.Since(began).Round(100*time.Millisecond)%(5*time.Minute) > time.Second {
							t.Fatalf("%v after the other left, native %d does not list who is there", time.Since(began), i)
						}
					}
					switch at := time.Since(began).Round(100 * time.Millisecond); {
					case at == 5*time.Minute: // one is restarted, and is away for a while
						natives[2].stop()
						natives[2] = nil
					case at == 10*time.Minute:
						natives[2] = net.native(r.natives[2], nativeOptions{store: lyingStore{net.space.Join(), &r.lies}, topic: net.topic})
					case at == 15*time.Minute: // and one is new
						natives = append(natives, net.native(peerIDs(9)[8], nativeOptions{store: lyingStore{net.space.Join(), &r.lies}, topic: net.topic}))
					case at%(5*time.Second) == 0:
						_, _ = r.store.Put(t.Context(), old)
						r.lies.Store(x.id, old)
						_ = r.voice.Announce(t.Context(), x.id)
					}
					if time.Since(began).Round(100*time.Millisecond)%(30*time.Second) == 0 {
						r.lieOf(t, x.id, []string{addr, rogueAddr}[r.said%2])
					}
				}
				t.Logf("%d samples", samples)
				beside.kill()
				net.stop(natives...)
			})
		})
	}
}

// Who has missed a record, and hears the ticks after it, asks for it; once, if it is not given.
func TestAttackARecordThatWasMissedIsAskedForOfWhoeverTellsItsTicks(t *testing.T) {
	for _, gives := range []bool{true, false} {
		t.Run(fmt.Sprintf("given %v", gives), func(t *testing.T) {
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				n := net.native(peerIDs(1)[0], nativeOptions{})
				defer n.stop()
				other := net.scriptedNative("other", nil)
				defer other.stop()
				x := prooftest.NewSigner(t).Says(t, time.Now(), 1, addr)
				listed := func(step uint32) ports.Listed {
					e := x.Entry(step)
					e.Native = "other"
					return ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}
				}
				tick := listed(1)
				tick.Proof = &ports.Proof{Tick: tick.Proof.Tick}
				other.find = func(ports.PeerID) (ports.Answer, error) {
					if gives {
						return ports.Answer{Listed: listed(1)}, nil
					}
					return ports.Answer{Listed: tick}, nil
				}
				time.Sleep(prooftest.Interval)
				other.tell(ports.Change{Kind: ports.ChangeRenewed, Listed: tick})
				time.Sleep(time.Second)
				synctest.Wait()
				t.Logf("asked %d times", other.asks)
				if n.lists(x.Claim.PeerID) != gives || other.asks != 1 {
					t.Errorf("listed %v, asked %d times", n.lists(x.Claim.PeerID), other.asks)
				}
			})
		})
	}
}

// Where nobody lies nothing is refused, nor said to be: what is told twice, or was under way
// while a native was cut off, is nobody's fault.
func TestAmongHonestNativesNothingIsRefused(t *testing.T) {
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		var all []*followingNative
		for _, id := range id {
			all = append(all, net.native(id, nativeOptions{store: net.space.Join(), topic: net.topic}))
		}
		defer net.stop(all...)
		time.Sleep(time.Second)
		both := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[0], id[1])
		one := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[2])
		dies := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[1])
		time.Sleep(90 * time.Minute) // in which all records are renewed
		one.stop()
		dies.kill()
		time.Sleep(10 * time.Second)
		all[2].cut()
		time.Sleep(5 * time.Minute)
		all[2].heal()
		time.Sleep(5 * time.Minute)
		back := net.native(peerIDs(4)[3], nativeOptions{store: net.space.Join(), topic: net.topic}) // and one comes late
		all = append(all, back)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		faults := map[ports.Fault]int{}
		for i, n := range all {
			for _, e := range n.Of(ports.EventTold) {
				if e.Refused > 0 {
					t.Errorf("native %d refuses %d of %s: %v", i, e.Refused, e.Via, e.Err)
				}
			}
			for _, e := range n.Of(ports.EventFaulty) {
				if faults[e.Fault]++; e.Fault != ports.FaultOlder {
					t.Errorf("native %d: %v", i, e.Err)
				}
			}
			if !n.lists(both.id) || n.lists(one.id) || n.lists(dies.id) {
				t.Errorf("native %d lists %t, %t and %t", i, n.lists(both.id), n.lists(one.id), n.lists(dies.id))
			}
		}
		t.Logf("%v", faults)
		both.stop()
	})
}
