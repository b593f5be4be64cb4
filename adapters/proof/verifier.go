package proof

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"runtime"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/adapters/internal/netyield"
	"github.com/opencloud/ocnode/ports"
)

const (
	// Domain is what signatures of records are made for, and of nothing else.
	Domain = "ocnode-record"
	// PayloadType names the form of the payload.
	PayloadType = "/ocnode/record/1"

	// maxVerified is how many records are remembered to be sound, with their claims. The table holds
	// those of its entries. So only a record in between needs it: from a registration to the put, and
	// from a put to the look-up. That takes seconds, and a native of 10,000 indexers hears 3 new
	// records in a second. A forgotten record is verified again, for 24 µs.
	maxVerified = 1 << 12
	// maxVerifiedBytes bounds what they hold together, since anybody can make keys, and records
	// of 8 KB.
	maxVerifiedBytes = 4 << 20

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
	counts   counts
}

// sound is a record whose signature was checked.
type sound struct {
	claim *ports.Claim
	last  ports.Tick // the highest that was checked
}

var _ ports.Verifier = (*Verifier)(nil)

// NewVerifier returns a Verifier that has seen nothing yet.
func NewVerifier() *Verifier {
	v := &Verifier{}
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
	if err := sized(sealed); err != nil {
		return nil, err
	}
	if known, ok := v.known(sha256.Sum256(sealed)); ok {
		return known.claim, nil
	}
	c, _, err := read(sealed)
	return c, err
}

func sized(sealed []byte) error {
	if len(sealed) > ports.MaxFrameBytes {
		return ports.Faulty(ports.FaultSize, "record has %d bytes, at most %d are allowed", len(sealed), ports.MaxFrameBytes)
	}
	return nil
}

// read is Read of a record that is not known to be sound. It returns the record's parts, too; none if
// its signature is not as long as a signature is.
func read(sealed []byte) (*ports.Claim, envelope, error) {
	e, ok := split(sealed)
	if !ok {
		var err error
		if e, err = splitAny(sealed); err != nil {
			return nil, envelope{}, err
		}
	}
	c, err := unmarshal(e.payload)
	if err != nil {
		return nil, envelope{}, ports.Faulty(ports.FaultPayload, "record's payload: %v", err)
	}
	if err := check(c); err != nil {
		return nil, envelope{}, ports.Faulty(ports.FaultPayload, "record's payload: %v", err)
	}
	if own := bytes.HasPrefix(e.payload, []byte(ownHead)) && bytes.HasPrefix(e.payload[len(ownHead):], e.key); !own {
		return nil, envelope{}, ports.Faulty(ports.FaultSigner, "record of %s is signed by another key", c.PeerID)
	}
	return c, e, nil
}

// splitAny is split of bytes that are no usual record: their fault, or a record whose signature has
// another length. The result has no signature then.
func splitAny(sealed []byte) (envelope, error) {
	e, err := record.UnmarshalEnvelope(sealed)
	if err != nil {
		return envelope{}, ports.Faulty(ports.FaultEnvelope, "record is no libp2p envelope: %v", err)
	}
	if again, err := e.Marshal(); err != nil || !bytes.Equal(again, sealed) {
		return envelope{}, ports.Faulty(ports.FaultEnvelope, "record's envelope is not in its canonical form")
	}
	if e.PublicKey.Type() != pb.KeyType_Ed25519 {
		return envelope{}, ports.Faulty(ports.FaultType, "record is signed with a key of type %s, want Ed25519", e.PublicKey.Type())
	}
	if string(e.PayloadType) != PayloadType {
		return envelope{}, ports.Faulty(ports.FaultType, "record's payload is of type %.40q, want %q", e.PayloadType, PayloadType)
	}
	key, err := e.PublicKey.Raw()
	if err != nil {
		return envelope{}, ports.Faulty(ports.FaultEnvelope, "record's key: %v", err)
	}
	return envelope{key: key, payload: e.RawPayload}, nil
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
	c := v.begin(sealed, tick, acceptAll)
	if c.unsigned() {
		c.signature.check()
		v.counts.single(c.signature.sound)
	}
	v.end(&c)
	return c.claim, c.err
}

// VerifyAll implements ports.Verifier. It takes all processors, and lets what comes from the network in between.
func (v *Verifier) VerifyAll(proofs []*ports.Proof, accept func(*ports.Claim) error) []error {
	errs := make([]error, len(proofs))
	workers := runtime.GOMAXPROCS(0)
	share := max((len(proofs)+workers-1)/workers, leastShare)
	var running sync.WaitGroup
	for from := share; from < len(proofs); from += share {
		until := min(from+share, len(proofs))
		running.Go(func() { v.verifyShare(proofs[from:until], accept, errs[from:until]) })
	}
	v.verifyShare(proofs[:min(share, len(proofs))], accept, errs)
	running.Wait()
	return errs
}

