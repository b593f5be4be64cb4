package domain

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
	"unique"

	"github.com/opencloud/ocnode/domain/internal/lookup"
	"github.com/opencloud/ocnode/ports"
)

// Settings are the settings of a Registry beside the Rules.
type Settings struct {
	Bounds Bounds
	// Follower follows other natives; nil follows no native.
	Follower Following
	// Followers takes in the natives that follow this one; nil for none.
	Followers *Followers
	// Line tells whether this native is cut off. nil: it is, unless another native answers.
	Line ports.Line
}

// Following is a Registry's view of its follower. All methods may be called concurrently.
type Following interface {
	// Condition says how far a caller can rely on this native's table.
	Condition() ports.Condition
	// Missing are the natives that this native hears no more, at most ports.MaxMissing, sorted.
	// The caller must not modify them.
	Missing() []ports.PeerID
	// Hears reports whether native tells this native of its leases, and was not silent for too
	// long. The registry calls it for each entry that it lists, under locks: it must not block.
	Hears(native ports.PeerID) bool
	// Follows reports whether this native follows native. Following counts followed natives.
	Follows(native ports.PeerID) bool
	Following() int
	// Followed returns at most n of the natives that this native follows.
	Followed(n int) []ports.PeerID
	// LookUp asks native for all that it has of id. ports.ErrNotFound: it never was followed.
	LookUp(ctx context.Context, native, id ports.PeerID) (ports.Answer, error)
	// Natives returns the status of the neighbours, as ports.Native.Natives does.
	Natives(ctx context.Context) []ports.NativeStatus
	// Revise applies a change of the trusted natives soon. It does not block.
	Revise()
	// StoodStill takes in that this native slept or stood still for d until now.
	StoodStill(d time.Duration)
}

// noFollower is a Following that follows no native.
type noFollower struct{}

func (noFollower) Condition() ports.Condition                   { return "" }
func (noFollower) Missing() []ports.PeerID                      { return nil }
func (noFollower) Hears(ports.PeerID) bool                      { return true }
func (noFollower) Follows(ports.PeerID) bool                    { return false }
func (noFollower) Following() int                               { return 0 }
func (noFollower) Followed(int) []ports.PeerID                  { return nil }
func (noFollower) Natives(context.Context) []ports.NativeStatus { return nil }
func (noFollower) Revise()                                      {}
func (noFollower) StoodStill(time.Duration)                     {}
func (noFollower) LookUp(context.Context, ports.PeerID, ports.PeerID) (ports.Answer, error) {
	return ports.Answer{}, ports.ErrNotFound
}

// Registry is a native's side of the seed. It grants leases, keeps the live table
// and the known set, puts and announces its own entries, and looks up announced
// PeerIDs. It implements ports.Native. All methods may be called concurrently.
type Registry struct {
	rules     Rules
	settings  Settings
	self      unique.Handle[ports.PeerID]
	store     ports.Store
	announcer ports.Announcer
	observer  ports.Observer

	table   *table
	known   *knownSet
	ledgers *ledgers
	outbox  *outbox
	lookups *lookup.Machine[lookedUp]
	// clockOff is the error of this node's clock as the observer last heard it: 0 to 2. clockSure says
	// that several natives have another time.
	clockOff  int
	clockSure bool
	follower  Following
	hangups   hangups
	revised   atomic.Uint32 // how often Revise was called

	// These are Run's own.
	askAgainAt Instant       // when a question whether this native is cut off may follow the last
	unheard    bool          // as watchers were told
	lost       chan struct{} // receives a value when this native is cut off
}

var (
	_ ports.Native  = (*Registry)(nil)
	_ ports.Hangups = (*Registry)(nil)
)

