package domain

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Rules are the rules of a node of any role: its times, its clock, its trust in peers, and its
// proof of entries. They may be copied: no field changes.
type Rules struct {
	// Self is this node's own PeerID. A native writes it into every entry that it grants.
	Self   ports.PeerID
	Policy TTLPolicy
	// CheckAddr is the rule for one address of id. Its error says what is wrong with the
	// address. It is handed in since addresses are the transport's affair.
	CheckAddr func(id ports.PeerID, addr string) error
	// Clock is the time of day; nil is this node's own.
	Clock *Clock
	// Proofs checks the proofs of indexers. With nil a node neither checks nor believes them.
	Proofs ports.Verifier
	// Plain says whether this node believes entries without a signature. The registry calls it
	// for each entry, under locks: it must not block. nil is PlainAccept.
	Plain func() Plain
	// A node takes and lists the entries of Indexers alone, and takes the word of Natives
	// alone. After a change of either the caller calls Registry.Revise.
	Indexers, Natives Trust
}

// Plain says whether a node believes entries without a signature.
type Plain string

const (
	// PlainAccept takes plain registrations, and believes the plain entries of natives and of
	// the store.
	PlainAccept Plain = "accept"
	// PlainRefuse takes and believes signed entries only.
	PlainRefuse Plain = "refuse"
)

// Trust reports whether this node trusts a peer. The registry calls it at every heartbeat, under
// locks, since the answer may change: it must not block. A nil Trust trusts every peer.
type Trust func(ports.PeerID) bool

func (t Trust) in(id ports.PeerID) bool { return t == nil || t(id) }

var errUntrusted = errors.New("it is none of the indexers that this node trusts")

func (r Rules) wall() time.Time {
	if r.Clock != nil {
		return r.Clock.Now()
	}
	return time.Now().UTC().Round(0)
}

// ReadProof reads the claim of e's proof, if e has one, without checking it: enough to tell which
// of two entries is newer. The error is a *ports.ProofError. A Store compares entries by it.
func (r Rules) ReadProof(e *Entry) error {
	p := e.Proof
	if p == nil || p.Claim != nil {
		return nil
	}
	claim, err := r.read(p)
	if err != nil {
		return err
	}
	p.Claim = claim
	return nil
}

// read reads the claim of p. A record without a tick is at its anchor.
func (r Rules) read(p *ports.Proof) (*ports.Claim, error) {
	switch {
	case r.Proofs == nil:
		return nil, ports.Faulty(ports.FaultUntrusted, "this node checks no proofs")
	case p.Record == nil:
		return nil, ports.Faulty(ports.FaultIncomplete, "the tick's record is missing")
	}
	claim, err := r.Proofs.Read(p.Record)
	if err == nil && p.Tick == (ports.Tick{}) {
		p.Tick = ports.Tick{Seq: claim.Seq, Link: claim.Anchor}
	}
	return claim, err
}

// Acceptable returns why e may not be stored, nil if it may. A signed entry needs a valid proof. A
// plain entry's times pass the policy, and its addresses the rule. A leave needs no address.
// Acceptable copies into e the fields that only its proof has. An entry that may be stored may be
// too old to list: its proof counts for as long as its record. A Store takes this as its rule.
func (r Rules) Acceptable(e *Entry) error {
	if !r.Indexers.in(e.PeerID) {
		return errUntrusted
	}
	wall := r.wall()
	if e.Proof == nil {
		if err := r.Policy.Acceptable(e.ExpiresAt, wall); err != nil || e.Leave {
			return err
		}
		return r.checkAddrs(e.PeerID, e.Addr, e.Addrs)
	}
	if p := e.Proof; p.Claim == nil {
		if err := r.verify(p); err != nil {
			return err
		}
	}
	if err := proves(e); err != nil {
		return err
	}
	return r.timely(e.Proof, wall)
}

// verify checks p and sets its Claim.
func (r Rules) verify(p *ports.Proof) error {
	claim, err := r.read(p)
	if err != nil {
		return err
	}
	if err := r.sane(claim); err != nil {
		return err
	}
	if claim, err = r.Proofs.Verify(p.Record, p.Tick); err != nil {
		return err
	}
	p.Claim = claim
	return nil
}

// verifyAll is verify of each of the proofs, which must have Records. It returns the error of each.
func (r Rules) verifyAll(proofs []*ports.Proof) []error {
	for _, p := range proofs {
		if p.Tick == (ports.Tick{}) {
			_, _ = r.read(p) // it gives p the tick of its anchor; VerifyAll returns the error
		}
	}
	return r.Proofs.VerifyAll(proofs, r.sane)
}

// sane checks a record's claim against the bounds of a registration.
func (r Rules) sane(claim *ports.Claim) error {
	if claim.TTL > r.Policy.TTL {
		return ports.Faulty(ports.FaultPayload, "record's TTL is %v, and this network's %v: it ends later than a lease can", claim.TTL, r.Policy.TTL)
	}
	reg := ports.Registration{PeerID: claim.PeerID, Addrs: claim.Addrs, Meta: claim.Meta}
	if claim.Leave() {
		return nil
	}
	reg.Addr = claim.Addrs[0]
	if refusal := r.check(reg); refusal != nil {
		return ports.Faulty(ports.FaultAddress, "record of %s: %s", claim.PeerID, refusal.Message)
	}
	return nil
}

