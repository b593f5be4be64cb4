package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// beating is the end of an indexer of a stream of heartbeats.
type beating struct {
	t *testing.T
	network.Stream
	frames *wire.Frames
	last   ports.Lease
}

func openBeats(t *testing.T, from, to host.Host) *beating {
	t.Helper()
	s := openFor(t, from, to, ports.HeartbeatProtocol)
	return &beating{t: t, Stream: s, frames: wire.NewFrames(s, wire.MaxHeartbeatBytes)}
}

// registration is the frame of a registration of h, with these members besides.
func registration(h host.Host, members string) *wire.Heartbeat {
	return &wire.Heartbeat{Registration: fmt.Appendf(nil, `{"PeerID":%q,"Addr":"/ip4/127.0.0.1/tcp/4001"%s}`, h.ID(), members)}
}

func (b *beating) send(beats ...*wire.Heartbeat) {
	b.t.Helper()
	var frames []byte
	for _, h := range beats {
		frames = wire.AppendHeartbeat(frames, h)
	}
	send(b.t, b, string(frames))
}

// answer returns the next answer as a lease or a refusal. compact says that it is not the whole lease.
func (b *beating) answer() (lease ports.Lease, compact, ended bool, err error) {
	b.t.Helper()
	frame, err := b.frames.Next()
	if err != nil {
		b.t.Fatal(err)
	}
	compact = frame[0] != 1<<3|2 && frame[0] != 4<<3|2
	lease, ended, err = wire.DecodeBeaten(frame, b.last)
	if err == nil && lease.TTL > 0 {
		b.last = lease
	}
	return lease, compact, ended, err
}

func (b *beating) expectEnd(want ports.Code) {
	b.t.Helper()
	for {
		_, _, ended, err := b.answer()
		if !ended {
			continue
		}
		expectRefusal(b.t, err, want)
		if _, err := b.frames.Next(); err != io.EOF {
			b.t.Errorf("after the end: %v", err)
		}
		return
	}
}

func TestHeartbeatsOnAnOpenStreamAreAnsweredInOrder(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr, seen := observed(t, native)
		now := time.Now().UTC().Round(0)
		var mu sync.Mutex
		var heard []ports.Registration
		var refuse *ports.Refusal
		serve(t, tr, porttest.Native{OnRegister: func(_ context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
			if sender != idOf(indexer) {
				t.Errorf("from %s", sender)
			}
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, r)
			if len(heard) == 4 {
				refuse = ports.Refuse(ports.CodeProofInvalid, "no")
				return ports.Lease{}, refuse
			}
			at := now.Add(time.Duration(len(heard)) * time.Second)
			lease := ports.Lease{TTL: 3 * time.Second, Heartbeat: 2 * time.Second, Now: at, ExpiresAt: at.Add(3 * time.Second), Clocks: 3, Seq: 7}
			lease.Rival = len(heard) == 6
			return lease, nil
		}})
		b := openBeats(t, indexer, native)
		link := ports.Link{1, 2, 3}
		tick := &wire.Heartbeat{Ticks: true, Step: 4, Link: link}
		first := registration(indexer, `,"Meta":{"zone":"eu"},"Tick":{"Seq":7,"Step":1,"Link":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`)
		b.send(first)
		if lease, compact, _, err := b.answer(); err != nil || compact || lease.Seq != 7 {
			t.Fatalf("first %+v, compact %v, %v", lease, compact, err)
		}
		b.send(slices.Repeat([]*wire.Heartbeat{tick}, 16)...)
		for i := 2; i <= 17; i++ {
			lease, compact, _, err := b.answer()
			switch {
			case i == 4:
				expectRefusal(t, err, ports.CodeProofInvalid)
			case err != nil || compact != (i != 6) || lease.Rival != (i == 6) || !lease.Now.Equal(now.Add(time.Duration(i)*time.Second)) || !lease.ExpiresAt.Equal(lease.Now.Add(3*time.Second)):
				t.Errorf("answer %d is %+v, compact %v, %v", i, lease, compact, err)
			}
		}
		want := ports.Registration{PeerID: idOf(indexer), Addr: "/ip4/127.0.0.1/tcp/4001", Meta: map[string]string{"zone": "eu"}, Proof: &ports.Proof{Tick: ports.Tick{Seq: 7, Step: 4, Link: link}}}
		mu.Lock()
		defer mu.Unlock()
		for _, r := range heard[1:] {
			if fmt.Sprint(r.Proof.Tick, r.Addr, r.Meta) != fmt.Sprint(want.Proof.Tick, want.Addr, want.Meta) || r.PeerID != want.PeerID {
				t.Fatalf("the native heard %+v, want %+v", r, want)
			}
		}

		_ = b.CloseWrite()
		if _, err := b.frames.Next(); err != io.EOF {
			t.Errorf("after the indexer's end: %v", err)
		}
		porttest.Eventually(t, "the stream is counted out", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
		frames := 0
		for _, e := range seen.Of(ports.EventBeats) {
			frames += e.Changes
		}
		if end := seen.Of(ports.EventBeaten)[0]; frames != 17 || end.Code != "" || len(seen.Of(ports.EventBeating)) != 1 {
			t.Errorf("observed %d frames, and the end %+v", frames, end)
		}
	})
}

