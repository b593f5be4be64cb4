package domain_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// eachForm runs a test with a rogue that tells by number, and with a rogue that tells as natives of
// earlier versions do. The race detector finds nothing new in the second.
func eachForm(t *testing.T, name string, f func(t *testing.T, byNumber bool)) {
	t.Run(name+", by number", func(t *testing.T) { f(t, true) })
	if !porttest.Raced() {
		t.Run(name, func(t *testing.T) { f(t, false) })
	}
}

func TestAttackARogueNativeNeitherMovesALiveIndexerNorKeepsADeadOne(t *testing.T) {
	for _, c := range []struct {
		name   string
		plain  domain.Plain
		leaves bool
		lone   bool          // has its lease with the rogue alone
		off    time.Duration // how far the rogue says that the clock is ahead
		after  time.Duration
	}{
		{"killed", domain.PlainAccept, false, false, 0, 50 * time.Minute},
		{"killed, and the rogue's clock is an hour late", domain.PlainAccept, false, false, -time.Hour, 50 * time.Minute},
		{"killed, and its record ends", domain.PlainRefuse, false, false, time.Hour, 80 * time.Minute},
		{"killed, known to the rogue alone", domain.PlainAccept, false, true, -time.Hour, 50 * time.Minute},
		{"left", domain.PlainAccept, true, false, -time.Hour, 50 * time.Minute},
		{"left, and its record ends", domain.PlainRefuse, true, false, 0, 80 * time.Minute},
	} {
		eachForm(t, c.name, func(t *testing.T, byNumber bool) {
			keys, samples := prooftest.NewSigners(t, 2), 0
			withRogueNative(t, 3, c.plain, byNumber, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
				r.now = func() time.Time { return time.Now().Add(c.off) }
				at := []ports.PeerID{r.natives[0], r.PeerID}
				if r.alone = c.lone; c.lone {
					at = at[1:]
				}
				beside := net.indexer(keys[1], indexerOptions{addr: addr}, r.natives[1])
				x := net.indexer(keys[0], indexerOptions{addr: addr}, at...)
				time.Sleep(2 * time.Second)
				look := func(x ports.PeerID, lists bool, why string) {
					t.Helper()
					for i, n := range honest {
						samples++
						if got, ok := n.Get(x); ok != lists || ok && got.Addr != addr {
							t.Fatalf("%s: native %d lists %v, %+v", why, i, ok, got)
						}
					}
				}
				pause := func(until time.Time, every time.Duration, check func()) {
					for next := time.Now(); time.Now().Before(until); time.Sleep(250 * time.Millisecond) {
						if !time.Now().Before(next) {
							r.lieOf(t, x.id, []string{addr, rogueAddr}[r.said%2])
							synctest.Wait()
							next = time.Now().Add(every)
						}
						check()
						look(beside.id, true, "an honest indexer beside")
					}
				}
				pause(time.Now().Add(prooftest.Brief(150*time.Second)+time.Duration(mathrand.IntN(60))*time.Second), time.Second, func() { look(x.id, true, "alive") })

				ends := time.Now().Add(2 * time.Second)
				if c.leaves {
					x.stop()
					pause(ends, time.Second, func() {})
				} else {
					x.kill()
					ends = r.lastWord(t)
					pause(ends, time.Second, func() { look(x.id, true, "until its last tick runs out") })
				}
				time.Sleep(time.Until(ends))
				gone := func() { look(x.id, false, "gone") }
				gone()
				pause(time.Now().Add(prooftest.Brief(2*time.Minute)), time.Second, gone)
				pause(time.Now().Add(prooftest.Brief(c.after)), 10*time.Second, gone)
				t.Logf("%d times all that it can say; %d samples", r.said, samples)

				// An indexer that comes back is there again.
				x = net.indexer(keys[0], indexerOptions{addr: addr}, r.natives[2])
				time.Sleep(2 * time.Second)
				look(x.id, true, "it came back")
				x.kill()
				beside.kill()
			})
		})
	}
}

