package domain

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/opencloud/ocnode/ports"
)

// This file makes the items of the sums of News: see "Digest" in docs/protocol.md.

// summed is what a tally keeps of an entry that was told. Two leases of an indexer with different ends, or plain
// leases with different contents, have different items, but for a chance of 1 in 2^32.
type summed struct {
	content uint32 // see contentOf; 0 for a signed lease, whose record and link say all
	item    uint32
}

// summedOf returns what a tally keeps of e.
func summedOf(e *ports.Entry, proofs ports.Verifier) (s summed) {
	switch p := e.Proof; {
	case p == nil:
		s.content = contentOf(e)
		s.item = renewedItem(s.content, ports.Link{}, e.ExpiresAt.UnixNano())
	case p.Tick.Link != ports.Link{}:
		s.item = renewedItem(0, p.Tick.Link, 0)
	case proofs != nil:
		if signature, ok := proofs.Signature(p.Record); ok {
			s.item = binary.LittleEndian.Uint32(signature[:])
		}
	}
	return s
}

// renewedItem is the item of a lease that a link proves, or of a plain lease of that content. A renewal is as short
// as that, so it reads no text.
func renewedItem(content uint32, link ports.Link, expiresAt int64) uint32 {
	if link != (ports.Link{}) {
		return binary.LittleEndian.Uint32(link[:])
	}
	for i := range 8 {
		content = (content ^ uint32(byte(expiresAt>>(8*i)))) * fnvPrime
	}
	return content
}

// contentOf returns the hash of all that a plain lease says, but its times.
func contentOf(e *ports.Entry) uint32 {
	sum := hashText(fnvOffset, string(e.PeerID))
	if len(e.Addrs) == 0 {
		sum = hashText(sum, e.Addr)
	}
	for _, addr := range e.Addrs {
		sum = hashText(sum, addr)
	}
	sum = hashText(sum, "") // between the addresses and the labels
	if len(e.Meta) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Meta)) {
			sum = hashText(hashText(sum, name), e.Meta[name])
		}
	}
	return sum
}

// hashText returns the hash after another text, and a byte that ends it, since no UTF-8 has that.
func hashText(sum uint32, text string) uint32 {
	for i := range len(text) {
		sum = (sum ^ uint32(text[i])) * fnvPrime
	}
	return (sum ^ 0xff) * fnvPrime
}

// FNV-1a of 32 bits. hash/fnv would make a piece of memory of each.
const (
	fnvOffset = 2166136261
	fnvPrime  = 16777619
)

// ownSummed returns what a tally keeps of the own lease of r. It is not ok without such a lease that is
// live at that instant. A packed holding is read as it is: to make a record anew costs as much as thirty items. The
// caller has locked the shard.
func (n *news) ownSummed(r record, id ports.PeerID, at Instant) (is summed, ok bool) {
	if r.block != 0 {
		if w, is, ok := packedFirst(id, r.shard.arena.at(r.block)); ok {
			return is, w != nil && sourceOf(w) == granted && at.Before(deadlineOf(w))
		}
	}
	own := r.holding().granted()
	if own == nil || !own.live(at) {
		return summed{}, false
	}
	c := n.public(&change{ports.ChangeSnapshot, id, *own, true}, at)
	return n.summed(&c), true
}

// packedFirst returns the first lease of the packed holding b of id, nil without one, and what a tally keeps of it. It
// is not ok if b has no link of the lease's tick, or the lease is of another record than the first, or
// b has records or other texts beside that of a plain lease.
func packedFirst(id ports.PeerID, b []byte) (first []byte, is summed, ok bool) {
	const oneText = 1 << 4
	leases, n := words(b)
	if leases == 0 {
		return nil, summed{}, true
	}
	first, rest := b[packedHead:], b[packedHead:]
	for range n {
		rest = rest[wordBytes(rest):]
	}
	if b[0]&packedRemembered != 0 {
		rest = rest[rememberedBytes:]
	}
	switch signed := first[0]&wordSigned != 0; {
	case !signed && (b[1] != oneText || first[wordWhich] != 0):
		return first, summed{}, false
	case !signed:
		e := ports.Entry{PeerID: id}
		e.Addrs, e.Meta, _ = unpackList(rest)
		is.content = contentOf(&e)
		is.item = renewedItem(is.content, ports.Link{}, int64(order8.Uint64(first[wordTime:])))
		return first, is, true
	case first[wordWhich] != 0 || rest[0]&recordChained != 0 && order8.Uint16(first[wordMore:]) != order8.Uint16(rest[recordStep:]):
		return first, summed{}, false
	}
	is.item = order8.Uint32(rest[recordMore:]) // of the link, or of the signature without a chain
	return first, is, true
}
