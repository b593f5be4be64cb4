package wire

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// The fields of a request, of a range and of an error. docs/protocol.md specifies them.
const (
	requestCursor = 1
	requestBeat   = 2
	requestMine   = 3
	requestAsk    = 4
	requestFull   = 5

	rangeFrom  = 1
	rangeUntil = 2
	rangeCount = 3
	rangeSum   = 4
	rangeWhole = 5

	errorCode    = 1
	errorMessage = 2
)

// maxRangeBytes bounds a range with its tag: three numbers of 32 bits, a sum and a mark.
const maxRangeBytes = 2 + 3*(1+5) + (1 + 8) + 2

// FollowRequest is what a follower says: the first message of a stream asks for the watch, and each
// later message has an ask, or says whether the follower is full.
type FollowRequest struct {
	ports.WatchRequest // Own and Numbers are always set, Renewed is not; Ask and Full are nil
	// Ranges is the ask.
	Ranges []ports.Range
	Fill   Fill
}

// Fill is whether a follower has room for what it is told. 0 is no word of it.
type Fill uint8

// These are the words of a follower about its room.
const (
	Full Fill = 1 // it has refused entries, without room for them
	Room Fill = 2 // it has had room for all of them for long
)

// AppendFollow appends r as a frame. The error is a *ports.Refusal.
func AppendFollow(b []byte, r *FollowRequest) ([]byte, error) {
	if err := checkCursor(r.Cursor); err != nil {
		return b, err
	}
	if err := checkAsk(r.Ranges); err != nil {
		return b, err
	}
	var m []byte
	m = appendString(m, requestCursor, r.Cursor)
	m = appendNumber(m, requestBeat, milliseconds(r.Beat))
	if r.Mine {
		m = appendNumber(m, requestMine, 1)
	}
	for i := range r.Ranges {
		m = appendRange(m, requestAsk, &r.Ranges[i])
	}
	m = appendNumber(m, requestFull, uint64(r.Fill))
	return appendFrame(b, m), nil
}

// DecodeFollow decodes the message of a frame from a follower. The error is a *ports.Refusal.
func DecodeFollow(message []byte) (*FollowRequest, error) {
	r := &FollowRequest{WatchRequest: ports.WatchRequest{Own: true, Numbers: true}}
	err := eachField(message, func(f field) (err error) {
		switch f.number {
		case requestCursor:
			r.Cursor, err = f.text()
		case requestBeat:
			r.Beat, err = f.duration()
		case requestMine:
			r.Mine, err = f.mark()
		case requestAsk:
			r.Ranges, err = f.appendRange(r.Ranges)
		case requestFull:
			var is uint64
			if is, err = f.long(1 << 62); err == nil && is <= uint64(Room) {
				r.Fill = Fill(is)
			}
		}
		return err
	})
	if err == nil {
		err = checkCursor(r.Cursor)
	}
	if err == nil {
		err = checkAsk(r.Ranges)
	}
	if err != nil {
		return nil, malformed(err)
	}
	return r, nil
}

// checkAsk returns nil if ranges are an ask: an answer then costs a walk of the table at most.
func checkAsk(ranges []ports.Range) error {
	if len(ranges) > ports.MaxRanges {
		return ports.Refuse(ports.CodeMalformed, "%d ranges at once, at most %d are allowed", len(ranges), ports.MaxRanges)
	}
	next := uint32(0)
	for i, r := range ranges {
		if r.From < next || r.Until != 0 && r.Until <= r.From || r.Until == 0 && i < len(ranges)-1 {
			return ports.Refuse(ports.CodeMalformed, "range %d, from %d until %d, is empty or not behind the range before", i, r.From, r.Until)
		}
		next = r.Until
	}
	return nil
}

func appendRange(b []byte, number protowire.Number, r *ports.Range) []byte {
	var buf [maxRangeBytes]byte
	m := appendNumber(buf[:0], rangeFrom, uint64(r.From))
	m = appendNumber(m, rangeUntil, uint64(r.Until))
	m = appendNumber(m, rangeCount, uint64(r.Count))
	m = appendFixed(m, rangeSum, r.Sum)
	if r.Whole {
		m = appendNumber(m, rangeWhole, 1)
	}
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), m)
}

func (f field) appendRange(to []ports.Range) ([]ports.Range, error) {
	message, err := f.bytes()
	if err != nil {
		return nil, err
	}
	if len(to) >= ports.MaxRanges {
		return nil, errTooMany
	}
	var r ports.Range
	err = eachField(message, func(f field) (err error) {
		switch f.number {
		case rangeFrom:
			r.From, err = f.short()
		case rangeUntil:
			r.Until, err = f.short()
		case rangeCount:
			r.Count, err = f.short()
		case rangeSum:
			r.Sum, err = f.fixed()
		case rangeWhole:
			r.Whole, err = f.mark()
		}
		return err
	})
	return append(to, r), err
}

// EncodeFollowEnd returns the last frame of a watch that r ends.
func EncodeFollowEnd(r *ports.Refusal) []byte {
	is := fit(r)
	m := appendString(appendString(nil, errorCode, is.Code), errorMessage, is.Message)
	return appendFrame(nil, protowire.AppendBytes(protowire.AppendTag(nil, newsError, protowire.BytesType), m))
}

func (f field) refusal() (error, error) {
	message, err := f.bytes()
	if err != nil {
		return nil, err
	}
	var is refusal
	err = eachField(message, func(f field) (err error) {
		switch f.number {
		case errorCode:
			is.Code, err = f.text()
		case errorMessage:
			is.Message, err = f.text()
		}
		return err
	})
	return is.refusal(), err
}

// malformed returns err as a refusal.
func malformed(err error) error {
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		return refusal
	}
	return ports.Refuse(ports.CodeMalformed, "no message of the follow protocol: %v", err)
}

// milliseconds returns d in whole milliseconds, rounded up: a promise is then kept, and an age is not
// understated. It returns 0 for less than none.
func milliseconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	ms := uint64(d / time.Millisecond)
	if d%time.Millisecond != 0 {
		ms++
	}
	return ms
}

// maxMilliseconds is the longest time.Duration.
const maxMilliseconds = uint64(math.MaxInt64 / int64(time.Millisecond))
