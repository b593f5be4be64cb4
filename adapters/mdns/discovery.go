package mdns

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/opencloud/ocnode/ports"
)

const (
	domain = "local"
	// dnsaddr begins each string of a TXT record.
	dnsaddr = "dnsaddr="
	// listenFor is how long a Find waits for answers: natives spread theirs over 120 ms,
	// and a wireless link that saves power takes 300 ms to hand on a question. What is
	// missed then is found by the next Find.
	listenFor = time.Second
	// retryEvery is how often a native tries to answer again that could not: it has no
	// address yet, or no interface takes part in multicast.
	retryEvery = 10 * time.Second
	// port is the port of the SRV record. Some readers want an SRV record, and no reader needs its
	// port: each dnsaddr has a port of its own.
	port = 4001
	// joinMin and joinMax bound the pause between two looks for natives to join, which
	// doubles: a question to the whole link each time. A native that comes asks at once, so
	// that this is for those whose questions were lost.
	joinMin, joinMax = 2 * time.Second, time.Minute
	// dialTimeout bounds one attempt to connect, on a local network.
	dialTimeout = 5 * time.Second
	// maxFound bounds the natives of one Find, and maxAddrs the addresses of one native: a
	// link may be large, and anybody on it may answer.
	maxFound, maxAddrs = 64, 32
)

// Discovery finds natives on the local network.
type Discovery struct {
	host    host.Host
	service string
	addrs   func() []string
	log     *slog.Logger
	moved   chan struct{}
}

var _ ports.Discovery = (*Discovery)(nil)

// New returns a discovery for the network with this prefix, such as "/opencloud". It does
// nothing by itself. A native is found at addrs, multiaddrs with the best first. log gets what
// goes wrong.
func New(h host.Host, prefix string, addrs func() []string, log *slog.Logger) *Discovery {
	return &Discovery{host: h, service: Service(prefix), addrs: addrs, log: log, moved: make(chan struct{}, 1)}
}

// Service returns the name of the DNS-SD service of the network with this prefix; its
// first part has the 15 bytes that DNS-SD allows.
func Service(prefix string) string {
	sum := sha256.Sum256([]byte(prefix))
	return fmt.Sprintf("_ocnode-%x._udp", sum[:4])
}

// Moved has Advertise answer with the addresses of now. Call it when they have changed. It does
// not block.
func (d *Discovery) Moved() {
	select {
	case d.moved <- struct{}{}:
	default: // it is to come
	}
}

// Advertise implements ports.Discovery. It answers with the addresses that the node has at that
// time, the best first.
func (d *Discovery) Advertise(ctx context.Context) error {
	complained := false
	for ctx.Err() == nil {
		server, err := d.answer()
		again := (<-chan time.Time)(nil)
		if err != nil {
			if !complained {
				d.log.Warn("not found by mdns so far; trying on", "error", err,
					"hint", "it takes an interface with multicast, and host.listen with an address that others on the link can reach")
			}
			complained = true
			again = time.After(retryEvery)
		}
		select {
		case <-ctx.Done():
		case <-again:
		case <-d.moved:
		}
		if err == nil {
			server.Shutdown()
		}
	}
	return nil
}

// answer answers questions for the service until the server is shut down. libp2p's own service
// would look around, too, and for as long as it answers. It would answer with interfaces as they
// were a minute ago.
func (d *Discovery) answer() (*zeroconf.Server, error) {
	var texts, ips []string
	for _, text := range d.addrs() {
		addr, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, err
		}
		texts = append(texts, dnsaddr+addr.String()+"/p2p/"+d.host.ID().String())
		if ip, err := manet.ToIP(addr); err == nil && !slices.Contains(ips, ip.String()) {
			ips = append(ips, ip.String())
		}
	}
	if len(ips) == 0 {
		return nil, errors.New("this node has no IP address")
	}
	// The name says nothing: a PeerID is longer than a label of DNS may be.
	name := strings.ToLower(rand.Text())
	return zeroconf.RegisterProxy(name, d.service, domain, port, name, ips, texts, nil)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Join connects this node to the natives that it finds, until ctx ends: at once, and from
// time to time, for those that have come since. Who keeps connected whom it has met keeps
// them.
func (d *Discovery) Join(ctx context.Context) error {
	for wait := joinMin; ctx.Err() == nil; wait = min(2*wait, joinMax) {
		var joining sync.WaitGroup
		err := d.Find(ctx, func(f ports.Found) {
			id, err := peer.Decode(string(f.PeerID))
			if err != nil || d.host.Network().Connectedness(id) == network.Connected {
				return
			}
			info := peer.AddrInfo{ID: id}
			for _, addr := range f.Addrs {
				info.Addrs = append(info.Addrs, ma.StringCast(addr))
			}
			joining.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				if err := d.host.Connect(ctx, info); err != nil {
					d.log.Debug("native found and not reached", "peerID", id, "addrs", f.Addrs, "error", err)
				}
			})
		})
		joining.Wait()
		if err != nil {
			d.log.Debug("nobody is found", "error", err)
		}
		pause(ctx, wait)
	}
	return nil
}

// Find implements ports.Discovery.
func (d *Discovery) Find(ctx context.Context, found func(ports.Found)) error {
	ctx, cancel := context.WithTimeout(ctx, listenFor)
	defer cancel()
	told := make(map[peer.ID]bool)
	err := browse(ctx, d.service, func(text []string) {
		for _, info := range d.read(text) {
			if len(told) >= maxFound || told[info.ID] {
				continue
			}
			if addrs := d.dialable(info); len(addrs) > 0 {
				told[info.ID] = true
				found(ports.Found{PeerID: ports.PeerID(info.ID.String()), Addrs: addrs})
			}
		}
	})
	if err != nil {
		return fmt.Errorf("mdns: %w", err)
	}
	return nil
}

// read returns the natives that a TXT record tells of, without this node itself.
func (d *Discovery) read(text []string) []peer.AddrInfo {
	var addrs []ma.Multiaddr
	for _, s := range text {
		addr, err := ma.NewMultiaddr(strings.TrimPrefix(s, dnsaddr))
		if err != nil || !strings.HasPrefix(s, dnsaddr) {
			continue
		}
		if _, id := peer.SplitAddr(addr); id != "" && id != d.host.ID() {
			addrs = append(addrs, addr)
		}
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil // none of them is without a PeerID
	}
	return infos
}

// dialable returns the addresses of info that this host has a transport for, in their order.
func (d *Discovery) dialable(info peer.AddrInfo) (addrs []string) {
	for _, addr := range info.Addrs {
		text := addr.String()
		if len(addrs) < maxAddrs && d.host.Network().CanDial(info.ID, addr) && !slices.Contains(addrs, text) {
			addrs = append(addrs, text)
		}
	}
	return addrs
}
