package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/ports"
)

const (
	// asksInHeartbeat is how often a superseded process asks for its rival in a heartbeat: once a
	// second, so that a leave is noticed within two. The native answers from its table.
	asksInHeartbeat = 60
	// maxRivalAsked bounds the natives that are asked together before a process comes back.
	maxRivalAsked = 8
)

// outlive returns true once no other process with this key is live, and false when ctx has ended
// before. It asks one native at a time while the rival lives. Two processes that wait for the same
// rival do not come back at the same moment: each waits a while, and asks again.
func (x *Indexer) outlive(ctx context.Context) bool {
	pause := x.heartbeat / asksInHeartbeat
	lived := x.clock.Instant() // when a rival was shown last, or no native answered
	for wait := pause; ; wait = domain.Early(pause, rand.Float64()) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		natives := x.rivalsNatives(ctx)
		says := unknown
		for i := 0; i < len(natives) && says == unknown; i++ {
			says = x.askForRival(ctx, natives[i])
		}
		if x.mayLive(&lived, says) {
			continue
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Duration(rand.Float64() * float64(pause))):
		}
		if !x.mayLive(&lived, x.askAllForRival(ctx, natives)...) && ctx.Err() == nil {
			return true
		}
	}
}

// rivalsNatives returns the natives to ask for the rival: those of bootstrap peers, so that strangers
// do not keep them out, and the best of the others. A native that failed is among them after a pause,
// and the last.
func (x *Indexer) rivalsNatives(ctx context.Context) (able []candidate) {
	if x.natives.transport != nil {
		x.natives.meet()
	}
	now := time.Now()
	for _, c := range x.natives.best() {
		if !c.blind() && (c.standing <= untried || c.standing == doubted || c.standing == fails && !c.next.After(now)) {
			able = append(able, c)
		}
	}
	first := func(is func(candidate) bool) {
		slices.SortStableFunc(able, func(a, b candidate) int {
			switch {
			case is(a) == is(b):
				return 0
			case is(a):
				return -1
			}
			return 1
		})
	}
	first(func(c candidate) bool { return c.bootstrap })
	able = able[:min(len(able), maxRivalAsked)]
	first(func(c candidate) bool { return c.standing != fails })
	if len(able) == 0 && x.natives.transport != nil {
		x.natives.look(ctx, x.heartbeat, askNativeAgain)
	}
	return able
}

// mayLive reports whether a rival may be live by what natives say: one shows it, or none can tell. A
// native that has just started, or hears no other, can tell once no native has shown the rival for a
// TTL.
func (x *Indexer) mayLive(lived *domain.Instant, says ...rivalry) bool {
	best := unknown
	for _, s := range says {
		best = max(best, s)
	}
	if best == unknown || slices.Contains(says, lives) {
		*lived = x.clock.Instant()
		return true
	}
	return best != gone && x.clock.Instant().Sub(*lived) < x.ttl
}

func (x *Indexer) askAllForRival(ctx context.Context, natives []candidate) []rivalry {
	var asking sync.WaitGroup
	says := make([]rivalry, len(natives))
	for i, c := range natives {
		asking.Go(func() { says[i] = x.askForRival(ctx, c) })
	}
	asking.Wait()
	return says
}

// rivalry is what a native says of another process with this key.
type rivalry int

const (
	unknown rivalry = iota // it does not answer
	lives
	unseen // it shows none, and may have missed it
	gone   // it shows none
)

// askForRival asks a native. Only a rival's own proof shows that it lives: a native that lies keeps
// no process away.
func (x *Indexer) askForRival(ctx context.Context, c candidate) rivalry {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := c.native.LookUp(asking, x.self, x.self)
	_, refused := errors.AsType[*ports.Refusal](err)
	if err == nil || errors.Is(err, ports.ErrNotFound) {
		x.natives.noteLookUp(c.id, answers)
	}
	switch {
	case err == nil && x.rivals(a):
		return lives
	case errors.Is(err, ports.ErrNotOffered):
		x.natives.blind(c.id)
		return unknown
	case err != nil && !errors.Is(err, ports.ErrNotFound):
		if !refused && ctx.Err() == nil {
			x.natives.noteLookUp(c.id, fails)
		}
		return unknown
	case a.Condition != "":
		return unseen
	}
	return gone
}

// rivals reports whether an answer shows a live process with this key other than this one.
func (x *Indexer) rivals(a ports.Answer) bool {
	switch {
	case a.Leave:
		return false
	case x.records == nil || x.proofs == nil:
		return true // it may be this process's own last lease, which ends
	case a.Proof == nil || a.Proof.Record == nil:
		return false
	}
	claim, err := x.proofs.Verify(a.Proof.Record, a.Proof.Tick)
	return err == nil && claim.PeerID == x.self && !claim.Leave() && claim.Start != x.records.started() &&
		x.clock.Now().Before(claim.ExpiresAt(a.Proof.Tick.Step))
}
