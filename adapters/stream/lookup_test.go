package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func newTCPHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// lastCode returns the code in the last line of an answer.
func lastCode(t *testing.T, s network.Stream, of protocol.ID) ports.Code {
	t.Helper()
	text, err := io.ReadAll(s)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if err != nil || !strings.HasSuffix(string(text), "\n") {
		t.Fatalf("answer %q: %v", text, err)
	}
	last := []byte(lines[len(lines)-1])
	if of == ports.WatchProtocol {
		_, err = wire.DecodeBatch(last, time.Now())
	} else {
		var end *wire.End
		_, end, err = wire.DecodeListed(last, time.Now())
		if err == nil && end != nil && end.Refusal != nil {
			err = end.Refusal
		}
	}
	refusal, ok := errors.AsType[*ports.Refusal](err)
	if err != nil && !ok {
		t.Fatalf("answer %q: %v", text, err)
	}
	if !ok {
		return ""
	}
	return refusal.Code
}

func TestFramesOfTheOtherProtocols(t *testing.T) {
	const id = `"PeerID":"` + string(anID) + `"`
	huge := `{"X":"` + strings.Repeat("a", 20000) + `"}`
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, client := newHost(), newHost()
		tr := newTransport(t, native)
		serve(t, tr, porttest.Native{
			OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
			OnLookUp: func(_ context.Context, _, id ports.PeerID) (ports.Answer, error) {
				return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: id}}}, nil
			},
			OnList:    func(context.Context, ports.PeerID, ports.Query) (ports.Page, error) { return ports.Page{}, nil },
			OnNatives: func(context.Context, ports.PeerID) ([]ports.NativeStatus, error) { return nil, nil },
		})
		for _, c := range []struct {
			protocol protocol.ID
			frame    string
			want     ports.Code
		}{
			{ports.LeaveProtocol, `{"PeerID":"` + client.ID().String() + `"}`, ""},
			{ports.LeaveProtocol, `{"PeerID":"` + peer.ToCid(client.ID()).String() + `"}`, ""},
			{ports.LeaveProtocol, `{` + id + `}`, ports.CodePeerMismatch},
			{ports.LeaveProtocol, `{}`, ports.CodeMalformed},
			{ports.LeaveProtocol, huge, ports.CodeTooLarge},
			{ports.LookupProtocol, `{` + id + `}`, ""},
			{ports.LookupProtocol, `{}`, ""},
			{ports.LookupProtocol, `{"Natives":true}`, ""},
			{ports.LookupProtocol, `{"Limit":0}`, ports.CodeOutOfRange},
			{ports.LookupProtocol, `{"Limit":-1}`, ports.CodeOutOfRange},
			{ports.LookupProtocol, `{"Limit":1001}`, ports.CodeOutOfRange},
			{ports.LookupProtocol, `{"Limit":1.5}`, ports.CodeOutOfRange},
			{ports.LookupProtocol, `{"Natives":true,"Limit":1}`, ports.CodeMalformed},
			{ports.LookupProtocol, `{"After":"x"}`, ports.CodeMalformed},
			{ports.LookupProtocol, `220 ready`, ports.CodeMalformed},
			{ports.LookupProtocol, huge, ports.CodeTooLarge},
			{ports.WatchProtocol, `{}`, ports.CodeRefused}, // the native's own code
			{ports.WatchProtocol, `{"Cursor":"` + strings.Repeat("x", ports.MaxCursorBytes+1) + `"}`, ports.CodeMalformed},
			{ports.WatchProtocol, `{"own":true}`, ports.CodeMalformed},
			{ports.WatchProtocol, huge, ports.CodeTooLarge},
		} {
			for _, closes := range []bool{true, false} {
				s := openFor(t, client, native, c.protocol)
				_, _ = io.WriteString(s, c.frame+"\n") // the native need not take it whole
				if closes {
					_ = s.CloseWrite()
				}
				if got := lastCode(t, s, c.protocol); got != c.want {
					t.Errorf("%s %.80s: got %q, want %q", c.protocol, c.frame, got, c.want)
				}
				_ = s.Reset()
			}
		}
		porttest.Eventually(t, "exchanges are over", func() bool { return tr.Running() == 0 })
	})
}

