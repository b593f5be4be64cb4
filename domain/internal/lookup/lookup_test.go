package lookup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	own    ports.PeerID = "own"
	nobody ports.PeerID = "nobody" // is never found
	hangs  ports.PeerID = "hangs"  // until the look-up's time is over
)

var errHung = errors.New("it hung")

// began is a look-up that has begun.
type began struct {
	id ports.PeerID
	at time.Duration // since the rig was made
}

// rig is a Machine in fake time, each look-up of which takes a second.
type rig struct {
	*Machine[string]
	t     testing.TB
	made  time.Time
	takes func(ports.PeerID) time.Duration
	stop  func()

	mu     sync.Mutex
	under  map[ports.PeerID]int // look-ups under way
	most   int                  // that have been at once
	begun  []began
	served []ports.PeerID // asker:id:result, of AfterAsk
}

func limits() Config[string] {
	return Config[string]{
		Timeout:  3 * time.Second,
		MaxFinds: 4, MaxFindsEach: func(asker ports.PeerID) int {
			if asker == own {
				return 3
			}
			return 2
		},
		MaxAsks: 4, MaxAsksEach: 2, MaxQueued: 10, MaxQueuedEach: 5,
		Own: func(asker ports.PeerID) bool { return asker == own },
	}
}

// newRig returns a rig that does not run yet.
func newRig(t testing.TB, c Config[string]) *rig {
	r := &rig{t: t, made: time.Now(), under: map[ports.PeerID]int{}, takes: func(ports.PeerID) time.Duration { return time.Second }}
	c.Look, c.AfterAsk = r.look, r.then
	r.Machine = New(c)
	return r
}

func (r *rig) start() *rig {
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	r.Start(ctx, &running)
	r.stop = func() { cancel(); r.Stop(); running.Wait() }
	return r
}

func (r *rig) look(ctx context.Context, id, _ ports.PeerID) (string, error) {
	r.mu.Lock()
	if r.under[id]++; r.under[id] > 1 {
		r.t.Errorf("%s is looked up twice at once", id)
	}
	r.begun = append(r.begun, began{id, time.Since(r.made)})
	all := 0
	for _, n := range r.under {
		all += n
	}
	r.most = max(r.most, all)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.under[id]--
	}()
	takes := r.takes(id)
	if id == hangs {
		takes = time.Hour
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return "", errHung
	}
	if id == nobody {
		return "no " + string(id), ports.ErrNotFound
	}
	return "found " + string(id), nil
}

func (r *rig) then(_ context.Context, id, asker ports.PeerID, result string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.served = append(r.served, asker+":"+id+":"+ports.PeerID(result))
}

// times returns when look-ups of id began.
func (r *rig) times(id ports.PeerID) (at []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.begun {
		if b.id == id {
			at = append(at, b.at)
		}
	}
	return at
}

func number(i int) ports.PeerID { return ports.PeerID(fmt.Sprint(i)) }

// expect has Find return what is wanted, after so long.
func (r *rig) expect(ctx context.Context, id, asker ports.PeerID, want string, wantErr error, after time.Duration) {
	r.t.Helper()
	from := time.Now()
	got, err := r.Find(ctx, id, asker)
	if took := time.Since(from); got != want || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) || took != after {
		r.t.Errorf("%s for %s: %q, %v after %v; want %q, %v after %v", id, asker, got, err, took, want, wantErr, after)
	}
}

func TestACallerWaitsForTheResult(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits()).start()
		defer r.stop()
		r.expect(t.Context(), "x", "a", "found x", nil, time.Second)
		r.expect(t.Context(), nobody, "a", "no nobody", ports.ErrNotFound, time.Second)
		r.expect(t.Context(), nobody, "b", "no nobody", ports.ErrNotFound, 0) // as is remembered
		r.expect(t.Context(), hangs, "a", "", errHung, 3*time.Second)
		r.expect(t.Context(), hangs, "a", "", errHung, 3*time.Second) // which is no answer to remember
		r.expect(t.Context(), nobody, "a", "no nobody", ports.ErrNotFound, time.Second)
		if n := r.Len(); n != 0 {
			t.Errorf("%d PeerIDs are left", n)
		}
	})
}

