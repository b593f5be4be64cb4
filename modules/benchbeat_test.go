package modules_test

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

const (
	beatEchoProtocol     = protocol.ID("/echo/beats")
	beatTogetherProtocol = protocol.ID("/echo/beats/together")
)

// cannedBeat is as long as the answer to a heartbeat on an open stream.
var cannedBeat = append([]byte{9}, make([]byte, 9)...)

// beatEchoed is what a bare libp2p program would do with the frames of an open stream: read one, and
// write an answer of the same bytes.
func beatEchoed(s network.Stream) {
	defer s.Reset()
	r := bufio.NewReader(s)
	for {
		length, err := binary.ReadUvarint(r)
		if err == nil {
			_, err = r.Discard(int(length))
		}
		if err == nil {
			_, err = s.Write(cannedBeat)
		}
		if err != nil {
			return
		}
	}
}

// beatEchoedTogether does so with all frames that there are, and writes their answers in one write.
func beatEchoedTogether(s network.Stream) {
	defer s.Reset()
	buf, answers, held := make([]byte, 4096), []byte(nil), 0
	for {
		n, err := s.Read(buf[held:])
		if err != nil {
			return
		}
		held += n
		done := 0
		for answers = answers[:0]; ; {
			length, size := binary.Uvarint(buf[done:held])
			if size <= 0 || done+size+int(length) > held {
				break
			}
			done += size + int(length)
			answers = append(answers, cannedBeat...)
		}
		held = copy(buf, buf[done:held])
		if _, err := s.Write(answers); err != nil {
			return
		}
	}
}

// beats makes the frames of one signing indexer.
type beats struct {
	signingClient
	b *testing.B
}

func newBeats(b *testing.B, h host.Host) *beats {
	b.Helper()
	signer, err := proof.NewSigner(h.Peerstore().PrivKey(h.ID()), "")
	if err != nil {
		b.Fatal(err)
	}
	return &beats{signingClient{self: ports.PeerID(h.ID().String()), signer: signer}, b}
}

// next returns n frames: ticks, and a registration with its record where a chain begins. The
// whole chain is so short that no tick is early.
func (c *beats) next(n int) (frames [][]byte) {
	c.b.Helper()
	for range n {
		if c.step++; c.step >= len(c.chain) {
			seq, _ := c.signer.Seq(time.Now().Add(-2 * time.Second).UnixMilli())
			c.issueAt(c.b, seq, ports.MaxSteps, 8*time.Millisecond, 66*time.Second)
			frames = append(frames, c.registration())
			continue
		}
		frames = append(frames, c.tick(c.step))
	}
	return frames
}

// registration is the frame of an open stream that registers with the record.
func (c *signingClient) registration() []byte {
	message := fmt.Appendf(nil, `{"PeerID":"%s","Addr":"/ip4/127.0.0.1/tcp/4001","Record":"%s","Tick":{"Seq":%d,"Step":0,"Link":"%s"}}`,
		c.self, base64.StdEncoding.EncodeToString(c.record), c.claim.Seq, base64.StdEncoding.EncodeToString(c.chain[0][:]))
	message = append(binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(message))), message...)
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
}

// tick is the frame of a heartbeat on it.
func (c *signingClient) tick(step int) []byte {
	message := binary.AppendUvarint([]byte{2 << 3}, uint64(step))
	message = append(append(message, 3<<3|2, 32), c.chain[step][:]...)
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
}

// inFlight is how many frames an indexer may have without an answer.
const inFlight = ports.MaxHeartbeats

// pump sends the frames over s, inFlight of them at a time, and reads as many answers. It writes a frame
// at a time, or together all that may go. It returns how many answers were longer than a lease that is
// granted anew.
func pump(b *testing.B, s network.Stream, frames [][]byte, together bool) (long int) {
	b.Helper()
	buf, out := make([]byte, 64<<10), []byte(nil)
	sent, answered, held := 0, 0, 0
	for answered < len(frames) {
		out = out[:0]
		for ; sent < len(frames) && sent < answered+inFlight; sent++ {
			if out = append(out, frames[sent]...); together {
				continue
			}
			if _, err := s.Write(out); err != nil {
				b.Fatal(err)
			}
			out = out[:0]
		}
		if len(out) > 0 {
			if _, err := s.Write(out); err != nil {
				b.Fatal(err)
			}
		}
		n, err := s.Read(buf[held:])
		if err != nil {
			b.Fatal(err)
		}
		held += n
		done := 0
		for {
			length, size := binary.Uvarint(buf[done:held])
			if size <= 0 || done+size+int(length) > held {
				break
			}
			done += size + int(length)
			answered++
			if length > 12 {
				long++
			}
		}
		held = copy(buf, buf[done:held])
	}
	return long
}

