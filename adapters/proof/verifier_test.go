package proof_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"io"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

func TestAnEnvelopeHasOneForm(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	good := sign(t, key, c)
	fields := split(t, good)
	if len(fields) != 4 {
		t.Fatalf("an envelope of %d fields", len(fields))
	}
	// The key stands in a message of its own: a type and 32 bytes.
	public, n := protowire.ConsumeBytes(fields[0].raw[1:])
	if n < 0 || len(public) != 2+2+32 {
		t.Fatalf("the key is %x", public)
	}
	keyAs := func(message ...[]byte) []byte {
		return append(text(1, string(bytes.Join(message, nil))), join(fields[1:])...)
	}
	if !bytes.Equal(keyAs(public), good) {
		t.Fatal("the envelope made anew is another")
	}
	large := claimOf(t, key)
	large.Addrs = []string{string(bytes.Repeat([]byte("a"), ports.MaxFrameBytes))}
	for name, e := range map[string]struct {
		record []byte
		want   ports.Fault
	}{
		"nothing":                      {nil, ports.FaultEnvelope},
		"text":                         {[]byte("record"), ports.FaultEnvelope},
		"all 0":                        {make([]byte, 300), ports.FaultEnvelope},
		"larger than a frame":          {sign(t, key, large), ports.FaultSize},
		"fields in another order":      {join([]field{fields[1], fields[0], fields[2], fields[3]}), ports.FaultEnvelope},
		"an unknown field":             {append(bytes.Clone(good), number(7, 1)...), ports.FaultEnvelope},
		"the signature twice":          {append(bytes.Clone(good), fields[3].raw...), ports.FaultEnvelope},
		"bytes behind it":              {append(bytes.Clone(good), 0), ports.FaultEnvelope},
		"a length that is not minimal": {append([]byte{1<<3 | 2, 36 | 0x80, 0}, good[2:]...), ports.FaultEnvelope},
		"no key":                       {join(fields[1:]), ports.FaultEnvelope},
		"a key of 31 bytes":            {keyAs([]byte{8, 1, 0x12, 31}, public[4:35]), ports.FaultEnvelope},
		"a key of 33 bytes":            {keyAs([]byte{8, 1, 0x12, 33}, public[4:], []byte{0}), ports.FaultEnvelope},
		"a key of an unknown type":     {keyAs([]byte{8, 9}, public[2:]), ports.FaultEnvelope},
		"a key before its type":        {keyAs(public[2:], public[:2]), ports.FaultEnvelope},
		"a key with more in it":        {keyAs(public, number(3, 1)), ports.FaultEnvelope},
		"no payload type":              {join([]field{fields[0], fields[2], fields[3]}), ports.FaultType},
		"no payload":                   {join([]field{fields[0], fields[1], fields[3]}), ports.FaultPayload},
		"no signature":                 {join(fields[:3]), ports.FaultSignature},
		"a signature of 63 bytes":      {append(join(fields[:3]), text(5, string(fields[3].raw[2:65]))...), ports.FaultSignature},
		"a signature of 0":             {append(join(fields[:3]), text(5, string(make([]byte, 64)))...), ports.FaultSignature},
	} {
		if _, err := proof.NewVerifier().Verify(e.record, ports.Tick{Seq: c.Seq, Link: c.Anchor}); faultOf(t, err) != e.want {
			t.Errorf("%s: %v, want the fault %s", name, err, e.want)
		}
	}
}

// The order of an Ed25519 group: a signature whose second half is larger by it is the same
// equation, and would be a second record with the same signature.
var order = [32]byte{
	0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
}

func TestASignatureHasOneForm(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	record := sign(t, key, c)
	s := record[len(record)-32:]
	carry := 0
	for i := range s {
		sum := int(s[i]) + int(order[i]) + carry
		s[i], carry = byte(sum), sum>>8
	}
	if _, err := proof.NewVerifier().Verify(record, ports.Tick{Seq: c.Seq, Link: c.Anchor}); faultOf(t, err) != ports.FaultSignature {
		t.Errorf("got %v, want the fault %s", err, ports.FaultSignature)
	}
}

