package domain

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// StoreTimeout is the deadline of one put and of one look-up. Without it a hung peer
	// costs a DHT operation 10 to 30 s (measured).
	StoreTimeout = 3 * time.Second
	// announceDelay is how long a put may run before its entry is announced all the
	// same: the local record answers already. A put that every peer answers takes
	// 5 to 7 ms (measured, 20 replicas on loopback).
	announceDelay = 250 * time.Millisecond
	// maxPuts bounds the concurrent puts. A put mostly waits. With a hung peer each waits
	// StoreTimeout, and 64 puts still let 20 entries a second through, the heartbeats of
	// 1,200 indexers.
	maxPuts = 64
	// retryPut is the pause after a failed put, doubled up to a refresh.
	retryPut = time.Second
)

// outbox puts and announces the registry's own entries behind its back: at most
// one flight a PeerID, and only its newest entry waiting. The records themselves
// hold the waiting entries, so that a further heartbeat of a waiting PeerID costs
// nothing.
//
// News is a join, a change or a leave: it is always put and announced. A renewal is put, or announced,
// only if that reaches strangers. The natives that follow this native hear of it by that.
type outbox struct {
	policy    TTLPolicy
	table     *table
	now       func() moment
	store     ports.Store
	announcer ports.Announcer
	observer  ports.Observer
	// puts and announces report whether a put, or an announcement, reaches strangers now.
	puts, announces func() bool
	avoided         avoided
	// room bounds the announcements of renewals. heldBack counts those that found none.
	room     *allowance
	heldBack atomic.Uint64

	mu      sync.Mutex
	ctx     context.Context // ends with Run
	running *sync.WaitGroup // counts the workers; nil unless Run runs
	flying  int
	ready   []ref
	delayed wheel[ref]
}

// outboxState is the outbox's part of a record, guarded by the shard's lock.
type outboxState struct {
	phase    phase
	urgent   bool // the waiting entry is urgent: due is earlier by urgentLead
	news     bool // the waiting entry is news
	again    bool // offered while it flew
	hurry    bool // that offer was urgent
	alone    bool // no other node was found for the newest entry, or none was looked for
	failures uint8
	waits    bool      // it is in outbox.delayed, at the slot's waitsUntil
	due      shortTime // when it may fly next
}

type phase uint8

const (
	idle    phase = iota
	delayed       // waits for due
	ready         // waits for a worker
	flying        // a worker puts and announces it
)

// avoided counts what no stranger needed.
type avoided struct{ puts, announcements atomic.Uint64 }

func newOutbox(policy TTLPolicy, t *table, now func() moment, store ports.Store, announcer ports.Announcer, observer ports.Observer) *outbox {
	return &outbox{
		policy: policy, table: t, now: now, store: store, announcer: announcer, observer: observer,
		puts: reachesStrangers(store), announces: reachesStrangers(announcer),
		room:    newAllowance(announcedRenewals, policy.Heartbeat),
		delayed: newWheel[ref](policy.tick()),
	}
}

// reachesStrangers returns the Strangers of a Store or an Announcer.
func reachesStrangers(port any) func() bool {
	if s, ok := port.(ports.Strangers); ok {
		return s.Strangers
	}
	return func() bool { return true }
}

// start flies waiting and new entries until ctx ends, in goroutines that running counts.
func (o *outbox) start(ctx context.Context, running *sync.WaitGroup) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ctx, o.running = ctx, running
	for range o.ready {
		o.hire()
	}
}

// stop starts no further worker.
func (o *outbox) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running = nil
}

// tell queues the news of rec. The caller holds the shard's lock.
func (o *outbox) tell(rec record, at Instant) {
	rec.outbox.news = true
	o.offer(rec, at, true)
}

// renew queues the renewal of rec, if that reaches strangers. Its lease had left of its time before that.
// The caller holds the shard's lock.
func (o *outbox) renew(rec record, at Instant, left time.Duration) {
	if st := &rec.outbox; st.phase == flying || o.reaches() {
		if st.phase == idle && left > o.policy.toldBy()+2*o.policy.tick() { // else it ends elsewhere meanwhile
			st.due.set(latest(st.due.at(), at.Add(o.policy.toldBy())))
		}
		o.offer(rec, at, false)
		return
	}
	rec.outbox.alone = true
	o.avoided.puts.Add(1)
	o.avoided.announcements.Add(1)
}

// toldBy is the time in which followers have a renewal: it is gathered with others, and travels. Before
// that it is not announced. A native of the seed looks up what it hears, and may ask a follower.
func (p TTLPolicy) toldBy() time.Duration { return 2 * p.renewalInterval() }

// reaches reports whether a flight reaches strangers.
func (o *outbox) reaches() bool { return o.puts() || o.announces() }

