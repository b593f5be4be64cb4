package modules

import (
	"cmp"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/opencloud/ocnode/adapters/admission"
	"github.com/opencloud/ocnode/adapters/kaddht"
	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

type limitsSection struct {
	Connections        int `koanf:"connections" help:"connections at once; 0 takes what open files and memory allow"`
	ConnectionsPerSite int `koanf:"connections-per-site" help:"connections from one IPv4 address or IPv6 /56, twice as many from a /24 or /48; 0 takes a share"`
	StreamMemory       int `koanf:"stream-memory" help:"MiB that streams may be accounted for; 0 takes a quarter of the memory"`
	Registrations      int `koanf:"registrations" help:"registrations of one identity in a heartbeat; 0 is any number"`
	IdentitiesPerSite  int `koanf:"identities-per-site" help:"identities with a lease from one IPv4 address or IPv6 /56, twice as many from a /24 or /48; 0 is any number"`
	Entries            int `koanf:"entries" help:"entries of the live table, whoever granted their leases, some 1.2 KiB each; 0 takes a quarter of the memory"`
	Unfound            int `koanf:"unfound" help:"PeerIDs looked up that were never found, beyond the number of live entries"`
	DHTMemory          int `koanf:"dht-memory" help:"MiB of the DHT's records that are held"`
	Watchers           int `koanf:"watchers" help:"watches over libp2p at once, other natives' among them; 8 of one peer"`
}

// limitsComments are the comments on limitsSection in a configuration file.
var limitsComments = map[string]Comment{
	"": {Text: "What others can make this node do and hold at most. Whoever comes new is refused (busy) before anybody " +
		"who is here already, and each refusal is counted in /metrics. With these, 5,000 indexers behind one address are " +
		"admitted, and so are 5,000 behind 250. Loopback is exempt from what bounds a site."},
	"connections": {Text: "Connections at once, a file and some 128 KiB of memory each. 0: as many as the open-file limit and a " +
		"quarter of the memory allow."},
	"connections-per-site": {Text: "Connections from one IPv4 address or IPv6 /56, and new ones in a minute; from one /24 or /48 twice as many. " +
		"0: a quarter of all, or 5,500 as far as half of all goes."},
	"stream-memory": {Text: "MiB that streams, with the frames on them, may be accounted for, 256 KiB each. 0: a quarter of the memory. One peer may " +
		"have 64 streams of a protocol."},
	"registrations":       {Text: "Registrations and leaves of one identity in a heartbeat, all at once if it likes; it needs one, and some for retries. 0: any number."},
	"identities-per-site": {Text: "Identities that hold a lease here, or left in the last TTL, from one IPv4 address or IPv6 /56; from one /24 or /48 twice as many. 0: any number."},
	"entries": {Text: "Entries of the live table, some 1.2 KiB of memory each if the indexers sign. 0: as many as a quarter of the memory holds. " +
		"A peer by whose word the table fills has an eighth, unless trust.natives or host.bootstrap names it. What it fills gives way to indexers " +
		"that register here."},
	"unfound": {Text: "PeerIDs that are looked up since others told of them, and that were not found, beyond the number of live " +
		"entries. The oldest gives way."},
	"dht-memory": {Text: "MiB of the DHT's records that this node holds for the network. When it is used up, any record gives way to a new one."},
}

// limitsModule bounds what others can make a node do. Each limit is kept where it is
// met; here they are read.
var limitsModule = Module{
	Name:    "limits",
	Summary: "what others can make a node do and hold at most",
	Always:  true,
	Section: limitsSection{
		Registrations:     admission.DefaultRegistrations,
		IdentitiesPerSite: admission.DefaultIdentities,
		Unfound:           domain.DefaultUnfound,
		DHTMemory:         kaddht.DefaultMaxBytes >> 20,
		Watchers:          stream.DefaultWatchers,
	},
	Comments: limitsComments,
	Check: func(p *Plan) {
		s := Settings[limitsSection](p, "limits")
		for _, key := range []struct {
			name       string
			value, min int
			zero       string // what 0 means, "" if it is too little
			max        int
		}{
			{"connections", s.Connections, libp2phost.MinConns, "to take what open files and memory allow", 1 << 24},
			{"connections-per-site", s.ConnectionsPerSite, 1, "to take a share of all", 1 << 24},
			{"stream-memory", s.StreamMemory, libp2phost.MinMemory >> 20, "to take a quarter of the memory", 1 << 20},
			{"registrations", s.Registrations, 1, "for any number", 1 << 24},
			{"identities-per-site", s.IdentitiesPerSite, 1, "for any number", 1 << 24},
			{"entries", s.Entries, 1, "to take a quarter of the memory", 1 << 27},
			{"unfound", s.Unfound, 1, "", 1 << 24},
			{"dht-memory", s.DHTMemory, 1, "", 1 << 20},
			{"watchers", s.Watchers, 1, "", 1 << 20},
		} {
			switch ok := key.min <= key.value && key.value <= key.max; {
			case ok, key.value == 0 && key.zero != "":
			case key.zero != "":
				p.Mistake("limits."+key.name, "%d is out of range; want %d to %d, or 0 %s", key.value, key.min, key.max, key.zero)
			default:
				p.Mistake("limits."+key.name, "%d is out of range; want %d to %d", key.value, key.min, key.max)
			}
		}
	},
	Wire: Provide(newHostLimits, newDoor),
}

const (
	// entryShare is the part of the memory that the live table may take, one in so many: the network
	// has two such parts, and the collector needs the rest.
	entryShare = 4
	// entryBytes is what an entry is reckoned at. A signed one takes 300 bytes (docs/benchmarks.md). Labels,
	// the leases of two more natives, and what is kept of each that tells it take some 150 more.
	entryBytes = 512
)

// entries returns limits.entries on a machine with so many bytes of memory.
func entries(set int, memory uint64) int {
	return cmp.Or(set, int(memory/entryShare/entryBytes))
}

// newHostLimits derives from the machine what is not set.
func newHostLimits(p *Plan, env Environment) libp2phost.Limits {
	s := Settings[limitsSection](p, "limits")
	l := libp2phost.DefaultLimits()
	if s.Connections > 0 {
		l.Conns = s.Connections
	}
	if s.StreamMemory > 0 {
		l.Memory = int64(s.StreamMemory) << 20
	}
	l.PerSite, l.CountLoopback = s.ConnectionsPerSite, env.CountLoopback
	return l
}

// newDoor guards the native of this node, if it is one.
func newDoor(p *Plan, h host.Host, rules domain.Rules, observer ports.Observer, env Environment, closers *Closers) (stream.Door, error) {
	limits, times := Settings[limitsSection](p, "limits"), Settings[registrySection](p, "registry")
	gate, err := admission.NewGate(admission.Config{
		TTL: times.TTL, Heartbeat: times.Heartbeat,
		Registrations: limits.Registrations, Identities: limits.IdentitiesPerSite, CountLoopback: env.CountLoopback,
		Leased: func(id ports.PeerID, leased bool) { libp2phost.Keep(h, id, leased) },
	})
	if err != nil {
		return nil, err
	}
	back, err := libp2phost.NewWayBack(h)
	if err != nil {
		return nil, err
	}
	addresses, err := admission.NewAddresses(admission.Policy(Settings[trustSection](p, "trust").Addresses), back, observer)
	if err != nil {
		return nil, err
	}
	addresses.SetSlack(times.TTL - times.Heartbeat)
	closers.Add(func() error { addresses.Close(); return nil })
	return admission.Door{Gate: gate, Addresses: addresses, Read: rules.Proofs.Read}, nil
}
