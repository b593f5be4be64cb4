package domain_test

// The fixtures of tests in which natives, stores or the topic lie.

import (
	"bytes"
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// scriptedNative is a native that tells its followers whatever the test has it tell.
type scriptedNative struct {
	id   ports.PeerID
	stop func()
	now  func() time.Time // what its clock shows; nil for none
	find func(id ports.PeerID) (ports.Answer, error)
	asks int // how many look-ups it was asked for

	mu       sync.Mutex
	byNumber *numbering // nil: it tells the changes as they are, and no News
	changes  []ports.Change
	batches  []ports.Batch // to tell behind the changes, as they are
	more     chan struct{} // closed when there are more
	ended    chan struct{} // closed to have all followers begin anew
}

// scriptedNative starts a scriptedNative. A nil register offers no registration.
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

// tell has it tell changes.
func (n *scriptedNative) tell(changes ...ports.Change) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = append(n.changes, changes...)
	close(n.more)
	n.more = make(chan struct{})
}

// tellByNumber has it tell News from now on.
func (n *scriptedNative) tellByNumber(proofs ports.Verifier) {
	n.mu.Lock()
	n.byNumber = newNumbering(proofs)
	n.mu.Unlock()
	n.again(0)
}

// tellEntry has it tell e as its own.
func (n *scriptedNative) tellEntry(e ports.Entry) {
	e.Native = n.id
	n.tell(ports.Change{Kind: ports.ChangeUpdated, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
}

// tellBatches has it tell batches as they are.
func (n *scriptedNative) tellBatches(batches ...ports.Batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.batches = append(n.batches, batches...)
	close(n.more)
	n.more = make(chan struct{})
}

// again has its followers begin anew, and be told the last changes once more, as they were.
func (n *scriptedNative) again(last int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes = slices.Clone(n.changes[max(0, len(n.changes)-last):])
	n.batches = slices.Clone(n.batches[max(0, len(n.batches)-last):])
	close(n.ended)
	n.ended = make(chan struct{})
}

func (n *scriptedNative) watch(ctx context.Context, _ ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	return func(yield func(ports.Batch, error) bool) {
		n.mu.Lock()
		ended, byNumber := n.ended, n.byNumber
		n.mu.Unlock()
		batch := ports.Batch{Reset: ports.ResetNew}
		var numbers *toldByNumber
		if byNumber != nil && w.Numbers {
			numbers = byNumber.begin()
			batch.News = &ports.News{}
		}
		batches := 0
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
			rest := slices.Clone(n.batches[min(batches, len(n.batches)):])
			batches = len(n.batches)
			n.mu.Unlock()
			if numbers != nil {
				for _, b := range append(numbers.batches(batch.Changes), rest...) {
					if !yield(b, nil) {
						return
					}
				}
				batch.Changes = nil
			}
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

// numbering has a scriptedNative tell by number, as an honest native would: each indexer once, and
// its renewals by the number.
type numbering struct {
	proofs ports.Verifier
	mu     sync.Mutex
	of     map[ports.PeerID]uint32
}

func newNumbering(proofs ports.Verifier) *numbering {
	return &numbering{proofs: proofs, of: make(map[ports.PeerID]uint32)}
}

// number returns the number of id.
func (n *numbering) number(id ports.PeerID) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of[id] == 0 {
		n.of[id] = uint32(len(n.of)) + 1
	}
	return n.of[id]
}

// toldByNumber is what one follower has been told.
type toldByNumber struct {
	*numbering
	last map[ports.PeerID]ports.Change // that was no renewal
	ends map[ports.PeerID]time.Time    // the end that was told last: a lease that has ended is told whole
}

func (n *numbering) begin() *toldByNumber {
	return &toldByNumber{n, make(map[ports.PeerID]ports.Change), make(map[ports.PeerID]time.Time)}
}

// batches returns the News of changes, in order: in one News the renewals come last.
func (n *toldByNumber) batches(changes []ports.Change) (all []ports.Batch) {
	news := &ports.News{}
	flush := func() {
		if len(news.Changes)+len(news.Renewals) > 0 {
			all = append(all, ports.Batch{News: news})
		}
		news = &ports.News{}
	}
	for _, c := range changes {
		c.Number = n.number(c.PeerID)
		ended := !time.Now().Before(n.ends[c.PeerID])
		n.ends[c.PeerID] = c.ExpiresAt
		if x, ok := n.renewal(c); ok && !ended {
			if last := len(news.Renewals) - 1; last >= 0 && news.Renewals[last].Number >= x.Number {
				flush()
			}
			news.Renewals = append(news.Renewals, x)
			continue
		}
		if len(news.Renewals) > 0 {
			flush()
		}
		if c.Kind == ports.ChangeRenewed { // its number stands for nothing, or for something else
			c.Kind = ports.ChangeUpdated
		}
		news.Changes = append(news.Changes, c)
		n.last[c.PeerID] = c
	}
	flush()
	return all
}

// renewal returns c as a renewal, if it differs from the last change of its number in that alone.
func (n *toldByNumber) renewal(c ports.Change) (x ports.Renewal, ok bool) {
	last, ok := n.last[c.PeerID]
	if !ok || c.Kind.Gone() || last.Kind.Gone() || c.Kind == ports.ChangeLate || c.Native != last.Native || c.Addr != last.Addr {
		return x, false
	}
	x = ports.Renewal{Number: c.Number, Remaining: c.Remaining}
	p, q := c.Proof, last.Proof
	switch {
	case p == nil && q == nil:
		x.ExpiresAt = c.ExpiresAt.UnixNano()
		return x, true
	case p == nil || q == nil || q.Record == nil || p.Tick == q.Tick || p.Tick.Seq != q.Tick.Seq || p.Record != nil && !bytes.Equal(p.Record, q.Record):
		return x, false
	}
	claim, err := n.proofs.Read(q.Record)
	x.Step, x.Link = p.Tick.Step, p.Tick.Link
	return x, err == nil && claim.ExpiresAt(x.Step).Equal(c.ExpiresAt)
}

// lyingStore is a store in which DHT servers answer with lies, where there is a lie, instead of the truth.
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

// plantedStore is a store with nothing but what the test plants: here is found at once, there by a
// query of the network alone.
type plantedStore struct{ here, there sync.Map }

func (s *plantedStore) Put(context.Context, ports.Entry) (int, error) { return 1, nil }

func (s *plantedStore) Joined() <-chan struct{} { return nil }

func (s *plantedStore) Local(id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	return plantedEntry(&s.here, id)
}

func (s *plantedStore) Get(_ context.Context, id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	return plantedEntry(&s.there, id)
}

// plantedEntry returns what is planted of id, its proof unread.
func plantedEntry(m *sync.Map, id ports.PeerID) (ports.Entry, error) {
	e, ok := m.Load(id)
	if !ok {
		return ports.Entry{}, ports.ErrNotFound
	}
	entry := e.(ports.Entry)
	if p := entry.Proof; p != nil { // as it comes from the wire
		entry.Proof = &ports.Proof{Record: p.Record, Tick: p.Tick}
	}
	return entry, nil
}

// staleStore gets whatever others have stored, however old. A peer of the DHT may do so.
type staleStore struct{ *memory.Store }

func (s staleStore) Put(context.Context, ports.Entry) (int, error) { return 0, nil }

func (s staleStore) Get(ctx context.Context, id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	return s.Store.Get(ctx, id, ports.Version{})
}

func (s staleStore) Local(ports.PeerID, ports.Version) (ports.Entry, error) {
	return ports.Entry{}, ports.ErrNotFound
}

// withRogueNative runs a test among so many honest natives and a rogueNative, with indexers that sign. The
// rogue tells by number if byNumber.
func withRogueNative(t *testing.T, natives int, plain domain.Plain, byNumber bool, f func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative)) {
	key := prooftest.NewSigner(t)
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		net.rules.Plain = func() domain.Plain { return plain }
		r := &rogueNative{Signer: key, net: net, natives: peerIDs(natives), store: net.space.Join(), voice: net.topic.Join("somebody")}
		var honest []*followingNative
		for _, id := range r.natives {
			honest = append(honest, net.native(id, r.misled()))
		}
		r.scriptedNative = net.scriptedNative(key.PeerID, r.register)
		if byNumber {
			r.tellByNumber(net.rules.Proofs)
		}
		time.Sleep(time.Second)
		synctest.Wait() // what f sets, its followers read afterwards
		f(t, net, r, honest)
		net.stop(honest...)
		r.stop()
		_ = r.voice.Close()
	})
}

