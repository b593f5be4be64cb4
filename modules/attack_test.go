package modules_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/adapters/admission"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// TestAttack… are what somebody does who wants a native down. Each prints its counts, and
// in each honest indexers register all the while, all of whom must succeed. Under the race
// detector there are fewer of everything; make figures runs them whole.

// caller is an identity with one connection to a native, from an address of its choice,
// and as little else as there can be.
type caller struct {
	id    ports.PeerID
	conn  transport.CapableConn
	frame string // its registration
}

// call connects a new identity from an IP address to a native on TCP.
func call(ctx context.Context, from string, node *modules.Node) (*caller, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	dialer, err := tcp.NewTCPTransport(up, nil, nil, tcp.DisableReuseport(), tcp.WithDialerForAddr(func(ma.Multiaddr) (tcp.ContextDialer, error) {
		return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, nil
	}))
	if err != nil {
		return nil, err
	}
	to, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		return nil, err
	}
	conn, err := dialer.Dial(ctx, to.Addrs[0], to.ID)
	if err != nil {
		return nil, err
	}
	go func() { // it offers nothing
		for {
			s, err := conn.AcceptStream()
			if err != nil {
				return
			}
			_ = s.Reset()
		}
	}()
	return &caller{ports.PeerID(id.String()), conn, fmt.Sprintf(`{"PeerID":%q,"Addr":"/ip4/%s/tcp/4101"}`+"\n", id, from)}, nil
}

// calls connects n identities, from(i) each, and closes them with the test.
func calls(t *testing.T, node *modules.Node, n int, from func(i int) string) []*caller {
	t.Helper()
	callers := make([]*caller, n)
	t.Cleanup(func() {
		for _, c := range callers {
			if c != nil {
				_ = c.conn.Close()
			}
		}
	})
	inParallel(n, func(i int) {
		ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
		defer cancel()
		c, err := call(ctx, from(i), node)
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
			return
		}
		callers[i] = c
	})
	if t.Failed() {
		t.FailNow()
	}
	return callers
}

// inParallel calls f for all up to n, 16 at once.
func inParallel(n int, f func(i int)) {
	var running sync.WaitGroup
	var next atomic.Int64
	for range 16 {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	running.Wait()
}

// hello is how multistream-select agrees on a protocol, from either side.
func hello(protocol string) []byte {
	var b []byte
	for _, line := range []string{"/multistream/1.0.0\n", protocol + "\n"} {
		b = append(binary.AppendUvarint(b, uint64(len(line))), line...)
	}
	return b
}

// send opens a stream and writes what is asked, with hello before it unless that is "".
func (c *caller) send(protocol, frame string) (network.MuxedStream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), porttest.Patience)
	defer cancel()
	s, err := c.conn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	_ = s.SetDeadline(time.Now().Add(porttest.Patience))
	var text []byte
	if protocol != "" {
		text = hello(protocol)
	}
	_, err = s.Write(append(text, frame...))
	return s, err
}

// ask returns what is answered.
func (c *caller) ask(protocol, frame string) (string, error) {
	s, err := c.send(protocol, frame)
	if err != nil {
		return "", err
	}
	defer s.Reset()
	text, err := io.ReadAll(s)
	answer, ok := bytes.CutPrefix(text, hello(protocol))
	if err == nil && !ok {
		err = fmt.Errorf("it agrees on %q", text)
	}
	return string(answer), err
}

// register returns nil if a lease is granted, and a *ports.Refusal with the code if not.
func (c *caller) register() error {
	answer, err := c.ask(ports.SubscribeProtocol, c.frame)
	switch _, code, refused := strings.Cut(answer, `"Code":"`); {
	case err != nil:
		return err
	case refused:
		code, _, _ = strings.Cut(code, `"`)
		return ports.Refuse(ports.Code(code), "%s", answer)
	case !strings.HasPrefix(answer, `{"OK":true`):
		return fmt.Errorf("the answer is %q", answer)
	}
	return nil
}

// patiently calls f, and once more if it failed after so long that the native had given the
// exchange up: a busy machine does that now and then, and a native that is down always. If the native
// says that it stood still, that is a second later, as indexers do.
func patiently(f func() error) error {
	began := time.Now()
	err := f()
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "this native stood still until now"):
		time.Sleep(time.Second)
		err = f()
	case time.Since(began) >= ports.ExchangeTimeout*4/5:
		err = f()
	}
	return err
}

// honest are indexers that register all the while.
type honest struct {
	callers []*caller
	mu      sync.Mutex
	took    []time.Duration
	failed  []error
}

