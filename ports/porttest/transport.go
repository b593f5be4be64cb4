package porttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// TransportNode is a node's end of a Transport, and its addresses.
type TransportNode struct {
	ports.Transport
	ID    ports.PeerID
	Addrs []string
}

// Transport tests the promises of ports.Transport. newPair makes two nodes that can reach each
// other and end with the test.
func Transport(t *testing.T, newPair func(t *testing.T) (native, indexer TransportNode)) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *transportTest)
	}{
		{"a registration arrives as it was sent", transportVerbatim},
		{"the sender is the connection's, whatever the registration claims", transportSender},
		{"a lease arrives with all its fields", transportLease},
		{"a refusal arrives with its code and message", transportRefusal},
		{"an error that is no refusal arrives as busy", transportBusy},
		{"a registration too large for a frame is refused before it is sent", transportLimits},
		{"Register returns when its context ends", transportContext},
		{"the context of an exchange ends with it", transportExchangeEnds},
		{"a native that does not serve is an error", transportNotServing},
		{"a second Serve before stop is an error", transportSecondServe},
		{"stop hastens running exchanges and waits for them", transportStopWaits},
		{"nothing arrives after stop, and stop may be called twice", transportStop},
		{"a native can serve again, and be registered with again", transportServesAgain},
		{"both nodes can be natives of each other", transportSymmetric},
		{"a native with a wrong address, or without a PeerID, is an error", transportAddresses},
		{"Disconnected is nil before the first lease", transportDisconnected},
		{"the address that was reached leads to the native again", transportReached},
		{"many registrations at once each get their own lease", transportConcurrency},
		{"a leave arrives with the sender that the connection proves", transportLeave},
		{"a node makes every request in its own name, and the native receives that name", transportAsksInOwnName},
		{"an entry that was looked up arrives whole, with the native's condition", transportLookUp},
		{"an unknown PeerID is ErrNotFound, with the native's condition", transportNotFound},
		{"a query arrives as it was asked, and its page as it was answered", transportList},
		{"a query that no native answers is refused before it is sent", transportListLimits},
		{"a native's view of the others arrives whole", transportNatives},
		{"refusals of every request arrive, and errors as busy", transportAskRefused},
		{"every request returns when its context ends", transportAskContext},
		{"every request to a native that does not serve is an error", transportAskNotServing},
		{"stop hastens every request", transportAskStop},
		{"a native that can answer and is silent is sent a registration again", transportSilentRegister},
		{"a native that can answer and is silent is sent a leave again", transportSilentLeave},
		{"a native is reached without addresses over an open connection", transportOverConnection},
		{"neighbours come and go as they serve", transportNeighbours},
		{"many callers can ask at once, each with its own answer", transportAskConcurrency},
		{"a watcher's request arrives as it was sent", transportWatchRequest},
		{"a native's batches arrive whole and in order, however large", transportWatch},
		{"a snapshot has a cursor when it is whole, and a reset where it begins", transportWatchSnapshot},
		{"a watch ends with its context, on both sides", transportWatchContext},
		{"a broken watch ends on both sides", transportWatchBreak},
		{"stop ends watches as busy", transportWatchStop},
		{"a dropped watcher learns the reason", transportWatchTooSlow},
		{"a native's news arrive whole and in order, however large", transportNews},
		{"a watcher's asks arrive while it watches, and their answers", transportAsk},
		{"a watcher's words of its room arrive while it watches, in order", transportFull},
		{"a watch with numbers ends with its context, with its watcher and with the native", transportNumbersEnd},
	} {
		t.Run(test.name, func(t *testing.T) {
			native, indexer := newPair(t)
			test.run(t, &transportTest{native, indexer})
		})
	}
}

type transportTest struct{ native, indexer TransportNode }

// registerFunc is the part of a native that most of the suite tests.
type registerFunc = func(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error)

// grant is a native that accepts everything.
func grant(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
	return ports.Lease{TTL: 66 * time.Second}, nil
}

// serve serves f on the native until the test ends.
func (tt *transportTest) serve(t *testing.T, f registerFunc) (stop func()) {
	t.Helper()
	return tt.serveAll(t, Native{OnRegister: f})
}