// Nobody waits for the first look-up of nobody, and another one is found after it was not.
func TestOnlyWhatACallerDidNotFindIsRemembered(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		there := false
		c := limits()
		r := newRig(t, c)
		r.cfg.Look = func(context.Context, ports.PeerID, ports.PeerID) (string, error) {
			if time.Sleep(time.Second); !there {
				return "", ports.ErrNotFound
			}
			return "found", nil
		}
		r.start()
		defer r.stop()
		r.Ask("x", "a")
		time.Sleep(2 * time.Second)
		r.expect(t.Context(), "x", "a", "", ports.ErrNotFound, time.Second)
		there = true
		r.expect(t.Context(), "x", "a", "", ports.ErrNotFound, 0)
		r.Ask("x", "a")
		time.Sleep(2 * time.Second)
		r.expect(t.Context(), "x", "a", "found", nil, time.Second)
	})
}

func TestCallersShareALookUp(t *testing.T) {
	for _, asked := range []bool{false, true} { // whether it is one for Ask
		t.Run(fmt.Sprint("asked ", asked), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r := newRig(t, limits()).start()
				defer r.stop()
				impatient, cancel := context.WithTimeout(t.Context(), time.Second/4)
				defer cancel()
				var callers sync.WaitGroup
				if asked {
					r.Ask("x", "a")
				} else {
					callers.Go(func() { r.expect(impatient, "x", "a", "", context.DeadlineExceeded, time.Second/4) })
				}
				time.Sleep(time.Second / 2) // the first has gone
				for i := range 100 {
					callers.Go(func() { r.expect(t.Context(), "x", number(i), "found x", nil, time.Second/2) })
				}
				callers.Wait()
				if at := r.times("x"); len(at) != 1 {
					t.Errorf("looked up at %v, want once", at)
				}
			})
		})
	}
}

// AfterAsk may ask another native, which waits for the same PeerID here.
func TestCallersDoNotWaitForWhatIsDoneAfterALookUp(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits())
		r.cfg.AfterAsk = func(context.Context, ports.PeerID, ports.PeerID, string) { time.Sleep(time.Minute) }
		r.start()
		defer r.stop()
		r.Ask("x", "a")
		synctest.Wait()
		r.expect(t.Context(), "x", "b", "found x", nil, time.Second)
		r.expect(t.Context(), "x", "b", "found x", nil, time.Second) // another look-up
		r.Ask("y", "a")
		r.Ask("z", "a") // has to wait: a has two places
		time.Sleep(10 * time.Second)
		if r.times("y") == nil || r.times("z") != nil {
			t.Errorf("y is looked up at %v, z at %v", r.times("y"), r.times("z"))
		}
	})
}

func TestALookUpServesAllWhoAskedBefore(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits()).start()
		defer r.stop()
		for i := range 4 { // all places
			r.Ask(number(i), number(i))
		}
		synctest.Wait()
		for _, by := range []ports.PeerID{"a", "b", "a", own} {
			r.Ask("x", by)
		}
		time.Sleep(10 * time.Second)
		if at := r.times("x"); !slices.Equal(at, []time.Duration{time.Second}) {
			t.Errorf("looked up at %v, want once", at)
		}
	})
}

// An asker that still waits in its queue has news of what another had looked up meanwhile.
func TestALookUpDoesNotServeWhatIsAskedAfterwards(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits()).start()
		defer r.stop()
		for _, id := range []ports.PeerID{"1", "2", "x"} { // a has two places
			r.Ask(id, "a")
		}
		r.Ask("x", "b")
		time.Sleep(time.Second / 2)
		r.Ask("x", "a")
		time.Sleep(10 * time.Second)
		if at := r.times("x"); !slices.Equal(at, []time.Duration{0, time.Second}) {
			t.Errorf("looked up at %v, want for b and for a", at)
		}
	})
}

