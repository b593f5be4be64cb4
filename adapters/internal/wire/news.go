package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// The fields of a teller's message. docs/protocol.md specifies them.
const (
	newsReset     = 1
	newsCursor    = 2
	newsLive      = 3
	newsCondition = 4
	newsMissing   = 5
	newsBeat      = 6
	newsStart     = 7
	newsNow       = 8
	newsAge       = 9
	newsChange    = 10
	newsRenewals  = 11
	newsSum       = 12
	newsTold      = 13
	newsAudience  = 14
	newsError     = 15
)

// pieceBytes bounds the changes and renewals of a frame. The rest of MaxBatchBytes is room for a
// change that is larger, and for what a frame says besides: its ranges above all.
const pieceBytes = 40 << 10

// Pieces are News as they go on the wire: what all followers are told alike, in as many frames as it
// needs.
type Pieces struct{ all []piece }

type piece struct {
	bytes []byte
	from  uint32 // the Number of its first change
}

// EncodeNews returns n, made at that time by the native teller. n may be nil. The error is a
// *ports.Refusal of what no frame can carry.
func EncodeNews(n *ports.News, teller ports.PeerID, made time.Time) (*Pieces, error) {
	p := &Pieces{all: make([]piece, 1)}
	if n == nil {
		return p, nil
	}
	var buf []byte
	for i := range n.Changes {
		c := &n.Changes[i]
		var err error
		if buf, err = appendToldChange(buf[:0], c, teller, made); err != nil {
			return nil, err
		}
		p.add(newsChange, buf, c.Number)
	}
	for from := 0; from < len(n.Renewals); from += blockSize {
		buf = appendRenewals(buf[:0], n.Renewals[from:min(from+blockSize, len(n.Renewals))])
		p.add(newsRenewals, buf, 0)
	}
	return p, nil
}

// add appends a field, in another piece if the last has no room.
func (p *Pieces) add(number protowire.Number, message []byte, from uint32) {
	last := &p.all[len(p.all)-1]
	if size := len(last.bytes); size > 0 && size+len(message) > pieceBytes {
		p.all = append(p.all, piece{from: from})
		last = &p.all[len(p.all)-1]
	}
	last.bytes = protowire.AppendBytes(protowire.AppendTag(last.bytes, number, protowire.BytesType), message)
}

