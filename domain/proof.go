package domain

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// Plain says what is believed of indexers that do not sign.
type Plain string

const (
	// PlainAccept takes plain registrations, and believes whatever anybody says of others.
	PlainAccept Plain = "accept"
	// PlainRefuse takes and believes only what the indexer has signed.
	PlainRefuse Plain = "refuse"
)

// ReadProof reads what e's proof claims, if it has one: enough to tell which of two entries is
// newer, and no more. The error is a *ports.ProofError. A Store is given it as its eyes.
func (c Config) ReadProof(e *Entry) error {
	p := e.Proof
	if p == nil || p.Claim != nil {
		return nil
	}
	claim, err := c.read(p)
	if err != nil {
		return err
	}
	p.Claim = claim
	return nil
}

// read is ReadProof for a proof that nobody has read. A record without a tick is at its
// anchor.
func (c Config) read(p *ports.Proof) (*ports.Claim, error) {
	switch {
	case c.Proofs == nil:
		return nil, ports.Faulty(ports.FaultUntrusted, "this node checks no proofs")
	case p.Record == nil:
		return nil, ports.Faulty(ports.FaultIncomplete, "the tick's record is missing")
	}
	claim, err := c.Proofs.Read(p.Record)
	if err == nil && p.Tick == (ports.Tick{}) {
		p.Tick = ports.Tick{Seq: claim.Seq, Link: claim.Anchor}
	}
	return claim, err
}

// Acceptable tells whether e may be stored: its proof proves it, or it has none; its times
// pass the policy, and its addresses the rule. A leave needs no address. What e leaves out
// and its proof says is filled in. Not all that may be stored may be listed: a proof is kept
// for as long as its record counts. A Store is given this as its rule.
func (c Config) Acceptable(e *Entry) error {
	if !c.Indexers.in(e.PeerID) {
		return errUntrusted
	}
	now := c.now()
	if e.Proof == nil {
		if err := c.Policy.Acceptable(e.ExpiresAt, now); err != nil || e.Leave {
			return err
		}
		return c.checkAddrs(e.PeerID, e.Addr, e.Addrs)
	}
	if p := e.Proof; p.Claim == nil {
		if err := c.verify(p); err != nil {
			return err
		}
	}
	if err := proves(e); err != nil {
		return err
	}
	return c.timely(e.Proof.Claim, now)
}

// verify checks p, whose Claim it sets.
func (c Config) verify(p *ports.Proof) error {
	claim, err := c.read(p)
	if err != nil {
		return err
	}
	if err := c.sane(claim); err != nil {
		return err
	}
	if claim, err = c.Proofs.Verify(p.Record, p.Tick); err != nil {
		return err
	}
	p.Claim = claim
	return nil
}

// sane holds what a record claims against what a registration may.
func (c Config) sane(claim *ports.Claim) error {
	if claim.TTL > c.Policy.TTL {
		return ports.Faulty(ports.FaultPayload, "record's TTL is %v, and this network's %v: it ends later than a lease can", claim.TTL, c.Policy.TTL)
	}
	reg := ports.Registration{PeerID: claim.PeerID, Addrs: claim.Addrs, Meta: claim.Meta}
	if claim.Leave() {
		return nil
	}
	reg.Addr = claim.Addrs[0]
	if refusal := c.check(reg); refusal != nil {
		return ports.Faulty(ports.FaultAddress, "record of %s: %s", claim.PeerID, refusal.Message)
	}
	return nil
}

// proves tells whether e says what its proof does, and fills in what it leaves out.
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

// timely tells whether a record counts at now, with an allowance for other clocks.
func (c Config) timely(claim *ports.Claim, now time.Time) error {
	switch {
	case claim.Issued().After(now.Add(ports.ClockAllowance)):
		return ports.Faulty(ports.FaultFuture, "record of %s was issued at %s, and it is %s", claim.PeerID, claim.Issued().Format(time.RFC3339), now.Format(time.RFC3339))
	case !now.Before(claim.Ends().Add(ports.ClockAllowance)):
		return ports.Faulty(ports.FaultEnded, "record of %s has ended", claim.PeerID)
	}
	return nil
}

func (c Config) plain() Plain {
	if c.Plain == nil {
		return PlainAccept
	}
	return c.Plain()
}

// believes tells whether e counts here: a plain entry does unless plain ones are refused.
func (c Config) believes(e *Entry) error {
	if e.Proof == nil && c.plain() == PlainRefuse {
		return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself, and trust.plain is %s here", e.PeerID, PlainRefuse)
	}
	return nil
}

// signed returns what the indexer itself signed of l, nil if nothing.
func (l *lease) signed() *ports.Claim {
	if l.proof == nil {
		return nil
	}
	return l.proof.Claim
}

// version is how new l is.
func (l *lease) version(left bool) ports.Version {
	v := ports.Version{ExpiresAt: time.Unix(0, l.expiresAt), Leave: left}
	if l.proof != nil {
		v.Seq, v.Step = l.proof.Claim.Seq, l.proof.Tick.Step
	}
	return v
}

// against tells whether what others say of rec's PeerID can count beside what the indexer
// itself was heard to sign. The caller has locked the shard.
func (l *lease) against(rec *record) error {
	if rec == nil {
		return nil
	}
	held := rec.signed()
	if held == nil {
		return nil
	}
	claim := l.signed()
	if claim == nil {
		return ports.Faulty(ports.FaultRank, "%s signs for itself, and this is not its word", rec.id)
	}
	was, is := rec.version(false), l.version(false)
	if c := is.Compare(was); c < 0 || c == 0 && rec.state != listed {
		return ports.Faulty(ports.FaultOlder, "a newer record or tick of %s is known", rec.id)
	}
	return nil
}

