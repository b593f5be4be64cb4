package ports

import (
	"cmp"
	"fmt"
	"time"
)

const (
	// RecordLife is a record's life from its Seq on, whatever the record claims. It is a
	// constant of the protocol, so an older record never outlives a newer record. A native that
	// holds the newer record for that long is safe from older records after it.
	RecordLife = time.Hour
	// MaxSteps bounds the steps of a record's chain, and so the hashing that a stranger can
	// cause: a heartbeat a second for RecordLife, 0.4 ms.
	MaxSteps = 3600
	// SignatureBytes is the size of a record's signature.
	SignatureBytes = 64
	// MaxInterval bounds a record's Interval and TTL: above it, the record would end before its
	// first tick.
	MaxInterval = RecordLife
)

// Link is a value of a hash chain.
type Link [32]byte

// Claim is the content of a record, signed by the indexer itself.
type Claim struct {
	PeerID PeerID
	// Addrs are the indexer's addresses, best first. A record without addresses is a leave.
	Addrs []string
	Meta  map[string]string
	// Seq is the record's time of issue in Unix milliseconds, 1 to 2^48. The record with the
	// highest Seq counts.
	Seq int64
	// Start is a random number, constant during one run of the indexer.
	Start uint64
	// Interval is the time between steps of the chain, and TTL the entry's life after each step;
	// both in whole milliseconds. A record without a chain has an Interval of 0.
	Interval, TTL time.Duration
	// Anchor is the end of the chain: step 0.
	Anchor Link
}

// Leave reports whether the record is a leave.
func (c *Claim) Leave() bool { return len(c.Addrs) == 0 }

// Issued is the record's time of issue, by its own claim.
func (c *Claim) Issued() time.Time { return time.UnixMilli(c.Seq).UTC() }

// Ends is the end of the record: RecordLife after its issue. A record without a chain cannot be
// renewed: it ends with its entry, unless it is a leave.
func (c *Claim) Ends() time.Time {
	if c.Interval == 0 && !c.Leave() {
		return c.Issued().Add(min(c.TTL, RecordLife))
	}
	return c.Issued().Add(RecordLife)
}

// Due is when an indexer may reveal that step: so many intervals after the record's issue.
func (c *Claim) Due(step uint32) time.Time {
	return c.Issued().Add(time.Duration(step) * c.Interval)
}

// ExpiresAt is the entry's deadline after that many steps, at most the end of the record.
func (c *Claim) ExpiresAt(step uint32) time.Time {
	return c.Issued().Add(min(time.Duration(step)*c.Interval+c.TTL, RecordLife))
}

// Tick proves that the holder of the secret behind a record's anchor was alive at a step.
type Tick struct {
	// Seq is the record's.
	Seq int64
	// Step counts from 0, the anchor itself, to MaxSteps.
	Step uint32
	// Link, hashed Step times, is the anchor.
	Link Link
}

