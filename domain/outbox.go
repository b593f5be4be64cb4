package domain

import (
	"context"
	"sync"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// StoreTimeout is the deadline of one put and of one look-up: a peer that hangs
	// costs a DHT operation 10 to 30 s otherwise (measured).
	StoreTimeout = 3 * time.Second
	// announceDelay is how long a put may run before its entry is announced all the
	// same: the local record answers already, and a put that everybody answers takes
	// 5 to 7 ms (measured, 20 replicas on loopback).
	announceDelay = 250 * time.Millisecond
	// maxPuts bounds the puts at once. A put mostly waits; with a hung peer each waits
	// StoreTimeout, and 64 of them still let 20 entries a second through, the
	// heartbeats of 1,200 indexers.
	maxPuts = 64
	// retryPut is the pause after a put that failed, doubled up to a refresh.
	retryPut = time.Second
)

// outbox puts and announces what the registry granted, behind its back: at most
// one flight a PeerID, and only its newest entry waiting. What waits is kept in
// the records themselves, so that a heartbeat of a PeerID that waits already costs
// nothing.
type outbox struct {
	policy    TTLPolicy
	table     *table
	now       func() moment
	store     ports.Store
	announcer ports.Announcer
	observer  ports.Observer

	mu      sync.Mutex
	ctx     context.Context // ends with Run
	running *sync.WaitGroup // counts the workers; nil unless Run runs
	flying  int
	ready   []*record
	delayed wheel[*record]
}

// outboxState is the outbox's part of a record, guarded by the shard's lock.
type outboxState struct {
	phase    phase
	urgent   bool // what waits is urgent, and due so much earlier
	again    bool // offered while it flew
	hurry    bool // and that was urgent
	alone    bool // the last put found no other node
	failures uint8
	due      Instant // when it may fly next
	filed    Instant // when the wheel of the delayed comes around to it; zero if it is not there
}

type phase uint8

const (
	idle    phase = iota
	delayed       // waits for due
	ready         // waits for a worker
	flying        // is being put and announced
)

func newOutbox(policy TTLPolicy, t *table, now func() moment, store ports.Store, announcer ports.Announcer, observer ports.Observer) *outbox {
	return &outbox{
		policy: policy, table: t, now: now, store: store, announcer: announcer, observer: observer,
		delayed: newWheel[*record](policy.tick()),
	}
}

// start lets what waits and what comes fly until ctx ends, in goroutines counted by running.
func (o *outbox) start(ctx context.Context, running *sync.WaitGroup) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ctx, o.running = ctx, running
	for range o.ready {
		o.hire()
	}
}

// stop lets no worker start any more.
func (o *outbox) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = nil
}

// offer asks for rec to be put and announced when its due time has come, which is
// earlier if it is urgent, that is, new or changed. The caller holds the shard's lock.
func (o *outbox) offer(rec *record, at Instant, urgent bool) {
	st := &rec.outbox
	if urgent && !st.urgent && st.phase != flying {
		st.urgent = true
		st.due = st.due.Add(-o.policy.urgentLead())
	}
	switch {
	case st.phase == flying:
		st.again, st.hurry = true, st.hurry || urgent
	case st.phase == ready, st.phase == delayed && !urgent:
		// It waits already, and its newest entry is read when it flies.
	case !at.Before(st.due):
		st.phase = ready
		o.mu.Lock()
		o.ready = append(o.ready, rec)
		o.hire()
		o.mu.Unlock()
	default:
		o.delay(rec, st.due)
	}
}

// delay has rec wait until due. If the wheel comes around to it before that, it is
// not put there once more.
func (o *outbox) delay(rec *record, due Instant) {
	rec.outbox.phase, rec.outbox.due = delayed, due
	if rec.outbox.filed != (Instant{}) && !due.Before(rec.outbox.filed) {
		return
	}
	rec.outbox.filed = due
	o.mu.Lock()
	o.delayed.add(due, rec)
	o.mu.Unlock()
}