func TestAFrameThatDoesNotEndIsAnsweredInTime(t *testing.T) {
	for _, p := range []protocol.ID{ports.LeaveProtocol, ports.LookupProtocol, ports.WatchProtocol} {
		t.Run(string(p), func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, client host.Host) {
				serve(t, newTransport(t, native), grant)
				s := openFor(t, client, native, p)
				began := time.Now()
				send(t, s, `{"X":`)
				if got := lastCode(t, s, p); got != ports.CodeMalformed {
					t.Errorf("got %q", got)
				}
				if took := time.Since(began); took < 4*time.Second-100*time.Millisecond || took > ports.ExchangeTimeout {
					t.Errorf("answered after %s", took)
				}
			})
		})
	}
}

func TestALookUpMayTakeAsLongAsTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		code  ports.Code
	}{
		"as the store may": {3 * time.Second, ""},
		"longer":           {time.Hour, ports.CodeBusy},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, client host.Host) {
				tr := newTransport(t, native)
				serve(t, tr, porttest.Native{OnLookUp: func(ctx context.Context, _, id ports.PeerID) (ports.Answer, error) {
					select {
					case <-time.After(c.takes):
					case <-ctx.Done():
					}
					return ports.Answer{Listed: ports.Listed{Entry: ports.Entry{PeerID: id}}}, ctx.Err()
				}})
				s := openFor(t, client, native, ports.LookupProtocol)
				send(t, s, `{"PeerID":`)
				time.Sleep(3 * time.Second) // the caller is slow as well
				send(t, s, `"`+string(anID)+`"}`+"\n")
				if got := lastCode(t, s, ports.LookupProtocol); got != c.code {
					t.Errorf("over a slow stream: got %q, want %q", got, c.code)
				}
				a, err := remote(t, newTransport(t, client), native).LookUp(t.Context(), idOf(client), anID)
				if c.code != "" {
					expectRefusal(t, err, c.code)
				} else if err != nil || a.PeerID != anID {
					t.Errorf("got %+v and %v", a, err)
				}
			})
		})
	}
}

// manyLarge is a page that fills every window on its path.
func manyLarge() ports.Page {
	entry := ports.Listed{Entry: ports.Entry{PeerID: anID, Addr: strings.Repeat("a", ports.MaxFrameBytes)}}
	return ports.Page{Entries: slices.Repeat([]ports.Listed{entry}, ports.MaxPage)}
}

func TestAPageToWhoeverDoesNotReadEnds(t *testing.T) {
	for name, c := range map[string]struct {
		read func(s network.Stream)
		most time.Duration
	}{
		"never reads": {func(network.Stream) {}, ports.ExchangeTimeout},
		"reads a little a second": {func(s network.Stream) {
			for b := make([]byte, 64<<10); ; time.Sleep(time.Second) {
				if _, err := s.Read(b); err != nil {
					return
				}
			}
		}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, native, client host.Host) {
				tr := newTransport(t, native)
				page := manyLarge()
				serve(t, tr, porttest.Native{OnList: func(context.Context, ports.PeerID, ports.Query) (ports.Page, error) { return page, nil }})
				s := openFor(t, client, native, ports.LookupProtocol)
				_ = s.SetDeadline(time.Time{})
				send(t, s, `{"Limit":1000}`+"\n")
				reading := make(chan struct{})
				go func() {
					defer close(reading)
					c.read(s)
				}()
				time.Sleep(c.most + 2*time.Second)
				synctest.Wait()
				if tr.Running() != 0 {
					t.Errorf("still answered after %s", c.most+2*time.Second)
				}
				_ = s.Reset()
				<-reading
			})
		})
	}
}

