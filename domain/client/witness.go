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
	// newsTime is how long the news of a lease may take to the other natives: a put in the DHT, and
	// the look-up by natives that hear of it. Natives that follow each other take milliseconds.
	newsTime = 5 * time.Second
	// maxMisses is how many looks in a row miss a lease before it is doubted: the news may be late,
	// or a native may have restarted just then.
	maxMisses = 2
	// wholeBelow is how many leases a native shows at the most that it holds all of: a native holds
	// four of an indexer. A lease beyond those may be missing for want of room.
	wholeBelow = 4
)

// witnesses are what other natives show of an indexer's leases. A native can grant leases and tell
// nobody of them. So the indexer looks itself up at another native, and doubts a lease that is not
// shown there. All methods may be called concurrently.
type witnesses struct {
	newsTime time.Duration
	observe  func(ports.EventKind, ports.PeerID)
	// doubt has the choice know that a lease is doubted, or is no longer. It is called without the
	// lock.
	doubt func(id ports.PeerID, doubted bool)

	listedFor time.Duration // how long the word counts that a native lists this indexer

	mu     sync.Mutex
	leases map[ports.PeerID]*witnessed
	listed time.Time     // when a native that the operator named said that it lists this indexer; zero if it does not
	alone  bool          // no other native shows any lease, as was observed last
	begun  chan struct{} // has a value after a lease has begun
}

// witnessed is a lease, as other natives show it.
type witnessed struct {
	since     time.Time // its first registration
	granted   bool      // by the last registration
	confirmed bool      // another native shows it
	misses    int       // looks in a row that did not, each at another native than the look before if there is another
	missedBy  ports.PeerID
}

func (w *witnessed) doubted() bool { return w.misses >= maxMisses }

func newWitnesses(heartbeat time.Duration, observe func(ports.EventKind, ports.PeerID)) *witnesses {
	return &witnesses{
		newsTime: min(newsTime, heartbeat/6), listedFor: maxMisses * heartbeat, observe: observe, doubt: func(ports.PeerID, bool) {},
		leases: make(map[ports.PeerID]*witnessed), begun: make(chan struct{}, 1),
	}
}

// registered takes in the outcome of a registration with the native id. A native of the seed says
// nothing of a lease.
func (w *witnesses) registered(id ports.PeerID, lease ports.Lease, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	granted := err == nil && !lease.Unconfirmed
	l := w.leases[id]
	switch {
	case l != nil:
		l.granted = granted
	case granted:
		w.leases[id] = &witnessed{since: time.Now(), granted: true}
		select {
		case w.begun <- struct{}{}:
		default:
		}
	}
}

// forget takes in that the indexer registers with the native id no more.
func (w *witnesses) forget(id ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.leases, id)
}

// doubts reports whether the lease at the native id is doubted.
func (w *witnesses) doubts(id ports.PeerID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.leases[id]
	return l != nil && l.doubted()
}

// known returns the natives whose leases others may know by now.
func (w *witnesses) known() (ids []ports.PeerID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, l := range w.leases {
		if l.granted && time.Since(l.since) >= w.newsTime {
			ids = append(ids, id)
		}
	}
	return ids
}

// heard takes in what a look-up at native by says of the leases at the natives of, which have the value
// true if no other native can say it. It reports whether a lease was missed that is not doubted yet.
func (w *witnesses) heard(of map[ports.PeerID]bool, by candidate, answer ports.Answer, err error) (again bool) {
	found := err == nil && !answer.Leave && answer.Remaining > 0
	shows := func(id ports.PeerID) bool {
		return found && (answer.Native == id || slices.Contains(answer.Natives, id))
	}
	// The DHT has one lease of an indexer, whatever others there are.
	whole := len(answer.Natives) > 0 && len(answer.Natives) < wholeBelow && answer.Source != ports.SourceStore
	knows := found && whole || errors.Is(err, ports.ErrNotFound)
	misses := func(id ports.PeerID) bool {
		switch answer.Condition {
		case "":
			return knows
		case ports.ConditionPartial: // it lacks the leases of those natives alone
			return knows && len(answer.Missing) < ports.MaxMissing && !slices.Contains(answer.Missing, id)
		}
		return false
	}
	turned := make(map[ports.PeerID]bool)
	w.mu.Lock()
	for id, sole := range of {
		l := w.leases[id]
		if l == nil {
			continue
		}
		doubted := l.doubted()
		switch {
		case shows(id):
			l.confirmed, l.misses = true, 0
		case misses(id):
			if sole || l.misses == 0 || l.missedBy != by.id {
				l.misses++
			}
			l.missedBy = by.id
			l.confirmed = l.confirmed && !l.doubted()
			again = again || !l.doubted()
		}
		if l.doubted() != doubted {
			turned[id] = !doubted
		}
	}
	if found || knows && answer.Condition == "" {
		if w.listed = (time.Time{}); by.bootstrap && found {
			w.listed = time.Now()
		}
	}
	w.mu.Unlock()
	for id, doubted := range turned {
		w.observe(kindOf(doubted), id)
		w.doubt(id, doubted)
	}
	w.settle()
	return again
}