// A tick that a native held back says when its indexer was alive, and no more, whenever it is
// told.
func TestAttackATickThatWasWithheldListsNobodyForLongerThanItSays(t *testing.T) {
	key := prooftest.NewSigner(t)
	withRogueNative(t, 3, domain.PlainAccept, true, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
		x := net.indexer(key, indexerOptions{addr: addr}, r.PeerID)
		time.Sleep(3*time.Minute + time.Second)
		known := r.lastWord(t)
		r.heard.Lock()
		r.withholds = true
		from := len(r.heard.proofs)
		r.heard.Unlock()
		samples := 0
		look := func(lists bool) {
			t.Helper()
			for _, n := range honest {
				samples++
				if n.lists(x.id) != lists {
					t.Fatalf("listed: %v", !lists)
				}
			}
		}
		during := func(until time.Time, lists bool) {
			t.Helper()
			for ; time.Now().Before(until); time.Sleep(min(100*time.Millisecond, time.Until(until))) {
				look(lists)
			}
		}
		during(known, true)
		during(known.Add(4*time.Minute), false)
		x.kill()
		r.heard.Lock()
		late := slices.Clone(r.heard.proofs[from:])
		r.heard.Unlock()
		if len(late) < 4 {
			t.Fatalf("%d ticks were withheld", len(late))
		}
		// The last one proves that it was alive just now, and all before it nothing any more.
		for _, p := range late[:len(late)-1] {
			r.release(p)
			if !time.Now().Before(r.proves(p).ExpiresAt) {
				during(time.Now().Add(time.Second), false)
			}
		}
		r.release(late[len(late)-1])
		synctest.Wait()
		during(r.lastWord(t), true)
		for _, p := range append(late, late...) {
			during(time.Now().Add(time.Minute), false)
			r.release(p)
			r.again(len(late))
		}
		t.Logf("%d ticks withheld, %d samples", len(late), samples)
	})
}

func TestAttackWhoLeftIsNotListedWithinTheHourWhateverIsSaidAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		plain domain.Plain
		off   time.Duration // how far the rogue says that the clock is ahead
	}{
		{"in an open network", domain.PlainAccept, 0},
		{"and the rogue's clock is an hour late", domain.PlainAccept, -time.Hour},
		{"and all have to sign", domain.PlainRefuse, time.Hour},
	} {
		eachForm(t, c.name, func(t *testing.T, byNumber bool) {
			keys, said := prooftest.NewSigners(t, 2), time.Duration(porttest.Scale(60, 20))*time.Minute
			withRogueNative(t, 3, c.plain, byNumber, func(t *testing.T, net *followingNetwork, r *rogueNative, honest []*followingNative) {
				r.now = func() time.Time { return time.Now().Add(c.off) }
				beside := net.indexer(keys[1], indexerOptions{addr: addr}, r.natives[1])
				x := net.indexer(keys[0], indexerOptions{addr: addr}, r.natives[0], r.natives[1], r.PeerID)
				time.Sleep(4*time.Minute + 10*time.Second)
				old, err := honest[2].store.Local(x.id, ports.Version{})
				if err != nil || old.Proof == nil {
					t.Fatalf("the store has %+v, %v", old, err)
				}
				x.stop()
				time.Sleep(2 * time.Second)
				samples, step := 0, time.Duration(porttest.Scale(100, 1000))*time.Millisecond
				natives := slices.Clone(honest)
				for began := time.Now(); time.Since(began) < said; time.Sleep(step) {
					for i, n := range natives {
						if n == nil {
							continue
						}
						samples++
						if got, ok := n.Get(x.id); ok {
							t.Fatalf("%v after it left, native %d lists %+v", time.Since(began), i, got)
						}
						if !n.lists(beside.id) && time.Since(began).Round(100*time.Millisecond)%(5*time.Minute) > time.Second {
							t.Fatalf("%v after the other left, native %d does not list who is there", time.Since(began), i)
						}
					}
					switch at := time.Since(began).Round(100 * time.Millisecond); {
					case at == 5*time.Minute: // one is restarted, and is away for a while
						natives[2].stop()
						natives[2] = nil
					case at == 10*time.Minute:
						natives[2] = net.native(r.natives[2], r.misled())
					case at == 15*time.Minute: // and one is new
						natives = append(natives, net.native(peerIDs(9)[8], r.misled()))
					case at%(5*time.Second) == 0:
						_, _ = r.store.Put(t.Context(), old)
						r.lies.Store(x.id, old)
						_ = r.voice.Announce(t.Context(), x.id)
					}
					if time.Since(began).Round(100*time.Millisecond)%(30*time.Second) == 0 {
						r.lieOf(t, x.id, []string{addr, rogueAddr}[r.said%2])
					}
				}
				t.Logf("%d samples", samples)
				beside.kill()
				net.stop(natives...)
			})
		})
	}
}

