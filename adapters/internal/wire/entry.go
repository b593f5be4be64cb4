package wire

import (
	"time"

	"github.com/opencloud/ocnode/ports"
)

type entry struct {
	about
	Native    string    `json:",omitzero"`
	SeenAt    time.Time `json:",omitzero"`
	ExpiresAt time.Time
	unknown
}

var entryNames = append([]string{"Native", "SeenAt", "ExpiresAt"}, registrationNames...)

// DecodeEntry decodes an entry as the DHT holds it. Its PeerIDs are canonical and
// its times in UTC; ExpiresAt is never zero. The error is a *ports.Refusal.
func DecodeEntry(value []byte) (ports.Entry, error) {
	var w entry
	if err := decode(value, &w, &w.unknown, entryNames); err != nil {
		return ports.Entry{}, err
	}
	r, err := w.registration()
	if err != nil {
		return ports.Entry{}, err
	}
	e := ports.Entry{
		PeerID: r.PeerID, Addr: r.Addr, Addrs: r.Addrs, Meta: r.Meta,
		SeenAt: normal(w.SeenAt), ExpiresAt: normal(w.ExpiresAt),
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

// EncodeEntry returns e as the DHT holds it, the same bytes for the same entry.
// A registration that just fits its frame does not fit with all that a native adds:
// what readers can do without is left out then. The error is a *ports.Refusal.
func EncodeEntry(e ports.Entry) ([]byte, error) {
	if err := checkMeta(e.Meta); err != nil {
		return nil, err
	}
	if len(e.Addrs) == 1 && e.Addrs[0] == e.Addr {
		e.Addrs = nil
	}
	value, err := encode(&entry{
		about:  about{string(e.PeerID), e.Addr, e.Addrs, e.Meta},
		Native: string(e.Native), SeenAt: e.SeenAt.UTC(), ExpiresAt: e.ExpiresAt.UTC(),
	})
	if err != nil && (e.Native != "" || !e.SeenAt.IsZero()) {
		e.Native, e.SeenAt = "", time.Time{}
		return EncodeEntry(e)
	}
	return value, err
}

// normal returns t in UTC, or the zero time if RFC 3339 could not write that.
func normal(t time.Time) time.Time {
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
