package admission

import (
	"context"
	"net/netip"

	"github.com/opencloud/ocnode/ports"
)

// Door is the Gate and the rule for addresses, as a transport asks them.
type Door struct {
	Gate      *Gate
	Addresses *Addresses
	// Read reads what a record claims.
	Read func(record []byte) (*ports.Claim, error)
}

// Hear is asked before anything of a registration is read.
func (d Door) Hear(sender ports.PeerID, _ netip.Addr) error { return d.Gate.Hear(sender) }

// Admit is asked before a registration is handed to the native, and returns it as the
// native is to have it, or a *ports.Refusal. It may take 2 s. Settle must be called with
// what became of it, unless it was refused here.
func (d Door) Admit(ctx context.Context, sender ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error) {
	if err := d.Gate.Seat(sender, from); err != nil || r.PeerID != sender {
		return r, err // of another's the registry says more
	}
	r, err := d.vet(ctx, sender, from, r)
	if err != nil {
		d.Gate.Settle(sender, false)
	}
	return r, err
}

// vet asks for the addresses of a registration. Those of a record come with it; a tick brings
// none but what its record has.
func (d Door) vet(ctx context.Context, sender ports.PeerID, from netip.Addr, r ports.Registration) (ports.Registration, error) {
	switch {
	case r.Proof == nil:
		return d.Addresses.Vet(ctx, sender, from, r)
	case r.Proof.Record == nil:
		return r, nil
	}
	claim, err := d.Read(r.Proof.Record)
	if err != nil || claim.Leave() || len(claim.Addrs) > ports.MaxAddrs {
		return r, nil // which the registry refuses, and with a better reason
	}
	return r, d.Addresses.VetSigned(ctx, sender, from, claim.Addrs)
}

// Settle says whether sender was granted its lease.
func (d Door) Settle(sender ports.PeerID, granted bool) { d.Gate.Settle(sender, granted) }

// Renew counts one more registration of sender, which brings no addresses, or refuses it. If sender
// holds a lease, it keeps its seat for another TTL; else Admit and Settle must follow.
func (d Door) Renew(sender ports.PeerID) (held bool, err error) { return d.Gate.Renew(sender) }

// AdmitLeave is asked before a leave is handed to the native, or refuses it. SettleLeave
// must be called with what became of it, unless it was refused here.
func (d Door) AdmitLeave(sender ports.PeerID, from netip.Addr) error {
	return d.Gate.Seat(sender, from)
}

// SettleLeave says whether sender's leave was taken.
func (d Door) SettleLeave(sender ports.PeerID, taken bool) {
	if taken {
		d.Gate.Leave(sender)
	} else {
		d.Gate.Settle(sender, false)
	}
}