// offer queues rec for its flight at its due time. An urgent rec is due earlier by urgentLead. The
// caller holds the shard's lock.
func (o *outbox) offer(rec record, at Instant, urgent bool) {
	st := &rec.outbox
	if urgent && !st.urgent && st.phase != flying {
		st.urgent = true
		st.due.set(st.due.at().Add(-o.policy.urgentLead()))
	}
	switch {
	case st.phase == flying:
		st.again, st.hurry = true, st.hurry || urgent
	case st.phase == ready, st.phase == delayed && !urgent:
		// rec waits already, and takeOff reads its newest entry.
	case !at.Before(st.due.at()):
		st.phase = ready
		o.mu.Lock()
		o.ready = append(o.ready, rec.ref)
		o.hire()
		o.mu.Unlock()
	default:
		o.delay(rec, st.due.at())
	}
}

// delay makes rec wait until due. It does not add rec to the wheel again if the wheel
// comes around to rec before that.
func (o *outbox) delay(rec record, due Instant) {
	rec.outbox.phase = delayed
	rec.outbox.due.set(due)
	if rec.outbox.waits && !o.delayed.of(due).before(rec.waitsUntil) {
		return
	}
	o.mu.Lock()
	rec.waitsUntil, rec.outbox.waits = o.delayed.add(due, rec.ref), true
	o.mu.Unlock()
}

// wakeDue wakes the delayed records that are due.
func (o *outbox) wakeDue(at Instant) {
	for more := true; more; {
		var due []ref
		o.mu.Lock()
		due, more = o.delayed.take(at, sweepBatch)
		o.mu.Unlock()
		for _, r := range due {
			o.wake(r, at)
		}
	}
}

// wake makes the record of ref ready, or delays it again if its due time has moved.
func (o *outbox) wake(ref ref, at Instant) {
	s := o.table.shardOf(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.at(ref)
	if !rec.known() {
		return
	}
	if !o.delayed.reached(at).before(rec.waitsUntil) {
		rec.outbox.waits = false
	}
	if rec.outbox.phase == delayed {
		rec.outbox.phase = idle
		o.offer(rec, at, false)
	}
}

// hire starts a worker, unless maxPuts run. The caller holds the lock.
func (o *outbox) hire() {
	if o.running != nil && o.flying < maxPuts {
		o.flying++
		o.running.Go(o.work)
	}
}

// work flies one ready record after another, until the queue is empty.
func (o *outbox) work() {
	w := newWorker(o)
	defer w.end()
	for ref, ok := o.next(); ok; ref, ok = o.next() {
		w.fly(ref)
	}
}

// next returns the record that has been ready longest. If it is not ok, the worker ends.
func (o *outbox) next() (_ ref, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 || o.ctx.Err() != nil {
		o.flying--
		return 0, false
	}
	first := o.ready[0]
	if o.ready = o.ready[1:]; len(o.ready) == 0 {
		o.ready = nil
	}
	return first, true
}

// flight is an entry under way. It is put, announced, or both.
type flight struct {
	entry           Entry
	puts, announces bool
	heldBack        bool // it would be announced, and there is no room
	news            bool
}

// takeOff returns the flight of a record. It is not ok if the lease has ended, another native's word
// counts now, nobody needs the entry, or the record was dropped.
func (o *outbox) takeOff(ref ref) (f flight, ok bool) {
	s := o.table.shardOf(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := o.now()
	rec := s.at(ref)
	if !rec.known() || rec.outbox.phase != ready {
		return f, false
	}
	st := &rec.outbox
	f.news = st.news
	st.phase, st.urgent, st.news = idle, false, false
	held, id := rec.holding(), rec.id()
	own := held.own(now.at)
	if own == nil {
		return f, false
	}
	f.puts, f.announces = f.news || o.puts(), f.news || o.announces()
	if !f.news && f.announces && !o.room.take(now.at) {
		f.announces, f.heldBack = false, true
		o.heldBack.Add(1)
	}
	if !f.puts && !f.announces {
		st.alone = true
		return f, false
	}
	if f.entry, ok = o.policy.publish(id, held, now); !ok {
		f.entry = own.entry(id) // the time of day was set; the store says what is wrong
	}
	st.phase, st.again, st.hurry = flying, false, false
	st.due.set(now.at.Add(o.policy.putInterval()))
	return f, true
}

// land takes in the result of a flight, and offers the record again if the put failed or the record
// has changed. The slot of a record that was dropped meanwhile is free then.
func (o *outbox) land(ref ref, f flight, replicas int, err error) {
	s := o.table.shardOf(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := o.now().at
	rec := s.at(ref)
	if !rec.known() {
		s.slots.drop(ref.number())
		return
	}
	st := &rec.outbox
	st.phase, st.alone = idle, err == nil && replicas == 0
	st.news = st.news || f.news && err != nil
	switch {
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

func (o *outbox) announce(ctx context.Context, f flight) {
	if !f.announces {
		if !f.heldBack {
			o.avoided.announcements.Add(1)
		}
		return
	}
	err := o.announcer.Announce(ctx, f.entry.PeerID)
	o.observer.Observe(ports.Event{Kind: ports.EventAnnounced, PeerID: f.entry.PeerID, Err: err})
}

func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.ready) + o.flying
}
