package domain

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
)

// shelf is a table of one indexer, x, and what watchers were told of it.
type shelf struct {
	t    *testing.T
	s    *shard
	read uint64
}

func newShelf(t *testing.T) *shelf {
	b := &shelf{t: t, s: newTable(DefaultTTLPolicy(), Bounds{Entries: 8}).shard("x")}
	b.s.table.changes.remember()
	return b
}

func (b *shelf) record() record {
	if r := b.s.record("x"); r.known() {
		return r
	}
	return b.s.insert("x")
}

// hears has the table hear a word, and returns what became of x.
func (b *shelf) hears(w word, now moment) became {
	b.t.Helper()
	next, err := accepts.say(b.s.record("x").holding(), w, true, now)
	if err != nil {
		b.t.Fatalf("%+v: %v", w, err)
	}
	return b.s.apply(b.record(), &next, now)
}

// told returns what watchers were told since the last time: the kind, by which native, and + for a
// change that comes with its record.
func (b *shelf) told() (changes []string) {
	log := b.s.table.changes
	all, ok := log.read(b.read, 100)
	if !ok {
		b.t.Fatal("too many changes")
	}
	for m := range all {
		var c change
		b.s.table.recall(m, &c, true)
		text := fmt.Sprintf("%s %s", c.kind, c.word.native.Value())
		if c.fresh {
			text += "+"
		}
		changes = append(changes, text)
	}
	b.read = log.head()
	return changes
}

// ticked returns w with a tick of a record that is held.
func ticked(w word, record word, step uint32) word {
	p := *record.proof
	p.Tick.Step = step
	w.proof, w.expiresAt = &p, p.Claim.ExpiresAt(step).UnixNano()
	return w
}

// sweep is what Run does.
func (b *shelf) sweep(now moment) (expired, ahead []ports.PeerID) {
	for more := true; more; {
		found := b.s.sweep(func() moment { return now })
		expired, ahead, more = append(expired, found.expired...), append(ahead, found.ahead...), found.more
	}
	return expired, ahead
}

// counts are what the table says of itself: how many it holds, lists and has granted, and how many
// are in its orders.
func (b *shelf) counts() [5]int {
	t := b.s.table
	return [5]int{t.len(), int(t.listed.Load()), int(t.owned.Load()), len(t.order.after("", 9)), len(t.leaves.after("", 9))}
}