// verifyShare is VerifyAll on one processor.
func (v *Verifier) verifyShare(proofs []*ports.Proof, accept func(*ports.Claim) error, errs []error) {
	giveWay := func(int) {}
	if len(proofs) > giveWayAfter {
		y := netyield.New()
		defer y.Close()
		giveWay = func(i int) {
			if i%giveWayAfter == 0 {
				y.Yield()
			}
		}
	}
	for from := 0; from < len(proofs); from += maxBatch {
		until := min(from+maxBatch, len(proofs))
		v.verifyBatch(proofs[from:until], accept, errs[from:until], giveWay)
	}
}

// verifyBatch is VerifyAll of at most maxBatch proofs.
func (v *Verifier) verifyBatch(proofs []*ports.Proof, accept func(*ports.Claim) error, errs []error, giveWay func(i int)) {
	checks := make([]checking, len(proofs))
	batch := make([]*signature, 0, len(proofs))
	for i, p := range proofs {
		giveWay(i)
		checks[i] = v.begin(p.Record, p.Tick, accept)
		if checks[i].unsigned() {
			batch = append(batch, &checks[i].signature)
		}
	}
	if len(batch) >= minBatch {
		v.counts.batch(len(batch), checkBatch(batch, giveWay))
	} else {
		for _, s := range batch {
			s.check()
			v.counts.single(s.sound)
		}
	}
	for i := range checks {
		giveWay(i)
		v.end(&checks[i])
		proofs[i].Claim, errs[i] = checks[i].claim, checks[i].err
	}
}

// giveWayAfter is how many proofs a step of verifyBatch takes before it lets others run: 0.2 ms.
const giveWayAfter = 32

// checking is a proof that is being checked.
type checking struct {
	key       [sha256.Size]byte // of the record
	tick      ports.Tick
	claim     *ports.Claim
	last      ports.Tick // the highest that was checked of this record
	known     bool       // the signature was checked before
	signature signature  // to be checked if not
	err       error      // the result
}

// unsigned reports whether the signature is still to be checked.
func (c *checking) unsigned() bool { return c.err == nil && !c.known }

// begin does all of Verify that goes before the signature.
func (v *Verifier) begin(sealed []byte, tick ports.Tick, accept func(*ports.Claim) error) (c checking) {
	if c.err = sized(sealed); c.err != nil {
		return c
	}
	c.key, c.tick = sha256.Sum256(sealed), tick
	known, ok := v.known(c.key)
	if c.claim, c.last, c.known = known.claim, known.last, ok; !ok {
		var e envelope
		if c.claim, e, c.err = read(sealed); c.err != nil {
			return c
		}
		c.signature = signatureOf(e)
	}
	if c.err = accept(c.claim); c.err == nil {
		c.err = onChain(c.claim, tick)
	}
	return c
}

func acceptAll(*ports.Claim) error { return nil }

// end does the rest of Verify.
func (v *Verifier) end(c *checking) {
	if c.unsigned() {
		if !c.signature.sound {
			c.err = ports.Faulty(ports.FaultSignature, "record's signature is not that of %s", c.claim.PeerID)
		} else {
			c.last = ports.Tick{Seq: c.claim.Seq, Link: c.claim.Anchor}
		}
	}
	if c.err == nil {
		// Whatever ticks it comes with, nobody has it checked twice.
		c.err = v.follow(c)
		v.keep(c.key, sound{c.claim, c.last})
	}
	if c.err != nil {
		c.claim = nil
	}
}

// follow checks the link of the tick by the highest tick that was checked.
func (v *Verifier) follow(c *checking) error {
	tick, last := c.tick, c.last
	switch {
	case tick.Step > last.Step:
		if !v.Follows(last.Link, tick.Link, tick.Step-last.Step) {
			return notOnChain(tick)
		}
		c.last = tick
	case tick.Step < last.Step:
		if tick.Step == 0 && tick.Link != c.claim.Anchor || tick.Step > 0 && !v.Follows(tick.Link, last.Link, last.Step-tick.Step) {
			return notOnChain(tick)
		}
	case tick.Link != last.Link:
		return notOnChain(tick)
	}
	return nil
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
	return before(to, steps) == from
}

// Before implements ports.Verifier.
func (*Verifier) Before(l ports.Link, steps uint32) ports.Link { return before(l, steps) }

// before returns the link that stands so many steps before l in its chain.
func before(l ports.Link, steps uint32) ports.Link {
	var b [len(chainDomain) + len(l)]byte
	copy(b[:], chainDomain)
	for range steps {
		copy(b[len(chainDomain):], l[:])
		l = sha256.Sum256(b[:])
	}
	return l
}

// payload has core/record seal and open claims.
type payload []byte

var _ record.Record = payload(nil)

func (payload) Domain() string                   { return Domain }
func (payload) Codec() []byte                    { return []byte(PayloadType) }
func (p payload) MarshalRecord() ([]byte, error) { return p, nil }
func (payload) UnmarshalRecord([]byte) error     { return nil }
