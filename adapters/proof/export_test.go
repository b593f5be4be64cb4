package proof

import "github.com/opencloud/ocnode/ports"

// MaxVerified and MaxSeq are bounds that tests go up to.
const (
	MaxVerified = maxVerified
	MaxSeq      = maxSeq
)

// NewVerifierOf returns a Verifier that remembers so many records.
func NewVerifierOf(most int) *Verifier {
	v := NewVerifier()
	v.verified.Resize(most)
	return v
}

// Marshal returns the payload that claims c.
func Marshal(c ports.Claim) ([]byte, error) { return marshal(&c) }

// Verified returns how many records v remembers to be sound.
func (v *Verifier) Verified() int { return v.verified.Len() }

// Counts are the Signatures of a Verifier.
type Counts struct{ Single, Batched, Bad uint64 }

// Counts returns the Signatures of v.
func (v *Verifier) Counts() (c Counts) {
	c.Single, c.Batched, c.Bad = v.Signatures()
	return c
}
