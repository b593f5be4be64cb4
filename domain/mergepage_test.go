package domain

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"
	"unique"

	"github.com/opencloud/ocnode/ports"
)

// page is what a native holds of an indexer by the rows of docs/protocol.md, "Which of two counts"
// and "A leave", taken word for word. It is slow, and knows nothing of merge.go.
type page struct {
	leases []word
	leaves [2]*word // one of natives or signed, and a bare one of the DHT's
	newest *ports.Proof
	rows   map[int]int // how often each row has decided
}

func (p *page) row(n int) int { p.rows[n]++; return n }

// comes has the page hold w, and returns the row by which it changes nothing, 0 if it is held.
func (p *page) comes(w word, plain Plain, room bool, now Instant) int {
	p.leases = slices.DeleteFunc(slices.Clone(p.leases), func(l word) bool { return !now.Before(l.deadline) })
	for i, leave := range p.leaves {
		if leave != nil && !now.Before(leave.deadline) {
			p.leaves[i] = nil
		}
	}
	signed, others := w.proof != nil, w.source != granted
	sameLeave := w.leave && signed && p.leaves[0] != nil && p.leaves[0].proof != nil && p.leaves[0].proof.Claim.Seq == w.proof.Claim.Seq
	kind := 0
	if w.source == stored && !signed {
		kind = 1
	}
	isEnded := func(l *word) bool {
		return p.leaves[0] != nil && p.ends(l, p.leaves[0], false) || p.leaves[1] != nil && p.ends(l, p.leaves[1], false)
	}
	ends := w.leave && slices.ContainsFunc(p.leases, func(l word) bool { return p.ends(&l, &w, true) })
	switch {
	case !now.Before(w.deadline):
		return p.row(1)
	case !w.leave && !signed && !w.unproven && plain == PlainRefuse:
		return p.row(2)
	case sameLeave && others:
		return p.row(3)
	case !signed && !w.unproven && others && p.newest != nil:
		return p.row(4)
	case signed && !ends && p.newest != nil && compareProofs(w.proof, p.newest) < 0:
		return p.row(5)
	case signed && others && p.newest != nil && compareProofs(w.proof, p.newest) == 0 && len(p.leases) == 0:
		return p.row(6)
	case !w.leave && isEnded(&w):
		return p.row(7)
	case !w.leave && !signed && w.source == stored && slices.ContainsFunc(p.leases, func(l word) bool {
		return l.proof == nil && l.source != stored && l.native == w.native && l.expiresAt >= w.expiresAt
	}):
		return p.row(8)
	case !w.leave && w.source == stored && slices.ContainsFunc(p.leases, func(l word) bool {
		return l.source == stored && l.version().Compare(w.version()) >= 0
	}):
		return p.row(9)
	case w.leave && p.leaves[kind] != nil && !p.replaces(&w, p.leaves[kind]) && !ends:
		return p.row(10)
	case !room && len(p.leases) == 0 && p.leaves == [2]*word{} && p.newest == nil:
		return p.row(11)
	}
	older := signed && p.newest != nil && compareProofs(w.proof, p.newest) < 0
	if signed && !older {
		p.newest = w.proof
	}
	if w.leave {
		p.leases = slices.DeleteFunc(p.leases, func(l word) bool { return p.ends(&l, &w, true) })
		if !older && (p.leaves[kind] == nil || p.replaces(&w, p.leaves[kind])) {
			p.leaves[kind] = &w
			if signed {
				p.leaves[1] = nil
			}
		}
		return 0
	}
	p.leases = slices.DeleteFunc(p.leases, func(l word) bool { return p.dropped(&w, &l) })
	if signed {
		p.leaves = [2]*word{}
	}
	at := slices.IndexFunc(p.leases, func(l word) bool { return goesFirst(&w, &l) })
	if at < 0 {
		at = len(p.leases)
	}
	p.leases = slices.Insert(p.leases, at, w)
	p.leases = p.leases[:min(4, len(p.leases))]
	return 0
}

