package proof

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/adapters/internal/keytext"
	"github.com/opencloud/ocnode/ports"
)

// The parts of an envelope, in their one form. An Ed25519 key and its signature have one length each,
// so all bytes between the parts are the same in each record.
const (
	fieldPayload   protowire.Number = 3
	fieldSignature protowire.Number = 5

	// keyHead goes before the 32 bytes of an Ed25519 key: the envelope's field 1, a message with the
	// type of the key and the key.
	keyHead = "\x0a\x24" + keyType
	// keyType is the head of that message. A PeerID of an Ed25519 key is idHead and that message.
	keyType = "\x08\x01\x12\x20"
	// idHead is the head of a multihash that is the key itself.
	idHead = "\x00\x24"
	// ownHead goes before the key in a payload of an Ed25519 key's own: its field 1, the PeerID.
	ownHead = "\x0a\x26" + idHead + keyType
	// typeField is the envelope's field 2.
	typeField = "\x12\x10" + PayloadType
	// signatureHead goes before the signature: the envelope's field 5.
	signatureHead = "\x2a\x40"
)

// envelope is a record in its parts. They share the memory of the record.
type envelope struct {
	key, payload, signature []byte
}

// split returns the parts of a record. ok is false for all bytes that are not in the one form of an
// envelope, of the type of a record, with an Ed25519 key and its signature.
func split(sealed []byte) (e envelope, ok bool) {
	b, ok := bytes.CutPrefix(sealed, []byte(keyHead))
	if !ok || len(b) < ed25519.PublicKeySize {
		return envelope{}, false
	}
	e.key, b = b[:ed25519.PublicKeySize], b[ed25519.PublicKeySize:]
	if b, ok = bytes.CutPrefix(b, []byte(typeField)); !ok {
		return envelope{}, false
	}
	field, kind, n := protowire.ConsumeTag(b)
	if n != 1 || field != fieldPayload || kind != protowire.BytesType {
		return envelope{}, false
	}
	b = b[n:]
	if e.payload, n = protowire.ConsumeBytes(b); n < 0 || n != protowire.SizeBytes(len(e.payload)) {
		return envelope{}, false // also a length in more bytes than it needs
	}
	e.signature, ok = bytes.CutPrefix(b[n:], []byte(signatureHead))
	return e, ok && len(e.signature) == ed25519.SignatureSize && len(e.payload) > 0
}

// seal returns the record of the parts.
func (e envelope) seal() []byte {
	b := make([]byte, 0, len(keyHead)+len(e.key)+len(typeField)+1+protowire.SizeBytes(len(e.payload))+len(signatureHead)+len(e.signature))
	b = append(append(b, keyHead...), e.key...)
	b = append(b, typeField...)
	b = appendBytes(b, fieldPayload, e.payload)
	return appendBytes(b, fieldSignature, e.signature)
}

// Signature implements ports.Verifier.
func (*Verifier) Signature(record []byte) (signature [ports.SignatureBytes]byte, ok bool) {
	e, ok := split(record)
	if ok {
		copy(signature[:], e.signature)
	}
	return signature, ok
}

var errNoKey = errors.New("it is not the PeerID of an Ed25519 key")

// Record implements ports.Verifier.
func (*Verifier) Record(c *ports.Claim, signature [ports.SignatureBytes]byte) ([]byte, error) {
	id, ok := keytext.Binary(string(c.PeerID))
	if !ok {
		return nil, fmt.Errorf("record of %.80q: %w", c.PeerID, errNoKey)
	}
	return envelope{id[len(idHead+keyType):], appendPayload(nil, id[:], c), signature[:]}.seal(), nil
}
