package domain

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// fickleFollower says one condition after the other, and the last for ever.
type fickleFollower struct {
	noFollower
	says []ports.Condition
}

func (f *fickleFollower) Condition() ports.Condition {
	c := f.says[0]
	if len(f.says) > 1 {
		f.says = f.says[1:]
	}
	return c
}

// Missing implements Following.
func (f *fickleFollower) Missing() []ports.PeerID {
	if f.says[0] == "" {
		return nil
	}
	return []ports.PeerID{"n"}
}

// fickleRegistry has a follower that says so from now on.
func fickleRegistry(t *testing.T, says ...ports.Condition) (*Registry, *fickleFollower) {
	f := &fickleFollower{says: says[:1]}
	r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
	f.says = says
	return r, f
}

// A table may be read just before a cut's end, and the condition just after.
func TestAnAnswerIsWorthNoMoreThanTheTableItWasReadFrom(t *testing.T) {
	const partial, unheard, warming = ports.ConditionPartial, ports.ConditionUnheard, ports.ConditionWarming
	for _, c := range []struct{ before, after, want ports.Condition }{
		{partial, "", partial}, {"", partial, partial}, {unheard, partial, unheard}, {partial, warming, warming}, {partial, partial, partial}, {"", "", ""},
	} {
		r, _ := fickleRegistry(t, c.before, c.after)
		answer, err := r.LookUp(t.Context(), "reader", "absent")
		if err == nil || answer.Condition != c.want {
			t.Errorf("%q before and %q after: a look-up says %q, %v, want %q", c.before, c.after, answer.Condition, err, c.want)
		}
		r, _ = fickleRegistry(t, c.before, c.after)
		page, err := r.List(t.Context(), "reader", ports.Query{})
		if err != nil || page.Condition != c.want {
			t.Errorf("%q before and %q after: a list says %q, %v, want %q", c.before, c.after, page.Condition, err, c.want)
		}
	}
}

// A watcher is far behind when a native is heard again that was missing.
func TestAWatcherHearsThatNothingIsMissingAfterWhatWasMissing(t *testing.T) {
	for _, w := range []ports.WatchRequest{{}, {Proofs: true}, {Own: true}} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r, f := fickleRegistry(t, ports.ConditionPartial)
				ctx, cancel := context.WithCancel(t.Context())
				read, reads := 0, make(chan struct{})
				wholeAt := -1
				go func() {
					for b, err := range r.Watch(ctx, "", w) {
						if err != nil {
							return
						}
						if read += len(b.Changes); b.Condition == "" && wholeAt < 0 {
							wholeAt = read
						}
						<-reads
					}
				}()
				synctest.Wait()
				const missing = 3*maxBatch + 1
				registers(r, missing)
				f.says[0] = ""
				r.table.changes.mark(r.standing())
				close(reads)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if wholeAt != missing {
					t.Errorf("after %d changes of %d it is told that nothing is missing", wholeAt, missing)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// What a reader missed is many batches.
func TestAWatcherThatGoesOnHasACursorOnceItWasToldAll(t *testing.T) {
	for _, w := range []ports.WatchRequest{{}, {Renewed: true}, {Proofs: true}, {Own: true}} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				r, _ := bareRegistry(t, "me", nil)
				for b := range r.Watch(t.Context(), "", w) {
					if w.Cursor = b.Cursor; w.Cursor != "" {
						break
					}
				}
				const missed = 3*maxBatch + 1
				registers(r, missed)
				told, first := 0, true
				for b, err := range r.Watch(t.Context(), "", w) {
					if err != nil || b.Reset != "" {
						t.Fatal(b.Reset, err)
					}
					if first && len(b.Changes) > 0 {
						t.Errorf("the first batch does not come at once")
					}
					first = false
					if told += len(b.Changes); b.Cursor != "" {
						break
					}
				}
				if told != missed {
					t.Errorf("it has a cursor after %d changes of %d", told, missed)
				}
				for b := range r.Watch(t.Context(), "", ports.WatchRequest{Cursor: r.table.changes.cursor(r.table.changes.head())}) {
					if b.Cursor == "" {
						t.Error("who missed nothing has no cursor at once")
					}
					break
				}
			})
		})
	}
}

// steadyFollower says what a test sets, as long as it likes.
type steadyFollower struct {
	noFollower
	condition ports.Condition
	missing   []ports.PeerID
}

func (f *steadyFollower) Condition() ports.Condition { return f.condition }

// Missing implements Following.
func (f *steadyFollower) Missing() []ports.PeerID { return f.missing }