// serveAll serves n on the native until the test ends.
func (tt *transportTest) serveAll(t *testing.T, n Native) (stop func()) {
	t.Helper()
	stop, err := tt.native.Serve(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return stop
}

// remote returns the native as the indexer sees it.
func (tt *transportTest) remote(t *testing.T) ports.RemoteNative {
	t.Helper()
	n, err := tt.indexer.Native(tt.native.ID, tt.native.Addrs)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (tt *transportTest) registration() ports.Registration {
	return ports.Registration{PeerID: tt.indexer.ID, Addr: "/ip4/127.0.0.1/tcp/4001"}
}

// register sends the plain registration.
func (tt *transportTest) register(ctx context.Context, n ports.Native) (ports.Lease, error) {
	return n.Register(ctx, tt.indexer.ID, tt.registration())
}

func transportVerbatim(t *testing.T, tt *transportTest) {
	got := make(chan ports.Registration, 1)
	tt.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		got <- r
		return grant(ctx, id, r)
	})
	n := tt.remote(t)
	full := tt.registration()
	full.Addrs = []string{full.Addr, "/dns4/indexer.example/udp/4001/quic-v1", "not even an address <&>\u2028"}
	full.Meta = map[string]string{"zone": "Île-de-France", "tower": "🗼", "": "empty name", "empty": "", "control": "\x00\r\n\"\\"}
	for _, want := range []ports.Registration{tt.registration(), full, {PeerID: tt.indexer.ID}} {
		if _, err := n.Register(t.Context(), tt.indexer.ID, want); err != nil {
			t.Fatal(err)
		}
		if r := <-got; !reflect.DeepEqual(r, want) {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
}

func transportSender(t *testing.T, tt *transportTest) {
	type claim struct{ sender, claimed ports.PeerID }
	got := make(chan claim, 1)
	tt.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		got <- claim{id, r.PeerID}
		return grant(ctx, id, r)
	})
	r := tt.registration()
	r.PeerID = tt.native.ID
	if _, err := tt.remote(t).Register(t.Context(), tt.indexer.ID, r); err != nil {
		t.Fatal(err)
	}
	if c, want := <-got, (claim{tt.indexer.ID, tt.native.ID}); c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func transportLease(t *testing.T, tt *transportTest) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 2*3600))
	want := ports.Lease{ExpiresAt: now.Add(66 * time.Second), TTL: 66 * time.Second, Heartbeat: 1500 * time.Millisecond, Proven: 700 * time.Millisecond, Now: now}
	tt.serve(t, func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) { return want, nil })
	got, err := tt.register(t.Context(), tt.remote(t))
	if err != nil {
		t.Fatal(err)
	}
	if !got.ExpiresAt.Equal(want.ExpiresAt) || !got.Now.Equal(want.Now) ||
		got.TTL != want.TTL || got.Heartbeat != want.Heartbeat || got.Proven != want.Proven || got.Unconfirmed {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func transportRefusal(t *testing.T, tt *transportTest) {
	var refusal atomic.Pointer[ports.Refusal]
	tt.serve(t, func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
		return ports.Lease{}, fmt.Errorf("wrapped: %w", refusal.Load())
	})
	n := tt.remote(t)
	for _, code := range []ports.Code{
		ports.CodeMalformed, ports.CodeTooLarge, ports.CodePeerMismatch, ports.CodeAddrInvalid, ports.CodeRefused, ports.CodeBusy,
	} {
		refusal.Store(ports.Refuse(code, "the address %q is none — “%s”", "x", code))
		_, err := tt.register(t.Context(), n)
		var got *ports.Refusal
		if !errors.As(err, &got) || !reflect.DeepEqual(got, refusal.Load()) {
			t.Errorf("got %v, want %v", err, refusal.Load())
		}
	}
}

func transportBusy(t *testing.T, tt *transportTest) {
	tt.serve(t, func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
		return ports.Lease{}, errors.New("a secret of the native")
	})
	_, err := tt.register(t.Context(), tt.remote(t))
	expectCode(t, err, ports.CodeBusy)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the native's own error arrived: %v", err)
	}
}

func expectCode(t *testing.T, err error, want ports.Code) {
	t.Helper()
	var refusal *ports.Refusal
	if !errors.As(err, &refusal) || refusal.Code != want {
		t.Errorf("got %v, want a refusal with code %s", err, want)
	}
}

// unreached is a native that must not be called.
func unreached(t *testing.T) registerFunc {
	return func(_ context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
		t.Errorf("%+v of %s arrived", r, sender)
		return ports.Lease{}, nil
	}
}

func transportLimits(t *testing.T, tt *transportTest) {
	stop := tt.serve(t, grant)
	n := tt.remote(t)
	meta := func(size int) ports.Registration {
		r := tt.registration()
		r.Meta = map[string]string{"a": strings.Repeat("a", size/2-1), "b": strings.Repeat("b", size-size/2-1)}
		return r
	}
	frame := func(size int) ports.Registration {
		r := tt.registration()
		r.Addr = strings.Repeat("a", size-len(`{"PeerID":"","Addr":""}`)-len(r.PeerID))
		return r
	}
	for _, r := range []ports.Registration{meta(ports.MaxMetaBytes), frame(ports.MaxFrameBytes)} {
		if _, err := n.Register(t.Context(), tt.indexer.ID, r); err != nil {
			t.Errorf("at the limit: %v", err)
		}
	}
	stop()
	tt.serve(t, unreached(t))
	for _, r := range []ports.Registration{meta(ports.MaxMetaBytes + 1), frame(ports.MaxFrameBytes + 1)} {
		_, err := n.Register(t.Context(), tt.indexer.ID, r)
		expectCode(t, err, ports.CodeTooLarge)
	}
	bad := tt.registration()
	bad.Meta = map[string]string{"name": "not UTF-8: \xff"}
	_, err := n.Register(t.Context(), tt.indexer.ID, bad)
	expectCode(t, err, ports.CodeMalformed)
}

