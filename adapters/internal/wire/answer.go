package wire

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencloud/ocnode/ports"
)

// maxMessageBytes bounds the Message of a refusal: a sentence that may quote an
// address, whatever a native puts there.
const maxMessageBytes = 1 << 10

type answer struct {
	OK               *bool
	ExpiresAt        instant  `json:",omitzero"`
	TTLSeconds       seconds  `json:",omitzero"`
	HeartbeatSeconds seconds  `json:",omitzero"`
	Now              instant  `json:",omitzero"`
	Error            *refusal `json:",omitzero"`
	unknown
}

type refusal struct {
	Code    string
	Message string
}

var answerNames = []string{"OK", "ExpiresAt", "TTLSeconds", "HeartbeatSeconds", "Now", "Error"}

// DecodeAnswer decodes the answer to a registration, without its newline. A
// refusal is returned as the *ports.Refusal it is; any other error means that
// frame is no answer.
//
// Numbers and times that are none become zero, which is "not said", and numbers
// beyond a time.Duration become the nearest one: a native that is wrong about
// these has still granted a lease, and it is for the caller to clamp them.
func DecodeAnswer(frame []byte) (ports.Lease, error) {
	var w answer
	if err := decode(frame, &w, &w.unknown, answerNames); err != nil {
		// Not the native's refusal, so it must not look like one.
		return ports.Lease{}, fmt.Errorf("no answer to a registration: %s", err.Error())
	}
	switch {
	case w.OK == nil:
		return ports.Lease{}, errors.New(`no answer to a registration: "OK" is missing`)
	case !*w.OK && w.Error == nil:
		return ports.Lease{}, ports.Refuse(ports.CodeRefused, "the native gave no reason")
	case !*w.OK:
		return ports.Lease{}, &ports.Refusal{
			Code:    cmp.Or(ports.Code(w.Error.Code), ports.CodeRefused),
			Message: w.Error.Message,
		}
	}
	return ports.Lease{
		ExpiresAt: w.ExpiresAt.Time, Now: w.Now.Time,
		TTL: time.Duration(w.TTLSeconds), Heartbeat: time.Duration(w.HeartbeatSeconds),
	}, nil
}

// EncodeLease returns the answer that grants l, with its newline.
func EncodeLease(l ports.Lease) ([]byte, error) {
	return encodeLine(&answer{
		OK:        new(true),
		ExpiresAt: instant{l.ExpiresAt}, TTLSeconds: seconds(l.TTL),
		HeartbeatSeconds: seconds(l.Heartbeat), Now: instant{l.Now},
	})
}

// EncodeRefusal returns the answer that refuses, with its newline.
func EncodeRefusal(r *ports.Refusal) ([]byte, error) {
	message := r.Message[:min(len(r.Message), maxMessageBytes)]
	return encodeLine(&answer{
		OK:    new(false),
		Error: &refusal{string(r.Code), strings.ToValidUTF8(message, "\uFFFD")},
	})
}

// instant is a time that is zero unless it is written as RFC 3339.
type instant struct{ time.Time }

func (i instant) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.String(i.UTC().Format(time.RFC3339Nano)))
}

func (i *instant) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil || value.Kind() != '"' {
		return err
	}
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		return err
	}
	if t, err := time.Parse(time.RFC3339, string(text)); err == nil {
		i.Time = normal(t)
	}
	return nil
}

// seconds is a duration in seconds that is zero unless it is written as a number.
type seconds time.Duration

func (s seconds) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteToken(jsontext.Float(time.Duration(s).Seconds()))
}

func (s *seconds) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil || value.Kind() != '0' {
		return err
	}
	// Out of range is no error here: ParseFloat says ±Inf then.
	number, _ := strconv.ParseFloat(string(value), 64)
	switch ns := math.Round(number * float64(time.Second)); {
	case ns >= math.MaxInt64:
		*s = math.MaxInt64
	case ns <= math.MinInt64:
		*s = math.MinInt64
	default:
		*s = seconds(ns)
	}
	return nil
}
