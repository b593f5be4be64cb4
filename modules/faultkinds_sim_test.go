package modules_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/opencloud/ocnode/modules"
)

// A line between two hosts, over which one says a byte and the other says it again.
type line struct {
	t *testing.T
	s network.Stream
}

// echoes returns whether a byte comes back within d. A reset fails the test: a fault is silent.
func (l line) echoes(d time.Duration) bool {
	l.t.Helper()
	if _, err := l.s.Write([]byte{1}); err != nil {
		l.t.Fatalf("written: %v", err)
	}
	return l.returns(d)
}

func (l line) returns(d time.Duration) bool {
	l.t.Helper()
	_ = l.s.SetReadDeadline(time.Now().Add(d))
	_, err := io.ReadFull(l.s, make([]byte, 1))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Fatalf("read: %v", err)
	}
	return err == nil
}

// withLine runs f with a line between two hosts, which stand for the members of these names.
func withLine(t *testing.T, f func(t *testing.T, a, b *member, l line)) {
	t.Helper()
	simulate(t, func(t *testing.T, s *simulation) {
		const echo = protocol.ID("/echo")
		a, b := s.member("a", nil), s.member("b", nil)
		hosts := []host.Host{s.bare(a.ip), s.bare(b.ip)}
		defer hosts[0].Close()
		defer hosts[1].Close()
		hosts[1].SetStreamHandler(echo, func(s network.Stream) { _, _ = io.Copy(s, s) })
		if err := hosts[0].Connect(t.Context(), peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}); err != nil {
			t.Fatal(err)
		}
		stream, err := hosts[0].NewStream(t.Context(), hosts[1].ID(), echo)
		if err != nil {
			t.Fatal(err)
		}
		f(t, a, b, line{t, stream})
	})
}

// TestSimAFaultIsSilent holds the faults of the simulated network to their word: nobody is told,
// and a path that is mended in time carries the very packets that were lost, sent again.
func TestSimAFaultIsSilent(t *testing.T) {
	for _, c := range []struct {
		name       string
		begin, end func(a, b *member)
	}{
		{"a path is cut", cut, mend},
		{"one way is cut", deafen, hear},
		{"the way back is cut", func(a, b *member) { deafen(b, a) }, func(a, b *member) { hear(b, a) }},
		{"a node is cut off", func(_, b *member) { b.cutOff() }, func(_, b *member) { b.reconnect() }},
		{"a process is stopped", func(_, b *member) { b.pause() }, func(_, b *member) { b.resume() }},
		{"a machine sleeps", func(_, b *member) { b.sleep() }, func(_, b *member) { b.wake() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			withLine(t, func(t *testing.T, a, b *member, l line) {
				if !l.echoes(time.Second) {
					t.Fatal("the line is dead before the fault")
				}
				c.begin(a, b)
				if l.echoes(4 * time.Second) {
					t.Error("the fault does nothing")
				}
				c.end(a, b)
				// Each pause between two attempts is twice the last, so the next ends within twice the fault.
				if !l.returns(10 * time.Second) {
					t.Error("the byte is not sent again after the fault")
				}
				for range 3 {
					if !l.echoes(time.Second) {
						t.Error("the line is dead after the fault")
					}
				}
			})
		})
	}
}

// The clocks of a stopped process, and of a machine that sleeps, stand still and then jump.
func TestSimClocksOfAStoppedProcessJumpAtItsEnd(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		m := s.member("m", nil)
		expect := func(elapsed, slack time.Duration) {
			t.Helper()
			if got := m.clock.elapsed(); (got - elapsed).Abs() > slack {
				t.Errorf("%v have elapsed, want %v", got, elapsed)
			}
			if off := time.Until(m.clock.now()) - (elapsed - time.Since(m.clock.on)); off.Abs() > slack {
				t.Errorf("the time of day is %v off", off)
			}
		}
		time.Sleep(time.Minute)
		expect(time.Minute, 0)
		for _, f := range []struct{ begin, end func() }{{m.pause, m.resume}, {m.sleep, m.wake}} {
			before := m.clock.elapsed()
			f.begin()
			time.Sleep(time.Minute)
			expect(before, time.Minute/crawl)
			f.end()
			expect(before+time.Minute, 0)
		}
		m.clock.set(time.Hour)
		if off := time.Until(m.clock.now()); off != time.Hour {
			t.Errorf("the time of day is %v ahead, want an hour", off)
		}
	})
}

// Two natives that cannot hear each other list each their own indexers, and soon all of them once
// they can.
func TestSimNativesThatCannotHearEachOtherListTheirOwn(t *testing.T) {
	for _, c := range []struct {
		name       string
		begin, end func(a, b *member)
	}{
		{"cut", cut, mend},
		{"one way", deafen, hear},
	} {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, func(t *testing.T, s *simulation) {
				natives := s.natives(2, modules.Environment{})
				indexers := s.indexers(2, natives, false)
				s.settle(natives, indexers)
				c.begin(natives[0], natives[1])
				for range 1200 {
					time.Sleep(100 * time.Millisecond)
					for i, n := range natives {
						if !n.lists(indexers[i]) {
							t.Fatalf("%s does not list its own indexer", n.name)
						}
					}
				}
				c.end(natives[0], natives[1])
				took, ok := until(time.Minute, everyone(natives, indexers))
				t.Logf("all were listed by all %v after the end", took)
				if !ok {
					t.Error("not listed by all")
				}
				stopAll(indexers, natives)
			})
		})
	}
}
