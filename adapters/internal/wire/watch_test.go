package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

var kinds = []ports.ChangeKind{
	ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeRenewed, ports.ChangeLate, ports.ChangeExpired, ports.ChangeLeft,
}

// frames returns a batch as it is written.
func frames(t interface{ Fatal(...any) }, b *ports.Batch) (all [][]byte) {
	if _, err := wire.WriteBatch(nil, b, now, func(frame []byte) error {
		all = append(all, bytes.Clone(frame))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBatchTravels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := ports.Batch{
			Reset:     ports.Reset(rapid.SampledFrom([]string{"", "new", "cursor_too_old", "é\x00"}).Draw(t, "reset")),
			Cursor:    rapid.StringN(0, ports.MaxCursorBytes, ports.MaxCursorBytes).Draw(t, "cursor"),
			Live:      rapid.IntRange(0, 1<<60).Draw(t, "live"),
			Condition: ports.Condition(rapid.SampledFrom([]string{"", "warming", "\""}).Draw(t, "condition")),
			Missing:   rapid.SampledFrom([][]ports.PeerID{nil, {self}, slices.Repeat([]ports.PeerID{self}, ports.MaxMissing)}).Draw(t, "missing"),
			Beat:      time.Duration(rapid.IntRange(0, 1<<40).Draw(t, "beat")),
			Start:     rapid.SampledFrom([]string{"", "M5XG64TTMV", "é\x00"}).Draw(t, "start"),
		}
		if rapid.Bool().Draw(t, "says when") {
			want.Now = now.Add(time.Duration(rapid.Int64().Draw(t, "Now"))).UTC()
		}
		some := []ports.Listed{someListed(t), someListed(t), someListed(t)}
		for i := range rapid.SampledFrom([]int{0, 1, 2, 500}).Draw(t, "changes") {
			want.Changes = append(want.Changes, ports.Change{Kind: kinds[i%len(kinds)], Listed: some[i%len(some)]})
		}
		var got ports.Batch
		all := frames(t, &want)
		for i, frame := range all {
			if len(frame) > ports.MaxBatchBytes+1 || frame[len(frame)-1] != '\n' || bytes.IndexByte(frame, '\n') != len(frame)-1 {
				t.Fatalf("%d bytes are no frame", len(frame))
			}
			b, err := wire.DecodeBatch(frame[:len(frame)-1], now)
			if err != nil {
				t.Fatal(err)
			}
			if (b.Reset != "" || b.Beat != 0 || b.Start != "") && i > 0 || (b.Cursor != "") && i < len(all)-1 {
				t.Errorf("frame %d of %d has Reset %q and Cursor %q", i, len(all), b.Reset, b.Cursor)
			}
			if !slices.Equal(b.Missing, want.Missing) {
				t.Errorf("frame %d misses %v, want %v", i, b.Missing, want.Missing)
			}
			if !b.Now.Equal(want.Now) {
				t.Errorf("frame %d says that it is %s, want %s", i, b.Now, want.Now)
			}
			if i == 0 {
				got = b
			} else {
				got.Changes, got.Cursor = append(got.Changes, b.Changes...), b.Cursor
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBatchIsWrittenPlainly(t *testing.T) {
	all := frames(t, &ports.Batch{
		Reset: ports.ResetNew, Cursor: "7", Live: 2, Condition: ports.ConditionWarming,
		Changes: []ports.Change{
			{Kind: ports.ChangeExpired, Listed: ports.Listed{Entry: ports.Entry{PeerID: self, Native: other}}},
			{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: self, ExpiresAt: now, Leave: true}, Remaining: time.Minute}},
		},
	})
	want := `{"Reset":"new","Condition":"warming","Live":2,"Changes":[{"Kind":"expired","PeerID":"` + string(self) + `","Native":"` + string(other) + `"},` +
		`{"Kind":"left","PeerID":"` + string(self) + `","ExpiresAt":"2026-03-01T12:00:00.5Z","Left":true,"LeftSeconds":60}],"Cursor":"7"}` + "\n"
	if len(all) != 1 || string(all[0]) != want {
		t.Errorf("got %s, want %s", all, want)
	}
	if all := frames(t, &ports.Batch{}); string(all[0]) != `{"Live":0,"Changes":[]}`+"\n" {
		t.Errorf("got %s", all)
	}
}

func TestWriteBatchFails(t *testing.T) {
	with := func(addr string) ports.Batch {
		return ports.Batch{Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: ports.Entry{PeerID: self, Addr: addr}}}}}
	}
	for name, c := range map[string]struct {
		b    ports.Batch
		want ports.Code
	}{
		"a cursor over its limit":     {ports.Batch{Cursor: strings.Repeat("a", ports.MaxCursorBytes+1)}, ports.CodeMalformed},
		"a cursor that is not UTF-8":  {ports.Batch{Cursor: "\xff"}, ports.CodeMalformed},
		"an entry that is not UTF-8":  {with("\xff"), ports.CodeMalformed},
		"an entry larger than frames": {with(strings.Repeat("a", ports.MaxBatchBytes)), ports.CodeTooLarge},
	} {
		_, err := wire.WriteBatch(nil, &c.b, now, func([]byte) error { return nil })
		if code(t, err) != c.want {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	failed := errors.New("failed")
	b := with("a")
	if _, err := wire.WriteBatch(nil, &b, now, func([]byte) error { return failed }); err != failed {
		t.Errorf("got %v, want what write said", err)
	}
}

func TestDecodeBatch(t *testing.T) {
	id := `"PeerID":"` + string(self) + `"`
	for frame, want := range map[string]ports.Batch{
		`{}`:                             {},
		`{"Changes":null}`:               {},
		`{"Live":-1}`:                    {},
		`{"Live":1.5}`:                   {},
		`{"Live":"7"}`:                   {},
		`{"Reset":"of a later version"}`: {Reset: "of a later version"},
		`{"X":{"Kind":1},"Live":7}`:      {Live: 7},
		`{"Changes":[{"Kind":"joined",` + id + `,"X":1}]}`: {Changes: []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: ports.Entry{PeerID: self}}}}},
		// What a later version tells is not for this one.
		`{"Changes":[{"Kind":"moved","PeerID":7},{"Kind":"left",` + id + `}]}`: {},
		`{"Changes":[{"Kind":"moved"},{"Kind":"left",` + id + `}],"Cursor":"7"}`: {
			Changes: []ports.Change{{Kind: ports.ChangeLeft, Listed: ports.Listed{Entry: ports.Entry{PeerID: self}}}}, Cursor: "7",
		},
	} {
		got, err := wire.DecodeBatch([]byte(frame), now)
		if strings.Contains(frame, `"PeerID":7`) {
			if err == nil {
				t.Errorf("%s: a PeerID is a text in every version", frame)
			}
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v: %s", frame, err, diff)
		}
	}
	for _, frame := range []string{
		``, `null`, `[]`, `{"Changes":{}}`, `{"Changes":[7]}`, `{"Changes":[{}]}`, `{"Changes":[{"Kind":"joined"}]}`, `{"Changes":[{"Kind":"joined",` + id + `,` + id + `}]}`,
		`{"Changes":[{"Kind":"joined",` + id + `,"kind":"x"}]}`, `{"Changes":[{"Kind":"joined",` + id + `,"Native":"x"}]}`, `{"Changes":[{"Kind":"joined",` + id, `{"changes":[]}`,
		`{"Changes":[],"Changes":[]}`, `{"Cursor":"` + strings.Repeat("a", ports.MaxCursorBytes+1) + `"}`, `{"X":"` + strings.Repeat("a", ports.MaxBatchBytes) + `"}`,
		`{"Changes":[{"Kind":"joined",` + id + `,"X":` + strings.Repeat("[", 14) + strings.Repeat("]", 14) + `}]}`, `{} {}`, "{\"X\":\"\xff\"}",
		`{"Changes":[` + strings.Repeat(`{},`, 20000) + `{}]}`,
	} {
		got, err := wire.DecodeBatch([]byte(frame), now)
		if _, refused := errors.AsType[*ports.Refusal](err); err == nil || refused {
			t.Errorf("%.100s: got %+v and %v, want an error that is no refusal", frame, got, err)
		}
	}
}