// An asker has more to do than a caller.
func TestACallerDoesNotTakeTheTurnOfNews(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits()).start()
		defer r.stop()
		r.takes = func(id ports.PeerID) time.Duration {
			if id == "x" {
				return time.Second
			}
			return 2 * time.Second
		}
		for _, id := range []ports.PeerID{"1", "2", "x"} { // a has two places
			r.Ask(id, "a")
		}
		synctest.Wait()
		r.expect(t.Context(), "x", "b", "found x", nil, time.Second)
		time.Sleep(10 * time.Second)
		if at := r.times("x"); !slices.Equal(at, []time.Duration{0, 2 * time.Second}) {
			t.Errorf("looked up at %v, want for the caller and for a", at)
		}
		slices.Sort(r.served)
		if want := []ports.PeerID{"a:1:found 1", "a:2:found 2", "a:x:found x"}; !slices.Equal(r.served, want) {
			t.Errorf("told of %v, want %v", r.served, want)
		}
	})
}

func TestNewsOfWhatIsBeingLookedUpIsLookedUpAfterwards(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprint("asked ", asked), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r := newRig(t, limits()).start()
				defer r.stop()
				if asked {
					r.Ask("x", "a")
				} else {
					go func() { _, _ = r.Find(t.Context(), "x", "a") }()
				}
				time.Sleep(time.Second / 2)
				r.Ask("x", "a")
				r.Ask("x", "b")
				time.Sleep(time.Minute)
				if at := r.times("x"); !slices.Equal(at, []time.Duration{0, time.Second}) {
					t.Errorf("looked up at %v, want once more, for both", at)
				}
				synctest.Wait()
				if left := r.left(); left != "" {
					t.Error(left)
				}
			})
		})
	}
}

// A flood of one way in is no matter to the other, and of one asker none to the others.
func TestTurnsAreFair(t *testing.T) {
	for _, c := range []struct {
		name  string
		flood func(*rig)
		do    func(*rig)
	}{
		{"news, for a caller", func(r *rig) {
			for i := range 1000 {
				r.Ask(number(i), number(i%20))
				r.Ask(number(i+1000), own)
			}
		}, func(r *rig) { r.expect(r.t.Context(), "x", "honest", "found x", nil, time.Second) }},
		{"callers, for news", func(r *rig) {
			for i := range 100 {
				go func() { _, _ = r.Find(r.t.Context(), number(i), number(i)) }()
			}
		}, func(r *rig) {
			r.Ask("x", "honest")
			synctest.Wait()
			if len(r.times("x")) != 1 {
				r.t.Error("it is not looked up at once")
			}
		}},
		{"one asker's news, for another's", func(r *rig) {
			for i := range 1000 {
				r.Ask(number(i), own)
			}
			r.Ask("x", own) // it too, at the end of its queue
		}, func(r *rig) {
			r.Ask("x", "honest")
			synctest.Wait()
			if len(r.times("x")) != 1 {
				r.t.Error("it is not looked up at once")
			}
		}},
		{"many askers' news, for another's", func(r *rig) {
			for i := range 1000 {
				r.Ask(number(i), number(i%4))
				r.Ask(number(i+1000), own)
			}
		}, func(r *rig) {
			r.maxQueued(100)
			r.Ask("x", "honest")
			time.Sleep(3 * time.Second) // five are before it, at four a second
			if len(r.times("x")) != 1 {
				r.t.Error("its turn does not come")
			}
		}},
		{"one asker's callers, for another's", func(r *rig) {
			for i := range 100 {
				go func() { _, _ = r.Find(r.t.Context(), number(i), "a") }()
			}
		}, func(r *rig) { r.expect(r.t.Context(), "x", "honest", "found x", nil, time.Second) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r := newRig(t, limits()).start()
				defer r.stop()
				c.flood(r)
				synctest.Wait()
				c.do(r)
				synctest.Wait()
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.most > r.cfg.MaxAsks+r.cfg.MaxFinds {
					t.Errorf("%d ran at once", r.most)
				}
			})
		})
	}
}

