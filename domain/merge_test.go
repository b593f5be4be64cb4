package domain

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unique"

	"pgregory.net/rapid"

	"github.com/opencloud/ocnode/ports"
)

// noon is when everything is said in the tests of the rule, which need no clock and no network.
var noon = moment{at: Instant{time.Hour}, wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}

// later is noon and d.
func later(d time.Duration) moment { return moment{noon.at.Add(d), noon.wall.Add(d)} }

// sec is what the tables of this file count in.
const sec = time.Second

// lease returns a bare lease of native, at the address a, that ends so long after noon by both
// clocks.
func lease(s source, native ports.PeerID, lasts time.Duration) word {
	return word{addr: "a", native: unique.Make(native), source: s, deadline: noon.at.Add(lasts), expiresAt: noon.wall.Add(lasts).UnixNano()}
}

// leave returns a bare leave that native took.
func leave(s source, native ports.PeerID, lasts time.Duration) word {
	w := lease(s, native, lasts)
	w.addr, w.leave = "", true
	return w
}

// at returns w with another address.
func at(w word, addr string) word { w.addr = addr; return w }

// by returns w with another end by the clock of its native.
func by(w word, lasts time.Duration) word {
	w.expiresAt = noon.wall.Add(lasts).UnixNano()
	return w
}

// signed returns w with a proof: the record of that number, issued so many seconds from noon,
// and a step of its chain.
func signed(w word, seq int, step uint32) word { return started(w, seq, step, 1) }

// started is signed by that start of the indexer.
func started(w word, seq int, step uint32, start uint64) word {
	issued := noon.wall.Add(time.Duration(seq) * sec).UnixMilli()
	c := &ports.Claim{PeerID: "x", Seq: issued, Start: start, TTL: 66 * sec, Interval: 57 * sec, Anchor: ports.Link{1}}
	if w.leave {
		c.Interval, c.Anchor = 0, ports.Link{}
	} else {
		c.Addrs = []string{w.addr}
	}
	w.proof = &ports.Proof{Claim: c, Tick: ports.Tick{Seq: issued, Step: step}, Record: []byte("record")}
	w.expiresAt = c.ExpiresAt(step).UnixNano()
	return w
}

// unproven returns w as a native grants it whose clock the record does not pass.
func unproven(w word) word { w.unproven = true; return w }

var accepts, refuses = rule{DefaultTTLPolicy(), PlainAccept}, rule{DefaultTTLPolicy(), PlainRefuse}

// say is merge of a word that stays as it is.
func (r rule) say(h *holding, w word, room bool, now moment) (holding, error) {
	return r.merge(h, &w, room, now)
}

// table says what is shown of h at now.
func (r rule) table(h *holding, now moment) string {
	shown := r.shown(h, now.at)
	switch {
	case shown == nil && h.leave(now.at) != nil:
		return "left"
	case shown == nil:
		return "nobody"
	}
	text := [...]string{"stored", "told", "granted"}[shown.source] + " " + string(shown.native.Value())
	if shown.addr != "a" {
		text += " at " + shown.addr
	}
	return text
}

// why names an error of merge in a few letters.
func why(err error) string {
	if fault, ok := errors.AsType[*ports.ProofError](err); ok {
		return string(fault.Fault)
	}
	return map[error]string{nil: "", errFull: "full", errKnown: "known", errEnded: "ended", errUntrusted: "untrusted", ErrExpired: "expired"}[err]
}

