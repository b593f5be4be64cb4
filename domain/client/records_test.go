package client

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// heartbeat is a registration as a native gets it.
type heartbeat struct {
	at time.Time
	ports.Registration
}

// signingIndexer is an indexer that signs, and all that it sends to one native.
type signingIndexer struct {
	self   ports.PeerID
	answer func(n int, r ports.Registration) (ports.Lease, error)
	addrs  []string
	events porttest.Recorder

	mu    sync.Mutex
	said  []heartbeat
	meta  map[string]string
	ahead time.Duration // of its clock
}

// sent is all that the native got, but for the question what time it is.
func (s *signingIndexer) sent() []heartbeat {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

func (s *signingIndexer) describe() ports.Registration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ports.Registration{PeerID: s.self, Addr: "here", Addrs: s.addrs, Meta: s.meta}
}

func (s *signingIndexer) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.ahead)
}

// change changes what the indexer says, or its clock.
func (s *signingIndexer) change(how func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how()
}

// hear takes in what the native gets, and returns how many that are.
func (s *signingIndexer) hear(r ports.Registration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, heartbeat{time.Now(), r})
	return len(s.said)
}

// run runs it until stop is called.
func (s *signingIndexer) run(t *testing.T) (stop func()) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.self = ports.PeerID(id.String())
	signer, err := proof.NewSigner(key, "")
	if err != nil {
		t.Fatal(err)
	}
	clock := domain.NewClock(s.clock, nil)
	clock.Abstain(domain.EnoughNatives)
	native := porttest.Native{
		OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
			if r.Proof.Record == nil && r.Proof.Tick.Seq == asks {
				return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
			}
			return s.answer(s.hear(r), r)
		},
		OnLeave: func(_ context.Context, _ ports.PeerID, record []byte) error {
			s.hear(ports.Registration{Proof: &ports.Proof{Record: record}})
			return nil
		},
	}
	x, err := NewIndexer(domain.Rules{Self: s.self, Policy: domain.DefaultTTLPolicy(), Clock: clock}, signer, PinNatives(map[ports.PeerID]ports.Native{"n": native}),
		s.describe, &s.events)
	if err != nil {
		t.Fatal(err)
	}
	return running(t, x)
}

func granting(int, ports.Registration) (ports.Lease, error) {
	lease := domain.DefaultTTLPolicy().Grant(time.Now())
	lease.Clocks = domain.EnoughNatives
	return lease, nil
}

func TestASigningIndexerIsProvenAliveAllTheTime(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{answer: granting}
		stop := s.run(t)
		time.Sleep(5 * time.Hour)
		stop()
		verifier := proof.NewVerifier()
		var record []byte
		var claim *ports.Claim
		records := 0
		until := s.sent()[0].at
		for i, h := range s.sent()[:len(s.sent())-1] {
			if h.Proof.Record != nil {
				record, records = h.Proof.Record, records+1
				seq := int64(0)
				if claim != nil {
					seq = claim.Seq
				}
				var err error
				if claim, err = verifier.Verify(record, h.Proof.Tick); err != nil || claim.Seq <= seq || claim.PeerID != s.self {
					t.Fatalf("record %d: %v, %+v", records, err, claim)
				}
			} else if _, err := verifier.Verify(record, h.Proof.Tick); err != nil {
				t.Fatalf("tick %d: %v", i, err)
			}
			if h.at.After(until) {
				t.Errorf("heartbeat %d came %v after the proof before it had expired", i, h.at.Sub(until))
			}
			until = claim.ExpiresAt(h.Proof.Tick.Step)
			if left := until.Sub(h.at); left > 66*time.Second || left < 65*time.Second {
				t.Errorf("heartbeat %d is proven for %v, want 66 s", i, left)
			}
		}
		if records < 5 || records > 8 {
			t.Errorf("%d records in five hours", records)
		}
		if leave, err := verifier.Read(s.sent()[len(s.sent())-1].Proof.Record); err != nil || !leave.Leave() || leave.Seq <= claim.Seq {
			t.Errorf("the leave is %+v, %v", leave, err)
		}
		t.Logf("%d heartbeats, %d records", len(s.sent())-1, records)
	})
}

