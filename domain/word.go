package domain

import (
	"maps"
	"slices"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// source says by which way a word came to this native.
type source uint8

const (
	stored  source = iota // the store has it, by the clock of the node that put it there
	told                  // its native tells it, with the time that remains
	granted               // this native granted it, or took it, from the indexer itself
)

func (s source) public() ports.Source {
	return [...]ports.Source{ports.SourceStore, ports.SourceNative, ports.SourceOwn}[s]
}

// word is a statement about an indexer: its lease, or its leave. In a signed word addr, details
// and expiresAt are the proof's.
//
// The word ends here at its deadline. Other peers get expiresAt and seenAt, in Unix nanoseconds:
// so the same lease, put twice, is the same value in the store.
type word struct {
	addr      string
	details   *details // nil for one address and no metadata
	native    unique.Handle[ports.PeerID]
	deadline  Instant
	expiresAt int64
	seenAt    int64 // 0 if the word does not say
	source    source
	leave     bool
	// overdue is a lease whose indexer has hung up: it is late before its time.
	overdue  bool
	unproven bool         // a lease of an indexer that signs; its proof does not count by this clock
	proof    *ports.Proof // with its Claim; nil if the indexer has not signed
	// early is the proof of an unproven lease that this native granted. Natives that watch this native
	// judge it by their own clocks.
	early *ports.Proof
}

// details are apart from a word since most entries have none.
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

// live reports whether the word has not ended. A word ends at its deadline.
func (w *word) live(at Instant) bool { return at.Before(w.deadline) }

// same reports whether two words give the indexer the same addresses and metadata.
func (w *word) same(o *word) bool { return w.addr == o.addr && w.details.equal(o.details) }

// version tells how new the word is, by the fields that every peer can read.
func (w *word) version() ports.Version {
	v := ports.Version{ExpiresAt: time.Unix(0, w.expiresAt), Leave: w.leave}
	if w.proof != nil {
		v.Seq, v.Step = w.proof.Claim.Seq, w.proof.Tick.Step
	}
	return v
}

// entry returns the word as an entry of id.
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

// setLeave makes w the leave that proof proves. The leave lasts for remaining, at most RecordLife:
// by then every earlier record has ended. It lasts at least until its own record ends.
func (w *word) setLeave(proof *ports.Proof, remaining time.Duration, now moment) {
	w.addr, w.details, w.proof = "", nil, proof
	w.expiresAt = proof.Claim.ExpiresAt(0).UnixNano()
	w.deadline = now.at.Add(max(min(remaining, ports.RecordLife), proof.Claim.Ends().Sub(now.wall)))
}
