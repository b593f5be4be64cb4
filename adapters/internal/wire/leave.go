package wire

import "github.com/opencloud/ocnode/ports"

type leave struct {
	PeerID string
	Record []byte `json:",omitzero"`
	unknown
}

var leaveNames = []string{"PeerID", "Record"}

// DecodeLeave decodes a leave frame without its newline: who leaves, in canonical form, and
// the record that says so, if there is one. sender is as for DecodeRegistration. The error
// is a *ports.Refusal.
func DecodeLeave(frame []byte, sender ports.PeerID) (id ports.PeerID, record []byte, err error) {
	var w leave
	if err := decode(frame, &w, &w.unknown, leaveNames); err != nil {
		return "", nil, err
	}
	r, err := (&about{PeerID: w.PeerID}).registration(sender)
	return r.PeerID, w.Record, err
}

// EncodeLeave returns the frame that says that id leaves, as record says if it is not nil, with its
// newline. The error is a *ports.Refusal.
func EncodeLeave(id ports.PeerID, record []byte) ([]byte, error) {
	return encodeLine(&leave{PeerID: string(id), Record: record})
}

// EncodeOK returns the answer that has nothing to say but yes, with its newline.
func EncodeOK() []byte { return []byte("{\"OK\":true}\n") }
