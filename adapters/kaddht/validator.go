package kaddht

import (
	"errors"
	"fmt"
	"strings"

	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// namespace is the first part of every key; the DHT chooses a validator by it.
	namespace = "indexer"
	// maxPeerIDBytes bounds the PeerID in a key. Real PeerIDs have 46 and 52 bytes.
	maxPeerIDBytes = 128
)

// errNoValue is Select's error without a readable value.
var errNoValue = errors.New("no value decodes")

func keyOf(id ports.PeerID) string { return "/" + namespace + "/" + string(id) }

// validator decides which values may be stored under a key, and which of two stays. The DHT
// calls it for each arriving value, the Store for each value that it reads.
type validator struct {
	accept func(*ports.Entry) error
	read   func(*ports.Entry) error
}

var _ record.Validator = validator{}

// Validate implements record.Validator.
func (v validator) Validate(key string, value []byte) error {
	_, err := v.entry(key, value)
	return err
}

// entry returns the entry in value if it is acceptable under key.
func (v validator) entry(key string, value []byte) (ports.Entry, error) {
	id, ok := strings.CutPrefix(key, keyOf(""))
	if !ok || len(id) > maxPeerIDBytes {
		return ports.Entry{}, fmt.Errorf("key %.160q is not %q and a PeerID", key, keyOf(""))
	}
	e, err := wire.DecodeEntry(value)
	if err != nil {
		return ports.Entry{}, err
	}
	// The decoder returns the canonical text, so an equal key is canonical too.
	if string(e.PeerID) != id {
		return ports.Entry{}, fmt.Errorf("entry of %s under the key of %q", e.PeerID, id)
	}
	return e, v.accept(&e)
}

// Select implements record.Validator: the higher version, then the larger bytes. It uses no
// clock, so all nodes agree.
func (v validator) Select(_ string, values [][]byte) (int, error) {
	best, chosen := -1, ports.Version{}
	for i, value := range values {
		e, err := wire.DecodeEntry(value)
		if err != nil || v.read(&e) != nil {
			continue
		}
		if version := e.Version(); best < 0 || wire.Beats(version, value, chosen, values[best]) {
			best, chosen = i, version
		}
	}
	if best < 0 {
		return 0, errNoValue
	}
	return best, nil
}

// keepsOld reports whether the stored record old stays when the record new arrives: only if old
// wins, and is still valid.
func (v validator) keepsOld(old, new []byte) bool {
	var o, n recpb.Record
	if proto.Unmarshal(old, &o) != nil || proto.Unmarshal(new, &n) != nil {
		return false
	}
	key := string(o.GetKey())
	best, err := v.Select(key, [][]byte{n.GetValue(), o.GetValue()})
	return err == nil && best == 1 && v.Validate(key, o.GetValue()) == nil
}
