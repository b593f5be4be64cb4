package wire_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// A message is built of fields: a number for a varint, bytes or a text, an array of 8 bytes.
type fields []any // the number of a field, and its value

func (f fields) message() (m []byte) {
	for i := 0; i < len(f); i += 2 {
		number := protowire.Number(f[i].(int))
		switch v := f[i+1].(type) {
		case int:
			m = protowire.AppendVarint(protowire.AppendTag(m, number, protowire.VarintType), uint64(v))
		case uint64:
			m = protowire.AppendVarint(protowire.AppendTag(m, number, protowire.VarintType), v)
		case [8]byte:
			m = append(protowire.AppendTag(m, number, protowire.Fixed64Type), v[:]...)
		case string:
			m = protowire.AppendString(protowire.AppendTag(m, number, protowire.BytesType), v)
		case []byte:
			m = protowire.AppendBytes(protowire.AppendTag(m, number, protowire.BytesType), v)
		case fields:
			m = protowire.AppendBytes(protowire.AppendTag(m, number, protowire.BytesType), v.message())
		}
	}
	return m
}

// packed is a column.
func packed(values ...uint64) (c []byte) {
	for _, v := range values {
		c = protowire.AppendVarint(c, v)
	}
	return c
}

var (
	selfBinary = binaryOf(self)
	linkOf     = strings.Repeat("l", 32)
	// renewal is a block of one signed renewal.
	renewal = fields{1, 60_000, 2, packed(7), 3, packed(4), 4, packed(0), 5, linkOf}
)

func binaryOf(id ports.PeerID) string {
	is, err := peer.Decode(string(id))
	if err != nil {
		panic(err)
	}
	return string(is)
}

// noNews are messages that no teller may send.
var noNews = map[string]fields{
	"a change without a PeerID":               {10, fields{1, 2}},
	"a change with an empty PeerID":           {10, fields{1, 2, 3, ""}},
	"a change with a PeerID that is none":     {10, fields{1, 2, 3, "x"}},
	"a change with a PeerID over its limit":   {10, fields{1, 2, 3, "\x00\x60" + strings.Repeat("x", 96)}},
	"a change of a PeerID in another hash":    {10, fields{1, 2, 3, "\x13\x40" + strings.Repeat("x", 64)}},
	"a change that is a number":               {10, 7},
	"an address that is not UTF-8":            {10, fields{1, 2, 3, selfBinary, 4, "\xff"}},
	"metadata over its limit":                 {10, fields{1, 2, 3, selfBinary, 6, fields{1, strings.Repeat("x", ports.MaxMetaBytes+1)}}},
	"a link of 31 bytes":                      {10, fields{1, 2, 3, selfBinary, 15, linkOf[1:]}},
	"a kind that is a text":                   {10, fields{1, "joined", 3, selfBinary}},
	"an end that is a number":                 {10, fields{1, 2, 3, selfBinary, 8, 7}},
	"a cursor over its limit":                 {2, strings.Repeat("x", ports.MaxCursorBytes+1)},
	"a cursor that is a number":               {2, 7},
	"a cursor that is not UTF-8":              {2, "\xff"},
	"a missing native that is none":           {5, "x"},
	"more sums than allowed":                  append(make(fields, 0), repeated(12, ports.MaxRanges+1)...),
	"more told ranges than allowed":           append(make(fields, 0), repeated(13, ports.MaxRanges+1)...),
	"a range that is a number":                {12, 7},
	"a sum that is a number":                  {12, fields{4, 7}},
	"no steps":                                {11, fields{2, packed(7), 4, packed(0), 5, linkOf}},
	"more steps than numbers":                 {11, fields{2, packed(7), 3, packed(4, 4), 4, packed(0), 5, linkOf}},
	"fewer ages than numbers":                 {11, fields{2, packed(7, 1), 3, packed(4, 4), 4, packed(0), 5, linkOf + linkOf}},
	"more links than steps":                   {11, fields{2, packed(7), 3, packed(4), 4, packed(0), 5, linkOf + linkOf}},
	"a link that is cut":                      {11, fields{2, packed(7), 3, packed(4), 4, packed(0), 5, linkOf[1:]}},
	"a link for a plain lease":                {11, fields{2, packed(7), 3, packed(0), 4, packed(0), 5, linkOf}},
	"an end for a signed lease":               {11, fields{2, packed(7), 3, packed(4), 4, packed(0), 6, packed(4)}},
	"a plain lease without an end":            {11, fields{2, packed(7, 1), 3, packed(0, 0), 4, packed(0, 0), 6, packed(4)}},
	"a link and an end in each other's place": {11, fields{2, packed(7, 1), 3, packed(0, 0), 4, packed(0, 0), 5, linkOf, 6, packed(4)}},
	"a column twice":                          {11, fields{2, packed(7), 2, packed(7), 3, packed(4), 4, packed(0), 5, linkOf}},
	"a column that is not packed":             {11, fields{2, 7, 3, 4, 4, 0, 5, linkOf}},
	"a column that is cut":                    {11, fields{2, "\x07\x80", 3, packed(4), 4, packed(0), 5, linkOf}},
	"a number without end":                    {11, fields{2, strings.Repeat("\xff", 10) + "\x01", 3, packed(4), 4, packed(0), 5, linkOf}},
	"a number of more than 32 bits":           {11, fields{2, packed(1 << 32), 3, packed(4), 4, packed(0), 5, linkOf}},
	"a number that repeats":                   {11, fields{2, packed(7, 0), 3, packed(4, 4), 4, packed(0, 0), 5, linkOf + linkOf}},
	"numbers that wrap":                       {11, fields{2, packed(7, math.MaxUint32), 3, packed(4, 4), 4, packed(0, 0), 5, linkOf + linkOf}},
	"a block that does not go on":             {11, renewal, 11, renewal},
	"an error that is a number":               {15, 7},
	"a code that is a number":                 {15, fields{1, 7}},
}

