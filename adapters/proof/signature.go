package proof

import (
	"crypto/ed25519"
	"encoding/binary"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// rule is the rule by which a signature is sound: ZIP 215, also in a batch. RFC 8032 leaves open what
// counts for keys and points that no honest signer makes. Two checks that differ there would have
// natives disagree for ever. ZIP 215 is the only published rule that a batch and a single check follow
// alike. It takes all signatures that crypto/ed25519 takes.
var rule = &voi.Options{Verify: voi.VerifyOptionsZIP_215}

const (
	// minBatch is the least number of signatures for a batch: fewer cost nearly as much as singly.
	minBatch = 8
	// maxBatch is the largest batch. Its last step takes 1.5 ms, and heartbeats wait for a processor
	// meanwhile. Four times as many would cost 12 % less each.
	maxBatch = 256
	// leastShare is the least batch that is worth a processor of its own: with half as many each would
	// cost a tenth more.
	leastShare = 64
)

// signature is a signature to check.
type signature struct {
	key       ed25519.PublicKey
	message   []byte
	signature []byte
	// sound is the result.
	sound bool
}

// signatureOf returns the signature of e, to be checked.
func signatureOf(e envelope) signature {
	return signature{e.key, unsigned(e.payload), e.signature, false}
}

// unsigned returns the bytes that the signature of a payload is made for: the domain, the type and the
// payload, each behind its length.
func unsigned(payload []byte) []byte {
	b := make([]byte, 0, len(Domain)+len(PayloadType)+len(payload)+3*binary.MaxVarintLen16)
	for _, part := range []string{Domain, PayloadType} {
		b = append(binary.AppendUvarint(b, uint64(len(part))), part...)
	}
	return append(binary.AppendUvarint(b, uint64(len(payload))), payload...)
}

// check checks s alone.
func (s *signature) check() {
	s.sound = len(s.key) == ed25519.PublicKeySize && voi.VerifyWithOptions(voi.PublicKey(s.key), s.message, s.signature, rule)
}

// checkBatch checks all of batch at once, at half the cost. A bad signature among them has each checked
// alone, so a liar's batch costs 1.5 times as much as its signatures alone. It returns how many are bad.
func checkBatch(batch []*signature, giveWay func(i int)) (bad int) {
	verifier := voi.NewBatchVerifierWithCapacity(len(batch))
	verifier.ForceNoPublicKeyExpansion() // each key comes once
	for i, s := range batch {
		giveWay(i)
		verifier.AddWithOptions(voi.PublicKey(s.key), s.message, s.signature, rule)
	}
	giveWay(0)
	sound := verifier.VerifyBatchOnly(nil)
	for i, s := range batch {
		if s.sound = sound; !sound {
			giveWay(i)
			s.check()
		}
		if !s.sound {
			bad++
		}
	}
	return bad
}