func (r *rig) maxQueued(n int) {
	r.Machine.mu.Lock()
	defer r.Machine.mu.Unlock()
	r.cfg.MaxQueued = n
}

func TestNothingBeginsBeforeTheStartOrAfterTheStop(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r := newRig(t, limits())
		r.expect(t.Context(), "x", "a", "", ErrStopped, 0)
		r.Ask("x", "a")
		r.Ask("x", "a")
		time.Sleep(time.Minute)
		if len(r.begun) != 0 || r.Len() != 1 {
			t.Errorf("%v began; %d wait, want x", r.begun, r.Len())
		}

		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		r.Start(ctx, &running)
		time.Sleep(2 * time.Second)
		if at := r.times("x"); len(at) != 1 || r.Len() != 0 {
			t.Errorf("what waited is looked up at %v; %d wait", at, r.Len())
		}
		go r.expect(t.Context(), hangs, "a", "", errHung, 0) // it ends with ctx
		r.Ask("y", "a")
		for i := range 5 {
			r.Ask(number(i), "a")
		}
		synctest.Wait()
		cancel()
		r.expect(t.Context(), "z", "a", "", ErrStopped, 0) // though Stop was not called
		r.Stop()
		running.Wait()
		r.Ask("z", "b")
		r.expect(t.Context(), "z", "a", "", ErrStopped, 0)
		synctest.Wait()
		if r.times("z") != nil || len(r.begun) != 4 { // x, hangs, and two of a's
			t.Errorf("%v began", r.begun)
		}
	})
}

// step is what is done to a Machine, and how long the test waits then.
type step struct {
	id, by ports.PeerID
	asks   bool
	wait   time.Duration
}

// TestBoundsHoldAndNothingIsLost holds a Machine against what was asked of it.
func TestBoundsHoldAndNothingIsLost(t *testing.T) {
	askers := []ports.PeerID{own, "a", "b", "c", "d", "e"}
	ids := []ports.PeerID{nobody, hangs, "x", "y", "z", "u", "v", "w"}
	rapid.Check(t, func(rt *rapid.T) {
		takes := map[ports.PeerID]time.Duration{}
		for _, id := range ids {
			takes[id] = time.Duration(rapid.IntRange(0, 4000).Draw(rt, "takes")) * time.Millisecond
		}
		steps := make([]step, rapid.IntRange(1, 100).Draw(rt, "steps"))
		for i := range steps {
			steps[i] = step{
				rapid.SampledFrom(ids).Draw(rt, "id"), rapid.SampledFrom(askers).Draw(rt, "by"), rapid.Bool().Draw(rt, "asks"),
				time.Duration(max(0, rapid.IntRange(-6000, 2000).Draw(rt, "wait"))) * time.Millisecond,
			}
		}
		var wrong []string
		porttest.FakeTime(t, func(t *testing.T) {
			r := newRig(t, limits())
			r.takes = func(id ports.PeerID) time.Duration { return takes[id] }
			r.start()
			defer r.stop()
			wrong = r.run(steps)
		})
		if len(wrong) > 0 {
			rt.Fatal(strings.Join(wrong, "\n"))
		}
	})
}

