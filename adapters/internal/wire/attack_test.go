package wire_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// malformations make a frame that is accepted into one that is not.
var malformations = map[string]func(frame []byte, r *rand.Rand) []byte{
	"cut off": func(f []byte, r *rand.Rand) []byte { return f[:r.IntN(len(f)-1)] },
	"a byte that no text has": func(f []byte, r *rand.Rand) []byte {
		at := 1 + r.IntN(len(f)-2)
		return slices.Insert(f, at, 0xc0|byte(r.IntN(2))) // never in UTF-8
	},
	"a control character": func(f []byte, r *rand.Rand) []byte {
		return slices.Insert(f, bytes.IndexByte(f, ':')+3+r.IntN(20), byte(r.IntN(9)))
	},
	"something behind the object": func(f []byte, r *rand.Rand) []byte { return append(f, "{}[]x0\"-"[r.IntN(8)]) },
	"something before the object": func(f []byte, r *rand.Rand) []byte { return slices.Insert(f, 0, "{}[]x0\"-"[r.IntN(8)]) },
	"a name twice": func(f []byte, r *rand.Rand) []byte {
		return append(f[:len(f)-1], []string{`,"Addr":""}`, `,"PeerID":null}`, `,"Meta":{"a":"","a":""}}`, `,"x":{"y":[{"z":1,"z":2}]}}`}[r.IntN(4)]...)
	},
	"a name in another case": func(f []byte, r *rand.Rand) []byte {
		at := bytes.Index(f, []byte("PeerID")) + r.IntN(6)
		f[at] ^= 0x20
		return f
	},
	"too deep": func(f []byte, r *rand.Rand) []byte {
		n := ports.MaxNesting + r.IntN(1000)
		return append(f[:len(f)-1], `,"x":`+strings.Repeat("[", n)+strings.Repeat("]", n)+"}"...)
	},
	"too deep, and endless": func(f []byte, r *rand.Rand) []byte {
		return append(f[:len(f)-1], `,"x":`+strings.Repeat(`{"a":`, ports.MaxNesting+r.IntN(1000))...)
	},
	"another type": func(f []byte, r *rand.Rand) []byte {
		return append(f[:len(f)-1], []string{`,"Addrs":{}}`, `,"Addrs":[1]}`, `,"Meta":[]}`, `,"Meta":{"a":1}}`, `,"Meta":"x"}`}[r.IntN(5)]...)
	},
	"no PeerID": func(f []byte, r *rand.Rand) []byte {
		at := bytes.IndexByte(f, ':') + 2
		f[at+r.IntN(40)] = "0OIl _-+"[r.IntN(8)] // not in base58
		return f
	},
	"a PeerID without end": func(f []byte, r *rand.Rand) []byte {
		return append(f[:0], fmt.Sprintf(`{"PeerID":"%s"}`, strings.Repeat("1z"[r.IntN(2):][:1], 129+r.IntN(1000)))...)
	},
	"half a surrogate pair": func(f []byte, r *rand.Rand) []byte {
		return append(f[:len(f)-1], fmt.Sprintf(`,"x":"\ud8%02x"}`, r.IntN(256))...)
	},
}

// malformed takes three seconds. Ten million frames take half a minute, and belong to make figures.
var malformed = flag.Int("frames", porttest.Scale(1_000_000, 100_000), "how many malformed frames TestAttackTheDecoder sends; make figures has it send ten million")

// TestAttackTheDecoder hands the decoder what no indexer sends, beside what one does.
func TestAttackTheDecoder(t *testing.T) {
	frames := *malformed
	const most = 64 << 20
	good := []byte(fmt.Sprintf(`{"PeerID":%q,"Addr":"/ip4/10.0.0.1/tcp/4101","Addrs":["/ip4/10.0.0.1/tcp/4101"]}`, other))
	classes := slices.Sorted(maps.Keys(malformations))
	before := porttest.Holds()
	began := time.Now()
	var workers sync.WaitGroup
	var mu sync.Mutex
	refused, accepted, honest, bytesSent := map[string]int{}, map[string]int{}, 0, 0
	for w := range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(w)))
			buf := make([]byte, 0, ports.MaxFrameBytes)
			no, yes, ok, size := make([]int, len(classes)), make([]int, len(classes)), 0, 0
			for i := w; i < frames; i += runtime.GOMAXPROCS(0) {
				class := i % len(classes)
				frame := malformations[classes[class]](append(buf[:0], good...), r)
				size += len(frame)
				_, err := wire.DecodeRegistration(frame, self)
				if refusal, is := err.(*ports.Refusal); is && refusal.Code == ports.CodeMalformed {
					no[class]++
				} else if yes[class]++; yes[class] == 1 {
					t.Errorf("%s: %q: %v", classes[class], frame, err)
				}
				if i%100 == 0 {
					if _, err := wire.DecodeRegistration(good, self); err != nil {
						t.Errorf("an honest frame: %v", err)
					}
					ok++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for i, class := range classes {
				refused[class] += no[i]
				accepted[class] += yes[i]
			}
			honest += ok
			bytesSent += size
		})
	}
	workers.Wait()
	took := time.Since(began)
	total := 0
	for _, class := range classes {
		total += refused[class]
		t.Logf("%-28s %8d refused, %d accepted", class, refused[class], accepted[class])
	}
	more := before.ExpectNoMore(t, most)
	t.Logf("%d malformed frames, %d MiB, %.1f s: all refused; %d honest ones beside them accepted; %d KiB more in use, %d KiB more mapped", total, bytesSent>>20, took.Seconds(), honest, more.InUse>>10, more.Mapped>>10)
	if total != frames {
		t.Errorf("%d of %d were refused", total, frames)
	}
}
