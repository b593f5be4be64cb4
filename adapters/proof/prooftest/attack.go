package prooftest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	random "math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Class is a way to make a false proof of a true one, by one change.
type Class string

const (
	Forged         Class = "forged"                  // another address, under the indexer's key and not with it
	Rekeyed        Class = "re-keyed"                // sealed again, with another key
	Replayed       Class = "replayed"                // as it was accepted, before what was accepted since
	RolledBack     Class = "rolled back"             // of the record before, carried on
	TickReused     Class = "tick reused"             // a link of before, for a step to come
	TickGuessed    Class = "tick guessed"            // a link that nobody has
	OthersChain    Class = "chain of another record" // a link of that record's, for this one
	Truncated      Class = "truncated"               // cut short
	BitFlipped     Class = "bit-flipped"
	CrossNamespace Class = "cross-namespace" // signed by the indexer, as something else
	WrongRank      Class = "wrong rank"      // nobody's word, beside the indexer's own
)

// Classes returns all there are.
func Classes() []Class {
	return []Class{
		Forged, Rekeyed, Replayed, RolledBack, TickReused, TickGuessed, OthersChain, Truncated, BitFlipped, CrossNamespace, WrongRank,
	}
}

// Brief is d, or with the race detector a tenth of it, for tests that watch for a long time.
func Brief(d time.Duration) time.Duration {
	if porttest.Raced() {
		return d / 10
	}
	return d
}

// Attacks is how many of each class are tried on each path. The race detector makes a
// signature cost twenty times as much, and finds nothing new in the thousandth.
func Attacks() int { return porttest.Scale(10_000, 300) }

// Victim is an indexer whose word was accepted: first Before, then Now up to Step.
type Victim struct {
	*Signer
	Before, Now Word
	Step        uint32
}

// NewVictim has s say two things, one second apart, the later one at at.
func NewVictim(t testing.TB, s *Signer, at time.Time) *Victim {
	t.Helper()
	return &Victim{
		Signer: s,
		Before: s.Says(t, at.Add(-time.Second), 1, "/ip4/192.0.2.1/tcp/4001"),
		Now:    s.Says(t, at, 2, "/ip4/192.0.2.2/tcp/4001"),
	}
}

// Lie is a false proof, and what it is to be refused for.
type Lie struct {
	Class Class
	// Entry says what the proof seems to.
	Entry ports.Entry
	// Faults has one, unless a flipped bit may be found wrong in several ways.
	Faults []ports.Fault
}

// anyForm are the ways in which a flipped bit may show.
var anyForm = []ports.Fault{
	ports.FaultEnvelope, ports.FaultType, ports.FaultPayload, ports.FaultSigner, ports.FaultSignature, ports.FaultAddress, ports.FaultTick,
}

// Lie returns the n-th lie of a class about v, whose Step must be at least 1. liar is who
// tells it.
func (v *Victim) Lie(t testing.TB, class Class, n int, liar *Signer) Lie {
	t.Helper()
	lie := Lie{Class: class, Entry: v.Now.Entry(v.Step)}
	elsewhere := fmt.Sprintf("/ip4/203.0.113.%d/tcp/%d", n%250+1, n%60_000+1)
	p := lie.Entry.Proof
	fault := func(f ports.Fault) Lie {
		lie.Faults = []ports.Fault{f}
		return lie
	}
	switch class {
	case Forged:
		claim := v.Now.Claim
		claim.Addrs = []string{elsewhere}
		lie.Entry.Addr, lie.Entry.Addrs = elsewhere, claim.Addrs
		e := envelope(t, liar.Word(t, claim, nil).Record)
		e.PublicKey = v.key.GetPublic()
		p.Record = sealed(t, e)
		return fault(ports.FaultSignature)
	case Rekeyed:
		p.Record = liar.Word(t, v.Now.Claim, nil).Record
		return fault(ports.FaultSigner)
	case Replayed:
		lie.Entry = v.Now.Entry(v.Step - 1)
		return fault(ports.FaultOlder)
	case RolledBack:
		lie.Entry = v.Before.Entry(v.Step - uint32(n)%2) // a later step is not due
		return fault(ports.FaultOlder)
	case TickReused:
		ahead := 1 + uint32(n)%20
		lie.Entry = v.Now.Entry(v.Step + ahead)
		lie.Entry.Proof.Tick.Link = v.Now.Chain[uint32(n/20)%(v.Step+1)]
		return fault(ports.FaultTick)
	case TickGuessed:
		lie.Entry = v.Now.Entry(v.Step + 1 + uint32(n)%20)
		_, _ = rand.Read(lie.Entry.Proof.Tick.Link[:])
		return fault(ports.FaultTick)
	case OthersChain:
		step := v.Step + 1 + uint32(n)%20
		lie.Entry = v.Now.Entry(step)
		lie.Entry.Proof.Tick.Link = v.Before.Chain[step]
		return fault(ports.FaultTick)
	case Truncated:
		p.Record = v.truncated(t, n)
		return fault(ports.FaultEnvelope)
	case BitFlipped:
		p.Record, lie.Faults = v.flipped(t)
		return lie
	case CrossNamespace:
		other := otherwise{proof.Domain, fmt.Sprintf("/ocnode/record/%d", n+2), envelope(t, p.Record).RawPayload}
		f := ports.FaultType
		if n%2 == 1 {
			other.domain, other.codec, f = fmt.Sprintf("ocnode-record-%d", n), proof.PayloadType, ports.FaultSignature
		}
		e, err := record.Seal(other, v.key)
		if err != nil {
			t.Fatal(err)
		}
		p.Record = sealed(t, e)
		return fault(f)
	case WrongRank:
		lie.Entry = ports.Entry{PeerID: v.PeerID, Addr: elsewhere, Addrs: []string{elsewhere}, ExpiresAt: time.Now().Add(TTL).UTC()}
		return fault(ports.FaultRank)
	}
	t.Fatalf("no class %q", class)
	return lie
}

