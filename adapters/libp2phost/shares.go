package libp2phost

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// siteShare is the part that a site may have, one in so many: of the connections and of the
// streams that may be in their handshake, and of the streams of each of this product's protocols.
// Anybody can make identities, and hold with each what a peer may.
const siteShare = 2

// shares counts the streams that others have opened by their sites, which a resource manager
// does with connections alone.
type shares struct {
	siteOf func(netip.Addr) netip.Prefix
	// most is how many streams one site may have of a protocol; any number of one not named.
	most map[protocol.ID]int

	mu      sync.Mutex
	homes   map[peer.ID][]netip.Prefix // where each is connected from, the last connection last
	streams map[share]int
}

// share is what one site has of a protocol, "" while it is not said which.
type share struct {
	site  netip.Prefix
	proto protocol.ID
}

func newShares(l Limits) *shares {
	most := map[protocol.ID]int{"": l.streams() / transientShare / siteShare}
	for proto, n := range l.ofProtocols() {
		most[proto] = n / siteShare
	}
	return &shares{siteOf: l.site, most: most, homes: make(map[peer.ID][]netip.Prefix), streams: make(map[share]int)}
}

// connected counts one more connection of id, and disconnected one less.
func (s *shares) connected(id peer.ID, ip netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.homes[id] = append(s.homes[id], s.siteOf(ip))
}

func (s *shares) disconnected(id peer.ID, ip netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.homes[id]
	if i := slices.Index(h, s.siteOf(ip)); i >= 0 {
		h = slices.Delete(h, i, i+1)
	}
	if len(h) > 0 {
		s.homes[id] = h
	} else {
		delete(s.homes, id)
	}
}

// held is the place of one stream.
type held struct {
	shares *shares
	// in has no site if it is not counted, or no longer.
	in share
}

// open counts one more stream of id, or refuses it.
func (s *shares) open(id peer.ID, dir network.Direction) (*held, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &held{shares: s}
	homes := s.homes[id]
	if dir != network.DirInbound || len(homes) == 0 || !homes[len(homes)-1].IsValid() {
		return h, nil
	}
	site := homes[len(homes)-1]
	return h, h.take(share{site, ""})
}

// take counts h as one in, if there is room. The caller holds mu.
func (h *held) take(in share) error {
	if most, ok := h.shares.most[in.proto]; ok && h.shares.streams[in] >= most {
		return fmt.Errorf("site %s has %d streams already: %w", in.site, most, network.ErrResourceLimitExceeded)
	}
	h.in = in
	h.shares.streams[in]++
	return nil
}

// says is told which protocol a stream is of.
func (h *held) says(proto protocol.ID) error {
	h.shares.mu.Lock()
	defer h.shares.mu.Unlock()
	site := h.in.site
	if !site.IsValid() {
		return nil
	}
	h.leave()
	return h.take(share{site, proto})
}

func (h *held) done() {
	h.shares.mu.Lock()
	defer h.shares.mu.Unlock()
	h.leave()
}

// leave counts h no longer. The caller holds mu.
func (h *held) leave() {
	if !h.in.site.IsValid() {
		return
	}
	if h.shares.streams[h.in]--; h.shares.streams[h.in] == 0 {
		delete(h.shares.streams, h.in)
	}
	h.in = share{}
}
