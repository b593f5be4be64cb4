package modules_test

// Natives that lie, as whole nodes of the simulated network: others find them, follow them and
// trust them like any native of an open network.

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/fx"

	"github.com/opencloud/ocnode/adapters/stream"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// lie is a way to lie. The rest of a liar is honest.
type lie string

const (
	// lieTaking takes leases and tells nobody of them.
	lieTaking lie = "takes leases and tells nobody"
	// lieInventing tells natives of indexers that there are not.
	lieInventing lie = "tells of inventions"
	// lieEmpty tells natives that its table is empty.
	lieEmpty lie = "tells an empty table"
	// lieAnswering finds nobody that lives, and whoever does not.
	lieAnswering lie = "answers look-ups falsely"
)

var lies = []lie{lieTaking, lieInventing, lieEmpty, lieAnswering}

// liar is what a lying native serves in place of its registry.
type liar struct {
	ports.Native
	lie      lie
	self     ports.PeerID
	now      func() time.Time
	invented []ports.PeerID
}

// The times of the seed, by which the simulated network lives.
const ttl, heartbeat = 66 * time.Second, 60 * time.Second

func (l *liar) lease() ports.Lease {
	return ports.Lease{ExpiresAt: l.now().Add(ttl), TTL: ttl, Heartbeat: heartbeat, Now: l.now()}
}

func (l *liar) listed(id ports.PeerID) ports.Listed {
	const addr = "/ip4/192.0.2.66/tcp/666"
	return ports.Listed{
		Entry: ports.Entry{PeerID: id, Addr: addr, Addrs: []string{addr}, Native: l.self, SeenAt: l.now(), ExpiresAt: l.now().Add(ttl)},
		State: ports.StateLive, Source: ports.SourceOwn, Remaining: ttl,
	}
}

// Register implements ports.Native.
func (l *liar) Register(ctx context.Context, sender ports.PeerID, r ports.Registration) (ports.Lease, error) {
	if l.lie == lieTaking {
		return l.lease(), nil
	}
	return l.Native.Register(ctx, sender, r)
}

// LookUp implements ports.Native.
func (l *liar) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	answer, err := l.Native.LookUp(ctx, sender, id)
	switch {
	case l.lie != lieAnswering:
		return answer, err
	case err == nil:
		return ports.Answer{}, ports.ErrNotFound
	}
	return ports.Answer{Listed: l.listed(id)}, nil
}

// Watch implements ports.Native.
func (l *liar) Watch(ctx context.Context, sender ports.PeerID, w ports.WatchRequest) iter.Seq2[ports.Batch, error] {
	if !w.Own || l.lie != lieEmpty && l.lie != lieInventing {
		return l.Native.Watch(ctx, sender, w)
	}
	return func(yield func(ports.Batch, error) bool) {
		batch := ports.Batch{Reset: ports.ResetNew}
		for kind := ports.ChangeSnapshot; ; kind = ports.ChangeRenewed {
			if l.lie == lieInventing {
				for ids := range slices.Chunk(l.invented, 100) {
					for _, id := range ids {
						batch.Changes = append(batch.Changes, ports.Change{Kind: kind, Listed: l.listed(id)})
					}
					if batch.Now = l.now(); !yield(batch, nil) {
						return
					}
					batch = ports.Batch{}
				}
			}
			batch.Cursor, batch.Now, batch.Live = "1", l.now(), len(l.invented)
			// It is not silent, so nobody gives it up, and renews what it invented.
			for range 15 {
				if !yield(batch, nil) {
					return
				}
				batch = ports.Batch{Cursor: "1", Now: l.now()}
				select {
				case <-time.After(2 * time.Second):
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// lying is the transport of a liar.
type lying struct {
	ports.Transport
	l *liar
}

func (t lying) Serve(n ports.Native) (func(), error) {
	t.l.Native = n
	return t.Transport.Serve(t.l)
}

// liar makes a native that lies and joins through others. invented are the indexers that it tells
// of, if it does. The caller starts and stops it.
func (s *simulation) liar(name string, how lie, invented []ports.PeerID, through ...*member) *member {
	s.t.Helper()
	m := s.member(name, map[string]string{"modules": "native,dht,gossip", "host.bootstrap": addrsOf(through...)})
	m.identity()
	l := &liar{lie: how, now: m.clock.now, self: m.id(), invented: invented}
	m.env = modules.Environment{Options: []fx.Option{fx.Decorate(func(t ports.Transport) ports.Transport { return lying{t, l} })}}
	return m
}

// fake is a native that is a host and a transport, and nothing else. It has an empty table.
type fake struct {
	host      host.Host
	transport *stream.Transport
	stopServe func()
}

// fake makes the i-th of them, each in a site of its own.
func (s *simulation) fake(i int) *fake {
	s.t.Helper()
	f := &fake{host: s.bare(fmt.Sprintf("%d.%d.1.1", 20+i/200, i%200))}
	var err error
	if f.transport, err = stream.New(f.host, nobody{}, slog.New(slog.DiscardHandler)); err != nil {
		s.t.Fatal(err)
	}
	empty := &liar{lie: lieEmpty, now: time.Now}
	if f.stopServe, err = f.transport.Serve(porttest.Native{OnWatch: empty.Watch}); err != nil {
		s.t.Fatal(err)
	}
	return f
}

// joins connects it to a native.
func (f *fake) joins(n *member) {
	n.t.Helper()
	info, err := peer.AddrInfoFromString(n.addr())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := f.host.Connect(n.t.Context(), *info); err != nil {
		n.t.Fatal(err)
	}
}

func (f *fake) stop() {
	f.stopServe()
	f.transport.Close()
	_ = f.host.Close()
}
