package domain_test

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestANativeNamesAFollowedNativeThatDoesNotHearItsIndexers(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		var slept atomic.Int64
		id, x := peerIDs(3), peerIDs(3)[2]
		a := net.native(id[0], nativeOptions{sleeps: func() time.Duration { return time.Duration(slept.Load()) }})
		defer a.stop()
		b := net.native(id[1], nativeOptions{})
		defer b.stop()
		time.Sleep(time.Minute)
		a.register(t, x, addr)
		time.Sleep(40 * time.Second)
		slept.Add(int64(30 * time.Second))
		time.Sleep(30 * time.Second) // the lease has ended at both; at a it is stale

		if got := states(a.native, x); got[0] != string(ports.StateStale) {
			t.Fatalf("at the native that slept: %v", got)
		}
		if got := states(b.native, x); got[0] != "-" {
			t.Fatalf("at the other: %v", got)
		}
		if got := b.Missing(); !slices.Equal(got, id[:1]) || b.Condition() != ports.ConditionPartial {
			t.Errorf("the other lacks an indexer, and says %q, %v", b.Condition(), got)
		}
		a.register(t, x, addr)
		time.Sleep(time.Second)
		if got := states(b.native, x); got[0] != string(ports.StateLive) || b.Condition() != "" || len(b.Missing()) > 0 {
			t.Errorf("after a heartbeat: %v, %q, %v", got, b.Condition(), b.Missing())
		}
	})
}

// A native that says for ever that it is unheard is named for two TTLs.
func TestAnUnheardNativeIsNamedForTwoTTLs(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(2)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		stop, err := net.transports.Join(id[1]).Serve(porttest.Native{
			OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
				return func(yield func(ports.Batch, error) bool) {
					for first := ports.ResetNew; ctx.Err() == nil; first = "" {
						if !yield(ports.Batch{Reset: first, Cursor: "1", Condition: ports.ConditionUnheard}, nil) {
							return
						}
						select {
						case <-ctx.Done():
						case <-time.After(time.Second):
						}
					}
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		ttl := net.rules.Policy.TTL
		for _, c := range []struct {
			after time.Duration
			named bool
		}{{time.Second, true}, {2*ttl - 2*time.Second, true}, {2 * time.Second, false}, {time.Hour, false}} {
			time.Sleep(c.after)
			if got := a.Missing(); slices.Contains(got, id[1]) != c.named {
				t.Errorf("after %v more: %v", c.after, got)
			}
		}
	})
}

// The changes of a large batch come in parts, each with the batch's condition.
func TestANativeIsNamedUntilAllIsTakenInThatItDidNotHear(t *testing.T) {
	withEachWatch(t, func(t *testing.T, net *followingNetwork) {
		id := peerIDs(3)
		a := net.native(id[0], nativeOptions{})
		defer a.stop()
		stop, err := net.transports.Join(id[1]).Serve(porttest.Native{
			OnWatch: func(ctx context.Context, _ ports.PeerID, _ ports.WatchRequest) iter.Seq2[ports.Batch, error] {
				return func(yield func(ports.Batch, error) bool) {
					for _, b := range []ports.Batch{
						{Reset: ports.ResetNew, Cursor: "1", Condition: ports.ConditionUnheard},
						{},
						{Cursor: "2", Changes: saysLease(id[1], id[2], addr, 0)},
					} {
						if !yield(b, nil) {
							return
						}
						time.Sleep(2 * time.Second)
					}
					<-ctx.Done()
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		var told []string
		go func() {
			for b := range a.Watch(ctx, "", ports.WatchRequest{}) {
				if slices.Contains(b.Missing, id[1]) {
					told = append(told, "missing")
				}
				for range b.Changes {
					told = append(told, "change")
				}
				if !slices.Contains(b.Missing, id[1]) {
					told = append(told, "there")
				}
			}
		}()
		time.Sleep(10 * time.Second)
		cancel()
		synctest.Wait()
		missing, change := slices.Index(told, "missing"), slices.Index(told, "change")
		if missing < 0 || change < missing || slices.Contains(told[missing:change], "there") || told[len(told)-1] != "there" {
			t.Errorf("a watcher is told %v", told)
		}
	})
}
