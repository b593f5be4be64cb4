package domain_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

const liars = 50

var rounds = porttest.Scale(10, 4)

// route is how others' word of an indexer reaches a native.
type route struct {
	name string
	// open returns what has the native told that entry, which the bubble then takes in.
	open func(net *followingNetwork, n *followingNative) (tell func(ports.Entry), end func())
}

// byNumber is the route of News.
const byNumber = "watch by number"

// routes are those that lead past the indexer's own connection.
var routes = []route{
	{"gossip, to what is held here", func(net *followingNetwork, n *followingNative) (func(ports.Entry), func()) {
		store := n.store.(*plantedStore)
		return func(e ports.Entry) {
			store.here.Store(e.PeerID, e)
			n.Hear(ports.Announcement{PeerID: e.PeerID, From: "liar"})
		}, func() {}
	}},
	{"gossip, to what the DHT answers", func(net *followingNetwork, n *followingNative) (func(ports.Entry), func()) {
		store := n.store.(*plantedStore)
		return func(e ports.Entry) {
			store.there.Store(e.PeerID, e)
			n.Hear(ports.Announcement{PeerID: e.PeerID, From: "liar"})
		}, func() {}
	}},
	{"watch", func(net *followingNetwork, n *followingNative) (func(ports.Entry), func()) {
		liar := net.scriptedNative("liar", nil)
		return liar.tellEntry, liar.stop
	}},
	{byNumber, func(net *followingNetwork, n *followingNative) (func(ports.Entry), func()) {
		liar := net.scriptedNative("liar", nil)
		liar.tellByNumber(net.rules.Proofs)
		time.Sleep(time.Second)
		return liar.tellEntry, liar.stop
	}},
}

// Each lie is one change of a word that is accepted beside it. None is believed, and each is
// refused for what is wrong with it.
func TestAttackNoLieIsBelievedOfOthers(t *testing.T) {
	who, attackers := prooftest.NewSigners(t, prooftest.Attacks()/100), prooftest.NewSigners(t, liars)
	for _, way := range routes {
		t.Run(way.name, func(t *testing.T) {
			honest, tally := 0, prooftest.NewTally()
			for _, class := range prooftest.Classes() {
				withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
					n := net.native(peerIDs(1)[0], nativeOptions{store: &plantedStore{}})
					tell, end := way.open(net, n)
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
						honest += expectAllListed(t, n, all)
						if round == 0 {
							n.Take()
							continue // there is nothing older than the first tick
						}
						for lied := 0; lied*(rounds-1) < prooftest.Attacks(); lied += len(all) {
							for i, v := range all {
								n := lied + i
								if way.name == byNumber && class == prooftest.RolledBack {
									n *= 2 // the same again, and no renewal: a follower would ask for that, as for what it missed
								}
								lie := v.Lie(t, class, n, attackers[(lied+i)%liars])
								tally.Lied(lie)
								tell(lie.Entry)
							}
							synctest.Wait()
							tally.Told(n.Take())
							tally.Check(t)
						}
						expectAllListed(t, n, all)
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

// expectAllListed fails unless all are listed with their last word, and returns how many they are.
func expectAllListed(t *testing.T, n *followingNative, all []*prooftest.Victim) (listed int) {
	t.Helper()
	for _, v := range all {
		want := v.Now.Entry(v.Step)
		got, ok := n.Get(v.PeerID)
		if !ok || got.Addr != want.Addr || !got.ExpiresAt.Equal(want.ExpiresAt) || got.Proof == nil || got.Proof.Tick != want.Proof.Tick {
			t.Fatalf("at step %d it is listed %v as %+v, want %+v", v.Step, ok, got, want)
		}
		listed++
	}
	return listed
}
