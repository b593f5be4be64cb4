package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC)

// someListed draws an entry as a native may show it.
func someListed(t *rapid.T) ports.Listed {
	text := rapid.StringN(0, 20, 100)
	id := rapid.SampledFrom([]ports.PeerID{self, other})
	instant := func(name string) time.Time {
		if rapid.Bool().Draw(t, name) {
			return time.Time{}
		}
		return time.Unix(rapid.Int64Range(-1<<35, 1<<37).Draw(t, name), rapid.Int64Range(0, 1e9-1).Draw(t, name)).UTC()
	}
	l := ports.Listed{
		Entry:     ports.Entry{PeerID: id.Draw(t, "PeerID"), Addr: text.Draw(t, "Addr"), ExpiresAt: instant("ExpiresAt"), Leave: rapid.Bool().Draw(t, "left")},
		State:     ports.State(text.Draw(t, "State")),
		Source:    ports.Source(text.Draw(t, "Source")),
		Remaining: time.Duration(rapid.Int64().Draw(t, "Left")),
	}
	if l.Remaining.Abs() >= 1e9*time.Second {
		l.Remaining = l.Remaining / 1e4 * 1e4 // a float64 is exact to that
		l.Remaining = time.Duration(float64(l.Remaining))
		l.Remaining %= 1e9 * time.Second
	}
	if rapid.Bool().Draw(t, "seen") {
		l.SeenAt = now.Add(-time.Duration(rapid.Int64Range(0, 1e18-1).Draw(t, "SeenAt")))
	}
	if addrs := rapid.SliceOfN(text, 0, 3).Draw(t, "Addrs"); len(addrs) > 0 {
		l.Addrs = addrs
	}
	if meta := rapid.MapOfN(text, text, 0, 4).Draw(t, "Meta"); len(meta) > 0 {
		l.Meta = meta
	}
	if rapid.Bool().Draw(t, "granted") {
		l.Native = id.Draw(t, "Native")
	}
	l.Proof = someProof(t)
	return l
}

func TestListedTravels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := someListed(t)
		line, err := wire.AppendListed([]byte("before"), &want, now)
		if err != nil {
			t.Fatal(err)
		}
		line, _ = bytes.CutPrefix(line, []byte("before"))
		got, end, err := wire.DecodeListed(bytes.TrimSuffix(line, []byte("\n")), now)
		if err != nil || end != nil {
			t.Fatalf("%s: %v, %v", line, end, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	})
}

func TestListedIsWrittenPlainly(t *testing.T) {
	line, err := wire.AppendListed(nil, &ports.Listed{
		Entry: ports.Entry{
			PeerID: self, Addr: "/ip4/127.0.0.1/tcp/1", Addrs: []string{"/ip4/127.0.0.1/tcp/1"}, Meta: map[string]string{"b": `"`, "a": "é"},
			Native: other, ExpiresAt: now.Add(time.Minute).In(time.FixedZone("", 3600)), SeenAt: now.Add(-6 * time.Second),
		},
		State: ports.StateLive, Source: ports.SourceOwn, Remaining: 59999999999,
	}, now)
	want := `{"PeerID":"` + string(self) + `","Addr":"/ip4/127.0.0.1/tcp/1","Addrs":["/ip4/127.0.0.1/tcp/1"],"Meta":{"a":"é","b":"\""},` +
		`"Native":"` + string(other) + `","ExpiresAt":"2026-03-01T12:01:00.5Z","State":"live","Source":"own","LeftSeconds":59.999999999,"SeenSecondsAgo":6}` + "\n"
	if err != nil || string(line) != want {
		t.Errorf("got %s and %v, want %s", line, err, want)
	}
}

// Nobody was seen later than now, whatever the clocks say.
func TestSeenLaterIsSeenNow(t *testing.T) {
	line, err := wire.AppendListed(nil, &ports.Listed{Entry: ports.Entry{PeerID: self, SeenAt: now.Add(time.Hour)}}, now)
	if err != nil || !bytes.Contains(line, []byte(`"SeenSecondsAgo":0}`)) {
		t.Errorf("got %s and %v", line, err)
	}
	l, _, err := wire.DecodeListed([]byte(`{"PeerID":"`+string(self)+`","SeenSecondsAgo":-3600}`), now)
	if err != nil || !l.SeenAt.Equal(now) {
		t.Errorf("got %s and %v, want %s", l.SeenAt, err, now)
	}
}

