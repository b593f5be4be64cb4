package modules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencloud/ocnode/adapters/libp2phost"
	"github.com/opencloud/ocnode/modules/config"
)

// withoutNative are the keys whose default is another one on a node that is no native.
// A file that sets them to their default says something else than one that does not.
var withoutNative = map[string]any{"host.listen": freePorts, "http.listen": freeHTTP}

// order is the order of a file's sections, those that most people set first. The
// sections that are not named here follow.
var order = []string{"modules", "data", "host", "registry", "indexer", "dht", "gossip", "trust", "http", "limits", "log"}

// comments are what a file says of its sections and keys. A key that is not here has
// what its tag `help` says.
var comments = map[string]string{
	"modules":        "What this node is. --modules native,dht,gossip replaces all of them.",
	"modules.native": "Take registrations, keep the live table, answer who is alive. On for a shared, long-lived node.",
	"modules.indexer": "Register this node at indexer.natives, or at three natives that it finds, and keep the leases " +
		"there. On for whoever wants to be found.",
	"modules.dht":    "Store entries in a Kademlia DHT, so that they outlive their native. Off: in memory, for a native alone.",
	"modules.gossip": "Tell the other natives who is alive, and hear them. Only for a native, and of use with dht.",
	"modules.mdns": "Find natives on the local network by multicast DNS, and have a native found there: no address of " +
		"anybody is needed then.",

	"data.dir": "The folder of identity.key, which is who this node is: keep it, and keep it secret. It is made if " +
		"it is missing, and locked: each node on a machine needs its own.",

	"host.listen": "Multiaddrs to listen on, TCP or QUIC; port 0 takes a free one. Each of them must be bound, or the " +
		"node stops. Left out, as here, a native takes these, as far as the machine has IPv4 and IPv6, and " +
		"any other node takes free ports.",
	"host.announce": "Multiaddrs to tell others instead of those bound: set it behind NAT, in a container, or for a DNS " +
		"name, e.g. [/dns4/native-a.example/tcp/4101].",
	"host.bootstrap": "Peers to join the network through, mostly other natives: multiaddrs that end in /p2p/<PeerID>, or " +
		"/dnsaddr/<name>. With none, a native waits to be joined.",
	"host.psk": "The file of a private network's key, which `ocnode key psk FILE` makes: the same on every node and for " +
		"nobody else to read. Only who has it is spoken with, and over TCP only. \"\" for a network that is open to all.",

	"registry":     "The times of the network, 10ms to 30m each.",
	"registry.ttl": "How long an entry lives after its indexer's last heartbeat. Longer than heartbeat, and the same on every node of the network.",
	"registry.heartbeat": "How often an indexer renews, at most; a native tells it to those that it grants a lease. Shorter " +
		"notices a death sooner, at the cost of a DHT put for each.",
	"registry.refresh": "How often a native looks up whom it knows and cannot show alive. Shorter than ttl.",

	"indexer.natives": "The natives to register with, two or three for when one dies: multiaddrs that end in /p2p/<PeerID>, " +
		"as a native's log and `ocnode status` print them. With none, it takes three of those that it finds through " +
		"host.bootstrap, the DHT and mdns, and replaces one that does not answer. A node that is a native too " +
		"registers with itself then.",
	"indexer.meta": "What else to publish about this indexer, e.g. {zone: eu-1, version: 1.4.2}. At most 64 names, 1 KiB in all, and for everyone to read.",

	"dht.prefix": "The prefix of the DHT's protocol, the same on every node; another one is another network.",

	"gossip.topic": "The GossipSub topic of the registry, the same on every native.",

	"trust": "Whom this node trusts: with a list, the network is closed to all others. An item is a PeerID, as `ocnode id` " +
		"prints it, or file:<path> with one a line, where # begins a comment. The node itself need not be named. " +
		"Both lists, with their files, and plain are read again while the node runs: kill -HUP.",
	"trust.indexers": "The indexers whose registrations a native takes and lists, e.g. [file:/etc/ocnode/indexers]. With " +
		"none, everybody's. Looking up and watching is for everyone, on the list or not.",
	"trust.natives": "The natives of the network, and nodes that only hold its DHT; the same on every node. They alone " +
		"may store and announce, follow each other, and be registered with. With none, everybody.",
	"trust.plain": "What is believed of indexers that do not sign. accept: what natives and the DHT say of them, which in a network " +
		"with trust.natives are the natives on that list, and else anybody. refuse: this native takes and believes only what the " +
		"indexer itself has signed. Set it once every indexer signs, as ocnode does.",

	"http.listen": "host:port of HTTP (health, metrics, who is alive), or \"\" for none. It has no TLS: leave it on " +
		"loopback, or put a proxy before it; beyond loopback it must have a token. Left out, as here, a native takes " +
		"this one, and any other node a free port, which its log's ready line names.",
	"http.token": "The file of the token that every request must bring (Authorization: Bearer …) but those to /healthz and " +
		"/readyz: 16 to 4096 bytes on one line, for nobody else to read. (umask 077; openssl rand -hex 32 >FILE) makes one.",
	"http.hosts": "Names, without a port, by which HTTP may be asked beside localhost, the node's own addresses and the host of " +
		"http.listen, such as that of a proxy or a Service: any other is refused, so that no web page reads it under a name of its own.",

	"trust.addresses": "Which addresses an indexer has to be shown to have, so that nobody sends others to a victim: its " +
		"IP is the one that the registration came from, or this native has dialled it and found the indexer there. auto: of " +
		"indexers that come from the internet, public addresses and names; of those on private networks none. lan: of " +
		"everyone, public addresses alone. internet: of everyone, and no private, loopback or relay address is listed. any: none. " +
		"An address that is not shown is left out; if it is the first, the indexer is refused.",

	"limits": "What others can make this node do and hold at most. Whoever comes new is refused (busy) before anybody " +
		"who is here already, and each refusal is counted in /metrics. With these, 5,000 indexers behind one address are " +
		"admitted, and so are 5,000 behind 250. Loopback is exempt from what bounds a site.",
	"limits.connections": "Connections at once, a file and some 128 KiB of memory each. 0: as many as the open-file limit and a " +
		"quarter of the memory allow.",
	"limits.connections-per-site": "Connections from one IPv4 address or IPv6 /56, and new ones in a minute; from one /24 or /48 twice as many. " +
		"0: a quarter of all, or 5,500 as far as half of all goes.",
	"limits.stream-memory": "MiB that streams, with the frames on them, may be accounted for, 256 KiB each. 0: a quarter of the memory. One peer may " +
		"have 64 streams of a protocol.",
	"limits.registrations":       "Registrations and leaves of one identity in a heartbeat, all at once if it likes; it needs one, and some for retries. 0: any number.",
	"limits.identities-per-site": "Identities that hold a lease here, or left in the last TTL, from one IPv4 address or IPv6 /56; from one /24 or /48 twice as many. 0: any number.",
	"limits.entries":             "Entries of the live table, whoever granted their leases, some 300 bytes each.",
	"limits.unfound": "PeerIDs that are looked up since others told of them, and that were not found, beyond the number of live " +
		"entries. The oldest gives way.",
	"limits.dht-memory": "MiB of the DHT's records that this node holds for the network. When it is used up, any record gives way to a new one.",
	"limits.watchers":   "Watches over libp2p at once, other natives' among them; 8 of one peer.",

	"log.level": "What is logged at least: debug, info, warn or error. It goes to standard error.",
	"log.levels": "Other levels for single subsystems, e.g. {dht: debug, libp2p: warn}. Each line names its own as \"logger\": " +
		"node, host, stream, registry, indexer, dht, gossip, mdns, http, fx, and of the libraries libp2p, kad-dht, pubsub, " +
		"other. Left out, the first three libraries are heard from error on, unless level is debug. Both levels can " +
		"be changed while the node runs: kill -HUP.",
	"log.format": "text for people, json for machines.",
}