func TestARecordIsSentAgainWhenItIsAskedForOrSaysSomethingElse(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{answer: func(n int, r ports.Registration) (ports.Lease, error) {
			if n == 3 { // it has forgotten all, and grants nothing before it knows more
				return ports.Lease{NeedRecord: true, Now: time.Now()}, nil
			}
			return granting(n, r)
		}}
		stop := s.run(t)
		defer stop()
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if len(s.sent()) != 2 || s.sent()[0].Proof.Record == nil || s.sent()[1].Proof.Record != nil {
			t.Fatalf("the first two are %+v", s.sent())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(s.sent()) != 4 || s.sent()[2].Proof.Record != nil || s.sent()[3].Proof.Record == nil || !s.sent()[3].at.Equal(s.sent()[2].at) {
			t.Fatalf("asked for the record, it sent %+v", s.sent()[2:])
		}
		s.change(func() { s.meta = map[string]string{"zone": "b"} })
		time.Sleep(time.Minute)
		synctest.Wait()
		if next := s.sent()[4].Proof; next.Record == nil || next.Tick.Seq <= s.sent()[0].Proof.Tick.Seq {
			t.Errorf("with other metadata it sent %+v", next)
		}
	})
}

// The next record does without what a native cannot show to be the indexer's, but for the first,
// which no native can take from it.
func TestARecordDoesWithoutWhatCannotBeShown(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{addrs: []string{"here", "there", "elsewhere"}}
		verifier := proof.NewVerifier()
		s.answer = func(n int, r ports.Registration) (ports.Lease, error) {
			if r.Proof.Record != nil {
				claim, err := verifier.Read(r.Proof.Record)
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(claim.Addrs, "there") {
					refusal := ports.Refuse(ports.CodeAddrInvalid, "not yours")
					refusal.Unshown = []string{"here", "there", "of nobody"}
					return ports.Lease{}, refusal
				}
				if !slices.Equal(claim.Addrs, []string{"here", "elsewhere"}) {
					t.Errorf("the record has %q", claim.Addrs)
				}
			}
			return granting(n, r)
		}
		stop := s.run(t)
		synctest.Wait()
		if len(s.sent()) != 2 || s.events.Count(ports.EventLeaseGranted) != 1 {
			t.Errorf("at once it sent %d", len(s.sent()))
		}
		time.Sleep(90 * time.Minute) // and then it is tried once more
		stop()
		if n := s.events.Count(ports.EventLeaseFailed); n != 0 {
			t.Errorf("%d registrations failed", n)
		}
	})
}

// A native that asks for ever gets no flood.
func TestAnInsatiableNativeIsANativeThatFails(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{answer: func(int, ports.Registration) (ports.Lease, error) { return ports.Lease{NeedRecord: true}, nil }}
		stop := s.run(t)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(s.sent()); n > 3*140 || s.events.Count(ports.EventLeaseFailed) == 0 {
			t.Errorf("%d registrations in an hour, %d failures told", n, s.events.Count(ports.EventLeaseFailed))
		}
	})
}

func TestAnIndexerGoesByItsNativesClock(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Hour, -time.Minute, -5 * time.Second, time.Second, 20 * time.Second, time.Hour} {
		porttest.FakeTime(t, func(t *testing.T) {
			s := &signingIndexer{ahead: ahead, answer: granting}
			stop := s.run(t)
			defer stop()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			last := s.sent()[len(s.sent())-1]
			issued := time.UnixMilli(last.Proof.Tick.Seq).Sub(s.sent()[0].at)
			// An indexer that was ahead cannot go back behind its own record, which no native has taken.
			if ahead <= 0 && issued.Abs() > clockDrift(domain.DefaultTTLPolicy()) {
				t.Errorf("%v ahead: its record is of %v", ahead, issued)
			}
			s.change(func() { s.ahead += time.Hour }) // which nobody notices
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if got := s.sent()[len(s.sent())-1].Proof.Tick; got.Seq != last.Proof.Tick.Seq {
				t.Errorf("%v ahead: when the clock jumped it issued %+v after %+v", ahead, got, last.Proof.Tick)
			}
		})
	}
}

