package kaddht

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	ds "github.com/ipfs/go-datastore"
	dsq "github.com/ipfs/go-datastore/query"
)

func never([]byte, []byte) bool { return false }

func TestDatastoreIsBounded(t *testing.T) {
	const limit, records = 10_000, 1000
	d := newDatastore(limit, never)
	for i := range records {
		key := ds.NewKey(fmt.Sprintf("/indexer/%d", i))
		if err := d.Put(t.Context(), key, bytes.Repeat([]byte("r"), 100)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(t.Context(), key); err != nil {
			t.Fatalf("record %d, just put: %v", i, err)
		}
		if d.bytes > limit {
			t.Fatalf("%d bytes are held; the limit is %d", d.bytes, limit)
		}
	}
	if n := d.len(); n < limit/300 || n > limit/100 {
		t.Errorf("%d records are held in %d bytes", n, limit)
	}
	if d.displacedCount() != records-d.len() {
		t.Errorf("%d records gave way, and %d of %d are held", d.displacedCount(), d.len(), records)
	}
	for key := range d.records {
		if err := d.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if d.bytes != 0 {
		t.Errorf("%d bytes are counted of nothing", d.bytes)
	}
}

// TestDatastoreDecides puts as the DHT and the Store do if both check before either writes.
func TestDatastoreDecides(t *testing.T) {
	d := newDatastore(DefaultMaxBytes, validator{accept: rule, read: unread}.keepsOld)
	e := entryFor(t)
	older := e
	older.ExpiresAt = e.ExpiresAt.Add(-1)
	farFuture := hostileValues(t, e.PeerID)["ends in year 9999"]
	key, dsKey := keyOf(e.PeerID), ds.NewKey("/indexer/x")
	for _, step := range []struct{ put, want []byte }{
		{farFuture, farFuture}, // stored under another rule
		{valueOf(t, older), valueOf(t, older)},
		{valueOf(t, e), valueOf(t, e)},
		{valueOf(t, older), valueOf(t, e)},
		{valueOf(t, e), valueOf(t, e)},
	} {
		if err := d.Put(t.Context(), dsKey, recordOf(t, key, step.put)); err != nil {
			t.Fatal(err)
		}
		got, err := d.Get(t.Context(), dsKey)
		if want := recordOf(t, key, step.want); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("after a put of %s:\ngot  %q, %v\nwant %q", step.put, got, err, want)
		}
	}
}

func TestDatastoreReads(t *testing.T) {
	d := newDatastore(DefaultMaxBytes, never)
	key := ds.NewKey("/indexer/a")
	if _, err := d.Get(t.Context(), key); !errors.Is(err, ds.ErrNotFound) {
		t.Errorf("get of nothing: %v", err)
	}
	for _, k := range []ds.Key{key, ds.NewKey("/indexer/b"), ds.NewKey("/other/c")} {
		if err := d.Put(t.Context(), k, []byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	if has, err := d.Has(t.Context(), key); !has || err != nil {
		t.Errorf("has: %v, %v", has, err)
	}
	if n, err := d.GetSize(t.Context(), key); n != 5 || err != nil {
		t.Errorf("size: %d, %v", n, err)
	}
	found, err := d.Query(t.Context(), dsq.Query{Prefix: "/indexer"})
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := found.Rest(); len(entries) != 2 || err != nil {
		t.Errorf("query found %v, %v; want the two under the prefix", entries, err)
	}
}