// howRead is what every file says of how it is read.
const howRead = "ocnode reads config.yaml in the folder that it is started in, or the file that --config or OCNODE_CONFIG " +
	"names. A variable (OCNODE_REGISTRY__TTL=90s) goes over the file, a flag (--registry.ttl 90s) over both. " +
	"An unknown key is an error. Durations have a unit: 500ms, 66s, 5m. `ocnode config check` tells all that is " +
	"wrong, `ocnode config show --origin` what counts in the end and why."

// leftOut begins what a comment says of a key that is commented out.
const leftOut = " Left out, as here,"

// commentsWithoutNative are those for a node that is no native. They go before all others.
var commentsWithoutNative = map[string]string{
	"host.listen": "Multiaddrs to listen on, TCP or QUIC; port 0 takes a free one. Each of them must be bound, or the " +
		"node stops. Left out, as here, these are taken, as far as the machine has IPv4 and IPv6.",
	"http.listen": "host:port of HTTP (health, metrics), or \"\" for none. It has no TLS: leave it on loopback, or put a " +
		"proxy before it; beyond loopback it must have a token. Left out, as here, it takes a free port, which the log's " +
		"ready line names.",
}

// role is what a node is there for. The zero role is anything.
type role struct {
	name string
	// on are the toggles of ocnode's own modules; those of others are at their default.
	on map[string]bool
	// first are sections that come before those of order.
	first []string
	// uses are the modules that use a section or key, which is left out if its is off.
	uses  map[string]string
	about string
	// comments go before the common ones.
	comments map[string]string
}

