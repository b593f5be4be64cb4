package proof_test

import (
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// FuzzRead reads what it is given as a record, and as the payload of one that is soundly
// sealed, where nearly all of what is random would never come.
func FuzzRead(f *testing.F) {
	key := keyOf(f, 0)
	c := claimOf(f, key)
	good, payload := sign(f, key, c), payloadOf(f, c)
	leave := c
	leave.Addrs, leave.Interval, leave.Anchor = nil, 0, ports.Link{}
	byANative := with(f, payload, 2, text(2, string(split(f, payload)[0].raw[2:])))
	for _, b := range [][]byte{
		good, payload, sign(f, key, leave), payloadOf(f, leave), seal(f, key, byANative), byANative, nil,
		good[:len(good)-1], payload[:len(payload)-1], append(bytes.Clone(good), 0), append(bytes.Clone(payload), 0),
		with(f, payload, 4, pair(), pair()), with(f, payload, 4, pair(text(2, "1"), text(1, "a"))), with(f, payload, 3, text(3, "\xff")),
		with(f, payload, 5, number(5, 1<<63)), with(f, payload, 3, bytes.Repeat(text(3, "a"), 9)), bytes.Repeat([]byte{0x22, 0}, ports.MaxFrameBytes/2),
		bytes.Repeat([]byte{3<<3 | 3}, 1000), {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, {0x0a, 0x04, 0x08, 0x00, 0x12, 0x00}, bytes.Repeat([]byte{0xff}, 20),
	} {
		f.Add(b)
	}
	v := proof.NewVerifier()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, sealed := range [][]byte{b, seal(t, key, b)} {
			c, err := v.Read(sealed)
			if err != nil {
				if faultOf(t, err) == "" || c != nil {
					t.Fatalf("%+v and %v", c, err)
				}
				continue
			}
			e, err := record.UnmarshalEnvelope(sealed)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := e.Marshal(); err != nil || !bytes.Equal(again, sealed) {
				t.Fatalf("the envelope %x is %x when it is written again (%v)", sealed, again, err)
			}
			if again := payloadOf(t, *c); !bytes.Equal(again, e.RawPayload) {
				t.Fatalf("the payload %x is %x when it is written again", e.RawPayload, again)
			}
			if c.PeerID == "" || c.Seq < 1 || c.TTL < 1 || len(c.Addrs) > ports.MaxAddrs || c.Interval > ports.MaxInterval || c.TTL > ports.MaxInterval {
				t.Fatalf("%+v is no claim", c)
			}
		}
	})
}