// Each row is a way of an indexer through the table, and what watchers are told on it.
func TestWatchersAreToldTheDifference(t *testing.T) {
	const full = 66 * sec
	type step struct {
		at     time.Duration
		say    *word // nil is a sweep
		became became
		told   []string
		counts [5]int
	}
	say := func(w word) *word { return &w }
	record, other := signed(lease(granted, "me", full), 0, 0), started(lease(told, "n1", 59*sec+full), 59, 0, 2)
	gone, nothing := became{expired: true}, became{}
	joined, left := became{joined: true}, became{left: true}
	listed, mine, isLeft, remembered, none := [5]int{1, 1, 0, 1, 0}, [5]int{1, 1, 1, 1, 0}, [5]int{1, 0, 0, 0, 1}, [5]int{1, 0, 0, 0, 0}, [5]int{}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a lease and its end", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{59 * sec, nil, nothing, nil, mine}, {61 * sec, nil, nothing, []string{"late me"}, mine}, {62 * sec, nil, nothing, nil, mine},
			{67 * sec, nil, gone, []string{"expired me"}, none},
		}},
		{"a renewal, and one that comes late", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{30 * sec, say(lease(granted, "me", 30*sec+full)), nothing, []string{"renewed me"}, mine},
			{60 * sec, nil, nothing, nil, mine}, {91 * sec, nil, nothing, []string{"late me"}, mine},
			{92 * sec, say(lease(granted, "me", 92*sec+full)), nothing, []string{"updated me"}, mine},
			{93 * sec, say(lease(granted, "me", 92*sec+full)), nothing, nil, mine},
		}},
		{"another address", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{sec, say(at(lease(granted, "me", sec+full), "b")), nothing, []string{"updated me"}, mine},
		}},
		{"a renewal between the end and the sweep", []step{
			{0, say(lease(told, "n1", 10*sec)), joined, []string{"joined n1"}, listed},
			{11 * sec, say(lease(granted, "me", 11*sec+full)), became{joined: true, expired: true}, []string{"expired n1", "joined me"}, mine},
		}},
		{"a lease that another native shortens", []step{
			{0, say(lease(told, "n1", full)), joined, []string{"joined n1"}, listed},
			{sec, say(lease(told, "n1", 5*sec)), nothing, []string{"renewed n1"}, listed},
			{6 * sec, nil, gone, []string{"expired n1"}, none},
		}},
		{"another native's later lease, shown once the heartbeat is overdue here", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{sec, say(lease(told, "n1", 90*sec)), nothing, nil, mine},
			{61 * sec, nil, nothing, []string{"renewed n1"}, mine},
			{62 * sec, say(lease(granted, "me", 62*sec+full)), nothing, []string{"renewed me"}, mine},
		}},
		{"another native's later lease, shown though it was told of as late", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{61 * sec, nil, nothing, []string{"late me"}, mine},
			{62 * sec, say(lease(told, "n1", 90*sec)), nothing, []string{"updated n1"}, mine},
			{67 * sec, nil, nothing, nil, listed}, {91 * sec, nil, gone, []string{"expired n1"}, none},
		}},
		{"another native's later lease, of another address, at the end of this one", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{sec, say(at(lease(told, "n1", 90*sec), "b")), nothing, nil, mine},
			{61 * sec, nil, nothing, []string{"late me"}, mine},
			{67 * sec, nil, nothing, []string{"updated n1"}, listed},
		}},
		{"a leave that is taken here", []step{
			{0, say(lease(granted, "me", full)), joined, []string{"joined me"}, mine},
			{sec, say(leave(granted, "me", sec+full)), left, []string{"left me"}, isLeft},
			{68 * sec, nil, nothing, nil, none},
		}},
		{"a leave that is taken here of an indexer that is not listed", []step{
			{0, say(leave(granted, "me", full)), nothing, []string{"left me"}, isLeft},
		}},
		{"a leave that is told", []step{
			{0, say(lease(told, "n1", full)), joined, []string{"joined n1"}, listed},
			{sec, say(leave(told, "n2", sec+full)), left, []string{"left n2"}, isLeft},
			{2 * sec, say(leave(told, "n3", 2*sec+full)), nothing, nil, isLeft},
		}},
		{"a leave that is told between the end and the sweep", []step{
			{0, say(lease(told, "n1", 10*sec)), joined, []string{"joined n1"}, listed},
			{11 * sec, say(leave(told, "n2", full)), gone, []string{"expired n1"}, isLeft},
		}},
		{"a leave that is told beside a lease that stands against it", []step{
			{0, say(lease(granted, "me", 30*sec)), joined, []string{"joined me"}, mine},
			{sec, say(leave(told, "n2", full)), nothing, nil, mine},
			{31 * sec, nil, gone, []string{"expired me"}, isLeft},
			{67 * sec, nil, nothing, nil, none},
		}},
		{"a lease after a leave", []step{
			{0, say(leave(granted, "me", full)), nothing, []string{"left me"}, isLeft},
			{sec, say(lease(granted, "me", sec+full)), joined, []string{"joined me"}, mine},
		}},
		{"a record is told of once, and again after another native's", []step{
			{0, say(record), joined, []string{"joined me+"}, mine},
			{57 * sec, say(ticked(lease(granted, "me", 57*sec+full), record, 1)), nothing, []string{"renewed me"}, mine},
			{58 * sec, say(signed(lease(granted, "me", 58*sec+full), 58, 0)), nothing, []string{"renewed me+"}, mine},
			{59 * sec, say(other), nothing, []string{"renewed n1+"}, listed},
			{60 * sec, say(ticked(lease(granted, "me", 60*sec+full), other, 1)), nothing, []string{"renewed me+"}, mine},
		}},
		{"an indexer that signs is remembered", []step{
			{0, say(signed(lease(granted, "me", full), 0, 0)), joined, []string{"joined me+"}, mine},
			{67 * sec, nil, gone, []string{"expired me"}, remembered},
			{time.Hour + 29*sec, nil, nothing, nil, remembered}, {time.Hour + 31*sec, nil, nothing, nil, none},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newShelf(t)
			for i, s := range c.steps {
				var got became
				if s.say != nil {
					got = b.hears(*s.say, later(s.at))
				} else if expired, _ := b.sweep(later(s.at)); len(expired) > 0 {
					got.expired = true
				}
				if got != s.became {
					t.Errorf("step %d: it became %+v, want %+v", i, got, s.became)
				}
				if told := b.told(); !slices.Equal(told, s.told) {
					t.Errorf("step %d: told %q, want %q", i, told, s.told)
				}
				if counts := b.counts(); counts != s.counts {
					t.Errorf("step %d: held, listed, granted, in order and in leaves are %v, want %v", i, counts, s.counts)
				}
			}
		})
	}
}

// What is not this native's own word is looked up shortly before it ends, once.
func TestWhatEndsSoonIsLookedUp(t *testing.T) {
	const full = 66 * sec
	for _, c := range []struct {
		name  string
		w     word
		echo  bool // another native has announced it too
		ahead bool
	}{
		{"granted here", lease(granted, "me", full), false, false}, {"granted here, and announced by another native", lease(granted, "me", full), true, true},
		{"told", lease(told, "n1", full), false, true}, {"the store's", lease(stored, "n1", full), false, true},
	} {
		b := newShelf(t)
		b.hears(c.w, noon)
		b.s.record("x").set(echoed, c.echo)
		looked := 0
		for at := sec; at < full; at += sec {
			_, ahead := b.sweep(later(at))
			if len(ahead) > 0 && at < 63*sec {
				t.Errorf("%s: looked up after %v", c.name, at)
			}
			looked += len(ahead)
		}
		if (looked == 1) != c.ahead || looked > 1 {
			t.Errorf("%s: looked up %d times", c.name, looked)
		}
		b.hears(lease(c.w.source, c.w.native.Value(), 65*sec+full), later(65*sec))
		if r := b.s.record("x"); r.is(lookedAhead) || r.is(echoed) {
			t.Errorf("%s: after a renewal it counts as looked up: %+v", c.name, r)
		}
	}
}

// Who has expired and is remembered keeps nobody out.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	table := newTable(DefaultTTLPolicy(), Bounds{Entries: 8}) // two of them
	for i := range 5 {
		id := ports.PeerID(fmt.Sprint("x", i))
		s := table.shard(id)
		next, err := accepts.say(&holding{}, signed(lease(told, "n1", sec), 0, 0), true, noon)
		if err != nil {
			t.Fatal(err)
		}
		s.apply(s.insert(id), &next, noon)
	}
	for i := range table.shards {
		table.shards[i].sweep(func() moment { return later(3 * sec) })
	}
	if table.len() != 2 || table.listed.Load() != 0 {
		t.Errorf("%d are remembered and %d listed", table.len(), table.listed.Load())
	}
}
