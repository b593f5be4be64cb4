package stream_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// served runs a test between an indexer and a native that grants everything.
func served(t *testing.T, test func(t *testing.T, tr *stream.Transport, native, indexer host.Host)) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr := newTransport(t, native)
		serve(t, tr, grant)
		test(t, tr, native, indexer)
		porttest.Eventually(t, "exchanges are over", func() bool { return tr.Running() == 0 })
	})
}

// Identities and addresses are for the Native to judge; this Native takes them all.
func TestFramesOfTheContract(t *testing.T) {
	served(t, func(t *testing.T, _ *stream.Transport, native, indexer host.Host) {
		for _, f := range porttest.Frames(t, idOf(indexer), idOf(native), peer.ToCid(indexer.ID()).String()) {
			t.Run(f.Name, func(t *testing.T) {
				want := f.Want
				if want == ports.CodePeerMismatch || want == ports.CodeAddrInvalid {
					want = ""
				}
				s := open(t, indexer, native)
				// A native that refused a frame need not read its rest.
				_, _ = s.Write(f.Bytes)
				_ = s.CloseWrite()
				expectCode(t, s, want)
				if !strings.Contains(string(f.Bytes), "\n") {
					return
				}
				stayOpen := open(t, indexer, native)
				_, _ = stayOpen.Write(f.Bytes)
				expectCode(t, stayOpen, want)
			})
		}
	})
}

func TestAFrameInPiecesIsOneFrame(t *testing.T) {
	served(t, func(t *testing.T, _ *stream.Transport, native, indexer host.Host) {
		s := open(t, indexer, native)
		for frame := plainFrame(indexer); frame != ""; {
			n := min(3, len(frame))
			send(t, s, frame[:n])
			frame = frame[n:]
		}
		expectCode(t, s, "")
	})
}

func TestTooLargeIsAnsweredWhileTheSenderWrites(t *testing.T) {
	served(t, func(t *testing.T, _ *stream.Transport, native, indexer host.Host) {
		s := open(t, indexer, native)
		written := make(chan struct{})
		go func() {
			defer close(written)
			for text := strings.Repeat("a", 64<<10); ; {
				if _, err := io.WriteString(s, text); err != nil {
					return
				}
			}
		}()
		expectCode(t, s, ports.CodeTooLarge)
		_ = s.Reset()
		<-written
	})
}

func TestTooLargeIsAnsweredToASenderThatWritesEverythingFirst(t *testing.T) {
	served(t, func(t *testing.T, _ *stream.Transport, native, indexer host.Host) {
		s := open(t, indexer, native)
		if _, err := io.WriteString(s, strings.Repeat("a", 1<<20)); err != nil {
			t.Fatal(err)
		}
		expectCode(t, s, ports.CodeTooLarge)
		_ = s.Reset()
	})
}

func TestRudePeersLeaveNothingBehind(t *testing.T) {
	for name, be := range map[string]func(t *testing.T, s network.Stream, frame string){
		"never reads":            func(t *testing.T, s network.Stream, frame string) { send(t, s, frame) },
		"closes without reading": func(t *testing.T, s network.Stream, frame string) { send(t, s, frame); _ = s.Close() },
		"resets at once":         func(t *testing.T, s network.Stream, frame string) { send(t, s, frame); _ = s.Reset() },
		"resets half-way":        func(t *testing.T, s network.Stream, frame string) { send(t, s, frame[:20]); _ = s.Reset() },
		"disconnects half-way":   func(t *testing.T, s network.Stream, frame string) { send(t, s, frame[:20]); _ = s.Conn().Close() },
		"sends garbage":          func(t *testing.T, s network.Stream, _ string) { send(t, s, "\x16\x03\x01\x00\xff\xfe{{{[[\n") },
	} {
		t.Run(name, func(t *testing.T) {
			served(t, func(t *testing.T, tr *stream.Transport, native, indexer host.Host) {
				for range 5 {
					be(t, open(t, indexer, native), plainFrame(indexer))
				}
				porttest.Eventually(t, "exchanges are over", func() bool { return tr.Running() == 0 })
				s := open(t, indexer, native)
				send(t, s, plainFrame(indexer))
				expectCode(t, s, "")
			})
		})
	}
}