// A lone native may have booted with a wrong clock. The indexer's clock is right.
func TestALoneNativeSetsNoIndexersClock(t *testing.T) {
	for _, tc := range []struct {
		ahead time.Duration
		want  time.Duration
	}{{time.Hour, 0}, {-time.Hour, 0}, {20 * time.Second, 10 * time.Second}} {
		porttest.FakeTime(t, func(t *testing.T) {
			s := &signingIndexer{answer: func(int, ports.Registration) (ports.Lease, error) {
				return domain.DefaultTTLPolicy().Grant(time.Now().Add(tc.ahead)), nil
			}}
			stop := s.run(t)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			sent := s.sent()
			stop()
			last := sent[len(sent)-1]
			if off := time.UnixMilli(last.Proof.Tick.Seq).Sub(sent[0].at); (off - tc.want).Abs() > clockDrift(domain.DefaultTTLPolicy()) {
				t.Errorf("the native is %v ahead, and the record is of %v", tc.ahead, off)
			}
		})
	}
}

// A native that lies of its clock, or of numbers that it has seen, uses up no numbers.
func TestALyingNativeUsesUpNoNumbers(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{answer: func(int, ports.Registration) (ports.Lease, error) {
			lease := domain.DefaultTTLPolicy().Grant(time.Now().AddDate(1, 0, 0))
			lease.NeedRecord, lease.Seq = true, 1<<50
			return lease, nil
		}}
		stop := s.run(t)
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		highest := int64(0)
		for _, h := range s.sent() {
			highest = max(highest, h.Proof.Tick.Seq)
		}
		if ahead := time.Until(time.UnixMilli(highest)); ahead > maxLead || len(s.sent()) > 4*70 {
			t.Errorf("after %d registrations its last record is %v ahead, want a day at most", len(s.sent()), ahead)
		}
	})
}

func TestAnOlderProcessWithTheSameKeyEndsItself(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		s := &signingIndexer{answer: func(n int, r ports.Registration) (ports.Lease, error) {
			if n > 2 {
				return ports.Lease{}, ports.Refuse(ports.CodeSuperseded, "another one")
			}
			return granting(n, r)
		}}
		stop := s.run(t)
		time.Sleep(time.Hour)
		stop()
		if len(s.sent()) != 3 || s.events.Count(ports.EventRival) != 1 {
			t.Errorf("it sent %d, and told of %d rivals; want 3 and no leave", len(s.sent()), s.events.Count(ports.EventRival))
		}
	})
}

func TestAnAbsurdClockUsesUpNoNumbers(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		var highest int64
		at := func(now func() time.Time) ports.Native {
			return porttest.Native{
				OnRegister: func(_ context.Context, _ ports.PeerID, r ports.Registration) (ports.Lease, error) {
					if r.Proof != nil {
						highest = max(highest, r.Proof.Tick.Seq)
					}
					lease := domain.DefaultTTLPolicy().Grant(now())
					return lease, nil
				},
				OnLeave: func(context.Context, ports.PeerID, []byte) error { return nil },
			}
		}
		clock := domain.NewClock(nil, nil)
		clock.Abstain(domain.EnoughNatives)
		x, err := NewIndexer(domain.Rules{Self: key.PeerID, Policy: domain.DefaultTTLPolicy(), Clock: clock}, key, PinNatives(map[ports.PeerID]ports.Native{
			"honest": at(time.Now),
			"liar":   at(func() time.Time { return time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) }),
		}), func() ports.Registration { return ports.Registration{PeerID: key.PeerID, Addr: "here"} }, &porttest.Recorder{})
		if err != nil {
			t.Fatal(err)
		}
		stop := running(t, x)
		time.Sleep(10 * time.Minute)
		stop()
		if ahead := time.Until(time.UnixMilli(highest)); ahead > maxLead {
			t.Errorf("its records are numbered %v ahead of now (the year %d)", ahead, time.UnixMilli(highest).Year())
		}
	})
}
