package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

const (
	self  = ports.PeerID("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5")
	other = ports.PeerID("12D3KooWJWoaqZhDaoEFshF7Rh1bpY9ohihFhzcW6d69Lr2NASuq")
)

func selfCID(t testing.TB) string {
	t.Helper()
	id, err := peer.Decode(string(self))
	if err != nil {
		t.Fatal(err)
	}
	return peer.ToCid(id).String()
}

// code returns the code of err, which must be nil or a refusal.
func code(t *testing.T, err error) ports.Code {
	t.Helper()
	if err == nil {
		return ""
	}
	var refusal *ports.Refusal
	if !errors.As(err, &refusal) {
		t.Fatalf("error is no refusal: %v", err)
	}
	return refusal.Code
}

func readAndDecode(r io.Reader) (ports.Registration, error) {
	frame, err := wire.ReadFrame(r)
	if err != nil {
		return ports.Registration{}, err
	}
	return wire.DecodeRegistration(frame, "")
}

// The codec knows nothing of identities and addresses: those frames it accepts.
func TestFramesOfTheContract(t *testing.T) {
	for _, f := range porttest.Frames(t, self, other, selfCID(t)) {
		t.Run(f.Name, func(t *testing.T) {
			want := f.Want
			if want == ports.CodePeerMismatch || want == ports.CodeAddrInvalid {
				want = ""
			}
			for name, r := range map[string]io.Reader{
				"at once":          bytes.NewReader(f.Bytes),
				"a byte at a time": iotest.OneByteReader(bytes.NewReader(f.Bytes)),
				"end with data":    iotest.DataErrReader(bytes.NewReader(f.Bytes)),
			} {
				got, err := readAndDecode(r)
				if code(t, err) != want {
					t.Errorf("%s: got %q (%v), want %q", name, code(t, err), err, want)
				}
				if f.Want == "" && got.PeerID != self {
					t.Errorf("%s: PeerID is %q, want the canonical %q", name, got.PeerID, self)
				}
			}
		})
	}
}