// dropped reports whether the lease l is not held beside the new lease w.
func (p *page) dropped(w, l *word) bool {
	signed, was := w.proof != nil, l.proof != nil
	switch {
	case signed && !was && l.source != granted:
		return p.row(12) > 0
	case signed && was && l.proof.Claim.Seq < w.proof.Claim.Seq && (l.proof.Claim.Start != w.proof.Claim.Start || !l.same(w)):
		return p.row(13) > 0
	case !signed && w.source != stored && !was && l.source == stored && l.native == w.native && l.expiresAt <= w.expiresAt:
		return p.row(14) > 0
	case w.source == granted && l.source == granted:
		return p.row(15) > 0
	case signed && w.source == told && was && l.source == told && l.native == w.native:
		w.deadline = latest(w.deadline, l.deadline)
		return p.row(16) > 0
	case w.source == told && l.source == told && l.native == w.native:
		return p.row(17) > 0
	case w.source == stored && l.source == stored:
		return p.row(18) > 0
	}
	return false
}

// goesFirst reports whether the lease w goes before the lease l.
func goesFirst(w, l *word) bool {
	switch {
	case w.source == granted || l.source == granted:
		return l.source != granted
	case (w.proof != nil) != (l.proof != nil):
		return w.proof != nil
	case w.source != l.source:
		return w.source == told
	}
	switch v, u := w.version(), l.version(); {
	case w.deadline != l.deadline:
		return l.deadline.Before(w.deadline)
	case v.Compare(u) != 0:
		return v.Compare(u) > 0
	}
	return w.native.Value() < l.native.Value()
}

// ends reports whether the leave ends the lease l, by a row. Of this native's own words that needs
// to know which came later.
func (p *page) ends(l, leave *word, leaveCameLater bool) bool {
	signed, by := l.proof != nil, leave.proof != nil
	is := func(row int, ends bool) bool { p.row(row); return ends }
	here := leave.source == granted && !by
	switch {
	case l.source == granted && leave.source == granted:
		return is(19, leaveCameLater)
	case here && leaveCameLater:
		return is(20, true)
	case here && signed:
		return false // the sentence after the table
	case here && l.source == told:
		return !leave.deadline.Before(l.deadline)
	case here:
		return l.expiresAt <= leave.expiresAt
	case signed && by:
		return is(21, l.proof.Claim.Seq <= leave.proof.Claim.Seq)
	case signed:
		return is(22, false)
	case l.source == granted:
		return is(23, false)
	case by:
		return is(24, true)
	case l.source == told && leave.source == stored:
		return is(25, false)
	case l.source == told && l.native == leave.native:
		return is(26, l.expiresAt <= leave.expiresAt)
	case l.source == told:
		return is(27, !leave.deadline.Before(l.deadline))
	}
	return is(28, l.expiresAt <= leave.expiresAt)
}

// replaces reports whether the leave w takes the place of the leave o, by a row.
func (p *page) replaces(w, o *word) bool {
	signed, was := w.proof != nil, o.proof != nil
	is := func(row int, does bool) bool { p.row(row); return does }
	switch {
	case w.source == granted && !signed && o.source != granted:
		return is(29, true)
	case signed != was:
		return is(30, signed)
	case signed && w.proof.Claim.Seq != o.proof.Claim.Seq:
		return is(31, w.proof.Claim.Seq > o.proof.Claim.Seq)
	case signed:
		return is(32, w.source == granted && o.source != granted)
	case w.native == o.native || w.source == stored:
		return is(33, w.expiresAt > o.expiresAt)
	}
	return is(34, o.deadline.Before(w.deadline))
}

// describe writes down all that is held.
func describe(leases []word, leaves [2]*word, newest *ports.Proof) (text string) {
	one := func(w *word) string {
		s := fmt.Sprintf("[%d %s %v %d %s", w.source, w.native.Value(), w.deadline, w.expiresAt, w.addr)
		if w.proof != nil {
			s += fmt.Sprintf(" %d/%d", w.proof.Claim.Seq, w.proof.Tick.Step)
		}
		return s + "]"
	}
	for i := range leases {
		text += one(&leases[i])
	}
	for _, leave := range leaves {
		if leave != nil {
			text += " leave " + one(leave)
		}
	}
	if newest != nil {
		text += fmt.Sprintf(" newest %d/%d", newest.Claim.Seq, newest.Tick.Step)
	}
	return text
}