// rogueNative is a native that lies as best it can: to its followers, by DHT servers, by the topic
// and by its clock.
type rogueNative struct {
	*scriptedNative
	*prooftest.Signer
	net     *followingNetwork
	natives []ports.PeerID // the honest ones
	lies    sync.Map
	store   *memory.Store
	voice   *memory.Announcer // that of a peer that no native follows

	heard struct {
		sync.Mutex
		proofs []ports.Proof // what indexers proved to it, in order
	}
	withholds bool // what it hears from now on
	alone     bool // knows an indexer that no other native does, and so can hide it
	said      int
}

// rogueAddr is where the rogueNative says that indexers are.
const rogueAddr = "/ip4/203.0.113.66/tcp/666"

// misled is how a native differs that shares the network's store and topic, where the rogue has
// its DHT servers answer.
func (r *rogueNative) misled() nativeOptions {
	return nativeOptions{store: lyingStore{r.net.space.Join(), &r.lies}, shares: true}
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
	claim, err := r.net.rules.Proofs.Read(p.Record)
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

// lieOf says all that r can, once, of x: that it is at addr, as long as that may be.
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
	if r.byNumber != nil && r.said%5 == 0 { // there are many
		r.tellBatches(r.liesByNumber(entries)...)
	}
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

// liesByNumber returns all that r can make of numbers about the indexer of entries: renewals by numbers that stand for
// nothing or for another indexer, numbers told anew, steps that nobody has, and sums of nothing.
func (r *rogueNative) liesByNumber(entries []ports.Entry) []ports.Batch {
	x := entries[0].PeerID
	number, second := r.byNumber.number(x), r.byNumber.number("second "+x)
	renewals := func(all ...ports.Renewal) ports.Batch {
		for i := range all {
			all[i].Remaining = []time.Duration{prooftest.TTL, 24 * time.Hour, -time.Second}[(r.said/5+i)%3]
		}
		return ports.Batch{News: &ports.News{Renewals: all}}
	}
	stands := func(kind ports.ChangeKind, number uint32, e ports.Entry) ports.Batch {
		e.Native = r.PeerID
		return ports.Batch{News: &ports.News{Changes: []ports.Change{{Kind: kind, Number: number, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}}}}}
	}
	later := time.Now().Add(prooftest.TTL).UnixNano()
	all := []ports.Batch{renewals(ports.Renewal{Number: number, ExpiresAt: later}, ports.Renewal{Number: 4000, ExpiresAt: later}, ports.Renewal{Number: 1 << 31, ExpiresAt: later})}
	for _, e := range entries {
		if e.Proof == nil {
			continue
		}
		tick := e.Proof.Tick
		guess := ports.Renewal{Number: number, Step: tick.Step + 1}
		_, _ = rand.Read(guess.Link[:])
		lies := []ports.Renewal{
			guess,
			{Number: number, Step: tick.Step + 1, Link: tick.Link}, {Number: number, Step: ports.MaxSteps, Link: tick.Link}, {Number: number, Step: 1<<32 - 1, Link: tick.Link},
			{Number: number, Step: tick.Step, Link: tick.Link}, {Number: second, Step: tick.Step, Link: tick.Link}, {Number: 4000, Step: tick.Step, Link: tick.Link},
		}
		another := ports.Entry{PeerID: "somebody", Addr: rogueAddr, ExpiresAt: e.ExpiresAt}
		all = append(all,
			renewals(lies...),
			stands(ports.ChangeJoined, second, e), renewals(ports.Renewal{Number: second, Step: tick.Step + 1, Link: tick.Link}),
			stands(ports.ChangeUpdated, second, another), renewals(lies...), // the indexer's tick for another
			stands(ports.ChangeJoined, second, e), renewals(ports.Renewal{Number: second, ExpiresAt: later}), // nobody's word for a signed lease
			stands(ports.ChangeExpired, second, e), renewals(lies...),
			stands(ports.ChangeJoined, 1<<31, e), stands(ports.ChangeLate, second, e),
		)
	}
	return append(all,
		ports.Batch{Sums: []ports.Range{{Count: uint32(r.said), Sum: uint64(r.said)}, {From: 5, Until: 3}}},
		ports.Batch{News: &ports.News{}, Told: []ports.Range{{From: 0, Until: 0, Whole: true}}},
	)
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