// NewRegistry returns a registry that answers at once. Its leases go to store and
// announcer as soon as Run runs. The error is an invalid Policy, or a missing Self or
// CheckAddr.
func NewRegistry(rules Rules, settings Settings, store ports.Store, announcer ports.Announcer, observer ports.Observer) (*Registry, error) {
	if err := rules.Policy.Validate(); err != nil {
		return nil, err
	}
	if rules.Self == "" || rules.CheckAddr == nil {
		return nil, errors.New("a registry needs its own PeerID and a rule for addresses")
	}
	if rules.Clock == nil {
		rules.Clock = NewClock(nil, nil)
	}
	r := &Registry{
		rules: rules, settings: settings, self: unique.Make(rules.Self),
		store: store, announcer: announcer, observer: observer,
		table: newTable(rules.Policy, settings.Bounds), known: newKnownSet(), ledgers: newLedgers(settings.Bounds), lost: make(chan struct{}, 1),
		hangups: hangups{added: make(chan struct{}, 1)},
	}
	if r.follower = settings.Follower; r.follower == nil {
		r.follower = noFollower{}
	}
	r.table.names.fix(selfName, rules.Self)
	r.table.proofs = rules.Proofs
	r.outbox = newOutbox(rules.Policy, r.table, r.now, store, announcer, observer)
	r.lookups = newLookups(r)
	r.table.news.registry = r
	r.table.changes.begin(r.standing())
	return r, nil
}

// audience returns the sum of the nodes that hear this native's announcements at once, 0 if unknown.
func (r *Registry) audience() uint64 {
	if a, ok := r.announcer.(ports.Audience); ok {
		return a.Audience()
	}
	return 0
}

// now reads both clocks.
func (r *Registry) now() moment {
	at := r.rules.Clock.Instant()
	return moment{at, r.rules.Clock.At(at)}
}

// wall returns the time of day at an instant.
func (r *Registry) wall(at Instant) time.Time { return r.rules.Clock.At(at) }

// clocks returns how many natives' clocks show the time of day, 0 if it is this native's alone.
func (r *Registry) clocks() int {
	if n := r.rules.Clock.Agreeing(); n > 1 {
		return n
	}
	return 0
}

// rule returns the rule as it is now.
func (r *Registry) rule() rule { return rule{r.rules.Policy, r.rules.plain()} }

// Register grants sender a lease, or refuses with a *ports.Refusal. It takes a
// microsecond and does no I/O. The registry keeps reg: the caller must not change it.
func (r *Registry) Register(_ context.Context, sender ports.PeerID, reg ports.Registration) (ports.Lease, error) {
	var g grant
	if refusal := r.register(sender, &reg, &g); refusal != nil {
		r.observer.Observe(ports.Event{Kind: ports.EventRefused, PeerID: sender, Code: refusal.Code, Err: refusal})
		return ports.Lease{}, refusal
	}
	if g.became.expired {
		r.observer.Observe(ports.Event{Kind: ports.EventExpired, PeerID: sender})
	}
	if g.became.joined {
		r.known.remove(sender)
	}
	if g.TTL > 0 {
		r.observer.Observe(ports.Event{Kind: ports.EventRegistered, PeerID: sender, Joined: g.remaining == 0, Remaining: g.remaining})
	}
	return g.Lease, nil
}

// register checks reg without a lock, and grants its lease.
func (r *Registry) register(sender ports.PeerID, reg *ports.Registration, g *grant) *ports.Refusal {
	if reg.PeerID != sender {
		return ports.Refuse(ports.CodePeerMismatch, "the registration is for %s and the connection is %s: an indexer registers itself alone", reg.PeerID, sender)
	}
	if r.renewOwn(sender, reg, g) {
		return nil
	}
	for checked := false; ; {
		var proven proven
		claimed := reg
		if reg.Proof != nil {
			filled := *reg
			claimed = &filled
			var refusal *ports.Refusal
			if proven, refusal = r.checkProof(sender, claimed); refusal != nil {
				return refusal
			}
		} else if r.rules.plain() == PlainRefuse {
			return refusePlain()
		}
		if proven.unknown {
			g.Lease = ports.Lease{NeedRecord: true, Now: r.rules.wall(), Clocks: r.clocks(), Seq: r.seq(sender)}
			return nil
		}
		switch refusal := r.grant(sender, claimed, proven, checked, g); {
		case refusal != nil:
			return refusal
		case g.unchecked:
			// The addresses are new. Parsing them under the lock would hold up others.
			if refusal := r.rules.check(*claimed); refusal != nil {
				return refusal
			}
			checked = true
		case g.full && !r.makeRoom():
			return ports.Busy(ports.LimitEntries, "this native holds %d entries, as many as it takes; register with another", r.settings.Bounds.entries())
		case !g.full && !g.stale:
			return nil
		}
	}
}

// grant is the outcome of a registration.
type grant struct {
	ports.Lease
	remaining time.Duration // what was left of the lease before, 0 if there was none
	became    became
	unchecked bool // no lease is granted: the registration has new content, not checked yet
	stale     bool // no lease is granted: a newer record or a leave came during the check
	full      bool // no lease is granted: the table has no room for a new indexer
}

