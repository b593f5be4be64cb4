package wire

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencloud/ocnode/ports"
)

type watch struct {
	Cursor      string    `json:",omitzero"`
	Renewed     bool      `json:",omitzero"`
	Own         bool      `json:",omitzero"`
	Proofs      bool      `json:",omitzero"`
	Mine        bool      `json:",omitzero"`
	BeatSeconds *duration `json:",omitzero"`
	unknown
}

var watchNames = []string{"Cursor", "Renewed", "Own", "Proofs", "Mine", "BeatSeconds"}

// DecodeWatch decodes a watch frame without its newline. What a cursor means is its native's
// affair; here only its size is. The error is a *ports.Refusal.
func DecodeWatch(frame []byte) (ports.WatchRequest, error) {
	var w watch
	if err := decode(frame, &w, &w.unknown, watchNames); err != nil {
		return ports.WatchRequest{}, err
	}
	r := ports.WatchRequest{Cursor: w.Cursor, Renewed: w.Renewed, Own: w.Own, Proofs: w.Proofs, Mine: w.Mine}
	if w.BeatSeconds != nil {
		r.Beat = max(time.Duration(w.BeatSeconds.seconds), 0)
	}
	return r, checkCursor(w.Cursor)
}

// EncodeWatch returns w as a frame with its newline. The error is a *ports.Refusal.
func EncodeWatch(w ports.WatchRequest) ([]byte, error) {
	if err := checkCursor(w.Cursor); err != nil {
		return nil, err
	}
	frame := &watch{Cursor: w.Cursor, Renewed: w.Renewed, Own: w.Own, Proofs: w.Proofs, Mine: w.Mine}
	if w.Beat != 0 {
		frame.BeatSeconds = &duration{seconds(w.Beat)}
	}
	return encodeLine(frame)
}

func checkCursor(cursor string) error {
	if len(cursor) > ports.MaxCursorBytes {
		return ports.Refuse(ports.CodeMalformed, "Cursor has %d bytes, allowed are %d; give that of the last batch, or none",
			len(cursor), ports.MaxCursorBytes)
	}
	return nil
}

// batchEnd is room for what follows the last change of a frame: a cursor, each byte of
// which may be escaped in six, and what stands around it.
const batchEnd = 6*ports.MaxCursorBytes + 32

// WriteBatch has write take b in as many frames as it needs, each with its newline and at
// most ports.MaxBatchBytes before that: only the first has the Reset, the Beat and the Start,
// only the last the Cursor. now is when its times are counted from. Each frame is written into buf, of which
// write must keep nothing; the one with more room is returned for the next batch.
//
// The error is write's, or a *ports.Refusal of what no frame can carry.
func WriteBatch(buf []byte, b *ports.Batch, now time.Time, write func(frame []byte) error) ([]byte, error) {
	if err := checkCursor(b.Cursor); err != nil {
		return buf, err
	}
	var err error
	frame := appendBatchStart(buf[:0], b, true, &err)
	first := true
	for i := range b.Changes {
		began := len(frame)
		frame = appendChange(frame, &b.Changes[i], first, now, &err)
		if first = false; len(frame) <= ports.MaxBatchBytes-batchEnd {
			continue
		}
		// This one opens the next frame.
		if err == nil {
			err = write(append(frame[:began], "]}\n"...))
		}
		if err != nil {
			return frame[:0], err
		}
		frame = appendBatchStart(frame[:0], b, false, &err)
		frame = appendChange(frame, &b.Changes[i], true, now, &err)
		if len(frame) > ports.MaxBatchBytes-batchEnd {
			return frame[:0], tooLarge(ports.MaxBatchBytes)
		}
	}
	frame = append(frame, ']')
	if b.Cursor != "" {
		frame = appendText(append(frame, `,"Cursor":`...), b.Cursor, &err)
	}
	frame = append(frame, "}\n"...)
	if err == nil {
		err = write(frame)
	}
	return frame[:0], err
}

