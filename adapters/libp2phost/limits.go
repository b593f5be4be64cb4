package libp2phost

import (
	"net/netip"
	"runtime/debug"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/pbnjay/memory"

	"github.com/opencloud/ocnode/adapters/internal/sites"
	"github.com/opencloud/ocnode/ports"
)

// What a machine is assumed to be if it does not say.
const (
	unknownMemory = 1 << 30
	unknownFiles  = 1024 // the usual soft limit
)

// How a machine's memory and open files become connections and streams.
const (
	// memoryShare is the part of the memory that the network may take, one in so many:
	// the live table, the DHT's records and the collector's headroom need the rest.
	memoryShare = 4
	// connBytes is what a connection is reckoned at: idle it was measured to hold 39 KB
	// over TCP and 67 KB over QUIC; as much again for identify and a stream in use.
	connBytes = 128 << 10
	// streamBytes is what libp2p accounts for a stream: yamux's first window.
	streamBytes = 256 << 10
	// fileShare is the part of the open files that connections do not get, one in so
	// many: dials under way, HTTP, DNS, the log.
	fileShare = 4
	// maxOtherFiles bounds that part: nothing but connections grows with a big machine.
	maxOtherFiles = 1024
	// MinConns is a floor, since with fewer a node could not even join: two connections
	// to each of a few natives.
	MinConns = 16
	// MinMemory is a floor for the same reason; idle streams take far less than they are
	// accounted for.
	MinMemory = 64 << 20
)

// How the connections are shared out.
const (
	// outboundShare of the connections is kept from those who dial in, one in so many,
	// so that a flood never cuts a native off from the others.
	outboundShare = 8
	// transientShare of everything may be in its handshake at once, one in so many.
	// When a native returns all its indexers dial: with 10,000 connections and
	// handshakes of 0.3 s they are back within seconds.
	transientShare = 4
	// ipShare of the connections may come from one IPv4 address or IPv6 /56, one in so
	// many: a site behind one address may be large, and four of them fill a native.
	ipShare = 4
	// siteConns may come from there in any case, as far as smallShare of the connections
	// goes, one in so many: the 5,000 indexers of a company behind one address, and a
	// tenth more for those that dial again before the last connection has ended.
	siteConns, smallShare = 5500, 2
	// redialPeriod is in what time a whole site may dial again in steady state: a
	// heartbeat. (libp2p's default is one connection in five seconds.)
	redialPeriod = time.Minute
	// nativesShare of the connections, and of the streams, may be with other natives that nobody named, one
	// in so many: indexers need the rest. minNatives may be in any case, enough for a network of small
	// machines.
	nativesShare, minNatives = 4, 64
	// highWaterEighths of the connections are held before the idlest are closed: below
	// what may dial in, so that newcomers find room rather than a refusal.
	highWaterEighths = 6
	// lowWaterEighths of the connections stay then.
	lowWaterEighths = 5
	// connGrace is how long a new connection is safe from that: time to identify and
	// to register, not so long that idle newcomers crowd out the rest.
	connGrace = 30 * time.Second
)

// What one peer may have.
const (
	// peerConns is for two natives that dial each other at once on every address.
	peerConns = 8
	// peerStreams is for all protocols together: gossip and DHT hold a few each.
	peerStreams = 256
	// peerProtocolStreams bounds each protocol, registrations among them. An indexer
	// needs one; the rest is for retries and for those who measure.
	peerProtocolStreams = 64
)

// Limits bounds what the network may take of this machine. All else is derived from
// the first two.
type Limits struct {
	// Conns is how many connections there may be, of which some are kept for dialling
	// out. A TCP connection takes an open file. To hold 10,000 indexers a native needs
	// 13,334 (the rest is above the high-water mark), thus an open-file limit
	// (LimitNOFILE, ulimit -Hn) of at least 14,358, say 16,384, and 7 GiB of memory.
	Conns int
	// Memory is how many bytes streams may be accounted for.
	Memory int64
	// PerSite is how many connections there may be from one IPv4 address or IPv6 /56; from
	// one /24 or /48 there may be twice as many. 0 derives it from Conns.
	PerSite int
	// CountLoopback has the limits of a site hold for loopback too, which is exempt else:
	// for tests, which have no other addresses.
	CountLoopback bool
}