// Each row is a sentence of docs/protocol.md, "Which of two counts", "What is remembered" and
// "A leave", or one behind them. Two words are said in both orders, and what is shown then is
// the same, unless the row says otherwise.
func TestWhichOfTwoWordsCounts(t *testing.T) {
	const full = 66 * sec
	for _, c := range []struct {
		sentence string
		first    word
		second   word
		want     string        // shown after both
		reversed string        // shown after the second, and then the first; "" if it is the same
		refused  string        // why the second changes nothing after the first
		back     string        // why the first changes nothing after the second
		after    time.Duration // and what is shown so much later
		then     string
	}{
		// Leases that the indexer did not sign.
		{sentence: "a lease granted here goes before one that is told", first: lease(granted, "me", 30*sec), second: lease(told, "n1", full), want: "granted me", after: 30 * sec, then: "told n1"},
		{sentence: "a lease granted here goes before one that the store has", first: lease(granted, "me", 30*sec), second: lease(stored, "n1", full), want: "granted me", after: 30 * sec, then: "stored n1"},
		{sentence: "a lease that is told goes before one that the store has", first: lease(told, "n1", 30*sec), second: lease(stored, "n2", full), want: "told n1", after: 30 * sec, then: "stored n2"},
		{sentence: "a lease that is told goes on where the store's ends", first: lease(stored, "n2", 30*sec), second: lease(told, "n1", full), want: "told n1", after: 30 * sec, then: "told n1"},
		{sentence: "of two leases that are told, the longer one is shown", first: lease(told, "n1", 40*sec), second: lease(told, "n2", 60*sec), want: "told n2", after: 40 * sec, then: "told n2"},
		{sentence: "of two leases that are told, the shorter one is no end", first: at(lease(told, "n1", 60*sec), "b"), second: lease(told, "n2", 40*sec), want: "told n1 at b", after: 60 * sec, then: "nobody"},
		{sentence: "of one native's leases the later counts, however short", first: lease(told, "n1", full), second: at(lease(told, "n1", 10*sec), "b"), want: "told n1 at b", reversed: "told n1", after: 10 * sec, then: "nobody"},
		{sentence: "of two leases of the store the later ExpiresAt counts", first: lease(stored, "n1", 30*sec), second: lease(stored, "n2", 40*sec), want: "stored n2", back: "known", after: 40 * sec, then: "nobody"},
		{sentence: "the store's lease that ends as the other does is no news", first: lease(stored, "n1", 30*sec), second: lease(stored, "n2", 30*sec), want: "stored n1", reversed: "stored n2", refused: "known", back: "known"},
		{sentence: "what the store has of a lease that its native tells is no second lease", first: lease(told, "n1", 30*sec), second: by(lease(stored, "n1", 50*sec), 30*sec), want: "told n1", refused: "known", after: 30 * sec, then: "nobody"},
		{sentence: "what the store has of a lease granted here is no second lease", first: lease(granted, "me", 30*sec), second: by(lease(stored, "me", 50*sec), 30*sec), want: "granted me", refused: "known", after: 30 * sec, then: "nobody"},
		{sentence: "what the store has of a later lease of a native that tells follows on it", first: lease(told, "n1", 30*sec), second: lease(stored, "n1", 50*sec), want: "told n1", after: 30 * sec, then: "stored n1"},
		{sentence: "once a heartbeat is overdue here, a later lease of the same address is shown", first: lease(granted, "me", 5*sec), second: lease(told, "n1", full), want: "told n1", after: 5 * sec, then: "told n1"},
		{sentence: "once a heartbeat is overdue here, a lease of another address waits for the end", first: lease(granted, "me", 5*sec), second: at(lease(told, "n1", full), "b"), want: "granted me", after: 5 * sec, then: "told n1 at b"},
		{sentence: "once a heartbeat is overdue here, what the store has waits for the end", first: lease(granted, "me", 5*sec), second: lease(stored, "n1", full), want: "granted me", after: 5 * sec, then: "stored n1"},
		{sentence: "once a heartbeat is overdue here, an earlier lease that is told is not shown", first: lease(granted, "me", 5*sec), second: lease(told, "n1", 4*sec), want: "granted me"},
		{sentence: "before a heartbeat is overdue here, no other lease is shown", first: lease(granted, "me", 6*sec), second: lease(told, "n1", full), want: "granted me", after: sec, then: "told n1"},

		// Leases that the indexer signed.
		{sentence: "a signed lease goes before a bare one that was told", first: lease(told, "n1", full), second: signed(at(lease(told, "n2", 30*sec), "b"), 0, 0), want: "told n2 at b", back: "rank", after: 30 * sec, then: "nobody"},
		{sentence: "a signed lease of the store goes before a bare one that was told", first: lease(told, "n1", full), second: signed(at(lease(stored, "n2", 30*sec), "b"), 0, 0), want: "stored n2 at b", back: "rank", after: 30 * sec, then: "nobody"},
		{sentence: "a signed lease that is told does not displace a bare one granted here", first: lease(granted, "me", 30*sec), second: signed(at(lease(told, "n1", full), "b"), 0, 0), want: "granted me", after: 30 * sec, then: "told n1 at b"},
		{sentence: "a signed lease with another address displaces the one before", first: signed(lease(granted, "me", full), 0, 0), second: signed(at(lease(told, "n1", 30*sec), "b"), 1, 0), want: "told n1 at b", back: "older", after: 30 * sec, then: "nobody"},
		{sentence: "a signed lease of another start displaces the one before", first: signed(lease(granted, "me", full), 0, 0), second: started(lease(told, "n1", 30*sec), 1, 0, 2), want: "told n1", back: "older", after: 30 * sec, then: "nobody"},
		{sentence: "a new record that says the same does not displace what is granted here", first: signed(lease(granted, "me", 30*sec), 0, 0), second: signed(lease(told, "n1", full), 1, 0), want: "granted me", reversed: "told n1", back: "older", after: 30 * sec, then: "told n1"},
		{sentence: "an older record is refused", first: signed(lease(told, "n1", 30*sec), 1, 0), second: signed(lease(told, "n2", full), 0, 1), want: "told n1", reversed: "told n2", refused: "older", after: 30 * sec, then: "nobody"},
		{sentence: "an older tick is refused", first: signed(lease(told, "n1", full), 0, 2), second: signed(lease(told, "n2", 60*sec), 0, 1), want: "told n1", refused: "older"},
		{sentence: "the same tick is another native's word", first: signed(lease(told, "n1", 30*sec), 0, 1), second: signed(lease(told, "n2", 40*sec), 0, 1), want: "told n2", after: 30 * sec, then: "told n2"},
		{sentence: "of two leases that end at once the newer tick is shown", first: signed(lease(told, "n1", 30*sec), 0, 1), second: signed(lease(told, "n2", 30*sec), 0, 2), want: "told n2", back: "older"},
		{sentence: "of two leases that end at once, of one tick, the native that sorts first is shown", first: signed(lease(told, "n1", 30*sec), 0, 1), second: signed(lease(told, "n2", 30*sec), 0, 1), want: "told n1"},
		{sentence: "no native takes back what is proven by telling less", first: signed(lease(told, "n1", full), 0, 1), second: signed(lease(told, "n1", sec), 0, 1), want: "told n1", after: 60 * sec, then: "told n1"},
		{sentence: "no native hides an indexer by telling a newer tick with less left", first: signed(lease(told, "n1", full), 0, 1), second: signed(lease(told, "n2", sec), 0, 2), want: "told n1", reversed: "told n2", back: "older", after: 60 * sec, then: "told n1"},
		{sentence: "a newer record of the store counts in the place of an older one", first: signed(lease(stored, "n1", 30*sec), 0, 0), second: signed(lease(stored, "n2", 40*sec), 0, 1), want: "stored n2", back: "older", after: 30 * sec, then: "stored n2"},
		{sentence: "the same record of the store is no news", first: signed(lease(stored, "n1", 30*sec), 0, 0), second: signed(lease(stored, "n2", 40*sec), 0, 0), want: "stored n1", reversed: "stored n2", refused: "known", back: "known"},
		{sentence: "a bare lease of others is refused of an indexer that signs", first: signed(lease(granted, "me", 30*sec), 0, 0), second: lease(told, "n1", full), want: "granted me", refused: "rank", after: 30 * sec, then: "nobody"},
		{sentence: "a bare lease granted here counts also of an indexer that signs", first: signed(lease(told, "n1", full), 0, 0), second: at(lease(granted, "me", 30*sec), "b"), want: "granted me at b", after: 30 * sec, then: "told n1"},

		// Leaves that the indexer did not sign.
		{sentence: "granted here, left here: the later counts", first: lease(granted, "me", 60*sec), second: leave(granted, "me", full), want: "left", reversed: "granted me"},
		{sentence: "granted here, the leave told: never", first: lease(granted, "me", 30*sec), second: leave(told, "n1", full), want: "granted me", after: 30 * sec, then: "left"},
		{sentence: "granted here, the leave the store's: never", first: lease(granted, "me", 30*sec), second: leave(stored, "n1", full), want: "granted me", after: 30 * sec, then: "left"},
		{sentence: "told, the leave the store's: never", first: lease(told, "n1", 30*sec), second: leave(stored, "n2", full), want: "told n1", after: 30 * sec, then: "left"},
		{sentence: "told, the leave the same native's: its clock decides, for the leave", first: by(lease(told, "n1", full), 40*sec), second: by(leave(told, "n1", 50*sec), 41*sec), want: "left", back: "ended"},
		{sentence: "told, the leave the same native's: its clock decides, for the lease", first: by(lease(told, "n1", 40*sec), 41*sec), second: by(leave(told, "n1", 50*sec), 40*sec), want: "told n1"},
		{sentence: "told, the leave the same native's: at one instant it is the leave", first: lease(told, "n1", 40*sec), second: leave(told, "n1", 40*sec), want: "left", back: "ended"},
		{sentence: "told, the leave another native's: this native's clock decides, for the leave", first: by(lease(told, "n1", 40*sec), 60*sec), second: by(leave(told, "n2", 41*sec), 30*sec), want: "left", back: "ended"},
		{sentence: "told, the leave another native's: this native's clock decides, for the lease", first: by(lease(told, "n1", 41*sec), 30*sec), second: by(leave(told, "n2", 40*sec), 60*sec), want: "told n1"},
		{sentence: "told, the leave another native's: at one instant it is the leave", first: lease(told, "n1", 40*sec), second: leave(told, "n2", 40*sec), want: "left", back: "ended"},
		{sentence: "told, left here: this native's clock decides", first: lease(told, "n1", 60*sec), second: leave(granted, "me", full), want: "left", back: "ended"},
		{sentence: "told after it left here: the lease counts", first: leave(granted, "me", 40*sec), second: lease(told, "n1", full), want: "told n1", reversed: "left"},
		{sentence: "told before it left here, by a clock that is ahead: the leave counts", first: by(lease(told, "n1", 40*sec), 99*sec), second: leave(granted, "me", full), want: "left", back: "ended"},
		{sentence: "the store's before it left here, by a clock that is ahead: the leave counts", first: by(lease(stored, "n1", 40*sec), 99*sec), second: leave(granted, "me", full), want: "left", reversed: "stored n1"},
		{sentence: "the store's, a leave told: the ExpiresAt decides, for the leave", first: by(lease(stored, "n1", full), 40*sec), second: by(leave(told, "n2", 50*sec), 41*sec), want: "left", back: "ended"},
		{sentence: "the store's, a leave told: the ExpiresAt decides, for the lease", first: by(lease(stored, "n1", 40*sec), 42*sec), second: by(leave(told, "n2", 50*sec), 41*sec), want: "stored n1"},
		{sentence: "the store's, the leave the store's: at one instant it is the leave", first: lease(stored, "n1", 40*sec), second: leave(stored, "n1", 40*sec), want: "left", back: "ended"},
		{sentence: "of two leaves of one native its clock decides", first: by(leave(told, "n1", 40*sec), 50*sec), second: by(leave(told, "n1", 60*sec), 40*sec), want: "left", refused: "known", after: 41 * sec, then: "nobody"},
		{sentence: "of two leaves of two natives the later counts", first: leave(told, "n1", 60*sec), second: by(leave(told, "n2", 40*sec), 90*sec), want: "left", refused: "known", after: 50 * sec, then: "left"},
		{sentence: "a leave that a native tells and one that the store has are both remembered", first: leave(told, "n1", 40*sec), second: leave(stored, "n2", 60*sec), want: "left", after: 50 * sec, then: "left"},
		{sentence: "a leave that the store has and a later one that a native tells are both remembered", first: leave(stored, "n2", 40*sec), second: leave(told, "n1", 60*sec), want: "left", after: 50 * sec, then: "left"},
		{sentence: "of two leaves of the store the later ExpiresAt counts", first: leave(stored, "n1", 60*sec), second: leave(stored, "n2", 40*sec), want: "left", refused: "known", after: 50 * sec, then: "left"},

		// Leaves that the indexer signed.
		{sentence: "a signed leave ends a lease of a lower Seq, granted here", first: signed(lease(granted, "me", full), 0, 3), second: signed(leave(told, "n1", full), 1, 0), want: "left", back: "older"},
		{sentence: "a signed leave ends a lease of a lower Seq, told", first: signed(lease(told, "n1", full), 0, 0), second: signed(leave(stored, "n2", full), 1, 0), want: "left", back: "older"},
		{sentence: "a signed leave does not end a lease of a higher Seq", first: signed(leave(granted, "me", full), 0, 0), second: signed(lease(told, "n1", 30*sec), 1, 0), want: "told n1", back: "older", after: 30 * sec, then: "nobody"},
		{sentence: "a signed leave ends bare leases that were told", first: lease(told, "n1", full), second: signed(leave(told, "n2", 30*sec), 0, 0), want: "left", back: "rank"},
		{sentence: "a signed leave ends bare leases of the store", first: lease(stored, "n1", full), second: signed(leave(told, "n2", 30*sec), 0, 0), want: "left", back: "rank"},
		{sentence: "a signed leave that is told does not end a bare lease granted here", first: lease(granted, "me", 30*sec), second: signed(leave(told, "n1", full), 0, 0), want: "granted me", after: 30 * sec, then: "left"},
		{sentence: "a signed leave that is taken here ends a bare lease granted here", first: lease(granted, "me", 30*sec), second: signed(leave(granted, "me", full), 0, 0), want: "left", reversed: "granted me"},
		{sentence: "a bare leave that is told ends no signed lease", first: signed(lease(told, "n1", 30*sec), 0, 0), second: leave(told, "n2", full), want: "told n1", refused: "rank", after: 30 * sec, then: "nobody"},
		{sentence: "a bare leave that the store has ends no signed lease", first: signed(lease(stored, "n1", 30*sec), 0, 0), second: leave(stored, "n2", full), want: "stored n1", refused: "rank", after: 30 * sec, then: "nobody"},
		{sentence: "a bare leave that is taken here ends a signed lease that was told", first: signed(lease(told, "n1", full), 0, 0), second: leave(granted, "me", full), want: "left", reversed: "told n1"},
		{sentence: "a bare leave that is taken here ends a signed lease that was granted here", first: signed(lease(granted, "me", full), 0, 0), second: leave(granted, "me", full), want: "left", reversed: "granted me"},
		{sentence: "a signed leave counts before a bare one", first: leave(told, "n1", full), second: signed(leave(told, "n2", 30*sec), 0, 0), want: "left", back: "rank", after: 40 * sec, then: "nobody"},
		{sentence: "a signed leave that every native hands on is known", first: signed(leave(told, "n1", full), 0, 0), second: signed(leave(stored, "n2", full), 0, 0), want: "left", refused: "known", back: "known"},
		{sentence: "a signed leave that is taken here counts in the place of the same one told", first: signed(leave(told, "n1", 30*sec), 0, 0), second: signed(leave(granted, "me", full), 0, 0), want: "left", back: "known", after: 40 * sec, then: "left"},
		{sentence: "a bare leave that is taken here counts in the place of a signed one of others", first: signed(leave(told, "n1", 90*sec), 0, 0), second: leave(granted, "me", full), want: "left", after: 70 * sec, then: "nobody"},
		{sentence: "a bare leave that is taken here is known after a signed one taken here", first: signed(leave(granted, "me", full), 0, 0), second: leave(granted, "me", full), want: "left", refused: "known"},
		{sentence: "of two signed leaves the higher Seq counts", first: signed(leave(told, "n1", full), 0, 0), second: signed(leave(told, "n2", 30*sec), 1, 0), want: "left", back: "older", after: 40 * sec, then: "nobody"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			reversed := c.reversed
			if reversed == "" {
				reversed = c.want
			}
			for _, order := range []struct {
				name  string
				words [2]word
				want  string
				why   string
			}{{"in this order", [2]word{c.first, c.second}, c.want, c.refused}, {"reversed", [2]word{c.second, c.first}, reversed, c.back}} {
				h, err := accepts.say(&holding{}, order.words[0], true, noon)
				if err != nil {
					t.Fatalf("%s: the first word is refused: %v", order.name, err)
				}
				h, err = accepts.say(&h, order.words[1], true, noon)
				if why(err) != order.why {
					t.Errorf("%s: the second word changes nothing since %q (%v), want %q", order.name, why(err), err, order.why)
				}
				if got := accepts.table(&h, noon); got != order.want {
					t.Errorf("%s: shown is %q, want %q", order.name, got, order.want)
				}
				if order.name == "in this order" && c.after > 0 {
					now := later(c.after)
					if got := accepts.table(&h, now); got != c.then {
						t.Errorf("%v later shown is %q, want %q", c.after, got, c.then)
					}
					if kept := h.at(now); accepts.table(&kept, now) != c.then {
						t.Errorf("%v later, without what has ended, shown is %q, want %q", c.after, accepts.table(&kept, now), c.then)
					}
				}
				// A word that is said again changes nothing that is shown.
				again, _ := accepts.say(&h, order.words[1], true, noon)
				if got, want := accepts.table(&again, noon), accepts.table(&h, noon); got != want {
					t.Errorf("%s: said again, shown is %q, want %q", order.name, got, want)
				}
			}
		})
	}
}