func TestDecodeRegistrationRefuses(t *testing.T) {
	const rest = `"PeerID":"` + string(self) + `","Addr":"/ip4/127.0.0.1/tcp/1"`
	nested := func(depth int) string {
		return `{` + rest + `,"X":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `}`
	}
	meta := func(bytes int) string { return `{` + rest + `,"Meta":{"k":"` + strings.Repeat("é", bytes/2) + `"}}` }
	for name, c := range map[string]struct {
		frame string
		want  ports.Code
	}{
		"nothing wrong":                      {`{` + rest + `}`, ""},
		"null for what is absent":            {`{` + rest + `,"Addrs":null,"Meta":null}`, ""},
		"empty Addrs and Meta":               {`{` + rest + `,"Addrs":[],"Meta":{}}`, ""},
		"no Addr":                            {`{"PeerID":"` + string(self) + `"}`, ""},
		"escaped name":                       {`{"\u0050eerID":"` + string(self) + `"}`, ""},
		"nested as deep as allowed":          {nested(ports.MaxNesting), ""},
		"nested a level deeper":              {nested(ports.MaxNesting + 1), ports.CodeMalformed},
		"brackets in strings do not nest":    {`{` + rest + `,"X":"\"` + strings.Repeat("[{", 50) + `"}`, ""},
		"metadata at its limit":              {meta(ports.MaxMetaBytes - 2), ""},
		"metadata over its limit":            {meta(ports.MaxMetaBytes), ports.CodeTooLarge},
		"frame over its limit":               {`{` + rest + `}` + strings.Repeat(" ", ports.MaxFrameBytes), ports.CodeTooLarge},
		"names of Meta are free":             {`{` + rest + `,"Meta":{"peerid":"a","PEERID":"b"}}`, ""},
		"duplicate in Meta":                  {`{` + rest + `,"Meta":{"a":"b","a":"c"}}`, ports.CodeMalformed},
		"duplicate of an unknown name":       {`{` + rest + `,"X":1,"X":2}`, ports.CodeMalformed},
		"duplicate below an unknown name":    {`{` + rest + `,"X":{"a":1,"a":2}}`, ports.CodeMalformed},
		"duplicate by escape":                {`{` + rest + `,"\u0041ddr":"x"}`, ports.CodeMalformed},
		"name in another case beside it":     {`{` + rest + `,"ADDR":"x"}`, ports.CodeMalformed},
		"name in another case by escape":     {`{` + rest + `,"\u0061ddr":"x"}`, ports.CodeMalformed},
		"name in another case, folded":       {`{` + rest + `,"Addrſ":[]}`, ports.CodeMalformed},
		"half a surrogate pair":              {`{` + rest + `,"Meta":{"a":"\ud800"}}`, ports.CodeMalformed},
		"bad UTF-8 below an unknown name":    {`{` + rest + `,"X":"` + "\xff" + `"}`, ports.CodeMalformed},
		"byte order mark":                    {"\ufeff" + `{` + rest + `}`, ports.CodeMalformed},
		"comment":                            {`{` + rest + `}// x`, ports.CodeMalformed},
		"trailing comma":                     {`{` + rest + `,}`, ports.CodeMalformed},
		"number in Meta":                     {`{` + rest + `,"Meta":{"a":1}}`, ports.CodeMalformed},
		"PeerID null":                        {`{"PeerID":null,"Addr":"x"}`, ports.CodeMalformed},
		"CID of no key":                      {`{"PeerID":"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"}`, ports.CodeMalformed},
		"unclosed brackets deeper than 16":   {strings.Repeat(`{"a":`, 1000), ports.CodeMalformed},
		"PeerID with a blank":                {`{"PeerID":" ` + string(self) + `"}`, ports.CodeMalformed},
		"PeerID cut short":                   {`{"PeerID":"` + string(self[:40]) + `"}`, ports.CodeMalformed},
		"lower-case spelling of the CID":     {`{"PeerID":"` + selfCID(t) + `"}`, ""},
		"upper-case base32 spelling of both": {`{"PeerID":"` + strings.ToUpper(selfCID(t)) + `"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := wire.DecodeRegistration([]byte(c.frame), "")
			if code(t, err) != c.want {
				t.Fatalf("got %q (%v), want %q", code(t, err), err, c.want)
			}
			if err == nil && (r.PeerID != self || r.Addrs != nil) {
				t.Errorf("PeerID %q and Addrs %v, want %q and none", r.PeerID, r.Addrs, self)
			}
		})
	}
}

func TestRegistrationTravelsVerbatim(t *testing.T) {
	for _, want := range []ports.Registration{
		{PeerID: self, Addr: "/ip4/127.0.0.1/tcp/1"},
		{PeerID: self, Addr: "a<b>&\u2028", Addrs: []string{"a<b>&\u2028", `"\`}, Meta: map[string]string{"zone": "Île-de-France 🗼", "": "\x00\n"}},
	} {
		line, err := wire.EncodeRegistration(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAndDecode(bytes.NewReader(append(line, "what follows"...)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestEncodeRegistrationRefusesWhatNoNativeAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		r    ports.Registration
		want ports.Code
	}{
		"metadata too large": {ports.Registration{PeerID: self, Meta: map[string]string{"k": strings.Repeat("a", ports.MaxMetaBytes)}}, ports.CodeTooLarge},
		"frame too large":    {ports.Registration{PeerID: self, Addr: strings.Repeat("a", ports.MaxFrameBytes)}, ports.CodeTooLarge},
		"bad UTF-8":          {ports.Registration{PeerID: self, Meta: map[string]string{"k": "\xff"}}, ports.CodeMalformed},
	} {
		if _, err := wire.EncodeRegistration(c.r); code(t, err) != c.want {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestReadFrame(t *testing.T) {
	full := strings.Repeat("a", ports.MaxFrameBytes)
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r    io.Reader
		want string
		err  error
	}{
		"ends at the newline":              {strings.NewReader("a\nb\n"), "a", nil},
		"ends at the end":                  {strings.NewReader("a"), "a", nil},
		"empty":                            {strings.NewReader(""), "", nil},
		"does not wait behind the newline": {io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(broken)), "a", nil},
		"full, then newline":               {strings.NewReader(full + "\n"), full, nil},
		"full, then end":                   {strings.NewReader(full), full, nil},
		"full, then end with data":         {iotest.DataErrReader(strings.NewReader(full)), full, nil},
		"a byte too much":                  {strings.NewReader(full + "a"), "", &ports.Refusal{Code: ports.CodeTooLarge}},
		"a byte too much, then newline":    {strings.NewReader(full + "a\n"), "", &ports.Refusal{Code: ports.CodeTooLarge}},
		"broken":                           {io.MultiReader(strings.NewReader("a"), iotest.ErrReader(broken)), "", broken},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.ReadFrame(c.r)
			if string(got) != c.want {
				t.Errorf("got %d bytes, want %d", len(got), len(c.want))
			}
			if want, ok := errors.AsType[*ports.Refusal](c.err); ok {
				if code(t, err) != want.Code {
					t.Errorf("got %v, want %q", err, want.Code)
				}
			} else if err != c.err {
				t.Errorf("got error %v, want %v", err, c.err)
			}
		})
	}
}

func TestReadFrameTakesNoMoreThanTheLimit(t *testing.T) {
	endless := &lettersReader{}
	if _, err := wire.ReadFrame(endless); code(t, err) != ports.CodeTooLarge {
		t.Fatalf("got %v, want too_large", err)
	}
	if endless.n > ports.MaxFrameBytes+1 {
		t.Errorf("read %d bytes of an endless frame, allowed are %d", endless.n, ports.MaxFrameBytes+1)
	}
}

// lettersReader never ends and counts what was taken.
type lettersReader struct{ n int }

func (r *lettersReader) Read(p []byte) (int, error) {
	r.n += copy(p, strings.Repeat("a", len(p)))
	return len(p), nil
}

func TestLeaseTravels(t *testing.T) {
	paris := time.FixedZone("", 2*3600)
	want := ports.Lease{
		ExpiresAt: time.Date(2026, 3, 1, 12, 1, 6, 123456789, paris), TTL: 66 * time.Second,
		Heartbeat: 1500 * time.Millisecond, Now: time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC),
	}
	line := wire.EncodeLease(want)
	const text = `{"OK":true,"ExpiresAt":"2026-03-01T10:01:06.123456789Z","TTLSeconds":66,"HeartbeatSeconds":1.5,"Now":"2026-03-01T12:00:00.000000001Z"}` + "\n"
	if string(line) != text {
		t.Errorf("got %swant %s", line, text)
	}
	got, err := wire.DecodeAnswer(bytes.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	want.ExpiresAt = want.ExpiresAt.UTC()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatALeaseDoesNotSayIsLeftOut(t *testing.T) {
	for text, lease := range map[string]ports.Lease{
		`{"OK":true}`: {},
		`{"OK":true,"TTLSeconds":0.000000001,"HeartbeatSeconds":-2}`: {TTL: 1, Heartbeat: -2 * time.Second},
		`{"OK":true,"TTLSeconds":9223372036.854776}`:                 {TTL: math.MaxInt64},
		`{"OK":true,"Now":"1970-01-01T00:00:00Z"}`:                   {Now: time.Unix(0, 0).UTC()},
	} {
		line := wire.EncodeLease(lease)
		if string(line) != text+"\n" {
			t.Errorf("got %swant %s", line, text)
		}
		if got, err := wire.DecodeAnswer(bytes.TrimSpace(line)); err != nil || got != lease {
			t.Errorf("%s decodes to %+v, %v", text, got, err)
		}
	}
}

func TestRefusalTravels(t *testing.T) {
	line, err := wire.EncodeRefusal(ports.Refuse(ports.CodeAddrInvalid, "%s\xff", strings.Repeat("é", ports.MaxFrameBytes)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.DecodeAnswer(line)
	var refusal *ports.Refusal
	if !errors.As(err, &refusal) || refusal.Code != ports.CodeAddrInvalid || !strings.HasPrefix(refusal.Message, "ééé") {
		t.Errorf("got %v, want the refusal", err)
	}

	line, err = wire.EncodeRefusal(ports.Refuse(ports.CodeBusy, "later"))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"OK":false,"Error":{"Code":"busy","Message":"later"}}` + "\n"; string(line) != want {
		t.Errorf("got %swant %s", line, want)
	}
}

func TestDecodeAnswerIsLenientAboutNumbersAndTimes(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC)
	for name, c := range map[string]struct {
		fields string
		want   ports.Lease
	}{
		"nothing said":        {``, ports.Lease{}},
		"whole":               {`,"TTLSeconds":66,"HeartbeatSeconds":60`, ports.Lease{TTL: 66 * time.Second, Heartbeat: time.Minute}},
		"fractions":           {`,"TTLSeconds":6.6e1,"HeartbeatSeconds":0.25`, ports.Lease{TTL: 66 * time.Second, Heartbeat: time.Second / 4}},
		"zero":                {`,"TTLSeconds":0,"HeartbeatSeconds":-0.0`, ports.Lease{}},
		"negative":            {`,"TTLSeconds":-1,"HeartbeatSeconds":-0.5`, ports.Lease{TTL: -time.Second, Heartbeat: -time.Second / 2}},
		"huge":                {`,"TTLSeconds":1e999,"HeartbeatSeconds":9223372037`, ports.Lease{TTL: math.MaxInt64, Heartbeat: math.MaxInt64}},
		"hugely negative":     {`,"TTLSeconds":-1e999,"HeartbeatSeconds":-9223372037`, ports.Lease{TTL: math.MinInt64, Heartbeat: math.MinInt64}},
		"tiny":                {`,"TTLSeconds":1e-999,"HeartbeatSeconds":1e-9`, ports.Lease{Heartbeat: 1}},
		"strings":             {`,"TTLSeconds":"66","HeartbeatSeconds":"NaN"`, ports.Lease{}},
		"null and true":       {`,"TTLSeconds":null,"HeartbeatSeconds":true`, ports.Lease{}},
		"composites":          {`,"TTLSeconds":[66],"HeartbeatSeconds":{"s":60}`, ports.Lease{}},
		"any offset":          {`,"ExpiresAt":"2026-03-01T12:00:00.5+02:00","Now":"2026-03-01T00:00:00.5-10:00"`, ports.Lease{ExpiresAt: at, Now: at}},
		"no times":            {`,"ExpiresAt":"soon","Now":1772359200`, ports.Lease{}},
		"times beyond a year": {`,"ExpiresAt":"9999-12-31T23:59:59-23:59","Now":"0000-01-01T00:00:00Z"`, ports.Lease{}},
		"unknown fields":      {`,"Later":{"OK":false},"Error":null`, ports.Lease{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := wire.DecodeAnswer([]byte(`{"OK":true` + c.fields + `}`))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeAnswerOfAnotherShape(t *testing.T) {
	for _, frame := range []string{
		``, `null`, `[]`, `{}`, `"OK"`, `{"OK":null}`, `{"OK":1}`, `{"OK":"true"}`, `{"ok":true}`, `{"OK":true,"ok":false}`,
		`{"OK":true,"OK":false}`, `{"OK":true} x`, `{"OK":true`, `{"OK":false,"Error":"busy"}`, `{"OK":false,"Error":{"Code":7}}`,
		`{"OK":true,"TTLSeconds":NaN}`, "{\"OK\":true,\"Now\":\"\xff\"}", "\x00", `{"PeerID":"x"}`,
		`{"OK":true,"X":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`,
	} {
		var refusal *ports.Refusal
		if l, err := wire.DecodeAnswer([]byte(frame)); err == nil || errors.As(err, &refusal) {
			t.Errorf("%q: got %+v and %v, want an error that is no refusal", frame, l, err)
		}
	}
	for _, frame := range []string{`{"OK":false}`, `{"OK":false,"Error":{}}`, `{"OK":false,"Error":null}`} {
		if _, err := wire.DecodeAnswer([]byte(frame)); code(t, err) != ports.CodeRefused {
			t.Errorf("%s: got %v, want a refusal with code refused", frame, err)
		}
	}
	if _, err := wire.DecodeAnswer([]byte(`{"OK":false,"Error":{"Code":"later_version","Message":"m"}}`)); code(t, err) != "later_version" {
		t.Errorf("got %v, want the code as sent", err)
	}
}

func TestEntryTravels(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 987654321, time.FixedZone("", -5*3600))
	for _, want := range []ports.Entry{
		{PeerID: self, Addr: "/ip4/127.0.0.1/tcp/1", ExpiresAt: at},
		{
			PeerID: self, Addr: "a", Addrs: []string{"a", "b"}, Meta: map[string]string{"b": "é", "a": "1", "c": ""},
			Native: other, SeenAt: at.Add(-time.Minute), ExpiresAt: at,
		},
		{PeerID: self, ExpiresAt: at, Leave: true},
		{PeerID: self, Addr: "a", Meta: map[string]string{"a": "1"}, Native: other, SeenAt: at, ExpiresAt: at, Leave: true},
	} {
		value, err := wire.EncodeEntry(want)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := wire.EncodeEntry(want)
		if !bytes.Equal(value, again) {
			t.Errorf("encoded twice: %s and %s", value, again)
		}
		got, err := wire.DecodeEntry(value)
		if err != nil {
			t.Fatal(err)
		}
		want.ExpiresAt, want.SeenAt = want.ExpiresAt.UTC(), want.SeenAt.UTC()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

// A native of the seed writes three fields and no more.
func TestEntryIsReadableByTheSeed(t *testing.T) {
	value, err := wire.EncodeEntry(ports.Entry{PeerID: self, Addr: "a", ExpiresAt: time.Unix(1772359200, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var seed struct {
		PeerID, Addr string
		ExpiresAt    time.Time
	}
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	if err := d.Decode(&seed); err != nil || seed.PeerID != string(self) || seed.Addr != "a" || seed.ExpiresAt.Unix() != 1772359200 {
		t.Errorf("%s decodes to %+v, %v", value, seed, err)
	}
}

func TestDecodeEntryRefuses(t *testing.T) {
	const rest = `"PeerID":"` + string(self) + `","Addr":"a"`
	for name, c := range map[string]struct {
		value string
		want  ports.Code
	}{
		"any offset":               {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00+02:00"}`, ""},
		"PeerIDs as CID":           {`{"PeerID":"` + selfCID(t) + `","ExpiresAt":"2026-03-01T12:00:00Z","Native":"` + selfCID(t) + `"}`, ""},
		"no ExpiresAt":             {`{` + rest + `}`, ports.CodeMalformed},
		"ExpiresAt null":           {`{` + rest + `,"ExpiresAt":null}`, ports.CodeMalformed},
		"ExpiresAt a number":       {`{` + rest + `,"ExpiresAt":1772359200}`, ports.CodeMalformed},
		"ExpiresAt no time":        {`{` + rest + `,"ExpiresAt":"soon"}`, ports.CodeMalformed},
		"ExpiresAt beyond RFC3339": {`{` + rest + `,"ExpiresAt":"9999-12-31T23:59:59-23:59"}`, ports.CodeMalformed},
		"name in another case":     {`{` + rest + `,"expiresAt":"2026-03-01T12:00:00Z"}`, ports.CodeMalformed},
		"native in another case":   {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","native":""}`, ports.CodeMalformed},
		"left in another case":     {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","left":true}`, ports.CodeMalformed},
		"Left no boolean":          {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","Left":"true"}`, ports.CodeMalformed},
		"a leave":                  {`{"PeerID":"` + string(self) + `","ExpiresAt":"2026-03-01T12:00:00Z","Left":true}`, ""},
		"Native no PeerID":         {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","Native":"x"}`, ports.CodeMalformed},
		"no PeerID":                {`{"ExpiresAt":"2026-03-01T12:00:00Z"}`, ports.CodeMalformed},
		"two objects":              {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z"}{}`, ports.CodeMalformed},
		"metadata over its limit":  {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","Meta":{"k":"` + strings.Repeat("a", ports.MaxMetaBytes) + `"}}`, ports.CodeTooLarge},
		"over 8 KiB":               {`{` + rest + `,"ExpiresAt":"2026-03-01T12:00:00Z","X":"` + strings.Repeat("a", ports.MaxFrameBytes) + `"}`, ports.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := wire.DecodeEntry([]byte(c.value))
			if code(t, err) != c.want {
				t.Fatalf("got %q (%v), want %q", code(t, err), err, c.want)
			}
			if err == nil && (e.PeerID != self || e.ExpiresAt.Location() != time.UTC) {
				t.Errorf("got %+v, want canonical PeerIDs and UTC", e)
			}
		})
	}
	if _, err := wire.EncodeEntry(ports.Entry{PeerID: self, Addr: strings.Repeat("a", ports.MaxFrameBytes)}); code(t, err) != ports.CodeTooLarge {
		t.Errorf("encoding an entry over 8 KiB: got %v, want too_large", err)
	}
}

// What was registered may fill a value, and its leave must be stored all the same.
func TestALeaveFitsWhateverItsEntrySaid(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	value, err := wire.EncodeEntry(ports.Entry{
		PeerID: self, Addr: strings.Repeat("a", ports.MaxFrameBytes), Addrs: []string{"a", "b"}, Native: other, SeenAt: at, ExpiresAt: at, Leave: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeEntry(value)
	if diff := cmp.Diff(ports.Entry{PeerID: self, ExpiresAt: at, Leave: true}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}