func TestAnEntryThatNoLineCanCarry(t *testing.T) {
	for name, c := range map[string]struct {
		entry ports.Entry
		want  ports.Code
	}{
		"the largest":   {ports.Entry{PeerID: self, Addr: strings.Repeat("a", wire.MaxLineBytes-len(`{"PeerID":"","Addr":""}`)-len(self))}, ""},
		"one more byte": {ports.Entry{PeerID: self, Addr: strings.Repeat("a", wire.MaxLineBytes+1-len(`{"PeerID":"","Addr":""}`)-len(self))}, ports.CodeTooLarge},
		"not UTF-8":     {ports.Entry{PeerID: self, Addr: "\xff"}, ports.CodeMalformed},
	} {
		line, err := wire.AppendListed([]byte("before"), &ports.Listed{Entry: c.entry}, now)
		if code(t, err) != c.want || (err != nil) != (string(line) == "before") {
			t.Errorf("%s: got %d bytes and %v, want %q", name, len(line), err, c.want)
		}
	}
}

func TestDecodeListedOfAnotherShape(t *testing.T) {
	const id = `"PeerID":"` + string(self) + `"`
	for _, frame := range []string{
		``, `null`, `[]`, `{}`, `{"PeerID":"x"}`, `{` + id + `,"peerId":1}`, `{` + id + `,` + id + `}`, `{` + id + `} {}`, `{` + id + `,"Native":"x"}`,
		`{` + id + `,"leftSeconds":1}`, `{` + id + `,"Addrs":"a"}`, `{` + id + `,"Meta":{"a":1}}`, `{` + id + `,"State":1}`, "{" + id + ",\"Addr\":\"\xff\"}",
		`{` + id + `,"Meta":{"a":"` + strings.Repeat("a", ports.MaxMetaBytes) + `"}}`, `{` + id + `,"X":"` + strings.Repeat("a", wire.MaxLineBytes) + `"}`,
		`{` + id + `,"X":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, `{"OK":1}`, `{"OK":true,"Next":"x"}`, `{"OK":true,"Next":7}`, `{"ok":true}`,
	} {
		l, end, err := wire.DecodeListed([]byte(frame), now)
		if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused || end != nil {
			t.Errorf("%.100s: got %+v, %+v and %v, want an error that is no refusal", frame, l, end, err)
		}
	}
}

func TestDecodeListedIsLenientAboutNumbersAndTimes(t *testing.T) {
	for fields, want := range map[string]ports.Listed{
		``:                               {},
		`,"LeftSeconds":6.6e1`:           {Remaining: 66 * time.Second},
		`,"LeftSeconds":-0.000000001`:    {Remaining: -1},
		`,"LeftSeconds":1e999`:           {Remaining: math.MaxInt64},
		`,"LeftSeconds":-12345678901`:    {Remaining: math.MinInt64},
		`,"LeftSeconds":"1"`:             {},
		`,"LeftSeconds":null`:            {},
		`,"SeenSecondsAgo":0`:            {Entry: ports.Entry{SeenAt: now}},
		`,"SeenSecondsAgo":1.5`:          {Entry: ports.Entry{SeenAt: now.Add(-1500 * time.Millisecond)}},
		`,"SeenSecondsAgo":null`:         {},
		`,"ExpiresAt":"soon"`:            {},
		`,"State":"of a later version"`:  {State: "of a later version"},
		`,"Addrs":[],"Meta":{},"X":[{}]`: {},
		`,"Natives":[]`:                  {},
		`,"Natives":null`:                {},
		`,"Natives":["` + string(other) + `"` + strings.Repeat(`,"`+string(self)+`"`, 99) + `]`: {
			Natives: append([]ports.PeerID{other}, slices.Repeat([]ports.PeerID{self}, ports.MaxHolders-1)...),
		},
	} {
		want.PeerID = self
		got, end, err := wire.DecodeListed([]byte(`{"PeerID":"`+string(self)+`"`+fields+`}`), now)
		if diff := cmp.Diff(want, got); diff != "" || end != nil || err != nil {
			t.Errorf("%s: %v, %v: %s", fields, end, err, diff)
		}
	}
}

func TestEndTravels(t *testing.T) {
	for text, want := range map[string]wire.End{
		`{"OK":true}`: {},
		`{"OK":true,"Next":"` + string(self) + `","Condition":"warming"}`:                   {Next: self, Condition: ports.ConditionWarming},
		`{"OK":false,"Condition":"isolated","Error":{"Code":"not_found","Message":"é \""}}`: {Condition: ports.ConditionIsolated, Refusal: ports.Refuse(ports.CodeNotFound, `é "`)},
		`{"OK":true,"Condition":"partial","Missing":["` + string(self) + `"]}`:              {Condition: ports.ConditionPartial, Missing: []ports.PeerID{self}},
	} {
		line, err := wire.EncodeEnd(want)
		if err != nil || string(line) != strings.ReplaceAll(text, `\"`, `\"`)+"\n" {
			t.Errorf("got %s and %v, want %s", line, err, text)
		}
		for name, decode := range map[string]func() (*wire.End, error){
			"entries": func() (*wire.End, error) { _, end, err := wire.DecodeListed([]byte(text), now); return end, err },
			"natives": func() (*wire.End, error) { _, end, err := wire.DecodeNative([]byte(text)); return end, err },
		} {
			got, err := decode()
			if diff := cmp.Diff(&want, got); diff != "" || err != nil {
				t.Errorf("%s of %s: %v: %s", name, text, err, diff)
			}
		}
	}
	for text, want := range map[string][]ports.PeerID{
		`null`: nil, `7`: nil, `"` + string(self) + `"`: nil, `[]`: nil, `[7,null,{"a":["b"]},"nobody","` + string(self) + `"]`: {self},
		`[` + strings.Repeat(`"`+string(self)+`",`, 100) + `""]`: slices.Repeat([]ports.PeerID{self}, ports.MaxMissing),
	} {
		_, end, err := wire.DecodeListed([]byte(`{"OK":true,"Missing":`+text+`}`), now)
		if err != nil || !slices.Equal(end.Missing, want) {
			t.Errorf("%.80s: %v and %v, want %v", text, end, err, want)
		}
	}
	_, end, err := wire.DecodeListed([]byte(`{"OK":false}`), now)
	if err != nil || end.Refusal == nil || end.Refusal.Code != ports.CodeRefused {
		t.Errorf("got %+v and %v, want a refusal", end, err)
	}
}