func appendBatchStart(b []byte, of *ports.Batch, first bool, err *error) []byte {
	b = append(b, '{')
	if first && of.Reset != "" {
		b = append(appendText(append(b, `"Reset":`...), string(of.Reset), err), ',')
	}
	if first && of.Beat != 0 {
		b = append(appendDuration(append(b, `"BeatSeconds":`...), of.Beat), ',')
	}
	if first && of.Start != "" {
		b = append(appendText(append(b, `"Start":`...), of.Start, err), ',')
	}
	if of.Condition != "" {
		b = append(appendText(append(b, `"Condition":`...), string(of.Condition), err), ',')
	}
	for i, id := range of.Missing[:min(len(of.Missing), ports.MaxMissing)] {
		if i == 0 {
			b = append(b, `"Missing":[`...)
		}
		b = append(appendText(b, string(id), err), ',')
	}
	if len(of.Missing) > 0 {
		b = append(b[:len(b)-1], "],"...)
	}
	if at := normal(of.Now); !at.IsZero() {
		b = append(at.AppendFormat(append(b, `"Now":"`...), time.RFC3339Nano), `",`...)
	}
	b = strconv.AppendInt(append(b, `"Live":`...), int64(of.Live), 10)
	return append(b, `,"Changes":[`...)
}

func appendChange(b []byte, c *ports.Change, first bool, now time.Time, err *error) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(appendText(append(b, `{"Kind":`...), string(c.Kind), err), ',')
	b, e := appendListed(b, &c.Listed, now)
	if e != nil && *err == nil {
		*err = e
	}
	return append(b, '}')
}

// EncodeWatchEnd returns the last frame of a watch that r ends, with its newline.
func EncodeWatchEnd(r *ports.Refusal) ([]byte, error) {
	return encodeLine(&struct{ Error *refusal }{fit(r)})
}

type batch struct {
	Reset     string
	Condition string
	Live      count
	Changes   changes
	Cursor    string
	Now       instant
	Error     *refusal
	Missing   missing
	// BeatSeconds and Start are in the first frame alone.
	BeatSeconds seconds
	Start       string
	unknown
}

var batchNames = []string{"Reset", "Condition", "Live", "Changes", "Cursor", "Now", "Error", "Missing", "BeatSeconds", "Start"}

// DecodeBatch decodes a frame of a watch, without its newline; its times count from now. A
// refusal is returned as the *ports.Refusal it is; any other error means that frame is no
// batch. A Change of a kind that is not known here is left out.
func DecodeBatch(frame []byte, now time.Time) (ports.Batch, error) {
	w := batch{Changes: changes{now: now}}
	if err := decodeUpTo(ports.MaxBatchBytes, frame, &w, &w.unknown, batchNames); err != nil {
		return ports.Batch{}, noAnswer(err)
	}
	if w.Error != nil {
		return ports.Batch{}, w.Error.refusal()
	}
	if err := checkCursor(w.Cursor); err != nil {
		return ports.Batch{}, noAnswer(err)
	}
	return ports.Batch{
		Reset: ports.Reset(w.Reset), Changes: w.Changes.all, Cursor: w.Cursor,
		Live: int(w.Live), Condition: ports.Condition(w.Condition), Now: w.Now.Time,
		Missing: w.Missing, Beat: max(time.Duration(w.BeatSeconds), 0), Start: w.Start[:min(len(w.Start), ports.MaxCursorBytes)],
	}, nil
}

type change struct {
	Kind string
	listed
	unknown
}

var changeNames = append([]string{"Kind"}, listedNames...)

// changes are decoded one by one, so that what is no change costs no more than itself.
type changes struct {
	now time.Time
	all []ports.Change
}

func (c *changes) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch begin, err := d.ReadToken(); {
	case err != nil || begin.Kind() == 'n':
		return err
	case begin.Kind() != '[':
		return errors.New("the Changes are no array")
	}
	var w change
	var native ports.PeerID
	for d.PeekKind() != ']' {
		w = change{}
		if err := json.UnmarshalDecode(d, &w); err != nil {
			return err
		}
		switch kind := ports.ChangeKind(w.Kind); kind {
		case ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed,
			ports.ChangeLate, ports.ChangeStale, ports.ChangeExpired, ports.ChangeLeft:
			if err := w.refuseLookalikes(changeNames); err != nil {
				return err
			}
			l, err := w.listed.listed(c.now, native)
			if err != nil {
				return fmt.Errorf("change %d: %w", len(c.all), err)
			}
			native = l.Native
			c.all = append(c.all, ports.Change{Kind: kind, Listed: l})
		case "":
			return fmt.Errorf("change %d has no Kind", len(c.all))
		}
	}
	_, err := d.ReadToken()
	return err
}
