package kaddht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	kbucket "github.com/libp2p/go-libp2p-kbucket"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultPrefix is the contract's: nodes of one prefix are one network.
	DefaultPrefix protocol.ID = "/opencloud"
	// kadSuffix is what the library appends to the prefix.
	kadSuffix = "/kad/1.0.0"
	// replicas is the number of nodes that an entry is put to, Kademlia's k.
	replicas = 20
	// operationTimeout bounds a Put or Get whose caller is more patient: the time that
	// the library waits for one peer's answer.
	operationTimeout = 10 * time.Second
	// secondThoughts is how long a Get whose first answer is there waits for a better one:
	// a node that was away still holds what its peers have replaced, and undoes a leave if
	// it happens to answer first. It is two round trips around the world, and a look-up's
	// nodes are asked side by side; a peer that hangs longer costs no more than this.
	secondThoughts = 200 * time.Millisecond
)

var errClosed = errors.New("the store is closed")

// Protocol is the protocol ID that the servers of the network with this prefix
// announce; "" is DefaultPrefix.
func Protocol(prefix protocol.ID) protocol.ID { return cmp.Or(prefix, DefaultPrefix) + kadSuffix }

// Config says which network a Store joins, and how.
type Config struct {
	// Prefix begins with "/"; "" is DefaultPrefix.
	Prefix protocol.ID
	// Server makes this node keep records for others and answer them; without it, the
	// node only asks.
	Server bool
	// Accept is the rule of the contract: nil, or why an entry may be neither stored
	// nor returned (expired, too far in the future, an address nobody could dial). It
	// knows the time by itself, must not block, and is called concurrently.
	Accept func(*ports.Entry) error
	// Read reads the claim of an entry's proof, without checking it.
	Read func(*ports.Entry) error
	// TTL is how long an entry lives. Records older than that, or than ports.RecordLife if
	// that is longer, and ports.ClockAllowance are forgotten: by then whatever was acceptable
	// has ended.
	TTL time.Duration
	// Natives are the peers that this node puts to and gets from, and that may store here
	// and be in the routing table; Readers are those that may ask besides. Both are called
	// concurrently and each time anew, and must not block; nil is everybody. Whoever changes
	// Natives calls Revise.
	Natives, Readers func(ports.PeerID) bool
	// MaxBytes bounds the memory of the records that this node holds; 0 is DefaultMaxBytes.
	// When it is full, any record gives way to a new one.
	MaxBytes int
	// Metrics takes the Store's metrics and the library's; nil for none. It must be the
	// registerer of this Store alone. The library has one set of metrics a process.
	Metrics prometheus.Registerer
	// Log gets what goes wrong between this node and the network, at debug level; the
	// library has its own logger. nil logs nothing.
	Log *slog.Logger
}

// Validate returns what is wrong with c, and what to do.
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
	data      *datastore
	provided  *providers
	// local reads and writes this node's own records without asking the network.
	local *records.ValueStore
	log   *slog.Logger
	// natives is what natives provide. joined and met are both told of who joins: the one
	// for Joined, the other for Advertise.
	natives     string
	joined, met chan struct{}
	watch       sync.Once

	// closing ends with Close, and with it whatever runs.
	closing context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

var _ ports.Store = (*Store)(nil)

// New joins the DHT over h: it serves at once if cfg says so, and takes in the
// peers that h is connected to, now or later. The library starts goroutines of its
// own, so Close must be called, before h is closed.
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
	s.closing, s.cancel = context.WithCancel(context.Background())

	mode := dht.ModeClient
	if cfg.Server {
		mode = dht.ModeServer
	}
	values := record.NamespacedValidator{namespace: s.validator}
	maxAge := max(cfg.TTL, ports.RecordLife) + ports.ClockAllowance
	s.data = newDatastore(cmp.Or(cfg.MaxBytes, DefaultMaxBytes), s.validator.keepsOld)
	s.local = records.NewValueStore(s.data, values, maxAge)

	var err, cacheErr error
	s.provided, err = newProviders(s.natives)
	cache, cacheErr := newUncached()
	if err := errors.Join(err, cacheErr); err != nil {
		s.cancel()
		return nil, fmt.Errorf("join the dht %s: %w", s.protocol, err)
	}
	s.dht, err = dht.New(guardedHost{h, s.gate},
		dht.ProtocolPrefix(prefix),
		dht.Mode(mode), // never auto: on a private network nobody would become a server
		dht.BucketSize(replicas),
		dht.Validator(values),
		dht.ValueDatastore(s.data),
		dht.MaxRecordAge(maxAge),
		dht.ValueGCInterval(maxAge),
		dht.RoutingTableFilter(s.admit),
		// Those that others tell of become part of the table without being asked about there.
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
	if cfg.Metrics != nil {
		if err := s.register(cfg.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("metrics of the dht: %w", err), s.Close())
		}
	}
	return s, nil
}