func transportContext(t *testing.T, tt *transportTest) {
	entered, release := make(chan struct{}), make(chan struct{})
	tt.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		select {
		case entered <- struct{}{}:
		case <-release:
		}
		<-release // even after ctx ends
		return grant(ctx, id, r)
	})
	defer close(release)
	n := tt.remote(t)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := tt.register(ended, n); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: got %v, want %v", err, context.Canceled)
	}

	promptly(t, "with a context that ended meanwhile", func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			select {
			case <-entered:
				cancel()
			case <-ctx.Done():
			}
		}()
		if _, err := tt.register(ctx, n); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("got %v, want %v", err, context.Canceled)
		}
		return nil
	})
}

// promptly fails the test if do fails, or takes more than half of an exchange's time. It retries
// a slow do a few times, since the machine may stall.
func promptly(t *testing.T, what string, do func() error) {
	t.Helper()
	var took time.Duration
	for range 5 {
		began := time.Now()
		err := do()
		if took = time.Since(began); took < ports.ExchangeTimeout/2 {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
	}
	t.Errorf("%s: it takes %s", what, took)
}

func transportExchangeEnds(t *testing.T, tt *transportTest) {
	contexts := make(chan context.Context, 1)
	tt.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		if err := ctx.Err(); err != nil {
			t.Errorf("ended before the exchange did: %v", err)
		}
		contexts <- ctx
		return grant(ctx, id, r)
	})
	if _, err := tt.register(t.Context(), tt.remote(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-(<-contexts).Done():
	case <-time.After(Patience):
		t.Error("the context lives on after the exchange")
	}
}

func transportNotServing(t *testing.T, tt *transportTest) {
	lease, err := tt.register(t.Context(), tt.remote(t))
	var refusal *ports.Refusal
	if err == nil || errors.As(err, &refusal) {
		t.Errorf("got %+v and %v, want an error that is no refusal", lease, err)
	}
}

func transportSecondServe(t *testing.T, tt *transportTest) {
	stop := tt.serve(t, grant)
	if _, err := tt.native.Serve(Native{OnRegister: unreached(t)}); err == nil {
		t.Error("served twice")
	}
	if _, err := tt.register(t.Context(), tt.remote(t)); err != nil {
		t.Errorf("the first no longer serves: %v", err)
	}
	stop()
	tt.serve(t, grant)
}

func transportStopWaits(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	promptly(t, "stop", func() error {
		entered := make(chan struct{})
		var ended atomic.Bool
		stop := tt.serve(t, func(ctx context.Context, _ ports.PeerID, _ ports.Registration) (ports.Lease, error) {
			close(entered)
			<-ctx.Done()
			ended.Store(true)
			return ports.Lease{}, ctx.Err()
		})
		defer stop()
		failed := make(chan error, 1)
		go func() {
			_, err := tt.register(t.Context(), n)
			failed <- err
		}()
		select {
		case <-entered:
		case err := <-failed:
			return fmt.Errorf("the registration does not arrive: %w", err)
		}
		stop()
		if !ended.Load() {
			t.Error("stop returned before the exchange had ended")
		}
		if err := <-failed; err == nil {
			return errors.New("the exchange that was stopped gave a lease")
		}
		return nil
	})
}

func transportStop(t *testing.T, tt *transportTest) {
	var stopped atomic.Bool
	stop := tt.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		if stopped.Load() {
			t.Error("a registration arrived after stop")
		}
		return grant(ctx, id, r)
	})
	n := tt.remote(t)
	if _, err := tt.register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(stop)
	stop()
	both.Wait()
	stopped.Store(true)
	if lease, err := tt.register(t.Context(), n); err == nil {
		t.Errorf("got %+v of a native that has stopped", lease)
	}
	stop()
}

