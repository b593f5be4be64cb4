package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/opencloud/ocnode/ports"
)

const (
	// DefaultTopic is the contract's: natives on one topic hear each other.
	DefaultTopic = "oc-indexer-registry"
	// maxPeerIDBytes bounds an announcement. PeerIDs in use have 46 and 52 bytes.
	maxPeerIDBytes = 128
	// maxMessageBytes bounds an announcement with its author, an RSA key and its signature: with
	// 8,192 bits, libp2p's longest, 2,200 bytes. maxNumberBytes bounds what its author numbers
	// it with, of which 8 are in use: the library keeps that for two minutes.
	maxMessageBytes, maxNumberBytes = 3 << 10, 64
	// burst is how many announcements may wait at each step, to be sent to a peer, to
	// be verified, to be heard. With the library's 32, a native that joins and puts
	// a thousand entries again would lose most of its announcements.
	burst = 4096
)

// Protocols are those that natives gossip by.
var Protocols = pubsub.GossipSubDefaultProtocols

var errClosed = errors.New("the announcer is closed")

// Config says where a native announces.
type Config struct {
	// Topic is DefaultTopic if "".
	Topic string
	// Natives are the authors that are heard and the neighbours that hand on; nil is
	// everybody. It is called concurrently and each time anew, and must not block. One that
	// is none any more is in the mesh until something comes from it, or its connection ends.
	Natives func(ports.PeerID) bool
	// Followers are the natives that need no announcement of a renewal; nil is none.
	Followers Followers
	// Metrics takes the Announcer's metrics; nil for none. It must be the registerer of
	// this Announcer alone.
	Metrics prometheus.Registerer
	// Log is the library's logger. nil logs nothing.
	Log *slog.Logger
}

// Announcer announces PeerIDs on a GossipSub topic.
type Announcer struct {
	self     peer.ID
	topic    *pubsub.Topic
	audience *audience
	watching sync.WaitGroup
	cancel   context.CancelFunc // ends all goroutines, the library's too

	mu     sync.Mutex
	closed bool
	stop   func() // of the running listener; nil without one
}

var (
	_ ports.Announcer = (*Announcer)(nil)
	_ ports.Strangers = (*Announcer)(nil)
	_ ports.Audience  = (*Announcer)(nil)
)

// New joins the topic over h, whose private key signs. It passes messages on
// between the natives only while somebody listens. The library starts goroutines of
// its own, so Close must be called, before h is closed.
func New(h host.Host, cfg Config) (*Announcer, error) {
	name := cmp.Or(cfg.Topic, DefaultTopic)
	log := cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	g := newGate(h, cfg.Natives)
	opts := append(options(name, log), pubsub.WithBlacklist(outsiders{g}))
	if cfg.Metrics != nil {
		m, err := newMetrics(cfg.Metrics, g.refused)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("metrics of the topic %q: %w", name, err)
		}
		opts = append(opts, pubsub.WithRawTracer(m))
	}
	topic, err := join(ctx, g, name, opts)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("join topic %q: %w", name, err)
	}
	events, err := topic.EventHandler()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("join topic %q: %w", name, err)
	}
	a := &Announcer{self: h.ID(), topic: topic, audience: newAudience(h.ID(), cfg.Followers), cancel: cancel}
	a.watching.Go(func() {
		defer events.Cancel()
		a.audience.watch(ctx, events)
	})
	return a, nil
}

func join(ctx context.Context, h host.Host, name string, opts []pubsub.Option) (*pubsub.Topic, error) {
	ps, err := pubsub.NewGossipSub(ctx, h, opts...)
	if err != nil {
		return nil, err
	}
	// Inline: a microsecond's work is not worth a goroutine.
	if err := ps.RegisterTopicValidator(name, validate, pubsub.WithValidatorInline(true)); err != nil {
		return nil, err
	}
	return ps.Join(name)
}

