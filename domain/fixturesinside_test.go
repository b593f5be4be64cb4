package domain

// The fixtures of tests inside the package: registries that do not run, so that the test alone
// sweeps, tells and looks.

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// bareRegistry is a registry with an empty store and no announcer, which does not run: the usual
// set-up. A nil change changes nothing.
func bareRegistry(t *testing.T, self ports.PeerID, change func(*Rules, *Settings)) (*Registry, *porttest.Recorder) {
	t.Helper()
	events := &porttest.Recorder{}
	settings := Settings{}
	rules := Rules{Self: self, Policy: DefaultTTLPolicy(), Proofs: proof.NewVerifier(), CheckAddr: func(ports.PeerID, string) error { return nil }}
	if change != nil {
		change(&rules, &settings)
	}
	r, err := NewRegistry(rules, settings, emptyStore{}, nil, events)
	if err != nil {
		t.Fatal(err)
	}
	return r, events
}

// watchedRegistry is a bareRegistry with a watcher that writes down what it is told: for tests of
// what a watcher hears, and when.
type watchedRegistry struct {
	*Registry
	told  []string // kind@time
	began time.Time
}

// newWatchedRegistry starts the watcher, until stop is called.
func newWatchedRegistry(t *testing.T) (_ *watchedRegistry, stop func()) {
	bare, _ := bareRegistry(t, "me", nil)
	r := &watchedRegistry{Registry: bare, began: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for b, err := range r.Watch(ctx, "", ports.WatchRequest{}) {
			if err != nil {
				return
			}
			for _, c := range b.Changes {
				r.told = append(r.told, fmt.Sprintf("%s@%v", c.Kind, time.Since(r.began).Round(time.Second)))
			}
		}
	}()
	synctest.Wait()
	return r, func() { cancel(); synctest.Wait() }
}

// tell has native say that it granted x a lease, or took its leave, with so much left.
func (r *watchedRegistry) tell(kind ports.ChangeKind, by, native ports.PeerID, left time.Duration) {
	r.takeChanges(by, []ports.Change{{Kind: kind, Listed: ports.Listed{
		Entry: Entry{PeerID: "x", Addr: "a", Native: native, ExpiresAt: time.Now().Add(left), Leave: kind == ports.ChangeLeft}, Remaining: left,
	}}})
}

// pass lets time pass, and sweeps once a second.
func (r *watchedRegistry) pass(seconds int) {
	for range seconds {
		time.Sleep(time.Second)
		r.sweep()
	}
	synctest.Wait()
}

// emptyStore is a store of nothing, which is never put into.
type emptyStore struct{ ports.Store }

func (emptyStore) Get(context.Context, ports.PeerID, ports.Version) (Entry, error) {
	return Entry{}, ports.ErrNotFound
}

func (emptyStore) Local(ports.PeerID, ports.Version) (Entry, error) {
	return Entry{}, ports.ErrNotFound
}

// oneEntryStore is a store of one entry.
type oneEntryStore struct {
	emptyStore
	e Entry
}

func (s oneEntryStore) Get(_ context.Context, id ports.PeerID, than ports.Version) (Entry, error) {
	if id != s.e.PeerID || !s.e.NewerThan(than) {
		return Entry{}, ports.ErrNotFound
	}
	return s.e, nil
}

func (s oneEntryStore) Joined() <-chan struct{} { return nil }

// silentAnnouncer announces nothing, and hears nothing, for a registry that runs.
type silentAnnouncer struct{}

func (silentAnnouncer) Announce(context.Context, ports.PeerID) error { return nil }

func (silentAnnouncer) Listen(func(ports.Announcement)) (func(), error) {
	return func() {}, nil
}

// interruptedVerifier has something happen while a signature is checked.
type interruptedVerifier struct {
	ports.Verifier
	meanwhile func()
}

func (v *interruptedVerifier) Verify(record []byte, tick ports.Tick) (*ports.Claim, error) {
	claim, err := v.Verifier.Verify(record, tick)
	v.interrupt()
	return claim, err
}

func (v *interruptedVerifier) VerifyAll(proofs []*ports.Proof, accept func(*ports.Claim) error) []error {
	errs := v.Verifier.VerifyAll(proofs, accept)
	v.interrupt()
	return errs
}

func (v *interruptedVerifier) interrupt() {
	if f := v.meanwhile; f != nil {
		v.meanwhile = nil
		f()
	}
}

// connectedTransport is a transport that is connected to neighbours.
type connectedTransport struct {
	ports.Transport
	neighbours []ports.Neighbour
}

func (s connectedTransport) Neighbours() ([]ports.Neighbour, <-chan struct{}) {
	return s.neighbours, nil
}

// connectedNative is a native whose connection never ends.
type connectedNative struct{ porttest.Native }

func (connectedNative) Disconnected() <-chan struct{} { return nil }
func (connectedNative) Reached() string               { return "" }
