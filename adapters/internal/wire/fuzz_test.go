package wire_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// hostileProofs are members of an object that has a proof.
var hostileProofs = []string{
	recordMember, tickMember, recordMember + `,` + tickMember, `"Record":"",` + tickMember, `"Tick":{}`, `"Record":null,"Tick":null`, `"record":"AA=="`,
	`"Record":"AB=="`, `"Record":"AA"`, `"Record":"\u0041A=="`, `"Record":"A\nA=="`, `"Tick":{"Seq":1,"Step":4294967295,"step":-1,"X":[{}]}`, `"Tick":{"Seq":-1}`,
	`"Tick":{"Seq":1e3}`, `"Tick":{"Seq":1,"Seq":2}`, `"Tick":{"Step":1.0}`, `"Tick":{"Link":"AA=="}`, `"Tick":[` + linkText + `]`, `"Tick":{"Link":"` + linkText + `"}`,
}

// grown is how much longer a text may become when it is decoded and encoded
// again: a PeerID in a shorter spelling, and the Addr that the sender left out.
const grown = 64

func FuzzDecodeRegistration(f *testing.F) {
	for _, frame := range porttest.Frames(f, self, other, selfCID(f)) {
		f.Add(frame.Bytes)
	}
	for _, id := range []string{"1", "11", "111", "1I", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "k2k4r8", "z", "bafzaajaiaejca"} {
		f.Add([]byte(`{"PeerID":"` + id + `"}`))
	}
	f.Add([]byte(strings.Repeat(`{"a":`, 1000)))
	f.Add([]byte(`{"PeerID":"11","\u0041ddr":"\ud83d\uddfc","Meta":{"":""},"Addrs":["",null]}`))
	for _, members := range hostileProofs {
		f.Add([]byte(`{"PeerID":"` + string(self) + `","Addr":"a","Addrs":["a","b"],"Meta":{"k":"v"},` + members + `}`))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, err := wire.DecodeRegistration(frame, "")
		// Who the sender is makes no difference to what the frame says.
		for _, sender := range []ports.PeerID{self, other, r.PeerID} {
			of, errOf := wire.DecodeRegistration(frame, sender)
			if diff := cmp.Diff(r, of); diff != "" || (err == nil) != (errOf == nil) {
				t.Fatalf("from %s: %v, %v: %s", sender, err, errOf, diff)
			}
		}
		if err != nil {
			mustRefuse(t, err)
			return
		}
		mustBeWithinLimits(t, frame, r.Meta)
		if id, err := peer.Decode(string(r.PeerID)); err != nil || id.String() != string(r.PeerID) {
			t.Fatalf("PeerID %q is not canonical (%v)", r.PeerID, err)
		}
		line, err := wire.EncodeRegistration(r)
		if err != nil {
			mustOnlyHaveGrown(t, frame, err)
			return
		}
		again, err := wire.DecodeRegistration(bytes.TrimSuffix(line, []byte("\n")), "")
		if r.Proof != nil {
			r.Addrs, r.Meta = nil, nil // its record says them
		}
		mustBeSame(t, r, again, err)
	})
}