func TestWatchEndTravels(t *testing.T) {
	line, err := wire.EncodeWatchEnd(ports.Refuse(ports.CodeTooSlow, "m"))
	if want := `{"Error":{"Code":"too_slow","Message":"m"}}` + "\n"; err != nil || string(line) != want {
		t.Errorf("got %s and %v, want %s", line, err, want)
	}
	_, err = wire.DecodeBatch(line, now)
	if refusal, ok := errors.AsType[*ports.Refusal](err); !ok || !reflect.DeepEqual(refusal, ports.Refuse(ports.CodeTooSlow, "m")) {
		t.Errorf("got %v", err)
	}
	_, err = wire.DecodeBatch([]byte(`{"Error":{}}`), now)
	if code(t, err) != ports.CodeRefused {
		t.Errorf("got %v", err)
	}
}

func TestWatchRequestTravels(t *testing.T) {
	for text, want := range map[string]ports.WatchRequest{
		`{}`: {},
		`{"Cursor":"é\u0000 nonsense","Renewed":true,"Own":true}`: {Cursor: "é\x00 nonsense", Renewed: true, Own: true},
		`{"Own":true,"Mine":true,"BeatSeconds":1.666666666}`:      {Own: true, Mine: true, Beat: 1666666666},
	} {
		line, err := wire.EncodeWatch(want)
		if err != nil || string(line) != text+"\n" {
			t.Errorf("got %s and %v, want %s", line, err, text)
		}
		got, err := wire.DecodeWatch([]byte(text))
		if err != nil || got != want {
			t.Errorf("%s: got %+v and %v, want %+v", text, got, err, want)
		}
	}
	for frame, want := range map[string]ports.Code{
		`{"Cursor":"` + strings.Repeat("a", ports.MaxCursorBytes) + `"}`:   "",
		`{"Cursor":"` + strings.Repeat("a", ports.MaxCursorBytes+1) + `"}`: ports.CodeMalformed,
		`{"Cursor":7}`: ports.CodeMalformed, `{"cursor":""}`: ports.CodeMalformed, `{"Own":"true"}`: ports.CodeMalformed, `{"Own":true,"Own":true}`: ports.CodeMalformed,
		`{"Cursor":null,"Own":null,"X":1}`: "", `{"BeatSeconds":"2"}`: "", `{"BeatSeconds":-2}`: "", `{"beatSeconds":2}`: ports.CodeMalformed, `{"Mine":7}`: ports.CodeMalformed, ``: ports.CodeMalformed, `{"X":"` + strings.Repeat("a", ports.MaxFrameBytes) + `"}`: ports.CodeTooLarge,
	} {
		if _, err := wire.DecodeWatch([]byte(frame)); code(t, err) != want {
			t.Errorf("%.100s: got %v, want %q", frame, err, want)
		}
	}
}

