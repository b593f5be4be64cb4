package domain

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// Records of all kinds of PeerIDs come and go while pages are read: each page is in the order of the text. Once all
// are gone, nothing of them is kept.
func TestRecordsComeAndGoBesidePages(t *testing.T) {
	r, _ := bareRegistry(t, "me", nil)
	var writers, reader sync.WaitGroup
	stop := make(chan struct{})
	for g := range 2 {
		writers.Go(func() {
			for i := range 6000 {
				id := ports.PeerID(fmt.Sprintf("12D3KooW%044d", (i*7919+g)%3000))
				switch i % 3 {
				case 1:
					id = ports.PeerID(fmt.Sprintf("12D3%050d", (i*7919)%500) + strings.Repeat("x", i%40))
				case 2:
					id = ports.PeerID(fmt.Sprintf("Qm%d", (i*7919)%900))
				}
				if (i/750)%2 == 0 {
					if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/ip4/10.0.0.1/tcp/1"}); err != nil {
						t.Error(err)
					}
				} else {
					s := r.table.shard(id)
					s.mu.Lock()
					if rec := s.record(id); rec.known() {
						s.apply(rec, &holding{}, r.now())
					}
					s.mu.Unlock()
				}
			}
		})
	}
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			var after ports.PeerID
			for {
				ids := r.table.order.after(after, 300)
				if !slices.IsSorted(ids) || len(ids) > 0 && ids[0] <= after {
					t.Errorf("behind %q comes %q", after, ids)
				}
				if len(ids) == 0 {
					break
				}
				after = ids[len(ids)-1]
			}
		}
	})
	writers.Wait()
	close(stop)
	reader.Wait()
	for i := range r.table.shards {
		s := &r.table.shards[i]
		for _, id := range s.ids() {
			s.mu.Lock()
			s.apply(s.record(id), &holding{}, r.now())
			s.mu.Unlock()
		}
		used := 0
		for _, c := range *s.slots.chunks.Load() {
			if c != nil {
				used += int(c.used)
			}
		}
		for _, b := range s.arena.sizes {
			if b.used != 0 {
				t.Errorf("%d blocks are kept", b.used)
			}
		}
		if used != 0 || s.index.size != 0 || len(s.odd)+len(s.ended)+len(s.shares.of) != 0 {
			t.Errorf("%d slots, %d in the index and %d odd holdings are kept", used, s.index.size, len(s.odd))
		}
	}
	if len(r.table.names.byID) != 2 || r.table.size.Load() != 0 || len(r.table.order.blocks) != 0 {
		t.Errorf("%v, %d records and %d blocks of the order are kept", r.table.names.byID, r.table.size.Load(), len(r.table.order.blocks))
	}
}