// A native that has missed a record, and hears the ticks after it, asks for it. It asks once if it
// is not given.
func TestAttackARecordThatWasMissedIsAskedForOfWhoeverTellsItsTicks(t *testing.T) {
	for _, gives := range []bool{true, false} {
		t.Run(fmt.Sprintf("given %v", gives), func(t *testing.T) {
			withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
				n := net.native(peerIDs(1)[0], nativeOptions{})
				defer n.stop()
				other := net.scriptedNative("other", nil)
				defer other.stop()
				x := prooftest.NewSigner(t).Says(t, time.Now(), 1, addr)
				listed := func(step uint32) ports.Listed {
					e := x.Entry(step)
					e.Native = "other"
					return ports.Listed{Entry: e, State: ports.StateLive, Remaining: prooftest.TTL}
				}
				tick := listed(1)
				tick.Proof = &ports.Proof{Tick: tick.Proof.Tick}
				other.find = func(ports.PeerID) (ports.Answer, error) {
					if gives {
						return ports.Answer{Listed: listed(1)}, nil
					}
					return ports.Answer{Listed: tick}, nil
				}
				time.Sleep(prooftest.Interval)
				other.tell(ports.Change{Kind: ports.ChangeRenewed, Listed: tick})
				time.Sleep(time.Second)
				synctest.Wait()
				t.Logf("asked %d times", other.asks)
				if n.lists(x.Claim.PeerID) != gives || other.asks != 1 {
					t.Errorf("listed %v, asked %d times", n.lists(x.Claim.PeerID), other.asks)
				}
			})
		})
	}
}

// Natives that do not lie are refused nothing, and no event says so: neither for a change that is
// told twice, nor for a change that was under way while a native was cut off.
func TestAmongHonestNativesNothingIsRefused(t *testing.T) {
	withSigningFollowingNetwork(t, func(t *testing.T, net *followingNetwork) {
		id, all := peerIDs(3), net.natives(3, nativeOptions{shares: true})
		defer net.stop(all...)
		time.Sleep(time.Second)
		both := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[0], id[1])
		one := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[2])
		dies := net.indexer(prooftest.NewSigner(t), indexerOptions{addr: addr}, id[1])
		time.Sleep(90 * time.Minute) // in which all records are renewed
		one.stop()
		dies.kill()
		time.Sleep(10 * time.Second)
		all[2].cut()
		time.Sleep(5 * time.Minute)
		all[2].heal()
		time.Sleep(5 * time.Minute)
		back := net.native(peerIDs(4)[3], nativeOptions{shares: true}) // and one comes late
		all = append(all, back)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		faults := map[ports.Fault]int{}
		for i, n := range all {
			for _, e := range n.Of(ports.EventTold) {
				if e.Refused > 0 {
					t.Errorf("native %d refuses %d of %s: %v", i, e.Refused, e.Via, e.Err)
				}
			}
			for _, e := range n.Of(ports.EventFaulty) {
				if faults[e.Fault]++; e.Fault != ports.FaultOlder {
					t.Errorf("native %d: %v", i, e.Err)
				}
			}
			if !n.lists(both.id) || n.lists(one.id) || n.lists(dies.id) {
				t.Errorf("native %d lists %t, %t and %t", i, n.lists(both.id), n.lists(one.id), n.lists(dies.id))
			}
		}
		t.Logf("%v", faults)
		both.stop()
	})
}
