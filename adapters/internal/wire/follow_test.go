package wire_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
)

// told returns the messages of b as the native other tells it.
func told(t interface{ Fatal(...any) }, b *ports.Batch) (messages [][]byte) {
	pieces, err := wire.EncodeNews(b.News, other, now.Add(-b.Age))
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	if _, err := wire.WriteTold(nil, b, pieces, func(frame []byte) error { all.Write(frame); return nil }); err != nil {
		t.Fatal(err)
	}
	for frames := wire.NewFrames(&all, ports.MaxBatchBytes); ; {
		message, err := frames.Next()
		if err == io.EOF {
			return messages
		} else if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, bytes.Clone(message))
	}
}

// heard joins the batches that messages decode to.
func heard(t interface{ Fatal(...any) }, messages [][]byte) (joined ports.Batch) {
	for i, m := range messages {
		b, err := wire.NewTeller(other).Decode(m, now)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			joined = b
			continue
		}
		if b.Reset != "" || b.Beat != 0 || b.Start != "" || joined.Cursor != "" || len(joined.Sums) > 0 {
			t.Fatal("a part says what is another part's", i)
		}
		joined.Cursor, joined.Sums = b.Cursor, b.Sums
		joined.Told = append(joined.Told, b.Told...)
		if b.News != nil {
			joined.News.Changes = append(joined.News.Changes, b.News.Changes...)
			joined.News.Renewals = append(joined.News.Renewals, b.News.Renewals...)
		}
	}
	return joined
}

var toldKinds = []ports.ChangeKind{ports.ChangeSnapshot, ports.ChangeJoined, ports.ChangeUpdated, ports.ChangeLate, ports.ChangeExpired, ports.ChangeLeft}

// someChange returns a change, made at that time, that the wire tells whole.
func someChange(t *rapid.T, made time.Time) ports.Change {
	c := ports.Change{Kind: rapid.SampledFrom(toldKinds).Draw(t, "Kind"), Number: rapid.Uint32().Draw(t, "Number"), Listed: someListed(t)}
	c.State = rapid.SampledFrom([]ports.State{"", ports.StateLive, ports.StateLate, ports.StateStale}).Draw(t, "state")
	c.Source, c.Leave = "", c.Kind == ports.ChangeLeft
	c.Remaining = max(c.Remaining, 0).Truncate(time.Millisecond)
	if !c.SeenAt.IsZero() {
		c.SeenAt = made.Add(-now.Sub(c.SeenAt).Truncate(time.Millisecond))
	}
	if c.ExpiresAt.Equal(time.Unix(0, 0)) || !time.Unix(0, c.ExpiresAt.UnixNano()).Equal(c.ExpiresAt) {
		c.ExpiresAt = time.Time{}
	}
	if c.Proof != nil && c.Proof.Record != nil {
		c.Addrs, c.Meta = nil, nil
	}
	if c.Proof != nil && c.Proof.Tick.Seq < 0 {
		c.Proof = nil
	}
	return c
}

func someRenewals(t *rapid.T, n int) (all []ports.Renewal) {
	number := rapid.Uint32Range(0, 3).Draw(t, "first")
	for i := range n {
		r := ports.Renewal{Number: number, Remaining: time.Duration(rapid.Int64Range(0, 70_000).Draw(t, "left")) * time.Millisecond}
		if rapid.Bool().Draw(t, "signed") {
			r.Step = rapid.Uint32().Draw(t, "step")
			r.Link[i%32] = 1
		} else {
			r.ExpiresAt = rapid.Int64Range(1, math.MaxInt64).Draw(t, "ends")
		}
		all = append(all, r)
		number += rapid.Uint32Range(1, 1<<20).Draw(t, "gap")
	}
	return all
}

func TestNewsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := ports.Batch{
			Reset:     ports.Reset(rapid.SampledFrom([]string{"", "new", "é\x00"}).Draw(t, "reset")),
			Cursor:    rapid.StringN(0, ports.MaxCursorBytes, ports.MaxCursorBytes).Draw(t, "cursor"),
			Live:      rapid.IntRange(0, 1<<60).Draw(t, "live"),
			Condition: ports.Condition(rapid.SampledFrom([]string{"", "warming"}).Draw(t, "condition")),
			Missing:   rapid.SampledFrom([][]ports.PeerID{nil, {self}, slices.Repeat([]ports.PeerID{self}, ports.MaxMissing)}).Draw(t, "missing"),
			Beat:      time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "beat")) * time.Millisecond,
			Start:     rapid.SampledFrom([]string{"", "M5XG64TTMV"}).Draw(t, "start"),
			Age:       time.Duration(rapid.Int64Range(0, 1<<20).Draw(t, "age")) * time.Millisecond,
			Audience:  rapid.Uint64().Draw(t, "audience"),
		}
		if rapid.Bool().Draw(t, "says when") {
			want.Now = now.Add(time.Duration(rapid.Int64Range(-1<<60, 1<<60).Draw(t, "Now"))).UTC()
		}
		for i := range rapid.SampledFrom([]int{0, 0, 1, 16, ports.MaxRanges}).Draw(t, "sums") {
			want.Sums = append(want.Sums, ports.Range{From: uint32(i), Until: uint32(i) + 1, Count: rapid.Uint32().Draw(t, "count"), Sum: rapid.Uint64().Draw(t, "sum")})
		}
		var news ports.News
		made := now.Add(-want.Age)
		some := []ports.Change{someChange(t, made), someChange(t, made), someChange(t, made)}
		for i := range rapid.SampledFrom([]int{0, 1, 3, 500}).Draw(t, "changes") {
			news.Changes = append(news.Changes, some[i%len(some)])
		}
		news.Renewals = someRenewals(t, rapid.SampledFrom([]int{0, 1, 2, 30}).Draw(t, "renewals"))
		if len(news.Changes) > 0 || len(news.Renewals) > 0 {
			want.News = &news
		}
		if diff := gocmp.Diff(want, heard(t, told(t, &want))); diff != "" {
			t.Error(diff)
		}
	})
}

// newsOf returns News of that many changes and renewals, as a busy native tells them.
func newsOf(changes, renewals int, signed bool) *ports.News {
	n := &ports.News{}
	for i := range changes {
		n.Changes = append(n.Changes, ports.Change{Kind: ports.ChangeSnapshot, Number: uint32(i + 1), Listed: ports.Listed{
			Entry:     ports.Entry{PeerID: self, Addr: "/ip4/203.0.113.7/tcp/4001", Native: other, SeenAt: now.Add(-time.Second), ExpiresAt: now.Add(time.Minute).UTC()},
			Remaining: time.Minute, State: ports.StateLive,
		}})
	}
	for i := range renewals {
		r := ports.Renewal{Number: uint32(7*i + 1), Remaining: 66*time.Second - time.Duration(37*i%1000)*time.Millisecond}
		if signed {
			r.Step = uint32(1 + i%60)
			r.Link = ports.Link{byte(i), byte(i >> 8), 31: 1}
		} else {
			r.ExpiresAt = now.Add(r.Remaining).UnixNano()
		}
		n.Renewals = append(n.Renewals, r)
	}
	return n
}

func TestLargeNewsTakeSeveralFrames(t *testing.T) {
	for _, n := range []*ports.News{newsOf(1000, 10_000, true), newsOf(1, 10_000, false), newsOf(1000, 0, false)} {
		b := ports.Batch{Reset: ports.ResetNew, Cursor: "7", News: n, Missing: slices.Repeat([]ports.PeerID{self}, ports.MaxMissing)}
		for i := range ports.MaxRanges {
			b.Sums = append(b.Sums, ports.Range{From: math.MaxUint32 - 300 + uint32(i), Until: math.MaxUint32 - 299 + uint32(i), Count: math.MaxUint32, Sum: math.MaxUint64, Whole: true})
		}
		messages := told(t, &b)
		for _, m := range messages {
			if len(m) > ports.MaxBatchBytes {
				t.Errorf("a frame has %d bytes", len(m))
			}
		}
		if len(messages) < 2 {
			t.Errorf("%d frames", len(messages))
		}
		if diff := gocmp.Diff(b, heard(t, messages)); diff != "" {
			t.Error(diff)
		}
	}
}

// The bound is 48 B a renewal in batches of 100.
func TestARenewalTakesFewBytes(t *testing.T) {
	for name, c := range map[string]struct {
		signed bool
		most   float64
	}{"signed": {true, 38}, "plain": {false, 12}} {
		b := ports.Batch{Cursor: "M5XG64TTMV.1234567", Live: 10_000, Now: now, Audience: 1 << 63, News: newsOf(0, 100, c.signed)}
		if each := float64(len(told(t, &b)[0])+lengthOf(told(t, &b)[0])) / 100; each > c.most {
			t.Errorf("%s: %.1f bytes, want at most %.0f", name, each, c.most)
		} else {
			t.Logf("%s: %.2f bytes", name, each)
		}
	}
}

func lengthOf(message []byte) int { return protowire.SizeVarint(uint64(len(message))) }

