package modules_test

// The faults of the simulated network: packets that get lost without a word, processes that stop,
// machines that sleep or lose their power, clocks that are wrong, natives that move.

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// socketBuffer is what a socket of Linux keeps for a process that does not read; more is lost.
const socketBuffer = 212_992

// faults decide what becomes of each packet. A packet that is lost is lost without a word: no
// sender is told. The zero faults have none.
type faults struct {
	mu   sync.Mutex
	lost map[[2]string]bool // from one IP to another
	held map[string]*held   // what waits for a stopped process, by its IP
	dead map[string]bool    // IPs of machines without power or awareness

	spoken  map[path]bool // the connections that packets were seen of
	severed map[path]bool // those of them that carry no packet any more
}

// path is one direction of a QUIC connection: the destination's ID of it, as packets show it after
// the handshake.
type path struct {
	from, to   string
	connection [connectionID]byte
}

// connectionID is how many bytes an ID of a connection has in go-libp2p.
const connectionID = 4

// pathOf returns the path of a packet, unless that is part of a handshake.
func pathOf(from, to string, p []byte) (path, bool) {
	const longHeader = 0x80
	if len(p) < 1+connectionID || p[0]&longHeader != 0 {
		return path{}, false
	}
	return path{from, to, [connectionID]byte(p[1:])}, true
}

// sever has all connections between two IPs carry nothing any more, as behind a NAT that has
// forgotten them. New ones are not hurt.
func (f *faults) sever(a, b string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.severed == nil {
		f.severed = make(map[path]bool)
	}
	for p := range f.spoken {
		if p.from == a && p.to == b || p.from == b && p.to == a {
			f.severed[p] = true
		}
	}
}

// held are the packets in the socket of a stopped process.
type held struct {
	bytes   int
	packets []func()
}

// lose has all packets from an IP to another get lost, or no longer.
func (f *faults) lose(from, to string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost == nil {
		f.lost = make(map[[2]string]bool)
	}
	if f.lost[[2]string{from, to}] = true; !lost {
		delete(f.lost, [2]string{from, to})
	}
}

// silence has a machine neither send nor take a packet, or no longer.
func (f *faults) silence(ip string, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead == nil {
		f.dead = make(map[string]bool)
	}
	if f.dead[ip] = true; !dead {
		delete(f.dead, ip)
	}
}

// hold has a machine send nothing, and keep packets that reach it.
func (f *faults) hold(ip string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held == nil {
		f.held = make(map[string]*held)
	}
	f.held[ip] = &held{}
}

// release hands over the packets that were held.
func (f *faults) release(ip string) {
	f.mu.Lock()
	waiting := f.held[ip]
	delete(f.held, ip)
	f.mu.Unlock()
	if waiting != nil {
		for _, deliver := range waiting.packets {
			deliver()
		}
	}
}

// stops reports whether a packet goes no further now. One that may go on later is deliver's.
func (s *simulation) stops(from, to string, packet []byte, deliver func([]byte)) bool {
	if s.silent(from, to) {
		return true
	}
	f := &s.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[from] != nil {
		return true
	}
	if p, ok := pathOf(from, to, packet); ok {
		if f.severed[p] {
			return true
		}
		if f.spoken == nil {
			f.spoken = make(map[path]bool)
		}
		f.spoken[p] = true
	}
	h := f.held[to]
	if h != nil && h.bytes+len(packet) <= socketBuffer {
		h.bytes += len(packet)
		kept := slices.Clone(packet)
		h.packets = append(h.packets, func() { deliver(kept) })
	}
	return h != nil
}

// socket is a UDP socket of the simulated network.
type socket struct {
	*simnet.SimConn
	s  *simulation
	ip string
}

// WriteTo implements net.PacketConn. A packet that gets lost is no error.
func (c *socket) WriteTo(p []byte, to net.Addr) (int, error) {
	if c.s.stops(c.ip, ipOf(to), p, func(p []byte) { _, _ = c.SimConn.WriteTo(p, to) }) {
		return len(p), nil
	}
	return c.SimConn.WriteTo(p, to)
}

// ReadFrom implements net.PacketConn. A packet that was under way when its path was cut is lost
// too.
func (c *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.SimConn.ReadFrom(p)
		if err != nil || !c.s.stops(ipOf(from), c.ip, p[:n], func([]byte) {}) {
			return n, from, err
		}
	}
}

func ipOf(a net.Addr) string { return a.(*net.UDPAddr).IP.String() }

// dial is a modules.Environment's Dial. A machine refuses TCP, as nobody listens there, unless the
// way to it is cut.
func (m *member) dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, _, _ := net.SplitHostPort(address)
	if _, there := m.machines.Load(to); there && !m.silent(m.ip, to) && !m.silent(to, m.ip) {
		return nil, syscall.ECONNREFUSED
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// silent reports whether no packet goes from an IP to another. A stopped process stops no packet
// of its machine.
func (s *simulation) silent(from, to string) bool {
	for _, ip := range []string{from, to} {
		if _, away := s.away.Load(ip); away {
			return true
		}
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return s.faults.dead[from] || s.faults.dead[to] || s.faults.lost[[2]string{from, to}]
}

// ownSource is the address that a host sends from.
type ownSource struct{ ip atomic.Pointer[net.IP] }

func (o *ownSource) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return *o.ip.Load(), nil
}

// quic puts a host into the simulated network. It is simlibp2p.QUICSimnet with sockets that know
// faults.
func (s *simulation) quic() libp2p.Option {
	link := simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps}
	own := &ownSource{}
	return libp2p.QUICReuse(
		func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token, opts...)
			if err == nil {
				l.Append(fx.StopHook(m.Close))
			}
			return m, err
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return own, nil }),
		quicreuse.OverrideListenUDP(func(_ string, at *net.UDPAddr) (net.PacketConn, error) {
			own.ip.Store(&at.IP)
			s.machines.Store(at.IP.String(), struct{}{})
			return &socket{s.net.NewEndpoint(at, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}), s, at.IP.String()}, nil
		}))
}