func FuzzDecodeEntry(f *testing.F) {
	for _, frame := range porttest.Frames(f, self, other, selfCID(f)) {
		f.Add(bytes.Replace(frame.Bytes, []byte("{"), []byte(`{"ExpiresAt":"2026-03-01T12:00:00.5+02:00",`), 1))
	}
	f.Add([]byte(`{"PeerID":"` + self + `","ExpiresAt":"0001-01-01T00:00:00.000000001Z","SeenAt":"9999-12-31T23:59:59Z","Native":"` + other + `"}`))
	f.Add([]byte(`{"PeerID":"` + self + `","ExpiresAt":"2026-03-01T12:00:00Z","Left":true}`))
	f.Add([]byte(`{"PeerID":"` + self + `","ExpiresAt":"2026-03-01T12:00:00Z","Addrs":[""]}`))
	f.Add([]byte(`{"PeerID":"` + self + `","Addr":"a","ExpiresAt":"2026-03-01T12:00:00Z","Addrs":["a"]}`))
	f.Add([]byte(`{"PeerID":"` + self + `","ExpiresAt":"2026-03-01T12:00:00Z","Left":false,"LEFT":true}`))
	for _, members := range hostileProofs {
		f.Add([]byte(`{"PeerID":"` + string(self) + `","Addr":"a","ExpiresAt":"2026-03-01T12:00:00Z","Meta":{"k":"v"},` + members + `}`))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := wire.DecodeEntry(value)
		if err != nil {
			mustRefuse(t, err)
			return
		}
		mustBeWithinLimits(t, value, e.Meta)
		if e.ExpiresAt.IsZero() {
			t.Fatal("an entry without a deadline")
		}
		encoded, err := wire.EncodeEntry(e)
		if err != nil {
			mustOnlyHaveGrown(t, value, err)
			return
		}
		again, err := wire.DecodeEntry(encoded)
		mustBeSame(t, e, again, err)
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	for _, s := range []string{
		`{"OK":true,"ExpiresAt":"2026-03-01T12:01:06Z","TTLSeconds":66,"HeartbeatSeconds":60,"Now":"2026-03-01T12:00:00Z"}`,
		`{"OK":false,"Error":{"Code":"peer_mismatch","Message":"é\ufffd"}}`, `{"OK":false}`, `{"OK":true}`, `null`, `{"OK":true,"ok":true}`,
		`{"OK":true,"NeedRecord":true,"Seq":1772359200500,"Rival":true}`, `{"OK":true,"Seq":-1}`, `{"OK":true,"Seq":4611686018427387904}`, `{"OK":true,"Seq":7,"seq":8}`,
		`{"OK":true,"TTLSeconds":1e999,"HeartbeatSeconds":-1e-999}`, `{"OK":true,"TTLSeconds":"NaN","Now":7,"ExpiresAt":"9999-12-31T23:59:59-23:59"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		lease, err := wire.DecodeAnswer(frame)
		if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
			if refusal.Code == "" {
				t.Fatal("a refusal without a code")
			}
			line, err := wire.EncodeRefusal(refusal)
			if err != nil {
				mustOnlyHaveGrown(t, frame, err)
				return
			}
			_, err = wire.DecodeAnswer(line)
			again, ok := errors.AsType[*ports.Refusal](err)
			if !ok || again.Code != refusal.Code || len(refusal.Message) < 1000 && again.Message != refusal.Message {
				t.Fatalf("%v became %v", refusal, err)
			}
			return
		}
		if err != nil {
			return
		}
		mustBeWithinLimits(t, frame, nil)
		again, err := wire.DecodeAnswer(wire.EncodeLease(lease))
		// A float64 of seconds is exact to the nanosecond for some weeks.
		mustBeSame(t, lease, again, err, cmp.Comparer(func(a, b time.Duration) bool {
			return math.Abs(float64(a)-float64(b)) <= math.Abs(float64(a))/(1<<50)
		}))
	})
}

func mustRefuse(t *testing.T, err error) {
	t.Helper()
	if c := code(t, err); c != ports.CodeMalformed && c != ports.CodeTooLarge {
		t.Fatalf("refused with %q, want malformed or too_large", c)
	}
}

func mustBeWithinLimits(t *testing.T, text []byte, meta map[string]string) {
	t.Helper()
	size := 0
	for name, value := range meta {
		size += len(name) + len(value)
	}
	if len(text) > ports.MaxFrameBytes || size > ports.MaxMetaBytes {
		t.Fatalf("accepted %d bytes with %d of metadata", len(text), size)
	}
}

func mustOnlyHaveGrown(t *testing.T, text []byte, err error) {
	t.Helper()
	if code(t, err) != ports.CodeTooLarge || len(text) < ports.MaxFrameBytes-grown {
		t.Fatalf("what decoded does not encode: %v", err)
	}
}

func mustBeSame(t *testing.T, want, got any, err error, opts ...cmp.Option) {
	t.Helper()
	if err != nil {
		t.Fatalf("what was encoded does not decode: %v", err)
	}
	if diff := cmp.Diff(want, got, opts...); diff != "" {
		t.Fatal(diff)
	}
}

func BenchmarkDecodeRegistration(b *testing.B) {
	line, err := wire.EncodeRegistration(ports.Registration{PeerID: self, Addr: "/ip4/127.0.0.1/tcp/4001"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	r := bytes.NewReader(nil)
	for b.Loop() {
		r.Reset(line)
		if _, err := readAndDecode(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeLease(b *testing.B) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	lease := ports.Lease{ExpiresAt: now.Add(66 * time.Second), TTL: 66 * time.Second, Heartbeat: time.Minute, Now: now}
	b.ReportAllocs()
	for b.Loop() {
		wire.EncodeLease(lease)
	}
}