func TestAnExchangeEndsInTime(t *testing.T) {
	const (
		frameTime = 4 * time.Second
		slack     = 100 * time.Millisecond // for packets, which take 10 ms
	)
	for name, c := range map[string]struct {
		write func(s network.Stream, frame string)
		want  ports.Code
		after time.Duration
	}{
		"ended just before":    {func(s network.Stream, f string) { dawdle(s, f, frameTime-slack) }, "", frameTime - slack},
		"ended just after":     {func(s network.Stream, f string) { dawdle(s, f, frameTime+slack) }, ports.CodeMalformed, frameTime},
		"never ended":          {func(s network.Stream, f string) { _, _ = io.WriteString(s, strings.TrimSpace(f)) }, ports.CodeMalformed, frameTime},
		"a byte a second":      {byteASecond, ports.CodeMalformed, frameTime},
		"too large, then open": {func(s network.Stream, _ string) { _, _ = io.WriteString(s, strings.Repeat("a", 20000)) }, ports.CodeTooLarge, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
				tr := newTransport(t, native)
				serve(t, tr, grant)
				s := open(t, indexer, native)
				began := time.Now()
				go c.write(s, plainFrame(indexer))
				expectCode(t, s, c.want)
				if took := time.Since(began); took < c.after || took > c.after+slack {
					t.Errorf("answered after %s, want %s", took, c.after)
				}
				time.Sleep(ports.ExchangeTimeout - time.Since(began))
				synctest.Wait()
				if tr.Running() != 0 {
					t.Errorf("still running %s after the stream was opened", ports.ExchangeTimeout)
				}
			})
		})
	}
}

// dawdle sends the last byte of frame late.
func dawdle(s network.Stream, frame string, late time.Duration) {
	last := len(frame) - 1
	_, _ = io.WriteString(s, frame[:last])
	time.Sleep(late)
	_, _ = io.WriteString(s, frame[last:])
}

func byteASecond(s network.Stream, frame string) {
	for i := range frame {
		if _, err := io.WriteString(s, frame[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

func TestANativeThatHangsIsCutWhileThereIsTimeToAnswer(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
		serve(t, newTransport(t, native), porttest.Native{OnRegister: func(ctx context.Context, _ ports.PeerID, _ ports.Registration) (ports.Lease, error) {
			<-ctx.Done()
			return ports.Lease{}, ctx.Err()
		}})
		_, err := register(t.Context(), indexer, remote(t, newTransport(t, indexer), native))
		expectRefusal(t, err, ports.CodeBusy)
	})
}

func TestStopAnswersTheHalfSent(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr := newTransport(t, native)
		stop := serve(t, tr, grant)
		s := open(t, indexer, native)
		send(t, s, plainFrame(indexer)[:20])
		porttest.Eventually(t, "the exchange runs", func() bool { return tr.Running() == 1 })
		began := time.Now()
		stop()
		if took := time.Since(began); took >= unhurried/2 {
			t.Errorf("stop took %s", took)
		}
		expectCode(t, s, ports.CodeBusy)
	})
}

func TestRefusalsOfTheCodecAreObserved(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr, seen := observed(t, native)
		serve(t, tr, grant)
		for frame, code := range map[string]ports.Code{
			"{}\n":                     ports.CodeMalformed,
			strings.Repeat("a", 20000): ports.CodeTooLarge,
			plainFrame(indexer):        "",
		} {
			s := open(t, indexer, native)
			send(t, s, frame)
			_ = s.CloseWrite()
			expectCode(t, s, code)
			var want []ports.Event
			if code != "" {
				want = []ports.Event{{Kind: ports.EventRefused, PeerID: idOf(indexer), Code: code}}
			}
			if got := seen.Take(); !slices.Equal(got, want) {
				t.Errorf("observed %+v, want %+v", got, want)
			}
		}
	})
}

// door records its calls, and refuses on demand.
type door struct {
	mu      sync.Mutex
	log     []string
	hear    error
	admit   error
	replace string
	held    bool
}

func (d *door) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, fmt.Sprintf(format, args...))
}

// set changes what the door says.
func (d *door) set(held bool, hear error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.hear = held, hear
}

func (d *door) says() (held bool, hear error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held, d.hear
}

func (d *door) calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

func (d *door) Hear(_ ports.PeerID, from netip.Addr) error {
	d.note("hear from %s", from)
	_, err := d.says()
	return err
}

func (d *door) Admit(_ context.Context, _ ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error) {
	d.note("admit %s from %s", r.Addr, from)
	if d.replace != "" {
		r.Addr = d.replace
	}
	return r, d.admit
}

func (d *door) Renew(ports.PeerID) (bool, error) {
	d.note("renew")
	return d.says()
}

func (d *door) Settle(_ ports.PeerID, granted bool) { d.note("granted %v", granted) }

func (d *door) AdmitLeave(_ ports.PeerID, from netip.Addr) error {
	d.note("admit a leave from %s", from)
	return d.admit
}

func (d *door) SettleLeave(_ ports.PeerID, taken bool) { d.note("left %v", taken) }

