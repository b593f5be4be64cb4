package kaddht

import (
	"context"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

const (
	// DefaultMaxBytes bounds the memory that others can fill: a million records with one address
	// each at 450 B, the largest network of the contract.
	DefaultMaxBytes = 512 << 20
	// recordOverhead is the memory of Go's map for a record besides its bytes.
	recordOverhead = 80
)

// datastore is the memory behind the DHT's records. It differs from a plain map in two ways. It
// is bounded: when it is full, a new record displaces any other, so an honest put never fails
// and a flood mostly displaces itself. And it chooses between two records under a lock, since
// the DHT and the Store each check before they write, independently.
type datastore struct {
	limit    int
	keepsOld func(old, new []byte) bool

	mu      sync.RWMutex
	records map[ds.Key][]byte
	bytes   int
	// displaced counts the records that a full datastore displaced.
	displaced int
}

var _ ds.Batching = (*datastore)(nil)

func newDatastore(limit int, keepsOld func(old, new []byte) bool) *datastore {
	return &datastore{limit: limit, keepsOld: keepsOld, records: make(map[ds.Key][]byte)}
}

// Put implements ds.Write. It drops a record that loses to the stored record, without an error.
func (d *datastore) Put(_ context.Context, key ds.Key, rec []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.records[key]; ok {
		if d.keepsOld(old, rec) {
			return nil
		}
		d.remove(key)
	}
	d.bytes += size(key, rec)
	for victim := range d.records {
		if d.bytes <= d.limit {
			break
		}
		d.remove(victim)
		d.displaced++
	}
	d.records[key] = rec
	return nil
}

// Delete implements ds.Write.
func (d *datastore) Delete(_ context.Context, key ds.Key) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(key)
	return nil
}

func (d *datastore) remove(key ds.Key) {
	if rec, ok := d.records[key]; ok {
		d.bytes -= size(key, rec)
		delete(d.records, key)
	}
}

func size(key ds.Key, rec []byte) int {
	return len(key.String()) + len(rec) + recordOverhead
}

func (d *datastore) len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.records)
}

func (d *datastore) displacedCount() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.displaced
}

// Get implements ds.Read.
func (d *datastore) Get(_ context.Context, key ds.Key) ([]byte, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if rec, ok := d.records[key]; ok {
		return rec, nil
	}
	return nil, ds.ErrNotFound
}

// Has implements ds.Read.
func (d *datastore) Has(ctx context.Context, key ds.Key) (bool, error) {
	return ds.GetBackedHas(ctx, d, key)
}

// GetSize implements ds.Read.
func (d *datastore) GetSize(ctx context.Context, key ds.Key) (int, error) {
	return ds.GetBackedSize(ctx, d, key)
}

// Query implements ds.Read, for the DHT's sweep of old records.
func (d *datastore) Query(_ context.Context, q dsq.Query) (dsq.Results, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var found []dsq.Entry
	for key, rec := range d.records {
		if strings.HasPrefix(key.String(), q.Prefix) {
			found = append(found, dsq.Entry{Key: key.String(), Value: rec, Size: len(rec)})
		}
	}
	return dsq.NaiveQueryApply(q, dsq.ResultsWithEntries(q, found)), nil
}

// Batch implements ds.Batching. The DHT writes single records.
func (d *datastore) Batch(context.Context) (ds.Batch, error) { return nil, ds.ErrBatchUnsupported }

// Sync implements ds.Datastore: memory has nothing to flush.
func (d *datastore) Sync(context.Context, ds.Key) error { return nil }

// Close implements ds.Datastore.
func (d *datastore) Close() error { return nil }
