package porttest

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Discovery tests the promises of ports.Discovery. network makes an empty network; join adds a
// node to it, and returns once the node can find others. The adapter's test closes join's nodes
// when the test ends.
func Discovery(t *testing.T, network func(t *testing.T) (join func() (ports.PeerID, ports.Discovery))) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, join func() (ports.PeerID, ports.Discovery))
	}{
		{"all others find a native that advertises, at its addresses, and no other node", discoveryFinds},
		{"an Advertise goes on until its context ends, and that is no error", discoveryAdvertises},
		{"a Find ends with its context, and that is no error", discoveryEndedContext},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, network(t)) })
	}
}

// advertise lets d advertise until the test ends.
func advertise(t *testing.T, d ports.Discovery) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := d.Advertise(ctx); err != nil {
			t.Errorf("advertise: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
}

// found returns the natives that d finds, sorted.
func found(t *testing.T, d ports.Discovery) (ids []ports.PeerID) {
	t.Helper()
	var calls atomic.Int64
	err := d.Find(t.Context(), func(f ports.Found) {
		if calls.Add(1) != 1 {
			t.Error("found is called while it runs")
		}
		defer calls.Add(-1)
		if len(f.Addrs) == 0 || slices.Contains(f.Addrs, "") {
			t.Errorf("%s is found at %q", f.PeerID, f.Addrs)
		}
		ids = append(ids, f.PeerID)
	})
	if err != nil {
		t.Errorf("find: %v", err)
	}
	slices.Sort(ids)
	return ids
}

func discoveryFinds(t *testing.T, join func() (ports.PeerID, ports.Discovery)) {
	a, first := join()
	b, second := join()
	advertise(t, first)
	advertise(t, second)
	_, reader := join()
	both := []ports.PeerID{a, b}
	slices.Sort(both)
	for name, c := range map[string]struct {
		d    ports.Discovery
		want []ports.PeerID
	}{
		"a node that does not advertise": {reader, both},
		"the first":                      {first, []ports.PeerID{b}},
		"the second":                     {second, []ports.PeerID{a}},
	} {
		Eventually(t, name+" finds the others", func() bool { return slices.Equal(found(t, c.d), c.want) })
	}
}

func discoveryAdvertises(t *testing.T, join func() (ports.PeerID, ports.Discovery)) {
	_, lone := join()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- lone.Advertise(ctx) }()
	if ids := found(t, lone); len(ids) != 0 {
		t.Errorf("alone it finds %v", ids)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v", err)
	default:
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(Patience):
		t.Fatal("it does not end with its context")
	}
}

func discoveryEndedContext(t *testing.T, join func() (ports.PeerID, ports.Discovery)) {
	_, d := join()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := d.Find(ended, func(ports.Found) {}); err != nil {
		t.Errorf("find: %v", err)
	}
	if took := time.Since(began); took > Patience/2 {
		t.Errorf("it took %v", took)
	}
}
