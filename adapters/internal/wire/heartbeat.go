package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/ports"
)

// MaxHeartbeatBytes bounds a frame of the heartbeat protocol: a registration, and as little around it
// as an answer has.
const MaxHeartbeatBytes = ports.MaxFrameBytes + 64

// The fields of the heartbeat protocol's messages.
const (
	beatRegistration = 1 // of an indexer
	beatStep         = 2
	beatLink         = 3

	beatAnswer = 1 // of a native
	beatNow    = 2
	beatClocks = 3
	beatEnd    = 4
)

// Heartbeat is a frame of an indexer on its open stream.
type Heartbeat struct {
	// Registration is a registration's frame without its newline; nil for the last one once more, with
	// the tick below.
	Registration []byte
	// Ticks says that Step and Link are those of the tick. A plain heartbeat has none.
	Ticks bool
	Step  uint32
	Link  ports.Link
}

// AppendHeartbeat appends the frame of h.
func AppendHeartbeat(b []byte, h *Heartbeat) []byte {
	size := 0
	switch {
	case h.Registration != nil:
		size = 1 + protowire.SizeBytes(len(h.Registration))
	case h.Ticks:
		size = 1 + protowire.SizeVarint(uint64(h.Step)) + 1 + protowire.SizeBytes(len(h.Link))
	}
	b = binary.AppendUvarint(b, uint64(size))
	switch {
	case h.Registration != nil:
		b = protowire.AppendTag(b, beatRegistration, protowire.BytesType)
		b = protowire.AppendBytes(b, h.Registration)
	case h.Ticks:
		b = protowire.AppendTag(b, beatStep, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(h.Step))
		b = protowire.AppendTag(b, beatLink, protowire.BytesType)
		b = protowire.AppendBytes(b, h.Link[:])
	}
	return b
}

// DecodeHeartbeat decodes a frame without its length into h. Its Registration is a part of frame. The
// error is a *ports.Refusal.
func DecodeHeartbeat(frame []byte, h *Heartbeat) error {
	*h = Heartbeat{}
	var step, link bool
	err := eachField(frame, func(f field) (err error) {
		switch f.number {
		case beatRegistration:
			h.Registration, err = f.bytes()
		case beatStep:
			if step = true; f.varint > math.MaxUint32 {
				return errors.New("a step is out of range")
			}
			h.Step, err = f.short()
		case beatLink:
			link = true
			h.Link, err = f.link()
		}
		return err
	})
	switch {
	case err == nil && link != step && !link:
		err = errors.New("a step has no link")
	case err == nil && h.Registration != nil && link:
		err = errors.New("a registration has its tick in itself")
	}
	if err != nil {
		return ports.Refuse(ports.CodeMalformed, "want a frame of a heartbeat: %v", err)
	}
	h.Ticks = link // step 0 may be left out
	return nil
}

// AppendGranted appends the frame that grants the last lease of the stream anew, at the native's time
// now.
func AppendGranted(b []byte, now time.Time, clocks int) []byte {
	size := 1 + 8
	if clocks != 0 {
		size += 1 + protowire.SizeVarint(uint64(clocks))
	}
	b = binary.AppendUvarint(b, uint64(size))
	b = protowire.AppendTag(b, beatNow, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, uint64(now.UnixNano()))
	if clocks != 0 {
		b = protowire.AppendTag(b, beatClocks, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(clocks))
	}
	return b
}

// AppendAnswered appends the frame with an answer of the registration protocol, whose newline it drops.
func AppendAnswered(b, answer []byte) []byte { return appendMessage(b, beatAnswer, answer) }

// AppendEnded appends the last frame of a stream, with a refusal of the registration protocol, whose
// newline it drops.
func AppendEnded(b, refusal []byte) []byte { return appendMessage(b, beatEnd, refusal) }

func appendMessage(b []byte, field protowire.Number, line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	b = binary.AppendUvarint(b, uint64(1+protowire.SizeBytes(len(line))))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, line)
}

// DecodeBeaten decodes a native's frame without its length. last is the last lease with an answer of its
// own. A refusal is the *ports.Refusal; ended says that the stream ends with it. Any other error means
// that frame is no answer.
func DecodeBeaten(frame []byte, last ports.Lease) (lease ports.Lease, ended bool, err error) {
	var answer []byte
	now, clocks := time.Time{}, 0
	err = eachField(frame, func(f field) (err error) {
		switch f.number {
		case beatAnswer, beatEnd:
			answer, err = f.bytes()
			ended = f.number == beatEnd
		case beatNow:
			now, err = f.instant()
		case beatClocks:
			var n uint32
			n, err = f.short()
			clocks = int(min(n, math.MaxInt32))
		}
		return err
	})
	switch {
	case err != nil:
		return lease, false, fmt.Errorf("no answer to a heartbeat: %w", err)
	case answer != nil:
		if lease, err = DecodeAnswer(answer); ended && err == nil {
			err = errors.New("no answer to a heartbeat: the stream ends without a reason")
		}
		return lease, ended, err
	case now.IsZero(), last.TTL == 0:
		return lease, false, errors.New("no answer to a heartbeat: it grants a lease again that it has not granted")
	}
	return Granted(last, now, clocks), false, nil
}

// Granted returns the lease that AppendGranted grants after last.
func Granted(last ports.Lease, now time.Time, clocks int) ports.Lease {
	return ports.Lease{ExpiresAt: now.Add(last.TTL), TTL: last.TTL, Heartbeat: last.Heartbeat, Now: now, Clocks: clocks, Seq: last.Seq}
}

// Usual reports whether AppendGranted says all of lease to an indexer that knows last.
func Usual(lease, last *ports.Lease) bool {
	return lease.TTL == last.TTL && lease.Heartbeat == last.Heartbeat && lease.Seq == last.Seq && lease.Proven == 0 &&
		!lease.NeedRecord && !lease.Rival && !lease.Now.IsZero() && lease.ExpiresAt.Sub(lease.Now) == lease.TTL
}