var roles = []role{
	{
		name: "native",
		on:   map[string]bool{"native": true, "indexer": false, "dht": true, "gossip": true, "mdns": false},
	},
	{
		name:  "indexer",
		on:    map[string]bool{"native": false, "indexer": true, "dht": false, "gossip": false, "mdns": false},
		first: []string{"modules", "indexer"},
		uses:  map[string]string{"registry.refresh": "native", "trust.indexers": "native", "trust.addresses": "native", "dht": "dht", "gossip": "gossip", "limits": "native"},
		about: "The settings of an indexer. What only natives have a use for is left out; `ocnode config init --role native -` " +
			"prints that too.",
		comments: map[string]string{
			"indexer.natives": "The natives to register with, two or three for when one dies: multiaddrs that end in /p2p/<PeerID>, " +
				"as a native's log and `ocnode status` print them. Or give one of these addresses as host.bootstrap instead: " +
				"then three natives are taken of those that are found through it, and replaced when they die.\n\n" +
				"   natives:\n" +
				"     - /dns4/a.example/tcp/4101/p2p/12D3KooW…\n" +
				"     - /dns4/b.example/tcp/4101/p2p/12D3KooW…",
			"host.announce": "Multiaddrs to tell others instead of those bound: set it behind NAT, in a container, or for a DNS " +
				"name, e.g. [/dns4/indexer-a.example/tcp/4101].",
			"host.bootstrap": "Natives to find others through, if indexer.natives pins none: multiaddrs that end in /p2p/<PeerID>, " +
				"or /dnsaddr/<name>. One is enough; with dht on, those that it does not tell of are found too.",
		},
	},
}

// Roles returns the names of the roles.
func Roles() []string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.name
	}
	return names
}

// roleOf returns the role of a node: the one of the roles that is on, and the zero role
// if that is none or more than one.
func roleOf(on map[string]bool) role {
	var of role
	for _, r := range roles {
		switch {
		case !on[r.name]:
		case of.name != "":
			return role{}
		default:
			of = r
		}
	}
	return of
}

// Draft is a file to begin with.
type Draft struct {
	Text string
	// Role is the one that it is for, "" if that is none of Roles, or several.
	Role string
	// Open are the keys that somebody still has to fill in.
	Open []string
}

// NewDraft writes a file for a role, or, if that is "", for what the toggles make of the
// node: every key of use, with what the flags of src say or else its default, and what
// it is for. The error is that of Load, or a *config.Error with what does not add up.
func NewDraft(list []Module, name string, src config.Sources) (Draft, error) {
	var r role
	if name != "" {
		i := slices.IndexFunc(roles, func(r role) bool { return r.name == name })
		if i < 0 {
			return Draft{}, fmt.Errorf("%q is no role; the roles are %s", name, strings.Join(Roles(), " and "))
		}
		r = roles[i]
	}
	schema := Schema(list)
	// As variables, the role's toggles are over the defaults and below the flags.
	for _, key := range schema.Keys() {
		if on, ok := r.on[strings.TrimPrefix(key.Name, "modules.")]; ok && strings.HasPrefix(key.Name, "modules.") {
			src.Environ = append(slices.Clip(src.Environ), fmt.Sprintf("%s=%t", key.Env(), on))
		}
	}
	cfg, err := schema.Load(src)
	if cfg == nil {
		return Draft{}, err
	}
	if name == "" {
		r = roleOf(cfg.Modules())
	}
	draft := Draft{Text: r.document(cfg).String(), Role: r.name}
	_, err = NewPlan(list, cfg)
	var all *config.Error
	if errors.As(err, &all) {
		var wrong []config.Mistake
		for _, m := range all.Mistakes {
			if m.Key == "indexer.natives" && !cfg.IsSet(m.Key) {
				draft.Open = append(draft.Open, m.Key)
			} else {
				wrong = append(wrong, m)
			}
		}
		err = config.NewError(wrong)
	}
	if err != nil {
		return Draft{}, err
	}
	return draft, nil
}