// Proof proves an entry to any reader, without trust in its sender.
type Proof struct {
	// Record is the sealed claim; nil if the receiver has the record and needs only the tick.
	Record []byte
	Tick   Tick
	// Claim is the content of Record, nil before a Verifier reads it. A Proof whose Claim comes
	// from a Verifier needs no second check. It must not be modified.
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

// Version orders two entries of a PeerID by age. It uses no clock, so all nodes agree.
type Version struct {
	// Seq and Step are the record's and the tick's, 0 in a bare entry.
	Seq  int64
	Step uint32
	// ExpiresAt and Leave count only if both entries are bare.
	ExpiresAt time.Time
	Leave     bool
}

// Signed reports whether the indexer signed the entry. No record has a Seq of 0.
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

// Version returns the Version of e. A Proof in e must have its Claim.
func (e Entry) Version() Version {
	v := Version{ExpiresAt: e.ExpiresAt, Leave: e.Leave}
	if e.Proof != nil && e.Proof.Claim != nil {
		v.Seq, v.Step = e.Proof.Claim.Seq, e.Proof.Tick.Step
	}
	return v
}

// Fault is the reason that a proof is invalid. Metrics count faults by these names, which never
// change.
type Fault string

const (
	FaultSize       Fault = "size"       // larger than a frame
	FaultEnvelope   Fault = "envelope"   // no envelope, or not in its canonical form
	FaultType       Fault = "type"       // another payload's type, or another kind of key
	FaultPayload    Fault = "payload"    // no claim, or not in its canonical form
	FaultSigner     Fault = "signer"     // a signer other than the indexer
	FaultSignature  Fault = "signature"  // not the signer's signature of this payload
	FaultAddress    Fault = "address"    // addresses or metadata that a registration must not have
	FaultFields     Fault = "fields"     // the fields beside the record contradict it
	FaultTick       Fault = "tick"       // a link outside the record's chain
	FaultFuture     Fault = "future"     // issued later than now, or a tick that is not due yet
	FaultEnded      Fault = "ended"      // the record has ended
	FaultOlder      Fault = "older"      // a newer record or tick is known
	FaultRank       Fault = "rank"       // not signed, and a record of the indexer is known
	FaultUntrusted  Fault = "untrusted"  // sound, but its signer has no say here
	FaultIncomplete Fault = "incomplete" // a tick with an unknown record, or a record without a tick
)

// Faults returns all faults.
func Faults() []Fault {
	return []Fault{
		FaultSize, FaultEnvelope, FaultType, FaultPayload, FaultSigner, FaultSignature, FaultAddress, FaultFields,
		FaultTick, FaultFuture, FaultEnded, FaultOlder, FaultRank, FaultUntrusted, FaultIncomplete,
	}
}

// ProofError explains an invalid proof.
type ProofError struct {
	Fault  Fault
	Reason string // for people
}

func (e *ProofError) Error() string { return e.Reason }

// Faulty returns a *ProofError with a formatted reason.
func Faulty(f Fault, format string, args ...any) *ProofError {
	return &ProofError{Fault: f, Reason: fmt.Sprintf(format, args...)}
}

// Verifier checks proofs. It uses no clock: the domain judges whether a claim counts now. All
// methods may be called concurrently and do not block.
type Verifier interface {
	// Read returns the claim of record. It checks the form and not the signature: the result
	// orders two records by age, and serves nothing else. The error is a *ProofError.
	Read(record []byte) (*Claim, error)

	// Verify is Read with two more checks: the signature, once for the same bytes, and that tick
	// is on the record's chain. The error is a *ProofError.
	Verify(record []byte, tick Tick) (*Claim, error)

	// VerifyAll is Verify of each of the proofs, for less than half as much if they are many. It sets
	// the Claim of each sound proof, and returns the error of each. Before it checks a signature, it
	// asks accept, which may refuse the claim, and may be called concurrently. It may take milliseconds
	// of all processors.
	VerifyAll(proofs []*Proof, accept func(*Claim) error) []error

	// Follows reports whether to is that many steps after from in one chain; steps is 1 to
	// MaxSteps.
	Follows(from, to Link, steps uint32) bool

	// Before returns the link that stands so many steps before l in its chain; steps is 0 to MaxSteps.
	Before(l Link, steps uint32) Link

	// Signature returns the signature of record. ok is false unless record is in its one form. It
	// checks no more than that.
	Signature(record []byte) (signature [SignatureBytes]byte, ok bool)

	// Record returns the record of c with that signature. With the Claim and the Signature of a
	// record, these are the same bytes again. It checks no signature. The error says why c is the claim
	// of no record.
	Record(c *Claim, signature [SignatureBytes]byte) ([]byte, error)
}

// Signer makes records in the name of this node. All methods may be called concurrently.
type Signer interface {
	// Sign returns the record that claims c.
	Sign(c Claim) ([]byte, error)

	// Chain returns a chain of a new secret: the anchor first, then that many links.
	Chain(steps int) []Link

	// Seq returns a number of at least atLeast, greater than all that it returned before, also
	// to earlier processes. With an error, it is greater than this process's alone.
	Seq(atLeast int64) (int64, error)
}
