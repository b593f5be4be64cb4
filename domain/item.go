package domain

import "github.com/opencloud/ocnode/ports"

// ownItem returns the item of the own lease of r in a sum of News. It is not ok without such a lease that is
// live at that instant. A packed holding is read as it is: to make a record anew costs as much as thirty items. The
// caller has locked the shard.
func (n *news) ownItem(r record, id ports.PeerID, at Instant) (item uint32, ok bool) {
	if r.block != 0 {
		if w, item, ok := packedFirst(id, r.shard.arena.at(r.block)); ok {
			return item, w != nil && sourceOf(w) == granted && at.Before(deadlineOf(w))
		}
	}
	own := r.holding().granted()
	if own == nil || !own.live(at) {
		return 0, false
	}
	c := n.public(&change{ports.ChangeSnapshot, id, *own, true}, at)
	return n.item(&c), true
}

// packedFirst returns the first lease of the packed holding b of id, nil without one, and its item. It is not
// ok if b has no link of the lease's tick, or the lease is of another record than the first.
func packedFirst(id ports.PeerID, b []byte) (first []byte, item uint32, ok bool) {
	leases, n := words(b)
	if leases == 0 {
		return nil, 0, true
	}
	first, rest := b[packedHead:], b[packedHead:]
	if first[0]&wordSigned == 0 {
		return first, renewalItem(id, ports.Link{}, int64(order8.Uint64(first[wordTime:]))), true
	}
	for range n {
		rest = rest[wordBytes(rest):]
	}
	if b[0]&packedRemembered != 0 {
		rest = rest[rememberedBytes:]
	}
	if first[wordWhich] != 0 || rest[0]&recordChained != 0 && order8.Uint16(first[wordMore:]) != order8.Uint16(rest[recordStep:]) {
		return first, 0, false
	}
	return first, order8.Uint32(rest[recordMore:]), true // of the link, or of the signature without a chain
}
