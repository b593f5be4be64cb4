package modules

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencloud/ocnode/adapters/admission"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"go.uber.org/fx"
)

const (
	// listFile begins an item that is the path of a file with PeerIDs, of which none has a ":".
	listFile = "file:"
	// maxListBytes bounds such a file: some 19,000 PeerIDs, each on a line of its own.
	maxListBytes = 1 << 20
	// maxToldOfLine bounds, in bytes, what is told of a wrong line.
	maxToldOfLine = 16
	// maxWrongLines is how many wrong lines of one file are told: enough to see what it is.
	maxWrongLines = 10
)

type trustSection struct {
	Indexers  []string `koanf:"indexers" live:"true" help:"the indexers that a native takes: PeerIDs, or file:<path> with one a line; with none, everybody"`
	Natives   []string `koanf:"natives" live:"true" help:"the natives of the network: PeerIDs, or file:<path> with one a line; with none, everybody"`
	Addresses string   `koanf:"addresses" help:"which addresses an indexer must be shown to have: auto, lan, internet or any"`
	Plain     string   `koanf:"plain" live:"true" help:"what is believed of indexers that do not sign: accept or refuse"`
}

// trustComments are the comments on trustSection in a configuration file.
var trustComments = map[string]Comment{
	"": {Text: "Whom this node trusts: with a list, the network is closed to all others. An item is a PeerID, as `ocnode id` " +
		"prints it, or file:<path> with one a line, where # begins a comment. The node itself need not be named. " +
		"Both lists, with their files, and plain are read again while the node runs: kill -HUP."},
	"indexers": {Text: "The indexers whose registrations a native takes and lists, e.g. [file:/etc/ocnode/indexers]. With " +
		"none, everybody's. Looking up and watching is for everyone, on the list or not."},
	"natives": {Text: "The natives of the network, and nodes that only hold its DHT; the same on every node. They alone " +
		"may store and announce, follow each other, and be registered with. With none, everybody."},
	"addresses": {Text: "Which addresses an indexer has to be shown to have, so that nobody sends others to a victim: its " +
		"IP is the one that the registration came from, or this native has dialled it and found the indexer there. auto: of " +
		"indexers that come from the internet, public addresses and names; of those on private networks none. lan: of " +
		"everyone, public addresses alone. internet: of everyone, and no private, loopback or relay address is listed. any: none. " +
		"An address that is not shown is left out; if it is the first, the indexer is refused."},
	"plain": {Text: "What is believed of indexers that do not sign. accept: what natives and the DHT say of them, which in a network " +
		"with trust.natives are the natives on that list, and else anybody. refuse: this native takes and believes only what the " +
		"indexer itself has signed. Set it once every indexer signs, as ocnode does."},
}

var trustModule = Module{
	Name:     "trust",
	Summary:  "whom this node trusts, in a closed network",
	Always:   true,
	Section:  trustSection{Indexers: []string{}, Natives: []string{}, Addresses: string(admission.PolicyAuto), Plain: string(domain.PlainAccept)},
	Comments: trustComments,
	Check: func(p *Plan) {
		s := Settings[trustSection](p, "trust")
		switch domain.Plain(s.Plain) {
		case "", domain.PlainAccept, domain.PlainRefuse: // config init used to leave it empty
		default:
			p.Mistake("trust.plain", "%q is neither accept nor refuse; left out, it is accept", s.Plain)
		}
		if !slices.Contains(admission.Policies, admission.Policy(s.Addresses)) {
			p.Mistake("trust.addresses", "%q is none of auto, lan, internet and any; auto asks indexers from the internet alone to show theirs", s.Addresses)
		}
		p.readRoster("trust.indexers", s.Indexers)
		if !p.readRoster("trust.natives", s.Natives) {
			return
		}
		natives := p.roster("trust.natives")
		listed := func(addr string) error {
			if id := nativeAt(addr); id != "" && !natives.names(id) {
				return fmt.Errorf("%q is the address of a node that is not in trust.natives: add %s there, or leave the address out", addr, id)
			}
			return nil
		}
		p.CheckItems("indexer.natives", Settings[indexerSection](p, "indexer").Natives, listed)
		p.CheckItems("host.bootstrap", Settings[hostSection](p, "host").Bootstrap, listed)
	},
	Wire: func(*Plan) fx.Option {
		return fx.Options(fx.Provide(newTrusted), fx.Invoke(sayOpen))
	},
}

// sayOpen says what an open network means, at the start and whenever it is opened.
func sayOpen(p *Plan, t *trusted, log *slog.Logger, tasks *Tasks) {
	if !p.On("native") {
		return
	}
	log = log.With(loggerKey, loggerRegistry)
	say := func() {
		log.Info("this network is open: what any native or DHT server says of an indexer that does not sign is believed",
			"hint", "to close it, name the natives in trust.natives")
	}
	t.revise(func(was *trust) {
		if t.now.Load().open() && !was.open() {
			say()
		}
	})
	tasks.Run("trust", func() error {
		if t.now.Load().open() {
			say()
		}
		return nil
	}, nil)
}