// prove checks what a registration of sender is proven by, and fills in what the proof says
// of it. Without an error, need says that the record is wanted, or one by this native's clock;
// the registration stands then, unproven, unless granted is false.
func (r *Registry) prove(sender ports.PeerID, reg *ports.Registration) (need, granted bool, refusal *ports.Refusal) {
	s := r.table.shard(sender)
	s.mu.Lock()
	var held *ports.Proof
	live := s.live(sender, r.clock().now) != nil
	if rec := s.records[sender]; rec != nil && rec.signed() != nil {
		held = rec.proof
	}
	s.mu.Unlock()

	p := *reg.Proof
	switch {
	case r.cfg.Proofs == nil:
		reg.Proof = nil
		return false, true, nil
	case p.Record == nil && (held == nil || held.Tick.Seq != p.Tick.Seq):
		return true, false, nil
	case p.Record == nil || held != nil && bytes.Equal(p.Record, held.Record):
		advanced, err := r.advance(held, p.Tick)
		if err != nil {
			return false, false, r.unproven(sender, err)
		}
		reg.Proof = advanced
	default:
		p.Claim = nil
		if err := r.cfg.verify(&p); err != nil {
			return false, false, r.unproven(sender, err)
		}
		reg.Proof = &p
		if held != nil && held.Claim.Seq >= p.Claim.Seq {
			if !live || held.Claim.Start == p.Claim.Start || held.Claim.Seq == p.Claim.Seq {
				return true, false, nil
			}
			s.mu.Lock()
			if rec := s.records[sender]; rec != nil {
				rec.rival = true
			}
			s.mu.Unlock()
			r.observer.Observe(ports.Event{Kind: ports.EventRival, PeerID: sender})
			return false, false, ports.Refuse(ports.CodeSuperseded, "another process with this key has registered since this one started; stop one of them, or give it an identity of its own (data.dir)")
		}
	}
	claim := reg.Proof.Claim
	switch {
	case claim.PeerID != sender:
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultSigner, "the record is not that of %s itself", sender))
	case claim.Leave():
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultFields, "the record has no address, which is a leave"))
	case reg.Addr != claim.Addrs[0], len(reg.Addrs) > 0 && !slices.Equal(reg.Addrs, claim.Addrs), len(reg.Meta) > 0 && !maps.Equal(reg.Meta, claim.Meta):
		return false, false, r.unproven(sender, ports.Faulty(ports.FaultFields, "the registration says something else than its record"))
	}
	reg.Addrs, reg.Meta = claim.Addrs, claim.Meta
	if err := r.cfg.timely(claim, r.cfg.now()); err != nil {
		reg.Proof = nil
		return true, true, nil
	}
	return false, true, nil
}

// advance returns held with tick, or held itself if it is newer.
func (r *Registry) advance(held *ports.Proof, tick ports.Tick) (*ports.Proof, error) {
	was := held.Tick
	switch {
	case tick == (ports.Tick{}), tick == was:
		return held, nil
	case tick.Seq != was.Seq || tick.Step == was.Step || tick.Step > ports.MaxSteps || held.Claim.Interval == 0:
	case tick.Step > was.Step && r.cfg.Proofs.Follows(was.Link, tick.Link, tick.Step-was.Step):
		return &ports.Proof{Record: held.Record, Tick: tick, Claim: held.Claim}, nil
	case tick.Step < was.Step && tick.Step == 0 && tick.Link == held.Claim.Anchor,
		tick.Step < was.Step && r.cfg.Proofs.Follows(tick.Link, was.Link, was.Step-tick.Step):
		return held, nil
	}
	return nil, ports.Faulty(ports.FaultTick, "tick's link is not that of step %d of the record's chain", tick.Step)
}

// unproven refuses what err says is no proof, and tells of it.
func (r *Registry) unproven(sender ports.PeerID, err error) *ports.Refusal {
	r.faulty(sender, "", err)
	if fault, ok := errors.AsType[*ports.ProofError](err); ok && fault.Fault == ports.FaultAddress {
		return ports.Refuse(ports.CodeAddrInvalid, "%v", err)
	}
	return ports.Refuse(ports.CodeProofInvalid, "%v", err)
}

// faulty tells the observer of a proof that is none.
func (r *Registry) faulty(id, via ports.PeerID, err error) { tellFault(r.observer, id, via, err) }

func tellFault(observer ports.Observer, id, via ports.PeerID, err error) {
	var fault *ports.ProofError
	if errors.As(err, &fault) {
		observer.Observe(ports.Event{Kind: ports.EventFaulty, PeerID: id, Via: via, Fault: fault.Fault, Err: err})
	}
}

// Watched is Acceptable, which tells observer of each proof that proves nothing.
func (c Config) Watched(observer ports.Observer) func(*Entry) error {
	return func(e *Entry) error {
		err := c.Acceptable(e)
		tellFault(observer, e.PeerID, "", err)
		return err
	}
}

// checkAnswer tells whether what a native answers about an indexer can be believed of it.
func (c Config) checkAnswer(a *ports.Answer) error {
	if a.Proof == nil {
		if c.plain() == PlainRefuse {
			return ports.Faulty(ports.FaultUntrusted, "%s did not sign for itself", a.PeerID)
		}
		return nil
	}
	e := a.Entry
	if c.Proofs == nil {
		return nil
	}
	if err := c.Acceptable(&e); err != nil {
		return err
	}
	a.Entry = e
	if left := e.ExpiresAt.Sub(c.now()); left < a.Remaining {
		a.Remaining = left
	}
	return nil
}
