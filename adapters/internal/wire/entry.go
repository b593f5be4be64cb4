package wire

import (
	"bytes"
	"time"

	"github.com/opencloud/ocnode/ports"
)

type entry struct {
	about
	Native    string    `json:",omitzero"`
	SeenAt    time.Time `json:",omitzero"`
	ExpiresAt time.Time
	Left      bool `json:",omitzero"`
	proof
	unknown
}

var entryNames = append([]string{"Native", "SeenAt", "ExpiresAt", "Left"}, registrationNames...)

// DecodeEntry decodes an entry as the DHT holds it. Its PeerIDs are canonical and
// its times in UTC; ExpiresAt is never zero. Its Proof has not been read. The error is a
// *ports.Refusal.
func DecodeEntry(value []byte) (ports.Entry, error) {
	var w entry
	if err := decode(value, &w, &w.unknown, entryNames); err != nil {
		return ports.Entry{}, err
	}
	r, err := w.registration("")
	if err != nil {
		return ports.Entry{}, err
	}
	e := ports.Entry{
		PeerID: r.PeerID, Addr: r.Addr, Addrs: more(r.Addr, r.Addrs), Meta: r.Meta,
		SeenAt: normal(w.SeenAt), ExpiresAt: normal(w.ExpiresAt), Leave: w.Left,
		Proof: w.proof.proof(),
	}
	if e.ExpiresAt.IsZero() {
		return ports.Entry{}, ports.Refuse(ports.CodeMalformed,
			"ExpiresAt is missing or outside the years 1 to 9999; want RFC 3339")
	}
	if w.Native != "" {
		if e.Native, err = canonical(w.Native); err != nil {
			return ports.Entry{}, ports.Refuse(ports.CodeMalformed, "Native %.80q: %v", w.Native, err)
		}
	}
	return e, nil
}

// more returns addrs, nil if they are addr alone: both say the same, and one is written.
func more(addr string, addrs []string) []string {
	if len(addrs) == 1 && addrs[0] == addr {
		return nil
	}
	return addrs
}

// EncodeEntry returns e as the DHT holds it, the same bytes for the same entry.
// A registration that just fits its frame does not fit with all that a native adds:
// what readers can do without is left out then, and of a leave all that says where
// its indexer was. The error is a *ports.Refusal.
func EncodeEntry(e ports.Entry) ([]byte, error) {
	if err := ports.CheckMeta(e.Meta); err != nil {
		return nil, err
	}
	e.Addrs = more(e.Addr, e.Addrs)
	value, err := encode(&entry{
		about:  about{string(e.PeerID), e.Addr, e.Addrs, e.Meta},
		Native: string(e.Native), SeenAt: e.SeenAt.UTC(), ExpiresAt: e.ExpiresAt.UTC(), Left: e.Leave,
		proof: proofOf(e.Proof),
	})
	switch {
	case err == nil:
		return value, nil
	case e.Proof != nil && (e.Addrs != nil || e.Meta != nil):
		e.Addrs, e.Meta = nil, nil // the record says them
		return EncodeEntry(e)
	case e.Native != "" || !e.SeenAt.IsZero():
		e.Native, e.SeenAt = "", time.Time{}
		return EncodeEntry(e)
	case e.Leave && e.Proof == nil && (e.Addr != "" || e.Addrs != nil || e.Meta != nil):
		return EncodeEntry(ports.Entry{PeerID: e.PeerID, ExpiresAt: e.ExpiresAt, Leave: true})
	}
	return nil, err
}

// Beats reports whether the entry of version a, stored as aValue, stays and that of b, stored
// as bValue, goes: a is the higher, or both are the same and its bytes are larger. It looks at
// no clock, so that every node chooses alike.
func Beats(a ports.Version, aValue []byte, b ports.Version, bValue []byte) bool {
	if newer := a.Compare(b); newer != 0 {
		return newer > 0
	}
	return bytes.Compare(aValue, bValue) > 0
}

// normal returns t in UTC, or the zero time if RFC 3339 could not write that.
func normal(t time.Time) time.Time {
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