// round has each of them register once, one after the other.
func (h *honest) round() {
	for _, c := range h.callers {
		h.register(c)
	}
}

func (h *honest) register(c *caller) {
	began := time.Now()
	err := patiently(c.register)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.took = append(h.took, time.Since(began))
	if err != nil {
		h.failed = append(h.failed, err)
	}
}

// p99 has them register in turn for so long, one every 2 ms, and returns the 99th
// percentile of the time to the answer.
func (h *honest) p99(d time.Duration) time.Duration {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	before, until := len(h.took), time.Now().Add(d)
	for i := 0; i == 0 || time.Now().Before(until); i++ {
		h.register(h.callers[i%len(h.callers)])
		<-pace.C
	}
	took := slices.Sorted(slices.Values(h.took[before:]))
	return took[len(took)*99/100]
}

// during has them register until stop is called, at a pace that a single native does not
// notice.
func (h *honest) during() (stop func()) {
	var running sync.WaitGroup
	done := make(chan struct{})
	pace := time.NewTicker(20 * time.Millisecond)
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-pace.C:
				h.round()
			}
		}
	})
	return func() { close(done); running.Wait(); pace.Stop() }
}

func (h *honest) expectAllSucceeded(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.failed) > 0 {
		t.Errorf("%d of %d honest registrations failed, the first with: %v", len(h.failed), len(h.took), h.failed[0])
	}
	t.Logf("%d honest registrations beside it, %d failed", len(h.took), len(h.failed))
}

// besieged starts a native whose limits hold for loopback too, and honest indexers of it.
func besieged(t *testing.T, indexers int, settings map[string]string) (*modules.Node, *honest) {
	t.Helper()
	all := leastSettings(t)
	all["modules"] = "native"
	for key, value := range settings {
		all[key] = value
	}
	node := newNode(t, all, modules.Environment{CountLoopback: true})
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, node) })
	h := &honest{callers: calls(t, node, indexers, func(i int) string { return fmt.Sprintf("127.1.%d.1", i) })}
	h.round()
	return node, h
}

// handshakes is how long a connection may take for its handshake.
const handshakes = 4 * time.Second

const mostBytes = 64 << 20 // more memory that an attack may take

// TestAttackMalformedFrames sends over streams what no indexer sends.
func TestAttackMalformedFrames(t *testing.T) {
	frames := porttest.Scale(100_000, 5_000)
	node, honest := besieged(t, 10, map[string]string{"limits.registrations": "0"}) // or most would not be read
	attackers := calls(t, node, 16, func(i int) string { return fmt.Sprintf("127.2.0.%d", i+1) })
	good := attackers[0].frame
	bad := []string{
		"", "\n", "{}\n", "[]\n", "null\n", "\x00\n", "{\"PeerID\":1}\n", strings.ToUpper(good), good[:len(good)-3], good[1:],
		strings.Replace(good, "}", ",}", 1), strings.Replace(good, "}", `,"Addr":""}`, 1), strings.Replace(good, "}", "} {}", 1),
		strings.Replace(good, "12D3", "12D0", 1), strings.Replace(good, "tcp", "t\xc0p", 1),
		"{\"x\":" + strings.Repeat("[", 4000) + "\n", strings.Repeat("{\"a\":", 1000) + "\n", strings.Repeat("9", 8000) + "\n",
		"{\"PeerID\":\"" + strings.Repeat("1", 8000) + "\"}\n", "{\"Meta\":{" + strings.Repeat(`"a":"b",`, 900) + "}}\n",
	}
	_, _ = attackers[0].ask(ports.SubscribeProtocol, bad[2])
	before := porttest.Holds()
	stop := honest.during()
	began := time.Now()
	var malformed, other atomic.Int64
	inParallel(frames, func(i int) {
		err := patiently(func() error {
			s, err := attackers[i%len(attackers)].send(ports.SubscribeProtocol, bad[i%len(bad)])
			if err != nil {
				return err
			}
			_ = s.CloseWrite()
			answer, err := io.ReadAll(s)
			if bytes.Contains(answer, []byte(`"Code":"malformed"`)) {
				_ = s.Close()
				return nil
			}
			_ = s.Reset()
			return errors.Join(err, fmt.Errorf("answer %q", answer))
		})
		if err == nil {
			malformed.Add(1)
		} else if other.Add(1) == 1 {
			t.Errorf("frame %.100q: %v", bad[i%len(bad)], err)
		}
	})
	took := time.Since(began)
	stop()
	honest.expectAllSucceeded(t)
	more := before.ExpectNoMore(t, mostBytes)
	t.Logf("%d frames over streams in %.1f s: %d malformed, %d other; %d goroutines more, %d KiB more in use, %d KiB more mapped",
		frames, took.Seconds(), malformed.Load(), other.Load(), more.Goroutines, more.InUse>>10, more.Mapped>>10)
	if live, _ := node.Registry().Counts(); live != len(honest.callers) {
		t.Errorf("%d are live, want the %d honest ones", live, len(honest.callers))
	}
}

