package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

const (
	// askAtOnce is how many natives are asked at once for one PeerID: any of them knows it,
	// and a native that hangs keeps no caller waiting.
	askAtOnce = 3
	// maxAsked bounds the natives that are asked for one PeerID before the store is.
	maxAsked = 3 * askAtOnce
	// askTimeout bounds how long all natives together have: a dial and an answer from far
	// away, of a native that looks in its store for up to domain.StoreTimeout.
	askTimeout = domain.StoreTimeout + time.Second
	// maxSearches bounds the PeerIDs that are looked for at once, each of them with up to
	// askAtOnce streams and a query of the DHT.
	maxSearches = 64
	// confirmTimeout bounds how long other nodes are asked for an entry that is newer than the
	// one this node itself holds, which may date from before it was cut off: half a dozen
	// round trips around the world.
	confirmTimeout = time.Second
	// findAgain is how long a finder without a native that answers does not look for more: a
	// caller that asks for names does not make it search the network each time.
	findAgain = 30 * time.Second
	// searchTimeout bounds a search: the natives, the store after them, and a second for what
	// either takes to end.
	searchTimeout = askTimeout + domain.StoreTimeout + time.Second
	// maxCondition bounds the condition that is remembered with a not-found. Natives of a later
	// version may have another condition, and a native that lies may send a frame of it.
	maxCondition = 64
)

// ErrNoAnswer is returned by Finder.LookUp when no native answers and there is no store
// that others have put into.
var ErrNoAnswer = errors.New("no native answers, and this node has no dht to look in")

// Finder resolves PeerIDs on a node that is no native. It asks the natives. When none of them
// answers it asks the store, until the entry there expires. All methods may be called concurrently.
type Finder struct {
	rules    domain.Rules
	natives  *Natives
	store    ports.Store
	observer ports.Observer
	searches *lookup.Machine[ports.Answer]
	started  chan struct{} // closed by Run
}

// NewFinder returns a finder that asks natives, and then store. Of rules it needs all but
// Natives; a nil Clock is this node's own.
func NewFinder(rules domain.Rules, natives *Natives, store ports.Store, observer ports.Observer) *Finder {
	if rules.Clock == nil {
		rules.Clock = domain.NewClock(nil, nil)
	}
	f := &Finder{rules: rules, natives: natives, store: store, observer: observer, started: make(chan struct{})}
	f.searches = lookup.New(lookup.Config[ports.Answer]{
		Look: func(ctx context.Context, id, _ ports.PeerID) (ports.Answer, error) { return f.search(ctx, id) }, Timeout: searchTimeout,
		// All callers are this node's own.
		MaxFinds: maxSearches, MaxFindsEach: func(ports.PeerID) int { return maxSearches },
	})
	return f
}

// Run lets look-ups begin until ctx ends, and returns when all of them have ended. It may run
// once.
func (f *Finder) Run(ctx context.Context) error {
	var running sync.WaitGroup
	f.searches.Start(ctx, &running)
	close(f.started)
	<-ctx.Done()
	f.searches.Stop()
	running.Wait()
	return nil
}

// LookUp returns the live entry of id: the answer of the first native that knows, or else that of
// the store. It waits for Run, and blocks for seconds if natives hang. Not found, now or a moment
// ago, is ports.ErrNotFound, with the Condition of the natives that said so. Too many look-ups at
// once, or the end of Run, are a *ports.Refusal. ErrNoAnswer says that there was neither a native
// nor a store to ask. Callers that ask for the same PeerID share a search, which goes on without
// them.
func (f *Finder) LookUp(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	began := time.Now()
	answer, err := f.lookUp(ctx, id)
	e := ports.Event{Kind: ports.EventAsked, PeerID: id, Took: time.Since(began), Err: err}
	if refusal, ok := errors.AsType[*ports.Refusal](err); ok {
		e.Code = refusal.Code
	}
	f.observer.Observe(e)
	return answer, err
}

func (f *Finder) lookUp(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	// HTTP starts before the finder does.
	select {
	case <-f.started:
	case <-ctx.Done():
		return ports.Answer{}, ctx.Err()
	}
	answer, err := f.searches.Find(ctx, id, f.rules.Self)
	switch {
	case errors.Is(err, lookup.ErrBusy):
		err = ports.Refuse(ports.CodeBusy, "%d other look-ups are under way; try again later", maxSearches)
	case errors.Is(err, lookup.ErrStopped), errors.Is(err, context.Canceled) && ctx.Err() == nil:
		err = ports.Refuse(ports.CodeBusy, "this node stops; ask another")
	}
	return answer, err
}

