package domain

import (
	"slices"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// This file is the form in which the changelog keeps a change: bytes without a pointer, as the table
// keeps a holding. See pack.go.
//
//	0  1  kind, by its place in kindsRemembered
//	1  1  flags
//	2  1  records, 4 bits, and texts, 4 bits
//	      the PeerID. With changeNative: the native's PeerID
//	      with changeEarly: 1 record and 2 step of the early proof
//	      the word, whose native is noName
//	      the records, each with its anchor, then the text
//
// A native is written as its text: a number in the table's names would have to be let go when the change
// is forgotten, and a reader may read the change even then. An anchor is written since each reader
// would hash a chain for it.
const (
	changeSource = 3
	changeFresh  = 1 << 2
	changeSelf   = 1 << 3
	changeNative = 1 << 4
	changeEarly  = 1 << 5

	changeFlags, changeKept, changeMore = 1, 2, 3
)

var kindsRemembered = [...]ports.ChangeKind{
	ports.ChangeRenewed, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeLate, ports.ChangeExpired, ports.ChangeLeft, ports.ChangeStale, conditionChanged,
}

// remembered is a change in that form. It does not change.
type remembered struct {
	bytes []byte
	odd   *change // does not pack; bytes have its kind and flags alone
}

func (m remembered) kind() ports.ChangeKind { return kindsRemembered[m.bytes[0]] }

func (m remembered) source() source { return source(m.bytes[changeFlags] & changeSource) }

// changeRoom is memory to make a change into bytes: enough for most, with a record or without.
type changeRoom struct {
	word  word
	bytes [512]byte
}

// remember returns a change as bytes in room, or in more memory if they need it. It is not ok if the change
// does not fit in them. They have the kind and the flags even then.
func (t *table) remember(kind ports.ChangeKind, id ports.PeerID, is *word, fresh bool, room *changeRoom) (_ []byte, ok bool) {
	p := packing{table: t, apart: true, fits: true}
	w, early := &room.word, is.early
	*w = *is
	w.early = nil
	p.note(w.proof)
	p.note(early)
	flags := uint8(w.source)
	if fresh {
		flags |= changeFresh
	}
	switch w.native {
	case unique.Handle[ports.PeerID]{}:
	case t.names.fixed[selfName]:
		flags |= changeSelf
	default:
		flags |= changeNative
	}
	if early != nil {
		flags |= changeEarly
	}
	p.bytes = append(room.bytes[:0], uint8(slices.Index(kindsRemembered[:], kind)), flags, 0)
	p.putString(string(id))
	if flags&changeNative != 0 {
		p.putString(string(w.native.Value()))
	}
	if early != nil {
		p.bytes = append(p.bytes, p.record(early))
		p.bytes = order8.AppendUint16(p.bytes, uint16(early.Tick.Step))
	}
	p.word(w)
	p.putRest()
	p.bytes[changeKept] = p.kept[0] | p.kept[1]<<4
	if !p.fits || len(p.bytes) > maxPacked {
		return p.bytes[:changeMore], false
	}
	return p.bytes, true
}

// recall makes c the change m. Unless it is whole, its proofs have no record: most watchers get none.
func (t *table) recall(m remembered, c *change, whole bool) {
	if m.odd != nil {
		*c = *m.odd
		return
	}
	b := m.bytes
	flags, kept := b[changeFlags], b[changeKept]
	id, b := unpackString(b[changeMore:])
	*c = change{kind: m.kind(), id: ports.PeerID(id), fresh: flags&changeFresh != 0}
	var native unique.Handle[ports.PeerID]
	switch {
	case flags&changeSelf != 0:
		native = t.names.fixed[selfName]
	case flags&changeNative != 0:
		var name string
		name, b = unpackString(b)
		native = unique.Make(ports.PeerID(name))
	}
	var early []byte
	if flags&changeEarly != 0 {
		early, b = b[:3], b[3:]
	}
	u := t.unpackRest(c.id, b[wordBytes(b):], kept, whole)
	t.unpackWord(&c.word, b, &u)
	c.word.native = native
	if early != nil {
		c.word.early = t.stepOf(u.records[early[0]], uint32(order8.Uint16(early[1:])), whole)
	}
}
