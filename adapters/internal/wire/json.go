package wire

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

// unknown collects the members of an object that its struct does not name.
type unknown struct {
	Members jsontext.Value `json:",embed"`
}

// decode reads one JSON object from data into v, whose unknown members end up in rest.
func decode(data []byte, v any, rest *unknown, known []string) error {
	return decodeUpTo(ports.MaxFrameBytes, data, v, rest, known)
}

// decodeUpTo is decode with a bound of its own.
func decodeUpTo(most int, data []byte, v any, rest *unknown, known []string) error {
	if len(data) > most {
		return tooLarge(most)
	}
	if text := bytes.TrimLeft(data, " \t\r"); len(text) > 0 && text[0] != '{' { // null is no object either
		return ports.Refuse(ports.CodeMalformed, "want one JSON object and a newline: it begins with %q", text[0])
	}
	if depth(data) > ports.MaxNesting {
		return ports.Refuse(ports.CodeMalformed, "JSON is nested deeper than %d", ports.MaxNesting)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return ports.Refuse(ports.CodeMalformed, "want one JSON object and a newline: %v", err)
	}
	return rest.refuseLookalikes(known)
}

// depth returns how deep the brackets of data nest, without looking whether
// they match: the parser does that, and recurses no deeper than this.
func depth(data []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// refuseLookalikes refuses members whose name differs from a known one only in case.
func (u *unknown) refuseLookalikes(known []string) error {
	if len(u.Members) == 0 {
		return nil
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(u.Members, &members); err != nil {
		return ports.Refuse(ports.CodeMalformed, "unknown members: %v", err)
	}
	for name := range members {
		if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, name) }); i >= 0 {
			return ports.Refuse(ports.CodeMalformed, "name %q: write it %q", name, known[i])
		}
	}
	return nil
}

// encodeLine is encode with the newline that ends a frame.
func encodeLine(v any) ([]byte, error) {
	data, err := encode(v)
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// encode returns v as JSON without a newline, at most ports.MaxFrameBytes of it,
// the same bytes for the same value.
func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil, ports.Refuse(ports.CodeMalformed, "encode: %v", err)
	}
	if len(data) > ports.MaxFrameBytes {
		return nil, ErrFrameTooLarge
	}
	return data, nil
}

// maxPeerIDBytes bounds a PeerID in any spelling. Those in use have 46 to 62 bytes, and
// base58 takes the square of its length: 18 ms for a frame full of it.
const maxPeerIDBytes = 128

// canonical returns the one spelling of the PeerID that text spells.
func canonical(text string) (ports.PeerID, error) {
	if len(text) > maxPeerIDBytes {
		return "", fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxPeerIDBytes)
	}
	id, err := peer.Decode(text)
	if err != nil {
		return "", err
	}
	if isBase58(text) {
		// Base58 is one-to-one: encoding id again would give text, at the price of all
		// the rest of a frame together.
		return ports.PeerID(text), nil
	}
	if text = id.String(); !isBase58(text) {
		return "", errors.New("a CID, but not that of a key")
	}
	return ports.PeerID(text), nil
}

// isBase58 tells the canonical form of PeerIDs from the CID form as peer.Decode does.
func isBase58(text string) bool {
	return strings.HasPrefix(text, "1") || strings.HasPrefix(text, "Qm")
}
