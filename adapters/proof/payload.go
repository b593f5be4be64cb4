package proof

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/adapters/internal/keytext"
	"github.com/opencloud/ocnode/ports"
)

// The fields of a payload.
const (
	fieldPeerID protowire.Number = 1 + iota
	_                            // the PeerID of a native, in the first drafts: no record has it
	fieldAddr
	fieldMeta
	fieldSeq
	fieldStart
	fieldInterval
	fieldTTL
	fieldAnchor
)

// The fields of metadata.
const (
	fieldName protowire.Number = 1 + iota
	fieldValue
)

// maxSeq bounds numbers: far from what would overflow, in the year 10889.
const maxSeq = 1 << 48

// marshal returns the payload that claims c.
func marshal(c *ports.Claim) ([]byte, error) {
	id, err := peer.Decode(string(c.PeerID))
	if err != nil {
		return nil, fmt.Errorf("PeerID %.80q: %w", c.PeerID, err)
	}
	return appendPayload(nil, []byte(id), c), nil
}

// appendPayload appends the payload that claims c to b. id is c.PeerID in binary.
func appendPayload(b, id []byte, c *ports.Claim) []byte {
	b = appendBytes(b, fieldPeerID, id)
	for _, addr := range c.Addrs {
		b = appendBytes(b, fieldAddr, []byte(addr))
	}
	names := slices.AppendSeq(make([]string, 0, len(c.Meta)), maps.Keys(c.Meta))
	slices.Sort(names)
	for _, name := range names {
		var pair []byte
		if name != "" {
			pair = appendBytes(pair, fieldName, []byte(name))
		}
		if value := c.Meta[name]; value != "" {
			pair = appendBytes(pair, fieldValue, []byte(value))
		}
		b = appendBytes(b, fieldMeta, pair)
	}
	b = appendVarint(b, fieldSeq, c.Seq)
	if c.Start != 0 {
		b = protowire.AppendFixed64(protowire.AppendTag(b, fieldStart, protowire.Fixed64Type), c.Start)
	}
	b = appendVarint(b, fieldInterval, c.Interval.Milliseconds())
	b = appendVarint(b, fieldTTL, c.TTL.Milliseconds())
	if c.Anchor != (ports.Link{}) {
		b = appendBytes(b, fieldAnchor, c.Anchor[:])
	}
	return b
}

func appendBytes(b []byte, field protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendVarint(b []byte, field protowire.Number, value int64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(value))
}

var (
	errForm  = errors.New("it is not in its canonical form")
	errRange = errors.New("a number is out of range")
)

// unmarshal returns what payload claims, if it is in the one form that marshal gives it.
func unmarshal(payload []byte) (*ports.Claim, error) {
	c := &ports.Claim{}
	for b := payload; len(b) > 0; {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		n, err := readField(c, field, kind, b)
		if err != nil {
			return nil, fmt.Errorf("field %d: %w", field, err)
		}
		b = b[n:]
	}
	id, n := protowire.ConsumeBytes(payload[min(1, len(payload)):]) // its first field, or its form is another
	if n < 0 || !bytes.Equal(appendPayload(make([]byte, 0, len(payload)), id, c), payload) {
		return nil, errForm
	}
	return c, nil
}

// readField reads one field, and returns how long its value is.
func readField(c *ports.Claim, field protowire.Number, kind protowire.Type, b []byte) (n int, err error) {
	switch kind {
	case protowire.BytesType:
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, setBytes(c, field, value)
	case protowire.VarintType:
		value, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, setVarint(c, field, value)
	case protowire.Fixed64Type:
		value, n := protowire.ConsumeFixed64(b)
		if n < 0 || field != fieldStart {
			return 0, errForm
		}
		c.Start = value
		return n, nil
	}
	return 0, errForm
}

func setBytes(c *ports.Claim, field protowire.Number, value []byte) error {
	switch field {
	case fieldPeerID:
		if text, ok := keytext.Text(value); ok {
			c.PeerID = ports.PeerID(text)
			return nil
		}
		id, err := peer.IDFromBytes(value)
		if err != nil {
			return err
		}
		if _, err = peer.Decode(id.String()); err != nil { // a hash of another kind
			return err
		}
		c.PeerID = ports.PeerID(id.String())
	case fieldAddr:
		switch {
		case len(c.Addrs) == ports.MaxAddrs:
			return fmt.Errorf("more than %d addresses", ports.MaxAddrs)
		case len(value) == 0 || !utf8.Valid(value):
			return errForm
		}
		c.Addrs = append(c.Addrs, string(value))
	case fieldMeta:
		if len(c.Meta) == ports.MaxMetaNames {
			return fmt.Errorf("more than %d names", ports.MaxMetaNames)
		}
		name, text, err := readPair(value)
		if err != nil {
			return err
		}
		if c.Meta == nil {
			c.Meta = make(map[string]string)
		}
		c.Meta[name] = text
	case fieldAnchor:
		if len(value) != len(c.Anchor) {
			return errForm
		}
		c.Anchor = ports.Link(value)
	default:
		return errForm
	}
	return nil
}

// readPair reads a name and its value; what is there twice is found when the claim is
// written again.
func readPair(b []byte) (name, value string, err error) {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return "", "", errForm
		}
		text, m := protowire.ConsumeBytes(b[n:])
		if m < 0 || !utf8.Valid(text) {
			return "", "", errForm
		}
		switch field {
		case fieldName:
			name = string(text)
		case fieldValue:
			value = string(text)
		default:
			return "", "", errForm
		}
		b = b[n+m:]
	}
	return name, value, nil
}

func setVarint(c *ports.Claim, field protowire.Number, value uint64) error {
	if value == 0 || value > maxSeq {
		return errRange
	}
	switch field {
	case fieldSeq:
		c.Seq = int64(value)
		return nil
	case fieldInterval, fieldTTL:
		if value > uint64(ports.MaxInterval.Milliseconds()) {
			return errRange
		}
		d := time.Duration(value) * time.Millisecond
		if field == fieldInterval {
			c.Interval = d
		} else {
			c.TTL = d
		}
		return nil
	}
	return errForm
}
