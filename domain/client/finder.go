package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/opencloud/ocnode/domain"
	"github.com/opencloud/ocnode/domain/internal/notfound"
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
	notFound map[ports.Condition]*notfound.Cache // by the condition of the natives that said so

	mu       sync.Mutex
	searches map[ports.PeerID]*search
}

// conditions are those of natives that did not find a PeerID, the surest first.
var conditions = []ports.Condition{"", ports.ConditionWarming, ports.ConditionIsolated}

// search is a PeerID that is being looked for, by the first of the callers that asked for it.
type search struct {
	done   chan struct{}
	answer ports.Answer
	err    error
}

// NewFinder returns a finder that asks natives, and then store. Of rules it needs all but
// Natives; a nil Clock is this node's own.
func NewFinder(rules domain.Rules, natives *Natives, store ports.Store, observer ports.Observer) *Finder {
	if rules.Clock == nil {
		rules.Clock = domain.NewClock(nil)
	}
	f := &Finder{
		rules: rules, natives: natives, store: store, observer: observer,
		notFound: make(map[ports.Condition]*notfound.Cache), searches: make(map[ports.PeerID]*search),
	}
	for _, c := range conditions {
		f.notFound[c] = notfound.New()
	}
	return f
}

// LookUp returns the live entry of id: the answer of the first native that knows, or else that of
// the store. It blocks for seconds if natives hang. Not found, now or a moment ago, is
// ports.ErrNotFound, with the Condition of the natives that said so. Too many look-ups at once
// are a *ports.Refusal. ErrNoAnswer says that there was neither a native nor a store to ask.
// Callers that ask for the same PeerID share a search.
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
	for {
		for _, c := range conditions {
			if f.notFound[c].Has(id, f.rules.Clock.Elapsed()) {
				return ports.Answer{Condition: c}, ports.ErrNotFound
			}
		}
		s, first, err := f.join(id)
		if err != nil {
			return ports.Answer{}, err
		}
		if first {
			s.answer, s.err = f.search(ctx, id)
			f.mu.Lock()
			if errors.Is(s.err, ports.ErrNotFound) {
				notFound := f.notFound[s.answer.Condition]
				if notFound == nil { // a condition of a later version
					notFound = f.notFound[ports.ConditionWarming]
				}
				notFound.Add(id, f.rules.Clock.Elapsed())
			}
			delete(f.searches, id)
			f.mu.Unlock()
			close(s.done)
			return s.answer, s.err
		}
		select {
		case <-ctx.Done():
			return ports.Answer{}, ctx.Err()
		case <-s.done:
		}
		if !errors.Is(s.err, context.Canceled) && !errors.Is(s.err, context.DeadlineExceeded) {
			return s.answer, s.err
		}
		// The first caller has gone away, which says nothing of id.
	}
}

// join returns the search for id, and whether it is the caller's to make.
func (f *Finder) join(id ports.PeerID) (_ *search, first bool, _ error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.searches[id]; s != nil {
		return s, false, nil
	}
	if len(f.searches) >= maxSearches {
		return nil, false, ports.Refuse(ports.CodeBusy, "%d other look-ups are under way; try again later", maxSearches)
	}
	s := &search{done: make(chan struct{})}
	f.searches[id] = s
	return s, true, nil
}

func (f *Finder) search(ctx context.Context, id ports.PeerID) (ports.Answer, error) {
	answer, err := f.ask(ctx, id)
	switch {
	case ctx.Err() != nil:
		return ports.Answer{}, ctx.Err()
	case err == nil, errors.Is(err, ports.ErrNotFound) && answer.Condition == "":
		return answer, err
	case f.store.Joined() == nil: // no other node puts into it
		return answer, err
	}
	stored, err := f.stored(ctx, id)
	if err != nil && ctx.Err() != nil {
		return ports.Answer{}, ctx.Err()
	}
	stored.Condition = answer.Condition
	return stored, err
}

// said is the answer of a native about a PeerID.
type said struct {
	native ports.PeerID
	answer ports.Answer
	err    error
}

// ask asks the natives, a few at once, until one of them knows. A native that cannot know yet
// leaves its Condition in the answer, beside ports.ErrNotFound, if no other native knows better.
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
	for ; pending > 0; pending-- {
		s := <-heard
		if s.err == nil {
			if err := f.rules.CheckAnswer(&s.answer); err != nil {
				if !domain.IsUntrusted(err) {
					f.natives.note(s.native, fails)
				}
				next()
				continue
			}
		}
		switch {
		case s.err == nil && s.answer.PeerID == id && s.answer.Remaining > 0 && !s.answer.Entry.Leave,
			errors.Is(s.err, ports.ErrNotFound) && s.answer.Condition == "":
			f.natives.note(s.native, answers)
			return s.answer, s.err
		case errors.Is(s.err, ports.ErrNotFound):
			doubtful.Condition, none = s.answer.Condition, s.err
		case s.err != nil && !errors.Is(s.err, ports.ErrNotOffered) && asker.Err() == nil:
			if _, refused := errors.AsType[*ports.Refusal](s.err); !refused {
				f.natives.note(s.native, fails)
			}
		}
		next()
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
		f.natives.look(ctx, findAgain)
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
