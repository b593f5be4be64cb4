package domain_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/memory"
	"github.com/opencloud/ocnode/adapters/proof"
	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
)

// proven starts worlds whose natives check proofs.
func proven(t *testing.T, f func(t *testing.T, m *mesh)) {
	meshed(t, func(t *testing.T, m *mesh) {
		m.rules.Proofs = proof.NewVerifier()
		m.space = memory.NewSpace(m.rules.Acceptable)
		f(t, m)
	})
}

const (
	liars  = 50
	rounds = 10
)

// way is how others' word of an indexer reaches a native.
type way struct {
	name string
	// open returns what has the native told that entry, which the bubble then takes in.
	open func(m *mesh, n *follower) (tell func(ports.Entry), end func())
}

// ways are those that lead past the indexer's own connection.
var ways = []way{
	{"gossip, to what is held here", func(m *mesh, n *follower) (func(ports.Entry), func()) {
		store := n.store.(*said)
		return func(e ports.Entry) {
			store.here.Store(e.PeerID, e)
			n.Hear(ports.Announcement{PeerID: e.PeerID, From: "liar"})
		}, func() {}
	}},
	{"gossip, to what the DHT answers", func(m *mesh, n *follower) (func(ports.Entry), func()) {
		store := n.store.(*said)
		return func(e ports.Entry) {
			store.there.Store(e.PeerID, e)
			n.Hear(ports.Announcement{PeerID: e.PeerID, From: "liar"})
		}, func() {}
	}},
	{"watch", func(m *mesh, n *follower) (func(ports.Entry), func()) {
		liar := m.teller("liar", nil)
		return func(e ports.Entry) {
			e.Native = "liar"
			liar.tell(ports.Change{Kind: ports.ChangeUpdated, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
		}, liar.stop
	}},
}

// said is a store that says what it was told to: here at once, there to who asks the network.
type said struct{ here, there sync.Map }

func (s *said) Put(context.Context, ports.Entry) (int, error) { return 1, nil }
func (s *said) Joined() <-chan struct{}                       { return nil }
func (s *said) Local(id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	return load(&s.here, id)
}
func (s *said) Get(_ context.Context, id ports.PeerID, _ ports.Version) (ports.Entry, error) {
	return load(&s.there, id)
}

func load(m *sync.Map, id ports.PeerID) (ports.Entry, error) {
	e, ok := m.Load(id)
	if !ok {
		return ports.Entry{}, ports.ErrNotFound
	}
	entry := e.(ports.Entry)
	if p := entry.Proof; p != nil { // as it comes from the wire
		entry.Proof = &ports.Proof{Record: p.Record, Tick: p.Tick}
	}
	return entry, nil
}

// Each lie is one change of a word that is accepted beside it. None is believed, and each is
// refused for what is wrong with it.
func TestAttackNoLieIsBelievedOfOthers(t *testing.T) {
	who, attackers := prooftest.NewSigners(t, prooftest.Attacks()/100), prooftest.NewSigners(t, liars)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			honest, tally := 0, prooftest.NewTally()
			for _, class := range prooftest.Classes() {
				proven(t, func(t *testing.T, m *mesh) {
					n := m.native(peerIDs(1)[0], member{store: &said{}})
					tell, end := way.open(m, n)
					defer end()
					defer n.stop()
					var all []*prooftest.Victim
					for _, s := range who {
						v := prooftest.NewVictim(t, s, time.Now())
						all = append(all, v)
						tell(v.Before.Entry(0))
					}
					synctest.Wait()
					for round := range rounds {
						if round > 0 {
							time.Sleep(prooftest.Interval)
						}
						for _, v := range all {
							v.Step = uint32(round)
							tell(v.Now.Entry(v.Step))
						}
						synctest.Wait()
						honest += stand(t, n, all)
						if round == 0 {
							n.Take()
							continue // there is nothing older than the first tick
						}
						for lied := 0; lied*(rounds-1) < prooftest.Attacks(); lied += len(all) {
							for i, v := range all {
								lie := v.Lie(t, class, lied+i, attackers[(lied+i)%liars])
								tally.Lied(lie)
								tell(lie.Entry)
							}
							synctest.Wait()
							tally.Told(n.Take())
							tally.Check(t)
						}
						stand(t, n, all)
					}
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d honest words accepted; lies refused: %v; by what was wrong with them: %v", honest, tally.Lies, tally.Refused)
			tally.Enough(t, prooftest.Classes(), prooftest.Attacks())
		})
	}
}

// stand tells how many of all are listed with their last word, which all are to be.
func stand(t *testing.T, n *follower, all []*prooftest.Victim) (standing int) {
	t.Helper()
	for _, v := range all {
		want := v.Now.Entry(v.Step)
		got, ok := n.Get(v.PeerID)
		if !ok || got.Addr != want.Addr || !got.ExpiresAt.Equal(want.ExpiresAt) || got.Proof == nil || got.Proof.Tick != want.Proof.Tick {
			t.Fatalf("at step %d it is listed %v as %+v, want %+v", v.Step, ok, got, want)
		}
		standing++
	}
	return standing
}
