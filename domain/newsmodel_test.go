package domain

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/opencloud/ocnode/adapters/proof/prooftest"
	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// Whatever indexers do, and however often the watch is cut, the follower lists what its native lists, refuses
// nothing, and finds no difference.
func TestAFollowerListsWhatItsNativeListsWhateverHappens(t *testing.T) {
	keys := prooftest.NewSigners(t, 6)
	for seed := range uint64(100) {
		porttest.FakeTime(t, func(t *testing.T) { followAtRandom(t, keys, rand.New(rand.NewPCG(seed, 13))) })
		if t.Failed() {
			t.Fatalf("with the seed %d", seed)
		}
	}
}

func followAtRandom(t *testing.T, keys []*prooftest.Signer, random *rand.Rand) {
	p := newPair(t, nil)
	cut := false
	defer func() {
		if !cut {
			p.reader.stop()
		}
	}()
	type signed struct {
		prooftest.Word
		began time.Time
	}
	words := make([]*signed, len(keys))
	proven := make(map[ports.PeerID]time.Time) // when the last tick ends
	history := []string{}
	do := func(format string, args ...any) { history = append(history, fmt.Sprintf(format, args...)) }
	register := func(i int, addr string, anew bool) {
		k := keys[i]
		w := words[i]
		if w == nil || anew || time.Since(w.began) > 30*time.Minute {
			w = &signed{began: time.Now()}
			w.Word = k.Says(t, w.began, 1, addr)
			words[i] = w
		}
		step := uint32(time.Since(w.began) / prooftest.Interval)
		_, err := p.teller.Register(t.Context(), k.PeerID, w.Registration(step))
		if err == nil {
			proven[k.PeerID] = w.Claim.ExpiresAt(step)
		}
		do("%d %v", i, err)
	}
	for range 60 {
		i := random.IntN(len(keys))
		plain := ports.PeerID(fmt.Sprintf("plain%d", i))
		switch random.IntN(14) {
		case 0, 1, 2:
			do("renew")
			register(i, "/a", false)
		case 3:
			do("sign anew")
			time.Sleep(time.Millisecond)
			register(i, "/a", true)
		case 4:
			do("sign anew elsewhere")
			time.Sleep(time.Millisecond)
			register(i, fmt.Sprintf("/b%d", random.IntN(3)), true)
		case 5, 6, 7:
			do("plain %d", i)
			_, _ = p.teller.Register(t.Context(), plain, ports.Registration{PeerID: plain, Addr: "/a"})
		case 8:
			do("plain %d elsewhere", i)
			_, _ = p.teller.Register(t.Context(), plain, ports.Registration{PeerID: plain, Addr: fmt.Sprintf("/b%d", random.IntN(3))})
		case 9:
			do("plain %d leaves", i)
			_ = p.teller.Leave(t.Context(), plain, nil)
		case 10:
			if cut {
				do("resume")
				p.begin(t, p.reader.cursor)
			} else {
				do("cut")
				p.reader.stop()
			}
			cut = !cut
		case 11:
			d := random.IntN(70)
			do("pass %d s", d)
			p.pass(d)
		case 12:
			p.pass(random.IntN(5))
		case 13:
			time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		}
	}
	if cut {
		p.begin(t, p.reader.cursor)
		cut = false
	}
	p.pass(12)
	for _, id := range append([]ports.PeerID{"plain0", "plain1", "plain2", "plain3", "plain4", "plain5"}, func() (ids []ports.PeerID) {
		for _, k := range keys {
			ids = append(ids, k.PeerID)
		}
		return ids
	}()...) {
		theirs, there := p.teller.Get(id)
		mine, here := p.hearer.Get(id)
		if ends, ok := proven[id]; there && ok { // a follower believes the proof alone
			theirs.Remaining = min(theirs.Remaining, time.Until(ends))
			there = here || theirs.Remaining > 0
		}
		if there != here || there && (mine.Addr != theirs.Addr || (mine.Remaining-theirs.Remaining).Abs() > time.Second) {
			t.Errorf("%s is listed there %v at %s for %v, and here %v at %s for %v", id, there, theirs.Addr, theirs.Remaining, here, mine.Addr, mine.Remaining)
		}
	}
	if !p.equal() {
		t.Errorf("the sums differ")
	}
	for _, e := range p.events.Of(ports.EventTold) {
		if e.Refused > 0 {
			t.Errorf("refused: %+v", e)
		}
	}
	for _, e := range p.events.Of(ports.EventReconciled) {
		t.Errorf("reconciled: %+v", e)
	}
	if t.Failed() {
		t.Log(history)
	}
}