func TestThePageOfLargestEntriesArrives(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, client := newHost(), newHost()
		page := manyLarge()
		serve(t, newTransport(t, native), porttest.Native{OnList: func(context.Context, ports.PeerID, ports.Query) (ports.Page, error) { return page, nil }})
		got, err := remote(t, newTransport(t, client), native).List(t.Context(), idOf(client), ports.Query{Limit: ports.MaxPage})
		if err != nil || len(got.Entries) != ports.MaxPage {
			t.Errorf("got %d entries and %v", len(got.Entries), err)
		}
	})
}

func TestLookingUpAtNativesOfAnotherMake(t *testing.T) {
	const (
		id    = `"PeerID":"` + string(anID) + `"`
		entry = `{` + id + `,"Addr":"a"}` + "\n"
		other = `{"PeerID":"12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq"}` + "\n"
		ok    = `{"OK":true}` + "\n"
	)
	for name, c := range map[string]struct {
		handler               network.StreamHandler
		lookUp, list, natives bool // succeeds
		code                  ports.Code
	}{
		"answers":                     {saying(entry + ok), true, true, true, ""},
		"answers and says more":       {saying(entry + ok + "more"), true, true, true, ""},
		"answers and stays open":      {reading(func(s network.Stream) { _, _ = io.WriteString(s, entry+ok) }), true, true, true, ""},
		"has nothing":                 {saying(ok), false, true, true, ""},
		"answers with two":            {saying(entry + entry + ok), false, false, true, ""},
		"answers with another":        {saying(other + ok), false, true, true, ""},
		"does not say that it is all": {saying(entry), false, false, false, ""},
		"says half":                   {saying(entry + ok[:5]), false, false, false, ""},
		"says nothing":                {saying(""), false, false, false, ""},
		"says something else":         {saying("220 ready\n"), false, false, false, ""},
		"says too much":               {saying(`{` + id + `,"X":"` + strings.Repeat("a", 20000) + `"}` + "\n" + ok), false, false, false, ""},
		"never ends":                  {reading(func(s network.Stream) { _, _ = io.WriteString(s, strings.Repeat(entry, 2000)) }), false, false, false, ""},
		"resets":                      {reading(func(s network.Stream) { _ = s.Reset() }), false, false, false, ""},
		"refuses":                     {saying(`{"OK":false,"Error":{"Code":"busy","Message":"m"}}` + "\n"), false, false, false, ports.CodeBusy},
		"refuses in the middle":       {saying(entry + `{"OK":false,"Error":{"Code":"moved"}}` + "\n"), false, false, false, "moved"},
		"refuses before it has read":  {func(s network.Stream) { _, _ = io.WriteString(s, `{"OK":false}`+"\n"); _ = s.Close() }, false, false, false, ports.CodeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
				native, client := newHost(), newHost()
				native.SetStreamHandler(ports.LookupProtocol, c.handler)
				n := remote(t, newTransport(t, client), native)
				expect := func(what string, succeeds bool, err error) {
					t.Helper()
					refusal, refused := errors.AsType[*ports.Refusal](err)
					if (err == nil) != succeeds || refused != (c.code != "") || refused && refusal.Code != c.code {
						t.Errorf("%s: got %v, want success: %v, refusal: %q", what, err, succeeds, c.code)
					}
				}
				_, err := n.LookUp(t.Context(), idOf(client), anID)
				expect("look-up", c.lookUp, err)
				_, err = n.List(t.Context(), idOf(client), ports.Query{Limit: 1})
				expect("list", c.list, err)
				_, err = n.Natives(t.Context(), idOf(client))
				expect("natives", c.natives, err)
			})
		})
	}
}

