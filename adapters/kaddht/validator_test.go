package kaddht

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/wire"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// valueOf returns the stored form of e.
func valueOf(t testing.TB, e ports.Entry) []byte {
	t.Helper()
	value, err := wire.EncodeEntry(e)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// hostileValues are values that must not be stored under the key of victim.
func hostileValues(t testing.TB, victim ports.PeerID) map[string][]byte {
	t.Helper()
	other := entryFor(t)
	until := func(at time.Time) []byte {
		return valueOf(t, ports.Entry{PeerID: victim, Addr: other.Addr, ExpiresAt: at})
	}
	honest := until(time.Now().Add(porttest.TTL))
	return map[string][]byte{
		"empty":               {},
		"not JSON":            []byte("\x00\x01garbage"),
		"an array":            []byte(`["` + victim + `"]`),
		"cut short":           honest[:len(honest)-1],
		"no deadline":         fmt.Appendf(nil, `{"PeerID":%q,"Addr":"/ip4/192.0.2.1/tcp/4001"}`, victim),
		"over 8 KiB":          append(honest[:len(honest):len(honest)], bytes.Repeat([]byte(" "), ports.MaxFrameBytes)...),
		"expired":             until(time.Now().Add(-time.Second)),
		"ends in year 9999":   until(time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)),
		"ends a little late":  until(time.Now().Add(porttest.TTL + 2*ports.ClockAllowance)),
		"ends in year 10000":  fmt.Appendf(nil, `{"PeerID":%q,"Addr":"/ip4/192.0.2.1/tcp/4001","ExpiresAt":"10000-01-01T00:00:00Z"}`, victim),
		"of another indexer":  valueOf(t, other),
		"without a PeerID":    []byte(`{"Addr":"/ip4/192.0.2.1/tcp/4001","ExpiresAt":"2030-01-01T00:00:00Z"}`),
		"deeply nested":       []byte(strings.Repeat("[", 2000)),
		"a name in two cases": bytes.Replace(honest, []byte(`{`), []byte(`{"peerid":"x",`), 1),
	}
}

func TestValidate(t *testing.T) {
	v := validator{accept: rule, read: unread}
	e := entryFor(t)
	if err := v.Validate(keyOf(e.PeerID), valueOf(t, e)); err != nil {
		t.Fatalf("an honest entry: %v", err)
	}
	for name, value := range hostileValues(t, e.PeerID) {
		if v.Validate(keyOf(e.PeerID), value) == nil {
			t.Errorf("%s: accepted %.100q", name, value)
		}
	}

	id, err := peer.Decode(string(e.PeerID))
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{
		"empty":                 "",
		"another namespace":     "/pk/" + string(e.PeerID),
		"no PeerID":             "/indexer/",
		"another spelling":      "/indexer/" + peer.ToCid(id).String(),
		"the PeerID's bytes":    "/indexer/" + string(id),
		"something behind":      keyOf(e.PeerID) + "/",
		"something in between":  "/indexer//" + string(e.PeerID),
		"without the namespace": string(e.PeerID),
		"long":                  "/indexer/" + strings.Repeat("1", 1<<20),
	} {
		if v.Validate(key, valueOf(t, e)) == nil {
			t.Errorf("key %s: accepted %.100q", name, key)
		}
	}
}

// TestSelect gives Select the same values in every order.
func TestSelect(t *testing.T) {
	v := validator{read: func(*ports.Entry) error { return nil }, accept: func(*ports.Entry) error { t.Error("Select asked the clock's rule"); return nil }}
	e := entryFor(t)
	sooner, later, larger := e, e, e
	sooner.ExpiresAt = e.ExpiresAt.Add(-time.Nanosecond)
	later.ExpiresAt = e.ExpiresAt.Add(time.Nanosecond)
	larger.Addr = e.Addr + "/p2p/" + string(e.PeerID)
	long := sooner
	long.Meta = map[string]string{"a": "longer value that expires sooner"}
	expired := e
	expired.ExpiresAt = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	garbage, base := []byte("~~~"), valueOf(t, e)
	// The two values differ late, in the address.
	tie := slices.MaxFunc([][]byte{base, valueOf(t, larger)}, bytes.Compare)

	for _, test := range []struct {
		name   string
		values [][]byte
		want   []byte
	}{
		{"the later deadline wins", [][]byte{base, valueOf(t, sooner), valueOf(t, later)}, valueOf(t, later)},
		{"by a nanosecond, against larger bytes", [][]byte{base, valueOf(t, long)}, base},
		{"of the same deadline the larger bytes win", [][]byte{base, valueOf(t, larger), valueOf(t, sooner)}, tie},
		{"of the same deadline a leave wins, against larger bytes", [][]byte{base, valueOf(t, leaveOf(e)), valueOf(t, larger)}, valueOf(t, leaveOf(e))},
		{"a later entry wins against a leave", [][]byte{valueOf(t, leaveOf(e)), valueOf(t, later)}, valueOf(t, later)},
		{"an undecodable value loses", [][]byte{garbage, valueOf(t, sooner), nil}, valueOf(t, sooner)},
		{"even to an expired value", [][]byte{garbage, valueOf(t, expired)}, valueOf(t, expired)},
	} {
		t.Run(test.name, func(t *testing.T) {
			for order := range permutations(test.values) {
				best, err := v.Select(keyOf(e.PeerID), order)
				if err != nil || !bytes.Equal(order[best], test.want) {
					t.Errorf("of %q: chose %d, error %v; want %q", order, best, err, test.want)
				}
			}
		})
	}
	if _, err := v.Select(keyOf(e.PeerID), [][]byte{garbage, nil}); err == nil {
		t.Error("nothing decodes, and no error")
	}
}