func TestToldRangesAreCutWithTheirFrames(t *testing.T) {
	b := ports.Batch{Cursor: "7", News: newsOf(1000, 0, false), Told: []ports.Range{{From: 0, Until: 100, Whole: true}, {From: 200, Until: 900, Whole: true}, {From: 950, Whole: true}}}
	covered := uint32(0)
	for i, m := range told(t, &b) {
		is, err := wire.NewTeller(other).Decode(m, now)
		if err != nil {
			t.Fatal(err)
		}
		within := func(number uint32) bool {
			return slices.ContainsFunc(is.Told, func(r ports.Range) bool { return r.From <= number && (r.Until == 0 || number < r.Until) })
		}
		for _, c := range is.News.Changes {
			asked := c.Number < 100 || c.Number >= 200 && c.Number < 900 || c.Number >= 950
			if within(c.Number) != asked {
				t.Errorf("frame %d: number %d is told in %v", i, c.Number, is.Told)
			}
			if covered = max(covered, c.Number); covered != c.Number {
				t.Errorf("frame %d: number %d after %d", i, c.Number, covered)
			}
		}
		if first := is.News.Changes[0].Number; i > 0 && first > 1 && within(first-1) {
			t.Errorf("frame %d says that %d stands for nothing", i, first-1)
		}
	}
	none := ports.Batch{Told: []ports.Range{{From: 5, Until: 9, Whole: true}}}
	if got := heard(t, told(t, &none)); got.News == nil || len(got.Told) != 1 {
		t.Errorf("an empty range is told as %+v", got)
	}
}

func TestAFollowRequestTravels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &wire.FollowRequest{WatchRequest: ports.WatchRequest{
			Own: true, Numbers: true, Mine: rapid.Bool().Draw(t, "mine"),
			Cursor: rapid.StringN(0, ports.MaxCursorBytes, ports.MaxCursorBytes).Draw(t, "cursor"),
			Beat:   time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "beat")) * time.Millisecond,
		}}
		want.Fill = rapid.SampledFrom([]wire.Fill{0, wire.Full, wire.Room}).Draw(t, "fill")
		for i := range rapid.SampledFrom([]uint32{0, 1, 16, ports.MaxRanges}).Draw(t, "ranges") {
			want.Ranges = append(want.Ranges, ports.Range{From: math.MaxUint32 - 2*ports.MaxRanges + 2*i, Until: math.MaxUint32 - 2*ports.MaxRanges + 2*i + 1, Count: math.MaxUint32, Sum: math.MaxUint64, Whole: rapid.Bool().Draw(t, "whole")})
		}
		frame, err := wire.AppendFollow(nil, want)
		if err != nil {
			t.Fatal(err)
		}
		message, err := wire.NewFrames(bytes.NewReader(frame), ports.MaxFrameBytes).Next()
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeFollow(message)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAnAskIsBounded(t *testing.T) {
	many := make([]ports.Range, ports.MaxRanges+1)
	for i := range many {
		many[i] = ports.Range{From: uint32(i), Until: uint32(i) + 1}
	}
	for name, c := range map[string]struct {
		ranges []ports.Range
		ok     bool
	}{
		"none":                  {nil, true},
		"all":                   {[]ports.Range{{}}, true},
		"two that touch":        {[]ports.Range{{From: 1, Until: 2}, {From: 2}}, true},
		"as many as may be":     {many[:ports.MaxRanges], true},
		"one more":              {many, false},
		"two that overlap":      {[]ports.Range{{From: 1, Until: 3}, {From: 2, Until: 4}}, false},
		"the same twice":        {[]ports.Range{{From: 1, Until: 3}, {From: 1, Until: 3}}, false},
		"all, and another":      {[]ports.Range{{}, {From: 1, Until: 3}}, false},
		"an empty range":        {[]ports.Range{{From: 3, Until: 3}}, false},
		"an end before a start": {[]ports.Range{{From: 3, Until: 2}}, false},
	} {
		var message []byte
		for _, r := range c.ranges {
			var m []byte
			m = protowire.AppendVarint(protowire.AppendTag(m, 1, protowire.VarintType), uint64(r.From))
			m = protowire.AppendVarint(protowire.AppendTag(m, 2, protowire.VarintType), uint64(r.Until))
			message = protowire.AppendBytes(protowire.AppendTag(message, 4, protowire.BytesType), m)
		}
		if _, err := wire.DecodeFollow(message); (err == nil) != c.ok {
			t.Errorf("%s: decoded: %v", name, err)
		} else if err != nil && code(t, err) != ports.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := wire.AppendFollow(nil, &wire.FollowRequest{Ranges: c.ranges}); (err == nil) != c.ok {
			t.Errorf("%s: encoded: %v", name, err)
		}
	}
}

func TestTheEndOfAFollowTravels(t *testing.T) {
	want := ports.Refuse(ports.CodeTooSlow, "read faster, é")
	message, err := wire.NewFrames(bytes.NewReader(wire.EncodeFollowEnd(want)), ports.MaxBatchBytes).Next()
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.NewTeller(other).Decode(message, now)
	if got, ok := errors.AsType[*ports.Refusal](err); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	for _, message := range [][]byte{{0x7a, 0}, {0x7a, 2, 0x0a, 0}} { // an error that says nothing
		if _, err := wire.NewTeller(other).Decode(message, now); code(t, err) != ports.CodeRefused {
			t.Errorf("got %v", err)
		}
	}
}

