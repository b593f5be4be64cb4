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
	// nativesSuffix is what is appended to the prefix to name what natives provide.
	nativesSuffix = "/native"
	// advertiseEvery is how often a native says again that it is one: what was said lasts
	// for three times of that, so one that is lost does not hide it, and one that died is
	// a hint to nowhere for a quarter of an hour at most.
	advertiseEvery = 5 * time.Minute
	provideFor     = 3 * advertiseEvery
	// advertiseSoon is how long after it was said last it may be said again because
	// somebody has joined: half a network may join at once. It doubles with each such
	// time, up to advertiseEvery, or natives that come and go would cost all others.
	advertiseSoon = time.Second
	// maxFound bounds what one Find finds, since strangers can advertise themselves too:
	// many times the three natives that an indexer takes.
	maxFound = 64
	// maxProviderAddrs bounds the addresses that are kept and told of one native: those of
	// a host with several interfaces, two transports and both families.
	maxProviderAddrs = 32
)

var _ ports.Discovery = (*Store)(nil)

// nativesNamespace names what the natives of the network with this prefix provide.
func nativesNamespace(prefix protocol.ID) string { return string(prefix) + nativesSuffix }

// Advertise implements ports.Discovery. Others find a native once one of them has been
// told; a native alone in the DHT tells those that join.
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
		if met != nil { // nobody joined for as long as that
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
	providers, err := drouting.NewRoutingDiscovery(s.dht).FindPeers(ctx, s.natives, discovery.Limit(maxFound))
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
	var bare []peer.ID // told of without an address that would do
	for info := range providers {
		if info.ID == s.host.ID() || info.ID.Validate() != nil || !s.gate.native(info.ID) {
			continue
		}
		if report(info); !reported[info.ID] {
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

// dialable returns the addresses of info that this host has a transport for.
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

// withoutName returns addr with an IP address for the name that it begins with, if it is
// one that is resolved when it is dialled: only then the library knows a transport for it.
func withoutName(addr ma.Multiaddr) ma.Multiaddr {
	if len(addr) > 0 {
		switch addr[0].Code() {
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			return ma.Join(anyIP, addr[1:])
		}
	}
	return addr
}

// fewAddrs is what is kept and told of a peer's addresses.
func fewAddrs(addrs []ma.Multiaddr) []ma.Multiaddr { return addrs[:min(len(addrs), maxProviderAddrs)] }