// DefaultLimits returns the limits for this machine, as its memory (or GOMEMLIMIT, if
// that is less) and the process's open-file limit have it.
func DefaultLimits() Limits { return LimitsFor(Memory(), openFiles()) }

// Memory returns how many bytes this process may take: those of the machine, or GOMEMLIMIT if that
// is less. A machine that does not say has 1 GiB.
func Memory() uint64 {
	ram := memory.TotalMemory()
	if limit := uint64(debug.SetMemoryLimit(-1)); ram == 0 || limit < ram {
		ram = limit
	}
	return known(ram)
}

// known returns memory, or what stands for an unknown one: 0 and an absurd number are such.
func known(memory uint64) uint64 {
	if memory == 0 || memory >= 1<<62 {
		return unknownMemory
	}
	return memory
}

// LimitsFor returns the limits for a machine with so many bytes of memory and a
// process that may open so many files. 0, and for the memory an absurd number, stand
// for unknown.
func LimitsFor(memory, openFiles uint64) Limits {
	memory = known(memory)
	if openFiles == 0 {
		openFiles = unknownFiles
	}
	forConns := openFiles - min(openFiles/fileShare, maxOtherFiles)
	return Limits{
		Conns:  int(max(MinConns, min(forConns, memory/memoryShare/connBytes))),
		Memory: int64(max(MinMemory, memory/memoryShare)),
	}
}

// Natives returns how many natives are kept connected beside those that the operator named.
func (l Limits) Natives() int {
	return min(max(min(l.Conns, l.streams())/nativesShare, minNatives), ports.MaxFollowed)
}

func (l Limits) inbound() int { return l.Conns - l.Conns/outboundShare }
func (l Limits) perSite() int {
	if l.PerSite > 0 {
		return l.PerSite
	}
	return max(l.Conns/ipShare, min(siteConns, l.Conns/smallShare))
}

// site returns the site that ip counts for; an invalid one if it is not counted.
func (l Limits) site(ip netip.Addr) netip.Prefix {
	if ip.IsLoopback() && l.CountLoopback {
		site, _ := ip.Prefix(ip.BitLen())
		return site
	}
	return sites.Counted(ip)
}

func (l Limits) highWater() int { return l.Conns * highWaterEighths / 8 }
func (l Limits) lowWater() int  { return l.Conns * lowWaterEighths / 8 }
func (l Limits) streams() int   { return int(l.Memory / streamBytes) }

// resourceManager makes the manager that refuses what exceeds l, and tells m if not nil.
func (l Limits) resourceManager(m *metrics) (network.ResourceManager, error) {
	opts := []rcmgr.Option{
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: sites.Prefix4, ConnCount: l.perSite()}, {PrefixLength: sites.Wide4, ConnCount: 2 * l.perSite()}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: sites.Prefix6, ConnCount: l.perSite()}, {PrefixLength: sites.Wide6, ConnCount: 2 * l.perSite()}},
		),
		rcmgr.WithConnRateLimiters(l.connRate()),
		rcmgr.WithMetricsDisabled(),
	}
	if l.CountLoopback {
		opts = append(opts, rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{}, []rcmgr.NetworkPrefixLimit{}))
	}
	if m == nil {
		return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(l.concrete()), opts...)
	}
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(l.concrete()), append(opts, rcmgr.WithMetrics(m))...)
	if err != nil {
		return nil, err
	}
	return m.watch(manager), nil
}