// check checks the metadata and the addresses of a registration against their bounds.
func (r Rules) check(reg ports.Registration) *ports.Refusal {
	if refusal := ports.CheckMeta(reg.Meta); refusal != nil {
		return refusal
	}
	if err := r.checkAddrs(reg.PeerID, reg.Addr, reg.Addrs); err != nil {
		return ports.Refuse(ports.CodeAddrInvalid, "%v", err)
	}
	return nil
}

func (r Rules) checkAddrs(id ports.PeerID, addr string, addrs []string) error {
	switch {
	case addr == "":
		return errors.New("the address is missing: send the one that others reach you at as Addr")
	case len(addrs) > 0 && addrs[0] != addr:
		return errors.New("the first of Addrs is not Addr")
	case len(addrs) > ports.MaxAddrs:
		return fmt.Errorf("%d addresses, at most %d are allowed", len(addrs), ports.MaxAddrs)
	case len(addrs) == 0:
		addrs = []string{addr}
	}
	for _, a := range addrs {
		if len(a) > ports.MaxAddrBytes {
			return fmt.Errorf("address has %d bytes, at most %d are allowed", len(a), ports.MaxAddrBytes)
		}
		if err := r.CheckAddr(id, a); err != nil {
			return err
		}
	}
	return nil
}

// proves returns an error unless e and its proof agree. It fills in the fields that e leaves out.
func proves(e *Entry) error {
	p := e.Proof.Entry()
	switch {
	case e.PeerID != p.PeerID:
		return ports.Faulty(ports.FaultFields, "entry of %s has the record of %s", e.PeerID, p.PeerID)
	case e.Addr != p.Addr || e.Leave != p.Leave || !e.ExpiresAt.Equal(p.ExpiresAt),
		len(e.Addrs) > 0 && !slices.Equal(e.Addrs, p.Addrs),
		len(e.Meta) > 0 && !maps.Equal(e.Meta, p.Meta):
		return ports.Faulty(ports.FaultFields, "entry of %s says something else than its record", e.PeerID)
	}
	e.Addrs, e.Meta = p.Addrs, p.Meta
	return nil
}

// timely returns an error unless p counts at wall: its record has not ended, and its step is due.
// Without the latter an indexer could reveal its last step at once, and be proven for an hour after
// its death. Other clocks may differ by ports.ClockAllowance.
func (r Rules) timely(p *ports.Proof, wall time.Time) error {
	claim := p.Claim
	switch due := claim.Due(p.Tick.Step); {
	case due.After(wall.Add(ports.ClockAllowance)):
		return ports.Faulty(ports.FaultFuture, "step %d of the record of %s is due at %s, and it is %s", p.Tick.Step, claim.PeerID, due.Format(time.RFC3339), wall.Format(time.RFC3339))
	case !wall.Before(claim.Ends().Add(ports.ClockAllowance)):
		return ports.Faulty(ports.FaultEnded, "record of %s has ended", claim.PeerID)
	}
	return nil
}

// Watched returns an Acceptable that tells observer of each invalid proof.
func (r Rules) Watched(observer ports.Observer) func(*Entry) error {
	return func(e *Entry) error {
		err := r.Acceptable(e)
		tellFault(observer, e.PeerID, "", err)
		return err
	}
}

func tellFault(observer ports.Observer, id, via ports.PeerID, err error) {
	var fault *ports.ProofError
	if errors.As(err, &fault) {
		observer.Observe(ports.Event{Kind: ports.EventFaulty, PeerID: id, Via: via, Fault: fault.Fault, Err: err})
	}
}

// CheckAnswer returns why the answer of a native about an indexer does not count, nil if it
// counts. It copies the proof's fields, and cuts Remaining to the proof's: no native can make a
// signed lease last longer.
func (r Rules) CheckAnswer(a *ports.Answer) error {
	if a.Proof == nil {
		if r.plain() == PlainRefuse {
			return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", a.PeerID)
		}
		return nil
	}
	e := a.Entry
	if r.Proofs == nil {
		return nil
	}
	if err := r.Acceptable(&e); err != nil {
		return err
	}
	a.Entry = e
	if a.State == ports.StateStale {
		a.Remaining = 0
		return nil
	}
	if remaining := e.ExpiresAt.Sub(r.wall()); remaining < a.Remaining {
		a.Remaining = remaining
	}
	return nil
}

func (r Rules) plain() Plain {
	if r.Plain == nil {
		return PlainAccept
	}
	return r.Plain()
}

// Believes returns why e does not count here, nil if it counts. A plain entry counts unless Plain
// is PlainRefuse. Believes checks no proof; Acceptable does.
func (r Rules) Believes(e *Entry) error {
	if e.Proof == nil && r.plain() == PlainRefuse {
		return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself, and trust.plain is %s here", e.PeerID, PlainRefuse)
	}
	return nil
}

// IsUntrusted reports whether err is about a sound entry or answer that this node does not trust:
// its sender is not at fault.
func IsUntrusted(err error) bool {
	fault, ok := errors.AsType[*ports.ProofError](err)
	return errors.Is(err, errUntrusted) || ok && fault.Fault == ports.FaultUntrusted
}