// run does steps, and returns what is wrong with what becomes of them.
func (r *rig) run(steps []step) (wrong []string) {
	var mu sync.Mutex
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		wrong = append(wrong, fmt.Sprintf(format, args...))
	}
	type ask struct {
		id     ports.PeerID
		before int // look-ups of it that had begun
	}
	var asks []ask
	var callers sync.WaitGroup
	for _, s := range steps {
		if s.asks {
			before := len(r.times(s.id))
			r.Machine.mu.Lock()
			a := r.askers[s.by]
			full := s.by != own && (r.queued >= r.cfg.MaxQueued || a != nil && len(a.queue) >= r.cfg.MaxQueuedEach)
			r.Machine.mu.Unlock()
			if r.Ask(s.id, s.by); !full {
				asks = append(asks, ask{s.id, before})
			}
		} else {
			r.Machine.mu.Lock()
			w := r.wanted[s.id]
			_, known := r.notFound.Has(s.id, time.Since(r.epoch))
			joins := w != nil && w.flight != nil
			full := r.finds >= r.cfg.MaxFinds || r.finders[s.by] >= r.cfg.MaxFindsEach(s.by)
			r.Machine.mu.Unlock()
			callers.Go(func() {
				got, err := r.Find(r.t.Context(), s.id, s.by)
				switch busy := errors.Is(err, ErrBusy); {
				case busy != (full && !joins && !known):
					complain("%s is told %v: full %t, joins %t, remembered %t", s.by, err, full, joins, known)
				case err == nil && got != "found "+string(s.id), errors.Is(err, ports.ErrNotFound) && got != "no "+string(s.id):
					complain("of %s: %q, %v", s.id, got, err)
				}
			})
		}
		synctest.Wait()
		time.Sleep(s.wait)
		synctest.Wait()
		r.Machine.mu.Lock()
		queued := 0
		for by, a := range r.askers {
			// PeerIDs that are looked up again come on top of those that were queued.
			if a.running > r.cfg.MaxAsksEach || by != own && len(a.queue) > r.cfg.MaxQueuedEach+r.cfg.MaxAsks+r.cfg.MaxFinds {
				complain("%s has %d under way and %d queued", by, a.running, len(a.queue))
			}
			if by != own {
				queued += len(a.queue)
			}
		}
		if r.asks > r.cfg.MaxAsks || r.finds > r.cfg.MaxFinds || queued != r.queued {
			complain("%d and %d are under way, %d queued, counted %d", r.asks, r.finds, queued, r.queued)
		}
		r.Machine.mu.Unlock()
	}
	callers.Wait()
	time.Sleep(time.Hour)
	synctest.Wait()
	for _, a := range asks {
		if n := len(r.times(a.id)); n <= a.before {
			complain("%s was looked up %d times before it was asked for, and not again", a.id, n)
		}
	}
	if r.left() != "" {
		complain("%s", r.left())
	}
	if r.most > r.cfg.MaxAsks+r.cfg.MaxFinds {
		complain("%d ran at once", r.most)
	}
	return wrong
}

// left tells what a Machine at rest should not have.
func (r *rig) left() string {
	r.Machine.mu.Lock()
	defer r.Machine.mu.Unlock()
	if len(r.wanted)+len(r.askers)+len(r.turn)+len(r.finders)+r.asks+r.finds+r.queued == 0 {
		return ""
	}
	return fmt.Sprintf("left are %d PeerIDs, %d askers, %d turns, %d callers, %d+%d look-ups, %d in queues",
		len(r.wanted), len(r.askers), len(r.turn), len(r.finders), r.asks, r.finds, r.queued)
}

// In real time, on all processors.
func TestManyAtOnce(t *testing.T) {
	c := limits()
	c.Timeout = 20 * time.Millisecond
	r := newRig(t, c)
	r.takes = func(ports.PeerID) time.Duration { return time.Duration(rand.IntN(int(2 * time.Millisecond))) }
	r.start()
	ids := []ports.PeerID{nobody, hangs, "x", "y", "z"}
	var all sync.WaitGroup
	var found atomic.Int64
	for i := range 32 {
		all.Go(func() {
			for n := range 200 {
				id := ids[(i+n)%len(ids)]
				if n%3 == 0 {
					r.Ask(id, number(i%7))
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*time.Millisecond)
				got, err := r.Find(ctx, id, number(i%7))
				cancel()
				switch {
				case err == nil && got == "found "+string(id):
					found.Add(1)
				case err == nil, errors.Is(err, ErrStopped):
					t.Errorf("of %s: %q, %v", id, got, err)
				}
			}
		})
	}
	all.Wait()
	r.stop()
	if r.most > c.MaxAsks+c.MaxFinds || found.Load() == 0 {
		t.Errorf("%d at once; %d found", r.most, found.Load())
	}
	if r.asks != 0 || r.finds != 0 || len(r.finders) != 0 {
		t.Error(r.left())
	}
}
