package domain_test

// The fixtures of most tests: natives without a transport, which share a topic and a store, and
// what they are set up with.

import (
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"strconv"
	"strings"
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

// withNetwork runs a test in fake time, with a network that has no natives yet: the usual set-up.
func withNetwork(t *testing.T, f func(t *testing.T, net *network)) {
	peerIDs(20) // made outside, since they outlive the bubble
	porttest.FakeTime(t, func(t *testing.T) { f(t, newNetwork(t)) })
}

// withSigningNetwork is withNetwork for tests of proofs: natives check what indexers sign, and
// believe of plain indexers what believing says.
func withSigningNetwork(t *testing.T, believing domain.Plain, f func(t *testing.T, net *network)) {
	withNetwork(t, func(t *testing.T, net *network) {
		net.rules.Clock = domain.NewClock(nil, nil)
		net.rules.Proofs = proof.NewVerifier()
		net.rules.Plain = func() domain.Plain { return believing }
		net.space = memory.NewSpace(net.rules.Acceptable)
		f(t, net)
	})
}

// network is what natives have in common that hear of each other by the topic and the store alone:
// no native follows another. rules and settings may be changed before a native starts.
type network struct {
	t        *testing.T
	rules    domain.Rules
	settings domain.Settings
	space    *memory.Space
	topic    *memory.Topic
	tickOnly bool // natives look up what they hear at their ticks alone
}

// newNetwork is for tests outside of withNetwork: in real time, or many times in a test.
func newNetwork(t *testing.T) *network {
	net := &network{t: t, topic: memory.NewTopic(), settings: domain.Settings{Line: line(true)}, rules: domain.Rules{
		Policy: domain.DefaultTTLPolicy(),
		CheckAddr: func(_ ports.PeerID, addr string) error {
			if !strings.HasPrefix(addr, "/") {
				return fmt.Errorf("address %q is not a multiaddr", addr)
			}
			return nil
		},
	}}
	net.space = memory.NewSpace(net.rules.Acceptable)
	return net
}

// native starts a native in fake time. store replaces its place in the space if it is not nil.
func (net *network) native(id ports.PeerID, store ports.Store) *native {
	n := net.start(id, store)
	synctest.Wait() // it listens
	return n
}

// nativeWithKey starts a native beside indexers that sign: its identity is a new key.
func (net *network) nativeWithKey() *native {
	return net.native(prooftest.NewSigner(net.t).PeerID, nil)
}

// start starts a native in real time, for tests that hammer it.
func (net *network) start(id ports.PeerID, store ports.Store) *native {
	if store == nil {
		store = net.space.Join()
	}
	n := &native{Recorder: &porttest.Recorder{}, store: store, announcer: net.topic.Join(id)}
	rules := net.rules
	rules.Self = id
	var err error
	var announcer ports.Announcer = n.announcer
	if net.tickOnly {
		announcer = porttest.AtTicks(announcer, net.rules.Policy.Refresh)
	}
	if n.Registry, err = domain.NewRegistry(rules, net.settings, store, announcer, n.Recorder); err != nil {
		net.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(net.t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			net.t.Errorf("run: %v", err)
		}
		_ = n.announcer.Close()
	})
	return n
}

// native is a native of a network, with what it told its observer.
type native struct {
	*domain.Registry
	*porttest.Recorder
	store     ports.Store
	announcer *memory.Announcer
	stop      func()
}

// register has the native grant id a lease, without a proof.
func (n *native) register(t testing.TB, id ports.PeerID, addr string) ports.Lease {
	t.Helper()
	lease, err := n.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: addr})
	if err != nil {
		t.Fatalf("register %s: %v", id, err)
	}
	return lease
}