// tableOfBeats sets heartbeats on an open stream beside the same frames on a bare libp2p stream, and
// beside one exchange a stream.
func tableOfBeats(b *testing.B, t *table, scale float64) {
	t.part("A signed heartbeat on a stream that stays open, %d in flight, beside the same frames on a bare libp2p stream of the native's own host", inFlight)
	node := benchNode(b, "native", "", modules.Module{
		Name: "echo", Summary: "an echo on the native's own host", Always: true, Wire: func(*modules.Plan) fx.Option {
			return fx.Invoke(func(h host.Host) {
				h.SetStreamHandler(beatEchoProtocol, beatEchoed)
				h.SetStreamHandler(beatTogetherProtocol, beatEchoedTogether)
			})
		},
	})
	at, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	open := func(h host.Host, p protocol.ID) network.Stream {
		s, err := h.NewStream(b.Context(), at.ID, p)
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	h := benchClient(b)
	if err := h.Connect(b.Context(), *at); err != nil {
		b.Fatal(err)
	}
	c := newBeats(b, h)
	streams := []network.Stream{open(h, ports.HeartbeatProtocol), open(h, beatEchoProtocol), open(h, beatTogetherProtocol)}
	for _, s := range streams {
		defer s.Reset()
	}
	batch := scaled(20_000, scale, 4_000)
	us := unit("µs", 2)
	var rate float64
	for _, together := range []bool{false, true} {
		cpus, rates := make([][]float64, len(streams)), make([][]float64, len(streams))
		for round := range scaled(15, scale, 5) + 1 { // the first warms up
			frames := c.next(batch)
			for turn := range streams {
				i := (round + turn) % len(streams)
				before, began := cpu(), time.Now()
				long := pump(b, streams[i], frames, together)
				took, each := time.Since(began), float64(cpu()-before)/float64(batch)
				if i == 0 && long > batch/100 {
					b.Fatalf("%d of %d answers are no lease that is granted anew", long, batch)
				}
				if round > 0 {
					cpus[i], rates[i] = append(cpus[i], each), append(rates[i], float64(batch)/took.Seconds())
				}
			}
		}
		how := "a write a frame"
		if together {
			how = "all that may go in one write"
		}
		figure := func(i int) string {
			return us(median(cpus[i])/1e3) + " CPU, " + thousands(median(rates[i])) + " a second"
		}
		t.row(how+": a heartbeat, its indexer included", figure(0), "")
		t.row(how+": a bare stream, answered frame by frame", figure(1), "")
		t.row(how+": a bare stream, answered as many at a time as there are", figure(2), fmt.Sprintf("%.2fx of it", median(ratios(cpus[0], cpus[2]))))
		if rate = median(rates[0]); !together {
			t.atMost("a heartbeat on a stream that stays open: CPU beside the bare stream", median(ratios(cpus[0], cpus[1])), 1.3, unit("x", 2))
			t.ofScale(10, 1)
		}
	}

	exchanges := exchangeRate(b, at, c, scaled(4_000, scale, 1_000))
	t.row("one exchange a stream, as many at once", thousands(exchanges)+" a second", "")
	t.atLeast("heartbeats a second beside one exchange a stream", rate/exchanges, 8, unit("x", 1))
	t.ofScale(10, 1)
}

// exchangeRate returns how many heartbeats a second go over a stream each, inFlight of them at once.
func exchangeRate(b *testing.B, at *peer.AddrInfo, c *beats, n int) float64 {
	h := benchClient(b)
	if err := h.Connect(b.Context(), *at); err != nil {
		b.Fatal(err)
	}
	frame := benchFrame(h)
	var next atomic.Int64
	var asking sync.WaitGroup
	began := time.Now()
	for range inFlight {
		asking.Go(func() {
			for int(next.Add(1)) <= n {
				if answer, err := ask(b.Context(), h, at.ID, ports.SubscribeProtocol, frame); err != nil || len(answer) < 10 {
					b.Errorf("%q: %v", answer, err)
					return
				}
			}
		})
	}
	asking.Wait()
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkHeartbeatOnAnOpenStream is tableOfBeats by itself, for a profile: with -benchtime 1s.
func BenchmarkHeartbeatOnAnOpenStream(b *testing.B) {
	t := &table{}
	tableOfBeats(b, t, benchScale(b))
	fmt.Println(t.text())
}