func TestANativeOfTheSeedOffersNothingElse(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, client := newHost(), newHost()
		native.SetStreamHandler(stream.Protocol, reading(func(s network.Stream) { _ = s.Close() }))
		tr := newTransport(t, client)
		n := remote(t, tr, native)
		if lease, err := register(t.Context(), client, n); err != nil || lease != unconfirmed {
			t.Fatalf("got %+v and %v", lease, err)
		}
		_, lookUp := n.LookUp(t.Context(), idOf(client), anID)
		_, list := n.List(t.Context(), idOf(client), ports.Query{})
		_, natives := n.Natives(t.Context(), idOf(client))
		var watch error
		for _, watch = range n.Watch(t.Context(), idOf(client), ports.WatchRequest{}) {
		}
		for what, err := range map[string]error{"leave": n.Leave(t.Context(), idOf(client), nil), "look-up": lookUp, "list": list, "natives": natives, "watch": watch} {
			if _, refused := errors.AsType[*ports.Refusal](err); !errors.Is(err, ports.ErrNotOffered) || refused {
				t.Errorf("%s: got %v, want %v", what, err, ports.ErrNotOffered)
			}
		}
		var neighbours []ports.Neighbour
		porttest.Eventually(t, "it is a neighbour", func() bool {
			neighbours, _ = tr.Neighbours()
			return len(neighbours) == 1
		})
		if neighbours[0].PeerID != idOf(native) || neighbours[0].Watchable {
			t.Errorf("got %+v", neighbours[0])
		}
	})
}

// libp2p trusts its memory of a peer's protocols.
func TestANativeThatNoLongerOffersWhatItDid(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, client := newHost(), newHost()
		n := remote(t, newTransport(t, client), native)
		_ = client.Peerstore().AddProtocols(native.ID(), ports.LookupProtocol)
		_ = openRaw(t, client, native).Reset()
		_ = client.Peerstore().AddProtocols(native.ID(), ports.LookupProtocol)
		if _, err := n.List(t.Context(), idOf(client), ports.Query{}); !errors.Is(err, ports.ErrNotOffered) {
			t.Errorf("got %v, want %v", err, ports.ErrNotOffered)
		}
	})
}

// openRaw opens a stream of libp2p's own.
func openRaw(t *testing.T, from, to host.Host) network.Stream {
	t.Helper()
	return openFor(t, from, to, "/ipfs/ping/1.0.0")
}

func TestWithoutAddressesNothingIsDialled(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		native, client := newHost(), newHost()
		serve(t, newTransport(t, native), grant)
		n, err := newTransport(t, client).Native(idOf(native), nil)
		if err != nil {
			t.Fatal(err)
		}
		client.Peerstore().AddAddrs(native.ID(), native.Addrs(), time.Hour)
		if _, err := register(t.Context(), client, n); err == nil || !strings.Contains(err.Error(), "not connected") {
			t.Errorf("got %v", err)
		}
		if err := client.Connect(t.Context(), peer.AddrInfo{ID: native.ID()}); err != nil {
			t.Fatal(err)
		}
		if _, err := register(t.Context(), client, n); err != nil {
			t.Error(err)
		}
	})
}

func TestNeighboursAreSeenFromBothSides(t *testing.T) {
	overTCPAndQUIC(t, func(t *testing.T, newHost func(...libp2p.Option) host.Host) {
		one, two, indexer := newHost(), newHost(), newHost()
		natives := []*stream.Transport{newTransport(t, one), newTransport(t, two)}
		for _, tr := range natives {
			serve(t, tr, grant)
			if neighbours, _ := tr.Neighbours(); len(neighbours) != 0 {
				t.Errorf("got %v", neighbours)
			}
		}
		_ = openRaw(t, indexer, one).Reset()
		_ = openRaw(t, one, two).Reset()
		for i, other := range []host.Host{two, one} {
			porttest.Eventually(t, "the other is a neighbour", func() bool {
				neighbours, _ := natives[i].Neighbours()
				return len(neighbours) == 1 && neighbours[0].PeerID == idOf(other) && slices.Contains(neighbours[0].Addrs, addrsOf(other)[0])
			})
		}
		_, changed := natives[0].Neighbours()
		if err := two.Close(); err != nil {
			t.Fatal(err)
		}
		<-changed
		porttest.Eventually(t, "no neighbour remains", func() bool {
			neighbours, _ := natives[0].Neighbours()
			return len(neighbours) == 0
		})
	})
}

