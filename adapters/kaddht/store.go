package kaddht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultPrefix is the contract's: nodes with the same prefix are one network.
	DefaultPrefix protocol.ID = "/opencloud"
	// kadSuffix is the library's suffix of the prefix.
	kadSuffix = "/kad/1.0.0"
	// replicas is the number of nodes that store an entry, Kademlia's k.
	replicas = 20
	// operationTimeout bounds a Put or Get without a shorter deadline: the library's time-out
	// for a peer's answer.
	operationTimeout = 10 * time.Second
	// secondThoughts is a Get's wait for a better answer after the first. A node that was away
	// still holds replaced records, and would undo a leave if it answered first. The wait is two
	// round trips around the world, and a look-up asks its nodes in parallel. A hanging peer
	// costs no more than this.
	secondThoughts = 200 * time.Millisecond
)

var errClosed = errors.New("the store is closed")

// Protocol returns the protocol ID of servers under this prefix; "" is DefaultPrefix.
func Protocol(prefix protocol.ID) protocol.ID { return cmp.Or(prefix, DefaultPrefix) + kadSuffix }

// Config is the configuration of a Store.
type Config struct {
	// Prefix begins with "/"; "" is DefaultPrefix.
	Prefix protocol.ID
	// Server lets this node store others' records and answer requests. Without it the node only
	// sends requests.
	Server bool
	// Accept is the rule of the contract: nil, or the reason that an entry may be neither stored
	// nor returned (expired, too far in the future, an undialable address). It has its own
	// clock, must not block, and is called concurrently.
	Accept func(*ports.Entry) error
	// Read reads the claim of an entry's proof, unchecked.
	Read func(*ports.Entry) error
	// TTL is the life of an entry. The Store forgets a record after the TTL or ports.RecordLife,
	// whichever is longer, and ports.ClockAllowance: by then every acceptable entry has ended.
	TTL time.Duration
	// Natives are the peers that this node puts to and gets from; they may also store here and
	// be in the routing table. Readers may send requests besides. Both are called concurrently,
	// and for each request; they must not block. nil admits every peer. A caller that changes
	// Natives calls Revise.
	Natives, Readers func(ports.PeerID) bool
	// Follows reports of a native whether it follows this native, and so hears of all entries by that: no
	// entry is put to it. It is called concurrently and must not block. nil: no native follows this node.
	// A caller whose answer changes calls Refollow.
	Follows func(ports.PeerID) bool
	// MaxBytes bounds the memory of this node's records; 0 is DefaultMaxBytes. When it is full,
	// a new record displaces any other.
	MaxBytes int
	// Metrics takes the Store's and the library's metrics; nil for none. It must be this Store's
	// own registerer. The library has one set of metrics a process.
	Metrics prometheus.Registerer
	// Log receives faults between this node and the network, at debug level; the library has its
	// own logger. nil logs nothing.
	Log *slog.Logger
}

// Validate returns the errors in c, with their remedies.
func (c Config) Validate() error {
	var errs []error
	if c.Prefix != "" && (!strings.HasPrefix(string(c.Prefix), "/") || len(c.Prefix) == 1) {
		errs = append(errs, fmt.Errorf("prefix %q: must begin with \"/\" and have a name, as %q", c.Prefix, DefaultPrefix))
	}
	if c.Prefix == dht.DefaultPrefix {
		errs = append(errs, fmt.Errorf("prefix %q is the public IPFS network's: choose one of your own, as %q", c.Prefix, DefaultPrefix))
	}
	if c.Accept == nil || c.Read == nil {
		errs = append(errs, errors.New("accept, read: rules are needed"))
	}
	if c.TTL <= 0 {
		errs = append(errs, fmt.Errorf("ttl %v: must be more than 0", c.TTL))
	}
	return errors.Join(errs...)
}

