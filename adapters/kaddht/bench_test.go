package kaddht

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	record "github.com/libp2p/go-libp2p-record"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// BenchmarkPut puts renewals to a server that follows nobody, 64 at once as an outbox does: by a Store, and
// as the library does. The CPU is of both sides.
func BenchmarkPut(b *testing.B) {
	n, server := newNative(b, hosttest.New(b)), newStore(b, hosttest.New(b), rule)
	hosttest.Connect(b, n.host, server.host)
	porttest.Eventually(b, "it is known", n.Strangers)
	var entries [64]ports.Entry
	for i := range entries {
		entries[i] = entryFor(b)
	}
	var later atomic.Int64
	for _, way := range []struct {
		name string
		put  func(ports.Entry) error
	}{
		{"store", func(e ports.Entry) error {
			_, err := n.Put(context.Background(), e)
			return err
		}},
		{"library", func(e ports.Entry) error {
			peers, err := n.dht.GetClosestPeers(context.Background(), keyOf(e.PeerID))
			for _, p := range peers {
				err = n.messenger.PutValue(context.Background(), p, record.MakePutRecord(keyOf(e.PeerID), valueOf(b, e)))
			}
			return err
		}},
	} {
		b.Run(way.name, func(b *testing.B) {
			began := used()
			var putting sync.WaitGroup
			for worker := range entries {
				putting.Go(func() {
					e := entries[worker]
					for i := worker; i < b.N; i += len(entries) {
						e.ExpiresAt = time.Now().Add(porttest.TTL + time.Duration(later.Add(1))).UTC().Round(0)
						if err := way.put(e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			putting.Wait()
			b.ReportMetric(float64(used()-began)/float64(b.N)/1e3, "cpu-µs/op")
		})
	}
}

// used returns the CPU of this process so far.
func used() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