func TestQuestionTravels(t *testing.T) {
	for text, want := range map[string]wire.Question{
		`{}`:                                {},
		`{"PeerID":"` + string(self) + `"}`: {PeerID: self},
		`{"Natives":true}`:                  {Natives: true},
		`{"Limit":1000,"After":"` + string(other) + `","Meta":{"":"é","zone":"eu"}}`: {
			Query: ports.Query{Limit: 1000, After: other, Meta: map[string]string{"zone": "eu", "": "é"}},
		},
	} {
		line, err := wire.EncodeQuestion(want)
		if err != nil || string(line) != text+"\n" {
			t.Errorf("got %s and %v, want %s", line, err, text)
		}
		got, err := wire.DecodeQuestion([]byte(text))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v: %s", text, err, diff)
		}
	}
	for _, limit := range []int{-1, ports.MaxPage + 1} {
		if _, err := wire.EncodeQuestion(wire.Question{Query: ports.Query{Limit: limit}}); code(t, err) != ports.CodeOutOfRange {
			t.Errorf("limit %d: got %v", limit, err)
		}
	}
}

func TestDecodeQuestion(t *testing.T) {
	id := `"PeerID":"` + string(self) + `"`
	for frame, want := range map[string]ports.Code{
		`{"Limit":1}`:    "",
		`{"Limit":1e2}`:  "",
		`{"Limit":1000}`: "",
		`{"Limit":null,"After":null,"Meta":null,"PeerID":null,"Natives":null}`: "",
		`{"Limit":0}`:                      ports.CodeOutOfRange,
		`{"Limit":-0}`:                     ports.CodeOutOfRange,
		`{"Limit":-1}`:                     ports.CodeOutOfRange,
		`{"Limit":1001}`:                   ports.CodeOutOfRange,
		`{"Limit":1.5}`:                    ports.CodeOutOfRange,
		`{"Limit":1e999}`:                  ports.CodeOutOfRange,
		`{"Limit":99999999999999999999}`:   ports.CodeOutOfRange,
		`{"Limit":"1"}`:                    ports.CodeMalformed,
		`{"limit":1}`:                      ports.CodeMalformed,
		`{"Limit":1,"Limit":1}`:            ports.CodeMalformed,
		`{"After":"x"}`:                    ports.CodeMalformed,
		`{"After":"` + string(self) + `"}`: "",
		`{"Meta":{"a":1}}`:                 ports.CodeMalformed,
		`{"Meta":{"a":"` + strings.Repeat("a", ports.MaxMetaBytes) + `"}}`: ports.CodeTooLarge,
		`{"X":"` + strings.Repeat("a", ports.MaxFrameBytes) + `"}`:         ports.CodeTooLarge,
		`{"X":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`:  ports.CodeMalformed,
		`{` + id + `,"X":[]}`:               "",
		`{"PeerID":"` + selfCID(t) + `"}`:   "",
		`{"PeerID":""}`:                     ports.CodeMalformed,
		`{"PeerID":"x"}`:                    ports.CodeMalformed,
		`{` + id + `,"Natives":true}`:       ports.CodeMalformed,
		`{` + id + `,"Limit":1}`:            ports.CodeMalformed,
		`{"Natives":true,"Meta":{"a":"b"}}`: ports.CodeMalformed,
		`{"Natives":false,"Limit":1}`:       "",
		`{"Natives":1}`:                     ports.CodeMalformed,
		``:                                  ports.CodeMalformed,
		`[]`:                                ports.CodeMalformed,
		`null`:                              ports.CodeMalformed,
	} {
		q, err := wire.DecodeQuestion([]byte(frame))
		if code(t, err) != want {
			t.Errorf("%.100s: got %+v and %v, want %q", frame, q, err, want)
		}
	}
}