func TestWhatNoFrameCarriesIsRefused(t *testing.T) {
	with := func(c ports.Change) ports.Batch {
		c.Kind, c.PeerID = cmp.Or(c.Kind, ports.ChangeJoined), cmp.Or(c.PeerID, self)
		return ports.Batch{News: &ports.News{Changes: []ports.Change{c}}}
	}
	entry := func(e ports.Entry) ports.Batch { return with(ports.Change{Listed: ports.Listed{Entry: e}}) }
	for name, c := range map[string]struct {
		b    ports.Batch
		want ports.Code
	}{
		"a cursor over its limit":             {ports.Batch{Cursor: strings.Repeat("a", ports.MaxCursorBytes+1)}, ports.CodeMalformed},
		"a cursor that is not UTF-8":          {ports.Batch{Cursor: "\xff"}, ports.CodeMalformed},
		"a missing native that is none":       {ports.Batch{Missing: []ports.PeerID{"x"}}, ports.CodeMalformed},
		"more sums than allowed":              {ports.Batch{Sums: make([]ports.Range, ports.MaxRanges+1)}, ports.CodeTooLarge},
		"a kind that natives do not tell":     {with(ports.Change{Kind: ports.ChangeRenewed}), ports.CodeMalformed},
		"a PeerID that is none":               {entry(ports.Entry{PeerID: "x"}), ports.CodeMalformed},
		"a native that is none":               {entry(ports.Entry{Native: "x"}), ports.CodeMalformed},
		"an address that is not UTF-8":        {entry(ports.Entry{Addr: "\xff"}), ports.CodeMalformed},
		"another address that is not UTF-8":   {entry(ports.Entry{Addrs: []string{"a", "\xff"}}), ports.CodeMalformed},
		"a name that is not UTF-8":            {entry(ports.Entry{Meta: map[string]string{"\xff": ""}}), ports.CodeMalformed},
		"an entry that is larger than frames": {entry(ports.Entry{Addr: strings.Repeat("a", ports.MaxBatchBytes)}), ports.CodeTooLarge},
	} {
		pieces, err := wire.EncodeNews(c.b.News, other, now)
		if err == nil {
			_, err = wire.WriteTold(nil, &c.b, pieces, func([]byte) error { return nil })
		}
		if code(t, err) != c.want {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	failed := errors.New("failed")
	pieces, _ := wire.EncodeNews(nil, other, now)
	if _, err := wire.WriteTold(nil, &ports.Batch{}, pieces, func([]byte) error { return failed }); err != failed {
		t.Errorf("got %v, want what write said", err)
	}
}

func TestFramesAreRead(t *testing.T) {
	most := ports.MaxFrameBytes
	frame := func(length int) []byte {
		return append(binary.AppendUvarint(nil, uint64(length)), make([]byte, length)...)
	}
	for name, c := range map[string]struct {
		bytes []byte
		sizes []int
		end   error
	}{
		"nothing":                 {nil, nil, io.EOF},
		"an empty frame":          {[]byte{0}, []int{0}, io.EOF},
		"two frames":              {append(frame(3), frame(300)...), []int{3, 300}, io.EOF},
		"the largest frame":       {frame(most), []int{most}, io.EOF},
		"one byte more":           {frame(most + 1), nil, ports.Refuse(ports.CodeTooLarge, "a frame has at most 8192 bytes behind its length")},
		"a length without end":    {[]byte{0xff, 0xff, 0xff, 0xff}, nil, ports.Refuse(ports.CodeTooLarge, "a frame has at most 8192 bytes behind its length")},
		"a length in four bytes":  {[]byte{0x81, 0x80, 0x80, 0, 7}, nil, ports.Refuse(ports.CodeMalformed, "a frame begins with its length as a varint of 3 bytes at most")},
		"a length in three bytes": {[]byte{0x81, 0x80, 0, 7}, []int{1}, io.EOF},
		"a cut length":            {[]byte{0x80}, nil, io.ErrUnexpectedEOF},
		"a cut frame":             {frame(7)[:7], nil, io.ErrUnexpectedEOF},
		"a frame without a byte":  {frame(7)[:1], nil, io.ErrUnexpectedEOF},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.bytes), iotest.OneByteReader(bytes.NewReader(c.bytes))} {
			frames := wire.NewFrames(r, most)
			for _, size := range c.sizes {
				if message, err := frames.Next(); err != nil || len(message) != size {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(message), err, size)
				}
			}
			if _, err := frames.Next(); err == nil || err.Error() != c.end.Error() {
				t.Errorf("%s: ended with %v, want %v", name, err, c.end)
			}
		}
	}
}
