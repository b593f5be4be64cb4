package proof_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/record"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// The table keeps the claim and the signature of a record, and nothing of its form.
func TestARecordIsMadeAnewFromItsClaimAndSignature(t *testing.T) {
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vectors vectorSet
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	v := proof.NewVerifier()
	records := map[string][]byte{}
	for _, r := range vectors.Records {
		if records[r.Name], err = base64.StdEncoding.DecodeString(r.Record); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range vectors.Checks {
		if c.Fault == "" {
			if records["check "+c.Name], err = base64.StdEncoding.DecodeString(c.Record); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A payload whose length takes two bytes, and three.
	key := keyOf(t, 0x40)
	for name, addr := range map[string]string{"127 bytes or more": strings.Repeat("a", 100), "the longest": strings.Repeat("a", ports.MaxFrameBytes-250)} {
		c := claimOf(t, key)
		c.Addrs = []string{addr}
		records[name] = sign(t, key, c)
	}
	for name, sealed := range records {
		c, err := v.Read(sealed)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, err := record.UnmarshalEnvelope(sealed)
		if err != nil {
			t.Fatal(err)
		}
		signature, ok := v.Signature(sealed)
		if !ok || !bytes.HasSuffix(sealed, signature[:]) {
			t.Errorf("%s: the signature of %x is %x, %t", name, sealed, signature, ok)
		}
		again, err := v.Record(c, signature)
		if err != nil || !bytes.Equal(again, sealed) {
			t.Errorf("%s: made anew it is\n%x, %v, want\n%x", name, again, err, sealed)
		}
		if _, err := v.Verify(again, ports.Tick{Seq: c.Seq, Link: c.Anchor}); err != nil || !bytes.Contains(again, e.RawPayload) {
			t.Errorf("%s: made anew it is no sound record: %v", name, err)
		}
	}
}

func TestARecordOfAnotherKeyIsNotMade(t *testing.T) {
	for name, id := range map[string]ports.PeerID{
		"none": "", "no PeerID": "indexer", "an RSA key": "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n",
		"a secp256k1 key": "16Uiu2HAmQXZNNaBpn4ZGuhVsBNDuJEYvRdHpZ2yXz4XmDd8Pe5Ms",
	} {
		c := claimOf(t, keyOf(t, 0))
		c.PeerID = id
		if b, err := proof.NewVerifier().Record(&c, [ports.SignatureBytes]byte{}); err == nil {
			t.Errorf("%s: it is %x", name, b)
		}
	}
}

// A record in any other form has no signature that the record could be made anew with.
func TestOnlyTheOneFormHasASignature(t *testing.T) {
	key := keyOf(t, 0)
	good := sign(t, key, claimOf(t, key))
	v := proof.NewVerifier()
	if _, ok := v.Signature(good); !ok {
		t.Fatal("the good record has none")
	}
	for cut := range good {
		if s, ok := v.Signature(good[:cut]); ok {
			t.Fatalf("cut to %d bytes it has %x", cut, s)
		}
	}
	fields := split(t, good)
	long := append([]byte{fields[2].raw[0]}, fields[2].raw[1]|0x80, 0x80, 0x00)
	for name, b := range map[string][]byte{
		"a byte behind it":          append(bytes.Clone(good), 0),
		"fields in another order":   join([]field{fields[1], fields[0], fields[2], fields[3]}),
		"an unknown field":          append(bytes.Clone(good), number(7, 1)...),
		"a long form of the length": bytes.Join([][]byte{fields[0].raw, fields[1].raw, long, fields[2].raw[2:], fields[3].raw}, nil),
		"no payload":                join([]field{fields[0], fields[1], fields[3]}),
		"another payload type":      sealAs(t, key, sealed{proof.Domain, "/ocnode/record/2", []byte("x")}),
	} {
		if s, ok := v.Signature(b); ok {
			t.Errorf("%s: it has %x", name, s)
		}
	}
}