func TestNativeStatusTravels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := ports.NativeStatus{
			PeerID: self, Following: rapid.Bool().Draw(t, "following"),
			RoundTrip: time.Duration(rapid.Int64Range(0, 1e18-1).Draw(t, "round trip")),
			Lag:       time.Duration(rapid.Int64Range(0, 1e18-1).Draw(t, "lag")),
			Live:      int(rapid.Int64Range(0, math.MaxInt64/2).Draw(t, "live")),
		}
		if addrs := rapid.SliceOfN(rapid.StringN(0, 20, 100), 0, 3).Draw(t, "Addrs"); len(addrs) > 0 {
			want.Addrs = addrs
		}
		line, err := wire.AppendNative(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		got, end, err := wire.DecodeNative(bytes.TrimSuffix(line, []byte("\n")))
		if diff := cmp.Diff(want, got); diff != "" || end != nil || err != nil {
			t.Errorf("%s: %v, %v: %s", line, end, err, diff)
		}
	})
}

func TestLeaveTravels(t *testing.T) {
	line, err := wire.EncodeLeave(self, nil)
	if want := `{"PeerID":"` + string(self) + `"}` + "\n"; err != nil || string(line) != want {
		t.Errorf("got %s and %v, want %s", line, err, want)
	}
	for frame, want := range map[string]ports.Code{
		string(line):                             "",
		`{"PeerID":"` + selfCID(t) + `","X":{}}`: "",
		`{"PeerID":"x"}`:                         ports.CodeMalformed,
		`{}`:                                     ports.CodeMalformed,
		`{"peerID":"` + string(self) + `"}`:      ports.CodeMalformed,
		`{"PeerID":"` + string(self) + `","PEERID":"x"}`:                                           ports.CodeMalformed,
		`{"PeerID":"` + string(self) + `","X":"` + strings.Repeat("a", ports.MaxFrameBytes) + `"}`: ports.CodeTooLarge,
	} {
		for _, sender := range []ports.PeerID{self, other, ""} {
			id, _, err := wire.DecodeLeave([]byte(frame), sender)
			if code(t, err) != want || err == nil && id != self {
				t.Errorf("%.100s: got %s and %v, want %q", frame, id, err, want)
			}
		}
	}
}