// grant grants sender the lease of reg. checked says that reg passes the rules.
func (r *Registry) grant(sender ports.PeerID, reg *ports.Registration, proven proven, checked bool, g *grant) *ports.Refusal {
	*g = grant{}
	s := r.table.shard(sender)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := r.now()
	rec := s.record(sender)
	held := rec.holding()
	w := word{
		addr: reg.Addr, details: detailsOf(reg.Addrs, reg.Meta), native: r.self, source: granted,
		proof: reg.Proof, unproven: proven.needRecord, early: proven.early,
	}
	if r.table.hearing.fresh(now.at) {
		return ports.Refuse(ports.CodeBusy, "this native stood still until now, and a registration may have waited for minutes; send it again")
	}
	lease := held.lease(now.at)
	same := lease != nil && lease.same(&w) && (len(reg.Addrs) == 0 || reg.Addrs[0] == reg.Addr)
	switch {
	case !same && !checked:
		g.unchecked = true
		return nil
	case !r.rules.Indexers.in(sender):
		return r.refuseStranger(sender)
	}
	g.Lease = r.rules.Policy.Grant(now.wall)
	g.Clocks = r.clocks()
	w.deadline, w.expiresAt, w.seenAt = now.at.Add(g.TTL), g.ExpiresAt.UnixNano(), now.wall.UnixNano()
	if lease != nil {
		g.remaining = lease.deadline.Sub(now.at)
	}
	switch p, leave := w.proof, held.leave(now.at); {
	case p != nil:
		w.expiresAt = p.Claim.ExpiresAt(p.Tick.Step).UnixNano()
		if lease != nil && lease.proof != nil && lease.source == granted && p.Tick == lease.proof.Tick {
			w.deadline = earliest(w.deadline, lease.deadline) // the same tick ends then at other natives too
		}
	case leave != nil && leave.source == granted:
		w.expiresAt = max(w.expiresAt, leave.expiresAt+int64(time.Millisecond)) // so it wins over the leave in the store too
	}
	next, err := r.rule().merge(held, &w, rec.known() || !r.full(), now)
	switch {
	case err == nil:
	case errors.Is(err, errFull):
		g.full = true
		return nil
	case errors.Is(err, errUntrusted):
		return refusePlain()
	default:
		g.stale = true
		return nil
	}
	changed := !same || lease.source != granted
	if !rec.known() {
		rec = s.insert(sender)
	}
	g.NeedRecord, g.Rival, g.Proven = proven.needRecord, rec.is(rival), r.proven(&w, now)
	rec.set(rival|hasHungUp, false)
	r.table.hearing.renewed.Add(1)
	if newest := next.newest(); newest != nil {
		g.Seq = newest.Claim.Seq
	}
	g.became = s.apply(rec, &next, now)
	if changed {
		r.outbox.tell(rec, now.at)
	} else {
		r.outbox.renew(rec, now.at, g.remaining)
	}
	return nil
}

// proven returns what a lease says of the proof of w: how long that goes on, if it ends before the
// next heartbeat. The indexer beats off the grid of its own record then, and other natives list it
// for a part of the time only.
func (r *Registry) proven(w *word, now moment) time.Duration {
	if w.proof == nil {
		return 0
	}
	return r.goesOn(w.proof.Claim, w.proof.Tick.Step, now)
}

// goesOn is proven for a tick of the record that claims c.
func (r *Registry) goesOn(c *ports.Claim, step uint32, now moment) time.Duration {
	remains := c.ExpiresAt(step).Sub(now.wall)
	switch {
	case remains >= r.rules.Policy.Heartbeat:
		return 0
	case remains == 0:
		return -1 // 0 would say that it lasts
	}
	return remains
}

func refusePlain() *ports.Refusal {
	return ports.Refuse(ports.CodeRefused, "this native takes only registrations that their indexer has signed; register with a program that sends records (trust.plain is %s here)", PlainRefuse)
}

// Get returns the entry of id that is live or stale. It does no I/O and changes nothing.
func (r *Registry) Get(id ports.PeerID) (ports.Listed, bool) { return r.get(id, true) }