// crawl is by how much slower the clocks of a stopped process run. If they stood still, a loop
// that waits until a time would wait for ever, and fake time with it.
const crawl = 1000

// machineClock is both clocks of a machine: the time of day, and the time since it was switched
// on. The zero machineClock is right.
type machineClock struct {
	mu      sync.Mutex
	on      time.Time
	stopped time.Time     // zero unless it is stopped
	wrong   time.Duration // how far the time of day is ahead
}

func (c *machineClock) read() time.Time {
	now := time.Now()
	if c.stopped.IsZero() {
		return now
	}
	return c.stopped.Add(now.Sub(c.stopped) / crawl)
}

// now is a modules.Environment's Now, and elapsed its Elapsed.
func (c *machineClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read().Add(c.wrong)
}

func (c *machineClock) elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read().Sub(c.on)
}

// set has the time of day be ahead by that much from now on.
func (c *machineClock) set(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = ahead
}

func (c *machineClock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = time.Now()
}

func (c *machineClock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = time.Time{}
}

// cut has all packets between a and b get lost, in both directions. mend ends that.
func cut(a, b *member)  { between(a, b, true) }
func mend(a, b *member) { between(a, b, false) }

func between(a, b *member, lost bool) {
	a.faults.lose(a.ip, b.ip, lost)
	a.faults.lose(b.ip, a.ip, lost)
}

// deafen has all packets from a to b get lost, and none of those from b to a. hear ends that.
func deafen(a, b *member) { a.faults.lose(a.ip, b.ip, true) }
func hear(a, b *member)   { a.faults.lose(a.ip, b.ip, false) }

// cutOff has all packets of m get lost. reconnect ends that.
func (m *member) cutOff()    { m.away.Store(m.ip, struct{}{}) }
func (m *member) reconnect() { m.away.Delete(m.ip); m.back = time.Now() }

// pause is SIGSTOP, as near as fake time comes to it: nobody can stop the goroutines of one node
// in a bubble. The process sends nothing. Packets for it wait in its socket. Its clocks stand
// still, so nothing ends in its table. At resume, which is SIGCONT, the packets are there at once,
// and the clocks jump ahead. A stopped process is not modelled in these points: its timers fire on
// time meanwhile, without effect on others, and not all at once at the end; and it may be asked
// for what it lists. The end-to-end test stops real processes.
func (m *member) pause() {
	m.still = true
	m.faults.hold(m.ip)
	m.clock.stop()
}

func (m *member) resume() {
	m.still, m.back = false, time.Now()
	m.clock.resume()
	m.faults.release(m.ip)
}

// sleep is a machine that sleeps. Packets for it are lost, and its boot clock runs ahead of its
// timers by the length of the sleep. The timers themselves should stand still meanwhile, and do
// not: an indexer's heartbeat that was due in the sleep fails, and is tried again soon after it. A
// machine that really slept sends it later. wake ends the sleep.
func (m *member) sleep() {
	m.still = true
	m.faults.silence(m.ip, true)
	m.clock.stop()
}

func (m *member) wake() {
	m.still, m.back = false, time.Now()
	m.clock.resume()
	m.faults.silence(m.ip, false)
}

// crash is a machine that loses its power: others hear nothing at all of its end. start brings it
// back. kill is the end of the process alone: its connections end.
func (m *member) crash() {
	m.t.Helper()
	m.faults.silence(m.ip, true)
	m.kill()
}

func (m *member) kill() {
	m.t.Helper()
	m.up, m.left = false, time.Time{}
	if err := m.node.Kill(); err != nil {
		m.t.Errorf("kill %s: %v", m.name, err)
	}
}

// move has a member that does not run start at another address, where nobody was before.
func (m *member) move() {
	m.moves++
	_, rest, _ := strings.Cut(m.ip, ".")
	m.ip = fmt.Sprintf("%d.%s", 1+m.moves, rest)
}

// identity gives the member a key that the simulation's seed determines.
func (m *member) identity() {
	m.t.Helper()
	var seed [ed25519.SeedSize]byte
	for i := 0; i < len(seed); i += 8 {
		binary.LittleEndian.PutUint64(seed[i:], m.random.Uint64())
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		m.t.Fatal(err)
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	dir := m.all()["data.dir"]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.key"), raw, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// twin returns another member with the key of m.
func (c *cast) twin(m *member) *member {
	m.t.Helper()
	twin := c.member(m.name+"-twin", maps.Clone(m.settings))
	key, err := os.ReadFile(filepath.Join(m.all()["data.dir"], "identity.key"))
	if err == nil {
		err = os.MkdirAll(twin.all()["data.dir"], 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(twin.all()["data.dir"], "identity.key"), key, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return twin
}