func TestLines(t *testing.T) {
	const most = 20
	for name, c := range map[string]struct {
		text string
		want []string
		end  string
	}{
		"some":                  {"a\n\nbc\n", []string{"a", "", "bc"}, "EOF"},
		"nothing":               {"", nil, "EOF"},
		"the last is not whole": {"a\nb", []string{"a"}, "EOF"},
		"the largest":           {strings.Repeat("a", most) + "\n", []string{strings.Repeat("a", most)}, "EOF"},
		"too large":             {"a\n" + strings.Repeat("a", most+1) + "\n", []string{"a"}, fmt.Sprint("more than ", most)},
		"without end":           {strings.Repeat("a", 1000), nil, fmt.Sprint("more than ", most)},
	} {
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(c.text), "a byte at a time": iotest.OneByteReader(strings.NewReader(c.text))} {
			lines := wire.NewLines(r, most)
			var got []string
			for {
				line, err := lines.Next()
				if err != nil {
					if !strings.Contains(err.Error(), c.end) {
						t.Errorf("%s, %s: ended with %v, want %s", name, how, err, c.end)
					}
					break
				}
				got = append(got, string(line))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s, %s: %s", name, how, diff)
			}
		}
	}
}

func FuzzDecodeQuestion(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"PeerID":"` + string(self) + `"}`, `{"PeerID":"` + selfCID(f) + `"}`, `{"Natives":true}`, `{"Natives":true,"Limit":1}`, `{"Limit":0}`, `{"Limit":1e2}`,
		`{"Limit":1000,"After":"` + string(other) + `","Meta":{"":"\ud83d\uddfc"}}`, `{"Limit":"7"}`, `{"Proofs":true,"Limit":7}`, `{"proofs":true}`, `{"limit":7}`, `{"Limit":1,"Limit":2}`, `{"Limit":1e999}`, `{"After":"\u0000"}`,
		strings.Repeat(`{"a":`, 1000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		q, err := wire.DecodeQuestion(frame)
		if err != nil {
			if c := code(t, err); c != ports.CodeOutOfRange {
				mustRefuse(t, err)
			}
			return
		}
		mustBeWithinLimits(t, frame, q.Query.Meta)
		if q.Query.Limit < 0 || q.Query.Limit > ports.MaxPage {
			t.Fatalf("limit %d", q.Query.Limit)
		}
		line, err := wire.EncodeQuestion(q)
		if err != nil {
			mustOnlyHaveGrown(t, frame, err)
			return
		}
		again, err := wire.DecodeQuestion(bytes.TrimSuffix(line, []byte("\n")))
		mustBeSame(t, q, again, err)
	})
}

func FuzzDecodeLeave(f *testing.F) {
	for _, s := range []string{`{"PeerID":"` + string(self) + `"}`, `{"PeerID":"` + selfCID(f) + `","X":[[]]}`, `{}`, `{"peerid":"1"}`, `{"PeerID":"1","PeerID":"1"}`, "\x00", `{"PeerID":"` + string(self) + `",` + recordMember + `}`,
		`{"PeerID":"` + string(self) + `","Record":""}`, `{"PeerID":"` + string(self) + `","Record":"AB=="}`, `{"PeerID":"` + string(self) + `","record":"AA=="}`, strings.Repeat(`{"a":`, 1000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		id, record, err := wire.DecodeLeave(frame, self)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		line, err := wire.EncodeLeave(id, record)
		if err != nil {
			mustOnlyHaveGrown(t, frame, err)
			return
		}
		again, recordAgain, err := wire.DecodeLeave(bytes.TrimSuffix(line, []byte("\n")), "")
		mustBeSame(t, id, again, err)
		mustBeSame(t, record, recordAgain, nil)
	})
}

// hostileEntries are members of an object that shows an entry.
func hostileEntries(t testing.TB) []string {
	id := `"PeerID":"` + string(self) + `"`
	entries := []string{
		id, id + `,"Addr":"a","Addrs":["a","b"],"Meta":{"k":"é\ud83d\uddfc"},"Native":"` + string(other) + `","ExpiresAt":"2026-03-01T12:00:00.5+02:00","State":"late","Source":"dht","LeftSeconds":59.999999999,"SeenSecondsAgo":0.5`,
		id + `,"LeftSeconds":1e999,"SeenSecondsAgo":-1e999`, id + `,"LeftSeconds":-9223372036.854775808,"Left":true`, id + `,"ExpiresAt":"9999-12-31T23:59:59-23:59"`,
		id + `,"SeenSecondsAgo":9223372036.854775807`, `"PeerID":"` + selfCID(t) + `","Native":"` + selfCID(t) + `"`, `"peerID":"1"`, id + `,"left":1`, id + `,"X":` + strings.Repeat("[", 100),
		id + `,"Meta":{"a":"` + strings.Repeat("a", ports.MaxMetaBytes) + `"}`, id + `,"Addrs":[],"Meta":{},"Native":""`, id + `,"Addrs":["",null]`,
	}
	for _, members := range hostileProofs {
		entries = append(entries, id+`,`+members)
	}
	return entries
}

func FuzzDecodeListed(f *testing.F) {
	for _, s := range hostileEntries(f) {
		f.Add([]byte(`{` + s + `}`))
	}
	for _, s := range []string{`{"OK":true}`, `{"OK":true,"Next":"` + string(self) + `"}`, `{"OK":false,"Error":{"Code":"busy","Message":"\ufffd"},"Condition":"x"}`, `{"OK":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		l, end, err := wire.DecodeListed(frame, now)
		if err != nil {
			return
		}
		if len(frame) > wire.MaxLineBytes {
			t.Fatalf("accepted %d bytes", len(frame))
		}
		if end != nil {
			line, err := wire.EncodeEnd(*end)
			if err != nil {
				mustOnlyHaveGrown(t, frame, err)
				return
			}
			_, again, err := wire.DecodeListed(bytes.TrimSuffix(line, []byte("\n")), now)
			if end.Refusal != nil && len(end.Refusal.Message) > 1000 {
				end.Refusal.Message, again.Refusal.Message = "", ""
			}
			mustBeSame(t, end, again, err)
			return
		}
		mustBeWithinLimits(t, nil, l.Meta)
		line, err := wire.AppendListed(nil, &l, now)
		if err != nil {
			if len(frame) < wire.MaxLineBytes-2*grown {
				t.Fatalf("what decoded does not encode: %v", err)
			}
			return
		}
		again, end, err := wire.DecodeListed(bytes.TrimSuffix(line, []byte("\n")), now)
		if end != nil {
			t.Fatalf("an entry became the end: %s", line)
		}
		mustBeSame(t, l, again, err, sameDuration)
	})
}

