package domain

import (
	"slices"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// order keeps the records of the live table sorted by PeerID, so that a page costs no sort
// of a million names. It is a list of sorted blocks: a new PeerID moves at most
// one block's worth of memory. A heartbeat of a listed indexer does not touch
// it.
type order struct {
	keys   keys
	mu     sync.RWMutex
	blocks [][]ref // each sorted, each before the next, no block empty
}

// keys has the PeerIDs of the records in an order. A record stays there for as long as an order has it.
type keys interface {
	// compareKey compares the PeerID of r with id.
	compareKey(r ref, id ports.PeerID) int
	keyOf(r ref) ports.PeerID
}

// blockSize is how many records a block holds before it is split: 2 KiB, a fraction of a microsecond
// to move.
const blockSize = 512

// block returns the index of the block of id, whether id is in it or not.
func (o *order) block(id ports.PeerID) int {
	i, found := slices.BinarySearchFunc(o.blocks, id, func(b []ref, id ports.PeerID) int { return o.keys.compareKey(b[0], id) })
	if found || i == 0 {
		return i
	}
	return i - 1
}

func (o *order) insert(id ports.PeerID, r ref) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.blocks) == 0 {
		o.blocks = append(o.blocks, append(make([]ref, 0, blockSize), r))
		return
	}
	b := o.block(id)
	i, found := slices.BinarySearchFunc(o.blocks[b], id, o.keys.compareKey)
	if found {
		return
	}
	if len(o.blocks[b]) == blockSize {
		half := o.blocks[b][blockSize/2:]
		right := append(make([]ref, 0, blockSize), half...)
		o.blocks[b] = o.blocks[b][:blockSize/2]
		o.blocks = slices.Insert(o.blocks, b+1, right)
		if i > blockSize/2 {
			b, i = b+1, i-blockSize/2
		}
	}
	o.blocks[b] = slices.Insert(o.blocks[b], i, r)
}

func (o *order) remove(id ports.PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.blocks) == 0 {
		return
	}
	b := o.block(id)
	i, found := slices.BinarySearchFunc(o.blocks[b], id, o.keys.compareKey)
	if !found {
		return
	}
	o.blocks[b] = slices.Delete(o.blocks[b], i, i+1)
	switch {
	case len(o.blocks[b]) == 0:
		o.blocks = slices.Delete(o.blocks, b, b+1)
	case b+1 < len(o.blocks) && len(o.blocks[b])+len(o.blocks[b+1]) <= blockSize/2:
		// Two small blocks become one, so that memory follows the table down.
		o.blocks[b] = append(o.blocks[b], o.blocks[b+1]...)
		o.blocks = slices.Delete(o.blocks, b+1, b+2)
	}
}

// after returns up to n PeerIDs that sort behind id, in order.
func (o *order) after(id ports.PeerID, n int) []ports.PeerID {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.blocks) == 0 {
		return nil
	}
	b := o.block(id)
	i, found := slices.BinarySearchFunc(o.blocks[b], id, o.keys.compareKey)
	if found {
		i++
	}
	page := make([]ports.PeerID, 0, n)
	for ; b < len(o.blocks) && len(page) < n; b, i = b+1, 0 {
		rest := o.blocks[b][i:]
		for _, r := range rest[:min(len(rest), n-len(page))] {
			page = append(page, o.keys.keyOf(r))
		}
	}
	return page
}
