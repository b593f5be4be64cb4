package domain

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencloud/ocnode/ports"
	"github.com/opencloud/ocnode/ports/porttest"
)

// The renewals of leases that ended here meanwhile come by their numbers alone: each is asked for once
// more, however many they are.
func TestAFollowerThatHeardNothingForATTLListsAllAgainWithinAHeartbeat(t *testing.T) {
	const many = 3000
	porttest.FakeTime(t, func(t *testing.T) {
		p := newPair(t, nil)
		defer func() { p.reader.stop() }()
		renew := func() {
			for i := range many {
				p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
			}
		}
		renew()
		p.pass(1)
		p.spoiled(func(b ports.Batch) []ports.Batch { // the stream stays open, and is silent
			b.News = nil
			return []ports.Batch{b}
		})
		for range 2 {
			p.pass(50)
			renew()
		}
		p.pass(5)
		p.spoiled(nil)
		renew()
		p.pass(20)
		if live, _ := p.hearer.Counts(); live != many {
			t.Errorf("%d of %d are listed", live, many)
		}
	})
}

// A native refuses what it does not trust. It asks for that less and less often, until its list is
// another.
func TestIndexersThatCameOnTheListAreListedAtTheirNextHeartbeat(t *testing.T) {
	const many = 400
	porttest.FakeTime(t, func(t *testing.T) {
		trusted := false
		p := newPair(t, func(r *Rules, _ *Settings) {
			r.Indexers = func(ports.PeerID) bool { return trusted }
		})
		defer func() { p.reader.stop() }()
		beat := func() {
			for i := range many {
				p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
				if i%20 == 0 {
					time.Sleep(time.Second)
				}
			}
			p.pass(40)
		}
		for range 10 {
			beat()
		}
		p.between(func() { trusted = true })
		p.hearer.Revise()
		beat()
		if live, _ := p.hearer.Counts(); live != many {
			t.Errorf("%d of %d are listed", live, many)
		}
	})
}

// The same is true of those that had no room.
func TestIndexersWithoutRoomAreListedAFewHeartbeatsAfterThereIsRoom(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		const room = 20
		p := newPair(t, func(_ *Rules, s *Settings) {
			s.Bounds = Bounds{Entries: room, Trusted: func(ports.PeerID) bool { return true }}
		})
		defer func() { p.reader.stop() }()
		gone := 0
		beat := func() {
			for i := gone; i < 2*room; i++ {
				p.registers(t, ports.PeerID(fmt.Sprintf("x%d", i)), "/a")
			}
			p.pass(60)
		}
		for range 20 {
			beat()
		}
		gone = room
		for range 6 {
			beat()
		}
		if live, _ := p.hearer.Counts(); live != room {
			t.Errorf("%d of %d are listed", live, room)
		}
	})
}

// A native that answers no question may renew what is not held here as often as it likes.
func TestRenewalsOfWhatIsNotHeldTakeNoMemory(t *testing.T) {
	porttest.FakeTime(t, func(t *testing.T) {
		r, _ := bareRegistry(t, "me", func(r *Rules, _ *Settings) {
			r.Indexers = func(ports.PeerID) bool { return false }
		})
		l := newLedger(r.settings.Bounds)
		const many = 50
		told := &ports.News{}
		for i := range uint32(many) {
			c := toldLease(ports.PeerID(fmt.Sprintf("x%d", i)), "n1", time.Minute)
			c.Number = i + 1
			told.Changes = append(told.Changes, c)
			told.Renewals = append(told.Renewals, ports.Renewal{Number: i + 1, Remaining: time.Minute, ExpiresAt: time.Now().Add(time.Minute).UnixNano()})
		}
		r.takeNews("n1", l, told, 0)
		told.Changes = nil
		for range 1000 {
			r.takeNews("n1", l, told, 0)
		}
		if len(l.missing) > 2*many+maxWhole {
			t.Errorf("%d numbers are to be asked for, of %d", len(l.missing), many)
		}
		for i := range uint32(many) {
			l.free(i + 1)
		}
		if ranges, count := l.gaps(); count > 0 {
			t.Errorf("it asks for %v, which stand for nothing", ranges)
		}
	})
}