// Anybody can make a second form of a signature by these keys. So they sign no records: one record
// would have two byte forms, and the DHT would hold one or the other.
func TestASignatureByAnotherCurveHasTwoForms(t *testing.T) {
	p256 := elliptic.P256().Params().N
	secp256k1, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	for name, curve := range map[string]struct {
		generate func(io.Reader) (crypto.PrivKey, crypto.PubKey, error)
		order    *big.Int
	}{"ECDSA": {crypto.GenerateECDSAKeyPair, p256}, "secp256k1": {crypto.GenerateSecp256k1Key, secp256k1}} {
		key, public, err := curve.generate(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("a record")
		first, err := key.Sign(message)
		if err != nil {
			t.Fatal(err)
		}
		var s struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(first, &s); err != nil {
			t.Fatal(err)
		}
		s.S.Sub(curve.order, s.S)
		second, err := asn1.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := public.Verify(message, second); !ok || bytes.Equal(first, second) {
			t.Errorf("%s: the second form is refused (%v): these keys may sign, too", name, err)
		}
	}
}

func TestOnlyEd25519Signs(t *testing.T) {
	for name, generate := range map[string]func() (crypto.PrivKey, crypto.PubKey, error){
		"RSA":       func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateRSAKeyPair(2048, rand.Reader) },
		"secp256k1": func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateSecp256k1Key(rand.Reader) },
		"ECDSA":     func() (crypto.PrivKey, crypto.PubKey, error) { return crypto.GenerateECDSAKeyPair(rand.Reader) },
	} {
		key, _, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		c := claimOf(t, key)
		if _, err := proof.NewVerifier().Verify(sign(t, key, c), ports.Tick{Seq: c.Seq, Link: c.Anchor}); faultOf(t, err) != ports.FaultType {
			t.Errorf("%s: %v, want the fault %s", name, err, ports.FaultType)
		}
	}
}

func TestWhoMaySign(t *testing.T) {
	key, other := keyOf(t, 0), keyOf(t, 100)
	self := idOf(t, key)
	claim := ports.Claim{PeerID: self, Addrs: []string{"/ip4/203.0.113.7/tcp/4001"}, Seq: 1, TTL: time.Minute}
	for name, c := range map[string]struct {
		key  crypto.PrivKey
		want ports.Fault
	}{
		"the indexer": {key, ""},
		"another":     {other, ports.FaultSigner},
	} {
		record := sign(t, c.key, claim)
		got, err := proof.NewVerifier().Verify(record, ports.Tick{Seq: 1})
		if faultOf(t, err) != c.want || err == nil && got.PeerID != self {
			t.Errorf("%s: %v, %v, want the fault %q", name, got, err, c.want)
		}
	}
}

func TestASignatureIsForRecordsAlone(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	payload, tick := payloadOf(t, c), ports.Tick{Seq: c.Seq, Link: c.Anchor}
	for name, e := range map[string]struct {
		sealed
		want ports.Fault
	}{
		"as it is":            {sealed{proof.Domain, proof.PayloadType, payload}, ""},
		"another domain":      {sealed{"libp2p-peer-record", proof.PayloadType, payload}, ports.FaultSignature},
		"a longer domain":     {sealed{proof.Domain + "s", proof.PayloadType, payload}, ports.FaultSignature},
		"another type":        {sealed{proof.Domain, "/ocnode/record/2", payload}, ports.FaultType},
		"a peer record":       {sealed{"libp2p-peer-record", "\x03\x01", payload}, ports.FaultType},
		"moved into the type": {sealed{proof.Domain[:6], proof.Domain[6:] + proof.PayloadType, payload}, ports.FaultType},
	} {
		if _, err := proof.NewVerifier().Verify(sealAs(t, key, e.sealed), tick); faultOf(t, err) != e.want {
			t.Errorf("%s: %v, want the fault %q", name, err, e.want)
		}
	}
}

func TestATickIsOnItsRecordsChain(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	const steps = ports.MaxSteps + 2 // more than any record may have
	chain := chainOf(from(0x20), steps)
	c.Anchor = chain[0]
	record := sign(t, key, c)
	flat := c
	flat.Interval, flat.Anchor = 0, ports.Link{}
	unchained := sign(t, key, flat)
	at := func(step uint32, link ports.Link) ports.Tick { return ports.Tick{Seq: c.Seq, Step: step, Link: link} }
	another := chainOf(from(0x40), steps)

	for name, e := range map[string]struct {
		record []byte
		tick   ports.Tick
		want   ports.Fault
	}{
		"the anchor":                   {record, at(0, chain[0]), ""},
		"a step":                       {record, at(1, chain[1]), ""},
		"some steps on":                {record, at(60, chain[60]), ""},
		"the last that there may be":   {record, at(ports.MaxSteps, chain[ports.MaxSteps]), ""},
		"one beyond that":              {record, at(ports.MaxSteps+1, chain[ports.MaxSteps+1]), ports.FaultTick},
		"the highest number":           {record, at(1<<32-1, chain[60]), ports.FaultTick},
		"an anchor that is another":    {record, at(0, chain[1]), ports.FaultTick},
		"an anchor of 0":               {record, at(0, ports.Link{}), ports.FaultTick},
		"the link before":              {record, at(5, chain[4]), ports.FaultTick},
		"the link after":               {record, at(5, chain[6]), ports.FaultTick},
		"of another chain":             {record, at(5, another[5]), ports.FaultTick},
		"of another record":            {record, ports.Tick{Seq: c.Seq + 1, Step: 5, Link: chain[5]}, ports.FaultTick},
		"none at all":                  {record, ports.Tick{}, ports.FaultTick},
		"no chain, and none is needed": {unchained, at(0, ports.Link{}), ""},
		"no chain, and a link":         {unchained, at(0, chain[0]), ports.FaultTick},
		"no chain, and a step":         {unchained, at(1, chain[1]), ports.FaultTick},
	} {
		if _, err := proof.NewVerifier().Verify(e.record, e.tick); faultOf(t, err) != e.want {
			t.Errorf("%s: %v, want the fault %q", name, err, e.want)
		}
		// What the verifier has seen of the chain makes no difference.
		for _, first := range []uint32{0, 4, 5, 6, 100} {
			v := proof.NewVerifier()
			if _, err := v.Verify(record, at(first, chain[first])); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(e.record, e.tick); faultOf(t, err) != e.want {
				t.Errorf("%s, after step %d: %v, want the fault %q", name, first, err, e.want)
			}
			if _, err := v.Verify(record, at(first, chain[first])); err != nil {
				t.Errorf("%s: step %d no more: %v", name, first, err)
			}
		}
	}
}

