package ports

import (
	"cmp"
	"fmt"
	"time"
)

const (
	// RecordLife is how long a record counts from its Seq on, whatever it says. It is a
	// constant of the protocol: so an older record never outlives a newer one, and whoever
	// holds the newer one for that long needs to fear no older one after it.
	RecordLife = time.Hour
	// MaxSteps bounds the steps of one record's chain, and so what a stranger can make
	// others hash: a heartbeat a second for RecordLife, 0.4 ms.
	MaxSteps = 3600
	// MaxInterval bounds the Interval and the TTL that a record may name: with more, it would
	// end before its first tick.
	MaxInterval = RecordLife
)

// Link is a value of a hash chain.
type Link [32]byte

// Claim is what a record says. The indexer itself has signed it.
type Claim struct {
	PeerID PeerID
	// Addrs are the indexer's addresses, best first. A record without any is a leave.
	Addrs []string
	Meta  map[string]string
	// Seq is when the record was issued, in Unix milliseconds, 1 to 2^48. The record with
	// the highest counts.
	Seq int64
	// Start is a random number that stays for one start of the indexer.
	Start uint64
	// Interval is how far apart the steps of the chain are, and TTL how long the entry lives
	// after each; whole milliseconds, and 0 for an Interval of a record without a chain.
	Interval, TTL time.Duration
	// Anchor is the end of the chain: step 0.
	Anchor Link
}

// Leave reports whether the record is a leave.
func (c *Claim) Leave() bool { return len(c.Addrs) == 0 }

// Issued is when the record was, as it says.
func (c *Claim) Issued() time.Time { return time.UnixMilli(c.Seq).UTC() }

// Ends is when the record counts no more: RecordLife after it was issued. A record without a
// chain cannot be renewed. It ends with its entry, unless it is a leave.
func (c *Claim) Ends() time.Time {
	if c.Interval == 0 && !c.Leave() {
		return c.Issued().Add(min(c.TTL, RecordLife))
	}
	return c.Issued().Add(RecordLife)
}

// ExpiresAt is the deadline of the entry after so many steps, never later than the record
// ends.
func (c *Claim) ExpiresAt(step uint32) time.Time {
	return c.Issued().Add(min(time.Duration(step)*c.Interval+c.TTL, RecordLife))
}

// Tick proves that whoever holds the secret behind a record's anchor was alive at a step.
type Tick struct {
	// Seq is that of the record.
	Seq int64
	// Step counts from 0, the anchor itself, to MaxSteps.
	Step uint32
	// Link hashed Step times is the anchor.
	Link Link
}

// Proof is what anybody can check an entry by, without trusting who handed it over.
type Proof struct {
	// Record is the sealed claim; nil if only the tick was sent, to whom has the record.
	Record []byte
	Tick   Tick
	// Claim is what Record says, nil until it has been read. Whoever has a Proof with a Claim
	// from a Verifier need not check it again. It must not be modified.
	Claim *Claim `json:"-"`
}

// Entry returns the entry that p proves; it must have a Claim.
func (p *Proof) Entry() Entry {
	c := p.Claim
	e := Entry{
		PeerID: c.PeerID, Addrs: c.Addrs, Meta: c.Meta,
		ExpiresAt: c.ExpiresAt(p.Tick.Step), Leave: c.Leave(), Proof: p,
	}
	if len(c.Addrs) > 0 {
		e.Addr = c.Addrs[0]
	}
	return e
}

// Version tells which of two entries of one PeerID is the newer. No clock is asked, so
// that everybody tells alike.
type Version struct {
	// Seq and Step are the record's and the tick's, 0 of a bare entry.
	Seq  int64
	Step uint32
	// ExpiresAt and Left are compared only if both are bare.
	ExpiresAt time.Time
	Leave     bool
}

// Signed reports whether the indexer has signed the entry. No record has a Seq of 0.
func (v Version) Signed() bool { return v.Seq != 0 }

