package wire_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// A frame has as many blocks as fit into it. Each takes memory for its own renewals alone.
func TestAFrameOfSmallBlocksTakesMemoryForItsRenewalsAlone(t *testing.T) {
	var m []byte
	blocks := 0
	for ; ; blocks++ {
		block := fields{11, fields{1, 1, 2, packed(uint64(blocks + 1)), 3, packed(0), 4, packed(0), 6, packed(2)}}.message()
		if len(m)+len(block) > ports.MaxBatchBytes {
			break
		}
		m = append(m, block...)
	}
	teller := wire.NewTeller(self)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b, err := teller.Decode(m, time.Now())
	runtime.ReadMemStats(&after)
	if err != nil || b.News == nil || len(b.News.Renewals) != blocks {
		t.Fatalf("%d blocks are decoded as %+v, %v", blocks, b.News, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("%d bytes of %d renewals, each in a block of its own, take %d bytes of memory", len(m), blocks, took)
	}
}
