package domain

import (
	"context"
	"fmt"
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

// A table may be read just before a cut's end, and the condition just after.
func TestAnAnswerIsWorthNoMoreThanTheTableItWasReadFrom(t *testing.T) {
	const partial, unheard, warming = ports.ConditionPartial, ports.ConditionUnheard, ports.ConditionWarming
	for _, c := range []struct{ before, after, want ports.Condition }{
		{partial, "", partial}, {"", partial, partial}, {unheard, partial, unheard}, {partial, warming, warming}, {partial, partial, partial}, {"", "", ""},
	} {
		r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = &fickleFollower{says: []ports.Condition{c.before, c.after}} })
		answer, err := r.LookUp(t.Context(), "reader", "absent")
		if err == nil || answer.Condition != c.want {
			t.Errorf("%q before and %q after: a look-up says %q, %v, want %q", c.before, c.after, answer.Condition, err, c.want)
		}
		r, _ = bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = &fickleFollower{says: []ports.Condition{c.before, c.after}} })
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
				f := &fickleFollower{says: []ports.Condition{ports.ConditionPartial}}
				r, _ := bareRegistry(t, "me", func(_ *Rules, s *Settings) { s.Follower = f })
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
				r.table.changes.add(conditionChanged, "", &word{}, false)
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