func transportServesAgain(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	for range 3 {
		stop := tt.serve(t, grant)
		if _, err := tt.register(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := tt.register(t.Context(), n); err == nil {
			t.Error("registered while nothing was served")
		}
	}
}

func transportSymmetric(t *testing.T, tt *transportTest) {
	for _, side := range []*transportTest{tt, {native: tt.indexer, indexer: tt.native}} {
		senders := make(chan ports.PeerID, 1)
		side.serve(t, func(ctx context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
			senders <- id
			return grant(ctx, id, r)
		})
		if _, err := side.register(t.Context(), side.remote(t)); err != nil {
			t.Fatal(err)
		}
		if sender := <-senders; sender != side.indexer.ID {
			t.Errorf("sender is %s, want %s", sender, side.indexer.ID)
		}
	}
}

func transportAddresses(t *testing.T, tt *transportTest) {
	good := tt.native.Addrs
	for name, addrs := range map[string][]string{
		"an empty one": {""}, "an empty one behind a good one": {good[0], ""},
	} {
		if _, err := tt.indexer.Native(tt.native.ID, addrs); err == nil {
			t.Errorf("address: %s: no error", name)
		}
	}
	if _, err := tt.indexer.Native("", good); err == nil {
		t.Error("no PeerID: no error")
	}
}

func transportDisconnected(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	if n.Disconnected() != nil {
		t.Error("not nil before the first Register")
	}
	if _, err := tt.register(t.Context(), n); err == nil || n.Disconnected() != nil {
		t.Errorf("not nil after a Register that failed with %v", err)
	}
	tt.serve(t, grant)
	if _, err := tt.register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	select {
	case <-n.Disconnected():
		t.Error("closed while both nodes are there")
	default:
	}
}

func transportReached(t *testing.T, tt *transportTest) {
	n := tt.remote(t)
	if _, err := tt.register(t.Context(), n); err == nil || n.Reached() != "" {
		t.Errorf("%q was reached by a Register that failed with %v", n.Reached(), err)
	}
	tt.serve(t, grant)
	if _, err := tt.register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	again, err := tt.indexer.Native(tt.native.ID, []string{n.Reached()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tt.register(t.Context(), again); err != nil || again.Reached() != n.Reached() {
		t.Errorf("reached %q, then %q: %v", n.Reached(), again.Reached(), err)
	}
}

// silentOnce returns a func that waits for the end of ctx when it is called the second time.
func silentOnce() (wait func(ctx context.Context), called *atomic.Int32) {
	called = &atomic.Int32{}
	return func(ctx context.Context) {
		if called.Add(1) == 2 {
			<-ctx.Done()
		}
	}, called
}

func transportSilentRegister(t *testing.T, tt *transportTest) {
	wait, called := silentOnce()
	tt.serve(t, func(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
		wait(ctx)
		return grant(ctx, sender, r)
	})
	n := tt.remote(t)
	ctx := ports.WithPatience(t.Context(), 100*time.Millisecond)
	for range 2 {
		if lease, err := tt.register(ctx, n); err != nil || lease.Unconfirmed || lease.TTL == 0 {
			t.Errorf("got %+v and %v, want a lease", lease, err)
		}
	}
	if called.Load() != 3 {
		t.Errorf("the native was sent %d registrations, want 3", called.Load())
	}
	select {
	case <-n.Disconnected():
		t.Error("Disconnected tells of the connection before")
	default:
	}
}

func transportSilentLeave(t *testing.T, tt *transportTest) {
	wait, called := silentOnce()
	tt.serveAll(t, Native{OnLeave: func(ctx context.Context, _ ports.PeerID, _ []byte) error {
		wait(ctx)
		return nil
	}})
	n := tt.remote(t)
	ctx := ports.WithPatience(t.Context(), 100*time.Millisecond)
	for range 2 {
		if err := n.Leave(ctx, tt.indexer.ID, nil); err != nil {
			t.Error(err)
		}
	}
	if called.Load() != 3 {
		t.Errorf("the native was sent %d leaves, want 3", called.Load())
	}
}

func transportConcurrency(t *testing.T, tt *transportTest) {
	const workers, each = 16, 50
	tt.serve(t, func(_ context.Context, id ports.PeerID, r ports.Registration) (ports.Lease, error) {
		ttl, err := time.ParseDuration(r.Meta["ttl"])
		if id != tt.indexer.ID {
			err = fmt.Errorf("sender is %s", id)
		}
		return ports.Lease{TTL: ttl}, err
	})
	shared := tt.remote(t)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			own := tt.remote(t)
			for i := range each {
				n := []ports.RemoteNative{shared, own}[i%2]
				r := tt.registration()
				want := time.Duration(1+w*each+i) * time.Second
				r.Meta = map[string]string{"ttl": want.String()}
				if lease, err := n.Register(t.Context(), tt.indexer.ID, r); err != nil || lease.TTL != want {
					t.Errorf("got %s and %v, want the lease of %s", lease.TTL, err, want)
					return
				}
				_ = n.Disconnected()
			}
		})
	}
	all.Wait()
}