func TestTheDoorIsAskedBeforeTheNativeIs(t *testing.T) {
	busy := ports.Busy(ports.LimitRate, "too often")
	for name, tt := range map[string]struct {
		door   *door
		frame  string
		want   ports.Code
		log    []string
		events []ports.Event
		native string // the address that it receives
	}{
		"a registration": {
			door: &door{replace: "/ip4/127.0.0.1/tcp/4002"}, frame: "good",
			log:    []string{"hear from 127.0.0.1", "admit /ip4/127.0.0.1/tcp/4001 from 127.0.0.1", "granted true"},
			native: "/ip4/127.0.0.1/tcp/4002",
		},
		"a registration that the native refuses": {
			frame: "good", want: ports.CodeRefused,
			log:    []string{"hear from 127.0.0.1", "admit /ip4/127.0.0.1/tcp/4001 from 127.0.0.1", "granted false"},
			native: "/ip4/127.0.0.1/tcp/4001",
		},
		"a sender that the door does not hear": {
			door: &door{hear: busy}, frame: "never read", want: ports.CodeBusy,
			log:    []string{"hear from 127.0.0.1"},
			events: []ports.Event{{Kind: ports.EventRefused, Code: ports.CodeBusy, Err: busy}},
		},
		"a frame that does not decode": {
			frame: "{}\n", want: ports.CodeMalformed,
			log:    []string{"hear from 127.0.0.1"},
			events: []ports.Event{{Kind: ports.EventRefused, Code: ports.CodeMalformed}},
		},
		"a sender that the door does not admit": {
			door: &door{admit: busy}, frame: "good", want: ports.CodeBusy,
			log:    []string{"hear from 127.0.0.1", "admit /ip4/127.0.0.1/tcp/4001 from 127.0.0.1"},
			events: []ports.Event{{Kind: ports.EventRefused, Code: ports.CodeBusy, Err: busy}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, indexer := newHost(), newHost()
				d := &door{}
				if tt.door != nil {
					d.hear, d.admit, d.replace = tt.door.hear, tt.door.admit, tt.door.replace
				}
				tr, seen := observed(t, native)
				tr.Guard(stream.Guard{Door: d})
				handed := ""
				serve(t, tr, porttest.Native{OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
					handed = r.Addr
					if tt.want != "" {
						return ports.Lease{}, ports.Refuse(tt.want, "no")
					}
					return granted, nil
				}})
				frame := tt.frame
				if frame == "good" {
					frame = plainFrame(indexer)
				}
				s := open(t, indexer, native)
				_, _ = io.WriteString(s, frame) // the answer may have come already
				expectCode(t, s, tt.want)
				for i := range tt.events {
					tt.events[i].PeerID = idOf(indexer)
				}
				if got := seen.Take(); !slices.Equal(got, tt.events) {
					t.Errorf("observed %+v, want %+v", got, tt.events)
				}
				d.mu.Lock()
				defer d.mu.Unlock()
				if !slices.Equal(d.log, tt.log) || handed != tt.native {
					t.Errorf("the door heard %q and the native %q, want %q and %q", d.log, handed, tt.log, tt.native)
				}
			})
		})
	}
}

func TestTheDoorIsAskedAboutLeaves(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		d := &door{}
		tr, seen := observed(t, native)
		tr.Guard(stream.Guard{Door: d})
		var answer error
		serve(t, tr, porttest.Native{OnLeave: func(context.Context, ports.PeerID, []byte) error { return answer }})
		n := remote(t, newTransport(t, indexer), native)
		busy := ports.Busy(ports.LimitSite, "too many")
		for _, tt := range []struct {
			name                string
			hear, admit, native error
			want                ports.Code
			log                 []string
			limited             int
		}{
			{"a leave that the native takes", nil, nil, nil, "", []string{"hear from 127.0.0.1", "admit a leave from 127.0.0.1", "left true"}, 0},
			{"a leave that the native refuses", nil, nil, ports.Refuse(ports.CodeBusy, "not now"), ports.CodeBusy, []string{"hear from 127.0.0.1", "admit a leave from 127.0.0.1", "left false"}, 0},
			{"a sender that the door does not hear", busy, nil, nil, ports.CodeBusy, []string{"hear from 127.0.0.1"}, 1},
			{"a sender that the door does not admit", nil, busy, nil, ports.CodeBusy, []string{"hear from 127.0.0.1", "admit a leave from 127.0.0.1"}, 1},
		} {
			d.mu.Lock()
			d.hear, d.admit, answer, d.log = tt.hear, tt.admit, tt.native, nil
			d.mu.Unlock()
			err := n.Leave(t.Context(), idOf(indexer), nil)
			if tt.want != "" {
				expectRefusal(t, err, tt.want)
			} else if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			d.mu.Lock()
			if !slices.Equal(d.log, tt.log) {
				t.Errorf("%s: the door heard %q, want %q", tt.name, d.log, tt.log)
			}
			d.mu.Unlock()
			if got := seen.Take(); len(got) != tt.limited || tt.limited == 1 && (got[0].Kind != ports.EventLimited || got[0].Err != busy) {
				t.Errorf("%s: observed %+v, want %d refusals by a limit", tt.name, got, tt.limited)
			}
		}
	})
}
