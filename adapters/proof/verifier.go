package proof

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/ports"
)

const (
	// Domain is what signatures of records are made for, and of nothing else.
	Domain = "ocnode-record"
	// PayloadType names the form of the payload.
	PayloadType = "/ocnode/record/1"

	// maxVerified is how many records are remembered to be sound, with what they claim: some
	// 500 bytes each, and an indexer has one an hour. What is forgotten is verified again, for
	// 45 µs.
	maxVerified = 1 << 17
	// maxVerifiedBytes bounds what they hold together, since anybody can make keys, and records
	// of 10 KB.
	maxVerifiedBytes = 64 << 20

	// chainDomain goes before a link when it is hashed, so that no other protocol's hashes
	// are links.
	chainDomain = "ocnode-tick-1:"
)

// Verifier checks records and ticks.
type Verifier struct {
	mu sync.Mutex
	// verified has sound records by their hashes, and bytes is what they hold.
	verified *lru.LRU[[sha256.Size]byte, sound]
	bytes    int
	// seen is told of each signature that is verified; for tests.
	seen func()
}

// sound is a record whose signature was checked.
type sound struct {
	claim *ports.Claim
	last  ports.Tick // the highest that was checked
}

var _ ports.Verifier = (*Verifier)(nil)

// NewVerifier returns a Verifier that has seen nothing yet.
func NewVerifier() *Verifier {
	v := &Verifier{seen: func() {}}
	var err error
	v.verified, err = lru.NewLRU(maxVerified, func(_ [sha256.Size]byte, s sound) { v.bytes -= held(s.claim) })
	if err != nil {
		panic(err) // the size is no size
	}
	return v
}

// known returns a record that is known to be sound.
func (v *Verifier) known(key [sha256.Size]byte) (sound, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.verified.Get(key)
}

// keep remembers a sound record.
func (v *Verifier) keep(key [sha256.Size]byte, s sound) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.verified.Contains(key) {
		v.bytes += held(s.claim)
	}
	v.verified.Add(key, s)
	for v.bytes > maxVerifiedBytes {
		v.verified.RemoveOldest()
	}
}

// held is about what a remembered claim holds, in bytes.
func held(c *ports.Claim) int {
	const claim, addr, pair = 400, 16, 80 // a pair is two strings, and its place in a map that is half full
	n := claim
	for _, a := range c.Addrs {
		n += addr + len(a)
	}
	for name, value := range c.Meta {
		n += pair + len(name) + len(value)
	}
	return n
}

// Read implements ports.Verifier.
func (v *Verifier) Read(sealed []byte) (*ports.Claim, error) {
	if len(sealed) > ports.MaxFrameBytes {
		return nil, ports.Faulty(ports.FaultSize, "record has %d bytes, at most %d are allowed", len(sealed), ports.MaxFrameBytes)
	}
	if known, ok := v.known(sha256.Sum256(sealed)); ok {
		return known.claim, nil
	}
	return read(sealed)
}

// read is Read of a record that is not known to be sound.
func read(sealed []byte) (*ports.Claim, error) {
	e, err := record.UnmarshalEnvelope(sealed)
	if err != nil {
		return nil, ports.Faulty(ports.FaultEnvelope, "record is no libp2p envelope: %v", err)
	}
	if again, err := e.Marshal(); err != nil || !bytes.Equal(again, sealed) {
		return nil, ports.Faulty(ports.FaultEnvelope, "record's envelope is not in its canonical form")
	}
	if e.PublicKey.Type() != pb.KeyType_Ed25519 {
		return nil, ports.Faulty(ports.FaultType, "record is signed with a key of type %s, want Ed25519", e.PublicKey.Type())
	}
	if string(e.PayloadType) != PayloadType {
		return nil, ports.Faulty(ports.FaultType, "record's payload is of type %.40q, want %q", e.PayloadType, PayloadType)
	}
	c, err := unmarshal(e.RawPayload)
	if err != nil {
		return nil, ports.Faulty(ports.FaultPayload, "record's payload: %v", err)
	}
	if err := check(c); err != nil {
		return nil, ports.Faulty(ports.FaultPayload, "record's payload: %v", err)
	}
	signer, err := peer.IDFromPublicKey(e.PublicKey)
	if err != nil {
		return nil, ports.Faulty(ports.FaultSigner, "record's signer: %v", err)
	}
	if id := ports.PeerID(signer.String()); id != c.PeerID {
		return nil, ports.Faulty(ports.FaultSigner, "record of %s is signed by %s", c.PeerID, id)
	}
	return c, nil
}