func TestFollows(t *testing.T) {
	chain := chainOf(from(0x20), ports.MaxSteps+1)
	v := proof.NewVerifier()
	for _, c := range []struct {
		from, to, steps uint32
		want            bool
	}{
		{0, 1, 1, true}, {7, 10, 3, true}, {0, ports.MaxSteps, ports.MaxSteps, true}, {1, ports.MaxSteps + 1, ports.MaxSteps, true},
		{0, 0, 0, false}, {0, 1, 0, false}, {0, 1, 2, false}, {0, 2, 1, false}, {1, 0, 1, false}, {0, ports.MaxSteps + 1, ports.MaxSteps + 1, false},
		{0, 1, 1<<32 - 1, false},
	} {
		if got := v.Follows(chain[c.from], chain[c.to], c.steps); got != c.want {
			t.Errorf("link %d follows link %d by %d: %t", c.to, c.from, c.steps, got)
		}
	}
}

// The chain is what a heartbeat must be cheap by.
func TestASignatureIsCheckedOnce(t *testing.T) {
	key := keyOf(t, 0)
	c := claimOf(t, key)
	chain := chain()
	record := sign(t, key, c)
	v := proof.NewVerifier()
	at := func(step uint32, link ports.Link) ports.Tick { return ports.Tick{Seq: c.Seq, Step: step, Link: link} }

	if _, err := v.Read(record); err != nil || v.Counts().Single != 0 {
		t.Errorf("to read it, %d signatures were checked (%v)", v.Counts().Single, err)
	}
	if _, err := v.Verify(record, ports.Tick{Seq: c.Seq + 1}); faultOf(t, err) != ports.FaultTick || v.Counts().Single != 0 {
		t.Errorf("for the tick of another record, %d signatures were checked (%v)", v.Counts().Single, err)
	}
	// The first tick that it comes with is wrong, and so is every one after it.
	for range 3 {
		if _, err := v.Verify(record, at(3, chain[4])); faultOf(t, err) != ports.FaultTick {
			t.Errorf("got %v, want the fault %s", err, ports.FaultTick)
		}
	}
	for step := range uint32(steps) {
		if _, err := v.Verify(record, at(step, chain[step])); err != nil {
			t.Error(err)
		}
	}
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for step := uint32(steps); step > 0; step-- {
				if _, err := v.Verify(record, at(step, chain[step])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	if n := v.Counts().Single; n != 1 {
		t.Errorf("the signature of one record was checked %d times", n)
	}
	// Bytes that differ are another record, whatever they say.
	forged := bytes.Clone(record)
	forged[len(forged)-1] ^= 1
	for range 2 {
		if _, err := v.Verify(forged, at(0, chain[0])); faultOf(t, err) != ports.FaultSignature {
			t.Errorf("got %v, want the fault %s", err, ports.FaultSignature)
		}
	}
	if v.Verified() != 1 {
		t.Errorf("%d records are remembered, and one is sound", v.Verified())
	}
}

// A forger makes nobody remember, and who signs much makes nobody remember without end.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	key := keyOf(t, 0)
	v := proof.NewVerifierOf(4)
	var records [][]byte
	for seq := range int64(6) {
		record := sign(t, key, ports.Claim{PeerID: idOf(t, key), Seq: 1 + seq, TTL: time.Second})
		if _, err := v.Verify(record, ports.Tick{Seq: 1 + seq}); err != nil {
			t.Fatal(err)
		}
		records = append(records, record)
	}
	if v.Verified() != 4 {
		t.Errorf("%d records are remembered, at most 4 may be", v.Verified())
	}
	before := v.Counts().Single
	for i := len(records) - 1; i >= 0; i-- {
		if _, err := v.Verify(records[i], ports.Tick{Seq: 1 + int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if again := v.Counts().Single - before; again != 2 {
		t.Errorf("%d signatures were checked again, want the 2 that were forgotten", again)
	}
	if proof.MaxVerified > 1<<13 {
		t.Errorf("%d records are remembered at most: that is much memory", proof.MaxVerified)
	}
}
