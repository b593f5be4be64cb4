package domain

import (
	"context"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// worker flies records of the outbox, one after the other. Its context and its timer serve flight after
// flight: to make them anew took half of a flight's time.
type worker struct {
	*outbox
	ctx       context.Context
	cancel    context.CancelFunc // nil before the first flight
	began     time.Time          // when ctx was made
	timer     *time.Timer        // announces the flight; nil before the first
	flight    flight
	announced chan struct{} // receives a value once the timer has announced the flight
}

// flightsTogether is how long the flights of a worker have one deadline. The last of them have so much
// less than StoreTimeout.
const flightsTogether = 10 * time.Millisecond

func newWorker(o *outbox) *worker { return &worker{outbox: o, announced: make(chan struct{}, 1)} }

// end lets go of what the flights had.
func (w *worker) end() {
	if w.cancel != nil {
		w.cancel()
	}
}

// fly puts and announces this native's own entry of a record, if the record still has one.
func (w *worker) fly(ref ref) {
	if f, ok := w.takeOff(ref); ok {
		replicas, err := w.send(f)
		w.land(ref, f, replicas, err)
	}
}

// send puts the entry of f, and announces it when the put has returned, or after announceDelay.
func (w *worker) send(f flight) (replicas int, err error) {
	began := time.Now()
	if w.cancel == nil || began.Sub(w.began) > flightsTogether {
		w.end()
		w.began = began
		w.ctx, w.cancel = context.WithTimeout(w.outbox.ctx, StoreTimeout)
	}
	if !f.puts {
		w.avoided.puts.Add(1)
		w.announce(w.ctx, f)
		return 0, nil
	}
	w.flight = f
	if w.timer == nil {
		w.timer = time.AfterFunc(announceDelay, w.announceLate)
	} else {
		w.timer.Reset(announceDelay)
	}
	replicas, err = w.store.Put(w.ctx, f.entry)
	if w.timer.Stop() {
		w.announce(w.ctx, f)
	} else {
		<-w.announced
	}
	w.observer.Observe(ports.Event{Kind: ports.EventPut, PeerID: f.entry.PeerID, Replicas: replicas, Took: time.Since(began), Err: err})
	return replicas, err
}

// announceLate announces the flight while it is still put.
func (w *worker) announceLate() {
	w.announce(w.ctx, w.flight)
	w.announced <- struct{}{}
}