// check holds a claim against what every record must say.
func check(c *ports.Claim) error {
	switch {
	case c.PeerID == "" || c.Seq == 0 || c.TTL == 0:
		return errors.New("PeerID, Seq or TTL is missing")
	case (c.Interval == 0) != (c.Anchor == ports.Link{}):
		return errors.New("an Interval and an Anchor go together")
	}
	return nil
}

// Verify implements ports.Verifier.
func (v *Verifier) Verify(sealed []byte, tick ports.Tick) (*ports.Claim, error) {
	if len(sealed) > ports.MaxFrameBytes {
		return v.Read(sealed)
	}
	key := sha256.Sum256(sealed)
	known, ok := v.known(key)
	c := known.claim
	if !ok {
		var err error
		if c, err = read(sealed); err != nil {
			return nil, err
		}
	}
	if err := onChain(c, tick); err != nil {
		return nil, err
	}
	last := known.last
	if !ok {
		v.seen()
		if _, err := record.ConsumeTypedEnvelope(sealed, payload{}); err != nil {
			return nil, ports.Faulty(ports.FaultSignature, "record's signature: %v", err)
		}
		// At once: whatever ticks it comes with, nobody has it checked twice.
		last = ports.Tick{Seq: c.Seq, Link: c.Anchor}
		v.keep(key, sound{c, last})
	}
	switch {
	case tick.Step > last.Step:
		if !v.Follows(last.Link, tick.Link, tick.Step-last.Step) {
			return nil, notOnChain(tick)
		}
		last = tick
	case tick.Step < last.Step:
		if tick.Step == 0 && tick.Link != c.Anchor || tick.Step > 0 && !v.Follows(tick.Link, last.Link, last.Step-tick.Step) {
			return nil, notOnChain(tick)
		}
	case tick.Link != last.Link:
		return nil, notOnChain(tick)
	}
	v.keep(key, sound{c, last})
	return c, nil
}

// onChain is what can be said of a tick without its link.
func onChain(c *ports.Claim, tick ports.Tick) error {
	switch {
	case tick.Seq != c.Seq:
		return ports.Faulty(ports.FaultTick, "tick of the record with Seq %d, and the record has %d", tick.Seq, c.Seq)
	case tick.Step > ports.MaxSteps || tick.Step > 0 && c.Interval == 0:
		return ports.Faulty(ports.FaultTick, "tick's step %d is beyond the record's chain", tick.Step)
	}
	return nil
}

func notOnChain(tick ports.Tick) error {
	return ports.Faulty(ports.FaultTick, "tick's link is not that of step %d of the record's chain", tick.Step)
}

// Follows implements ports.Verifier.
func (v *Verifier) Follows(from, to ports.Link, steps uint32) bool {
	if steps < 1 || steps > ports.MaxSteps {
		return false
	}
	for range steps {
		to = before(to)
	}
	return to == from
}

// before returns the link that stands before l in its chain.
func before(l ports.Link) ports.Link {
	var b [len(chainDomain) + len(l)]byte
	copy(b[:], chainDomain)
	copy(b[len(chainDomain):], l[:])
	return sha256.Sum256(b[:])
}

// payload has core/record seal and open claims.
type payload []byte

var _ record.Record = payload(nil)

func (payload) Domain() string                   { return Domain }
func (payload) Codec() []byte                    { return []byte(PayloadType) }
func (p payload) MarshalRecord() ([]byte, error) { return p, nil }
func (payload) UnmarshalRecord([]byte) error     { return nil }