// settle tells whether no other native shows any lease, if that has changed. The word of a native that
// lists this indexer counts no longer than two looks: the native may have died.
func (w *witnesses) settle() {
	w.mu.Lock()
	was := w.alone
	confirmed, doubted, _ := w.count()
	w.alone = doubted > 0 && confirmed == 0 && (w.listed.IsZero() || time.Since(w.listed) >= w.listedFor)
	alone := w.alone
	w.mu.Unlock()
	if alone != was {
		w.observe(kindOf(alone), "")
	}
}

func kindOf(doubted bool) ports.EventKind {
	if doubted {
		return ports.EventLeaseDoubted
	}
	return ports.EventLeaseConfirmed
}

// count returns how many leases another native shows, no other native shows, and no other native
// has been asked for yet. The caller holds the lock.
func (w *witnesses) count() (confirmed, doubted, unasked int) {
	for _, l := range w.leases {
		switch {
		case !l.granted:
		case l.confirmed:
			confirmed++
		case l.doubted():
			doubted++
		default:
			unasked++
		}
	}
	return confirmed, doubted, unasked
}

// Leases returns how many leases of this indexer another native shows, how many no other native
// shows, and how many no other native could be asked for.
func (x *Indexer) Leases() (confirmed, doubted, unasked int) {
	x.witnesses.mu.Lock()
	defer x.witnesses.mu.Unlock()
	return x.witnesses.count()
}

// Unlisted returns why this indexer may be listed nowhere, "" if nothing says so.
func (x *Indexer) Unlisted() string {
	x.mu.Lock()
	leases := 0
	for _, lease := range x.leases {
		if x.clock.Instant().Before(lease.until) {
			leases++
		}
	}
	x.mu.Unlock()
	if leases == 0 {
		return "no native holds a lease of this indexer"
	}
	x.witnesses.mu.Lock()
	defer x.witnesses.mu.Unlock()
	if x.witnesses.alone {
		return "natives hold leases of this indexer, and no other native shows them"
	}
	return ""
}

// witness looks this indexer up at other natives until ctx ends: soon after a lease has begun, and
// then once a heartbeat.
func (x *Indexer) witness(ctx context.Context) {
	w := x.witnesses
	soon := func() time.Duration { return w.newsTime + rand.N(w.newsTime) }
	next := time.NewTimer(x.heartbeat)
	defer next.Stop()
	var missed ports.PeerID // the native that was asked last, if it missed a lease
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.begun:
			next.Reset(soon())
			continue
		case <-next.C:
		}
		if missed = x.lookAtSelf(ctx, missed); missed != "" {
			next.Reset(soon())
		} else {
			next.Reset(domain.Early(x.heartbeat, rand.Float64()))
		}
	}
}

// lookAtSelf asks another native for this indexer, and not the native last if there are others.
// Without such a native it looks for some, as seldom as for natives to register with. It returns the
// native that it asked if that missed a lease that is not doubted yet.
func (x *Indexer) lookAtSelf(ctx context.Context, last ports.PeerID) (missed ports.PeerID) {
	leases := x.witnesses.known()
	native, of := x.natives.witness(leases, last)
	if len(of) == 0 && len(leases) > 0 && x.natives.transport != nil {
		x.natives.look(ctx, lookPauses*x.heartbeat, askNativeAgain)
		native, of = x.natives.witness(leases, last)
	}
	if len(of) == 0 {
		x.witnesses.settle()
		return ""
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := native.native.LookUp(asking, x.self, x.self)
	_, refused := errors.AsType[*ports.Refusal](err)
	switch {
	case ctx.Err() != nil:
		return ""
	case errors.Is(err, ports.ErrNotOffered):
		x.natives.blind(native.id)
	case err == nil, errors.Is(err, ports.ErrNotFound), refused, native.held, native.bootstrap:
	default:
		x.natives.note(native.id, fails) // so that it is not asked again at once
	}
	if x.witnesses.heard(of, native, answer, err) {
		return native.id
	}
	return ""
}
