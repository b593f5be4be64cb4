package domain

import (
	"encoding/binary"
	"sync"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// names gives small numbers to PeerIDs that many slots name: natives, and texts that are too long for
// a slot. A number stands for its PeerID for as long as a slot uses it. Its lock is taken behind that
// of a shard.
type names struct {
	fixed  [selfName + 1]unique.Handle[ports.PeerID]
	mu     sync.RWMutex
	byID   map[unique.Handle[ports.PeerID]]uint32
	byNum  []name
	unused []uint32
}

type name struct {
	id   unique.Handle[ports.PeerID]
	uses int
}

// noName and selfName are always in use, and not counted: most slots name this native.
const (
	noName uint32 = iota
	selfName
)

func newNames() *names {
	n := &names{byID: make(map[unique.Handle[ports.PeerID]]uint32), byNum: make([]name, selfName+1)}
	n.fix(noName, "")
	n.fix(selfName, "")
	return n
}

// fix has number i stand for id for ever.
func (n *names) fix(i uint32, id ports.PeerID) {
	n.fixed[i] = unique.Make(id)
	n.byNum[i].id, n.byID[n.fixed[i]] = n.fixed[i], i
}

// use returns the number of id, and counts one more use.
func (n *names) use(id ports.PeerID) uint32 { return n.useHandle(unique.Make(id)) }

func (n *names) useHandle(id unique.Handle[ports.PeerID]) uint32 {
	switch id {
	case n.fixed[noName]:
		return noName
	case n.fixed[selfName]:
		return selfName
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	i, ok := n.byID[id]
	switch last := len(n.unused) - 1; {
	case ok:
	case last >= 0:
		i = n.unused[last]
		n.unused = n.unused[:last]
		n.byNum[i], n.byID[id] = name{id: id}, i
	default:
		i = uint32(len(n.byNum))
		n.byNum = append(n.byNum, name{id: id})
		n.byID[id] = i
	}
	n.byNum[i].uses++
	return i
}

// uses returns how many uses of id there are, 0 of a PeerID that is always in use.
func (n *names) uses(id unique.Handle[ports.PeerID]) int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byNum[n.byID[id]].uses
}

// number returns the number of id, noName if it has none.
func (n *names) number(id ports.PeerID) uint32 {
	handle := unique.Make(id)
	if handle == n.fixed[selfName] {
		return selfName
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byID[handle]
}

// drop counts one use less of number i.
func (n *names) drop(i uint32) {
	if i <= selfName {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	is := &n.byNum[i]
	if is.uses--; is.uses == 0 {
		delete(n.byID, is.id)
		*is = name{}
		n.unused = append(n.unused, i)
	}
}

// at returns the PeerID of number i.
func (n *names) at(i uint32) ports.PeerID { return n.handle(i).Value() }

func (n *names) handle(i uint32) unique.Handle[ports.PeerID] {
	if i <= selfName {
		return n.fixed[i]
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byNum[i].id
}

func putNumber(b []byte, n uint32) { binary.LittleEndian.PutUint32(b, n) }
func number(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