// admit admits the natives to the routing table. It is asked about each peer that
// identified itself, before the first one is added and whenever one comes back,
// which makes it the one place to hook up Joined: the table's own callback may not
// be changed once the table is in use.
func (s *Store) admit(d any, p peer.ID) bool {
	if !s.gate.native(p) {
		return false
	}
	table := d.(*dht.IpfsDHT).RoutingTable()
	s.watch.Do(func() {
		added := table.PeerAdded
		table.PeerAdded = func(p peer.ID) {
			added(p)
			s.signal()
		}
	})
	if table.Find(p) != "" { // it was gone for less time than the table takes to notice
		s.signal()
	}
	return true
}

func (s *Store) signal() {
	for _, c := range []chan struct{}{s.joined, s.met} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Joined implements ports.Store.
func (s *Store) Joined() <-chan struct{} { return s.joined }

// Revise has a change of Config.Natives take effect on the routing table. Those that are
// natives now are admitted when they identify themselves next.
func (s *Store) Revise() {
	table := s.dht.RoutingTable()
	for _, p := range table.ListPeers() {
		if !s.gate.native(p) {
			table.RemovePeer(p)
		}
	}
}

// Peers returns the size of the routing table: how many servers this node knows
// and could put to.
func (s *Store) Peers() int { return s.dht.RoutingTable().Size() }

// Records returns how many records this node holds, expired ones included, its own
// and those it keeps for others.
func (s *Store) Records() int { return s.data.len() }

// Put implements ports.Store.
//
// The library's PutValue does not say how many took a value, calls the loss to a
// newer record an error, and spends all its time on a peer that hangs. So this
// looks up the nearest nodes for at most half of the time, and asks each by itself.
func (s *Store) Put(ctx context.Context, e ports.Entry) (int, error) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer done()

	value, err := wire.EncodeEntry(e)
	if err != nil {
		return 0, fmt.Errorf("put %.160q: %w", e.PeerID, err)
	}
	key := keyOf(e.PeerID)
	rec := record.MakePutRecord(key, value)
	switch err := s.local.Put(ctx, key, rec); {
	case errors.Is(err, records.ErrOldRecord):
		return 0, nil // whoever put the newer one told the others
	case err != nil:
		return 0, fmt.Errorf("put %s: %w", e.PeerID, err)
	}

	var took atomic.Int64
	var puts sync.WaitGroup
	for _, p := range s.nearest(ctx, key) {
		puts.Go(func() {
			if err := s.messenger.PutValue(ctx, p, rec); err != nil {
				s.log.Debug("replica not stored", "peerID", e.PeerID, "at", p, "error", err)
				return
			}
			took.Add(1)
		})
	}
	puts.Wait()
	return int(took.Load()), nil
}

// nearest returns the nodes nearest to key, or those it knows of when half of the
// time is over.
func (s *Store) nearest(ctx context.Context, key string) []peer.ID {
	deadline, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer cancel()
	peers, err := s.dht.GetClosestPeers(ctx, key)
	if err != nil {
		s.log.Debug("look-up of the nearest nodes cut short", "key", key, "error", err)
	}
	if len(peers) == 0 {
		peers = s.dht.RoutingTable().NearestPeers(kbucket.ConvertKey(key), replicas)
	}
	return peers
}

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
	// The stream ends when all near nodes have answered, or with its context.
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
		// The next look-up, ours or another's, finds it here. It has been judged already, and
		// a newer one that came meanwhile stays. To who is no server nobody puts the news
		// either, so that would keep what is over.
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

// begin admits an operation: its context ends when the caller's does, after
// operationTimeout, or with Close, which waits for done.
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

// Close leaves the DHT: it ends what runs, waits for it, and stops serving. The
// Store returns errors from then on. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return nil
	}
	s.cancel()
	s.running.Wait()
	// The library would go on serving until the host closes, and leave its streams open.
	s.host.RemoveStreamHandler(s.protocol)
	err := s.dht.Close()
	for _, c := range s.host.Network().Conns() {
		for _, stream := range c.GetStreams() {
			if stream.Protocol() == s.protocol {
				_ = stream.Reset()
			}
		}
	}
	return err
}