// truncated cuts the record within a field. A cut between two would leave a whole envelope,
// of something else.
func (v *Victim) truncated(t testing.TB, n int) []byte {
	t.Helper()
	e := envelope(t, v.Now.Record)
	cut := 1 + n%(len(v.Now.Record)-1)
	for {
		_, err := record.UnmarshalEnvelope(v.Now.Record[:cut])
		if err != nil {
			return v.Now.Record[:cut]
		}
		if cut++; cut >= len(v.Now.Record) {
			cut = len(e.RawPayload)
		}
	}
}

// flipped flips a bit, and tells what is wrong then.
func (v *Victim) flipped(t testing.TB) ([]byte, []ports.Fault) {
	t.Helper()
	b := bytes.Clone(v.Now.Record)
	at := random.IntN(len(b))
	b[at] ^= 1 << random.IntN(8)
	key, err := v.key.GetPublic().Raw()
	if err != nil {
		t.Fatal(err)
	}
	within := func(part []byte) bool {
		from := bytes.Index(v.Now.Record, part)
		return from <= at && at < from+len(part)
	}
	switch {
	case within(key):
		return b, []ports.Fault{ports.FaultSigner}
	case within([]byte(proof.PayloadType)):
		return b, []ports.Fault{ports.FaultType}
	case within(v.Now.Claim.Anchor[:]), at >= len(b)-ed25519.SignatureSize:
		return b, []ports.Fault{ports.FaultSignature}
	}
	return b, anyForm
}

func envelope(t testing.TB, sealed []byte) *record.Envelope {
	t.Helper()
	e, err := record.UnmarshalEnvelope(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func sealed(t testing.TB, e *record.Envelope) []byte {
	t.Helper()
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// otherwise seals a payload as something else than a record of ours.
type otherwise struct {
	domain, codec string
	payload       []byte
}

func (o otherwise) Domain() string                 { return o.domain }
func (o otherwise) Codec() []byte                  { return []byte(o.codec) }
func (o otherwise) MarshalRecord() ([]byte, error) { return o.payload, nil }
func (o otherwise) UnmarshalRecord([]byte) error   { return nil }

// Tally counts lies by what they are to be refused for, and what they were refused for.
type Tally struct {
	// Lies are counted by their class, and Refused by what they were refused for.
	Lies    map[Class]int
	Refused map[ports.Fault]int

	want, got map[ports.Fault]int
	loose     int // those that may show in several ways
}

// NewTally returns an empty Tally.
func NewTally() *Tally {
	return &Tally{Lies: make(map[Class]int), Refused: make(map[ports.Fault]int), want: make(map[ports.Fault]int), got: make(map[ports.Fault]int)}
}

// Lied counts a lie that is told.
func (c *Tally) Lied(lie Lie) {
	c.Lies[lie.Class]++
	if len(lie.Faults) == 1 {
		c.want[lie.Faults[0]]++
	} else {
		c.loose++
	}
}

// Told counts the faults among events.
func (c *Tally) Told(events []ports.Event) {
	for _, e := range events {
		if e.Kind == ports.EventFaulty {
			c.got[e.Fault]++
			c.Refused[e.Fault]++
		}
	}
}

// Check has the test fail unless every lie since the last Check was refused for what it was
// to be.
func (c *Tally) Check(t testing.TB) {
	t.Helper()
	spare := -c.loose
	for _, f := range ports.Faults() {
		if c.got[f] < c.want[f] {
			t.Fatalf("refused for %v, want %v and %d for any of %v", c.got, c.want, c.loose, anyForm)
		}
		spare += c.got[f] - c.want[f]
	}
	if spare != 0 {
		t.Fatalf("refused for %v, want %v and %d for any of %v", c.got, c.want, c.loose, anyForm)
	}
	clear(c.got)
	clear(c.want)
	c.loose = 0
}

// Enough has the test fail unless each of the classes was tried as often as it is to be.
func (c *Tally) Enough(t testing.TB, classes []Class, times int) {
	t.Helper()
	for _, class := range classes {
		if c.Lies[class] < times {
			t.Errorf("%s: told %d times, want %d", class, c.Lies[class], times)
		}
	}
}