func TestAFrameThatIsNoneEndsTheStreamWithAReason(t *testing.T) {
	native, indexer := hosttest.New(t), hosttest.New(t)
	tr, seen := observed(t, native)
	serve(t, tr, grant)
	frame := func(h *wire.Heartbeat) string { return string(wire.AppendHeartbeat(nil, h)) }
	good := frame(registration(indexer, ""))
	for name, tt := range map[string]struct {
		bytes string
		close bool
		want  ports.Code
	}{
		"no protobuf":                        {"\x01\x80", false, ports.CodeMalformed},
		"a heartbeat before a registration":  {"\x00", false, ports.CodeMalformed},
		"a tick after a plain registration":  {good + frame(&wire.Heartbeat{Ticks: true}), false, ports.CodeMalformed},
		"no length":                          {"\x80\x80\x80\x80\x80\x80", false, ports.CodeMalformed},
		"a length without end":               {"\xff\xff\xff\xff\xff\xff", false, ports.CodeTooLarge},
		"a frame over its limit":             {"\xc1\x40", false, ports.CodeTooLarge},
		"a registration over its limit":      {frame(&wire.Heartbeat{Registration: bytes.Repeat([]byte{' '}, ports.MaxFrameBytes+1)}), false, ports.CodeTooLarge},
		"a registration that is none":        {frame(&wire.Heartbeat{Registration: []byte("{}")}), false, ports.CodeMalformed},
		"a cut frame":                        {good + "\x05abc", true, ports.CodeMalformed},
		"a second registration that is none": {good + good + frame(&wire.Heartbeat{Registration: []byte("null")}), false, ports.CodeMalformed},
	} {
		seen.Take()
		b := openBeats(t, indexer, native)
		b.last = granted
		send(t, b, tt.bytes)
		if tt.close {
			_ = b.CloseWrite()
		}
		b.expectEnd(tt.want)
		porttest.Eventually(t, "the end is observed", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
		if end := seen.Of(ports.EventBeaten)[0]; end.Code != tt.want || end.PeerID != idOf(indexer) {
			t.Errorf("%s: observed %+v", name, end)
		}
		if refused := seen.Of(ports.EventRefused); len(refused) != 1 || refused[0].Code != tt.want {
			t.Errorf("%s: counted %+v", name, refused)
		}
		_ = b.Reset()
	}
	porttest.Eventually(t, "nothing is left", func() bool { return tr.Running() == 0 })
}

func TestTheDoorIsAskedForEachHeartbeat(t *testing.T) {
	native, indexer := hosttest.New(t), hosttest.New(t)
	d := &door{held: true}
	tr, seen := observed(t, native)
	tr.Guard(stream.Guard{Door: d})
	serve(t, tr, grant)
	b := openBeats(t, indexer, native)
	tick := &wire.Heartbeat{Ticks: true}
	ask := func(h *wire.Heartbeat) {
		b.send(h)
		if _, _, _, err := b.answer(); err != nil {
			t.Fatal(err)
		}
	}
	admitted := []string{"admit /ip4/127.0.0.1/tcp/4001 from 127.0.0.1", "granted true"}
	ask(registration(indexer, ""))
	ask(&wire.Heartbeat{})
	ask(registration(indexer, `,"Tick":{"Seq":7,"Step":1,"Link":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	ask(tick)
	d.set(false, nil) // its lease has ended meanwhile
	ask(tick)
	heard := append([]string{"hear from 127.0.0.1"}, admitted...)
	if want := slices.Concat(heard, heard, heard, []string{"renew", "renew"}, admitted); !slices.Equal(d.calls(), want) {
		t.Errorf("the door was asked\n%q, want\n%q", d.calls(), want)
	}
	busy := ports.Busy(ports.LimitRate, "too often")
	d.set(false, busy)
	b.send(tick, tick, tick)
	b.expectEnd(ports.CodeBusy)
	if refused := seen.Of(ports.EventRefused); len(refused) != 1 || refused[0].Err != busy {
		t.Errorf("counted %+v, want the first frame that is too many alone", refused)
	}
}

func TestAPeerHasFewStreamsOfHeartbeats(t *testing.T) {
	native, indexer := hosttest.New(t), hosttest.New(t)
	tr, seen := observed(t, native)
	serve(t, tr, grant)
	var streams []*beating
	for range 4 {
		b := openBeats(t, indexer, native)
		b.send(registration(indexer, ""))
		if _, _, _, err := b.answer(); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, b)
	}
	openBeats(t, indexer, native).expectEnd(ports.CodeBusy)
	if limited := seen.Of(ports.EventLimited); len(limited) != 1 || limited[0].Err.(*ports.Refusal).Limit != ports.LimitPeerHeartbeats {
		t.Errorf("counted %+v", limited)
	}
	// The indexer is served all the same, and a stream that ends makes room.
	n := remote(t, newTransport(t, indexer), native)
	if _, err := register(ports.WithOpenStream(t.Context(), t.Context()), indexer, n); err != nil {
		t.Errorf("a registration beside them: %v", err)
	}
	_ = streams[0].Reset()
	porttest.Eventually(t, "there is room", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
	b := openBeats(t, indexer, native)
	b.send(registration(indexer, ""))
	if _, _, ended, err := b.answer(); err != nil || ended {
		t.Error(err)
	}
}

func TestAnIdleStreamEndsATTLAfterItsLastHeartbeat(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
		const ttl = 8 * time.Second
		tr, seen := observed(t, native)
		serve(t, tr, porttest.Native{OnRegister: func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
			return ports.Lease{TTL: ttl, Heartbeat: time.Second}, nil
		}})
		never := openBeats(t, indexer, native)
		send(t, never, "\x05ab") // a frame that never ends
		_ = never.SetDeadline(time.Time{})
		began := time.Now()
		never.expectEnd(ports.CodeMalformed)
		if took := time.Since(began).Round(time.Second); took != 4*time.Second {
			t.Errorf("a stream without a frame ended after %s", took)
		}

		b := openBeats(t, indexer, native)
		_ = b.SetDeadline(time.Time{})
		b.send(registration(indexer, ""))
		for range 3 {
			if _, _, _, err := b.answer(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(ttl - 100*time.Millisecond)
			b.send(&wire.Heartbeat{})
		}
		b.answer()
		began = time.Now()
		b.expectEnd(ports.CodeMalformed)
		if took := time.Since(began); took < ttl-time.Second/10 || took > ttl+ttl/8+time.Second {
			t.Errorf("it ended after %s", took)
		}
		if got := seen.Of(ports.EventRefused); len(got) != 0 {
			t.Errorf("an idle stream is no bad registration: %+v", got)
		}
	})
}

func TestAnIndexerThatReadsNoAnswersLosesItsStream(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, indexer host.Host) {
		tr, seen := observed(t, native)
		served := 0
		serve(t, tr, porttest.Native{OnRegister: func(context.Context, ports.PeerID, ports.Registration) (ports.Lease, error) {
			served++
			return ports.Lease{TTL: time.Hour, Heartbeat: time.Second, Rival: true}, nil
		}})
		b := openBeats(t, indexer, native)
		_ = b.SetDeadline(time.Now().Add(time.Minute))
		b.send(registration(indexer, ""))
		for range 1 << 20 { // until no window is left
			if _, err := b.Write(bytes.Repeat([]byte{0}, 1000)); err != nil {
				break
			}
		}
		porttest.Eventually(t, "the native gives up", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
		if end := seen.Of(ports.EventBeaten)[0]; end.Code != ports.CodeTooSlow {
			t.Errorf("observed %+v", end)
		}
		if tr.Running() != 0 {
			t.Error("the exchange lives on")
		}
	})
}

func TestANativeThatStopsEndsItsStreamsAsBusy(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr := newTransport(t, native)
		stop := serve(t, tr, grant)
		b := openBeats(t, indexer, native)
		b.send(registration(indexer, ""))
		b.answer()
		stop()
		b.expectEnd(ports.CodeBusy)
	})
}

func TestAnOpenStreamCarriesWhatIsNewAlone(t *testing.T) {
	native, indexer := hosttest.New(t), hosttest.New(t)
	tr, seen := observed(t, native)
	var heard atomic.Pointer[ports.Registration]
	serve(t, tr, porttest.Native{OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
		heard.Store(&r)
		return granted, nil
	}})
	client := newTransport(t, indexer)
	life, end := context.WithCancel(t.Context())
	me := idOf(indexer)
	for i, r := range []ports.Registration{
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/1"},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/1"},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Addrs: []string{"/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/3"}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Addrs: []string{"/ip4/127.0.0.1/tcp/2", "/ip4/127.0.0.1/tcp/4"}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Meta: map[string]string{"a": "b"}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Proof: &ports.Proof{Record: []byte("r"), Tick: ports.Tick{Seq: 5, Step: 1, Link: ports.Link{1}}}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Proof: &ports.Proof{Tick: ports.Tick{Seq: 5, Step: 2, Link: ports.Link{2}}}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Proof: &ports.Proof{Tick: ports.Tick{Seq: 6, Step: 3, Link: ports.Link{3}}}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2", Proof: &ports.Proof{Tick: ports.Tick{Seq: 6, Step: 4, Link: ports.Link{4}}}},
		{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2"},
	} {
		n := remote(t, client, native) // each may be another, with other addresses
		if _, err := n.Register(ports.WithOpenStream(t.Context(), life), me, r); err != nil {
			t.Fatal(err)
		}
		if got := *heard.Load(); got.Addr != r.Addr || !slices.Equal(got.Addrs, r.Addrs) || fmt.Sprint(got.Meta) != fmt.Sprint(r.Meta) || fmt.Sprint(proofText(got)) != fmt.Sprint(proofText(r)) {
			t.Errorf("registration %d arrives as %+v, want %+v", i, got, r)
		}
	}
	if streams := seen.Of(ports.EventBeating); len(streams) != 1 {
		t.Errorf("%d streams, want one for all", len(streams))
	}
	end()
	porttest.Eventually(t, "the stream ends with the life of its caller", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
	if len(native.Network().ConnsToPeer(indexer.ID())) == 0 {
		t.Error("the connection ended too")
	}
	n := remote(t, client, native)
	if _, err := n.Register(ports.WithOpenStream(t.Context(), t.Context()), me, ports.Registration{PeerID: me, Addr: "/ip4/127.0.0.1/tcp/2"}); err != nil {
		t.Errorf("over another stream: %v", err)
	}
	if _, err := register(t.Context(), indexer, n); err != nil {
		t.Fatal(err)
	}
	porttest.Eventually(t, "a Register without an open stream ends it", func() bool { return len(seen.Of(ports.EventBeaten)) == 2 })
}

func proofText(r ports.Registration) string {
	if r.Proof == nil {
		return ""
	}
	return fmt.Sprint(r.Proof.Record, r.Proof.Tick)
}

func TestAStreamThatItsNativeHasEndedIsOpenedAnew(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr, seen := observed(t, native)
		stop := serve(t, tr, grant)
		n := remote(t, newTransport(t, indexer), native)
		beat := func() error {
			_, err := register(ports.WithOpenStream(t.Context(), t.Context()), indexer, n)
			return err
		}
		if err := beat(); err != nil {
			t.Fatal(err)
		}
		stop()
		stop = serve(t, tr, grant)
		if err := beat(); err != nil {
			t.Errorf("a native that has stopped and serves again: %v", err)
		}
		if err := native.Network().ClosePeer(indexer.ID()); err != nil {
			t.Fatal(err)
		}
		if err := beat(); err != nil {
			t.Errorf("a connection that has ended: %v", err)
		}
		stop()
		if err := beat(); err == nil {
			t.Error("a native that does not serve grants a lease")
		}
		if streams := seen.Of(ports.EventBeating); len(streams) != 3 {
			t.Errorf("%d streams, want three", len(streams))
		}
	})
}

func TestANativeWithoutOpenStreamsIsSentAStreamARegistration(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		tr, seen := observed(t, native)
		serve(t, tr, grant)
		native.RemoveStreamHandler(ports.HeartbeatProtocol)
		n := remote(t, newTransport(t, indexer), native)
		for range 2 {
			lease, err := register(ports.WithOpenStream(t.Context(), t.Context()), indexer, n)
			if err != nil || lease.TTL != granted.TTL {
				t.Errorf("%+v, %v", lease, err)
			}
		}
		// Its limits may have no room for a stream that stays.
		native.SetStreamHandler(ports.HeartbeatProtocol, func(s network.Stream) { _ = s.ResetWithError(network.StreamResourceLimitExceeded) })
		if lease, err := register(ports.WithOpenStream(t.Context(), t.Context()), indexer, n); err != nil || lease.TTL != granted.TTL {
			t.Errorf("a native that resets the stream: %+v, %v", lease, err)
		}
		if len(seen.Of(ports.EventBeating)) != 0 {
			t.Error("there was a stream")
		}
	})
}

func TestOnlyAConnectionWithAnOpenStreamHangsUpBeating(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native := newHost()
		type hangup struct {
			id      ports.PeerID
			beating bool
		}
		heard := make(chan hangup, 4)
		tr, seen := observed(t, native)
		serve(t, tr, hangupListener{grant, func(id ports.PeerID, beating bool) { heard <- hangup{id, beating} }})
		for _, tt := range []struct {
			name    string
			streams bool
			ends    bool // the stream, before its connection
		}{{"a stream a registration", false, false}, {"an open stream", true, false}, {"a stream that has ended", true, true}} {
			indexer := newHost()
			life, end := context.WithCancel(t.Context())
			ctx := t.Context()
			if tt.streams {
				ctx = ports.WithOpenStream(ctx, life)
			}
			seen.Take()
			if _, err := register(ctx, indexer, remote(t, newTransport(t, indexer), native)); err != nil {
				t.Fatal(err)
			}
			if tt.ends {
				end()
				porttest.Eventually(t, "the stream has ended", func() bool { return len(seen.Of(ports.EventBeaten)) == 1 })
				porttest.Eventually(t, "its exchange too", func() bool { return tr.Running() == 0 })
			}
			_ = indexer.Close()
			if got, want := <-heard, (hangup{idOf(indexer), tt.streams && !tt.ends}); got != want {
				t.Errorf("%s: %+v, want %+v", tt.name, got, want)
			}
			end()
		}
	})
}

// Two sides that dial each other at once have two connections. A process that dies ends them one after the other.
func TestAnIndexerWithTwoConnectionsHangsUpWithTheLast(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, indexer := newHost(), newHost()
		heard := make(chan bool, 4)
		serve(t, newTransport(t, native), hangupListener{grant, func(_ ports.PeerID, beating bool) { heard <- beating }})
		if _, err := register(ports.WithOpenStream(t.Context(), t.Context()), indexer, remote(t, newTransport(t, indexer), native)); err != nil {
			t.Fatal(err)
		}
		second, err := indexer.Network().(*swarm.Swarm).TransportForDialing(native.Addrs()[0]).Dial(t.Context(), native.Addrs()[0], native.ID())
		if err != nil {
			t.Fatal(err)
		}
		conns := func() int { return len(native.Network().ConnsToPeer(indexer.ID())) }
		porttest.Eventually(t, "there are two connections", func() bool { return conns() == 2 })
		_ = indexer.Network().ClosePeer(native.ID())
		porttest.Eventually(t, "there is one", func() bool { return conns() == 1 })
		select {
		case <-heard:
			t.Error("it hung up while there is another connection")
		default:
		}
		_ = second.Close()
		porttest.Eventually(t, "it hangs up", func() bool { return len(heard) > 0 })
		if beating := <-heard; !beating || len(heard) != 0 {
			t.Errorf("beating is %v, and %d more", beating, len(heard))
		}
	})
}

type hangupListener struct {
	porttest.Native
	hungUp func(ports.PeerID, bool)
}

func (l hangupListener) HungUp(id ports.PeerID, beating bool) { l.hungUp(id, beating) }
