package domain

import (
	"maps"
	"slices"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// source says how a native came by a word.
type source uint8

const (
	stored  source = iota // the store has it, with the clock of the node that put it there
	told                  // the native that granted it tells it, with what is left of it
	granted               // this native has granted it, or taken it, from the indexer itself
)

func (s source) public() ports.Source {
	return [...]ports.Source{ports.SourceStore, ports.SourceNative, ports.SourceOwn}[s]
}

// word is what somebody says of an indexer: that it has a lease, or that it has left. If the
// indexer has signed it, addr, details and expiresAt are what the proof says.
//
// deadline decides when the word ends here. expiresAt and seenAt are what others are told, in
// Unix nanoseconds: the same lease that is put twice is the same record.
type word struct {
	addr      string
	details   *details // nil for one address and no metadata
	native    unique.Handle[ports.PeerID]
	deadline  Instant
	expiresAt int64
	seenAt    int64 // 0 if the word does not say
	source    source
	leave     bool
	unproven  bool         // granted to an indexer that signs, whose record does not count by this clock
	proof     *ports.Proof // with its Claim; nil if the indexer has not signed
}

// details is what most entries do without.
type details struct {
	addrs []string
	meta  map[string]string
}

func detailsOf(addrs []string, meta map[string]string) *details {
	if len(addrs) <= 1 && len(meta) == 0 {
		return nil // Addrs[0] is Addr
	}
	return &details{addrs, meta}
}

func (d *details) equal(e *details) bool {
	if d == nil || e == nil {
		return d == e
	}
	return d == e || slices.Equal(d.addrs, e.addrs) && maps.Equal(d.meta, e.meta)
}

// live reports whether the word has not ended at now.
func (w *word) live(at Instant) bool { return at.Before(w.deadline) }

// same reports whether two words give the indexer the same addresses and metadata.
func (w *word) same(o *word) bool { return w.addr == o.addr && w.details.equal(o.details) }

// version tells how new the word is, by what everybody can read of it.
func (w *word) version() ports.Version {
	v := ports.Version{ExpiresAt: time.Unix(0, w.expiresAt), Leave: w.leave}
	if w.proof != nil {
		v.Seq, v.Step = w.proof.Claim.Seq, w.proof.Tick.Step
	}
	return v
}

// entry returns what the word says of id.
func (w *word) entry(id ports.PeerID) Entry {
	e := Entry{PeerID: id, Addr: w.addr, Native: w.native.Value(), ExpiresAt: time.Unix(0, w.expiresAt).UTC(), Leave: w.leave, Proof: w.proof}
	if w.seenAt != 0 {
		e.SeenAt = time.Unix(0, w.seenAt).UTC()
	}
	if w.details != nil {
		e.Addrs, e.Meta = w.details.addrs, w.details.meta
	}
	if len(e.Addrs) == 0 && w.addr != "" {
		e.Addrs = []string{w.addr}
	}
	return e
}

// setLeave makes w the leave that proof proves, with so much left of it. It holds for as long as
// any record that was issued before it counts, at least until its own ends.
func (w *word) setLeave(proof *ports.Proof, remaining time.Duration, now moment) {
	w.addr, w.details, w.proof = "", nil, proof
	w.expiresAt = proof.Claim.ExpiresAt(0).UnixNano()
	w.deadline = now.at.Add(max(min(remaining, ports.RecordLife), proof.Claim.Ends().Sub(now.wall)))
}
