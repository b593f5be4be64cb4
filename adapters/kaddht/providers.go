package kaddht

import (
	"context"
	"encoding/base32"
	"errors"
	"strings"

	lru "github.com/hashicorp/golang-lru/simplelru"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/multiformats/go-multihash"
)

// maxProviderBytes bounds the memory for natives' provider records: a thousand at 230 B each.
// When it is full, a new record displaces any other: a flood mostly displaces itself.
const maxProviderBytes = 1000 * 230

var errNotProvided = errors.New("this network has provider records of natives only")

// providers is the memory behind the DHT's provider records. In Kademlia any peer may provide
// any key, and so fill memory with its own. providers takes a single key.
type providers struct {
	*datastore
	key string // the prefix of the datastore's keys
}

// newProviders returns a memory for the providers of namespace.
func newProviders(namespace string) (*providers, error) {
	sum, err := multihash.Sum([]byte(namespace), multihash.SHA2_256, -1)
	if err != nil {
		return nil, err
	}
	renewed := func(_, _ []byte) bool { return false } // the newer record stays
	return &providers{
		datastore: newDatastore(maxProviderBytes, renewed),
		key:       records.ProvidersKeyPrefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum) + "/",
	}, nil
}

// Put implements ds.Write.
func (p *providers) Put(ctx context.Context, key ds.Key, rec []byte) error {
	if !strings.HasPrefix(key.String(), p.key) {
		return errNotProvided
	}
	return p.datastore.Put(ctx, key, rec)
}

// uncached replaces the library's cache of provider records by none: the cache would keep
// displaced records, without a bound.
type uncached struct{ lru.LRUCache }

func newUncached() (uncached, error) {
	empty, err := lru.NewLRU(1, nil)
	return uncached{empty}, err
}

// The library calls Get and Add alone.
func (uncached) Get(any) (any, bool) { return nil, false }
func (uncached) Add(any, any) bool   { return false }