// mends reports whether s says that less is missing than before.
func (s standing) mends(before standing) bool {
	return s.condition != before.condition && ports.Worse(s.condition, before.condition) == before.condition ||
		slices.ContainsFunc(before.missing, func(id ports.PeerID) bool { return !slices.Contains(s.missing, id) })
}

// Natives are heard again one after the other, while a watcher is far behind.
func TestAWatcherHearsOfEachNativeThatIsBackAfterWhatWasMissing(t *testing.T) {
	const partial, isolated = ports.ConditionPartial, ports.ConditionIsolated
	a, b, ab := []ports.PeerID{"a"}, []ports.PeerID{"b"}, []ports.PeerID{"a", "b"}
	for name, says := range map[string][3]standing{ // before and after each half of the changes
		"better twice":       {{isolated, ab}, {partial, b}, {"", nil}},
		"names alone":        {{partial, ab}, {partial, b}, {"", nil}},
		"another is missing": {{partial, a}, {partial, b}, {"", nil}},
		"worse in between":   {{partial, a}, {"", nil}, {partial, a}},
	} {
		for _, w := range []ports.WatchRequest{{}, {Own: true}} {
			t.Run(fmt.Sprintf("%s %+v", name, w), func(t *testing.T) {
				porttest.FakeTime(t, func(t *testing.T) {
					f := &steadyFollower{condition: says[0].condition, missing: says[0].missing}
					r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
					ctx, cancel := context.WithCancel(t.Context())
					const half = 2*maxBatch + 1
					var last standing
					next := make(chan struct{})
					go func() {
						read := 0
						for b, err := range r.Watch(ctx, "", w) {
							if err != nil {
								return
							}
							read += len(b.Changes)
							now := standing{b.Condition, b.Missing}
							for i, told := range []int{half, 2 * half} { // what was said as the half began
								if read < told && now.mends(says[i]) && (i == 0 || read >= half) {
									t.Errorf("after %d changes of %d it is told %q, %v", read, 2*half, now.condition, now.missing)
								}
							}
							last = now
							<-next
						}
					}()
					synctest.Wait()
					for i, s := range says[1:] {
						for j := range half {
							id := indexerOf("me", i*half+j)
							if _, err := r.Register(t.Context(), id, ports.Registration{PeerID: id, Addr: "/a"}); err != nil {
								t.Fatal(err)
							}
						}
						f.condition, f.missing = s.condition, s.missing
						r.table.changes.mark(r.standing())
						next <- struct{}{} // one batch more
						time.Sleep(time.Second)
						synctest.Wait()
					}
					close(next)
					time.Sleep(5 * time.Second)
					synctest.Wait()
					if last.condition != says[2].condition || !slices.Equal(last.missing, says[2].missing) {
						t.Errorf("at last it is told %q, %v", last.condition, last.missing)
					}
					cancel()
					synctest.Wait()
				})
			})
		}
	}
}

// movingFollower names one native that is missing after the other.
type movingFollower struct {
	steadyFollower
	names [][]ports.PeerID
}

func (f *movingFollower) Missing() []ports.PeerID {
	is := f.names[0]
	if len(f.names) > 1 {
		f.names = f.names[1:]
	}
	return is
}

// One native may be heard again, and another one lost, while a table is read.
func TestAnAnswerNamesWhoWasMissingBeforeAndAfterTheTableWasRead(t *testing.T) {
	newRegistry := func() *Registry {
		f := &movingFollower{steadyFollower{condition: ports.ConditionPartial}, [][]ports.PeerID{{"b"}}}
		r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
		f.names = [][]ports.PeerID{{"b"}, {"a"}}
		return r
	}
	want := []ports.PeerID{"a", "b"}
	if answer, _ := newRegistry().LookUp(t.Context(), "reader", "absent"); !slices.Equal(answer.Missing, want) {
		t.Errorf("a look-up names %v", answer.Missing)
	}
	if page, _ := newRegistry().List(t.Context(), "reader", ports.Query{}); !slices.Equal(page.Missing, want) {
		t.Errorf("a list names %v", page.Missing)
	}
	many := make([]ports.PeerID, ports.MaxMissing)
	for i := range many {
		many[i] = ports.PeerID(fmt.Sprint("m", 10+i))
	}
	if got := (standing{missing: want}).worse(standing{missing: many}).missing; !slices.Equal(got, many) {
		t.Errorf("of too many it names %v", got)
	}
}

