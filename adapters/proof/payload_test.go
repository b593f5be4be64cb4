package proof_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// The fields of a payload as they stand in it, so that one can be moved or made anew.
type field struct {
	number protowire.Number
	raw    []byte // with its tag
}

func split(t testing.TB, payload []byte) (fields []field) {
	t.Helper()
	for len(payload) > 0 {
		number, _, n := protowire.ConsumeField(payload)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		fields = append(fields, field{number, payload[:n]})
		payload = payload[n:]
	}
	return fields
}

func join(fields []field) (payload []byte) {
	for _, f := range fields {
		payload = append(payload, f.raw...)
	}
	return payload
}

func text(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func number(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

// pair is one name of the metadata, made of its fields.
func pair(fields ...[]byte) []byte { return text(4, string(slices.Concat(fields...))) }

// with returns payload with all fields of that number replaced, where the first was.
func with(t testing.TB, payload []byte, number protowire.Number, raw ...[]byte) []byte {
	t.Helper()
	fields := split(t, payload)
	at := slices.IndexFunc(fields, func(f field) bool { return f.number >= number })
	fields = slices.DeleteFunc(fields, func(f field) bool { return f.number == number })
	if at < 0 {
		at = len(fields)
	}
	return join(slices.Insert(fields, at, field{number, slices.Concat(raw...)}))
}

func TestAPayloadHasOneForm(t *testing.T) {
	key, other := keyOf(t, 0), keyOf(t, 100)
	c := claimOf(t, key)
	c.Meta = map[string]string{"a": "1", "b": "2"}
	good := payloadOf(t, c)
	id := func(id ports.PeerID) string {
		decoded, err := peer.Decode(string(id))
		if err != nil {
			t.Fatal(err)
		}
		return string(decoded)
	}
	a, b := pair(text(1, "a"), text(2, "1")), pair(text(1, "b"), text(2, "2"))
	if got := with(t, good, 4, a, b); !bytes.Equal(got, good) {
		t.Fatalf("the payload is %x, and its metadata made anew %x", good, got)
	}
	padded := func(raw []byte) []byte { // the last byte of a varint, in two
		return append(append(raw[:len(raw)-1:len(raw)-1], raw[len(raw)-1]|0x80), 0)
	}
	swapped := split(t, good)
	swapped[0], swapped[len(swapped)-1] = swapped[len(swapped)-1], swapped[0]
	numbersSwapped := split(t, good)
	n := len(numbersSwapped)
	numbersSwapped[n-2], numbersSwapped[n-3] = numbersSwapped[n-3], numbersSwapped[n-2]
	addrs := slices.Repeat([][]byte{text(3, "/ip4/203.0.113.7/tcp/4001")}, ports.MaxAddrs+1)
	fixed := func(field protowire.Number, v uint64) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(nil, field, protowire.Fixed64Type), v)
	}

	cases := map[string][]byte{
		"nothing":                      nil,
		"no bytes of protobuf":         {0xff},
		"a tag alone":                  {0x0a},
		"cut short":                    good[:len(good)-1],
		"a byte behind it":             append(bytes.Clone(good), 0),
		"a field behind it":            append(bytes.Clone(good), text(15, "x")...),
		"an unknown number behind it":  append(bytes.Clone(good), number(15, 1)...),
		"itself twice":                 slices.Concat(good, good),
		"first and last field swapped": join(swapped), "Interval and TTL swapped": join(numbersSwapped),

		"PeerID missing":              with(t, good, 1),
		"PeerID empty":                with(t, good, 1, text(1, "")),
		"PeerID twice":                with(t, good, 1, text(1, id(c.PeerID)), text(1, id(c.PeerID))),
		"PeerID as text":              with(t, good, 1, text(1, string(c.PeerID))),
		"PeerID with a byte too much": with(t, good, 1, text(1, id(c.PeerID)+"\x00")),
		"PeerID a number":             with(t, good, 1, number(1, 1)),
		"Native empty":                with(t, good, 2, text(2, "")),
		"Native no PeerID":            with(t, good, 2, text(2, "native")),
		"a field 2":                   with(t, good, 2, text(2, id(idOf(t, other)))),
		"Native the indexer itself":   with(t, good, 2, text(2, id(c.PeerID))),

		"an address empty":          with(t, good, 3, text(3, "")),
		"an address not UTF-8":      with(t, good, 3, text(3, "\xff")),
		"an address too many":       with(t, good, 3, addrs...),
		"addresses behind metadata": slices.Concat(with(t, good, 3), text(3, "/ip4/203.0.113.7/tcp/4001")),
		"length not minimal":        with(t, good, 3, []byte{3<<3 | 2, 0x81, 0, 'a'}),
		"tag not minimal":           with(t, good, 3, []byte{3<<3 | 2 | 0x80, 0, 1, 'a'}),
		"a group":                   with(t, good, 3, []byte{3<<3 | 3, 3<<3 | 4}),
		"four bytes":                with(t, good, 3, []byte{3<<3 | 5, 1, 2, 3, 4}),
		"field 0":                   with(t, good, 3, []byte{0<<3 | 2, 1, 'a'}),

		"metadata not sorted":            with(t, good, 4, b, a),
		"a name twice":                   with(t, good, 4, a, a),
		"a name twice, another value":    with(t, good, 4, pair(text(1, "a"), text(2, "0")), a),
		"a name not UTF-8":               with(t, good, 4, pair(text(1, "\xff"))),
		"a value not UTF-8":              with(t, good, 4, pair(text(2, "\xff"))),
		"a name written and empty":       with(t, good, 4, pair(text(1, ""), text(2, "1"))),
		"a value written and empty":      with(t, good, 4, pair(text(1, "a"), text(2, ""))),
		"a value before its name":        with(t, good, 4, pair(text(2, "1"), text(1, "a"))),
		"two names in one pair":          with(t, good, 4, pair(text(1, "a"), text(1, "a"))),
		"an unknown field of a pair":     with(t, good, 4, pair(text(1, "a"), text(3, "x"))),
		"a number in a pair":             with(t, good, 4, pair(text(1, "a"), number(2, 1))),
		"a pair cut short":               with(t, good, 4, pair([]byte{1<<3 | 2, 5, 'a'})),
		"a length in a pair not minimal": with(t, good, 4, pair([]byte{1<<3 | 2, 0x81, 0, 'a'})),
		"more names than bytes":          with(t, good, 4, slices.Repeat([][]byte{pair()}, ports.MaxMetaBytes+1)...),

		"Seq missing":             with(t, good, 5),
		"Seq 0":                   with(t, good, 5, number(5, 0)),
		"Seq negative":            with(t, good, 5, number(5, 1<<64-1)),
		"Seq too large":           with(t, good, 5, number(5, proof.MaxSeq+1)),
		"Seq of 70 bits":          with(t, good, 5, append([]byte{5 << 3}, bytes.Repeat([]byte{0xff}, 10)...)),
		"Seq not minimal":         with(t, good, 5, padded(number(5, 1772359200500))),
		"Seq twice":               with(t, good, 5, number(5, 1), number(5, 1772359200500)),
		"Seq eight bytes":         with(t, good, 5, fixed(5, 1772359200500)),
		"Start 0":                 with(t, good, 6, fixed(6, 0)),
		"Start a varint":          with(t, good, 6, number(6, 7)),
		"Start cut short":         with(t, good, 6, fixed(6, 7)[:5]),
		"Start twice":             with(t, good, 6, fixed(6, 7), fixed(6, 7)),
		"Interval without Anchor": with(t, good, 9),
		"Anchor without Interval": with(t, good, 7),
		"Interval 0":              with(t, good, 7, number(7, 0)),
		"Interval over an hour":   with(t, good, 7, number(7, uint64(ports.MaxInterval.Milliseconds())+1)),
		"Interval not minimal":    with(t, good, 7, padded(number(7, 57000))),
		"TTL missing":             with(t, good, 8),
		"TTL 0":                   with(t, good, 8, number(8, 0)),
		"TTL over an hour":        with(t, good, 8, number(8, uint64(ports.MaxInterval.Milliseconds())+1)),
		"TTL not minimal":         with(t, good, 8, padded(number(8, 66000))),
		"Anchor of 31 bytes":      with(t, good, 9, text(9, string(c.Anchor[:31]))),
		"Anchor of 33 bytes":      with(t, good, 9, text(9, string(c.Anchor[:])+"x")),
		"Anchor all 0":            with(t, good, 9, text(9, string(make([]byte, 32)))),
		"Anchor empty":            with(t, good, 9, text(9, "")),
		"Anchor twice":            with(t, good, 9, text(9, string(c.Anchor[:])), text(9, string(c.Anchor[:]))),
	}
	v := proof.NewVerifier()
	if _, err := v.Verify(seal(t, key, good), ports.Tick{Seq: c.Seq, Link: c.Anchor}); err != nil {
		t.Fatalf("what all of them are made from: %v", err)
	}
	for name, payload := range cases {
		if bytes.Equal(payload, good) {
			t.Errorf("%s: it is what it was", name)
		}
		record := seal(t, key, payload)
		if _, err := v.Read(record); faultOf(t, err) != ports.FaultPayload {
			t.Errorf("%s: %v, want the fault %s", name, err, ports.FaultPayload)
		}
		if _, err := v.Verify(record, ports.Tick{Seq: c.Seq, Link: c.Anchor}); faultOf(t, err) != ports.FaultPayload {
			t.Errorf("%s, with a tick: %v, want the fault %s", name, err, ports.FaultPayload)
		}
	}
	t.Logf("%d payloads of another form, none taken", len(cases))
}