// concrete returns l as the resource manager has it. What is not named here, such as
// libp2p's own services, keeps the limits that libp2p would give it.
func (l Limits) concrete() rcmgr.ConcreteLimitConfig {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)

	all := part(l, 1)
	all.ConnsInbound = rcmgr.LimitVal(l.inbound())
	transient := part(l, transientShare)
	// Whoever is in its handshake is about to be identified.
	identified := streamLimits(l.streams() / transientShare)
	protocols := map[protocol.ID]rcmgr.ResourceLimits{identify.ID: identified, identify.IDPush: identified}
	for proto, n := range l.ofProtocols() {
		protocols[proto] = streamLimits(n)
	}
	scaled := defaults.Scale(l.Memory, l.Conns)
	// Natives gossip, and ask each other's DHT, on a stream each way. Indexers and readers have what libp2p
	// gives a protocol.
	others := scaled.ToPartialLimitConfig().ProtocolDefault
	others.StreamsInbound += rcmgr.LimitVal(l.Natives())
	others.StreamsOutbound += rcmgr.LimitVal(l.Natives())
	others.Streams += rcmgr.LimitVal(2 * l.Natives())
	others.Memory += rcmgr.LimitVal64(2*l.Natives()) * streamBytes
	return rcmgr.PartialLimitConfig{
		System:    all,
		Transient: transient,
		PeerDefault: rcmgr.ResourceLimits{
			Conns: peerConns, ConnsInbound: peerConns, ConnsOutbound: peerConns, FD: peerConns,
			Streams: peerStreams, StreamsInbound: peerStreams, StreamsOutbound: peerStreams,
			Memory: peerStreams * streamBytes,
		},
		ProtocolDefault:     others,
		ProtocolPeerDefault: streamLimits(peerProtocolStreams),
		Protocol:            protocols,
		Service:             map[string]rcmgr.ResourceLimits{identify.ServiceName: identified},
	}.Build(scaled)
}

// ofProtocols returns how many streams each of this product's protocols may have.
func (l Limits) ofProtocols() map[protocol.ID]int {
	return map[protocol.ID]int{
		ports.SubscribeProtocol: l.streams() / 2, // registrations may use half of all
		ports.HeartbeatProtocol: l.streams() / 2, // each indexer has one where leases are short
		ports.LookupProtocol:    l.streams() / 4,
		ports.LeaveProtocol:     l.streams() / 8,
		ports.WatchProtocol:     l.streams() / 4, // which has a limit of its own, and says so
		ports.FollowProtocol:    l.streams() / 2, // two of each native, one each way
	}
}

// part is one in share of all that l allows.
func part(l Limits, share int) rcmgr.ResourceLimits {
	conns := rcmgr.LimitVal(l.Conns / share)
	limits := streamLimits(l.streams() / share)
	limits.Conns, limits.ConnsInbound, limits.ConnsOutbound, limits.FD = conns, conns, conns, conns
	return limits
}

// streamLimits allows n streams, whichever side opens them.
func streamLimits(n int) rcmgr.ResourceLimits {
	streams := rcmgr.LimitVal(n)
	return rcmgr.ResourceLimits{
		Streams: streams, StreamsInbound: streams, StreamsOutbound: streams,
		Memory: rcmgr.LimitVal64(n) * streamBytes,
	}
}

// connRate bounds how fast a site may dial: all of it at once, as after a native's
// restart, then all of it again in each redialPeriod. Loopback is free, as it is for
// the number of connections.
func (l Limits) connRate() *rate.Limiter {
	limit := func(bits, conns int) rate.SubnetLimit {
		return rate.SubnetLimit{PrefixLength: bits, Limit: rate.Limit{RPS: float64(conns) / redialPeriod.Seconds(), Burst: conns}}
	}
	var free []rate.PrefixLimit
	if !l.CountLoopback {
		for _, prefix := range slices.Concat(rcmgr.DefaultNetworkPrefixLimitV4, rcmgr.DefaultNetworkPrefixLimitV6) {
			free = append(free, rate.PrefixLimit{Prefix: prefix.Network})
		}
	}
	return &rate.Limiter{
		NetworkPrefixLimits: free,
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{limit(sites.Prefix4, l.perSite()), limit(sites.Wide4, 2*l.perSite())},
			IPv6SubnetLimits: []rate.SubnetLimit{limit(sites.Prefix6, l.perSite()), limit(sites.Wide6, 2*l.perSite())},
			GracePeriod:      redialPeriod,
		},
	}
}

// connManager makes the manager that closes the idlest connections before l is reached.
func (l Limits) connManager() (*connmgr.BasicConnMgr, error) {
	return connmgr.NewConnManager(l.lowWater(), l.highWater(), connmgr.WithGracePeriod(connGrace))
}