// The changes of a large network have no end.
func TestAWatcherHearsOfABetterConditionWhileTheTableChangesForEver(t *testing.T) {
	for _, w := range []ports.WatchRequest{{}, {Renewed: true}, {Own: true}} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				f := &steadyFollower{condition: ports.ConditionPartial}
				r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
				ctx, cancel := context.WithCancel(t.Context())
				var told ports.Condition
				var reading sync.WaitGroup
				defer reading.Wait()
				defer cancel()
				reading.Go(func() {
					for b := range r.Watch(ctx, "", w) {
						for told = b.Condition; len(b.Changes) > 0; b.Changes = nil {
							time.Sleep(time.Millisecond) // changes come while it reads
						}
					}
				})
				change := func(times int) {
					for range times {
						for range 10 {
							r.table.changes.add(ports.ChangeLeft, "x", &word{source: granted, native: r.self}, false)
						}
						time.Sleep(time.Millisecond)
					}
					synctest.Wait()
				}
				change(1000)
				for range 3 {
					f.condition = ""
					r.table.changes.mark(r.standing())
					change(300)
					if told != "" {
						t.Errorf("300 ms after it is better it is told %q", told)
					}
					f.condition = ports.ConditionPartial
					r.table.changes.mark(r.standing())
					change(300)
					if told != ports.ConditionPartial {
						t.Errorf("300 ms after it is worse it is told %q", told)
					}
				}
			})
		})
	}
}

// A native is lost and heard again while a watcher reads nothing.
func TestAWatcherHearsOfABadTimeThatIsOverBeforeItReads(t *testing.T) {
	for _, w := range []ports.WatchRequest{{}, {Own: true}} {
		porttest.FakeTime(t, func(t *testing.T) {
			f := &steadyFollower{}
			r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
			registers(r, 1500)
			ctx, cancel := context.WithCancel(t.Context())
			next := make(chan struct{})
			last := ports.ConditionWarming
			listed := map[ports.PeerID]bool{}
			go func() {
				for b := range r.Watch(ctx, "", w) {
					for _, c := range b.Changes {
						if c.Kind.Gone() {
							delete(listed, c.PeerID)
						} else {
							listed[c.PeerID] = true
						}
					}
					if b.Cursor != "" {
						last = b.Condition
						if len(listed) != 1500 && b.Condition == "" {
							t.Errorf("%+v: %d listed, condition %q", w, len(listed), b.Condition)
						}
						<-next
					}
				}
			}()
			synctest.Wait()
			f.condition, f.missing = ports.ConditionPartial, []ports.PeerID{"a"}
			r.table.changes.mark(r.standing())
			for i := range 1500 {
				r.table.changes.add(ports.ChangeLeft, indexerOf("me", i), &word{source: granted, native: r.self}, false)
			}
			for i := range 1500 {
				r.table.changes.add(ports.ChangeJoined, indexerOf("me", i), &word{source: granted, native: r.self}, false)
			}
			f.condition, f.missing = "", nil
			r.table.changes.mark(r.standing())
			close(next)
			time.Sleep(5 * time.Second)
			synctest.Wait()
			cancel()
			synctest.Wait()
			if last != "" || len(listed) != 1500 {
				t.Errorf("at last %q, %d listed", last, len(listed))
			}
		})
	}
}

// A native is lost and heard again while a reader is away.
func TestAWatcherThatGoesOnHearsOfABadTimeUntilItWasToldAll(t *testing.T) {
	for _, w := range []ports.WatchRequest{{}, {Own: true}} {
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			porttest.FakeTime(t, func(t *testing.T) {
				f := &steadyFollower{}
				r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
				for b := range r.Watch(t.Context(), "", w) {
					if w.Cursor = b.Cursor; w.Cursor != "" {
						break
					}
				}
				f.condition, f.missing = ports.ConditionPartial, []ports.PeerID{"a"}
				r.table.changes.mark(r.standing())
				const missed = 2*maxBatch + 1
				registers(r, missed)
				f.condition, f.missing = "", nil
				r.table.changes.mark(r.standing())
				told := 0
				for b := range r.Watch(t.Context(), "", w) {
					if told += len(b.Changes); b.Condition == "" && told != missed {
						t.Errorf("after %d changes of %d it is told that nothing is missing", told, missed)
					}
					if b.Cursor != "" {
						if b.Condition != "" || len(b.Missing) > 0 {
							t.Errorf("at last it is told %q, %v", b.Condition, b.Missing)
						}
						break
					}
				}
			})
		})
	}
}
