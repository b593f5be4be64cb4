package domain

import (
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// numbersOf are News of a native's indexers with those numbers.
func numbersOf(native ports.PeerID, left time.Duration, numbers func(yield func(uint32) bool)) *ports.News {
	told := &ports.News{}
	for n := range numbers {
		c := toldLease(indexerOf(native, int(n)), native, left)
		c.Number = n
		told.Changes = append(told.Changes, c)
	}
	return told
}

func until(end, step uint32) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for n := uint32(1); n < end && yield(n); n += step {
		}
	}
}

// crowd is a registry with room for so many indexers, and ledgers with as little room. Natives tell it of their indexers.
type crowd struct {
	*Registry
	ledgers map[ports.PeerID]*ledger
}

func newCrowd(t *testing.T, room int) crowd {
	r, _ := sharedRegistry(t, room)
	r.ledgers.most = looseBytes * room
	return crowd{r, map[ports.PeerID]*ledger{}}
}

// tell has native tell n, and reports whether the last refusal was for the room of the ledgers.
func (c crowd) tell(native ports.PeerID, n *ports.News) (full bool) {
	l := c.ledgers[native]
	if l == nil {
		l = newLedger(c.settings.Bounds)
		c.ledgers[native] = l
	}
	return errors.Is(c.takeNews(native, l, n, 0).why, errLedger)
}

func (c crowd) bytes() (all int) {
	for _, l := range c.ledgers {
		all += l.bytes()
	}
	return all
}

func TestANumberTakesAsMuchAsALedgerCounts(t *testing.T) {
	if is := unsafe.Sizeof(numbered{}); is != numberBytes {
		t.Errorf("a number takes %d B, and %d are counted", is, numberBytes)
	}
	if is := unsafe.Sizeof(new([pageSize]numbered)); is != placeBytes {
		t.Errorf("a place takes %d B, and %d are counted", is, placeBytes)
	}
}

// Many natives tell numbers without entries in the table: the table is full, or the numbers are far apart.
func TestAttackNumbersWithoutEntriesCostAllNativesTogetherABoundedMemory(t *testing.T) {
	for name, step := range map[string]uint32{"side by side": 1, "far apart": 500} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 800)
			const liars = 30
			full := false
			for i := range liars {
				id := ports.PeerID(fmt.Sprintf("liar%d", i))
				full = c.tell(id, numbersOf(id, time.Minute, until(3000*step, step))) || full
			}
			words := 4 * 800
			if all, most := c.bytes(), liars*ledgerBytes+c.Registry.ledgers.most+heldBytes*words; all > most || !full {
				t.Errorf("the ledgers take %d B, want %d at most; refused %t", all, most, full)
			}
			// The native with entries here has all its numbers, and so has a trusted native.
			honest, trusted := c.tell("honest", numbersOf("honest", time.Minute, until(100, 1))), c.tell("trusted", numbersOf("trusted", time.Minute, until(5000, 1)))
			if honest || trusted || c.ledgers["honest"].count != 99 || c.ledgers["trusted"].count != 4999 {
				t.Errorf("an honest native was refused %t, with %d numbers, and a trusted %t, with %d", honest, c.ledgers["honest"].count, trusted, c.ledgers["trusted"].count)
			}
		})
	}
}

// The table has room, so no number is refused, in whatever order they come.
func TestANativeWithManyEntriesHereHasAllItsNumbers(t *testing.T) {
	const many = 8000
	c := newCrowd(t, 8*many)
	for i := range 6 { // they tell as many as may have no entries
		id := ports.PeerID(fmt.Sprintf("liar%d", i))
		c.tell(id, numbersOf(id, -1, until(10_000, 1)))
	}
	order := func(yield func(uint32) bool) {
		for n := uint32(1); n <= many && yield(n*7919%(many+1)); n++ {
		}
	}
	if full := c.tell("honest", numbersOf("honest", time.Minute, order)); full || c.ledgers["honest"].count != many {
		t.Errorf("refused %t, with %d numbers of %d", full, c.ledgers["honest"].count, many)
	}
	if err := c.settle(c.ledgers["honest"], "honest"); err != nil || c.ledgers["honest"].loose != 0 {
		t.Errorf("settled with %v, and %d loose bytes", err, c.ledgers["honest"].loose)
	}
}

// The natives' entries end, while their numbers stand.
func TestAttackNumbersWhoseEntriesHaveEndedAreCountedAgain(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const liars, many = 20, 4000
		c := newCrowd(t, 8*many)
		lost := 0
		for i := range liars {
			id := ports.PeerID(fmt.Sprintf("liar%d", i))
			if c.tell(id, numbersOf(id, time.Second, until(many, 1))) {
				t.Fatalf("%s is refused while the table has its entries", id)
			}
			time.Sleep(5 * time.Second)
			c.sweep()
			for id, l := range c.ledgers {
				if errors.Is(c.settle(l, id), errLoose) { // its watch ends, and tells all anew
					c.drop(l)
					delete(c.ledgers, id)
					lost++
				}
			}
		}
		if most := liars*ledgerBytes + c.Registry.ledgers.most; c.bytes() > most || lost == 0 {
			t.Errorf("the ledgers take %d B, want %d at most; %d natives lost theirs", c.bytes(), most, lost)
		}
		for id, l := range c.ledgers {
			c.drop(l)
			delete(c.ledgers, id)
		}
		if c.Registry.ledgers.taken != 0 {
			t.Errorf("without ledgers %d B are counted", c.Registry.ledgers.taken)
		}
	})
}