// WriteTold has write take b, whose News are p, in one or more frames: only the first has the Reset,
// the Beat and the Start, only the last the Cursor and the Sums. Each has its part of Told. Each frame
// is written into buf, of which write must keep nothing; the buffer with more room is returned.
//
// The error is write's, or a *ports.Refusal of what no frame can carry.
func WriteTold(buf []byte, b *ports.Batch, p *Pieces, write func(frame []byte) error) ([]byte, error) {
	if err := checkCursor(b.Cursor); err != nil {
		return buf, err
	}
	if len(b.Sums) > ports.MaxRanges || len(b.Told) > ports.MaxRanges {
		return buf, tooLarge(ports.MaxBatchBytes)
	}
	for i := range p.all {
		var until uint32
		last := i == len(p.all)-1
		if !last {
			until = p.all[i+1].from
		}
		var err error
		buf = append(buf[:0], make([]byte, lengthBytes)...)
		if buf, err = appendHead(buf, b, i == 0, last); err != nil {
			return buf, err
		}
		for _, r := range b.Told {
			if i > 0 {
				r.From = max(r.From, p.all[i].from)
			}
			if until != 0 && (r.Until == 0 || r.Until > until) {
				r.Until = until
			}
			if r.Until == 0 || r.From < r.Until {
				buf = appendRange(buf, newsTold, &ports.Range{From: r.From, Until: r.Until, Whole: r.Whole})
			}
		}
		buf = append(buf, p.all[i].bytes...)
		size := len(buf) - lengthBytes
		if size > ports.MaxBatchBytes {
			return buf, tooLarge(ports.MaxBatchBytes)
		}
		begin := lengthBytes - protowire.SizeVarint(uint64(size))
		binary.PutUvarint(buf[begin:], uint64(size))
		if err := write(buf[begin:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func appendHead(b []byte, of *ports.Batch, first, last bool) (_ []byte, err error) {
	if first {
		b = appendString(b, newsReset, string(of.Reset))
		b = appendNumber(b, newsBeat, milliseconds(of.Beat))
		b = appendString(b, newsStart, of.Start)
	}
	b = appendNumber(b, newsLive, uint64(max(of.Live, 0)))
	b = appendString(b, newsCondition, string(of.Condition))
	for _, id := range of.Missing[:min(len(of.Missing), ports.MaxMissing)] {
		if b, err = appendPeerID(b, newsMissing, id); err != nil {
			return b, err
		}
	}
	if !of.Now.IsZero() {
		b = appendTime(b, newsNow, of.Now)
	}
	b = appendNumber(b, newsAge, milliseconds(of.Age))
	b = appendFixed(b, newsAudience, of.Audience)
	if last {
		b = appendString(b, newsCursor, of.Cursor)
		for i := range of.Sums {
			b = appendRange(b, newsSum, &of.Sums[i])
		}
	}
	if !utf8.ValidString(of.Cursor) || !utf8.ValidString(string(of.Reset)) || !utf8.ValidString(of.Start) || !utf8.ValidString(string(of.Condition)) {
		return b, malformed(errText)
	}
	return b, nil
}

// Teller decodes the messages of a native.
type Teller struct {
	id     ports.PeerID
	binary []byte
}

// NewTeller returns the decoder of the native id's messages.
func NewTeller(id ports.PeerID) Teller {
	binary, err := peer.Decode(string(id))
	if err != nil {
		return Teller{id: id} // it is compared with no PeerID
	}
	return Teller{id, []byte(binary)}
}

// Decode decodes the message of a frame; its times count from now. A refusal is returned as the
// *ports.Refusal it is; any other error means that it is no message of a teller. A Change of a kind
// that is not known here is left out. The Batch has News if the message tells any, or what is Told.
func (t Teller) Decode(message []byte, now time.Time) (ports.Batch, error) {
	var b ports.Batch
	var end error
	var news ports.News
	err := eachField(message, func(f field) (err error) {
		var text string
		switch f.number {
		case newsReset:
			text, err = f.text()
			b.Reset = ports.Reset(text)
		case newsCursor:
			b.Cursor, err = f.text()
		case newsLive:
			var live uint64
			live, err = f.long(1 << 62)
			b.Live = int(live)
		case newsCondition:
			text, err = f.text()
			b.Condition = ports.Condition(text)
		case newsMissing:
			var id ports.PeerID
			if id, err = f.peerID("", nil); len(b.Missing) < ports.MaxMissing {
				b.Missing = append(b.Missing, id)
			}
		case newsBeat:
			b.Beat, err = f.duration()
		case newsStart:
			text, err = f.text()
			b.Start = text[:min(len(text), ports.MaxCursorBytes)]
		case newsNow:
			b.Now, err = f.instant()
		case newsAge:
			b.Age, err = f.duration()
		case newsChange:
			err = t.change(f, &news, now)
		case newsRenewals:
			var block []byte
			if block, err = f.bytes(); err == nil {
				news.Renewals, err = decodeRenewals(news.Renewals, block)
			}
		case newsSum:
			b.Sums, err = f.appendRange(b.Sums)
		case newsTold:
			b.Told, err = f.appendRange(b.Told)
		case newsAudience:
			b.Audience, err = f.fixed()
		case newsError:
			end, err = f.refusal()
		}
		return err
	})
	switch {
	case err != nil:
		return ports.Batch{}, noAnswer(malformed(err))
	case end != nil:
		return ports.Batch{}, end
	}
	if err := checkCursor(b.Cursor); err != nil {
		return ports.Batch{}, noAnswer(err)
	}
	if len(news.Changes) > 0 || len(news.Renewals) > 0 || len(b.Told) > 0 {
		b.News = &news
	}
	for i := range news.Changes {
		if seen := &news.Changes[i].SeenAt; !seen.IsZero() {
			*seen = seen.Add(-b.Age)
		}
	}
	return b, nil
}

func (t Teller) change(f field, to *ports.News, now time.Time) error {
	message, err := f.bytes()
	if err != nil {
		return err
	}
	c, known, err := t.decodeChange(message, now)
	if err != nil {
		return fmt.Errorf("change %d: %w", len(to.Changes), err)
	}
	if known {
		to.Changes = append(to.Changes, c)
	}
	return nil
}

// errNoPeerID is a change of no indexer.
var errNoPeerID = errors.New("it has no PeerID")

// PeerID is the native's.
func (t Teller) PeerID() ports.PeerID { return t.id }