// Store keeps entries in a Kademlia DHT.
type Store struct {
	host      host.Host
	protocol  protocol.ID
	server    bool
	validator validator
	gate      *gate
	dht       *dht.IpfsDHT
	messenger *pb.ProtocolMessenger
	servers   *servers
	puts      *prometheus.CounterVec
	cuts      network.Notifiee // hears of connections that end
	data      *viewed
	provided  *providers
	// local reads and writes the records that this node holds, without the view and the network.
	local *records.ValueStore
	log   *slog.Logger
	// natives is the namespace that natives provide. joined and met both signal joins: joined
	// for Joined, met for Advertise.
	natives     string
	joined, met chan struct{}
	watch       sync.Once

	// Close ends closing, and so all running operations.
	closing context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

var (
	_ ports.Store     = (*Store)(nil)
	_ ports.Strangers = (*Store)(nil)
)

// New joins the DHT over h. It serves at once if cfg says so, and adds the peers connected to h,
// now or later. The library starts goroutines, so the caller must call Close before it closes h.
func New(h host.Host, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	prefix := cmp.Or(cfg.Prefix, DefaultPrefix)
	s := &Store{
		host:      h,
		protocol:  Protocol(prefix),
		server:    cfg.Server,
		validator: validator{accept: cfg.Accept, read: cfg.Read},
		gate:      newGate(cfg.Natives, cfg.Readers),
		log:       cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		natives:   nativesNamespace(prefix),
		joined:    make(chan struct{}, 1),
		met:       make(chan struct{}, 1),
	}
	s.servers = newServers(func(p peer.ID, name ports.PeerID) bool {
		if cfg.Follows == nil || !cfg.Follows(name) {
			return false
		}
		// A native of an earlier version may follow this native, and has no view.
		speaks, err := h.Peerstore().SupportsProtocols(p, ports.FollowProtocol)
		return err == nil && len(speaks) > 0
	}, cfg.TTL)
	s.puts = newPuts()
	s.cuts = &network.NotifyBundle{DisconnectedF: func(n network.Network, c network.Conn) {
		if p := c.RemotePeer(); n.Connectedness(p) != network.Connected {
			s.servers.gone(p)
		}
	}}
	s.closing, s.cancel = context.WithCancel(context.Background())

	mode := dht.ModeClient
	if cfg.Server {
		mode = dht.ModeServer
	}
	values := record.NamespacedValidator{namespace: s.validator}
	maxAge := max(cfg.TTL, ports.RecordLife) + ports.ClockAllowance
	s.data = &viewed{datastore: newDatastore(cmp.Or(cfg.MaxBytes, DefaultMaxBytes), s.validator.keepsOld), validator: s.validator}
	s.local = records.NewValueStore(s.data.datastore, values, maxAge)

	var err, cacheErr error
	s.provided, err = newProviders(s.natives)
	cache, cacheErr := newUncached()
	if err := errors.Join(err, cacheErr); err != nil {
		s.cancel()
		return nil, fmt.Errorf("join the dht %s: %w", s.protocol, err)
	}
	s.dht, err = dht.New(guardedHost{h, s.gate},
		dht.ProtocolPrefix(prefix),
		dht.Mode(mode), // never auto: on a private network no node would become a server
		dht.BucketSize(replicas),
		dht.Validator(values),
		dht.ValueDatastore(s.data),
		dht.MaxRecordAge(maxAge),
		dht.ValueGCInterval(0), // it would see the view in place of an old record; local sweeps
		dht.RoutingTableFilter(s.admit),
		// Peers in others' answers enter the table past the filter above.
		dht.QueryFilter(func(_ any, candidate peer.AddrInfo) bool { return s.gate.native(candidate.ID) }),
		dht.ProviderDatastore(s.provided),
		dht.ProviderManagerOpts(
			records.Cache(cache),
			records.ProvideValidity(provideFor),
			records.ProviderAddrTTL(provideFor),
			records.CleanupInterval(provideFor),
		),
		dht.AddressFilter(fewAddrs),
	)
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("join the dht %s: %w", s.protocol, err)
	}
	if s.messenger, err = pb.NewProtocolMessenger(s.dht.MessageSender()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.local.StartGC(s.closing, maxAge)
	if cfg.Metrics != nil {
		if err := s.register(cfg.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics of the dht: %w", err), s.Close())
		}
	}
	return s, nil
}

// admit admits natives to the routing table. The table calls it for each peer that has
// identified itself: before the first peer is added, and whenever a peer returns. So admit is
// the place to hook up Joined: the table's own callback must not change once the table is in
// use.
func (s *Store) admit(d any, p peer.ID) bool {
	if !s.gate.native(p) {
		return false
	}
	table := d.(*dht.IpfsDHT).RoutingTable()
	s.watch.Do(func() {
		added := table.PeerAdded
		table.PeerAdded = func(p peer.ID) {
			added(p)
			s.meets(p)
		}
	})
	if s.servers.saw(p, false) { // the table may have no room for it
		signal(s.joined)
	}
	if table.Find(p) != "" { // it returned before the table noticed its absence
		s.meets(p)
	}
	return true
}

// meets signals that the server p has joined or returned. One that follows this native misses no entry.
func (s *Store) meets(p peer.ID) {
	signal(s.met)
	if !s.servers.follows(p, ports.PeerID(p.String())) {
		signal(s.joined)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Joined implements ports.Store. A server that follows this native sends no value. A server that stops
// following sends a value.
func (s *Store) Joined() <-chan struct{} { return s.joined }

// Revise applies a change of Config.Natives to the routing table. New natives are admitted when
// they next identify themselves.
func (s *Store) Revise() {
	table := s.dht.RoutingTable()
	for _, p := range table.ListPeers() {
		if !s.gate.native(p) {
			table.RemovePeer(p)
		}
	}
	s.servers.keep(s.gate.native)
}

// Peers returns the size of the routing table: the number of servers that this node could put
// to.
func (s *Store) Peers() int { return s.dht.RoutingTable().Size() }

// Records returns the number of records that this node holds, its own and others', including
// expired ones.
func (s *Store) Records() int { return s.data.len() }

// Get implements ports.Store.
func (s *Store) Get(ctx context.Context, id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return ports.Entry{}, err
	}
	defer done()

	if e, err := s.Local(id, newerThan); err == nil {
		return e, nil
	}
	key := keyOf(id)
	// The stream ends after the answers of all near nodes, or with its context.
	search, stop := context.WithCancel(ctx)
	defer stop()
	values, err := s.dht.SearchValue(search, key)
	if err != nil {
		return ports.Entry{}, fmt.Errorf("get %s: %w", id, err)
	}
	patience := time.AfterFunc(operationTimeout, stop)
	defer patience.Stop()
	var best ports.Entry
	var bestValue []byte
	for value := range values {
		e, ok := s.newer(key, value, newerThan)
		if !ok {
			continue
		}
		if bestValue == nil {
			patience.Reset(secondThoughts)
		}
		if bestValue == nil || wire.Beats(e.Version(), value, best.Version(), bestValue) {
			best, bestValue = e, value
		}
	}
	if bestValue == nil {
		return ports.Entry{}, ports.ErrNotFound
	}
	if s.server {
		// The next look-up, from here or elsewhere, finds it here. It is validated already, and
		// a newer record that came meanwhile stays. A client receives no later puts, so it would
		// keep ended records.
		_ = s.local.Put(ctx, key, record.MakePutRecord(key, bestValue))
	}
	return best, nil
}

// Local implements ports.Store.
func (s *Store) Local(id ports.PeerID, newerThan ports.Version) (ports.Entry, error) {
	key := keyOf(id)
	rec, err := s.local.Get(s.closing, key)
	if err != nil || rec == nil {
		return ports.Entry{}, ports.ErrNotFound
	}
	if e, ok := s.newer(key, rec.GetValue(), newerThan); ok {
		return e, nil
	}
	return ports.Entry{}, ports.ErrNotFound
}

// newer returns the entry in value if it is acceptable now and newer.
func (s *Store) newer(key string, value []byte, than ports.Version) (ports.Entry, bool) {
	e, err := s.validator.entry(key, value)
	return e, err == nil && e.NewerThan(than)
}

// begin admits an operation. Its context ends with the caller's, after operationTimeout, or with
// Close. Close waits for done.
func (s *Store) begin(ctx context.Context) (_ context.Context, done func(), _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, errClosed
	}
	s.running.Add(1)
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	detach := context.AfterFunc(s.closing, cancel)
	return ctx, func() {
		detach()
		cancel()
		s.running.Done()
	}, nil
}

// Close leaves the DHT: it ends running operations, waits for them, and stops serving. The Store
// then returns errors. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	s.cancel()
	s.host.Network().StopNotify(s.cuts)
	s.running.Wait()
	gcErr := s.local.Close()
	// The library would serve until the host closes, and leave its streams open.
	s.host.RemoveStreamHandler(s.protocol)
	err := errors.Join(gcErr, s.dht.Close())
	for _, c := range s.host.Network().Conns() {
		for _, stream := range c.GetStreams() {
			if stream.Protocol() == s.protocol {
				_ = stream.Reset()
			}
		}
	}
	return err
}
