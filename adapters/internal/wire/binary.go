package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/adapters/internal/keytext"
	"github.com/opencloud/ocnode/ports"
)

// The errors of a message that is none.
var (
	errKind    = errors.New("a field is of another type")
	errCut     = errors.New("it is cut")
	errTooMany = errors.New("it has too many ranges")
	errText    = errors.New("a text is not UTF-8")
	errColumns = errors.New("the columns of its renewals differ in length")
	errOrder   = errors.New("the numbers of its renewals do not rise")
)

// appendFrame appends message behind its length.
func appendFrame(b, message []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(message))), message...)
}

// field is a field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  []byte // of BytesType
	varint uint64 // of the other types
}

// eachField calls do with each field of message, in their order.
func eachField(message []byte, do func(f field) error) error {
	for len(message) > 0 {
		f, n := field{}, 0
		if f.number, f.kind, n = protowire.ConsumeTag(message); n < 0 {
			return errCut
		}
		message = message[n:]
		switch f.kind {
		case protowire.BytesType:
			f.value, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			f.varint, n = protowire.ConsumeFixed64(message)
		default:
			n = protowire.ConsumeFieldValue(f.number, f.kind, message)
		}
		if n < 0 {
			return errCut
		}
		message = message[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

func (f field) bytes() ([]byte, error) {
	if f.kind != protowire.BytesType {
		return nil, errKind
	}
	return f.value, nil
}

func (f field) text() (string, error) {
	switch {
	case f.kind != protowire.BytesType:
		return "", errKind
	case !utf8.Valid(f.value):
		return "", errText
	}
	return string(f.value), nil
}

// long returns a number; it is 0, as if it had not been said, beyond most.
func (f field) long(most uint64) (uint64, error) {
	switch {
	case f.kind != protowire.VarintType:
		return 0, errKind
	case f.varint > most:
		return 0, nil
	}
	return f.varint, nil
}

func (f field) short() (uint32, error) {
	n, err := f.long(math.MaxUint32)
	return uint32(n), err
}

func (f field) mark() (bool, error) {
	if f.kind != protowire.VarintType {
		return false, errKind
	}
	return f.varint != 0, nil
}

func (f field) duration() (time.Duration, error) {
	ms, err := f.long(maxMilliseconds)
	return time.Duration(ms) * time.Millisecond, err
}

func (f field) fixed() (uint64, error) {
	if f.kind != protowire.Fixed64Type {
		return 0, errKind
	}
	return f.varint, nil
}

// instant returns a time in Unix nanoseconds, the zero time for 0.
func (f field) instant() (time.Time, error) {
	switch {
	case f.kind != protowire.Fixed64Type:
		return time.Time{}, errKind
	case f.varint == 0:
		return time.Time{}, nil
	}
	return time.Unix(0, int64(f.varint)).UTC(), nil
}

// link returns a link.
func (f field) link() (l ports.Link, err error) {
	if f.kind != protowire.BytesType || len(f.value) != len(l) {
		return l, errKind
	}
	return ports.Link(f.value), nil
}

// maxPeerIDBinary is the longest PeerID in binary whose text has no more than maxPeerIDBytes. A native that
// has an indexer from the DHT whose PeerID is too long for its followers would have none.
const maxPeerIDBinary = 94

// peerID returns a PeerID, known if its binary form is binary.
func (f field) peerID(known ports.PeerID, binary []byte) (ports.PeerID, error) {
	switch {
	case f.kind != protowire.BytesType:
		return "", errKind
	case len(f.value) == 0 || len(f.value) > maxPeerIDBinary:
		return "", fmt.Errorf("a PeerID of %d bytes", len(f.value))
	case len(binary) > 0 && string(f.value) == string(binary):
		return known, nil
	}
	if text, ok := keytext.Text(f.value); ok {
		return ports.PeerID(text), nil
	}
	id, err := peer.IDFromBytes(f.value)
	if err != nil {
		return "", err
	}
	text := id.String()
	if !isBase58(text) || len(text) > maxPeerIDBytes {
		return "", errors.New("a multihash, but not that of a key")
	}
	return ports.PeerID(text), nil
}

func appendNumber(b []byte, number protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), value)
}

func appendFixed(b []byte, number protowire.Number, value uint64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), value)
}

func appendString(b []byte, number protowire.Number, value string) []byte {
	if value == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), value)
}

func appendBinary(b []byte, number protowire.Number, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

// appendTime appends a time. It leaves out the zero time, and a time that does not fit in Unix nanoseconds.
func appendTime(b []byte, number protowire.Number, at time.Time) []byte {
	if ns := at.UnixNano(); time.Unix(0, ns).Equal(at) {
		return appendFixed(b, number, uint64(ns))
	}
	return b
}

// appendPeerID appends id in binary. The error is a *ports.Refusal.
func appendPeerID(b []byte, number protowire.Number, id ports.PeerID) ([]byte, error) {
	if binary, ok := keytext.Binary(string(id)); ok {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), binary[:]), nil
	}
	binary, err := peer.Decode(string(id))
	if err != nil {
		return b, ports.Refuse(ports.CodeMalformed, "PeerID %.80q: %v", id, err)
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), string(binary)), nil
}
