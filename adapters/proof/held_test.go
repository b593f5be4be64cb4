package proof

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencloud/ocnode/ports"
)

// TestWhatIsRememberedIsBoundedInBytes has records of many keys with as much in them as
// there may be.
func TestWhatIsRememberedIsBoundedInBytes(t *testing.T) {
	large := func(n int) *ports.Claim {
		c := &ports.Claim{PeerID: ports.PeerID(fmt.Sprint("peer", n)), Meta: map[string]string{}}
		for i := range ports.MaxAddrs {
			c.Addrs = append(c.Addrs, fmt.Sprint(n, i, strings.Repeat("a", 240)))
		}
		for i := range ports.MaxMetaNames {
			c.Meta[fmt.Sprint(i, n)] = "v"
		}
		return c
	}
	key := func(n int) (key [sha256.Size]byte) {
		binary.BigEndian.PutUint64(key[:], uint64(n))
		return key
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	v := NewVerifier()
	before := heap()
	n := 0
	for ; v.verified.Len() == n; n++ { // until one is forgotten
		v.keep(key(n), sound{claim: large(n)})
	}
	inUse := int(heap() - before)
	t.Logf("%d of %d bytes each: counted as %d bytes, %d in use", n-1, inUse/(n-1), v.bytes, inUse)
	if v.bytes > maxVerifiedBytes || v.bytes < maxVerifiedBytes-held(large(n)) || inUse > maxVerifiedBytes*5/4 {
		t.Errorf("%d bytes are counted and %d in use, at most %d may be", v.bytes, inUse, maxVerifiedBytes)
	}
	if _, ok := v.known(key(0)); ok {
		t.Error("it is not the oldest that is forgotten")
	}
	was := v.bytes
	v.keep(key(n-1), sound{claim: large(n - 1), last: ports.Tick{Step: 1}}) // its next tick
	if again, ok := v.known(key(n - 1)); v.bytes != was || !ok || again.last.Step != 1 {
		t.Errorf("with its next tick %d bytes are counted, were %d", v.bytes, was)
	}
}
