package domain

// arena holds what differs in size from slot to slot: one block a slot, without a pointer. Blocks of one
// size lie side by side. When a block is freed, the last of its size moves into its place. So no memory
// is lost between blocks, whatever sizes come and go. The shard's lock guards an arena.
type arena struct {
	slots *slab // the owners of the blocks
	sizes [fineSizes + coarseSizes]blocks
}

// Blocks are as large as a multiple of fineStep up to fineMost, and of coarseStep above it, with the
// number of their slot. A holding with more than coarseMost is kept as it is.
const (
	fineStep, fineMost     = 8, 256
	coarseStep, coarseMost = 64, 2048

	fineSizes, coarseSizes = fineMost / fineStep, (coarseMost - fineMost) / coarseStep

	// chunkBytes is how much memory an arena takes and gives back at once, and at least fewestBlocks.
	chunkBytes   = 4 << 10
	fewestBlocks = 8

	ownerBytes = 4
	maxPacked  = coarseMost - ownerBytes
)

// blocks are the blocks of one size.
type blocks struct {
	chunks [][]byte
	used   uint32
}

// blockRef is 1 + the place of a block among those of its size, and the size in the lowest bits; 0 for
// none.
type blockRef uint32

const sizeBits = 6

func (r blockRef) size() int { return int(r & (1<<sizeBits - 1)) }

func (r blockRef) place() uint32 { return uint32(r>>sizeBits) - 1 }

// sizeOf returns the smallest size for so many bytes, and how large it is.
func sizeOf(n int) (size, large int) {
	if n += ownerBytes; n <= fineMost {
		size = (n - 1) / fineStep
	} else {
		size = fineSizes + (n-fineMost-1)/coarseStep
	}
	return size, blockBytes(size)
}

func blockBytes(size int) int {
	if size < fineSizes {
		return (size + 1) * fineStep
	}
	return fineMost + (size-fineSizes+1)*coarseStep
}

// blocksAChunk is how many blocks of that size a chunk has.
func blocksAChunk(size int) uint32 { return uint32(max(chunkBytes/blockBytes(size), fewestBlocks)) }

// at returns the block of r without its owner.
func (a *arena) at(r blockRef) []byte { return a.block(r.size(), r.place())[ownerBytes:] }

func (a *arena) block(size int, place uint32) []byte {
	each, large := blocksAChunk(size), blockBytes(size)
	at := int(place%each) * large
	return a.sizes[size].chunks[place/each][at : at+large]
}

// put writes content into the block of slot n, which had the block r, and returns its block now.
func (a *arena) put(n uint32, r blockRef, content []byte) blockRef {
	size, _ := sizeOf(len(content))
	if r == 0 || r.size() != size {
		a.free(r)
		r = a.take(size)
		putNumber(a.block(size, r.place()), n)
	}
	copy(a.at(r), content)
	return r
}

func (a *arena) take(size int) blockRef {
	b, each, large := &a.sizes[size], blocksAChunk(size), blockBytes(size)
	place := b.used
	b.used++
	switch k := int(place / each); {
	case k == len(b.chunks) && k > 0:
		b.chunks = append(b.chunks, make([]byte, int(each)*large))
	case k == len(b.chunks):
		b.chunks = append(b.chunks, make([]byte, large))
	case k == 0 && len(b.chunks[0]) == int(place)*large: // the first chunk grows
		grown := make([]byte, min(2*int(place), int(each))*large)
		copy(grown, b.chunks[0])
		b.chunks[0] = grown
	}
	return blockRef(place+1)<<sizeBits | blockRef(size)
}

// free gives back the block r, if it is one, and tells the owner of the block that moves into its
// place.
func (a *arena) free(r blockRef) {
	if r == 0 {
		return
	}
	size, each := r.size(), blocksAChunk(r.size())
	b := &a.sizes[size]
	b.used--
	if last := b.used; last != r.place() {
		moved := a.block(size, last)
		copy(a.block(size, r.place()), moved)
		a.slots.at(number(moved)).block = r
	}
	if kept := len(b.chunks) - 1; b.used == 0 || b.used+each/2 < uint32(kept)*each {
		b.chunks[kept] = nil
		if b.chunks = b.chunks[:kept]; kept == 0 {
			b.chunks = nil
		}
	}
}