// answer has the native grant what r asks for, which may be signed.
func (n *native) answer(t *testing.T, r ports.Registration) ports.Lease {
	t.Helper()
	lease, err := n.Register(t.Context(), r.PeerID, r)
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

func (n *native) lists(id ports.PeerID) bool { _, ok := n.Get(id); return ok }

// line is a line that works, or one that is lost.
type line bool

func (l line) Works(context.Context, []string) bool { return bool(l) }

// peerIDs returns n identities without a key, always the same.
var peerIDs = func() func(n int) []ports.PeerID {
	random := rand.New(rand.NewSource(1))
	var ids []ports.PeerID
	return func(n int) []ports.PeerID {
		for len(ids) < n {
			key := make([]byte, ed25519.PublicKeySize)
			_, _ = random.Read(key)
			pub, err := crypto.UnmarshalEd25519PublicKey(key)
			if err != nil {
				panic(err)
			}
			id, err := peer.IDFromPublicKey(pub)
			if err != nil {
				panic(err)
			}
			ids = append(ids, ports.PeerID(id.String()))
		}
		return slices.Clone(ids[:n])
	}
}()

// addr is an address that the rules of a network accept.
const addr = "/ip4/127.0.0.1/tcp/4001"

// signedIndexer is an indexer that signs, and whose registrations the test sends by hand: for
// tests of what a record or a tick does at a native.
type signedIndexer struct {
	*prooftest.Signer
	word prooftest.Word // the last record
}

func newSignedIndexer(t testing.TB) *signedIndexer {
	t.Helper()
	return &signedIndexer{Signer: prooftest.NewSigner(t)}
}

// issue signs a record of now.
func (x *signedIndexer) issue(t testing.TB, addr string) {
	t.Helper()
	x.word = x.Says(t, x.next(t), 1, addr)
}

// leave returns the record of a leave of now.
func (x *signedIndexer) leave(t testing.TB) []byte {
	t.Helper()
	return x.Leaves(t, x.next(t), 1)
}

// next is now, or later if a record of now has been signed.
func (x *signedIndexer) next(t testing.TB) time.Time {
	t.Helper()
	seq, err := x.Seq(time.Now().UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(seq)
}

// heartbeat is the registration at a step, with the record or with the tick alone.
func (x *signedIndexer) heartbeat(step uint32, record bool) ports.Registration {
	r := x.word.Registration(step)
	if !record {
		r.Proof.Record = nil
	}
	return r
}

// signersOfOneKey returns two processes with one key, for tests of rivals: each has its own idea of
// what it has signed, as two machines have.
func signersOfOneKey(t *testing.T) (older, newer *prooftest.Signer) {
	t.Helper()
	older = prooftest.NewSigner(t)
	return older, older.Twin(t)
}

// entryOf is an entry that another native put into the store now, without a proof.
func entryOf(id, native ports.PeerID) ports.Entry {
	return ports.Entry{PeerID: id, Addr: addr, Native: native, SeenAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute)}
}

// stubStore is a store whose answers the test writes: slow, hanging, failing or counted. It finds
// nothing, and takes everything, unless the test says otherwise.
type stubStore struct {
	put func(context.Context, ports.Entry) (int, error)
	get func(context.Context, ports.PeerID) (ports.Entry, error)

	local func(ports.PeerID) (ports.Entry, error)
}

func (s *stubStore) Joined() <-chan struct{} { return nil }

func (s *stubStore) Local(id ports.PeerID, than ports.Version) (ports.Entry, error) {
	if s.local == nil {
		return ports.Entry{}, ports.ErrNotFound
	}
	return s.local(id)
}

func (s *stubStore) Put(ctx context.Context, e ports.Entry) (int, error) {
	if s.put == nil {
		return 0, nil
	}
	return s.put(ctx, e)
}

func (s *stubStore) Get(ctx context.Context, id ports.PeerID, than ports.Version) (ports.Entry, error) {
	if s.get == nil {
		return ports.Entry{}, ports.ErrNotFound
	}
	return s.get(ctx, id)
}

// trustList is a list of trusted PeerIDs that the test changes while natives run.
type trustList struct {
	mu  sync.Mutex
	ids map[ports.PeerID]bool
}

func (r *trustList) trusts(id ports.PeerID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ids[id]
}

func (r *trustList) set(ids ...ports.PeerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = make(map[ports.PeerID]bool)
	for _, id := range ids {
		r.ids[id] = true
	}
}

// plainSetting is what natives believe of plain indexers, which the test changes while they run.
type plainSetting struct{ plain atomic.Pointer[domain.Plain] }

func (c *plainSetting) set(p domain.Plain) { c.plain.Store(&p) }

func (c *plainSetting) now() domain.Plain {
	if p := c.plain.Load(); p != nil {
		return *p
	}
	return domain.PlainAccept
}

// settableClock is a clock of a native or an indexer that the test sets ahead while they run.
type settableClock struct{ ahead atomic.Int64 }

func (clock *settableClock) set(d time.Duration) { clock.ahead.Store(int64(d)) }

func (clock *settableClock) read() time.Duration { return time.Duration(clock.ahead.Load()) }

func (clock *settableClock) clock() *domain.Clock {
	return domain.NewClock(func() time.Time { return time.Now().Add(clock.read()) }, nil)
}

// recorder is what countUntrusted needs of a native.
type recorder interface {
	Of(ports.EventKind) []ports.Event
}

// countUntrusted is how often n told that something came of a peer that it does not trust.
func countUntrusted(n recorder, what ports.Untrusted) (times int) {
	for _, e := range n.Of(ports.EventUntrusted) {
		if e.What == what {
			times++
		}
	}
	return times
}

// fewerChecks has rapid make fewer checks under the race detector: a share of the usual.
func fewerChecks(t *testing.T, share int) {
	t.Helper()
	checks := flag.Lookup("rapid.checks")
	usual := checks.Value.String()
	n, err := strconv.Atoi(usual)
	if err != nil {
		t.Fatal(err)
	}
	_ = checks.Value.Set(strconv.Itoa(max(porttest.Scale(n, n/share), 1)))
	t.Cleanup(func() { _ = checks.Value.Set(usual) })
}

// eventually waits for ok in fake time.
func eventually(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// newTable is a registry that does not run, of plain leases, with registration as its indexers: for
// benchmarks and tests of large tables. A nil store is one in memory, a nil change none.
func newTable(b testing.TB, policy domain.TTLPolicy, store ports.Store, change func(*domain.Rules)) *domain.Registry {
	b.Helper()
	rules := domain.Rules{Self: "self", Policy: policy, CheckAddr: func(ports.PeerID, string) error { return nil }}
	if change != nil {
		change(&rules)
	}
	if store == nil {
		store = memory.NewStore(rules.Acceptable)
	}
	r, err := domain.NewRegistry(rules, domain.Settings{}, store, silentAnnouncer{}, &countingObserver{})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// registration is that of the i-th indexer of a large table. Its strings are new, as those of a decoded frame are.
func registration(i int) ports.Registration {
	var b [64]byte
	number := strconv.AppendInt(b[:0], 10_000_000+int64(i), 10)
	id := string(append(append(b[8:8], "12D3KooWxoi8cQQBRsHz4uAB1B7e5dGE3nDP1Rh1zqt4"...), number...))
	addr := append(b[:0], "/ip4/10."...)
	addr = append(strconv.AppendInt(addr, int64(i>>16&255), 10), '.')
	addr = append(strconv.AppendInt(addr, int64(i>>8&255), 10), '.')
	addr = strconv.AppendInt(addr, int64(i&255), 10)
	return ports.Registration{PeerID: ports.PeerID(id), Addr: string(append(addr, "/tcp/4001"...))}
}

// silentAnnouncer announces nothing, and hears nothing.
type silentAnnouncer struct{}

func (silentAnnouncer) Announce(context.Context, ports.PeerID) error { return nil }

func (silentAnnouncer) Listen(func(ports.Announcement)) (func(), error) {
	return func() {}, nil
}

// countingObserver counts events instead of keeping them, for large tables.
type countingObserver struct{ n atomic.Int64 }

func (o *countingObserver) Observe(ports.Event) { o.n.Add(1) }