// What is at a bound is within it.
func TestTheLargestClaims(t *testing.T) {
	key := keyOf(t, 0)
	largest := claimOf(t, key)
	largest.Seq, largest.Start, largest.Interval, largest.TTL = proof.MaxSeq, 1<<64-1, ports.MaxInterval, ports.MaxInterval
	largest.Addrs = slices.Repeat([]string{strings.Repeat("a", ports.MaxAddrBytes)}, ports.MaxAddrs)
	largest.Meta = map[string]string{"": "", "a": strings.Repeat("é", ports.MaxMetaBytes/2)}
	for name, c := range map[string]ports.Claim{
		"largest":         largest,
		"smallest":        {PeerID: largest.PeerID, Seq: 1, TTL: time.Millisecond},
		"a name of none":  {PeerID: largest.PeerID, Seq: 1, TTL: time.Millisecond, Meta: map[string]string{"": ""}},
		"the vectors'":    claimOf(t, key),
		"a leave with it": {PeerID: largest.PeerID, Seq: 1, TTL: time.Millisecond, Start: 7, Meta: map[string]string{"why": "update"}},
	} {
		record := sign(t, key, c)
		got, err := proof.NewVerifier().Verify(record, ports.Tick{Seq: c.Seq, Link: c.Anchor})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(c, *got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		t.Logf("%s: a record of %d bytes", name, len(record))
	}
}

// someClaim draws what key may sign.
func someClaim(t *rapid.T, self ports.PeerID) ports.Claim {
	words := rapid.StringN(0, 12, 40)
	ms := func(name string, least int64) time.Duration {
		return time.Duration(rapid.Int64Range(least, ports.MaxInterval.Milliseconds()).Draw(t, name)) * time.Millisecond
	}
	c := ports.Claim{
		PeerID: self, Seq: rapid.Int64Range(1, proof.MaxSeq).Draw(t, "Seq"), Start: rapid.Uint64().Draw(t, "Start"), TTL: ms("TTL", 1),
	}
	if addrs := rapid.SliceOfN(rapid.StringN(1, 20, 60), 0, ports.MaxAddrs).Draw(t, "Addrs"); len(addrs) > 0 {
		c.Addrs = addrs
	}
	if meta := rapid.MapOfN(words, words, 0, 6).Draw(t, "Meta"); len(meta) > 0 {
		c.Meta = meta
	}
	if rapid.Bool().Draw(t, "chain") {
		c.Interval = ms("Interval", 1)
		binary.BigEndian.PutUint64(c.Anchor[rapid.IntRange(0, 24).Draw(t, "at"):], rapid.Uint64Range(1, 1<<64-1).Draw(t, "Anchor"))
	}
	return c
}

func TestWhatIsSignedReadsBackAndNothingElse(t *testing.T) {
	key := keyOf(t, 0)
	self := idOf(t, key)
	records, changed := 0, map[ports.Fault]int{}
	rapid.Check(t, func(rt *rapid.T) {
		c := someClaim(rt, self)
		record := sign(t, key, c)
		if again := sign(t, key, c); !bytes.Equal(again, record) {
			rt.Fatalf("signed twice, it is %x and %x", record, again)
		}
		tick := ports.Tick{Seq: c.Seq, Link: c.Anchor}
		v := proof.NewVerifier()
		got, err := v.Verify(record, tick)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(c, *got); diff != "" {
			rt.Fatal(diff)
		}
		records++
		for range 20 {
			at := rapid.IntRange(0, len(record)-1).Draw(rt, "at")
			other := bytes.Clone(record)
			other[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "by"))
			_, err := v.Verify(other, tick)
			if err == nil {
				rt.Fatalf("taken with byte %d changed: %x", at, other)
			}
			changed[faultOf(t, err)]++
		}
	})
	t.Logf("%d claims signed and read back; with one byte changed, refused as %s", records, fmt.Sprint(changed))
}

// Each byte of one record.
func TestEveryChangeOfAByteIsRefused(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	record := sign(t, key, c)
	tick := ports.Tick{Seq: c.Seq, Link: c.Anchor}
	v := proof.NewVerifier()
	faults, cut := map[ports.Fault]int{}, 0
	for at := range record {
		for _, by := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			other := bytes.Clone(record)
			other[at] ^= by
			_, err := v.Verify(other, tick)
			if err == nil {
				t.Fatalf("taken with byte %d of %d changed by %x", at, len(record), by)
			}
			faults[faultOf(t, err)]++
		}
		if _, err := v.Verify(record[:at], tick); err == nil {
			t.Fatalf("taken when cut to %d bytes", at)
		}
		cut++
	}
	if _, err := v.Verify(record, tick); err != nil {
		t.Fatal(err)
	}
	t.Logf("of %d bytes, refused as %v, and %d cut short", len(record), faults, cut)
}