func FuzzDecodeWatch(f *testing.F) {
	for _, s := range []string{`{}`, `{"Cursor":"1/2","Renewed":true,"Own":false}`, `{"Proofs":true}`, `{"proofs":true}`, `{"Cursor":"\u0000\ud800"}`, `{"own":true}`, `{"Cursor":"a","Cursor":"b"}`, strings.Repeat(`{"a":`, 1000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		w, err := wire.DecodeWatch(frame)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if len(w.Cursor) > ports.MaxCursorBytes {
			t.Fatalf("a cursor of %d bytes", len(w.Cursor))
		}
		line, err := wire.EncodeWatch(w)
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.DecodeWatch(bytes.TrimSuffix(line, []byte("\n")))
		mustBeSame(t, w, again, err)
	})
}

func FuzzDecodeBatch(f *testing.F) {
	for i, s := range hostileEntries(f) {
		f.Add([]byte(fmt.Sprintf(`{"Reset":"new","Changes":[{"Kind":%q,%s},{"Kind":"moved"}],"Cursor":"7","Live":%d,"Condition":"x"}`, kinds[i%len(kinds)], s, i)))
	}
	for _, s := range []string{`{"Error":{"Code":"busy"}}`, `{"Changes":[{}]}`, `{"Changes":[[[[`, `{"Changes":[{"Kind":"left"},{"Kind":"left"}]}`, `{"Live":1e99,"Cursor":"\u0000"}`, `{"changes":[]}`, `{"Now":"2026-03-01T12:00:00.5+02:00"}`, `{"Now":7,"Live":1}`, `{"now":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		b, err := wire.DecodeBatch(frame, now)
		if err != nil {
			return
		}
		if len(frame) > ports.MaxBatchBytes || len(b.Cursor) > ports.MaxCursorBytes || b.Live < 0 {
			t.Fatalf("accepted %d bytes with cursor %q and %d live", len(frame), b.Cursor, b.Live)
		}
		for _, c := range b.Changes {
			mustBeWithinLimits(t, nil, c.Meta)
		}
		var again ports.Batch
		// It may not have all its room any more, as a PeerID in a shorter spelling grows.
		for i, part := range frames(t, &b) {
			p, err := wire.DecodeBatch(bytes.TrimSuffix(part, []byte("\n")), now)
			if err != nil {
				t.Fatalf("what was encoded does not decode: %v", err)
			}
			if i == 0 {
				again = p
			} else {
				again.Changes, again.Cursor = append(again.Changes, p.Changes...), p.Cursor
			}
		}
		mustBeSame(t, b, again, nil, sameDuration)
	})
}

// usual is a batch as a busy native tells it.
func usual(changes int) *ports.Batch {
	b := &ports.Batch{Cursor: "1772366400000000000/12345678", Live: 100_000}
	for i := range changes {
		b.Changes = append(b.Changes, ports.Change{Kind: ports.ChangeRenewed, Listed: ports.Listed{
			Entry: ports.Entry{
				PeerID: self, Addr: fmt.Sprintf("/ip4/192.0.2.%d/tcp/4101", i%256), Native: other,
				ExpiresAt: now.Add(66*time.Second + 123456789), SeenAt: now.Add(-1234567),
			},
			State: ports.StateLive, Source: ports.SourceOwn, Remaining: 66*time.Second - 1234567,
		}})
	}
	return b
}

const usualChanges = 150

func BenchmarkWriteBatch(b *testing.B) {
	batch := usual(usualChanges)
	var buf []byte
	var err error
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = wire.WriteBatch(buf, batch, now, func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/usualChanges, "ns/change")
}

// What encoding/json takes for the same members, to compare.
func BenchmarkWriteBatchByReflection(b *testing.B) {
	type change struct {
		Kind, PeerID, Addr, Native  string
		ExpiresAt                   time.Time
		State, Source               string
		LeftSeconds, SeenSecondsAgo float64
	}
	batch := usual(usualChanges)
	b.ReportAllocs()
	for b.Loop() {
		w := struct {
			Live    int
			Changes []change
			Cursor  string
		}{batch.Live, nil, batch.Cursor}
		for _, c := range batch.Changes {
			w.Changes = append(w.Changes, change{
				string(c.Kind), string(c.PeerID), c.Addr, string(c.Native), c.ExpiresAt, string(c.State), string(c.Source), c.Remaining.Seconds(), now.Sub(c.SeenAt).Seconds(),
			})
		}
		if _, err := json.Marshal(w); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/usualChanges, "ns/change")
}

func BenchmarkDecodeBatch(b *testing.B) {
	all := frames(b, usual(usualChanges))
	if len(all) != 1 {
		b.Fatalf("%d frames", len(all))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.DecodeBatch(all[0][:len(all[0])-1], now); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/usualChanges, "ns/change")
}