// TestAttackSilentConnections opens connections from one address and says nothing on them.
func TestAttackSilentConnections(t *testing.T) {
	const connections = 64 // of which 16 may be in their handshake
	node, honest := besieged(t, 5, map[string]string{"limits.connections": fmt.Sprint(connections)})
	to, err := peer.AddrInfoFromString(node.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	_, address, err := manet.DialArgs(to.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	silent := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.2.0.1")}}
	before := porttest.Holds()
	began := time.Now()
	var open sync.WaitGroup
	for range connections / 2 { // what a site may have
		conn, err := silent.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		open.Go(func() {
			_ = conn.SetDeadline(time.Now().Add(porttest.Patience))
			_, _ = io.Copy(io.Discard, conn) // what the native says first
			_ = conn.Close()
		})
	}
	blocked := func() float64 {
		return samples(t, scrape(t, node))[`ocnode_blocked_total{resource="site_handshake"}`]
	}
	porttest.Eventually(t, "the native refuses those that are too many", func() bool { return blocked() >= connections*3/8 })
	var newcomers []*caller
	for i := range 10 {
		newcomers = append(newcomers, calls(t, node, 1, func(int) string { return fmt.Sprintf("127.3.%d.1", i) })...)
		honest.register(newcomers[i])
	}
	took := time.Since(began)
	honest.round()
	open.Wait()
	lasted := time.Since(began)
	honest.expectAllSucceeded(t)
	for _, c := range newcomers {
		_ = c.conn.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	before.ExpectNoMore(t, mostBytes)
	t.Logf("%d silent connections from one address, %.0f refused: %d newcomers are in %.2f s later; the last silent one is cut off after %.2f s",
		connections/2, blocked(), len(newcomers), took.Seconds(), lasted.Seconds())
	if most := handshakes + porttest.Patience/10; lasted > most {
		t.Errorf("a silent connection lasted %v, at most %v are allowed", lasted, most)
	}
}

// TestAttackSlowStreams opens streams and does not go on. The clock's word is taken for what
// that does to others, so a machine that stalls gets another try.
func TestAttackSlowStreams(t *testing.T) {
	const peers, tries = 200, 4
	node, honest := besieged(t, 50, map[string]string{"limits.registrations": "0"}) // each try takes most of them
	attackers := calls(t, node, porttest.Scale(peers, peers/4), func(i int) string { return fmt.Sprintf("127.2.%d.%d", i/250, i%250+1) })
	for try := 1; ; try++ {
		err := slowStreams(t, node, honest, attackers)
		if err == nil {
			break
		}
		if try == tries {
			t.Errorf("%d times over; at last %v", try, err)
			break
		}
		t.Log(err)
	}
	honest.expectAllSucceeded(t)
}

// slowStreams opens ten streams from each of the attackers. The error is that they are there
// for too long, or in the way of others.
func slowStreams(t *testing.T, node *modules.Node, honest *honest, attackers []*caller) error {
	const each = 10
	const gone = 6 * time.Second // ports.ExchangeTimeout, and time to notice
	// Of an exchange's time, what is half sent has four fifths.
	const window = ports.ExchangeTimeout * 4 / 5
	calm := honest.p99(window)
	before := porttest.Holds()
	streams := make([]network.MuxedStream, len(attackers)*each)
	began := time.Now()
	var opened time.Duration
	var opening sync.WaitGroup
	opening.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond) // 2,000 a second
		defer pace.Stop()
		for i := range streams {
			if i%10 == 0 {
				<-pace.C
			}
			c := attackers[i%len(attackers)]
			var err error
			switch i % 6 {
			case 0: // says nothing at all
				streams[i], err = c.send("", "")
			case 1: // never ends how it begins
				streams[i], err = c.send("", "\x13/multistream")
			case 2: // sends nothing
				streams[i], err = c.send(ports.SubscribeProtocol, "")
			case 3: // never ends
				streams[i], err = c.send(ports.SubscribeProtocol, c.frame[:20])
			case 4: // never ends a leave
				streams[i], err = c.send(ports.LeaveProtocol, "{")
			case 5: // never reads
				streams[i], err = c.send(ports.SubscribeProtocol, c.frame)
			}
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		}
		opened = time.Since(began)
	})
	var held atomic.Int64
	look := time.AfterFunc(window/2, func() { held.Store(int64(runtime.NumGoroutine() - before.Goroutines)) })
	defer look.Stop()
	siege := honest.p99(window)
	opening.Wait()
	porttest.Eventually(t, "the streams are gone", func() bool { return samples(t, scrape(t, node))[`ocnode_streams{direction="inbound"}`] == 0 })
	lasted := time.Since(began) - opened
	http.DefaultClient.CloseIdleConnections()
	more := before.ExpectNoMore(t, mostBytes)
	t.Logf("%d streams from %d peers, opened in %.2f s, holding %d goroutines: gone %.2f s after the last; honest p99 %v before, %v while they were there; %d KiB more in use",
		len(streams), len(attackers), opened.Seconds(), held.Load(), lasted.Seconds(), calm, siege, more.InUse>>10)
	for _, s := range streams {
		if s != nil {
			_ = s.Reset()
		}
	}
	if most := 2*calm + 5*time.Millisecond; lasted > gone || siege > most {
		return fmt.Errorf("they were there for %v, want %v at most; honest p99 %v, it was %v before and may be %v", lasted, gone, siege, calm, most)
	}
	return nil
}

