package wire

import (
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// The fields of a change, and of a name with its value.
const (
	changeKind      = 1
	changeNumber    = 2
	changePeerID    = 3
	changeAddr      = 4
	changeAddrs     = 5
	changeMeta      = 6
	changeNative    = 7
	changeExpires   = 8
	changeSeen      = 9
	changeRemaining = 10
	changeState     = 11
	changeRecord    = 12
	changeSeq       = 13
	changeStep      = 14
	changeLink      = 15

	metaName  = 1
	metaValue = 2
)

// kinds and states are written as their places here; 0 is not said.
var (
	kinds  = []ports.ChangeKind{"", ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeLate, ports.ChangeExpired, ports.ChangeLeft}
	states = []ports.State{"", ports.StateLive, ports.StateLate, ports.StateStale}
)

// appendToldChange appends the message of c without a tag. Its times count from made.
func appendToldChange(b []byte, c *ports.Change, teller ports.PeerID, made time.Time) ([]byte, error) {
	kind := slices.Index(kinds, c.Kind)
	if kind < 1 {
		return b, ports.Refuse(ports.CodeMalformed, "a native tells no other native of a change of the kind %.80q", c.Kind)
	}
	b = appendNumber(b, changeKind, uint64(kind))
	b = appendNumber(b, changeNumber, uint64(c.Number))
	b, err := appendPeerID(b, changePeerID, c.PeerID)
	if err != nil {
		return b, err
	}
	text := utf8.ValidString(c.Addr)
	b = appendString(b, changeAddr, c.Addr)
	if c.Proof == nil || c.Proof.Record == nil { // else the record says them
		for _, addr := range c.Addrs {
			text = text && utf8.ValidString(addr)
			b = protowire.AppendString(protowire.AppendTag(b, changeAddrs, protowire.BytesType), addr)
		}
		for name, value := range c.Meta {
			text = text && utf8.ValidString(name) && utf8.ValidString(value)
			b = appendPair(b, name, value)
		}
	}
	if !text {
		return b, malformed(errText)
	}
	switch c.Native {
	case teller: // it is left out
	case "": // unknown, as of a leave that was found in the DHT
		b = protowire.AppendString(protowire.AppendTag(b, changeNative, protowire.BytesType), "")
	default:
		if b, err = appendPeerID(b, changeNative, c.Native); err != nil {
			return b, err
		}
	}
	if !c.ExpiresAt.IsZero() {
		b = appendTime(b, changeExpires, c.ExpiresAt)
	}
	if !c.SeenAt.IsZero() {
		b = protowire.AppendVarint(protowire.AppendTag(b, changeSeen, protowire.VarintType), milliseconds(made.Sub(c.SeenAt)))
	}
	b = appendNumber(b, changeRemaining, uint64(max(c.Remaining.Milliseconds(), 0)))
	b = appendNumber(b, changeState, uint64(max(slices.Index(states, c.State), 0)))
	if p := c.Proof; p != nil {
		b = appendBinary(b, changeRecord, p.Record)
		if p.Tick != (ports.Tick{}) {
			b = appendNumber(b, changeSeq, uint64(p.Tick.Seq))
			b = appendNumber(b, changeStep, uint64(p.Tick.Step))
			b = appendBinary(b, changeLink, p.Tick.Link[:])
		}
	}
	return b, nil
}

func appendPair(b []byte, name, value string) []byte {
	m := appendString(appendString(nil, metaName, name), metaValue, value)
	return protowire.AppendBytes(protowire.AppendTag(b, changeMeta, protowire.BytesType), m)
}

func (f field) pair() (name, value string, err error) {
	message, err := f.bytes()
	if err != nil {
		return "", "", err
	}
	err = eachField(message, func(f field) (err error) {
		switch f.number {
		case metaName:
			name, err = f.text()
		case metaValue:
			value, err = f.text()
		}
		return err
	})
	return name, value, err
}

// decodeChange decodes a change. known is false if it is of a kind that is not known here.
func (t Teller) decodeChange(message []byte, now time.Time) (c ports.Change, known bool, err error) {
	var proof ports.Proof
	c.Native = t.id
	err = eachField(message, func(f field) (err error) {
		var n uint64
		switch f.number {
		case changeKind:
			if n, err = f.long(uint64(len(kinds) - 1)); err == nil {
				c.Kind = kinds[n]
			}
		case changeNumber:
			c.Number, err = f.short()
		case changePeerID:
			c.PeerID, err = f.peerID("", nil)
		case changeAddr:
			c.Addr, err = f.text()
		case changeAddrs:
			var addr string
			addr, err = f.text()
			c.Addrs = append(c.Addrs, addr)
		case changeMeta:
			var name, value string
			if name, value, err = f.pair(); c.Meta == nil {
				c.Meta = make(map[string]string)
			}
			c.Meta[name] = value
		case changeNative:
			if c.Native = ""; f.kind != protowire.BytesType || len(f.value) > 0 {
				c.Native, err = f.peerID(t.id, t.binary)
			}
		case changeExpires:
			c.ExpiresAt, err = f.instant()
		case changeSeen:
			if n, err = f.long(maxMilliseconds); n > 0 || f.varint == 0 {
				c.SeenAt = now.Add(-time.Duration(n) * time.Millisecond)
			}
		case changeRemaining:
			c.Remaining, err = f.duration()
		case changeState:
			if n, err = f.long(uint64(len(states) - 1)); err == nil {
				c.State = states[n]
			}
		case changeRecord:
			var record []byte
			record, err = f.bytes()
			proof.Record = slices.Clone(record)
		case changeSeq:
			n, err = f.long(1<<63 - 1)
			proof.Tick.Seq = int64(n)
		case changeStep:
			proof.Tick.Step, err = f.short()
		case changeLink:
			proof.Tick.Link, err = f.link()
		}
		return err
	})
	switch {
	case err != nil || c.Kind == "":
		return c, false, err
	case c.PeerID == "":
		return c, false, errNoPeerID
	}
	if err := ports.CheckMeta(c.Meta); err != nil {
		return c, false, err
	}
	c.Leave = c.Kind == ports.ChangeLeft
	if proof.Record != nil || proof.Tick != (ports.Tick{}) {
		c.Proof = &proof
	}
	return c, true, nil
}
