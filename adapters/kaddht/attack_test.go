package kaddht

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/adapters/internal/hosttest"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// losing are the classes of sound records: no faults, but older than the held record. An empty
// node may store them, and no native lists them over its own record.
var losing = map[prooftest.Class]bool{prooftest.Replayed: true, prooftest.RolledBack: true, prooftest.WrongRank: true}

// provenRules are those of a node that checks proofs.
func provenRules() domain.Rules {
	return domain.Rules{
		Self: "native", Policy: domain.DefaultTTLPolicy(), Proofs: proof.NewVerifier(),
		CheckAddr: func(ports.PeerID, string) error { return nil },
	}
}

// putter puts a record, as a stranger would.
type putter func(t *testing.T, key string, rec *recpb.Record) error

// maxStep leaves room for lies about the steps after it.
const maxStep = prooftest.Steps - 25

// attack puts that many lies of each class to s, and honest records between them. It puts each
// refused lie that often.
func attack(t *testing.T, s *Store, seen *porttest.Recorder, victims, liars []*prooftest.Signer, times, tries int, put putter) {
	t.Helper()
	tally, honest, lost := prooftest.NewTally(), 0, 0
	stored := func(v *prooftest.Victim, e ports.Entry) {
		t.Helper()
		if err := put(t, keyOf(v.PeerID), record.MakePutRecord(keyOf(v.PeerID), valueOf(t, e))); err != nil {
			t.Fatalf("an honest entry: %v", err)
		}
		honest++
	}
	var all []*prooftest.Victim
	for _, x := range victims {
		v := prooftest.NewVictim(t, x, time.Now().Add(-maxStep*prooftest.Interval)) // every step is due
		all = append(all, v)
		stored(v, v.Before.Entry(0))
		stored(v, v.Now.Entry(0))
	}
	for _, class := range prooftest.Classes() {
		for lies := 0; lies < times; lies += len(all) {
			for _, v := range all {
				if v.Step < maxStep {
					v.Step++
					stored(v, v.Now.Entry(v.Step))
				}
			}
			stored(all[0], all[0].Now.Entry(all[0].Step)) // and then as another node stores it again
			for i, v := range all {
				lie := v.Lie(t, class, lies+i, liars[(lies+i)%len(liars)])
				key := keyOf(v.PeerID)
				err := put(t, key, record.MakePutRecord(key, valueOf(t, lie.Entry)))
				switch {
				case !losing[class] && err == nil:
					t.Fatalf("%s: stored %+v", class, lie.Entry)
				case !losing[class]:
					for range tries {
						tally.Lied(lie)
					}
				default:
					tally.Lies[class]++
					lost++
				}
				if got, err := s.Local(v.PeerID, ports.Version{}); err != nil || got.Addr != v.Now.Claim.Addrs[0] || got.Proof == nil || got.Proof.Tick.Step != v.Step {
					t.Fatalf("%s: held is %+v, %v; want the record of step %d", class, got, err, v.Step)
				}
			}
			tally.Told(seen.Take())
			tally.Check(t)
		}
	}
	t.Logf("%d honest entries stored beside; lies refused: %v; %d lost to what is held, else refused for %v", honest, tally.Lies, lost, tally.Refused)
	tally.Enough(t, prooftest.Classes(), times)
}

func TestAttackNoLieIsStored(t *testing.T) {
	t.Run("as values", func(t *testing.T) {
		seen := &porttest.Recorder{}
		s := newProvenStore(t, seen)
		attack(t, s, seen, prooftest.NewSigners(t, 20), prooftest.NewSigners(t, 50), prooftest.Attacks(), 1, func(t *testing.T, key string, rec *recpb.Record) error {
			err := s.local.Put(t.Context(), key, rec)
			if errors.Is(err, records.ErrOldRecord) {
				return nil // it does not reach the others either
			}
			return err
		})
	})
	t.Run("over streams", func(t *testing.T) {
		seen := &porttest.Recorder{}
		s := newProvenStore(t, seen)
		other := newProvenStore(t, &porttest.Recorder{})
		hosttest.Connect(t, other.host, s.host)
		// A server answers by a reset. The library then retries once.
		attack(t, s, seen, prooftest.NewSigners(t, 5), prooftest.NewSigners(t, 5), prooftest.Attacks()/50, 2, func(t *testing.T, _ string, rec *recpb.Record) error {
			ctx, cancel := context.WithTimeout(t.Context(), porttest.Patience)
			defer cancel()
			return other.messenger.PutValue(ctx, s.host.ID(), rec)
		})
	})
}