// search asks the natives and then the store. A not-found is remembered: of the answer it has
// the Condition and Missing alone.
func (f *Finder) search(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	answer, err := f.ask(ctx, id)
	switch {
	case ctx.Err() != nil:
		return ports.Answer{}, ctx.Err()
	case err == nil && answer.State != ports.StateStale, errors.Is(err, ports.ErrNotFound) && answer.Condition == "":
		return answer, err
	case f.store.Joined() == nil: // no other node puts into it
		return answer, err
	}
	stale := err == nil
	stored, err := f.stored(ctx, id)
	switch {
	case err != nil && ctx.Err() != nil:
		return ports.Answer{}, ctx.Err()
	case err != nil && stale:
		return answer, nil
	}
	stored.Condition, stored.Missing = answer.Condition, answer.Missing
	return stored, err
}

// said is the answer of a native about a PeerID.
type said struct {
	native ports.PeerID
	answer ports.Answer
	err    error
}

// ask asks the natives, a few at once, until one of them knows. If no native knows better, a stale
// entry is the answer, and then a native that cannot know yet leaves its Condition in the answer,
// beside ports.ErrNotFound.
func (f *Finder) ask(asker context.Context, id ports.PeerID) (ports.Answer, error) {
	ctx, cancel := context.WithTimeout(asker, askTimeout)
	defer cancel()
	natives := f.candidates(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	heard := make(chan said, len(natives))
	next := func() {
		if len(natives) == 0 {
			return
		}
		n := natives[0]
		natives = natives[1:]
		asking.Go(func() {
			answer, err := n.native.LookUp(ctx, f.rules.Self, id)
			heard <- said{n.id, answer, err}
		})
	}
	pending := len(natives)
	for range askAtOnce {
		next()
	}
	doubtful, none := ports.Answer{}, ErrNoAnswer
	var stale *ports.Answer
	for ; pending > 0; pending-- {
		s := <-heard
		if s.err == nil {
			if err := f.rules.CheckAnswer(&s.answer); err != nil {
				if !domain.IsUntrusted(err) {
					f.natives.noteLookUp(s.native, fails)
				}
				next()
				continue
			}
		}
		switch {
		case s.err == nil && s.answer.PeerID == id && s.answer.Remaining > 0 && !s.answer.Entry.Leave,
			errors.Is(s.err, ports.ErrNotFound) && s.answer.Condition == "":
			f.natives.noteLookUp(s.native, answers)
			if s.err != nil {
				return ports.Answer{}, s.err
			}
			return s.answer, nil
		case s.err == nil && s.answer.PeerID == id && s.answer.State == ports.StateStale && !s.answer.Entry.Leave:
			s.answer.Remaining = 0
			stale = &s.answer // unless another native knows better
		case errors.Is(s.err, ports.ErrNotFound):
			doubtful.Condition, doubtful.Missing, none = s.answer.Condition, s.answer.Missing, s.err
			if len(doubtful.Condition) > maxCondition {
				doubtful.Condition = ports.ConditionWarming
			}
		case s.err != nil && !errors.Is(s.err, ports.ErrNotOffered) && asker.Err() == nil:
			if _, refused := errors.AsType[*ports.Refusal](s.err); !refused {
				f.natives.noteLookUp(s.native, fails)
			}
		}
		next()
	}
	if stale != nil {
		return *stale, nil
	}
	return doubtful, none
}

// candidates returns the natives to ask, the best first. Without a native that answers it looks
// for some.
func (f *Finder) candidates(ctx context.Context) []candidate {
	if f.natives.transport != nil {
		f.natives.meet()
	}
	all := f.natives.best()
	if len(all) == 0 || all[0].standing == fails {
		f.natives.look(ctx, findAgain, askNativeAgain)
		all = f.natives.best()
	}
	return all[:min(len(all), maxAsked)]
}

// stored returns what the store says of id.
func (f *Finder) stored(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	timeout := domain.StoreTimeout
	own, ownErr := f.store.Local(id, ports.Version{})
	if ownErr == nil {
		timeout = confirmTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	e, err := f.store.Get(ctx, id, own.Version())
	if err != nil && ownErr == nil {
		e, err = own, nil
	}
	if err != nil {
		return ports.Answer{}, err
	}
	left := e.ExpiresAt.Sub(f.rules.Clock.Now())
	if e.PeerID != id || e.Leave || left <= 0 || f.rules.Acceptable(&e) != nil || f.rules.Believes(&e) != nil {
		return ports.Answer{}, ports.ErrNotFound
	}
	return ports.Answer{Listed: ports.Listed{
		Entry: e, State: f.rules.Policy.State(left), Source: ports.SourceStore, Remaining: left,
	}}, nil
}
