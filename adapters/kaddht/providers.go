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

// maxProviderBytes bounds the memory for who says that it is a native: a thousand of them
// at 230 B each. If it is full, any gives way: whoever floods mostly displaces the flood.
const maxProviderBytes = 1000 * 230

var errNotProvided = errors.New("nothing but natives is provided in this network")

// providers is the memory behind the DHT's provider records. Anybody may provide any key
// in Kademlia, which would be memory for strangers: this one takes a single key.
type providers struct {
	*datastore
	key string // what the datastore's keys of the one begin with
}

// newProviders returns a memory for those who provide namespace.
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

// uncached is the library's cache of provider records, without the cache: it would keep
// what the datastore has displaced, without a bound.
type uncached struct{ lru.LRUCache }

func newUncached() (uncached, error) {
	empty, err := lru.NewLRU(1, nil)
	return uncached{empty}, err
}

// Get and Add are what the library calls.
func (uncached) Get(any) (any, bool) { return nil, false }
func (uncached) Add(any, any) bool   { return false }
