package domain

import (
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// An indexer reveals its last step at once, and dies.
func TestATickThatIsNotDueProvesNothing(t *testing.T) {
	key := prooftest.NewSigner(t)
	const step = 5
	// faultOf returns the one fault that the observer was told, "" without a fault.
	faultOf := func(t *testing.T, events *porttest.Recorder) (fault ports.Fault) {
		for _, e := range events.Of(ports.EventFaulty) {
			fault = e.Fault
		}
		return fault
	}
	// A path hands the proof to a node in one of the ways in, and returns why it does not count.
	type path func(t *testing.T, r *Registry, events *porttest.Recorder, w prooftest.Word, step uint32) ports.Fault
	register := func(record bool) path {
		return func(t *testing.T, r *Registry, _ *porttest.Recorder, w prooftest.Word, step uint32) ports.Fault {
			reg := w.Registration(step)
			if !record {
				reg.Proof.Record = nil
			}
			lease, err := r.Register(t.Context(), key.PeerID, reg)
			if err != nil || lease.TTL == 0 {
				t.Errorf("got %+v, %v, want a lease by any clock", lease, err)
			}
			listed, _ := r.Get(key.PeerID)
			if proven := listed.Proof != nil; proven == lease.NeedRecord {
				t.Errorf("proven: %t, and the record is asked for: %t", proven, lease.NeedRecord)
			}
			if lease.NeedRecord {
				return ports.FaultFuture
			}
			return ""
		}
	}
	tell := func(record bool) path {
		return func(t *testing.T, r *Registry, events *porttest.Recorder, w prooftest.Word, step uint32) ports.Fault {
			e := w.Entry(step)
			if e.Native = "other"; !record {
				e.Proof.Record = nil
			}
			r.takeChanges("other", []ports.Change{{Kind: ports.ChangeJoined, Listed: ports.Listed{Entry: e, Remaining: time.Minute}}})
			listed, ok := r.Get(key.PeerID)
			fault := faultOf(t, events)
			if proven := listed.Proof != nil && listed.Proof.Tick.Step == step; !ok || proven == (fault != "") || listed.Remaining > time.Minute {
				t.Errorf("it lists %+v, want the lease as the other told it, proven or not", listed)
			}
			return fault
		}
	}
	for _, way := range []struct {
		name  string
		known bool // the node has the record already
		path  path
	}{
		{"registered with its record", false, register(true)},
		{"registered alone", true, register(false)},
		{"told with its record", false, tell(true)},
		{"told alone", true, tell(false)},
		{"in the store", false, func(t *testing.T, r *Registry, events *porttest.Recorder, w prooftest.Word, step uint32) ports.Fault {
			_, _, err := r.takeEntry(key.PeerID, callers, w.Entry(step))
			r.faulty(key.PeerID, "", err)
			return faultOf(t, events)
		}},
		{"answered", false, func(t *testing.T, r *Registry, events *porttest.Recorder, w prooftest.Word, step uint32) ports.Fault {
			tellFault(events, key.PeerID, "", r.rules.CheckAnswer(&ports.Answer{Listed: ports.Listed{Entry: w.Entry(step)}}))
			return faultOf(t, events)
		}},
	} {
		for _, tt := range []struct {
			name string
			off  time.Duration // from the first moment at which the tick is taken
			want ports.Fault
		}{
			{"the instant before", -1, ports.FaultFuture},
			{"at it", 0, ""},
			{"the instant after", 1, ""},
		} {
			t.Run(way.name+", "+tt.name, func(t *testing.T) {
				porttest.FakeTime(t, func(t *testing.T) {
					r, events := bareRegistry(t, "me", nil)
					w := key.Says(t, time.Now(), 1, "/a")
					if way.known {
						register(true)(t, r, events, w, 0)
					}
					time.Sleep(step*prooftest.Interval - ports.ClockAllowance + tt.off)
					if got := way.path(t, r, events, w, step); got != tt.want {
						t.Errorf("the fault is %q, want %q", got, tt.want)
					}
				})
			})
		}
	}
}

// The clock of an indexer is an hour ahead. It is listed here and elsewhere as soon as it goes by
// the native's clock.
func TestAnIndexerWithAnEarlyTickIsAskedForItsRecord(t *testing.T) {
	key := prooftest.NewSigner(t)
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", nil)
		answer := func(reg ports.Registration) ports.Lease {
			t.Helper()
			lease, err := r.Register(t.Context(), key.PeerID, reg)
			if err != nil {
				t.Fatal(err)
			}
			return lease
		}
		began := time.Now()
		w := key.Says(t, began, 1, "/a")
		answer(w.Registration(0))
		time.Sleep(prooftest.Interval)
		lease := answer(w.Registration(prooftest.Steps - 1))
		if !lease.NeedRecord || lease.TTL == 0 || !lease.Now.Equal(time.Now()) || lease.Seq != began.UnixMilli() {
			t.Errorf("it answers %+v, want a lease, its clock, and to be sent another record", lease)
		}
		if lease = answer(w.Registration(1)); lease.NeedRecord {
			t.Errorf("the tick that is due is asked for again: %+v", lease)
		}
		answer(w.Registration(prooftest.Steps - 1))
		lease = answer(key.Says(t, lease.Now.Add(time.Millisecond), 1, "/a").Registration(0))
		if listed, _ := r.Get(key.PeerID); lease.NeedRecord || listed.Proof == nil {
			t.Errorf("with a record by that clock it answers %+v, and lists %+v", lease, listed)
		}
	})
}

// An indexer that beats every heartbeat, and not when its steps are due, falls behind them.
func TestALeaseSaysThatItsProofEndsBeforeTheNextHeartbeat(t *testing.T) {
	key := prooftest.NewSigner(t)
	const step = 3
	for _, tt := range []struct {
		name string
		late time.Duration // from when the step is due
		want time.Duration
	}{
		{"as the step is due", 0, 0},
		{"the proof lasts for a heartbeat", 6 * time.Second, 0},
		{"an instant less", 6*time.Second + 1, time.Minute - 1},
		{"it ends in an instant", 66*time.Second - 1, 1},
		{"it ends now", 66 * time.Second, -1},
		{"it has ended", 70 * time.Second, -4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r, _ := bareRegistry(t, "me", nil)
				w := key.Says(t, time.Now(), 1, "/a")
				time.Sleep(step*prooftest.Interval + tt.late)
				lease, err := r.Register(t.Context(), key.PeerID, w.Registration(step))
				if err != nil || lease.Proven != tt.want || lease.TTL == 0 {
					t.Errorf("it answers %+v, %v, want it proven for %v", lease, err, tt.want)
				}
			})
		})
	}
	t.Run("no proof", func(t *testing.T) {
		porttest.FakeTime(t, func(t *testing.T) {
			r, _ := bareRegistry(t, "me", nil)
			if lease, err := r.Register(t.Context(), "x", ports.Registration{PeerID: "x", Addr: "/a"}); err != nil || lease.Proven != 0 {
				t.Errorf("it answers %+v, %v", lease, err)
			}
		})
	})
}