func repeated(number, n int) (f fields) {
	for range n {
		f = append(f, number, fields{})
	}
	return f
}

func TestAMessageOfNoTellerIsRefused(t *testing.T) {
	for name, f := range noNews {
		b, err := wire.NewTeller(other).Decode(f.message(), now)
		if _, refusal := errors.AsType[*ports.Refusal](err); err == nil || refusal {
			t.Errorf("%s: got %+v, %v", name, b, err)
		}
	}
	whole := fields{1, "new", 10, fields{1, 2, 3, selfBinary, 4, "a"}, 11, renewal, 12, fields{1, 7}}.message()
	refused := 0
	for cut := 1; cut < len(whole); cut++ {
		if _, err := wire.NewTeller(other).Decode(whole[:cut], now); err != nil {
			refused++
		}
	}
	if refused != len(whole)-1-3 { // a cut between two fields leaves a message
		t.Errorf("%d of %d cuts are refused", refused, len(whole)-1)
	}
}

func TestWhatATellerSaysWrongIsNotSaid(t *testing.T) {
	joined := func(more ports.Change) ports.Batch {
		more.Kind, more.PeerID, more.Native = ports.ChangeJoined, self, other
		return ports.Batch{News: &ports.News{Changes: []ports.Change{more}}}
	}
	one := func(r ports.Renewal) ports.Batch { return ports.Batch{News: &ports.News{Renewals: []ports.Renewal{r}}} }
	signed := ports.Renewal{Number: 7, Step: 3, Link: ports.Link([]byte(linkOf)), Remaining: time.Minute}
	late := signed
	late.Remaining = 0
	far := signed
	far.Step = math.MaxUint32
	for name, c := range map[string]struct {
		message fields
		want    ports.Batch
	}{
		"nothing":                       {nil, ports.Batch{}},
		"unknown fields":                {fields{100, 7, 101, "x", 102, [8]byte{}, 3, 7}, ports.Batch{Live: 7}},
		"a field twice: the last":       {fields{3, 7, 3, 8}, ports.Batch{Live: 8}},
		"more live than there are":      {fields{3, uint64(math.MaxUint64)}, ports.Batch{}},
		"a beat without end":            {fields{6, uint64(math.MaxUint64)}, ports.Batch{}},
		"an age without end":            {fields{9, uint64(math.MaxInt64)}, ports.Batch{}},
		"a start over its limit":        {fields{7, strings.Repeat("x", 2*ports.MaxCursorBytes)}, ports.Batch{Start: strings.Repeat("x", ports.MaxCursorBytes)}},
		"a reset of a later version":    {fields{1, "of a later version"}, ports.Batch{Reset: "of a later version"}},
		"a kind of a later version":     {fields{10, fields{1, 99, 3, selfBinary}}, ports.Batch{}},
		"no kind":                       {fields{10, fields{3, selfBinary}}, ports.Batch{}},
		"a number of more than 32 bits": {fields{10, fields{1, 2, 2, 1 << 32, 3, selfBinary}}, joined(ports.Change{})},
		"a state of a later version":    {fields{10, fields{1, 2, 3, selfBinary, 11, 99}}, joined(ports.Change{})},
		"seen at no time":               {fields{10, fields{1, 2, 3, selfBinary, 9, uint64(math.MaxUint64)}}, joined(ports.Change{})},
		"seen just now":                 {fields{10, fields{1, 2, 3, selfBinary, 9, 0}}, joined(ports.Change{Listed: ports.Listed{Entry: ports.Entry{SeenAt: now}}})},
		"the teller by its name":        {fields{10, fields{1, 2, 3, selfBinary, 7, binaryOf(other)}}, joined(ports.Change{})},
		"a renewal":                     {fields{11, renewal, 100, ""}, one(signed)},
		"unknown columns":               {fields{11, append(renewal[:len(renewal):len(renewal)], 99, "x")}, one(signed)},
		"an age beyond all of a lease":  {fields{11, fields{1, 60_000, 2, packed(7), 3, packed(4), 4, packed(60_001), 5, linkOf}}, one(late)},
		"a lease without end":           {fields{11, fields{1, uint64(math.MaxUint64), 2, packed(7), 3, packed(4), 4, packed(0), 5, linkOf}}, one(late)},
		"a step of more than 32 bits":   {fields{11, fields{1, 60_000, 2, packed(7), 3, packed(math.MaxUint64), 4, packed(0), 5, linkOf}}, one(far)},
		"no renewals":                   {fields{11, fields{}}, ports.Batch{}},
		"an end that wraps":             {fields{11, fields{2, packed(7, 1), 3, packed(0, 0), 4, packed(0, 0), 6, packed(math.MaxUint64-1, math.MaxUint64-1)}}, ports.Batch{News: &ports.News{Renewals: []ports.Renewal{{Number: 7, ExpiresAt: math.MaxInt64}, {Number: 8, ExpiresAt: -2}}}}},
	} {
		got, err := wire.NewTeller(other).Decode(c.message.message(), now)
		if diff := gocmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func FuzzDecodeNews(f *testing.F) {
	for _, m := range noNews {
		f.Add(m.message())
	}
	for _, n := range []*ports.News{nil, newsOf(2, 0, true), newsOf(0, 3, true), newsOf(1, 3, false)} {
		for _, m := range told(f, &ports.Batch{Reset: ports.ResetNew, Cursor: "7", Live: 3, Now: now, News: n, Age: time.Second, Beat: time.Second, Start: "x", Audience: 1, Missing: []ports.PeerID{self}, Sums: []ports.Range{{From: 1, Count: 2, Sum: 3}}, Told: []ports.Range{{From: 1, Until: 9, Whole: true}}}) {
			f.Add(m)
		}
	}
	f.Add(fields{10, fields{1, 6, 2, 7, 3, selfBinary, 4, "a", 5, "a", 5, "b", 6, fields{1, "k", 2, "v"}, 7, selfBinary, 8, [8]byte{1}, 9, 0, 10, 1, 11, 2, 12, "r", 13, 1, 14, 2, 15, linkOf}}.message())
	f.Add(wire.EncodeFollowEnd(ports.Refuse(ports.CodeBusy, "x"))[1:])
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > ports.MaxBatchBytes {
			return
		}
		b, err := wire.NewTeller(other).Decode(message, now)
		if err != nil {
			return
		}
		if len(b.Cursor) > ports.MaxCursorBytes || b.Live < 0 || b.Beat < 0 || b.Age < 0 || len(b.Missing) > ports.MaxMissing || len(b.Sums) > ports.MaxRanges || len(b.Told) > ports.MaxRanges {
			t.Fatalf("accepted %+v", b)
		}
		if b.News != nil {
			if len(b.News.Renewals) > len(message) || len(b.News.Changes) > len(message) {
				t.Fatalf("%d bytes made %d changes and %d renewals", len(message), len(b.News.Changes), len(b.News.Renewals))
			}
			for i, r := range b.News.Renewals {
				if r.Remaining < 0 || i > 0 && r.Number <= b.News.Renewals[i-1].Number {
					t.Fatalf("renewal %d is %+v", i, r)
				}
			}
			for i := range b.News.Changes {
				c := &b.News.Changes[i]
				mustBeWithinLimits(t, nil, c.Meta)
				if c.SeenAt.After(now) {
					t.Fatalf("seen at %s", c.SeenAt)
				}
				c.SeenAt = time.Time{} // it counts from when the News were made
				if p := c.Proof; p != nil && p.Record != nil {
					c.Addrs, c.Meta = nil, nil
				}
			}
			for i := range b.News.Renewals {
				// An end that is not said is that of a signed lease.
				if r := &b.News.Renewals[i]; r.ExpiresAt != 0 {
					continue
				} else if r.Link == (ports.Link{}) {
					return
				}
			}
		}
		b.Told = nil // they are cut anew
		if b.News != nil && len(b.News.Changes) == 0 && len(b.News.Renewals) == 0 {
			b.News = nil
		}
		again := heard(t, told(t, &b))
		if diff := gocmp.Diff(b, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeFollow(f *testing.F) {
	for _, m := range []fields{{}, {1, "7", 2, 1700, 3, 1}, {4, fields{1, 1, 2, 9, 5, 1}}, {4, fields{}, 4, fields{1, 1}}, {4, 7}, {1, "\xff"}, {5, 1}, {5, 3}, {99, "x"}, repeated(4, ports.MaxRanges+1)} {
		f.Add(m.message())
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) > ports.MaxFrameBytes {
			return
		}
		r, err := wire.DecodeFollow(message)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		if len(r.Ranges) > ports.MaxRanges || r.Beat < 0 {
			t.Fatalf("accepted %+v", r)
		}
		frame, err := wire.AppendFollow(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		message, err = wire.NewFrames(bytes.NewReader(frame), ports.MaxFrameBytes).Next()
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.DecodeFollow(message)
		mustBeSame(t, r, again, err)
	})
}

// BenchmarkNews is a renewal's share of News of 100, and an entry's of a snapshot: all that one follower
// costs beside its table and its stream. A native encodes News once for all its followers.
func BenchmarkNews(b *testing.B) {
	teller := wire.NewTeller(other)
	for name, n := range map[string]*ports.News{"renewal": newsOf(0, 100, true), "plain renewal": newsOf(0, 100, false), "entry": newsOf(100, 0, false)} {
		batch := ports.Batch{Cursor: "M5XG64TTMV.1234567", Live: 10_000, Now: now, Audience: 1 << 63, News: n}
		pieces, err := wire.EncodeNews(batch.News, other, now)
		if err != nil {
			b.Fatal(err)
		}
		message := told(b, &batch)[0]
		buf := make([]byte, 0, ports.MaxBatchBytes)
		for what, do := range map[string]func() error{
			"encode": func() error { _, err := wire.EncodeNews(batch.News, other, now); return err },
			"write": func() error {
				_, err := wire.WriteTold(buf, &batch, pieces, func([]byte) error { return nil })
				return err
			},
			"decode": func() error { _, err := teller.Decode(message, now); return err },
		} {
			b.Run(name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				for range b.N / 100 {
					if err := do(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