// get is Get, with or without the proof.
func (r *Registry) get(id ports.PeerID, proof bool) (ports.Listed, bool) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	rec := s.record(id)
	unpack := record.holding
	if !proof {
		unpack = record.glance
	}
	held := unpack(rec)
	is := s.presentOf(rec, held, at)
	if is.shown == nil {
		return ports.Listed{}, false
	}
	l := r.present(id, is, at)
	if l.State == ports.StateLive && is.shown.source == told && !r.follower.Hears(is.shown.native.Value()) {
		l.State = ports.StateLate // no renewal of it would come
	}
	if l.State == ports.StateLate && r.vouched(held, is.shown, at) {
		l.State = ports.StateLive
	}
	if !proof {
		l.Proof = nil
	}
	return l, true
}

// present returns the view is of id as an answer. It has a lease.
func (r *Registry) present(id ports.PeerID, is view, at Instant) ports.Listed {
	l := r.listed(id, is.shown, at)
	if is.stale {
		l.State, l.Remaining = ports.StateStale, 0
	}
	return l
}

// vouched reports whether a native that this native follows tells a lease too that says the same as
// shown, and is not overdue.
func (r *Registry) vouched(h *holding, shown *word, at Instant) (is bool) {
	h.leases(func(l *word) bool {
		is = l.source == told && l.same(shown) && !r.rules.Policy.isLate(l, at) && r.follower.Hears(l.native.Value())
		return !is
	})
	return is
}

// listed returns the lease w of id as an answer. A caller cannot judge another native's clock, so
// a plain lease of another native expires by this native's.
func (r *Registry) listed(id ports.PeerID, w *word, at Instant) ports.Listed {
	remaining := max(w.deadline.Sub(at), 0)
	e := w.entry(id)
	if w.source != granted && w.proof == nil {
		e.ExpiresAt = r.wall(w.deadline)
	}
	state := r.rules.Policy.State(remaining)
	if w.overdue {
		state = ports.StateLate
	}
	return ports.Listed{Entry: e, State: state, Source: w.source.public(), Remaining: remaining}
}

// maxScan bounds the entries that one List looks at: 10 ms without a match if all are signed.
const maxScan = 10 * ports.MaxPage

// List implements ports.Native. It does no I/O.
func (r *Registry) List(_ context.Context, _ ports.PeerID, q ports.Query) (ports.Page, error) {
	if q.Limit == 0 {
		q.Limit = ports.DefaultPage
	}
	if q.Limit < 0 || q.Limit > ports.MaxPage {
		return ports.Page{}, ports.Refuse(ports.CodeOutOfRange, "a limit of %d: want 1 to %d", q.Limit, ports.MaxPage)
	}
	before := r.standing()
	page := r.page(q)
	s := before.worse(r.standing())
	page.Condition, page.Missing = s.condition, s.missing
	return page, nil
}

// page is List for a query with a limit that is in range. It has no condition.
func (r *Registry) page(q ports.Query) (page ports.Page) {
	after, scanned := q.After, 0
	for {
		// One entry more than the limit shows whether there is a next page.
		ids := r.table.order.after(after, min(q.Limit+1-len(page.Entries), maxScan+1-scanned))
		if len(ids) == 0 {
			return page
		}
		for _, id := range ids {
			listed, ok := r.get(id, q.Proofs)
			if ok && has(listed.Meta, q.Meta) { // else expired and not swept yet, or of other labels
				if len(page.Entries) == q.Limit {
					page.Next = page.Entries[q.Limit-1].PeerID
					return page
				}
				page.Entries = append(page.Entries, listed)
			}
			after = id
			if scanned++; scanned > maxScan {
				page.Next = after
				return page
			}
		}
	}
}

