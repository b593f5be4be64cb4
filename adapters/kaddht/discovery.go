package kaddht

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/discovery"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	drouting "github.com/libp2p/go-libp2p/p2p/discovery/routing"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/opencloud/ocnode/ports"
)

const (
	// nativesSuffix, after the prefix, names the key that natives provide.
	nativesSuffix = "/native"
	// advertiseEvery is the interval of a native's advertisements. A record lasts three
	// intervals: a lost advertisement does not hide the native, and a dead native is a wrong
	// hint for at most a quarter of an hour.
	advertiseEvery = 5 * time.Minute
	provideFor     = 3 * advertiseEvery
	// advertiseSoon is the least time between an advertisement and the next after a join: half a
	// network may join at once. It doubles with each such advertisement, up to advertiseEvery.
	// Otherwise natives that come and go would cost all others.
	advertiseSoon = time.Second
	// maxFound bounds the results of a Find, since strangers can advertise themselves too: many
	// times the three natives that an indexer takes. A server takes ports.MaxFollowed, since natives meet
	// all others.
	maxFound = 64
	// maxSought bounds those of them that are looked up, as their record has no address.
	maxSought = 64
	// maxProviderAddrs bounds a native's addresses, kept or sent: enough for a host with several
	// interfaces, two transports and both families.
	maxProviderAddrs = 32
)

var _ ports.Discovery = (*Store)(nil)

// nativesNamespace is the namespace that natives provide under this prefix.
func nativesNamespace(prefix protocol.ID) string { return string(prefix) + nativesSuffix }

// Advertise implements ports.Discovery. Readers find a native once a server has its record. A
// native alone in the DHT sends its record to later servers.
func (s *Store) Advertise(ctx context.Context) error {
	soon := advertiseSoon
	for {
		s.advertise(ctx)
		said := time.Now()
		again, met := time.NewTimer(advertiseEvery), s.met
		for waits := true; waits; {
			select {
			case <-met:
				again.Reset(time.Until(said.Add(soon)))
				soon, met = min(2*soon, advertiseEvery), nil
			case <-again.C:
				waits = false
			case <-ctx.Done():
				again.Stop()
				return nil
			case <-s.closing.Done():
				again.Stop()
				return nil
			}
		}
		if met != nil { // no server joined during the interval
			soon = advertiseSoon
		}
	}
}

func (s *Store) advertise(ctx context.Context) {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return
	}
	defer done()
	if _, err := drouting.NewRoutingDiscovery(s.dht).Advertise(ctx, s.natives); err != nil {
		s.log.Debug("not advertised to all", "natives", s.natives, "error", err)
	}
}

// Find implements ports.Discovery.
func (s *Store) Find(ctx context.Context, found func(ports.Found)) error {
	ctx, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	most := maxFound
	if s.server {
		most = ports.MaxFollowed
	}
	providers, err := drouting.NewRoutingDiscovery(s.dht).FindPeers(ctx, s.natives, discovery.Limit(most))
	if err != nil {
		return err
	}
	reported := make(map[peer.ID]bool)
	report := func(info peer.AddrInfo) {
		if addrs := s.dialable(info); len(addrs) > 0 && !reported[info.ID] {
			reported[info.ID] = true
			found(ports.Found{PeerID: ports.PeerID(info.ID.String()), Addrs: addrs})
		}
	}
	var bare []peer.ID // reported without a dialable address
	for info := range providers {
		if info.ID == s.host.ID() || info.ID.Validate() != nil || !s.gate.native(info.ID) {
			continue
		}
		if report(info); !reported[info.ID] && len(bare) < maxSought {
			bare = append(bare, info.ID)
		}
	}
	for _, id := range bare {
		if reported[id] || ctx.Err() != nil {
			continue
		}
		if info, err := s.dht.FindPeer(ctx, id); err == nil {
			report(info)
		}
	}
	return nil
}

// dialable returns the addresses of info for which this host has a transport.
func (s *Store) dialable(info peer.AddrInfo) (addrs []string) {
	for _, addr := range ma.Unique(slices.Clone(info.Addrs)) {
		if len(addrs) < maxProviderAddrs && s.host.Network().CanDial(info.ID, withoutName(addr)) {
			addrs = append(addrs, addr.String())
		}
	}
	return addrs
}

// anyIP stands for the address behind a name.
var anyIP = ma.StringCast("/ip4/192.0.2.1")

// withoutName returns addr with an IP address in place of a DNS name at its start: the library
// knows a transport for it only then.
func withoutName(addr ma.Multiaddr) ma.Multiaddr {
	if len(addr) > 0 {
		switch addr[0].Code() {
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			return ma.Join(anyIP, addr[1:])
		}
	}
	return addr
}

// fewAddrs returns the addresses of a peer that are kept and sent.
func fewAddrs(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs[:min(len(addrs), maxProviderAddrs)] }