func options(name string, log *slog.Logger) []pubsub.Option {
	// Whom a peer that leaves the mesh tells of is not dialled: anybody can sign for made-up
	// peers at addresses of others. Natives find each other by the DHT.
	params := pubsub.DefaultGossipSubParams()
	params.PrunePeers = 0
	return []pubsub.Option{
		pubsub.WithGossipSubParams(params),
		pubsub.WithLogger(log),
		pubsub.WithRPCLogger(log),
		pubsub.WithAppSpecificRpcInspector(slim),
		pubsub.WithPeerOutboundQueueSize(burst),
		pubsub.WithValidateQueueSize(burst),
		// To every listener that is connected, not to the mesh alone: a mesh takes seconds
		// to mend when a native joins or leaves, and meanwhile loses announcements.
		pubsub.WithFloodPublish(true),
		// What strangers subscribe to is memory too.
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(name)),
	}
}

// slim drops messages whose number is long, before the library remembers it.
func slim(_ peer.ID, rpc *pubsub.RPC) error {
	rpc.Publish = slices.DeleteFunc(rpc.Publish, func(m *pb.Message) bool {
		return len(m.GetSeqno()) > maxNumberBytes
	})
	return nil
}

func validate(_ context.Context, _ peer.ID, m *pubsub.Message) bool {
	return isPeerID(m.GetData()) && proto.Size(m.Message) <= maxMessageBytes
}

// isPeerID reports whether text is a PeerID in its canonical form.
func isPeerID(text []byte) bool {
	if len(text) > maxPeerIDBytes {
		return false
	}
	id, err := peer.Decode(string(text))
	return err == nil && id.String() == string(text)
}

// Announce implements ports.Announcer.
func (a *Announcer) Announce(ctx context.Context, id ports.PeerID) error {
	if !isPeerID([]byte(id)) {
		return fmt.Errorf("announce %.80q: not a PeerID in its canonical form", id)
	}
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return errClosed
	}
	if err := a.topic.Publish(ctx, []byte(id)); err != nil {
		return fmt.Errorf("announce %s: %w", id, err)
	}
	return nil
}

// Listen implements ports.Announcer.
func (a *Announcer) Listen(hear func(ports.Announcement)) (stop func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errClosed
	}
	if a.stop != nil {
		return nil, errors.New("somebody listens already: stop that first")
	}
	sub, err := a.topic.Subscribe(
		pubsub.WithBufferSize(burst),
		pubsub.WithMessageFilter(func(m *pubsub.Message) bool { return m.GetFrom() != a.self }),
	)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", a.topic, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var listening sync.WaitGroup
	listening.Go(func() { deliver(ctx, sub, hear) })
	a.stop = sync.OnceFunc(func() {
		cancel()
		listening.Wait()
		sub.Cancel()
		a.mu.Lock()
		a.stop = nil
		a.mu.Unlock()
	})
	return a.stop, nil
}

func deliver(ctx context.Context, sub *pubsub.Subscription, hear func(ports.Announcement)) {
	for {
		m, err := sub.Next(ctx)
		if err != nil || ctx.Err() != nil { // Next may prefer a waiting message to an ended context
			return
		}
		// The validator let it pass, so the text is canonical.
		hear(ports.Announcement{
			PeerID: ports.PeerID(m.GetData()), From: ports.PeerID(m.GetFrom().String()), Via: ports.PeerID(m.ReceivedFrom.String()),
		})
	}
}

// Peers returns how many other nodes this one knows that listen to the topic.
func (a *Announcer) Peers() int { return len(a.topic.ListPeers()) }

// Strangers implements ports.Strangers.
func (a *Announcer) Strangers() bool { return a.audience.strangers() }

// Audience implements ports.Audience.
func (a *Announcer) Audience() uint64 { return a.audience.sum.Load() }

// Close stops the listener and leaves the topic. The Announcer returns errors from
// then on. It may be called twice. What the library still has to end, it ends by
// itself, at the latest when the host closes.
func (a *Announcer) Close() error {
	a.mu.Lock()
	a.closed = true
	stop := a.stop
	a.mu.Unlock()
	if stop != nil {
		stop()
	}
	a.cancel()
	a.watching.Wait()
	return nil
}
