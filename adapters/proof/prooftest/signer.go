// Package prooftest makes, for tests, what proves an entry, and what only looks as if it did.
package prooftest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/ports"
)

// Signer is an identity that signs, and keeps its numbers in memory.
type Signer struct {
	*proof.Signer
	PeerID ports.PeerID
	key    crypto.PrivKey
}

// NewSigner returns one with a new key.
func NewSigner(t testing.TB) *Signer {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return SignerOf(t, key)
}

// SignerOf returns the identity of key.
func SignerOf(t testing.TB, key crypto.PrivKey) *Signer {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := proof.NewSigner(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{s, ports.PeerID(id.String()), key}
}

// NewSigners returns n of them.
func NewSigners(t testing.TB, n int) []*Signer {
	t.Helper()
	all := make([]*Signer, n)
	for i := range all {
		all[i] = NewSigner(t)
	}
	return all
}

const (
	// TTL and Interval are those of the records that are made here.
	TTL      = 66 * time.Second
	Interval = 57 * time.Second
	// Steps is how many there are in an hour.
	Steps = 63
)

// Word is a record with the chain behind it.
type Word struct {
	Claim  ports.Claim
	Record []byte
	Chain  []ports.Link
}

// Says returns s's word, issued at at, that it is reached at addr.
func (s *Signer) Says(t testing.TB, at time.Time, start uint64, addr string) Word {
	t.Helper()
	chain := s.Chain(Steps)
	return s.Word(t, ports.Claim{
		PeerID: s.PeerID, Addrs: []string{addr}, Seq: at.UnixMilli(), Start: start,
		Interval: Interval, TTL: TTL, Anchor: chain[0],
	}, chain)
}

// Leaves returns s's word, issued at at, that it leaves.
func (s *Signer) Leaves(t testing.TB, at time.Time, start uint64) []byte {
	t.Helper()
	return s.Word(t, ports.Claim{PeerID: s.PeerID, Seq: at.UnixMilli(), Start: start, TTL: TTL}, nil).Record
}

// Word has s sign c.
func (s *Signer) Word(t testing.TB, c ports.Claim, chain []ports.Link) Word {
	t.Helper()
	record, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return Word{c, record, chain}
}

// Proof returns what w proves at a step, unread.
func (w Word) Proof(step uint32) *ports.Proof {
	p := &ports.Proof{Record: w.Record, Tick: ports.Tick{Seq: w.Claim.Seq, Step: step}}
	if w.Chain != nil {
		p.Tick.Link = w.Chain[step]
	}
	return p
}

// Entry returns the entry that w proves at a step, its proof unread.
func (w Word) Entry(step uint32) ports.Entry {
	read := ports.Proof{Tick: ports.Tick{Step: step}, Claim: &w.Claim}
	e := read.Entry()
	e.Proof = w.Proof(step)
	return e
}

// Registration returns the registration that w proves at a step.
func (w Word) Registration(step uint32) ports.Registration {
	return ports.Registration{PeerID: w.Claim.PeerID, Addr: w.Claim.Addrs[0], Addrs: w.Claim.Addrs, Meta: w.Claim.Meta, Proof: w.Proof(step)}
}

// Twin returns a signer with the same key, which knows nothing of what s has signed.
func (s *Signer) Twin(t testing.TB) *Signer { return SignerOf(t, s.key) }
