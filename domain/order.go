package domain

import (
	"slices"
	"sync"

	"github.com/opencloud/ocnode/ports"
)

// order keeps the PeerIDs of the live table sorted, so that a page costs no sort
// of a million names. It is a list of sorted blocks: a new PeerID moves at most
// one block's worth of memory. A heartbeat of a listed indexer does not touch
// it.
type order struct {
	mu     sync.RWMutex
	blocks [][]ports.PeerID // each sorted, each before the next, no block empty
}

// blockSize is how many PeerIDs a block holds before it is split: 8 KiB of string
// headers, a fraction of a microsecond to move.
const blockSize = 512

// block returns the index of the block of id, whether id is in it or not.
func (o *order) block(id ports.PeerID) int {
	i, found := slices.BinarySearchFunc(o.blocks, id, func(b []ports.PeerID, id ports.PeerID) int {
		switch {
		case b[0] < id:
			return -1
		case b[0] > id:
			return 1
		}
		return 0
	})
	if found || i == 0 {
		return i
	}
	return i - 1
}

func (o *order) insert(id ports.PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.blocks) == 0 {
		o.blocks = append(o.blocks, append(make([]ports.PeerID, 0, blockSize), id))
		return
	}
	b := o.block(id)
	i, found := slices.BinarySearch(o.blocks[b], id)
	if found {
		return
	}
	if len(o.blocks[b]) == blockSize {
		half := o.blocks[b][blockSize/2:]
		right := append(make([]ports.PeerID, 0, blockSize), half...)
		clear(half)
		o.blocks[b] = o.blocks[b][:blockSize/2]
		o.blocks = slices.Insert(o.blocks, b+1, right)
		if i > blockSize/2 {
			b, i = b+1, i-blockSize/2
		}
	}
	o.blocks[b] = slices.Insert(o.blocks[b], i, id)
}

func (o *order) remove(id ports.PeerID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.blocks) == 0 {
		return
	}
	b := o.block(id)
	i, found := slices.BinarySearch(o.blocks[b], id)
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
	i, found := slices.BinarySearch(o.blocks[b], id)
	if found {
		i++
	}
	page := make([]ports.PeerID, 0, n)
	for ; b < len(o.blocks) && len(page) < n; b, i = b+1, 0 {
		rest := o.blocks[b][i:]
		page = append(page, rest[:min(len(rest), n-len(page))]...)
	}
	return page
}