func TestAddressesOfNeighboursAreRanked(t *testing.T) {
	want := []string{"/ip4/192.168.2.2/tcp/1", "/ip4/192.168.2.2/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1/quic-v1", "/ip4/192.168.1.1/tcp/1", "/ip4/192.168.1.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"}
	var addrs []ma.Multiaddr
	for _, text := range slices.Backward(want) {
		addrs = append(addrs, ma.StringCast(text))
	}
	if got := stream.BestFirst(addrs, []net.IP{net.IPv4(192, 168, 2, 2)}); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// BenchmarkLookUp is a look-up of one PeerID over TCP, next to a bare echo of its bytes.
func BenchmarkLookUp(b *testing.B) {
	native, client := newTCPHost(b), newTCPHost(b)
	server, err := stream.New(native, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	answer := ports.Answer{Listed: joined(1)[0].Listed}
	stop, err := server.Serve(porttest.Native{OnLookUp: func(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) { return answer, nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	tr, err := stream.New(client, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	n, err := tr.Native(idOf(native), addrsOf(native))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := n.LookUp(b.Context(), idOf(client), anID); err != nil {
		b.Fatal(err)
	}
	b.Run("look-up", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.LookUp(b.Context(), idOf(client), anID); err != nil {
				b.Fatal(err)
			}
		}
	})
	question, _ := wire.EncodeQuestion(wire.Question{PeerID: anID})
	said, _ := wire.AppendListed(nil, &answer.Listed, time.Now())
	said = append(said, wire.EncodeOK()...)
	const echo protocol.ID = "/echo"
	native.SetStreamHandler(echo, func(s network.Stream) {
		_ = s.SetDeadline(time.Now().Add(ports.ExchangeTimeout))
		if _, err := io.ReadFull(s, make([]byte, len(question))); err == nil {
			_, _ = s.Write(said)
		}
		_ = s.Close()
	})
	for _, bare := range []protocol.ID{ports.LookupProtocol, echo} {
		b.Run("bare client of "+string(bare[1:]), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := client.NewStream(b.Context(), native.ID(), bare)
				if err != nil {
					b.Fatal(err)
				}
				_ = s.SetDeadline(time.Now().Add(ports.ExchangeTimeout))
				_, _ = s.Write(question)
				_ = s.CloseWrite()
				if got, err := io.ReadAll(s); err != nil || len(got) < len(said)-20 {
					b.Fatal(fmt.Sprint(len(got), err))
				}
				_ = s.Close()
			}
		})
	}
}

func TestAPageWaitsForItsTurn(t *testing.T) {
	inFakeTime(t, func(t *testing.T, native, client host.Host) { // with one processor: a page at a time
		serve(t, newTransport(t, native), porttest.Native{OnList: func(context.Context, ports.PeerID, ports.Query) (ports.Page, error) {
			time.Sleep(600 * time.Millisecond)
			return ports.Page{}, nil
		}})
		n := remote(t, newTransport(t, client), native)
		if _, err := n.List(t.Context(), idOf(client), ports.Query{}); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error)
		for range 3 {
			go func() {
				_, err := n.List(t.Context(), idOf(client), ports.Query{})
				errs <- err
			}()
		}
		refused := 0
		for range 3 {
			if err := <-errs; err != nil {
				expectRefusal(t, err, ports.CodeBusy)
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("of three pages that take 0.6 s each, %d are refused", refused)
		}
	})
}