// nativeAt returns whose address it is, "" if it does not say.
func nativeAt(addr string) ports.PeerID {
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return ""
	}
	_, id := peer.SplitAddr(m)
	if id == "" {
		return ""
	}
	return ports.PeerID(id.String())
}

// roster is whom a list names. A nil one is that of an empty list, and names everybody.
type roster map[ports.PeerID]bool

func (r roster) names(id ports.PeerID) bool { return r == nil || r[id] }

// roster returns whom a key names, as its files did when they were read.
func (p *Plan) roster(key string) roster {
	r, _ := p.contents[key].(roster)
	return r
}

// readRoster reads the items of a list, and reports whether it found them right.
func (p *Plan) readRoster(key string, items []string) (ok bool) {
	if len(items) == 0 {
		return !p.config.Malformed(key)
	}
	r, ok := roster{}, true
	p.CheckItems(key, items, func(item string) (err error) {
		if path, is := strings.CutPrefix(item, listFile); is {
			err = r.readFile(path)
		} else if id, wrong := ParsePeerID(item); wrong == nil {
			r[id] = true
		} else {
			err = fmt.Errorf("%.200q is neither a PeerID, such as 12D3KooW…, nor a file of them, such as %s/etc/ocnode/%s", item, listFile, strings.TrimPrefix(key, "trust."))
		}
		ok = ok && err == nil
		return err
	})
	if p.contents == nil {
		p.contents = make(map[string]any)
	}
	p.contents[key] = r
	return ok
}

// readFile adds the PeerIDs in a file. Of a file that names nobody the network would be
// open, which nobody means who names a file.
func (r roster) readFile(path string) error {
	text, err := readListFile(path)
	if err != nil {
		return err
	}
	var wrong []error
	named := 0
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxListBytes+1) // a line may be all of it
	for number := 1; lines.Scan(); number++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		named++
		id, err := ParsePeerID(line)
		switch {
		case err == nil:
			r[id] = true
		case len(wrong) == maxWrongLines:
			return errors.Join(append(wrong, fmt.Errorf("%s:%d: and more from here on; mend these first", path, number))...)
		default:
			if len(line) > maxToldOfLine { // it may be the wrong file, and a key
				line = line[:maxToldOfLine/2] + "…"
			}
			wrong = append(wrong, fmt.Errorf("%s:%d: %q is not a PeerID, such as 12D3KooW…; each line has one, and what follows a # is a comment", path, number, line))
		}
	}
	if named == 0 {
		return fmt.Errorf("%s names no PeerID: add one, or take the file off the list; an empty list trusts everybody", path)
	}
	return errors.Join(wrong...)
}

// readListFile returns what is in a file. A pipe would hold up whoever reads it.
func readListFile(path string) ([]byte, error) {
	const name = "name a text file with one PeerID a line"
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file; %s", path, name)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, name)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, name)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxListBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; %s", err, name)
	case len(text) > maxListBytes:
		return nil, fmt.Errorf("%s is larger than %d bytes; %s", path, maxListBytes, name)
	}
	return text, nil
}

// trust is what a plan says of it.
type trust struct {
	indexers, natives roster
	plain             domain.Plain
}

func (p *Plan) trust() *trust {
	plain := cmp.Or(domain.Plain(Settings[trustSection](p, "trust").Plain), domain.PlainAccept)
	return &trust{p.roster("trust.indexers"), p.roster("trust.natives"), plain}
}

// open reports whether every peer's unsigned words count.
func (t *trust) open() bool { return t.plain == domain.PlainAccept && t.natives == nil }

// trusted is whom this node trusts now: itself, and whom the lists name.
type trusted struct {
	self    ports.PeerID
	now     atomic.Pointer[trust]
	revised []func(was *trust)
}

func newTrusted(p *Plan, self ports.PeerID, reloads *Reloads) *trusted {
	t := &trusted{self: self}
	t.now.Store(p.trust())
	reloads.Add(t.take)
	return t
}

// plain is what is believed of indexers that do not sign.
func (t *trusted) plain() domain.Plain { return t.now.Load().plain }

// indexer reports whether a native takes the registrations of id.
func (t *trusted) indexer(id ports.PeerID) bool { return t.in(id, t.now.Load().indexers) }

// native reports whether id is a native of this network.
func (t *trusted) native(id ports.PeerID) bool { return t.in(id, t.now.Load().natives) }

// lists reports whether there is a list of natives that names id.
func (t *trusted) lists(id ports.PeerID) bool {
	natives := t.now.Load().natives
	return natives != nil && natives[id]
}

func (t *trusted) in(id ports.PeerID, r roster) bool { return r.names(id) || id == t.self }

// revise has f called with what was before, once any of it has changed.
func (t *trusted) revise(f func(was *trust)) { t.revised = append(t.revised, f) }

// take takes over what a new plan says.
func (t *trusted) take(p *Plan) {
	now := p.trust()
	was := t.now.Swap(now)
	if reflect.DeepEqual(was, now) {
		return
	}
	for _, f := range t.revised {
		f(was)
	}
}

// nativeChanged reports whether id was a native by the lists from before, and is none any
// more, or the other way round.
func (t *trusted) nativeChanged(was *trust, id ports.PeerID) bool {
	return t.in(id, was.natives) != t.native(id)
}