// TestSelectIsOneOrder stores values one by one, in any order, and expects the value that Select
// chooses of them all, in any order.
func TestSelectIsOneOrder(t *testing.T) {
	v := validator{read: func(*ports.Entry) error { return nil }, accept: func(*ports.Entry) error { return nil }}
	base := entryFor(t)
	key := keyOf(base.PeerID)
	entries := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) []byte {
		e := base
		e.ExpiresAt = base.ExpiresAt.Add(time.Duration(rapid.IntRange(0, 2).Draw(r, "later")))
		e.Leave = rapid.Bool().Draw(r, "left")
		e.Addr = rapid.SampledFrom([]string{"", base.Addr, base.Addr + "/p2p/x"}).Draw(r, "addr")
		return valueOf(t, e)
	}), 1, 6)
	rapid.Check(t, func(r *rapid.T) {
		values := entries.Draw(r, "values")
		best, err := v.Select(key, values)
		if err != nil {
			r.Fatal(err)
		}
		shuffled := rapid.Permutation(values).Draw(r, "shuffled")
		again, err := v.Select(key, shuffled)
		if err != nil || !bytes.Equal(values[best], shuffled[again]) {
			r.Fatalf("chose %s, and in another order %s (%v)", values[best], shuffled[again], err)
		}
		stored := recordOf(t, key, shuffled[0])
		for _, value := range shuffled[1:] {
			if rec := recordOf(t, key, value); !v.keepsOld(stored, rec) {
				stored = rec
			}
		}
		if want := recordOf(t, key, values[best]); !bytes.Equal(stored, want) {
			r.Fatalf("one by one %q stays, of all together %q", stored, want)
		}
		most, _ := wire.DecodeEntry(values[best])
		for _, value := range values {
			e, _ := wire.DecodeEntry(value)
			if e.ExpiresAt.After(most.ExpiresAt) || e.ExpiresAt.Equal(most.ExpiresAt) && e.Leave && !most.Leave {
				r.Fatalf("%s was chosen over %s", values[best], value)
			}
		}
	})
}

// leaveOf returns the leave with the deadline of e.
func leaveOf(e ports.Entry) ports.Entry {
	return ports.Entry{PeerID: e.PeerID, ExpiresAt: e.ExpiresAt, Leave: true}
}

// permutations yields values in every order.
func permutations(values [][]byte) func(yield func([][]byte) bool) {
	return func(yield func([][]byte) bool) {
		if len(values) <= 1 {
			yield(values)
			return
		}
		for i := range values {
			rest := slices.Delete(slices.Clone(values), i, i+1)
			for tail := range permutations(rest) {
				if !yield(append([][]byte{values[i]}, tail...)) {
					return
				}
			}
		}
	}
}

// recordOf returns the bytes of a stored record.
func recordOf(t testing.TB, key string, value []byte) []byte {
	t.Helper()
	rec, err := proto.Marshal(&recpb.Record{Key: []byte(key), Value: value})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func FuzzValidate(f *testing.F) {
	v := validator{accept: rule, read: unread}
	honest := entryFor(f)
	f.Add(keyOf(honest.PeerID), valueOf(f, honest))
	for _, value := range hostileValues(f, honest.PeerID) {
		f.Add(keyOf(honest.PeerID), value)
	}
	f.Add("/indexer/", []byte(`{}`))
	good := valueOf(f, honest)
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		// The order of two values does not matter, whatever their bytes.
		one, err1 := v.Select(key, [][]byte{good, value})
		two, err2 := v.Select(key, [][]byte{value, good})
		if err1 != nil || err2 != nil || !bytes.Equal([][]byte{good, value}[one], [][]byte{value, good}[two]) {
			t.Errorf("Select chose %d (%v) and reversed %d (%v)", one, err1, two, err2)
		}
		if v.Validate(key, value) != nil {
			return
		}
		id, err := peer.Decode(strings.TrimPrefix(key, "/indexer/"))
		if err != nil || key != keyOf(ports.PeerID(id.String())) {
			t.Errorf("accepted the key %q", key)
		}
		e, err := wire.DecodeEntry(value)
		if err != nil || len(value) > ports.MaxFrameBytes || string(e.PeerID) != id.String() {
			t.Errorf("accepted %q: %v", value, err)
		}
		if remaining := time.Until(e.ExpiresAt); remaining > porttest.TTL+ports.ClockAllowance || remaining < -porttest.Patience {
			t.Errorf("accepted an entry that expires in %v", remaining)
		}
	})
}
