package wire

import (
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/opencloud/ocnode/ports"
)

// listed is an entry as natives show it to each other and to whoever asks.
type listed struct {
	about
	Native         string
	ExpiresAt      instant
	Left           bool
	State          string
	Source         string
	LeftSeconds    seconds
	SeenSecondsAgo age
	Natives        []string
	proof
}

var listedNames = append([]string{"Native", "ExpiresAt", "Left", "State", "Source", "LeftSeconds", "SeenSecondsAgo", "Natives"}, registrationNames...)

// MaxLineBytes bounds a line of the answer to a look-up: an entry of the largest
// registration, what a native adds to it, and its record.
const MaxLineBytes = 2*ports.MaxFrameBytes + 1<<10

// listed checks what every native would and returns the port's noun. known is a PeerID
// that is canonical for sure, or "": most entries that come together name one native.
func (w *listed) listed(now time.Time, known ports.PeerID) (ports.Listed, error) {
	r, err := w.registration("")
	if err != nil {
		return ports.Listed{}, err
	}
	l := ports.Listed{
		Entry: ports.Entry{
			PeerID: r.PeerID, Addr: r.Addr, Addrs: r.Addrs, Meta: r.Meta,
			Native: known, ExpiresAt: w.ExpiresAt.Time, Leave: w.Left, Proof: w.proof.proof(),
		},
		State: ports.State(w.State), Source: ports.Source(w.Source), Remaining: time.Duration(w.LeftSeconds),
	}
	if w.Native != string(known) {
		l.Native = ""
		if w.Native != "" {
			if l.Native, err = canonical(w.Native); err != nil {
				return ports.Listed{}, ports.Refuse(ports.CodeMalformed, "Native %.80q: %v", w.Native, err)
			}
		}
	}
	if w.SeenSecondsAgo.said {
		l.SeenAt = now.Add(-max(w.SeenSecondsAgo.ago, 0)) // nobody was seen later than now
	}
	for _, text := range w.Natives[:min(len(w.Natives), ports.MaxHolders)] {
		id, err := canonical(text)
		if err != nil {
			return ports.Listed{}, ports.Refuse(ports.CodeMalformed, "Natives: %.80q: %v", text, err)
		}
		l.Natives = append(l.Natives, id)
	}
	return l, nil
}

// age is how long ago something was, if a number says so.
type age struct {
	said bool
	ago  time.Duration
}

func (a *age) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	if err == nil && value.Kind() == '0' {
		a.said, a.ago = true, parseSeconds(value)
	}
	return err
}

// appendListed appends the members of l, without the braces around them. Like EncodeLease
// it is written by hand: natives write each change to every watcher. An error means a text
// that is not UTF-8, which no native has heard on the wire.
func appendListed(b []byte, l *ports.Listed, now time.Time) ([]byte, error) {
	var err error
	b = appendText(append(b, `"PeerID":`...), string(l.PeerID), &err)
	if l.Addr != "" {
		b = appendText(append(b, `,"Addr":`...), l.Addr, &err)
	}
	if len(l.Addrs) > 0 {
		b = append(b, `,"Addrs":[`...)
		for i, addr := range l.Addrs {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, addr, &err)
		}
		b = append(b, ']')
	}
	if len(l.Meta) > 0 {
		b = appendMeta(append(b, `,"Meta":`...), l.Meta, &err)
	}
	if l.Native != "" {
		b = appendText(append(b, `,"Native":`...), string(l.Native), &err)
	}
	if at := normal(l.ExpiresAt); !at.IsZero() {
		b = append(at.AppendFormat(append(b, `,"ExpiresAt":"`...), time.RFC3339Nano), '"')
	}
	if l.Entry.Leave {
		b = append(b, `,"Left":true`...)
	}
	if l.State != "" {
		b = appendText(append(b, `,"State":`...), string(l.State), &err)
	}
	if l.Source != "" {
		b = appendText(append(b, `,"Source":`...), string(l.Source), &err)
	}
	if l.Remaining != 0 {
		b = appendDuration(append(b, `,"LeftSeconds":`...), l.Remaining)
	}
	if !l.SeenAt.IsZero() {
		b = appendDuration(append(b, `,"SeenSecondsAgo":`...), max(now.Sub(l.SeenAt), 0))
	}
	if len(l.Natives) > 0 {
		b = append(b, `,"Natives":[`...)
		for i, id := range l.Natives {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, string(id), &err)
		}
		b = append(b, ']')
	}
	return appendProof(b, l.Proof), err
}

func appendMeta(b []byte, meta map[string]string, err *error) []byte {
	names := make([]string, 0, 8) // on the stack, for as many as most have
	for name := range meta {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name, err), ':')
		b = appendText(b, meta[name], err)
	}
	return append(b, '}')
}

// appendText appends text as a JSON string, at once if it has nothing to escape.
func appendText(b []byte, text string, err *error) []byte {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, e := jsontext.AppendQuote(b, text)
			if e != nil && *err == nil {
				*err = ports.Refuse(ports.CodeMalformed, "%.80q: %v", text, e)
			}
			return quoted
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// appendDuration appends d in seconds, to the nanosecond.
func appendDuration(b []byte, d time.Duration) []byte {
	ns := uint64(d)
	if d < 0 {
		b, ns = append(b, '-'), -ns
	}
	b = strconv.AppendUint(b, ns/1e9, 10)
	if ns %= 1e9; ns == 0 {
		return b
	}
	point := len(b)
	b = strconv.AppendUint(b, ns+1e9, 10) // ten digits, the first of which gives way to the point
	b[point] = '.'
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}
