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

// Question is what a look-up asks for: the entry of PeerID, or the natives, or else a page.
type Question struct {
	PeerID  ports.PeerID
	Natives bool
	Query   ports.Query
}

type question struct {
	PeerID  *string           `json:",omitzero"`
	Natives bool              `json:",omitzero"`
	Limit   limit             `json:",omitzero"`
	After   string            `json:",omitzero"`
	Meta    map[string]string `json:",omitempty"`
	Proofs  bool              `json:",omitzero"`
	unknown
}

var questionNames = []string{"PeerID", "Natives", "Limit", "After", "Meta", "Proofs"}

// limit is a number of entries; 0 is not said. What is said and not allowed is -1.
type limit int

func (l *limit) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil || value.Kind() == 'n' {
		return err
	}
	if value.Kind() != '0' {
		return errors.New("the Limit is no number")
	}
	*l = -1
	if number, err := strconv.ParseFloat(string(value), 64); err == nil && number >= 1 && number <= ports.MaxPage && number == float64(int(number)) {
		*l = limit(number)
	}
	return nil
}

// DecodeQuestion decodes a look-up frame without its newline. PeerIDs in it are canonical.
// The error is a *ports.Refusal.
func DecodeQuestion(frame []byte) (Question, error) {
	var w question
	if err := decode(frame, &w, &w.unknown, questionNames); err != nil {
		return Question{}, err
	}
	q := Question{Natives: w.Natives, Query: ports.Query{Limit: int(w.Limit), Proofs: w.Proofs}}
	asked := 0
	for _, of := range []bool{w.PeerID != nil, w.Natives, w.Limit != 0 || w.After != "" || len(w.Meta) > 0} {
		if of {
			asked++
		}
	}
	if asked > 1 {
		return Question{}, ports.Refuse(ports.CodeMalformed, "ask for one of PeerID, Natives, or a page by Limit, After and Meta")
	}
	var err error
	if w.PeerID != nil {
		if q.PeerID, err = canonical(*w.PeerID); err != nil {
			return Question{}, ports.Refuse(ports.CodeMalformed, `PeerID %.80q: %v; want the text of a libp2p PeerID, "12D3…"`, *w.PeerID, err)
		}
	}
	if w.After != "" {
		if q.Query.After, err = canonical(w.After); err != nil {
			return Question{}, ports.Refuse(ports.CodeMalformed, "After %.80q: %v; want the Next of the page before", w.After, err)
		}
	}
	if len(w.Meta) > 0 {
		q.Query.Meta = w.Meta
	}
	return q, checkQuery(q.Query)
}

// EncodeQuestion returns q as a frame with its newline. The error is a *ports.Refusal.
func EncodeQuestion(q Question) ([]byte, error) {
	if err := checkQuery(q.Query); err != nil {
		return nil, err
	}
	w := question{Natives: q.Natives, Limit: limit(q.Query.Limit), After: string(q.Query.After), Meta: q.Query.Meta, Proofs: q.Query.Proofs}
	if q.PeerID != "" {
		w.PeerID = new(string(q.PeerID))
	}
	return encodeLine(&w)
}

func checkQuery(q ports.Query) error {
	if q.Limit < 0 || q.Limit > ports.MaxPage {
		return ports.Refuse(ports.CodeOutOfRange, "Limit is out of range; allowed are whole numbers from 1 to %d, and %d is meant without one", ports.MaxPage, ports.DefaultPage)
	}
	if err := ports.CheckMeta(q.Meta); err != nil {
		return err
	}
	return nil
}

// AppendListed appends l as a line of the answer to a look-up. now is when its times are
// counted from. The error is a *ports.Refusal; nothing is appended then.
func AppendListed(b []byte, l *ports.Listed, now time.Time) ([]byte, error) {
	line, err := appendListed(append(b, '{'), l, now)
	if err != nil {
		return b, err
	}
	line = append(line, '}')
	if len(line)-len(b) > MaxLineBytes {
		if l.Proof != nil && l.Proof.Record != nil && (len(l.Addrs) > 0 || len(l.Meta) > 0) {
			bare := *l
			bare.Addrs, bare.Meta = nil, nil // the record says them, in fewer bytes than JSON may need
			return AppendListed(b, &bare, now)
		}
		return b, tooLarge(MaxLineBytes)
	}
	return append(line, '\n'), nil
}

// End is the last line of the answer to a look-up.
type End struct {
	Next      ports.PeerID
	Condition ports.Condition
	Missing   []ports.PeerID
	// Refusal is nil if the answer is whole.
	Refusal *ports.Refusal
}

type end struct {
	OK        *bool
	Next      string   `json:",omitzero"`
	Condition string   `json:",omitzero"`
	Missing   missing  `json:",omitempty"`
	Error     *refusal `json:",omitzero"`
}

var endNames = []string{"OK", "Next", "Condition", "Missing", "Error"}

// missing are the natives that a native hears no more. At most ports.MaxMissing are read, and no
// text that is no PeerID.
type missing []ports.PeerID

func (m *missing) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err != nil || value.Kind() != '[' {
		return err
	}
	var texts []jsontext.Value
	if err := json.Unmarshal(value, &texts); err != nil {
		return err
	}
	for _, text := range texts {
		if text.Kind() != '"' || len(*m) == ports.MaxMissing {
			continue
		}
		name, err := jsontext.AppendUnquote(nil, text)
		if err != nil {
			return err
		}
		if id, err := canonical(string(name)); err == nil {
			*m = append(*m, id)
		}
	}
	return nil
}

