package gossip

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/ports"
)

// Followers are the natives that follow this native. All methods are called concurrently and must not block.
type Followers interface {
	// Share reports whether all of natives follow this native, and each tells this audience as its own.
	Share(audience uint64, natives []ports.PeerID) bool
	// Revision is another number after each change of what Share reports.
	Revision() uint64
}

// audience is whom the announcements of this node reach: the listeners of the topic that it is connected
// to, and itself. The question whether strangers are among them comes with each renewal, and its answer
// rarely changes. So the answer is kept, by the audience and the followers that it was made of.
type audience struct {
	followers Followers
	self      uint64 // the hash of this node

	mu    sync.Mutex // held by each change, and while an answer is made
	peers map[peer.ID]ports.PeerID
	sum   atomic.Uint64
	// changes counts the changes of peers.
	changes atomic.Uint64
	answer  atomic.Pointer[answer]
}

// answer says whether strangers are in the audience, after so many changes of it and of the followers.
type answer struct {
	changes, revision uint64
	strangers         bool
}

func newAudience(self peer.ID, followers Followers) *audience {
	a := &audience{followers: followers, self: hashOf(self), peers: make(map[peer.ID]ports.PeerID)}
	a.sum.Store(a.self)
	return a
}

// hashOf is the part of a node in a sum of an audience: see docs/protocol.md.
func hashOf(id peer.ID) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:8])
}

// watch takes in the peers that come to the topic and leave it, until ctx ends.
func (a *audience) watch(ctx context.Context, events *pubsub.TopicEventHandler) {
	for {
		e, err := events.NextPeerEvent(ctx)
		if err != nil {
			return
		}
		a.change(e.Peer, e.Type == pubsub.PeerJoin)
	}
}

func (a *audience) change(id peer.ID, comes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, is := a.peers[id]; is == comes {
		return
	}
	if comes {
		a.peers[id] = ports.PeerID(id.String())
		a.sum.Add(hashOf(id))
	} else {
		delete(a.peers, id)
		a.sum.Add(-hashOf(id))
	}
	a.changes.Add(1)
}

// strangers reports whether a node may hear announcements by way of the audience that does not follow
// this native. The natives of the audience hear of renewals as they follow. If each of them has the same
// audience, no other node hears what they hand on.
func (a *audience) strangers() bool {
	if a.followers == nil {
		return true
	}
	if is := a.answer.Load(); is != nil && is.changes == a.changes.Load() && is.revision == a.followers.Revision() {
		return is.strangers
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	is := &answer{changes: a.changes.Load(), revision: a.followers.Revision()}
	natives := make([]ports.PeerID, 0, len(a.peers))
	for _, id := range a.peers {
		natives = append(natives, id)
	}
	is.strangers = !a.followers.Share(a.sum.Load(), natives)
	a.answer.Store(is)
	return is.strangers
}
