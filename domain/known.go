package domain

import (
	"container/list"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// maxMisses is how many refreshes in a row find nothing before a PeerID is
// forgotten: one may have run while the record was on its way.
const maxMisses = 2

// knownSet holds the PeerIDs that are known and not alive here, oldest first; with the live
// entries they are the known set, what a native has heard of and finds worth looking up. Those
// that were alive here are apart from those that were never found, which anybody
// can make up: these go first, and are looked up last.
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

// add makes id known and returns who has to go, the oldest first, so that there are
// no more than limit. The limit may have become lower since the last time.
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

// remove takes id out: it is alive here, and the live table knows it now.
func (k *knownSet) remove(id ports.PeerID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(id)
}

// missed counts a refresh that did not find id, and reports whether it is thereby forgotten.
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

// all returns every PeerID, those that were alive here first.
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