func (r role) document(cfg *config.Config) config.Document {
	given := func(key string) bool { return cfg.Origin(key).Layer == config.Flag }
	on := cfg.Modules()
	useless := func(name string) bool {
		module, ok := r.uses[name]
		return ok && !on[module]
	}
	texts := []map[string]string{r.comments, comments}
	if !on["native"] {
		texts = append([]map[string]string{commentsWithoutNative}, texts...)
	}
	d := config.Document{Comment: r.about}
	if d.Comment == "" {
		d.Comment = "Every setting of ocnode at its default: this file changes nothing until you do."
		if slices.ContainsFunc(cfg.Keys(), func(k config.Key) bool { return given(k.Name) }) {
			d.Comment = "Every setting of ocnode, at its default where `ocnode config init` was told nothing else."
		}
	}
	d.Comment += "\n\n" + howRead
	for _, section := range Effective(cfg, r.first...) {
		part := config.Part{Section: section.Name, Comment: commentOn(section.Name, "", texts)}
		for _, s := range section.Settings {
			name := s.Key.Name
			if (useless(section.Name) || useless(name)) && !given(name) {
				continue
			}
			comment := commentOn(name, s.Key.Help, texts)
			if !s.Left {
				comment, _, _ = strings.Cut(comment, leftOut)
			}
			part.Lines = append(part.Lines, config.Line{Key: s.Key, Value: s.Value, Comment: comment, Aside: s.Left})
		}
		if len(part.Lines) > 0 {
			d.Parts = append(d.Parts, part)
		}
	}
	return d
}

// commentOn returns the first of the texts on a key or section, help if there is none.
func commentOn(name, help string, texts []map[string]string) string {
	for _, of := range texts {
		if text, ok := of[name]; ok {
			return text
		}
	}
	if help == "" {
		return ""
	}
	return strings.ToUpper(help[:1]) + help[1:] + "."
}

// Setting is a key as a node has it.
type Setting struct {
	Key   config.Key
	Value any
	// Origin is where the value comes from.
	Origin string
	// Left marks a key that is better not set to this value: while nobody sets it, the
	// value depends on what else the node is.
	Left bool
}

// Section is the settings of one section.
type Section struct {
	Name     string
	Settings []Setting
}

// effective returns the value of a key as the node of cfg has it. It depends on what
// else the node is while nobody sets the key.
func effective(cfg *config.Config, key string) (value any, depends bool) {
	value = cfg.Value(key)
	other, depends := withoutNative[key]
	if !depends || cfg.IsSet(key) {
		return value, false
	}
	if !cfg.Modules()["native"] {
		value = other
	}
	if addrs, ok := value.([]string); ok && cfg.Value("host.psk") != "" {
		value = slices.DeleteFunc(slices.Clone(addrs), func(addr string) bool { return libp2phost.CheckPrivate(addr) != nil })
	}
	return value, true
}

// Effective returns every key as the node of cfg has it, in the order of config.yaml,
// with these sections first.
func Effective(cfg *config.Config, first ...string) []Section {
	var sections []Section
	for _, key := range cfg.Keys() {
		name, _, _ := strings.Cut(key.Name, ".")
		s := Setting{Key: key, Origin: cfg.Origin(key.Name).String()}
		if s.Value, s.Left = effective(cfg, key.Name); s.Left && !cfg.Modules()["native"] {
			s.Origin += " without native"
		}
		i := slices.IndexFunc(sections, func(s Section) bool { return s.Name == name })
		if i < 0 {
			i = len(sections)
			sections = append(sections, Section{Name: name})
		}
		sections[i].Settings = append(sections[i].Settings, s)
	}
	rank := func(s Section) int {
		for i, name := range append(slices.Clone(first), order...) {
			if name == s.Name {
				return i
			}
		}
		return len(first) + len(order)
	}
	slices.SortStableFunc(sections, func(a, b Section) int { return rank(a) - rank(b) })
	return sections
}