func newProvenStore(t *testing.T, seen ports.Observer) *Store {
	t.Helper()
	rules := provenRules()
	return newStoreOf(t, hosttest.New(t), Config{Server: true, Accept: rules.Watched(seen), Read: rules.ReadProof, TTL: rules.Policy.TTL})
}

// spoken are an indexer's values of every kind, some of them invalid.
func spoken(t *testing.T) (key string, values [][]byte) {
	t.Helper()
	x, natives := prooftest.NewSigner(t), prooftest.NewSigners(t, 2)
	now := time.Now()
	add := func(e ports.Entry) { values = append(values, valueOf(t, e)) }
	for i := range 3 {
		at := now.Add(time.Duration(i) * time.Second)
		for start := range uint64(2) { // two records with the same Seq
			w := x.Says(t, at, start, "/ip4/192.0.2.1/tcp/4001")
			for step := range uint32(3) {
				add(w.Entry(step))
			}
			add(w.Entry(0))
			seen := w.Entry(1)
			seen.SeenAt, seen.Native = now, natives[0].PeerID
			add(seen) // the same, in other bytes
		}
		bare := ports.Entry{PeerID: x.PeerID, Addr: "/ip4/192.0.2.3/tcp/4001", ExpiresAt: at.Add(prooftest.TTL)}
		add(bare)
		add(leaveOf(bare))
		bare.Meta = map[string]string{"zone": "a"}
		add(bare)
		leave := x.Leaves(t, at.Add(time.Millisecond), 1)
		add(ports.Entry{PeerID: x.PeerID, Leave: true, ExpiresAt: time.UnixMilli(at.Add(time.Millisecond).UnixMilli()).Add(prooftest.TTL), Proof: &ports.Proof{Record: leave, Tick: ports.Tick{Seq: at.Add(time.Millisecond).UnixMilli()}}})
	}
	whole := values[0]
	values = append(values, nil, []byte("~~~"), whole[:len(whole)/2], []byte(`{"PeerID":"12D3"}`))
	v := prooftest.NewVictim(t, x, now)
	v.Step = 1
	for _, class := range []prooftest.Class{prooftest.Rekeyed, prooftest.Truncated, prooftest.CrossNamespace} { // unreadable
		add(v.Lie(t, class, 0, natives[0]).Entry)
	}
	return keyOf(x.PeerID), values
}

// In any order of arrival, every node keeps the same value: Select chooses the same value from
// every set that contains it, and that value wins against each of the others.
func TestAttackSelectChoosesAlikeInAnyOrder(t *testing.T) {
	rules := provenRules()
	v := validator{accept: rules.Acceptable, read: rules.ReadProof}
	key, values := spoken(t)
	sound := 0
	for _, value := range values {
		if v.Validate(key, value) == nil {
			sound++
		}
	}
	beats := func(a, b []byte) bool {
		i, err := v.Select(key, [][]byte{b, a})
		return err == nil && i == 1
	}
	drawn := 0
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.SampledFrom(values), 1, 8).Draw(t, "values")
		i, err := v.Select(key, some)
		other := rapid.Permutation(some).Draw(t, "in another order")
		j, otherErr := v.Select(key, other)
		if (err == nil) != (otherErr == nil) || err == nil && !bytes.Equal(some[i], other[j]) {
			t.Fatalf("chose %q, %v and %q, %v", some[max(i, 0)], err, other[max(j, 0)], otherErr)
		}
		if err != nil {
			return
		}
		drawn++
		for _, value := range some {
			if beats(value, some[i]) && !bytes.Equal(value, some[i]) {
				t.Fatalf("chose %q, and against it alone %q", some[i], value)
			}
		}
		// Storing one by one has the same result.
		kept := some[0]
		for _, value := range some[1:] {
			if beats(value, kept) {
				kept = value
			}
		}
		if _, err := v.Select(key, [][]byte{kept}); err != nil || !bytes.Equal(kept, some[i]) {
			t.Fatalf("one after another leave %q, all at once %q", kept, some[i])
		}
	})
	stands := make([][]bool, len(values))
	for i, a := range values {
		for _, b := range values {
			stands[i] = append(stands[i], beats(a, b))
		}
	}
	for a := range values {
		for b := range values {
			if stands[a][b] && stands[b][a] {
				t.Fatalf("%q and %q each stand against the other", values[a], values[b])
			}
			for c := range values {
				if stands[a][b] && stands[b][c] && !stands[a][c] {
					t.Fatalf("%q stands against %q, that against %q, and the first not against the last", values[a], values[b], values[c])
				}
			}
		}
	}
	t.Logf("%d values, %d of them sound; chose of some %d times", len(values), sound, drawn)
}