// Compare returns -1 if v is older than w, 1 if it is newer, else 0. A signed entry is newer
// than a bare one.
func (v Version) Compare(w Version) int {
	if v.Signed() || w.Signed() {
		return cmp.Or(cmp.Compare(v.Seq, w.Seq), cmp.Compare(v.Step, w.Step))
	}
	switch {
	case !v.ExpiresAt.Equal(w.ExpiresAt):
		return v.ExpiresAt.Compare(w.ExpiresAt)
	case v.Leave == w.Leave:
		return 0
	case v.Leave:
		return 1
	}
	return -1
}

// Version returns e's. An entry with a Proof must have its Claim.
func (e Entry) Version() Version {
	v := Version{ExpiresAt: e.ExpiresAt, Leave: e.Leave}
	if e.Proof != nil && e.Proof.Claim != nil {
		v.Seq, v.Step = e.Proof.Claim.Seq, e.Proof.Tick.Step
	}
	return v
}

// Fault is why a proof is none. Faults are counted by their names, which stay.
type Fault string

const (
	FaultSize       Fault = "size"       // larger than a frame
	FaultEnvelope   Fault = "envelope"   // no envelope, or not in its one canonical form
	FaultType       Fault = "type"       // another payload's type, or another kind of key
	FaultPayload    Fault = "payload"    // no claim, or not in its one canonical form
	FaultSigner     Fault = "signer"     // another one than may sign it
	FaultSignature  Fault = "signature"  // the signature is not the signer's for this
	FaultAddress    Fault = "address"    // addresses or metadata that no registration may have
	FaultFields     Fault = "fields"     // what stands beside the record says something else
	FaultTick       Fault = "tick"       // a link that is not on the record's chain
	FaultFuture     Fault = "future"     // issued later than now
	FaultEnded      Fault = "ended"      // the record has ended
	FaultOlder      Fault = "older"      // a newer record or tick is known
	FaultRank       Fault = "rank"       // not signed, and a record of the indexer is known
	FaultUntrusted  Fault = "untrusted"  // sound, but nobody's word that counts here
	FaultIncomplete Fault = "incomplete" // a tick whose record is not known, or a record without a tick
)

// Faults returns all there are.
func Faults() []Fault {
	return []Fault{
		FaultSize, FaultEnvelope, FaultType, FaultPayload, FaultSigner, FaultSignature, FaultAddress, FaultFields,
		FaultTick, FaultFuture, FaultEnded, FaultOlder, FaultRank, FaultUntrusted, FaultIncomplete,
	}
}

// ProofError says what is wrong with a proof.
type ProofError struct {
	Fault  Fault
	Reason string // for people
}

func (e *ProofError) Error() string { return e.Reason }

// Faulty returns a *ProofError with a formatted reason.
func Faulty(f Fault, format string, args ...any) *ProofError {
	return &ProofError{Fault: f, Reason: fmt.Sprintf(format, args...)}
}

// Verifier checks proofs. It knows no clock: whether a claim counts now is for the domain
// to say. All methods may be called concurrently and do not block.
type Verifier interface {
	// Read returns what record claims. Its form is checked, the signature is not: that is
	// enough to tell which of two is newer, and for nothing else. The error is a *ProofError.
	Read(record []byte) (*Claim, error)

	// Verify is Read with the signature, which is checked once for the same bytes, and has
	// tick on the record's chain. The error is a *ProofError.
	Verify(record []byte, tick Tick) (*Claim, error)

	// Follows reports whether to comes so many steps after from in one chain, from 1 to
	// MaxSteps.
	Follows(from, to Link, steps uint32) bool
}

// Signer makes records in the name of this node. All methods may be called concurrently.
type Signer interface {
	// Sign returns the record that claims c.
	Sign(c Claim) ([]byte, error)

	// Chain returns so many links and the anchor before them, of a new secret, the anchor
	// first.
	Chain(steps int) []Link

	// Seq returns a number of at least atLeast that is greater than all it has returned
	// before, to this process and to those before it. With an error it is greater than
	// those of this process only.
	Seq(atLeast int64) (int64, error)
}