// end returns what w says, or nil if it is another line.
func (w *end) end() (*End, error) {
	if w.OK == nil {
		return nil, nil
	}
	e := &End{Condition: ports.Condition(w.Condition), Missing: w.Missing}
	if !*w.OK {
		e.Refusal = w.Error.refusal()
		return e, nil
	}
	if w.Next != "" {
		var err error
		if e.Next, err = canonical(w.Next); err != nil {
			return nil, fmt.Errorf("Next %.80q: %w", w.Next, err)
		}
	}
	return e, nil
}

// EncodeEnd returns the last line of the answer to a look-up, with its newline.
func EncodeEnd(e End) ([]byte, error) {
	if e.Next == "" && e.Condition == "" && len(e.Missing) == 0 && e.Refusal == nil {
		return EncodeOK(), nil // that of nearly every look-up of one PeerID
	}
	w := end{OK: new(e.Refusal == nil), Next: string(e.Next), Condition: string(e.Condition), Missing: e.Missing[:min(len(e.Missing), ports.MaxMissing)]}
	if e.Refusal != nil {
		w.Error = fit(e.Refusal)
	}
	return encodeLine(&w)
}

type listedLine struct {
	end
	listed
	unknown
}

var listedLineNames = append(endNames[:len(endNames):len(endNames)], listedNames...)

// DecodeListed decodes a line of the answer to a look-up, without its newline: an entry,
// whose times count from now, or the end, which is nil otherwise. An error is no
// *ports.Refusal, and means that frame is neither.
func DecodeListed(frame []byte, now time.Time) (ports.Listed, *End, error) {
	var w listedLine
	if err := decodeUpTo(MaxLineBytes, frame, &w, &w.unknown, listedLineNames); err != nil {
		return ports.Listed{}, nil, noAnswer(err)
	}
	if e, err := w.end.end(); e != nil || err != nil {
		return ports.Listed{}, e, noAnswer(err)
	}
	l, err := w.listed.listed(now, "")
	return l, nil, noAnswer(err)
}

type status struct {
	PeerID           string    `json:",omitzero"`
	Addrs            []string  `json:",omitempty"`
	Following        bool      `json:",omitzero"`
	RoundTripSeconds *duration `json:",omitzero"`
	Live             count     `json:",omitzero"`
	LagSeconds       *duration `json:",omitzero"`
}

var statusNames = []string{"PeerID", "Addrs", "Following", "RoundTripSeconds", "Live", "LagSeconds"}

// duration is seconds that can be written too.
type duration struct{ seconds }

func (d duration) MarshalJSONTo(e *jsontext.Encoder) error {
	return e.WriteValue(appendDuration(nil, time.Duration(d.seconds)))
}

// count is how many there are; 0 unless it is written as a whole number.
type count int

func (c *count) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err == nil && value.Kind() == '0' {
		if n, err := strconv.ParseUint(string(value), 10, 62); err == nil {
			*c = count(n)
		}
	}
	return err
}

// AppendNative appends s as a line of the answer to a look-up. The error is a *ports.Refusal;
// nothing is appended then.
func AppendNative(b []byte, s ports.NativeStatus) ([]byte, error) {
	w := status{PeerID: string(s.PeerID), Addrs: s.Addrs, Following: s.Following, Live: count(s.Live)}
	if s.RoundTrip != 0 {
		w.RoundTripSeconds = &duration{seconds(s.RoundTrip)}
	}
	if s.Lag != 0 {
		w.LagSeconds = &duration{seconds(s.Lag)}
	}
	line, err := encodeLine(&w)
	if err != nil {
		return b, err
	}
	return append(b, line...), nil
}

type statusLine struct {
	end
	status
	unknown
}

var statusLineNames = append(endNames[:len(endNames):len(endNames)], statusNames...)

// DecodeNative is DecodeListed for what a native says of another one.
func DecodeNative(frame []byte) (ports.NativeStatus, *End, error) {
	var w statusLine
	if err := decodeUpTo(MaxLineBytes, frame, &w, &w.unknown, statusLineNames); err != nil {
		return ports.NativeStatus{}, nil, noAnswer(err)
	}
	if e, err := w.end.end(); e != nil || err != nil {
		return ports.NativeStatus{}, e, noAnswer(err)
	}
	id, err := canonical(w.PeerID)
	if err != nil {
		return ports.NativeStatus{}, nil, noAnswer(fmt.Errorf("PeerID %.80q: %w", w.PeerID, err))
	}
	s := ports.NativeStatus{PeerID: id, Following: w.Following, Live: int(w.Live)}
	if len(w.Addrs) > 0 {
		s.Addrs = w.Addrs
	}
	if w.RoundTripSeconds != nil {
		s.RoundTrip = time.Duration(w.RoundTripSeconds.seconds)
	}
	if w.LagSeconds != nil {
		s.Lag = time.Duration(w.LagSeconds.seconds)
	}
	return s, nil, nil
}

// noAnswer returns err, which says what is wrong with an answer, as no refusal of the
// native's, since it is none.
func noAnswer(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("no such answer as was asked for: %s", err.Error())
}