// wakeDue makes ready what has waited for its due time.
func (o *outbox) wakeDue(at Instant) {
	for more := true; more; {
		var records []*record
		o.mu.Lock()
		records, more = o.delayed.take(at, sweepBatch)
		o.mu.Unlock()
		for _, rec := range records {
			o.wake(rec, at)
		}
	}
}

// wake makes rec ready, or delays it again if it flew since it was delayed.
func (o *outbox) wake(rec *record, at Instant) {
	s := o.table.shard(rec.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !at.Before(rec.outbox.filed) {
		rec.outbox.filed = Instant{}
	}
	if rec.outbox.phase == delayed && !rec.gone {
		rec.outbox.phase = idle
		o.offer(rec, at, false)
	}
}

// hire starts a worker if one more may run; the caller holds the lock.
func (o *outbox) hire() {
	if o.running != nil && o.flying < maxPuts {
		o.flying++
		o.running.Go(o.work)
	}
}

// work lets one entry fly after another until none is ready.
func (o *outbox) work() {
	for rec := o.next(); rec != nil; rec = o.next() {
		o.fly(rec)
	}
}

// next returns the record that has been ready longest, nil for a worker that is to end.
func (o *outbox) next() *record {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 || o.ctx.Err() != nil {
		o.flying--
		return nil
	}
	rec := o.ready[0]
	o.ready[0] = nil
	if o.ready = o.ready[1:]; len(o.ready) == 0 {
		o.ready = nil
	}
	return rec
}

// fly puts and announces what this native holds of rec, if it still has something to say.
func (o *outbox) fly(rec *record) {
	if entry, ok := o.takeOff(rec); ok {
		replicas, err := o.put(entry)
		o.land(rec, replicas, err)
	}
}

// takeOff returns what to put of rec. It is not ok if the lease has ended, or another native's
// word counts now.
func (o *outbox) takeOff(rec *record) (e Entry, ok bool) {
	s := o.table.shard(rec.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := o.now().at
	st := &rec.outbox
	own := rec.held.own(at)
	if own == nil || rec.gone {
		st.phase, st.urgent = idle, false
		return e, false
	}
	st.phase, st.urgent, st.again, st.hurry = flying, false, false, false
	st.due = at.Add(o.policy.putInterval())
	return own.entry(rec.id), true
}

// land takes in what became of a put, and offers rec again if it failed or has changed since.
func (o *outbox) land(rec *record, replicas int, err error) {
	s := o.table.shard(rec.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := o.now().at
	st := &rec.outbox
	st.phase, st.alone = idle, err == nil && replicas == 0
	switch {
	case rec.gone:
	case st.again:
		o.offer(rec, at, st.hurry)
	case err != nil:
		pause := Backoff{retryPut, o.policy.Refresh}.Pause(int(st.failures))
		st.failures = min(st.failures+1, 10)
		o.delay(rec, at.Add(pause))
	default:
		st.failures = 0
	}
}

// put puts e, and announces it when that is done or takes its time.
func (o *outbox) put(e Entry) (replicas int, err error) {
	ctx, cancel := context.WithTimeout(o.ctx, StoreTimeout)
	defer cancel()
	announced := make(chan struct{})
	announce := func() {
		defer close(announced)
		err := o.announcer.Announce(ctx, e.PeerID)
		o.observer.Observe(ports.Event{Kind: ports.EventAnnounced, PeerID: e.PeerID, Err: err})
	}
	began := time.Now()
	timer := time.AfterFunc(announceDelay, announce)
	replicas, err = o.store.Put(ctx, e)
	if timer.Stop() {
		announce()
	}
	<-announced
	o.observer.Observe(ports.Event{Kind: ports.EventPut, PeerID: e.PeerID, Replicas: replicas, Took: time.Since(began), Err: err})
	return replicas, err
}

func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ready) + o.flying
}