// records are the claims that have been read, by Seq and Start. A verifier returns the same one for
// the same record.
type records map[[2]int64]*ports.Claim

func (r records) read(seq, start int64) *ports.Claim {
	key := [2]int64{seq, start}
	if r[key] == nil {
		r[key] = &ports.Claim{Seq: seq, Start: uint64(start), Interval: time.Minute, TTL: 66 * sec}
	}
	return r[key]
}

// anyWord makes up a word, true or not, of a few natives that agree on nothing.
func anyWord(r *rand.Rand, read records, signs bool, now Instant) word {
	w := word{source: source(r.Intn(3)), leave: r.Intn(3) == 0, addr: string(rune('a' + r.Intn(2)))}
	names := []ports.PeerID{"me", "n1", "n2", "n3", "n4"}
	if w.native = unique.Make(names[1+r.Intn(4)]); w.source == granted || w.source == stored && r.Intn(3) == 0 {
		w.native = unique.Make(names[0])
	}
	w.deadline, w.expiresAt = now.Add(time.Duration(r.Intn(8))*10*sec), int64(r.Intn(6))
	switch {
	case signs && r.Intn(3) > 0:
		seq, step := noon.wall.UnixMilli()+2*int64(r.Intn(4)), uint32(r.Intn(3))
		if w.leave {
			seq, step = seq+1, 0
		}
		w.proof = &ports.Proof{Tick: ports.Tick{Seq: seq, Step: step}, Claim: read.read(seq, int64(r.Intn(2)))}
	case w.source != stored && !w.leave:
		w.unproven = r.Intn(2) == 0
	}
	return w
}

// The rule does what the rows of the protocol's page say, whatever is said by whom.
func TestTheRuleIsThatOfTheProtocolsPage(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("### Which of two counts")) // other tables have numbers too
	rows := map[int]int{}
	for run := range 20_000 {
		r := rand.New(rand.NewSource(int64(run)))
		var h holding
		p := page{rows: rows}
		rule := rule{DefaultTTLPolicy(), PlainAccept}
		if r.Intn(8) == 0 {
			rule.plain = PlainRefuse
		}
		signs, at, read := r.Intn(3) > 0, noon.at, records{}
		for range 4 + r.Intn(8) {
			at = at.Add(time.Duration(r.Intn(4)) * 10 * sec)
			now := moment{at, noon.wall.Add(at.Sub(noon.at))}
			w, room := anyWord(r, read, signs, at), r.Intn(4) > 0
			before := describe(p.leases, p.leaves, p.newest)
			next, err := rule.say(&h, w, room, now)
			row := p.comes(w, rule.plain, room, at)
			if (err != nil) != (row != 0) {
				t.Fatalf("run %d: held is %s, and said %s, a leave: %t: %v, and by the page row %d", run, before, describe([]word{w}, [2]*word{}, nil), w.leave, err, row)
			}
			if err != nil {
				continue
			}
			var leases []word
			next.leases(func(l *word) bool { leases = append(leases, *l); return true })
			slices.SortStableFunc(leases, func(a, b word) int {
				if goesFirst(&a, &b) {
					return -1
				}
				return 1
			})
			leaves := next.leaves(at)
			got, want := describe(leases, [2]*word{leaves.said, leaves.stored}, next.newest()), describe(p.leases, p.leaves, p.newest)
			if got != want {
				t.Fatalf("run %d: held was %s, and said %s, a leave: %t:\nheld is %s\nby the page %s", run, before, describe([]word{w}, [2]*word{}, nil), w.leave, got, want)
			}
			h = next
		}
	}
	numbered := regexp.MustCompile(`(?m)^\| (\d+) \| `).FindAllSubmatch(text, -1)
	for i, m := range numbered {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil || n != i+1 || rows[n] == 0 {
			t.Errorf("row %s of the page is number %d, and has decided %d times", m[1], i+1, rows[n])
		}
	}
	if len(numbered) != 34 {
		t.Errorf("the page has %d rows, and this test knows 34", len(numbered))
	}
}
