package proof_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"go.uber.org/goleak"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyOf returns the key whose seed is the bytes from first on.
func keyOf(t testing.TB, first byte) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(bytes.NewReader(from(first)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// from returns 32 bytes, each one more than that before it.
func from(first byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func idOf(t testing.TB, key crypto.PrivKey) ports.PeerID {
	t.Helper()
	id, err := peer.IDFromPublicKey(key.GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return ports.PeerID(id.String())
}

// chainOf returns the chain of secret, the anchor first, made as docs/protocol.md says and
// not as the code does.
func chainOf(secret []byte, steps int) []ports.Link {
	chain := []ports.Link{ports.Link(secret)}
	for range steps {
		last := chain[len(chain)-1]
		chain = append(chain, sha256.Sum256(append([]byte("ocnode-tick-1:"), last[:]...)))
	}
	slices.Reverse(chain)
	return chain
}

// An indexer, its chain, and what it claims: those of the vectors.
const steps = 63

var issued = time.Date(2026, 3, 1, 10, 0, 0, 5e8, time.UTC)

func chain() []ports.Link { return chainOf(from(0x20), steps) }

func claimOf(t testing.TB, key crypto.PrivKey) ports.Claim {
	return ports.Claim{
		PeerID: idOf(t, key), Addrs: []string{"/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/udp/4001/quic-v1"}, Meta: map[string]string{"zone": "eu-1"},
		Seq: issued.UnixMilli(), Start: 0x0123456789abcdef, Interval: 57 * time.Second, TTL: 66 * time.Second, Anchor: chain()[0],
	}
}

func sign(t testing.TB, key crypto.PrivKey, c ports.Claim) []byte {
	t.Helper()
	sealed, err := signer(t, key, "").Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func signer(t testing.TB, key crypto.PrivKey, dir string) *proof.Signer {
	t.Helper()
	s, err := proof.NewSigner(key, dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed is anything that can be put into an envelope.
type sealed struct {
	domain, kind string
	payload      []byte
}

func (s sealed) Domain() string                 { return s.domain }
func (s sealed) Codec() []byte                  { return []byte(s.kind) }
func (s sealed) MarshalRecord() ([]byte, error) { return s.payload, nil }
func (sealed) UnmarshalRecord([]byte) error     { return nil }

// seal returns payload in an envelope as records have it, sound but for what it says.
func seal(t testing.TB, key crypto.PrivKey, payload []byte) []byte {
	t.Helper()
	return sealAs(t, key, sealed{proof.Domain, proof.PayloadType, payload})
}

func sealAs(t testing.TB, key crypto.PrivKey, s sealed) []byte {
	t.Helper()
	e, err := record.Seal(s, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func payloadOf(t testing.TB, c ports.Claim) []byte {
	t.Helper()
	b, err := proof.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// faultOf returns the fault of err, "" if there is none.
func faultOf(t testing.TB, err error) ports.Fault {
	t.Helper()
	if err == nil {
		return ""
	}
	fault, ok := errors.AsType[*ports.ProofError](err)
	if !ok {
		t.Fatalf("%v is no *ports.ProofError", err)
	}
	return fault.Fault
}
