package wire

import "github.com/opencloud/ocnode/ports"

// about is what a registration and an entry both say of an indexer.
type about struct {
	PeerID string
	Addr   string
	Addrs  []string          `json:",omitempty"`
	Meta   map[string]string `json:",omitempty"`
}

type registration struct {
	about
	proof
	unknown
}

var registrationNames = append([]string{"PeerID", "Addr", "Addrs", "Meta"}, proofNames...)

// DecodeRegistration decodes a registration frame without its newline. The
// PeerID it returns is canonical; the addresses are as sent, and may be missing.
// The error is a *ports.Refusal.
//
// sender is the canonical PeerID of whoever the connection proves, "" if nobody: what
// spells just that is not decoded once more, at the price of all the rest of a frame.
// That the frame is the sender's own is for the caller to check.
func DecodeRegistration(frame []byte, sender ports.PeerID) (ports.Registration, error) {
	var w registration
	if err := decode(frame, &w, &w.unknown, registrationNames); err != nil {
		return ports.Registration{}, err
	}
	r, err := w.registration(sender)
	r.Proof = w.proof.proof()
	return r, err
}

// EncodeRegistration returns r as a frame with its newline. The error is a
// *ports.Refusal: what no native could accept is refused before it is sent.
func EncodeRegistration(r ports.Registration) ([]byte, error) {
	if err := ports.CheckMeta(r.Meta); err != nil {
		return nil, err
	}
	if r.Proof != nil {
		r.Addrs, r.Meta = nil, nil // the record says them
	}
	return encodeLine(&registration{about: about{string(r.PeerID), r.Addr, r.Addrs, r.Meta}, proof: proofOf(r.Proof)})
}

// registration checks what every native would and returns the port's noun. known is
// a PeerID that is canonical for sure, or "".
func (a *about) registration(known ports.PeerID) (ports.Registration, error) {
	if err := ports.CheckMeta(a.Meta); err != nil {
		return ports.Registration{}, err
	}
	id := known
	if id == "" || a.PeerID != string(id) {
		var err error
		if id, err = canonical(a.PeerID); err != nil {
			return ports.Registration{}, ports.Refuse(ports.CodeMalformed,
				`PeerID %.80q: %v; want the text of a libp2p PeerID, "12D3…"`, a.PeerID, err)
		}
	}
	r := ports.Registration{PeerID: id, Addr: a.Addr}
	if len(a.Addrs) > 0 {
		r.Addrs = a.Addrs
	}
	if len(a.Meta) > 0 {
		r.Meta = a.Meta
	}
	return r, nil
}
