package kaddht

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

const (
	// maxAsked bounds the questions of the survey at once. It is in no hurry.
	maxAsked = 8
	// maxHeard bounds the peers that a round of the survey asks on the word of others: some make them up.
	maxHeard = 64
	// askTimeout bounds a question, with its dial.
	askTimeout = 5 * time.Second
)

// survey keeps the list of servers until the Store closes. It asks each server, every ten minutes or so,
// for the servers near itself. A server knows its neighbours best, so together the answers name all
// servers. It also asks the servers that failed, at the end of their pause.
func (s *Store) survey() {
	for s.closing.Err() == nil {
		ask, next := s.servers.due(maxAsked)
		if len(ask) == 0 {
			select {
			case <-s.closing.Done():
			case <-s.servers.sooner:
			case <-time.After(time.Until(next)):
			}
			continue
		}
		heard := make(map[peer.ID]bool)
		for len(ask) > 0 && s.closing.Err() == nil {
			n := min(len(ask), maxAsked)
			for _, p := range s.askAll(ask[:n]) {
				if !heard[p] && len(heard) < maxHeard {
					heard[p] = true
					ask = append(ask, p)
				}
			}
			ask = ask[n:]
		}
	}
}

// askAll asks servers at once, and returns the servers that they name and this node has not met.
func (s *Store) askAll(all []peer.ID) (heard []peer.ID) {
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, p := range all {
		asking.Go(func() {
			for _, info := range s.ask(p) {
				if info.ID == s.host.ID() || info.ID.Validate() != nil || s.servers.knows(info.ID) || !s.gate.native(info.ID) {
					continue
				}
				if s.host.Network().Connectedness(info.ID) != network.Connected {
					s.host.Peerstore().AddAddrs(info.ID, fewAddrs(info.Addrs), peerstore.TempAddrTTL)
				}
				mu.Lock()
				heard = append(heard, info.ID)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	return heard
}

// ask asks p for the servers near itself. The answer may have p besides. A server that answers joins the
// list.
func (s *Store) ask(p peer.ID) []*peer.AddrInfo {
	ctx, cancel := context.WithTimeout(s.closing, askTimeout)
	defer cancel()
	infos, err := s.messenger.GetClosestPeers(ctx, p, p)
	switch {
	case s.closing.Err() != nil:
		return nil
	case err != nil:
		s.log.Debug("a server does not answer", "server", p, "error", err)
		s.servers.silent(p, s.host.Network().Connectedness(p) == network.Connected)
		return nil
	case s.servers.saw(p, true):
		signal(s.joined)
	}
	return infos[:min(len(infos), replicas+1)]
}
