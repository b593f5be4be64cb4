package domain

import (
	"container/list"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// maxMisses is how many refreshes in a row find nothing before a PeerID is
// forgotten: the first may have run while the record was on its way.
const maxMisses = 2

// knownSet holds the known PeerIDs that are not alive here, oldest first. With the live entries
// they are the known set: the PeerIDs that a native has heard of and looks up. PeerIDs that were
// alive here are apart from PeerIDs that were never found. Any peer can make up the
// latter, so they go first, and are looked up last.
type knownSet struct {
	mu    sync.Mutex
	byID  map[ports.PeerID]*list.Element
	lost  list.List // of *unfound
	never list.List // of *unfound
}

type unfound struct {
	id     ports.PeerID
	in     *list.List
	misses int
}

func newKnownSet() *knownSet { return &knownSet{byID: make(map[ports.PeerID]*list.Element)} }

// add makes id known, and evicts the oldest PeerIDs over limit, the never found first.
// The limit may be lower than it was at the last add.
func (k *knownSet) add(id ports.PeerID, lost bool, limit int) (evicted []ports.PeerID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.byID[id]; !ok {
		in := &k.never
		if lost {
			in = &k.lost
		}
		k.byID[id] = in.PushBack(&unfound{id: id, in: in})
	}
	for len(k.byID) > limit {
		oldest := k.never.Front()
		if oldest == nil {
			oldest = k.lost.Front()
		}
		gone := oldest.Value.(*unfound).id
		k.drop(gone)
		evicted = append(evicted, gone)
	}
	return evicted
}

// remove forgets id: its entry is in the live table now.
func (k *knownSet) remove(id ports.PeerID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(id)
}

// missed counts a refresh that did not find id, and reports whether it forgot id.
func (k *knownSet) missed(id ports.PeerID) (forgotten bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.byID[id]
	if !ok {
		return false
	}
	u := e.Value.(*unfound)
	if u.misses++; u.misses < maxMisses {
		return false
	}
	k.drop(id)
	return true
}

func (k *knownSet) drop(id ports.PeerID) {
	if e, ok := k.byID[id]; ok {
		e.Value.(*unfound).in.Remove(e)
		delete(k.byID, id)
	}
}

// all returns every PeerID: first those that were alive here, then those never found.
func (k *knownSet) all() []ports.PeerID {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids := make([]ports.PeerID, 0, len(k.byID))
	for _, in := range []*list.List{&k.lost, &k.never} {
		for e := in.Front(); e != nil; e = e.Next() {
			ids = append(ids, e.Value.(*unfound).id)
		}
	}
	return ids
}

func (k *knownSet) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.byID)
}