// sameDuration: beyond 1e9 s, durations travel as float64.
var sameDuration = cmp.Comparer(func(a, b time.Duration) bool {
	return math.Abs(float64(a)-float64(b)) <= math.Abs(float64(a))/(1<<50)
})

func FuzzDecodeNative(f *testing.F) {
	for _, s := range []string{
		`{"PeerID":"` + string(self) + `"}`, `{"PeerID":"` + selfCID(f) + `","Addrs":["a"],"Following":true,"RoundTripSeconds":0.001,"Live":7,"LagSeconds":1e-9}`,
		`{"PeerID":"` + string(self) + `","Live":-1,"RoundTripSeconds":"x","LagSeconds":-1e999}`, `{"OK":true}`, `{"PeerID":"` + string(self) + `","Live":99999999999999999999}`, `{"live":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		s, end, err := wire.DecodeNative(frame)
		if err != nil || end != nil {
			return
		}
		if s.Live < 0 || len(frame) > wire.MaxLineBytes {
			t.Fatalf("accepted %d bytes as %+v", len(frame), s)
		}
		line, err := wire.AppendNative(nil, s)
		if err != nil {
			mustOnlyHaveGrown(t, frame, err)
			return
		}
		again, _, err := wire.DecodeNative(bytes.TrimSuffix(line, []byte("\n")))
		mustBeSame(t, s, again, err, sameDuration)
	})
}