// Each row is a sentence about three or more words, or about what is remembered.
func TestWhatCountsAfterMore(t *testing.T) {
	const full = 66 * sec
	say := func(w word) func(*testing.T, rule, *holding, moment) string {
		return func(_ *testing.T, r rule, h *holding, now moment) string {
			next, err := r.say(h, w, true, now)
			*h = next
			return why(err)
		}
	}
	type step struct {
		at   time.Duration
		say  word
		why  string
		want string
	}
	record := signed(lease(granted, "me", 30*sec), 0, 0)
	for _, c := range []struct {
		sentence string
		rule     rule
		steps    []step
	}{
		{"a lease granted before a leave does not list the leaver again", accepts, []step{
			{0, lease(told, "n1", 60*sec), "", "told n1"}, {0, leave(told, "n2", 62*sec), "", "left"},
			{0, lease(told, "n3", 64*sec), "", "told n3"}, {0, lease(told, "n4", 61*sec), "ended", "told n3"}, {0, lease(told, "n3", 10*sec), "ended", "told n3"},
			{64 * sec, lease(told, "n1", 60*sec), "expired", "nobody"},
		}},
		{"a leave is remembered beside a lease that stands against it, for what comes after", accepts, []step{
			{0, lease(granted, "me", 20*sec), "", "granted me"}, {0, leave(told, "n1", 50*sec), "", "granted me"},
			{0, lease(told, "n2", 40*sec), "ended", "granted me"}, {20 * sec, leave(told, "n1", 50*sec), "known", "left"}, {50 * sec, lease(told, "n2", full), "", "told n2"},
		}},
		{"a later leave of the store is remembered beside one that a native tells", accepts, []step{
			{0, leave(told, "n1", 60*sec), "", "left"}, {0, leave(stored, "n2", 62*sec), "", "left"}, {0, lease(stored, "n2", 61*sec), "ended", "left"},
			{0, lease(told, "n3", 61*sec), "", "told n3"},
		}},
		{"an earlier leave of the store is remembered beside one that a native tells", accepts, []step{
			{0, leave(stored, "n2", 60*sec), "", "left"}, {0, by(leave(told, "n1", 62*sec), 10*sec), "", "left"}, {0, by(lease(stored, "n3", 61*sec), 20*sec), "ended", "left"},
			{0, lease(told, "n3", 61*sec), "ended", "left"},
		}},
		{"an older leave does not undo a newer", accepts, []step{
			{0, leave(told, "n1", 60*sec), "", "left"}, {0, leave(told, "n2", 40*sec), "known", "left"}, {0, lease(told, "n3", 50*sec), "ended", "left"},
		}},
		{"an older signed leave does not undo a newer", accepts, []step{
			{0, signed(leave(told, "n1", full), 2, 0), "", "left"}, {0, signed(leave(granted, "me", full), 1, 0), "older", "left"}, {0, signed(lease(told, "n1", full), 2, 0), "older", "left"},
		}},
		{"a leave that does not count ends what it ends all the same", accepts, []step{
			{0, leave(told, "n1", 60*sec), "", "left"}, {0, by(lease(told, "n2", 62*sec), 30*sec), "", "told n2"},
			{0, by(leave(told, "n2", 50*sec), 31*sec), "", "left"}, {0, lease(told, "n3", 55*sec), "ended", "left"},
		}},
		{"a lease follows on another, and one on that", accepts, []step{
			{0, lease(granted, "me", 20*sec), "", "granted me"}, {0, at(lease(told, "n1", 40*sec), "b"), "", "granted me"}, {0, at(lease(told, "n2", 30*sec), "c"), "", "granted me"},
			{0, at(lease(stored, "n3", 60*sec), "d"), "", "granted me"}, {20 * sec, lease(told, "n4", 20*sec), "expired", "told n1 at b"},
			{40 * sec, lease(told, "n4", 20*sec), "expired", "stored n3 at d"}, {60 * sec, lease(told, "n4", 20*sec), "expired", "nobody"},
		}},
		{"of two leases that stand in and end at once, the native that sorts first is shown", accepts, []step{
			{0, lease(granted, "me", 5*sec), "", "granted me"}, {0, lease(told, "n1", full), "", "told n1"}, {0, lease(told, "n2", full), "", "told n1"},
		}},
		{"of two leases that stand in and end at once, the native that sorts first is shown, though it tells last", accepts, []step{
			{0, lease(granted, "me", 5*sec), "", "granted me"}, {0, lease(told, "n2", full), "", "told n2"}, {0, lease(told, "n1", full), "", "told n1"},
		}},
		{"a lease that ends with the one that is overdue does not stand in", accepts, []step{
			{0, lease(granted, "me", 5*sec), "", "granted me"}, {0, lease(told, "n1", 5*sec), "", "granted me"},
		}},
		{"no native takes back what is proven behind a lease granted here", accepts, []step{
			{0, record, "", "granted me"}, {0, ticked(lease(told, "n1", 60*sec), record, 1), "", "granted me"},
			{0, ticked(lease(told, "n1", 10*sec), record, 2), "", "granted me"}, {30 * sec, lease(told, "n1", sec), "expired", "told n1"},
			{59 * sec, lease(told, "n1", sec), "expired", "told n1"}, {60 * sec, lease(told, "n1", sec), "expired", "nobody"},
		}},
		{"of more than four leases the last in order goes", accepts, []step{
			{0, lease(granted, "me", 5*sec), "", "granted me"}, {0, lease(told, "n1", 10*sec), "", "told n1"}, {0, lease(told, "n2", 30*sec), "", "told n2"},
			{0, lease(told, "n3", 20*sec), "", "told n2"}, {0, lease(stored, "n4", full), "", "told n2"}, {30 * sec, lease(told, "n5", sec), "expired", "nobody"},
		}},
		{"of more than four leases a better one comes in", accepts, []step{
			{0, lease(told, "n1", 10*sec), "", "told n1"}, {0, lease(told, "n2", 11*sec), "", "told n2"}, {0, lease(told, "n3", 12*sec), "", "told n3"},
			{0, lease(told, "n4", 13*sec), "", "told n4"}, {0, lease(told, "n5", 14*sec), "", "told n5"}, {0, lease(told, "n5", 9*sec), "", "told n4"},
		}},
		{"the tick that ended does not list again", accepts, []step{
			{0, signed(lease(told, "n1", 30*sec), 0, 1), "", "told n1"}, {30 * sec, signed(lease(told, "n2", full), 0, 1), "older", "nobody"},
			{30 * sec, signed(lease(told, "n2", full), 0, 2), "", "told n2"},
		}},
		{"the tick that ended lists again where the indexer itself brings it", accepts, []step{
			{0, signed(lease(granted, "me", 30*sec), 0, 1), "", "granted me"}, {30 * sec, signed(lease(granted, "me", full), 0, 1), "", "granted me"},
		}},
		{"until the record's hour is over, nothing counts that others say and the indexer did not sign", accepts, []step{
			{0, signed(lease(told, "n1", 30*sec), 0, 0), "", "told n1"}, {31 * sec, lease(told, "n2", full), "rank", "nobody"},
			{31 * sec, leave(told, "n2", full), "rank", "nobody"}, {time.Hour + 29*sec, lease(told, "n2", 2*time.Hour), "rank", "nobody"},
			{time.Hour + 30*sec, lease(told, "n2", 2*time.Hour), "", "told n2"},
		}},
		{"a record is remembered behind a bare lease granted here", accepts, []step{
			{0, signed(lease(granted, "me", 30*sec), 0, 1), "", "granted me"}, {0, lease(granted, "me", 20*sec), "", "granted me"},
			{0, lease(told, "n1", full), "rank", "granted me"}, {20 * sec, signed(lease(told, "n1", full), 0, 0), "older", "nobody"},
		}},
		{"a record is remembered behind a bare leave taken here", accepts, []step{
			{0, signed(lease(granted, "me", 30*sec), 0, 1), "", "granted me"}, {0, leave(granted, "me", full), "", "left"},
			{0, lease(told, "n1", 2*full), "rank", "left"}, {0, signed(lease(told, "n1", full), 0, 1), "older", "left"}, {0, signed(lease(told, "n1", full), 0, 2), "", "told n1"},
		}},
		{"a signed leave ends leases of a lower Seq also if it comes after a newer record", accepts, []step{
			{0, signed(lease(told, "n1", full), 0, 1), "", "told n1"}, {0, signed(lease(told, "n2", 20*sec), 2, 0), "", "told n1"},
			{0, signed(leave(told, "n1", full), 1, 0), "", "told n2"}, {0, signed(leave(told, "n1", full), 1, 0), "older", "told n2"}, {20 * sec, signed(lease(told, "n1", full), 0, 3), "older", "nobody"},
		}},
		{"a signed leave before the newest record that ends nothing is refused", accepts, []step{
			{0, signed(lease(told, "n1", full), 2, 1), "", "told n1"}, {0, signed(leave(told, "n1", full), 1, 0), "older", "told n1"},
		}},
		{"once an indexer signs, a bare leave of before ends nothing", accepts, []step{
			{0, leave(told, "n1", full), "", "left"}, {0, signed(lease(told, "n2", 20*sec), 0, 0), "", "told n2"}, {20 * sec, leave(told, "n1", full), "rank", "nobody"},
		}},
		{"a record that no word holds any more is remembered after the last that does", accepts, []step{
			{0, signed(lease(told, "n1", 30*sec), 0, 1), "", "told n1"}, {0, signed(lease(told, "n1", 10*sec), 0, 2), "", "told n1"},
			{30 * sec, signed(lease(told, "n2", full), 0, 2), "older", "nobody"}, {30 * sec, signed(lease(told, "n2", full), 0, 1), "older", "nobody"},
		}},
		{"a bare lease does not stand against a signed leave", accepts, []step{
			{0, signed(leave(granted, "me", full), 0, 0), "", "left"}, {0, lease(told, "n1", 2*full), "rank", "left"}, {0, lease(stored, "n1", 2*full), "rank", "left"},
			{0, lease(granted, "me", 20*sec), "", "granted me"},
		}},
		{"a lease granted here stands against a leave told elsewhere", accepts, []step{
			{0, leave(told, "n1", full), "", "left"}, {0, lease(granted, "me", 20*sec), "", "granted me"}, {0, leave(told, "n2", 2*full), "", "granted me"}, {20 * sec, leave(told, "n1", full), "known", "left"},
		}},
		{"a native that refuses plain indexers lists what is signed alone", refuses, []step{
			{0, lease(granted, "me", full), "untrusted", "nobody"}, {0, lease(told, "n1", full), "untrusted", "nobody"}, {0, lease(stored, "n1", full), "untrusted", "nobody"},
			{0, signed(lease(told, "n1", 20*sec), 0, 0), "", "told n1"}, {20 * sec, unproven(lease(granted, "me", 40*sec)), "", "granted me"},
			{21 * sec, leave(granted, "me", 87*sec), "", "left"},
		}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			var h holding
			for i, s := range c.steps {
				now := later(s.at)
				if got := say(s.say)(t, c.rule, &h, now); got != s.why {
					t.Errorf("step %d: it changes nothing since %q, want %q", i, got, s.why)
				}
				if got := c.rule.table(&h, now); got != s.want {
					t.Errorf("step %d: shown is %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// What is held says what this native has to put, what it knows of records, and when nothing more
// is to be remembered.
func TestWhatIsHeldTellsWhatItHas(t *testing.T) {
	all := func(words ...word) (h holding) {
		t.Helper()
		for _, w := range words {
			next, err := accepts.say(&h, w, true, noon)
			if err != nil {
				t.Fatalf("%+v: %v", w, err)
			}
			h = next
		}
		return h
	}
	mine, theirs, left := lease(granted, "me", 20*sec), lease(told, "n1", 30*sec), leave(granted, "me", 40*sec)
	for _, c := range []struct {
		name string
		h    holding
		at   time.Duration
		own  bool
		gone bool // it is a leave
	}{
		{"nothing", holding{}, 0, false, false},
		{"a lease granted here", all(mine), 0, true, false},
		{"a lease granted here and one that is told", all(theirs, mine), 0, true, false},
		{"a lease granted here, at its end", all(mine), 20 * sec, false, false},
		{"a lease that is told, once the one granted here has ended", all(theirs, mine), 20 * sec, false, false},
		{"a lease that is told", all(theirs), 0, false, false},
		{"a leave taken here", all(mine, left), 0, true, true},
		{"a leave taken here, at its end", all(mine, left), 40 * sec, false, false},
		{"a leave that is told", all(leave(told, "n1", 40*sec)), 0, false, false},
		{"a lease that is told after a leave taken here", all(left, lease(told, "n1", 50*sec)), 0, false, false},
		{"a lease granted here after a leave taken here", all(left, mine), 0, true, false},
		{"a leave taken here, once the lease after it has ended", all(left, mine), 20 * sec, true, true},
	} {
		own := c.h.own(later(c.at).at)
		if (own != nil) != c.own || own != nil && own.leave != c.gone {
			t.Errorf("%s: this native has %+v to put", c.name, own)
		}
		if lease := c.h.lease(later(c.at).at); lease != nil && !lease.live(later(c.at).at) {
			t.Errorf("%s: %+v has ended", c.name, lease)
		}
	}

	first, second, third := signed(lease(granted, "me", 20*sec), 0, 3), signed(lease(told, "n1", 60*sec), 1, 0), signed(lease(told, "n2", 50*sec), 1, 2)
	h := all(first, second, third)
	if h.newest() != third.proof || h.proof(first.proof.Claim.Seq) != first.proof || h.proof(third.proof.Claim.Seq) != third.proof || h.proof(7) != nil {
		t.Errorf("known are %+v", h)
	}
	if bye := signed(leave(told, "n1", 60*sec), 2, 0); true {
		left := all(first, bye)
		if left.newest() != bye.proof || left.proof(bye.proof.Claim.Seq) != bye.proof {
			t.Errorf("after a leave known are %+v", left)
		}
	}
	ended := h.at(later(60 * sec))
	until, only := ended.remembered()
	if ended.newest() != third.proof || ended.proof(third.proof.Claim.Seq) != third.proof || ended.proof(first.proof.Claim.Seq) != nil || !only || until != noon.at.Add(sec+time.Hour+ports.ClockAllowance) {
		t.Errorf("after all leases known are %+v until %v, %v", ended, until, only)
	}
	if over := ended.at(moment{until, noon.wall.Add(until.Sub(noon.at))}); !over.empty() || ended.empty() {
		t.Errorf("after the record's hour known are %+v", over)
	}
	for name, h := range map[string]holding{"nothing": {}, "a lease": all(mine), "a lease behind another": h, "a leave": all(mine, left)} {
		if _, only := h.remembered(); only || h.empty() != (name == "nothing") {
			t.Errorf("%s: remembered %t, empty %t", name, only, h.empty())
		}
	}
}

// A holding takes no more memory than its words need, and none of a word that has ended.
func TestAHoldingIsNoLargerThanItsWords(t *testing.T) {
	more := func(now moment, h holding, words ...word) holding {
		t.Helper()
		for _, w := range words {
			next, err := accepts.say(&h, w, true, now)
			if err != nil {
				t.Fatalf("%+v: %v", w, err)
			}
			h = next
		}
		return h
	}
	all := func(now moment, words ...word) holding { return more(now, holding{}, words...) }
	mine, theirs := lease(granted, "me", 20*sec), lease(told, "n1", 30*sec)
	mineSigned := signed(mine, 0, 0)
	first, second := signed(lease(told, "n1", 60*sec), 0, 0), signed(lease(told, "n2", 50*sec), 1, 0)
	for _, c := range []struct {
		name   string
		h      holding
		leases int // beside the first; -1 if there is no rest
		leave  bool
		proof  bool
	}{
		{"a lease", all(noon, mine), -1, false, false},
		{"a lease that is told", all(noon, theirs), -1, false, false},
		{"a signed lease", all(noon, first), -1, false, false},
		{"a lease that is renewed", all(noon, theirs, lease(told, "n1", 40*sec)), -1, false, false},
		{"two leases", all(noon, mine, theirs), 1, false, false},
		{"two signed leases, the newer behind the other", all(noon, first, second), 1, false, false},
		{"a leave", all(noon, mine, leave(granted, "me", 40*sec)), 0, true, false},
		{"a signed leave", all(noon, first, signed(leave(told, "n1", 60*sec), 2, 0)), 0, true, false},
		{"a bare lease of an indexer that has signed", all(noon, signed(mine, 0, 0), mine), 0, false, true},
		{"the second of two leases, once the first has ended", func() holding { h := all(noon, mine, theirs); return h.at(later(20 * sec)) }(), -1, false, false},
		{"a lease, once the leave beside it has ended", func() holding { h := all(noon, leave(told, "n1", 10*sec), mine); return h.at(later(10 * sec)) }(), -1, false, false},
		{"the older of two signed leases", func() holding { h := all(noon, first, second); return h.at(later(50 * sec)) }(), 0, false, true},
		{"a lease whose tick is older than the newest", func() holding {
			h := all(noon, mineSigned, ticked(lease(told, "n1", 10*sec), mineSigned, 1))
			return h.at(later(10 * sec))
		}(), 0, false, true},
		{"a lease whose tick is the newest again", func() holding {
			h := all(noon, mineSigned, ticked(lease(told, "n1", 10*sec), mineSigned, 1))
			h = h.at(later(10 * sec))
			return more(later(10*sec), h, ticked(lease(granted, "me", 30*sec), mineSigned, 2))
		}(), -1, false, false},
		{"a leave, once the lease beside it has ended", func() holding { h := all(noon, leave(told, "n1", 30*sec), mine); return h.at(later(20 * sec)) }(), 0, true, false},
		{"revised, once the lease beside it has ended", func() holding { h := all(noon, mine, theirs); return accepts.revise(h, later(20*sec)) }(), -1, false, false},
	} {
		got := -1
		if c.h.rest != nil {
			got = len(c.h.rest.leases)
		}
		if got != c.leases || got >= 0 && ((c.h.rest.leaves != (leaves{})) != c.leave || (c.h.rest.proof != nil) != c.proof) {
			t.Errorf("%s: %+v beside the first lease", c.name, c.h.rest)
		}
		// Where nothing has ended, nothing is made anew.
		if again := c.h.at(noon); again.rest != c.h.rest {
			t.Errorf("%s: read again, it is another", c.name)
		}
	}
	// The record alone ends, beside a lease and a leave that do not.
	h := all(noon, signed(mine, 0, 0), lease(granted, "me", 2*time.Hour))
	for _, end := range []struct {
		after time.Duration
		proof bool
	}{{time.Hour + 30*sec - 1, true}, {time.Hour + 30*sec, false}} {
		if got := h.at(later(end.after)); (got.newest() != nil) != end.proof || got.lease(later(end.after).at) == nil {
			t.Errorf("%v later it is %+v", end.after, got.rest)
		}
	}
	one := all(noon, first)
	if one.proof(7) != nil || one.proof(first.proof.Claim.Seq) != first.proof {
		t.Error("of one lease its record is not found")
	}
	older, newest := signed(mine, 0, 2).proof, signed(mine, 1, 0).proof
	for _, c := range []struct{ p, q, want *ports.Proof }{
		{nil, nil, nil}, {older, nil, older}, {nil, older, older}, {older, newest, newest}, {newest, older, newest}, {older, older, older},
		{older, signed(mine, 0, 2).proof, older}, {older, signed(mine, 0, 1).proof, older},
	} {
		if got := newer(c.p, c.q); got != c.want {
			t.Errorf("of %+v and %+v the newer is %+v", c.p, c.q, got)
		}
	}
}

// A word is an entry as it was said.
func TestAWordIsAnEntry(t *testing.T) {
	seen, ends := noon.wall.Add(-sec), noon.wall.Add(20*sec)
	meta := map[string]string{"zone": "a"}
	for _, c := range []struct {
		name  string
		addrs []string
		meta  map[string]string
		seen  time.Time
		leave bool
	}{
		{"one address", []string{"a"}, nil, time.Time{}, false}, {"two addresses", []string{"a", "b"}, nil, seen, false},
		{"one address and metadata", []string{"a"}, meta, seen, false}, {"all of it", []string{"a", "b"}, meta, seen, false},
		{"a leave without an address", nil, nil, seen, true},
	} {
		w := lease(told, "n1", 20*sec)
		if w.leave = c.leave; c.leave {
			w.addr = ""
		}
		if !c.seen.IsZero() {
			w.seenAt = c.seen.UnixNano()
		}
		w.details = detailsOf(c.addrs, c.meta)
		if (w.details == nil) != (len(c.addrs) < 2 && c.meta == nil) {
			t.Errorf("%s takes details: %+v", c.name, w.details)
		}
		want := Entry{PeerID: "x", Addr: w.addr, Addrs: c.addrs, Meta: c.meta, Native: "n1", SeenAt: c.seen, ExpiresAt: ends, Leave: c.leave}
		if got := w.entry("x"); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", c.name, got, want)
		}
		if v, want := w.version(), want.Version(); v.Compare(want) != 0 || v.Leave != c.leave {
			t.Errorf("%s is as new as %+v, want %+v", c.name, v, want)
		}
	}
	proven := signed(lease(told, "n1", 20*sec), 1, 2)
	if v := proven.version(); v.Seq != proven.proof.Claim.Seq || v.Step != 2 || proven.entry("x").Proof != proven.proof {
		t.Errorf("a signed word is as new as %+v", v)
	}

	one := func(addr string, addrs []string, meta map[string]string) word {
		return word{addr: addr, details: detailsOf(addrs, meta)}
	}
	plain, two, zone := one("a", nil, nil), one("a", []string{"a", "b"}, nil), one("a", nil, meta)
	for _, c := range []struct {
		w, o word
		want bool
	}{
		{plain, plain, true}, {plain, one("b", nil, nil), false}, {plain, two, false}, {two, plain, false}, {plain, zone, false}, {two, zone, false},
		{two, two, true}, {two, one("a", []string{"a", "b"}, nil), true}, {two, one("a", []string{"a", "c"}, nil), false},
		{zone, one("a", []string{"a"}, map[string]string{"zone": "a"}), false}, {zone, one("a", nil, map[string]string{"zone": "a"}), true},
		{zone, one("a", nil, map[string]string{"zone": "b"}), false}, {one("a", []string{"a", "b"}, meta), two, false},
	} {
		if c.w.same(&c.o) != c.want {
			t.Errorf("%+v %+v and %+v %+v are the same: %t", c.w, c.w.details, c.o, c.o.details, !c.want)
		}
	}
}

// A word counts until its deadline and not at it.
func TestAWordEndsAtItsDeadline(t *testing.T) {
	for _, c := range []struct {
		at   time.Duration
		want string
	}{{10*sec - 1, "told n1"}, {10 * sec, "nobody"}, {10*sec + 1, "nobody"}} {
		h, err := accepts.say(&holding{}, lease(told, "n1", 10*sec), true, noon)
		if err != nil {
			t.Fatal(err)
		}
		if got := accepts.table(&h, later(c.at)); got != c.want {
			t.Errorf("after %v shown is %q, want %q", c.at, got, c.want)
		}
		_, err = accepts.say(&holding{}, lease(told, "n1", 10*sec), true, later(c.at))
		if expired := errors.Is(err, ErrExpired); expired != (c.want == "nobody") {
			t.Errorf("said %v after noon: %v", c.at, err)
		}
		l, err := accepts.say(&holding{}, leave(told, "n1", 10*sec), true, noon)
		if got := accepts.table(&l, later(c.at)); err != nil || (got == "left") != (c.want != "nobody") {
			t.Errorf("a leave, after %v: %q, %v", c.at, got, err)
		}
	}
}

// Words about an indexer of which something is held need no room in a full table.
func TestAFullTableTakesNobodyIn(t *testing.T) {
	held, err := accepts.say(&holding{}, lease(told, "n1", 20*sec), true, noon)
	if err != nil {
		t.Fatal(err)
	}
	remembered, err := accepts.say(&holding{}, signed(lease(told, "n1", sec), 0, 0), true, noon)
	if err != nil {
		t.Fatal(err)
	}
	remembered = remembered.at(later(sec))
	for _, w := range []word{
		lease(granted, "me", 30*sec), lease(told, "n2", 30*sec), lease(stored, "n2", 30*sec), signed(lease(told, "n2", 30*sec), 1, 0),
		leave(granted, "me", 30*sec), leave(told, "n2", 30*sec), signed(leave(told, "n2", 30*sec), 1, 0),
	} {
		if h, err := accepts.say(&holding{}, w, false, noon); !errors.Is(err, errFull) || !h.empty() {
			t.Errorf("%+v: %v", w, err)
		}
		if _, err := accepts.say(&held, w, false, noon); err != nil {
			t.Errorf("%+v of an indexer that is listed: %v", w, err)
		}
		if w.proof == nil && w.source != granted {
			continue
		}
		if _, err := accepts.say(&remembered, w, false, later(sec)); err != nil {
			t.Errorf("%+v of an indexer that is remembered: %v", w, err)
		}
	}
	// What does not count is not told to be lacking room.
	if _, err := refuses.say(&holding{}, lease(told, "n1", 20*sec), false, noon); !errors.Is(err, errUntrusted) {
		t.Errorf("a plain lease where they are refused: %v", err)
	}
}

func TestReviseDropsWhatIsBelievedNoMore(t *testing.T) {
	var h holding
	for _, w := range []word{lease(granted, "me", 20*sec), lease(told, "n1", 30*sec), leave(told, "n2", 10*sec)} {
		var err error
		if h, err = accepts.say(&h, w, true, noon); err != nil {
			t.Fatal(err)
		}
	}
	if got := accepts.revise(h, noon); accepts.table(&got, noon) != "granted me" {
		t.Errorf("with nothing changed, shown is %q", accepts.table(&got, noon))
	}
	if got := refuses.revise(h, noon); refuses.table(&got, noon) != "left" {
		t.Errorf("of bare leases and a leave, shown is %q", refuses.table(&got, noon))
	}
	h, err := accepts.say(&h, signed(at(lease(told, "n3", 40*sec), "b"), 0, 1), true, noon)
	if err != nil {
		t.Fatal(err)
	}
	h = refuses.revise(h, noon)
	if got := refuses.table(&h, noon); got != "told n3 at b" {
		t.Errorf("beside a signed lease, shown is %q", got)
	}
	for _, w := range []word{unproven(lease(granted, "me", 20*sec)), signed(lease(granted, "me", 20*sec), 0, 0)} {
		h, err := accepts.say(&holding{}, w, true, noon)
		if err != nil {
			t.Fatal(err)
		}
		if got := refuses.revise(h, noon); refuses.table(&got, noon) != "granted me" {
			t.Errorf("of %+v shown is %q", w, refuses.table(&got, noon))
		}
	}
	// The record of an indexer is remembered though no lease of it stands.
	signs, err := accepts.say(&holding{}, signed(lease(granted, "me", 20*sec), 0, 0), true, noon)
	if err == nil {
		signs, err = accepts.say(&signs, lease(granted, "me", 30*sec), true, noon)
	}
	if err != nil {
		t.Fatal(err)
	}
	signs = refuses.revise(signs, noon)
	if until, only := signs.remembered(); !only || until != noon.at.Add(time.Hour+ports.ClockAllowance) {
		t.Errorf("remembered until %v: %v", until, only)
	}
}

// What merge is given stays as it was: a reader may hold it.
func TestMergeChangesNothingThatItIsGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h holding
		for _, w := range history(t) {
			before := fmt.Sprintf("%+v %+v", h, h.rest)
			words := 0
			h.leases(func(*word) bool { words++; return true })
			next, _ := accepts.say(&h, w.word, true, noon)
			if after := fmt.Sprintf("%+v %+v", h, h.rest); after != before {
				t.Fatalf("held was %s, and is %s", before, after)
			}
			if words > maxLeases {
				t.Fatalf("%d leases are held", words)
			}
			h = next
		}
	})
}

// event is a word of a history, and the native whose word it is: natives keep their own order.
type event struct {
	word
	teller string
}

// history draws what natives and a store say of one indexer that registers and leaves here and
// there. It is the truth: each native tells what it granted and took, and the store has what some
// of that put. The indexer is plain, or signs all that it says.
func history(t *rapid.T) (events []event) {
	signs := rapid.Bool().Draw(t, "signs")
	natives := []ports.PeerID{"me", "n1", "n2", "n3"}
	start, addr, seq, step := uint64(1), "a", 0, uint32(0)
	now := 0
	for range rapid.IntRange(1, 8).Draw(t, "events") {
		now += rapid.IntRange(1, 8).Draw(t, "seconds")
		native := rapid.SampledFrom(natives).Draw(t, "native")
		lasts := time.Duration(now) * sec
		s := told
		if native == "me" {
			s = granted
		}
		var w word
		switch does := rapid.SampledFrom([]string{"renews", "renews", "renews", "moves", "restarts", "leaves"}).Draw(t, "does"); {
		case does == "leaves":
			w = leave(s, native, lasts)
			if signs {
				seq, step = now, 0
				w = started(w, seq, 0, start)
				seq++ // whatever comes after has a record of its own
			}
		default:
			if does == "moves" {
				addr += "'"
			}
			if does == "restarts" {
				start++
			}
			if does != "renews" {
				seq, step = now, 0
			}
			w = at(lease(s, native, lasts), addr)
			if signs {
				w = started(w, seq, step, start)
				step++
			}
		}
		events = append(events, event{w, string(native)})
		// What is put has the proof, and else ends by the clock of its native, as all clocks agree.
		if rapid.IntRange(0, 2).Draw(t, "put") == 0 && native != "me" {
			put := w
			put.source = stored
			events = append(events, event{put, "store " + string(native)})
		}
	}
	return events
}

// The same words in any order, each native's in its own, and any number of times, end in the same
// table, at once and whenever a lease ends.
func TestTheSameWordsEndInTheSameTable(t *testing.T) {
	for _, r := range []rule{accepts, refuses} {
		t.Run(string(r.plain), func(t *testing.T) {
			shown := map[string]int{}
			rapid.Check(t, func(t *rapid.T) {
				events := history(t)
				tables := func(order []event) string {
					var h holding
					for _, e := range order {
						h, _ = r.say(&h, knowing(&h, e.word), true, noon)
					}
					var all []string
					for d := time.Duration(0); d < 80*sec; d += sec / 2 {
						all = append(all, r.table(&h, later(d)))
					}
					return strings.Join(slices.Compact(all), ", ")
				}
				want := tables(events)
				shown[want]++
				random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
				for range 5 {
					order := shuffled(random, events)
					if got := tables(order); got != want {
						t.Fatalf("in order the table is %s\nand %s after\n%s", want, got, say(order))
					}
				}
			})
			if len(shown) < 10 && r.plain == PlainAccept {
				t.Errorf("only %d tables were seen", len(shown))
			}
		})
	}
}

// knowing returns a lease that is granted here with the newest tick of the record: what a native
// holds of it that is newer, it takes for the indexer's.
func knowing(h *holding, w word) word {
	newest := h.newest()
	if w.source == granted && !w.leave && w.proof != nil && newest != nil && newest.Claim.Start == w.proof.Claim.Start && slices.Equal(newest.Claim.Addrs, w.proof.Claim.Addrs) {
		w.proof = newer(newest, w.proof)
	}
	return w
}

// shuffled returns the events in another order, with some of them more than once: each teller's
// go on in its own order, and from any place on again.
func shuffled(random *rand.Rand, events []event) (order []event) {
	queues := map[string][]event{}
	for _, e := range events {
		queues[e.teller] = append(queues[e.teller], e)
	}
	at := map[string]int{}
	tellers := make([]string, 0, len(queues))
	for _, e := range events {
		if !slices.Contains(tellers, e.teller) {
			tellers = append(tellers, e.teller)
		}
	}
	for len(tellers) > 0 {
		i := random.Intn(len(tellers))
		// This native hears at once what the indexer says to it, and of others later than it was said.
		if mine := queues["me"]; at["me"] < len(mine) && mine[at["me"]].deadline.Before(queues[tellers[i]][at[tellers[i]]].deadline) {
			i = slices.Index(tellers, "me")
		}
		teller := tellers[i]
		if at[teller] > 0 && random.Intn(4) == 0 {
			at[teller] -= random.Intn(2) // the last one again
		}
		order = append(order, queues[teller][at[teller]])
		if at[teller]++; at[teller] == len(queues[teller]) {
			tellers = slices.Delete(tellers, i, i+1)
		}
	}
	return order
}

func say(order []event) string {
	var b strings.Builder
	for _, e := range order {
		kind := "lease"
		if e.leave {
			kind = "leave"
		}
		fmt.Fprintf(&b, "%s: %s at %s until %v", e.teller, kind, e.addr, e.deadline.Sub(noon.at))
		if e.proof != nil {
			fmt.Fprintf(&b, ", record %d step %d start %d", e.proof.Claim.Seq-noon.wall.UnixMilli(), e.proof.Tick.Step, e.proof.Claim.Start)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