// TestAttackIdentitiesOfOneAddress registers one new identity after another: at the door
// and at the table, since a hundred thousand connections are refused long before.
func TestAttackIdentitiesOfOneAddress(t *testing.T) {
	identities := porttest.Scale(100_000, 20_000)
	const indexers, most = 1000, admission.DefaultIdentities
	address := func(int) netip.Addr { return netip.MustParseAddr("203.0.113.7") }
	for name, tt := range map[string]struct {
		from  func(i int) netip.Addr
		leave bool
	}{
		"one IPv4 address": {address, false},
		"one IPv6 site":    {func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x:%x", i>>16, i&0xffff)) }, false},
		"that leave again": {address, true},
	} {
		t.Run(name, func(t *testing.T) {
			from := tt.from
			gate, err := admission.NewGate(admission.Config{
				TTL: domain.DefaultTTLPolicy().TTL, Heartbeat: domain.DefaultTTLPolicy().Heartbeat,
				Registrations: admission.DefaultRegistrations, Identities: most,
			})
			if err != nil {
				t.Fatal(err)
			}
			addresses, err := admission.NewAddresses(admission.PolicyAuto, noWayBack{}, &porttest.Recorder{})
			if err != nil {
				t.Fatal(err)
			}
			defer addresses.Close()
			door := admission.Door{Gate: gate, Addresses: addresses}
			rules := domain.Rules{Self: "native", Policy: domain.DefaultTTLPolicy(), CheckAddr: libp2phost.CheckAddr}
			registry, err := domain.NewRegistry(rules, domain.Settings{}, memory.NewStore(rules.Acceptable), memory.NewTopic().Join("native"), nobody{})
			if err != nil {
				t.Fatal(err)
			}
			register := func(id ports.PeerID, from netip.Addr) error {
				r := ports.Registration{PeerID: id, Addr: "/ip4/" + from.String() + "/tcp/4101"}
				if from.Is6() {
					r.Addr = "/ip6/" + from.String() + "/tcp/4101"
				}
				err := door.Hear(id, from)
				if err == nil {
					r, err = door.Admit(t.Context(), id, from, r)
				}
				if err == nil {
					_, err = registry.Register(t.Context(), id, r)
					door.Settle(id, err == nil)
				}
				return err
			}
			honest, failed := 0, 0
			renew := func(n int) {
				id := ports.PeerID(fmt.Sprint("honest", n))
				if err := register(id, netip.AddrFrom4([4]byte{198, 51, byte(n / 250), byte(n%250 + 1)})); err != nil {
					t.Errorf("%s: %v", id, err)
					failed++
				}
				honest++
			}
			for n := range indexers {
				renew(n)
			}
			before := porttest.Holds()
			admitted, refused, left := 0, 0, 0
			for i := range identities {
				id := ports.PeerID(fmt.Sprintf("12D3KooWAttacker%036d", i))
				err := register(id, from(i))
				refusal, is := errors.AsType[*ports.Refusal](err)
				switch {
				case err == nil && tt.leave:
					left++
					if err := door.AdmitLeave(id, from(i)); err != nil {
						t.Fatal(err)
					}
					door.SettleLeave(id, registry.Leave(t.Context(), id, nil) == nil)
					fallthrough
				case err == nil:
					admitted++
				case is && refusal.Code == ports.CodeBusy && refusal.Limit == ports.LimitSite:
					refused++
				default:
					t.Fatalf("identity %d: %v", i, err)
				}
				if i%10 == 0 {
					renew(i / 10 % (2 * indexers)) // newcomers among them
				}
			}
			more := before.ExpectNoMore(t, mostBytes)
			live, _ := registry.Counts()
			seated, strangers := gate.Counts()
			t.Logf("%d identities: %d admitted, %d refused; %d honest registrations beside them, %d failed; %d live, %d strangers remembered; %d KiB more in use, %d KiB more mapped",
				identities, admitted, refused, honest, failed, live, strangers, more.InUse>>10, more.Mapped>>10)
			if admitted != most || admitted+refused != identities {
				t.Errorf("%d are admitted and %d refused, want %d of %d admitted", admitted, refused, most, identities)
			}
			for n := range indexers {
				if _, ok := registry.Get(ports.PeerID(fmt.Sprint("honest", n))); !ok {
					t.Errorf("honest indexer %d is not listed", n)
				}
			}
			if live != seated-left {
				t.Errorf("%d are live and %d seated, of whom %d left", live, seated, left)
			}
		})
	}
}

type noWayBack struct{}

func (noWayBack) Resolve(context.Context, string) ([]string, error) {
	return nil, errors.New("no names")
}

func (noWayBack) Routes(netip.Addr) bool { return true }

func (noWayBack) Dial(context.Context, ports.PeerID, string) error { return errors.New("no way") }

type nobody struct{}

func (nobody) Observe(ports.Event) {}

// TestAttackHeldConnections holds many connections from one address, each with a lease, as
// a large site does: it must not look like an attack.
func TestAttackHeldConnections(t *testing.T) {
	t.Parallel()
	const heartbeat, ttl = 3 * time.Second, 12 * time.Second // a busy machine renews late
	ttls, connections := porttest.Scale(3, 2), porttest.Scale(1000, 250)
	node, honest := besieged(t, 10, map[string]string{"registry.heartbeat": heartbeat.String(), "registry.ttl": ttl.String(), "registry.refresh": heartbeat.String()})
	began := time.Now()
	crowd := calls(t, node, connections, func(int) string { return "127.3.0.1" })
	dialled := time.Since(began)
	everyone := slices.Concat(crowd, honest.callers)
	inParallel(len(everyone), func(i int) {
		if err := patiently(everyone[i].register); err != nil {
			t.Errorf("registration %d: %v", i, err)
		}
	})
	until := time.Now().Add(time.Duration(ttls) * ttl)
	var running sync.WaitGroup
	var renewed, failed atomic.Int64
	for i, c := range everyone {
		running.Go(func() {
			// Spread over the heartbeat, as those are who did not come all at once.
			first := time.NewTimer(heartbeat * time.Duration(i) / time.Duration(len(everyone)))
			defer first.Stop()
			<-first.C
			pace := time.NewTicker(heartbeat * 19 / 20)
			defer pace.Stop()
			for ; time.Now().Before(until); <-pace.C {
				renewed.Add(1)
				if err := patiently(c.register); err != nil && failed.Add(1) == 1 {
					t.Errorf("renewal: %v", err)
				}
			}
		})
	}
	looks, missing := 0, 0
	for look := time.NewTicker(50 * time.Millisecond); time.Now().Before(until); <-look.C {
		looks++
		for _, c := range everyone {
			if _, ok := node.Registry().Get(c.id); !ok {
				missing++
			}
		}
	}
	running.Wait()
	closed := 0
	for _, c := range everyone {
		if c.conn.IsClosed() {
			closed++
		}
	}
	t.Logf("%d connections from one address, dialled in %.1f s, held for %d TTLs of %v: %d renewals, %d failed; %d looks at all of them, %d missing; %d connections closed",
		len(crowd), dialled.Seconds(), ttls, ttl, renewed.Load(), failed.Load(), looks, missing, closed)
	if missing > 0 || closed > 0 || looks < 10 {
		t.Errorf("%d were missing in %d looks, and %d connections closed", missing, looks, closed)
	}
	honest.expectAllSucceeded(t)
}

// What a limit refuses says so, on the wire and in the metrics.
func TestLimitsOfANode(t *testing.T) {
	node, honest := besieged(t, 2, map[string]string{
		"limits.identities-per-site": "5", "limits.registrations": "20", "limits.entries": "12", "limits.connections-per-site": "9",
		"registry.heartbeat": "27m", "registry.ttl": "30m", "registry.refresh": "14m", // what is spent stays spent
	})
	busy := func(what string, err error) {
		t.Helper()
		if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || refusal.Code != ports.CodeBusy {
			t.Errorf("%s: got %v, want busy", what, err)
		}
	}
	site := calls(t, node, 7, func(int) string { return "127.4.0.1" })
	for i, c := range site {
		if err := c.register(); i >= 5 {
			busy("one more of a site", err)
		} else if err != nil {
			t.Errorf("%d of a site: %v", i, err)
		}
	}
	for range 19 {
		if err := site[0].register(); err != nil {
			t.Errorf("within the limit: %v", err)
		}
	}
	busy("more often than it may", site[0].register())
	if answer, err := site[1].ask(ports.LeaveProtocol, fmt.Sprintf("{\"PeerID\":%q}\n", site[1].id)); err != nil || !strings.HasPrefix(answer, `{"OK":true`) {
		t.Errorf("a leave: %s, %v", answer, err)
	}
	busy("where another has just left", site[5].register())

	others := calls(t, node, 6, func(i int) string { return fmt.Sprintf("127.5.%d.1", i) })
	for i, c := range others {
		// A leave is held too, until all have heard of it.
		if err := c.register(); i >= 12-2-5 {
			busy("one more than the table holds", err)
		} else if err != nil {
			t.Errorf("%d of others: %v", i, err)
		}
	}
	if err := others[0].register(); err != nil {
		t.Errorf("a renewal in a full table: %v", err)
	}

	calls(t, node, 2, func(int) string { return "127.4.0.1" })
	if c, err := call(t.Context(), "127.4.0.1", node); err == nil {
		if err = c.register(); err == nil {
			t.Error("a tenth connection of a site is taken")
		}
	}
	got := samples(t, scrape(t, node))
	for series, want := range map[string]float64{
		`ocnode_limited_total{limit="site_identities"}`:       3,
		`ocnode_limited_total{limit="identity_rate"}`:         1,
		`ocnode_limited_total{limit="entries"}`:               1,
		`ocnode_registrations_total{result="busy"}`:           5,
		`ocnode_blocked_total{resource="inbound_connection"}`: 0,
		`ocnode_limited_total{limit="address"}`:               0,
	} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
	if n := got[`ocnode_blocked_total{resource="site_connection"}`] + got[`ocnode_blocked_total{resource="site_rate"}`]; n == 0 {
		t.Error("no refused connection of a site is counted")
	}
	honest.round()
	honest.expectAllSucceeded(t)
}

// A victim's address is not listed, whatever an indexer says.
func TestSimNobodyIsSentToAVictim(t *testing.T) {
	simulate(t, func(t *testing.T, s *simulation) {
		native := s.natives(1, modules.Environment{})[0]
		victim := s.member("victim", map[string]string{"modules": "dht"})
		victim.start()
		indexer := func(name string, settings map[string]string) *member {
			m := s.member(name, map[string]string{"modules": "indexer", "indexer.natives": native.addr()})
			for key, value := range settings {
				m.settings[key] = value
			}
			m.start()
			return m
		}
		honest := indexer("honest", nil)
		bare, _, _ := strings.Cut(victim.addr(), "/p2p/")
		liar := indexer("liar", map[string]string{"host.announce": bare})
		both := indexer("both", map[string]string{"host.announce": "/ip4/" + s.member("both", nil).ip + "/udp/4101/quic-v1," + bare})
		took, ok := until(3*time.Second, func() bool { return native.lists(honest) && native.lists(both) })
		if !ok {
			t.Fatalf("after %v the honest are not listed", took)
		}
		t.Logf("the honest are listed after %v", took)
		for range 6 * 60 {
			time.Sleep(time.Second)
			if native.lists(liar) {
				t.Fatal("who gives a victim's address for its own is listed")
			}
			l, ok := native.node.Registry().Get(both.node.PeerID())
			if !ok || len(l.Addrs) > 1 {
				t.Fatalf("who gives a victim's address beside its own is listed with %v", l.Addrs)
			}
			if !native.lists(honest) {
				t.Fatal("the honest one is missing")
			}
		}
		stopAll([]*member{honest, liar, both, victim, native})
	})
}
