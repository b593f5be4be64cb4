package domain_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
	"pgregory.net/rapid"
)

// modelIndexer is what an indexer has signed, as the model knows it.
type modelIndexer struct {
	*prooftest.Signer
	word    prooftest.Word // the last
	said    bool
	left    bool
	moves   int
	history []ports.Entry                    // all that it has ever proven, each step
	ends    map[ports.Tick]time.Time         // of each of them
	heard   map[int]map[ports.Tick]time.Time // when a native was first given it at first hand
}

// step is that of its word now.
func (s *modelIndexer) step() uint32 {
	return min(uint32(time.Since(s.word.Claim.Issued())/prooftest.Interval), prooftest.Steps-1)
}

// modelStep is what an indexer, a liar or the network does, drawn beforehand.
type modelStep struct {
	op    string
	at    int // native
	who   int
	which int // of what was said before
	wait  time.Duration
}

// Indexers say anything to any native, and liars say it again. A native lists nothing that was
// not signed, and nothing for longer than was proven. Once they hear each other, all natives list
// what each indexer has signed last.
func TestAttackAfterWhateverWasSaidNativesAgreeOnWhatWasSignedLast(t *testing.T) {
	checked, runs, most := 0, 0, porttest.Scale(60, 15)
	fewerChecks(t, 3)
	rapid.Check(t, func(rt *rapid.T) {
		deeds := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) modelStep {
			return modelStep{
				op:    rapid.SampledFrom([]string{"beat", "beat", "beat", "move", "leave", "replay", "replay", "store", "cut", "heal", "restart", "wait"}).Draw(t, "op"),
				at:    rapid.IntRange(0, 2).Draw(t, "at"),
				who:   rapid.IntRange(0, 2).Draw(t, "who"),
				which: rapid.IntRange(0, 1000).Draw(t, "which"),
				wait:  time.Duration(rapid.SampledFrom([]int{0, 1, 300, 5000, 20_000, 57_000, 70_000, 600_000}).Draw(t, "ms")) * time.Millisecond,
			}
		}), 1, most).Draw(rt, "deeds")
		wrong := ""
		runs++
		withRogueNative(t, 3, domain.PlainRefuse, true, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
			var all []*modelIndexer
			for _, s := range prooftest.NewSigners(t, 3) {
				all = append(all, &modelIndexer{Signer: s, ends: map[ports.Tick]time.Time{}, heard: map[int]map[ports.Tick]time.Time{}})
			}
			last := func(s *modelIndexer) int64 { return s.word.Claim.Seq }
			issue := func(s *modelIndexer) {
				time.Sleep(2 * time.Millisecond) // or it would have the number of the one before, or of its leave
				s.word = s.Says(t, time.Now(), 1, fmt.Sprintf("/ip4/192.0.2.%d/tcp/4001", 1+s.moves%200))
				s.said, s.left = true, false
			}
			beat := func(s *modelIndexer, at int) {
				if !s.said || s.left || time.Since(s.word.Claim.Issued()) > 50*time.Minute {
					issue(s)
				}
				e := s.word.Entry(s.step())
				if _, err := honest[at].Register(t.Context(), s.PeerID, s.word.Registration(s.step())); err != nil {
					wrong = fmt.Sprintf("an honest heartbeat: %v", err)
				}
				if _, ok := s.ends[e.Proof.Tick]; !ok {
					s.ends[e.Proof.Tick] = e.ExpiresAt
					s.history = append(s.history, e)
				}
				if s.heard[at] == nil {
					s.heard[at] = map[ports.Tick]time.Time{}
				}
				if _, ok := s.heard[at][e.Proof.Tick]; !ok {
					s.heard[at][e.Proof.Tick] = time.Now()
				}
			}
			check := func() {
				for i, n := range honest {
					for _, s := range all {
						checked++
						got, ok := n.Get(s.PeerID)
						if !ok {
							continue
						}
						if got.Proof == nil {
							wrong = fmt.Sprintf("native %d lists what nobody signed: %+v", i, got)
							continue
						}
						ends, signed := s.ends[got.Proof.Tick]
						until := ends
						if first, ok := s.heard[i][got.Proof.Tick]; ok && first.Add(prooftest.TTL).After(ends) {
							until = first.Add(prooftest.TTL) // by its own clock, since then
						}
						if !signed || !time.Now().Before(until) {
							wrong = fmt.Sprintf("native %d lists %+v: signed %v, until %v, and it is %v", i, got, signed, until, time.Now())
						}
					}
				}
			}
			for _, d := range deeds {
				s := all[d.who]
				switch d.op {
				case "beat":
					beat(s, d.at)
				case "move":
					s.moves++
					s.left = s.said // issues another
					beat(s, d.at)
				case "leave":
					if s.said && !s.left && time.Since(s.word.Claim.Issued()) < ports.RecordLife {
						seq := time.UnixMilli(last(s) + 1)
						record := s.Leaves(t, seq, 1)
						s.word.Claim.Seq++
						s.left = true
						s.history = append(s.history, ports.Entry{PeerID: s.PeerID, Leave: true, ExpiresAt: seq.Add(prooftest.TTL).UTC(), Proof: &ports.Proof{Record: record, Tick: ports.Tick{Seq: seq.UnixMilli()}}})
						for _, n := range honest { // as indexers do
							if err := n.Leave(t.Context(), s.PeerID, record); err != nil {
								wrong = fmt.Sprintf("an honest leave: %v", err)
							}
						}
					}
				case "replay":
					if len(s.history) > 0 {
						e := s.history[d.which%len(s.history)]
						e.Native = r.PeerID
						kind := ports.ChangeUpdated
						if e.Leave {
							kind = ports.ChangeLeft
						}
						r.tell(ports.Change{Kind: kind, Listed: ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}})
					}
				case "store":
					if len(s.history) > 0 {
						r.lies.Store(s.PeerID, s.history[d.which%len(s.history)])
						_ = r.voice.Announce(t.Context(), s.PeerID)
					}
				case "cut":
					honest[d.at].cut()
				case "heal":
					honest[d.at].cut()
					honest[d.at].heal()
				case "restart":
					honest[d.at].stop()
					honest[d.at] = net.native(r.natives[d.at], r.misled())
					for _, s := range all {
						delete(s.heard, d.at)
					}
				}
				synctest.Wait()
				check()
				for wait := d.wait; wait > 0; wait -= min(wait, 10*time.Second) {
					time.Sleep(min(wait, 10*time.Second))
					check()
				}
				if wrong != "" {
					break
				}
			}
			for _, n := range honest {
				n.cut()
				n.heal()
				n.Take()
			}
			r.lies.Clear() // a peer that hides in the DHT what it knows is not to be helped
			time.Sleep(8 * time.Second)
			for i, s := range all {
				if s.said && !s.left {
					beat(s, i)
				}
			}
			time.Sleep(2 * time.Second)
			check()
			for _, s := range all {
				for i, n := range honest {
					got, ok := n.Get(s.PeerID)
					if lives := s.said && !s.left; wrong == "" && (ok != lives || ok && got.Addr != s.word.Claim.Addrs[0]) {
						wrong = fmt.Sprintf("in the end native %d lists %v %+v; it lives: %v, at %v; told %+v", i, ok, got, lives, s.word.Claim.Addrs, n.Take())
					}
				}
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
	t.Logf("%d networks, what they list held against the model %d times", runs, checked)
}
