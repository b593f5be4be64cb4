package kaddht

import (
	"bytes"
	"context"
	"sync/atomic"
	"time"

	ds "github.com/ipfs/go-datastore"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/multiformats/go-base32"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// View returns the entry that a native publishes of an indexer. It is called concurrently, and must not
// block.
type View func(ports.PeerID) (ports.Entry, bool)

// Show has the DHT answer from view, beside the records that others put here. From then on Put keeps no
// copy here, since the view has the entry, and this node looks for all servers. It is called once.
func (s *Store) Show(view View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.data.view.Store(&view)
	s.host.Network().Notify(s.cuts)
	s.running.Go(s.survey)
}

// viewed is what the DHT answers from: the records of others, and a view of this native's table. The
// natives that follow each other have all entries by that, and no native puts them to another.
type viewed struct {
	*datastore
	validator validator
	view      atomic.Pointer[View]
}

// Get implements ds.Read. It returns the record that the DHT selects of the stored one and the view's.
func (v *viewed) Get(ctx context.Context, key ds.Key) ([]byte, error) {
	stored, err := v.datastore.Get(ctx, key)
	shown := v.shown(key)
	if shown == nil || err == nil && v.validator.keepsOld(stored, shown) {
		return stored, err
	}
	return shown, nil
}

// Put implements ds.Write. It drops a record that adds nothing to the view.
func (v *viewed) Put(ctx context.Context, key ds.Key, rec []byte) error {
	if shown := v.shown(key); shown != nil && v.validator.covers(shown, rec) {
		return nil
	}
	return v.datastore.Put(ctx, key, rec)
}

// Has implements ds.Read.
func (v *viewed) Has(ctx context.Context, key ds.Key) (bool, error) {
	return ds.GetBackedHas(ctx, v, key)
}

// GetSize implements ds.Read.
func (v *viewed) GetSize(ctx context.Context, key ds.Key) (int, error) {
	return ds.GetBackedSize(ctx, v, key)
}

// shown returns the record of the view under key, nil without one. It is received now: the DHT passes
// over records that came long ago.
func (v *viewed) shown(key ds.Key) []byte {
	view := v.view.Load()
	if view == nil {
		return nil
	}
	id, ok := peerIn(key)
	if !ok {
		return nil
	}
	e, ok := (*view)(id)
	if !ok {
		return nil
	}
	value, err := wire.EncodeEntry(e)
	if err != nil {
		return nil
	}
	rec := record.MakePutRecord(keyOf(id), value)
	rec.TimeReceived = time.Now().UTC().Format(time.RFC3339Nano)
	b, err := proto.Marshal(rec)
	if err != nil {
		return nil
	}
	return b
}

// peerIn returns the PeerID in a key of the datastore: the namespace, and the DHT's key in base32.
func peerIn(key ds.Key) (ports.PeerID, bool) {
	if key.Type() != "" || len(key.Namespaces()) != 2 {
		return "", false
	}
	text, err := base32.RawStdEncoding.DecodeString(key.BaseNamespace())
	if err != nil || len(text) > len(keyOf(""))+maxPeerIDBytes {
		return "", false
	}
	id, ok := bytes.CutPrefix(text, []byte(keyOf("")))
	return ports.PeerID(id), ok
}

// covers reports whether the record old makes the record new superfluous: both have one value, or the
// DHT selects that of old.
func (v validator) covers(old, new []byte) bool {
	var o, n recpb.Record
	if proto.Unmarshal(old, &o) != nil || proto.Unmarshal(new, &n) != nil {
		return false
	}
	if bytes.Equal(o.GetValue(), n.GetValue()) {
		return true
	}
	best, err := v.Select(string(o.GetKey()), [][]byte{n.GetValue(), o.GetValue()})
	return err == nil && best == 1
}