// has reports whether meta has every label of want.
func has(meta, want map[string]string) bool {
	for name, value := range want {
		if got, ok := meta[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// LookUp implements ports.Native. A stale indexer may live at a native that this native does not
// follow, so it is looked up as well.
func (r *Registry) LookUp(ctx context.Context, sender, id ports.PeerID) (ports.Answer, error) {
	listed, ok := r.Get(id)
	var before standing
	if !ok { // the miss must be later than what is said of it
		before = r.standing()
		listed, ok = r.Get(id)
	}
	var err error
	if !ok || listed.State == ports.StateStale {
		found, searchErr := r.searchFor(ctx, sender, id)
		if searchErr == nil || !ok {
			listed, err = found, searchErr
		}
	}
	if err == nil && sender == id {
		listed.Natives = r.holders(id)
	}
	s := before.worse(r.standing())
	return ports.Answer{Listed: listed, Condition: s.condition, Missing: s.missing}, err
}

// holders returns the natives whose leases of id this native holds.
func (r *Registry) holders(id ports.PeerID) (natives []ports.PeerID) {
	s := r.table.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	s.record(id).glance().leases(func(w *word) bool {
		if native := w.native.Value(); w.live(at) && native != "" && !slices.Contains(natives, native) {
			natives = append(natives, native)
		}
		return len(natives) < ports.MaxHolders
	})
	return natives
}

// maxRemembered bounds the records of expired indexers: a quarter of the table, so that expired
// indexers never keep live ones out. Over that the table forgets a record as it expires.
func (b Bounds) maxRemembered() int64 { return int64(b.entries() / 4) }

// roomFor reports whether the table has room for a new indexer by the word of another peer.
func (r *Registry) roomFor(by ports.PeerID) bool { return !r.full() && r.table.tellers.room(by) }

func (r *Registry) full() bool { return r.table.len() >= r.settings.Bounds.entries() }

// Counts returns the number of live entries and of known PeerIDs. The first includes entries that
// expired since the last sweep; the second includes the first.
func (r *Registry) Counts() (live, known int) {
	live = int(r.table.listed.Load() - r.table.stale.Load())
	return live, live + r.known.len()
}

// Stale returns the number of stale entries.
func (r *Registry) Stale() int { return int(r.table.stale.Load()) }

// Condition says how far a caller can rely on this native's table.
func (r *Registry) Condition() ports.Condition { return r.worsened(r.follower.Condition()) }

// worsened returns the worse of c and what this native hears of its own indexers.
func (r *Registry) worsened(c ports.Condition) ports.Condition {
	if r.table.unheard(r.rules.Clock.Instant()) {
		c = ports.Worse(c, ports.ConditionUnheard)
	}
	return c
}

// standing is how far a caller can rely on this native's table at a time, and whom it hears no more.
// An answer tells the worse of two: that before the table is read, and that after. An entry may end as
// soon as a native is missing, and may be back only shortly before the native is.
type standing struct {
	condition ports.Condition
	missing   []ports.PeerID
}

func (r *Registry) standing() standing { return standing{r.Condition(), r.Missing()} }

// worse returns the worse of s and the later one, with the missing natives of both. If they are too
// many, those of the later one stay.
func (s standing) worse(later standing) standing {
	w := standing{ports.Worse(s.condition, later.condition), later.missing}
	for _, id := range s.missing {
		if len(w.missing) < ports.MaxMissing && !slices.Contains(w.missing, id) {
			w.missing = append(slices.Clip(w.missing), id)
		}
	}
	if len(w.missing) > len(later.missing) {
		slices.Sort(w.missing)
	}
	return w
}

// HungUp implements ports.Hangups. A living indexer too ends a connection on which a native that
// stands still does not answer. So a native in doubt takes no hint from that.
func (r *Registry) HungUp(sender ports.PeerID, beating bool) {
	s := r.table.shard(sender)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := r.now().at
	if rec := s.record(sender); rec.known() && !r.table.hearing.doubts(at) {
		rec.set(hasHungUp, true)
		if first := &rec.holding().first; beating && first.source == granted && first.live(at) {
			r.hangups.add(sender, at.Add(r.rules.Policy.hangUpGrace()))
		}
	}
}

// Missing returns the natives that this native hears no more, at most ports.MaxMissing, sorted.
func (r *Registry) Missing() []ports.PeerID { return r.follower.Missing() }

// Following returns how many natives this native follows.
func (r *Registry) Following() int { return r.follower.Following() }

// Natives implements ports.Native.
func (r *Registry) Natives(ctx context.Context, _ ports.PeerID) ([]ports.NativeStatus, error) {
	return r.follower.Natives(ctx), nil
}

// Waiting returns how many entries wait for their put and announcement, or are in flight.
func (r *Registry) Waiting() int { return r.outbox.waiting() }

// HeldBack returns how many renewals this native has not announced so far, as it announced too many others.
func (r *Registry) HeldBack() uint64 { return r.outbox.heldBack.Load() }

// Avoided returns how many puts and announcements of renewals this native has left out so far: all natives
// that they would reach follow this native.
func (r *Registry) Avoided() (puts, announcements uint64) {
	return r.outbox.avoided.puts.Load(), r.outbox.avoided.announcements.Load()
}
