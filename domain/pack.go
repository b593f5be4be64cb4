package domain

import (
	"encoding/binary"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// This file is the form in which a shard keeps a holding: bytes without a pointer. A record is kept as
// its fields and its signature, and is made anew from them.
//
//	1  leases, 3 bits; then a bit for each: a leave that is said, the store's leave, a remembered record
//	1  records, 4 bits, and texts, 4 bits
//	   the leases, the first one first; the leave that is said; the store's leave
//	   of the remembered record: 1 record, 2 step, 8 until
//	   the records, then the texts
//
// A word:
//
//	 0  1  flags
//	 1  1  its record if it is signed, else its text; noText for none
//	 2  4  native, by its number in the table's names
//	 6  8  deadline
//	14  8  expiresAt; seenAt in a signed word, whose record says when it expires
//	22     in a signed word: 2 step. With wordApart: 8 of the other time.
//
// A record:
//
//	 0  1  flags
//	 1  2  the newest step
//	 3  8  Seq
//	11  8  Start
//	19  4  Interval, in milliseconds
//	23  4  TTL, in milliseconds
//	27     with recordChained: 32 the newest link. With recordAnchored: 32 anchor. Then 64 the signature,
//	       and a text.
//
// What a renewal reads and writes comes first, so that it takes few lines of memory.
//
// A text: the number of addresses, with textBare if a word has no list of them, and the addresses; the
// number of labels, and the name and value of each. Numbers and lengths are varints.
//
// Words of one record have links of one chain. So the newest link gives all of them, and the anchor.
const (
	packedSaid       = 1 << 3
	packedStored     = 1 << 4
	packedRemembered = 1 << 5

	wordSource   = 3
	wordLeave    = 1 << 2
	wordUnproven = 1 << 3
	wordSigned   = 1 << 4
	wordUnseen   = 1 << 5 // seenAt is 0
	wordApart    = 1 << 6 // the times don't follow from each other
	wordOverdue  = 1 << 7

	wordWhich, wordNative, wordDeadline, wordTime, wordMore = 1, 2, 6, 14, 22

	noText = 0xff

	recordChained  = 1
	recordAnchored = 2

	recordStep, recordSeq, recordStart, recordInterval, recordTTL, recordMore = 1, 3, 11, 19, 23, 27

	textBare = 1 << 4

	// maxHashes is how often a link is hashed to find an anchor: 16 µs. A record with more steps, of a
	// heartbeat under half a minute, keeps its anchor.
	maxHashes = 120
)

var order8 = binary.LittleEndian

// packing is a holding that is made into bytes.
type packing struct {
	table   *table
	bytes   []byte
	records [maxLeases + 2]*ports.Proof // with the newest tick of each
	texts   [maxLeases + 2]*word
	kept    [2]uint8 // how many records and texts
	apart   bool     // the bytes name no native, and have all anchors
	fits    bool
}

// pack returns h as bytes behind room. It is not ok if h does not fit in them.
func (t *table) pack(h *holding, room []byte) (_ []byte, ok bool) {
	p := packing{table: t, bytes: append(room, 0, 0), fits: true}
	head := uint8(0)
	var v leaves
	var remembered *ports.Proof
	if h.rest != nil {
		v, remembered = h.rest.leaves, h.rest.proof
	}
	h.leases(func(w *word) bool { p.note(w.proof); return true })
	if v.said != nil {
		p.note(v.said.proof)
	}
	if v.stored != nil {
		p.note(v.stored.proof)
	}
	p.note(remembered)
	h.leases(func(w *word) bool { head++; p.word(w); return true })
	if v.said != nil {
		head |= packedSaid
		p.word(v.said)
	}
	if v.stored != nil {
		head |= packedStored
		p.word(v.stored)
	}
	if remembered != nil {
		head |= packedRemembered
		p.bytes = append(p.bytes, p.record(remembered))
		p.bytes = order8.AppendUint16(p.bytes, uint16(remembered.Tick.Step))
		p.bytes = order8.AppendUint64(p.bytes, uint64(h.rest.until.since))
	}
	p.putRest()
	p.bytes[0], p.bytes[1] = head, p.kept[0]|p.kept[1]<<4
	if !p.fits || len(p.bytes) > maxPacked {
		t.unname(p.bytes)
		return nil, false
	}
	return p.bytes, true
}

// putRest writes the records and texts that the words refer to.
func (p *packing) putRest() {
	for _, r := range p.records[:p.kept[0]] {
		p.putRecord(r)
	}
	for _, w := range p.texts[:p.kept[1]] {
		p.putText(w.addr, w.details)
	}
}

// note takes in a proof, if it is one.
func (p *packing) note(is *ports.Proof) {
	if is == nil {
		return
	}
	i := p.record(is)
	switch {
	case int(i) == len(p.records):
		p.fits = false
	case i == p.kept[0]:
		p.records[i] = is
		p.kept[0]++
	case p.records[i].Tick.Step < is.Tick.Step:
		p.records[i] = is
	}
}

// record returns the place of the record of is.
func (p *packing) record(is *ports.Proof) uint8 {
	for i, r := range p.records[:p.kept[0]] {
		if sameRecord(r, is) {
			return uint8(i)
		}
	}
	return p.kept[0]
}

// text returns the place of the text of w.
func (p *packing) text(w *word) uint8 {
	if w.addr == "" && w.details == nil {
		return noText
	}
	for i, is := range p.texts[:p.kept[1]] {
		if w.same(is) {
			return uint8(i)
		}
	}
	p.texts[p.kept[1]] = w
	p.kept[1]++
	return p.kept[1] - 1
}

func (p *packing) word(w *word) {
	flags, which := uint8(w.source), uint8(0)
	if w.leave {
		flags |= wordLeave
	}
	if w.unproven {
		flags |= wordUnproven
	}
	if w.overdue {
		flags |= wordOverdue
	}
	if w.early != nil {
		p.fits = false // it has a proof that nothing else follows from
	}
	first, second := w.expiresAt, w.seenAt
	if w.proof != nil {
		flags |= wordSigned
		which = p.record(w.proof)
		first, second = w.seenAt, w.expiresAt
		c := w.proof.Claim
		if w.expiresAt != c.ExpiresAt(w.proof.Tick.Step).UnixNano() {
			flags |= wordApart
		}
		claimed := word{}
		if !w.leave {
			claimed.addr, claimed.details = claimedText(c)
		}
		p.fits = p.fits && w.same(&claimed)
	} else {
		which = p.text(w)
		switch w.seenAt {
		case 0:
			flags |= wordUnseen
		case w.expiresAt - int64(p.table.policy.TTL):
		default:
			flags |= wordApart
		}
	}
	native := noName
	if !p.apart {
		native = p.table.names.useHandle(w.native)
	}
	p.bytes = append(p.bytes, flags, which)
	p.bytes = order8.AppendUint32(p.bytes, native)
	p.bytes = order8.AppendUint64(p.bytes, uint64(w.deadline.since))
	p.bytes = order8.AppendUint64(p.bytes, uint64(first))
	if w.proof != nil {
		p.bytes = order8.AppendUint16(p.bytes, uint16(w.proof.Tick.Step))
	}
	if flags&wordApart != 0 {
		p.bytes = order8.AppendUint64(p.bytes, uint64(second))
	}
}

// claimedText returns the address and the details of a claim, as a word has them.
func claimedText(c *ports.Claim) (addr string, d *details) {
	if len(c.Addrs) == 0 {
		return "", detailsOf(nil, c.Meta)
	}
	return c.Addrs[0], detailsOf(c.Addrs, c.Meta)
}

func (p *packing) putRecord(is *ports.Proof) {
	c, proofs := is.Claim, p.table.proofs
	if proofs == nil {
		p.fits = false
		return
	}
	signature, ok := proofs.Signature(is.Record)
	interval, ttl := uint32(c.Interval/time.Millisecond), uint32(c.TTL/time.Millisecond)
	p.fits = p.fits && ok && time.Duration(interval)*time.Millisecond == c.Interval && time.Duration(ttl)*time.Millisecond == c.TTL &&
		is.Tick.Seq == c.Seq && is.Tick.Step <= ports.MaxSteps
	flags := uint8(0)
	switch {
	case c.Interval == 0:
		p.fits = p.fits && is.Tick.Link == c.Anchor && c.Anchor == ports.Link{}
	case p.apart || ports.RecordLife/c.Interval > maxHashes:
		flags = recordChained | recordAnchored
	default:
		flags = recordChained
	}
	p.bytes = append(p.bytes, flags)
	p.bytes = order8.AppendUint16(p.bytes, uint16(is.Tick.Step))
	p.bytes = order8.AppendUint64(p.bytes, uint64(c.Seq))
	p.bytes = order8.AppendUint64(p.bytes, c.Start)
	p.bytes = order8.AppendUint32(p.bytes, interval)
	p.bytes = order8.AppendUint32(p.bytes, ttl)
	if flags&recordChained != 0 {
		p.bytes = append(p.bytes, is.Tick.Link[:]...)
	}
	if flags&recordAnchored != 0 {
		p.bytes = append(p.bytes, c.Anchor[:]...)
	}
	p.bytes = append(p.bytes, signature[:]...)
	p.putList(c.Addrs, c.Meta, 0)
}

func (p *packing) putText(addr string, d *details) {
	switch {
	case d == nil:
		p.putList([]string{addr}, nil, textBare)
	case len(d.addrs) == 0:
		p.putList([]string{addr}, d.meta, textBare)
	default:
		p.fits = p.fits && d.addrs[0] == addr
		p.putList(d.addrs, d.meta, 0)
	}
}

func (p *packing) putList(addrs []string, meta map[string]string, flags uint8) {
	if len(addrs) >= textBare {
		p.fits = false
		return
	}
	p.bytes = append(p.bytes, uint8(len(addrs))|flags)
	for _, a := range addrs {
		p.putString(a)
	}
	p.bytes = binary.AppendUvarint(p.bytes, uint64(len(meta)))
	for name, value := range meta {
		p.putString(name)
		p.putString(value)
	}
}

func (p *packing) putString(s string) {
	p.bytes = append(binary.AppendUvarint(p.bytes, uint64(len(s))), s...)
}

// wordBytes is the size of the word that b begins with.
func wordBytes(b []byte) int {
	n := wordMore
	if b[0]&wordSigned != 0 {
		n += 2
	}
	if b[0]&wordApart != 0 {
		n += 8
	}
	return n
}

// words returns the number of leases and of words of a packed holding.
func words(b []byte) (leases, all int) {
	leases = int(b[0] & 7)
	return leases, leases + int(b[0]&packedSaid/packedSaid) + int(b[0]&packedStored/packedStored)
}

const packedHead = 2

// rememberedBytes are those of a remembered record.
const rememberedBytes = 11

// unname lets go of the natives that a packed holding names.
func (t *table) unname(b []byte) {
	_, n := words(b)
	for b = b[packedHead:]; n > 0; n-- {
		t.names.drop(number(b[wordNative:]))
		b = b[wordBytes(b):]
	}
}

// concerns reports whether the packed holding b has a leave, a lease that this native granted, or a word of
// the native with that number; noName is none.
func concerns(b []byte, native uint32) bool {
	_, n := words(b)
	for b = b[packedHead:]; n > 0; n-- {
		of := number(b[wordNative:])
		if source(b[0]&wordSource) == granted || b[0]&wordLeave != 0 || of == native && of != noName {
			return true
		}
		b = b[wordBytes(b):]
	}
	return false
}

// unpack returns the holding of id that pack made into b. Unless it is whole, the proofs in it have no
// record, anchor and link: to make those costs more than all the rest.
func (t *table) unpack(id ports.PeerID, b []byte, whole bool) *holding {
	h := &holding{}
	leases, n := words(b)
	head, kept := b[0], b[1]
	all := b[packedHead:]
	rest := all
	for range n {
		rest = rest[wordBytes(rest):]
	}
	var remembered []byte
	if head&packedRemembered != 0 {
		remembered, rest = rest[:rememberedBytes], rest[rememberedBytes:]
	}
	u := t.unpackRest(id, rest, kept, whole)
	if n > 1 || n > leases || remembered != nil {
		h.rest = newRest(make([]word, max(leases-1, 0)), leaves{})
		h.rest.store = false
	}
	for i := range n {
		w := &h.first
		switch {
		case i >= leases && i == leases && head&packedSaid != 0:
			w = &word{}
			h.rest.leaves.said = w
		case i >= leases:
			w = &word{}
			h.rest.leaves.stored = w
		case i > 0:
			w = &h.rest.leases[i-1]
		}
		all = t.unpackWord(w, all, &u)
		if i > 0 && i < leases {
			h.rest.store = h.rest.store || w.source == stored
		}
	}
	if remembered != nil {
		h.rest.proof = t.stepOf(u.records[remembered[0]], uint32(order8.Uint16(remembered[1:])), whole)
		h.rest.until = Instant{time.Duration(order8.Uint64(remembered[3:]))}
	}
	return h
}

// unpacked are the records and texts that packed words refer to.
type unpacked struct {
	whole   bool // the proofs are whole
	records [maxLeases + 2]*ports.Proof
	texts   [maxLeases + 2]struct {
		addr    string
		details *details
	}
}

// unpackRest returns what putRest wrote into b, of so many records and texts.
func (t *table) unpackRest(id ports.PeerID, b []byte, kept uint8, whole bool) unpacked {
	u := unpacked{whole: whole}
	for i := range kept & 15 {
		u.records[i], b = t.unpackRecord(id, b, whole)
	}
	for i := range kept >> 4 {
		var addrs []string
		var meta map[string]string
		bare := b[0]&textBare != 0
		addrs, meta, b = unpackList(b)
		if u.texts[i].addr = addrs[0]; bare {
			addrs = nil
		}
		u.texts[i].details = detailsOf(addrs, meta)
	}
	return u
}

func (t *table) unpackWord(w *word, b []byte, u *unpacked) (rest []byte) {
	flags, which := b[0], b[wordWhich]
	w.source, w.leave = source(flags&wordSource), flags&wordLeave != 0
	w.unproven, w.overdue = flags&wordUnproven != 0, flags&wordOverdue != 0
	w.native = t.names.handle(number(b[wordNative:]))
	w.deadline = Instant{time.Duration(order8.Uint64(b[wordDeadline:]))}
	first := int64(order8.Uint64(b[wordTime:]))
	more := b[wordMore:]
	if flags&wordSigned != 0 {
		w.proof = t.stepOf(u.records[which], uint32(order8.Uint16(more)), u.whole)
		if more = more[2:]; !w.leave {
			w.addr, w.details = claimedText(w.proof.Claim)
		}
		w.seenAt, w.expiresAt = first, w.proof.Claim.ExpiresAt(w.proof.Tick.Step).UnixNano()
		if flags&wordApart != 0 {
			w.expiresAt, more = int64(order8.Uint64(more)), more[8:]
		}
		return more
	}
	if which != noText {
		w.addr, w.details = u.texts[which].addr, u.texts[which].details
	}
	switch w.expiresAt = first; {
	case flags&wordApart != 0:
		w.seenAt, more = int64(order8.Uint64(more)), more[8:]
	case flags&wordUnseen == 0:
		w.seenAt = first - int64(t.policy.TTL)
	}
	return more
}

// stepOf returns the proof at a step that is not newer than is.
func (t *table) stepOf(is *ports.Proof, step uint32, whole bool) *ports.Proof {
	if is.Tick.Step == step {
		return is
	}
	tick := ports.Tick{Seq: is.Tick.Seq, Step: step}
	if whole {
		tick.Link = t.proofs.Before(is.Tick.Link, is.Tick.Step-step)
	}
	return &ports.Proof{Record: is.Record, Tick: tick, Claim: is.Claim}
}

// unpackRecord returns the proof with the newest tick of the record that b begins with.
func (t *table) unpackRecord(id ports.PeerID, b []byte, whole bool) (_ *ports.Proof, rest []byte) {
	c := &ports.Claim{
		PeerID: id, Seq: int64(order8.Uint64(b[recordSeq:])), Start: order8.Uint64(b[recordStart:]),
		Interval: time.Duration(order8.Uint32(b[recordInterval:])) * time.Millisecond,
		TTL:      time.Duration(order8.Uint32(b[recordTTL:])) * time.Millisecond,
	}
	is := &ports.Proof{Claim: c, Tick: ports.Tick{Seq: c.Seq, Step: uint32(order8.Uint16(b[recordStep:]))}}
	rest = b[recordMore:]
	if b[0]&recordChained != 0 {
		rest = rest[copy(is.Tick.Link[:], rest):]
		if b[0]&recordAnchored != 0 {
			rest = rest[copy(c.Anchor[:], rest):]
		} else if whole {
			c.Anchor = t.proofs.Before(is.Tick.Link, is.Tick.Step)
		}
	}
	signature := [ports.SignatureBytes]byte(rest)
	if c.Addrs, c.Meta, rest = unpackList(rest[len(signature):]); !whole {
		return is, rest
	}
	record, err := t.proofs.Record(c, signature)
	if err != nil {
		panic("domain: a record that was packed is none: " + err.Error()) // it was verified
	}
	is.Record = record
	return is, rest
}

func unpackList(b []byte) (addrs []string, meta map[string]string, rest []byte) {
	if n := int(b[0] &^ textBare); n > 0 {
		addrs = make([]string, n)
	}
	b = b[1:]
	for i := range addrs {
		addrs[i], b = unpackString(b)
	}
	n, size := binary.Uvarint(b)
	if b = b[size:]; n > 0 {
		meta = make(map[string]string, n)
	}
	for range n {
		var name, value string
		name, b = unpackString(b)
		value, b = unpackString(b)
		meta[name] = value
	}
	return addrs, meta, b
}

func unpackString(b []byte) (string, []byte) {
	s, rest := nextString(b)
	return string(s), rest
}

// nextString returns the text that b begins with, and what follows it.
func nextString(b []byte) (s, rest []byte) {
	n, size := binary.Uvarint(b)
	end := size + int(n)
	return b[size:end], b[end:]
}
